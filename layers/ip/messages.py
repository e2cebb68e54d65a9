"""ICMP and IGMP as they arrive, and what we send of both (RFC 792, RFC 1122 3.2.2, RFC 3376)."""

from __future__ import annotations

from collections.abc import Callable

from layers.ip import icmp as host_icmp
from layers.ip.context import MILLISECOND, Cause, Context, Datagram, proto_text
from layers.ip.exceptions import guess_mtu
from layers.ip.icmp import Action
from layers.ip.membership import Say
from layers.ip.sending import is_local, send
from layers.ip.telling import tell
from levelip.frames.packet import BROADCAST, Checksum, Segment
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire import icmp
from levelip.wire.addr import is_multicast
from levelip.wire.errors import Malformed
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import QUERY, IgmpMessage, parse_igmp
from levelip.wire.ipoptions import visited
from levelip.wire.ipv4 import IPV4_HEADER_LEN, OPTION_ROUTER_ALERT, Proto, iter_options

ROUTER_ALERT = bytes((OPTION_ROUTER_ALERT, 4, 0, 0))
"""RFC 2113 2.1: every router shall look at the packet."""
INTERNETWORK_CONTROL = 0xC0
"""TOS of IGMP version 3 (RFC 3376 4)."""

# --- ICMP in


def icmp_arrives(ctx: Context, datagram: Datagram) -> None:
    """An ICMP message for us, from outside or looped back."""
    header, head, payload, cause, group = datagram
    src, dst = header.src, header.dst
    frame = cause.frame
    if isinstance(payload, Place):
        ctx.drop(reasons.IP_NOT_INLINE, frame, src=src, dst=dst, proto=proto_text(header.proto))
        return
    ctx.counters["icmp.in"] += 1
    try:
        message = IcmpMessage.parse(head + payload)
    except Malformed:
        ctx.drop(reasons.ICMP_TRUNCATED, frame, src=src, dst=dst)
        return
    if not message.checksum_ok:
        ctx.drop(reasons.ICMP_CHECKSUM, frame, src=src, dst=dst)
        return
    ip = ctx.config.ip
    verdict = host_icmp.judge(message, group=group, echo_reply=ip.echo_reply, echo_group=not ip.echo_ignore_broadcasts)
    if isinstance(verdict, Reason):
        ctx.drop(verdict, frame, src=src, dst=dst, type=message.type, code=message.code)
    elif verdict is Action.REPLY:
        _echo(ctx, message, datagram)
    elif verdict is Action.PING:
        found = ctx.pings.reply(message, src, header.ttl, ctx.now)
        if found is None and _to_a_socket(ctx, datagram):
            return
        if found is None:
            ctx.drop(reasons.ICMP_UNASKED, frame, src=src, dst=dst, ident=message.ident, seq=message.sequence)
            return
        ctx.answer(*found)
    elif verdict is Action.TIMESTAMP:
        if len(message.payload) < host_icmp.TIMESTAMP_DATA:
            ctx.drop(reasons.ICMP_TRUNCATED, frame, src=src, dst=dst)
            return
        ctx.emit("icmp", frame, name=message.name, src=src, dst=dst)
        options = host_icmp.reflected_options(header.options, dst, ctx.now) if header.options else b""
        send_icmp(ctx, host_icmp.timestamp_reply(message, ctx.now), dst, src, cause, tos=header.tos, options=options)
    elif verdict is Action.REDIRECT:
        _redirect(ctx, message, src, dst, frame)
    else:
        _error(ctx, message, src, dst, cause)


def _to_a_socket(ctx: Context, datagram: Datagram) -> bool:
    """Hand an echo reply to udp, whose ICMP sockets may have asked for it; whether there is a udp."""
    port = ctx.transports.get(Proto.UDP)
    if port is None:
        return False
    header, head, payload, cause, _ = datagram
    assert isinstance(payload, bytes)
    causes = [cause.frame] if cause.frame else []
    options = visited(header.options, header.dst, host_icmp.stack_milliseconds(ctx.now)) if header.options else b""
    ctx.counters["in.delivered"] += 1
    reply = Segment(
        id=ctx.ids.next(), causes=causes, traced=cause.traced, ingress=cause.ingress, iface=0, src=header.src,
        dst=header.dst, proto=Proto.ICMP, ttl=header.ttl, tos=header.tos, head=head, payload=payload,
        checksum=Checksum.VERIFIED, gso_size=0, options=options,
    )  # fmt: skip
    ctx.out.append((port, reply))
    return True


def _echo(ctx: Context, message: IcmpMessage, datagram: Datagram) -> None:
    """RFC 1122 3.2.2.6: from the address that was asked, or one of ours if that is a group; 3.2.2: with its TOS."""
    header, _, _, cause, group = datagram
    if ctx.interest:
        ctx.emit("icmp", cause.frame, name=message.name, src=header.src, dst=header.dst)
    own = ctx.meant.source_for(header.src) if group else header.dst
    options = host_icmp.reflected_options(header.options, own, ctx.now) if header.options else b""
    send_icmp(ctx, IcmpMessage.echo_reply(message), own, header.src, cause, tos=header.tos, options=options)


