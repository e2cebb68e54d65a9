"""What a transport says besides segments: that nobody took a datagram, and which groups its sockets are in."""

from __future__ import annotations

from layers.ip.commands import tell_link
from layers.ip.context import Cause, Context, Datagram
from layers.ip.icmp import parse_quote
from layers.ip.messages import report, say
from layers.ip.sending import is_local
from layers.ip.telling import tell
from levelip.frames.packet import BROADCAST, Groups, Refused
from levelip.tracing import reasons
from levelip.wire.errors import Malformed
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header, Proto


def refused(ctx: Context, frame: Refused, now: int) -> None:
    """The sender hears of it if that is allowed, and not too often (RFC 1122 3.2.2.1, 4.1.3.1)."""
    ctx.now = now
    try:
        header = Ipv4Header.parse(frame.network)
    except Malformed:
        ctx.drop(reasons.ICMP_QUOTE, frame.id)
        return
    if is_local(ctx, header.src):  # one of our own sockets sent it: it is told, and nothing goes out
        quoted = parse_quote(frame.network + frame.head)
        if quoted is not None:
            tell(ctx, frame.icmp_type, frame.icmp_code, quoted, reporter=header.dst, causes=[frame.id])
        return
    group = header.dst not in ctx.table.own or bool(frame.flags & BROADCAST)
    datagram = Datagram(header, frame.head, b"", Cause(frame.id, False, now), group)
    report(
        ctx, datagram, frame.icmp_type, lambda quoted: IcmpMessage.dest_unreachable(frame.icmp_code, quoted)
    )


def groups(ctx: Context, frame: Groups, now: int) -> None:
    """Join what is new, leave what is gone. (Which transport says it is known by there being one that can.)"""
    ctx.now = now
    user = ctx.transports.get(Proto.UDP, "udp")
    wanted = set(frame.groups)
    had = ctx.members.of(user)
    if wanted == had:
        return
    says = []
    for group in sorted(had - wanted):
        says += ctx.members.leave(group, user, now) or []
    for group in sorted(wanted - had):
        joined = ctx.members.join(group, user, now)
        if joined is None:
            ctx.drop(reasons.TOO_MANY_GROUPS, 0, group=group)
        else:
            says += joined
    tell_link(ctx)
    say(ctx, says)
