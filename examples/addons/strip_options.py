"""A middlebox that takes options out of SYNs, as some firewalls do (options=sack_perm,timestamp,wscale).

lvlip addon load examples/addons/strip_options.py options=sack_perm,timestamp
"""

from levelip import addon
from levelip.addon import Context, Packet


@addon.frame("tcp.flags.syn")
def strip(packet: Packet, context: Context) -> None:
    names = context.options.get("options", "sack_perm,timestamp").split(",")
    there = [f"tcp.options.{name}" for name in names if f"tcp.options.{name}" in packet]
    if there:
        packet.remove(*there)
        context.emit("stripped", frame=packet, options=", ".join(there))