def _error(ctx: Context, message: IcmpMessage, src: bytes, dst: bytes, cause: Cause) -> None:
    """An ICMP error: it goes to the transport whose segment it quotes (RFC 1122 3.2.2, 4.2.3.9)."""
    frame = cause.frame
    quoted = host_icmp.parse_quote(message.payload)
    if quoted is None:
        ctx.drop(reasons.ICMP_QUOTE, frame, src=src, dst=dst, type=message.type, code=message.code)
        return
    if not is_local(ctx, quoted.src):
        ctx.drop(reasons.ICMP_NOT_OURS, frame, src=src, dst=dst, quoted=quoted.src)
        return
    ctx.emit("icmp", frame, name=message.name, src=src, dst=quoted.dst, proto=proto_text(quoted.proto))
    mtu = 0
    if message.type == icmp.DEST_UNREACH and message.code == icmp.FRAG_NEEDED:
        mtu = message.mtu
        if not mtu:
            mtu = guess_mtu(quoted.total_length, quoted.header_length, path_mtu(ctx, quoted.dst))
    causes = [frame] if frame else []
    found = tell(ctx, message.type, message.code, quoted, reporter=src, causes=causes, mtu=mtu)
    if found and mtu:
        # About a request that waits, with ident and number as sent: as good a proof as there is (RFC 5927 4.1). Of a
        # transport's segments the transport judges, and says PathMtu.
        lower_path_mtu(ctx, quoted.dst, mtu, frame)


def path_mtu(ctx: Context, dst: bytes) -> int:
    """What a packet to `dst` may have, as far as is known."""
    hop = ctx.table.lookup(dst)
    return min(hop.mtu or ctx.mtu, ctx.mtu) if hop is not None else ctx.mtu


def lower_path_mtu(ctx: Context, dst: bytes, mtu: int, frame: int, *, ms: int = 0) -> None:
    """Remember a smaller path MTU for a while (RFC 1191 3); none below ip.min_pmtu is believed, as in Linux.

    A transport says for how long, `ms`, as it will go by it until then: one clock for both. What was found by a ping
    (0) is kept for ip.mtu_expires_ms. A transport that only now heard of what is known here prolongs it.
    """
    old = path_mtu(ctx, dst)
    new = max(mtu, min(ctx.config.ip.min_pmtu, old))
    hop = ctx.table.lookup(dst)
    until = ctx.now + (ms or ctx.config.ip.mtu_expires_ms) * MILLISECOND
    known = ctx.exceptions.find(dst)
    if ms and known is not None and known.mtu == new:
        ctx.exceptions.lower_mtu(dst, new, max(known.mtu_until, until))
        return
    if new >= old or hop is None or hop.local or hop.group or hop.refused:
        ctx.drop(reasons.PATH_MTU_STALE, frame, dst=dst, mtu=mtu)
        return
    ctx.counters["path_mtu_lowered"] += 1
    ctx.emit("pmtu", frame, dst=dst, old=old, new=new)
    ctx.learned(ctx.exceptions.lower_mtu(dst, new, until))


def _redirect(ctx: Context, message: IcmpMessage, src: bytes, dst: bytes, frame: int) -> None:
    """RFC 1122 3.2.2.2: from the gateway in use, to one on the link; every code counts as for the host alone."""
    ip = ctx.config.ip
    if not ip.accept_redirects or message.code > icmp.REDIR_HOSTTOS:
        ctx.drop(reasons.ICMP_REDIRECT, frame, src=src, dst=dst, code=message.code)
        return
    quoted = host_icmp.parse_quote(message.payload)
    if quoted is None:
        ctx.drop(reasons.ICMP_QUOTE, frame, src=src, dst=dst, type=message.type, code=message.code)
        return
    if quoted.src not in ctx.table.own:
        ctx.drop(reasons.ICMP_NOT_OURS, frame, src=src, dst=dst, quoted=quoted.src)
        return
    target, gateway = quoted.dst, message.gateway
    hop = ctx.table.lookup(target)
    if hop is None or hop.next_hop != src or src == target:  # nor are local, refused and group destinations its own
        ctx.drop(reasons.ICMP_REDIRECT_FROM, frame, src=src, dst=target, gateway=gateway)
        return
    known = any(route.gateway == gateway for route in ctx.meant.routes)
    if (
        not ctx.meant.on_link(gateway)
        or gateway in ctx.table.own
        or gateway in ctx.table.broadcasts
        or is_multicast(gateway)
        or gateway[0] in (0, 127, 255)
        or gateway == src
        or (ip.secure_redirects and not known)
    ):
        ctx.drop(reasons.ICMP_REDIRECT_TO, frame, src=src, dst=target, gateway=gateway)
        return
    ctx.counters["redirects"] += 1
    ctx.emit("redirect", frame, dst=target, old=src, new=gateway)
    ctx.learned(ctx.exceptions.redirect(target, gateway, ctx.now + ip.redirect_ms * MILLISECOND))


