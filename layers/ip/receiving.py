"""Upward: a packet from outside is judged, put together if it is a fragment, and handed on (RFC 1122 3.2.1)."""

from __future__ import annotations

from layers.ip.context import Cause, Context, Datagram, proto_text
from layers.ip.icmp import stack_milliseconds
from layers.ip.messages import icmp_arrives, igmp_arrives, report
from layers.ip.reassembly import Partial
from layers.ip.validate import check_addresses, check_header, check_options
from levelip.frames.packet import BROADCAST, Checksum, Packet, Segment
from levelip.rpc.place import Payload, Place, cut
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipoptions import visited
from levelip.wire.ipv4 import FLAG_DF, IPV4_HEADER_LEN, Ipv4Header, Proto

_TRANSPORT_HEAD = 60
"""Bytes of a reassembled datagram that go up as head: all of a TCP header (RFC 9293 3.1)."""


def receive(ctx: Context, packet: Packet, now: int) -> None:
    """One IPv4 packet from outside."""
    ctx.now = now
    head = packet.head
    payload = packet.payload
    if len(head) < IPV4_HEADER_LEN or len(head) < (head[0] & 15) * 4:
        if isinstance(payload, Place):
            ctx.drop(reasons.IP_NOT_INLINE, packet.id)
            return
        head += payload
        payload = b""
    length = payload.length if type(payload) is Place else len(payload)
    size = len(head) + length
    counters = ctx.counters
    counters["in.packets"] += 1
    counters["in.bytes"] += size

    header = check_header(head, size)
    if isinstance(header, Reason):
        ctx.drop(header, packet.id, length=size)
        return
    table = ctx.table
    if reason := check_addresses(header, packet.flags, table.own, table.broadcasts, ctx.members.accepted):
        ctx.drop(reason, packet.id, src=header.src, dst=header.dst, proto=proto_text(header.proto))
        return
    if size > header.total_length:  # Ethernet's padding (RFC 894)
        if header.total_length <= len(head):
            head = head[: header.total_length]
            payload = b""
        else:
            payload = cut(payload, 0, header.total_length - len(head))
    group = header.dst not in table.own
    body = head[header.ihl * 4 :]
    if header.options and not _options_allow(ctx, header, body, payload, packet, group):
        return
    if header.frag_offset or header.flags & 1:
        _fragment(ctx, header, body, payload, packet)
        return
    port = ctx.transports.get(header.proto)
    if port is None:
        cause = Cause(packet.id, packet.traced, packet.ingress)
        _to_ourselves(ctx, Datagram(header, body, payload, cause, group))
        return
    counters["in.delivered"] += 1
    segment = Segment(
        ctx.ids.next(),
        [packet.id],
        packet.traced,
        packet.ingress,
        packet.iface,
        header.src,
        header.dst,
        header.proto,
        header.ttl,
        header.tos,
        body,
        payload,
        packet.checksum,
        packet.gso_size,
        bool(header.flags & FLAG_DF),
        BROADCAST if group else 0,
        _quotable(header, head),
        arrived_options(ctx, header, group) if header.options else b"",
    )
    ctx.out.append((port, segment))


def _quotable(header: Ipv4Header, head: bytes) -> bytes:
    """The IP header goes up to a transport that may refuse the datagram by ICMP; TCP answers with RST instead."""
    return b"" if header.proto == Proto.TCP else head[: header.ihl * 4]


def arrived_options(ctx: Context, header: Ipv4Header, group: bool) -> bytes:
    """The options as they go up: where they record the way, we are its end (RFC 1122 3.2.1.8 d, e)."""
    own = ctx.meant.source_for(header.src) if group else header.dst
    return visited(header.options, own, stack_milliseconds(ctx.now))


def _options_allow(
    ctx: Context, header: Ipv4Header, body: bytes, payload: Payload, packet: Packet, group: bool
) -> bool:
    """Whether the packet's options let it pass; a malformed one is reported to its sender (RFC 1122 3.2.2.5)."""
    verdict = check_options(header.options)
    for name in verdict.counters:
        ctx.counters[name] += 1
    if verdict.reason is None:
        return True
    ctx.drop(verdict.reason, packet.id, src=header.src, dst=header.dst, at=verdict.pointer)
    if verdict.reason is reasons.IP_OPTION:
        cause = Cause(packet.id, packet.traced, packet.ingress)
        datagram = Datagram(header, body, payload, cause, group)
        report(
            ctx,
            datagram,
            icmp.PARAMETER_PROBLEM,
            lambda quoted: IcmpMessage.parameter_problem(verdict.pointer, quoted),
        )
    return False


