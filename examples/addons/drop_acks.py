"""Drops every tenth ACK without data that comes in (every=N: every Nth).

lvlip addon load examples/addons/drop_acks.py every=10
"""

from levelip import addon
from levelip.addon import Context, Packet


def loaded(context: Context) -> None:
    context.state.seen = 0


@addon.frame("tcp.flags.ack and tcp.len == 0 and not (tcp.flags.syn or tcp.flags.fin or tcp.flags.reset)", way="up")
def every_nth(packet: Packet, context: Context) -> None:
    context.state.seen += 1
    if context.state.seen % int(context.options.get("every", 10)) == 0:
        packet.drop()