# --- ICMP out


def report(ctx: Context, datagram: Datagram, icmp_type: int, make: Callable[[bytes], IcmpMessage]) -> None:
    """Send the ICMP error `make(quote)` to a datagram's sender, if that is allowed and not too often."""
    header, head, payload, cause, group = datagram
    frame = cause.frame
    start = head if head or isinstance(payload, Place) else payload
    if not host_icmp.may_report(header, group=group, transport=start, broadcasts=ctx.table.broadcasts):
        ctx.drop(reasons.ICMP_NOT_ALLOWED, frame, src=header.src, dst=header.dst)
        return
    if ctx.config.ip.icmp_ratemask >> icmp_type & 1:
        if not ctx.limit.take(header.src, ctx.now):
            ctx.drop(reasons.ICMP_HOST_LIMITED, frame, src=header.src, dst=header.dst)
            return
        if not ctx.bucket.take(ctx.now):
            ctx.drop(reasons.ICMP_RATE_LIMITED, frame, src=header.src, dst=header.dst)
            return
    message = make(host_icmp.quote(header.serialize() + head, payload))
    ctx.counters["icmp.errors_sent"] += 1
    send_icmp(ctx, message, header.dst, header.src, cause)


def send_icmp(
    ctx: Context,
    message: IcmpMessage,
    src: bytes,
    dst: bytes,
    cause: Cause,
    *,
    tos: int = 0,
    ttl: int = 0,
    options: bytes = b"",
    dont_fragment: bool = False,
) -> None:
    """Send an ICMP message as any other segment. `ttl` 0: the default."""
    ctx.counters["icmp.out"] += 1
    data = message.serialize(fill_checksum=True)
    segment = _own_segment(src, dst, Proto.ICMP, data, cause, tos=tos, ttl=ttl, dont_fragment=dont_fragment)
    send(ctx, segment, ctx.now, options)


def _own_segment(
    src: bytes, dst: bytes, proto: int, data: bytes, cause: Cause, *, tos: int, ttl: int, dont_fragment: bool = False,
    flags: int = 0,
) -> Segment:  # fmt: skip
    """It bears the number of what caused it: this segment crosses no seam, only the packet made of it does."""
    return Segment(
        id=cause.frame,
        causes=[],
        traced=cause.traced,
        ingress=cause.ingress,
        iface=0,
        src=src,
        dst=dst,
        proto=proto,
        ttl=ttl,
        tos=tos,
        head=data,
        payload=b"",
        checksum=Checksum.NONE,
        gso_size=0,
        dont_fragment=dont_fragment,
        flags=flags,
    )


# --- IGMP


def igmp_arrives(ctx: Context, datagram: Datagram) -> None:
    """An IGMP message from outside (RFC 3376 4, 9)."""
    header, head, payload, cause, _ = datagram
    src, dst, frame = header.src, header.dst, cause.frame
    if isinstance(payload, Place):
        ctx.drop(reasons.IP_NOT_INLINE, frame, src=src, dst=dst, proto=proto_text(header.proto))
        return
    ctx.counters["igmp.in"] += 1
    try:
        message = parse_igmp(head + payload)
    except Malformed as error:
        ctx.drop(reasons.IGMP_MALFORMED, frame, src=src, dst=dst, why=error.reason)
        return
    if not message.checksum_ok:
        ctx.drop(reasons.IGMP_CHECKSUM, frame, src=src, dst=dst)
        return
    if isinstance(message, IgmpMessage) and message.type == QUERY and message.version > 1:
        alert = any(option.kind == OPTION_ROUTER_ALERT for option in iter_options(header.options))
        if not alert or header.ttl != 1:  # RFC 3376 9.1 (Linux does not look)
            ctx.drop(reasons.IGMP_NO_ALERT, frame, src=src, dst=dst, ttl=header.ttl)
            return
    ignored = ctx.members.heard(message, dst, ctx.now)
    if ignored is not None:
        ctx.drop(ignored, frame, src=src, dst=dst)
        return
    ctx.emit("igmp", frame, name=str(message), src=src, dst=dst)


def say(ctx: Context, says: list[Say]) -> None:
    """Send what the memberships have to say, on the link and no further (TTL 1), with router alert (RFC 3376 4)."""
    if not ctx.device_up():
        return
    for one in says:
        ctx.counters["igmp.out"] += 1
        tos = INTERNETWORK_CONTROL if ctx.members.version(ctx.now) == 3 else 0
        segment = _own_segment(
            ctx.meant.address, one.dst, Proto.IGMP, one.data, Cause(0, False, ctx.now), tos=tos, ttl=1, flags=BROADCAST,
            dont_fragment=len(one.data) + IPV4_HEADER_LEN + len(ROUTER_ALERT) <= ctx.mtu,
        )  # fmt: skip
        send(ctx, segment, ctx.now, ROUTER_ALERT)