def _to_ourselves(ctx: Context, datagram: Datagram) -> None:
    """What no transport process takes: ICMP and IGMP are ip's own, all else is refused (RFC 1122 3.2.2.1)."""
    header = datagram.header
    proto = header.proto
    if proto == Proto.ICMP:
        icmp_arrives(ctx, datagram)
    elif proto == Proto.IGMP:
        igmp_arrives(ctx, datagram)
    else:
        ctx.drop(reasons.NO_PROTOCOL, datagram.cause.frame, src=header.src, dst=header.dst, proto=proto_text(proto))
        report(ctx, datagram, icmp.DEST_UNREACH, lambda quoted: IcmpMessage.dest_unreachable(icmp.PROT_UNREACH, quoted))


# fragments


def _fragment(ctx: Context, header: Ipv4Header, body: bytes, payload: Payload, packet: Packet) -> None:
    """One fragment. Its payload comes inline: link puts whole TCP packets into the pool, and nothing else."""
    reassembly = ctx.reassembly
    ctx.counters["fragment.in"] += 1
    where = {"src": header.src, "dst": header.dst, "ident": header.ident, "offset": header.frag_offset * 8}
    if isinstance(payload, Place):
        ctx.drop(reasons.IP_NOT_INLINE, packet.id, proto=proto_text(header.proto), **where)
        return
    if not reassembly.memory:
        ctx.drop(reasons.FRAGMENTS_OFF, packet.id, **where)
        return
    result = reassembly.add(header, body + payload, packet, ctx.now)
    for oldest in reassembly.excess():
        ctx.drop(reasons.FRAGMENT_MEMORY, _last(oldest), **_which(oldest))
    if isinstance(result, Reason):
        ctx.drop(result, packet.id, **where)
        return
    if result is None:
        return
    ctx.counters["fragment.reassembled"] += 1
    whole, partial = result.header, result.partial
    if ctx.interest:
        ctx.emit("reassembled", packet.id, fragments=len(partial.frames), length=len(result.data), **_which(partial))
    group = whole.dst not in ctx.table.own
    port = ctx.transports.get(whole.proto)
    if port is None:
        cause = Cause(packet.id, partial.traced, partial.ingress)
        _to_ourselves(ctx, Datagram(whole, result.data, b"", cause, group))
        return
    ctx.counters["in.delivered"] += 1
    segment = Segment(
        ctx.ids.next(),
        partial.frames,
        partial.traced,
        partial.ingress,
        partial.iface,
        whole.src,
        whole.dst,
        whole.proto,
        whole.ttl,
        whole.tos,
        result.data[:_TRANSPORT_HEAD],
        result.data[_TRANSPORT_HEAD:],
        Checksum.UNVERIFIED,  # no device has seen it whole
        0,
        whole.dont_fragment,
        BROADCAST if group else 0,
        _quotable(whole, whole.serialize(fill_checksum=True)),
        arrived_options(ctx, whole, group),
    )
    ctx.out.append((port, segment))


def fragments_overdue(ctx: Context) -> None:
    """Give up what has waited too long; its sender is told if fragment zero has come (RFC 1122 3.3.2, RFC 792)."""
    for partial in ctx.reassembly.expire(ctx.now):
        if partial.dead:
            continue
        ctx.drop(reasons.FRAGMENT_TIME, _last(partial), fragments=len(partial.frames), **_which(partial))
        if not partial.first:
            continue
        first = partial.pieces[0]
        header = Ipv4Header.parse(partial.first)
        cause = Cause(_last(partial), partial.traced, partial.ingress)
        datagram = Datagram(header, first.data, b"", cause, header.dst not in ctx.table.own)
        report(ctx, datagram, icmp.TIME_EXCEEDED, lambda quoted: IcmpMessage.time_exceeded(icmp.EXC_FRAGTIME, quoted))


def _last(partial: Partial) -> int:
    return partial.frames[-1] if partial.frames else 0


def _which(partial: Partial) -> dict[str, bytes | int]:
    src, dst, _, ident = partial.key
    return {"src": src, "dst": dst, "ident": ident}
