"""Rewrites the MSS of SYNs in both directions, as a router with a smaller MTU behind it does (mss=N).

lvlip addon load examples/addons/rewrite_mss.py mss=536
"""

from levelip import addon
from levelip.addon import Context, Packet


@addon.frame("tcp.flags.syn and tcp.options.mss_val")
def clamp(packet: Packet, context: Context) -> None:
    most = int(context.options.get("mss", 536))
    if packet["tcp.options.mss_val"] > most:
        context.log(f"MSS {packet['tcp.options.mss_val']} -> {most}: {packet}")
        packet["tcp.options.mss_val"] = most
