"""Downward: a segment becomes a packet, or several, or comes straight back (RFC 1122 3.3.1, RFC 791 3.2)."""

from __future__ import annotations

import errno

from layers.ip.config import LOOPBACK_MTU
from layers.ip.context import LINK, Cause, Context, Datagram, proto_text
from layers.ip.fragments import complete_checksum, copied_options, header_room, split
from layers.ip.icmp import QUOTE_MIN, Quoted, stack_milliseconds
from layers.ip.routing import Hop
from layers.ip.telling import tell
from layers.ip.validate import check_options
from levelip.addressing import Kind
from levelip.frames.packet import (
    BROADCAST,
    PROBE,
    Checksum,
    Interface,
    InterfaceAddress,
    Packet,
    Route,
    Routes,
    Segment,
    Way,
)
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire import icmp
from levelip.wire.addr import LOOPBACK
from levelip.wire.ipoptions import visited
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, IPV4_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH, Ipv4Header, Proto

# What a refusing route comes to: reason, the code of "destination unreachable", errno (Linux fib_props).
REFUSALS = {
    Kind.BLACKHOLE: (reasons.ROUTE_BLACKHOLE, icmp.HOST_UNREACH, errno.EINVAL),
    Kind.UNREACHABLE: (reasons.ROUTE_UNREACHABLE, icmp.HOST_UNREACH, errno.EHOSTUNREACH),
    Kind.PROHIBIT: (reasons.ROUTE_PROHIBIT, icmp.PKT_FILTERED, errno.EACCES),
}


def send(ctx: Context, segment: Segment, now: int, options: bytes = b"") -> None:
    """One segment to send: route it, give it a header, hand it to link or loop it back. `options`: whole words, as they
    are; those of the segment get our address and time first."""
    ctx.now = now
    dst = segment.dst
    table = ctx.table
    hop = table.lookup(dst)
    if hop is None or hop.refused or not (hop.local or ctx.link is None or ctx.link.up):
        _no_way(ctx, segment, hop)
        return
    src = segment.src or hop.source
    if src not in table.own and src != LOOPBACK and not (hop.local and is_local(ctx, src)):
        ctx.drop(reasons.SOURCE_NOT_OURS, segment.id, src=src, dst=dst)
        return
    if segment.options:
        verdict = check_options(segment.options)
        if verdict.reason is not None:  # whoever sent it had to see to that
            ctx.drop(verdict.reason, segment.id, src=src, dst=dst, at=verdict.pointer)
            return
        options = visited(segment.options, src, stack_milliseconds(now))  # RFC 1122 3.2.1.8 e
    head = segment.head
    payload = segment.payload
    length = len(head) + (payload.length if type(payload) is Place else len(payload))
    if hop.local:
        _loop_back(ctx, segment, src, length, options)
        return
    if hop.group and not segment.flags & BROADCAST:
        # as Linux: EACCES or ENETUNREACH for whoever did not set SO_BROADCAST; TCP never may
        _refuse(ctx, segment, reasons.BROADCAST_REFUSED, icmp.NET_UNREACH)
        return
    if src == LOOPBACK:
        ctx.drop(reasons.LOOPBACK_OUTSIDE, segment.id, src=src, dst=dst)  # RFC 1122 3.2.1.3 g
        return
    total = IPV4_HEADER_LEN + length
    if total + len(options) > IPV4_MAX_TOTAL_LENGTH:
        ctx.drop(reasons.DATAGRAM_TOO_LONG, segment.id, src=src, dst=dst, length=total)
        return
    gso_size = segment.gso_size
    # of a super-segment, whose head is the transport's header, the first piece is the longest
    piece = IPV4_HEADER_LEN + len(head) + gso_size if gso_size else total
    mtu = ctx.mtu if segment.flags & PROBE else hop.mtu or ctx.mtu
    if piece > mtu or options or not segment.dont_fragment:
        _uncommon(ctx, segment, hop, src, options, mtu=min(mtu, ctx.mtu), piece=piece + len(options))
        return
    if ctx.queued >= ctx.config.ip.queue:
        ctx.drop(reasons.IP_QUEUE_FULL, segment.id, src=src, dst=dst)
        return

    ident = ctx.ident
    # One number a packet on the wire, also where link or the device makes several of it. With DF set any would do
    # (RFC 6864 4.1); Linux counts, too, though by socket.
    ctx.ident = (ident + (-(-(length - len(head)) // gso_size) if gso_size else 1)) & 0xFFFF
    ttl = segment.ttl or ctx.config.ip.ttl
    header = ctx.headers.write(src, dst, segment.proto, ttl, segment.tos, FLAG_DF, total, ident)
    counters = ctx.counters
    counters["out.packets"] += 1
    counters["out.bytes"] += total
    ctx.queued += 1
    packet = Packet(
        ctx.ids.next(),
        _causes(segment),
        segment.traced,
        segment.ingress,
        ctx.link.iface if ctx.link is not None else 0,
        header + head,
        payload,
        segment.checksum,
        gso_size,
        hop.next_hop,
        BROADCAST if hop.group else 0,
    )
    ctx.out.append((LINK, packet))


def _uncommon(ctx: Context, segment: Segment, hop: Hop, src: bytes, options: bytes, *, mtu: int, piece: int) -> None:
    """A packet with options, one without DF, or one larger than the path's MTU. `piece`: bytes of what has to fit."""
    dst, head, payload = segment.dst, segment.head, segment.payload
    gso_size = segment.gso_size
    cut = piece > mtu
    if cut and (segment.dont_fragment or gso_size):
        # RFC 1191 3. Super-segments are cut by their sender, at the MTU that it learns by this, and never fragmented.
        _refuse(ctx, segment, reasons.EXCEEDS_MTU, icmp.FRAG_NEEDED, mtu=mtu)
        return
    checksum = segment.checksum
    if cut and checksum == Checksum.PARTIAL:
        completed = complete_checksum(src, dst, segment.proto, head, payload)
        if completed is None:
            # Nobody could fill it in behind us, and the bytes are out of a core's reach: the sender is to make it fit.
            _refuse(ctx, segment, reasons.NEEDS_CHECKSUM, icmp.FRAG_NEEDED, mtu=mtu)
            return
        head = completed
    later = copied_options(options) if cut else b""
    pieces = (
        list(split(head, payload, header_room(mtu, options), header_room(mtu, later)))
        if cut
        else [(0, head, payload, False)]
    )
    if ctx.queued + len(pieces) > max(ctx.config.ip.queue, len(pieces)):
        ctx.drop(reasons.IP_QUEUE_FULL, segment.id, src=src, dst=dst)  # all or none: the rest would be of no use
        return
    if not ctx.idents.secret:
        ctx.idents.secret = ctx.rng.randbytes(16)
    if segment.dont_fragment:
        ident = ctx.ident  # as in `send`
        ctx.ident = (ident + (-(-len(payload) // gso_size) if gso_size else 1)) & 0xFFFF
    elif gso_size:
        # Cut later, with idents counting up from this one: as many as there will be pieces.
        count = -(-(len(head) + len(payload)) // gso_size)
        ident = ctx.idents.take(src, dst, segment.proto)
        for _ in range(count - 1):
            ctx.idents.take(src, dst, segment.proto)
    else:
        ident = ctx.idents.take(src, dst, segment.proto)  # the same in all fragments (RFC 791 3.2)
    counters = ctx.counters
    if cut:
        counters["fragment.datagrams_cut"] += 1
        counters["fragment.sent"] += len(pieces)
        ctx.emit("fragment", segment.id, dst=dst, ident=ident, pieces=len(pieces), mtu=mtu)
    ttl = segment.ttl or ctx.config.ip.ttl
    df = FLAG_DF if segment.dont_fragment else 0
    for offset, start, rest, more in pieces:
        optional = later if offset else options
        total = IPV4_HEADER_LEN + len(optional) + len(start) + len(rest)
        if cut or options:
            header = Ipv4Header.build(
                src,
                dst,
                proto=segment.proto,
                payload_length=len(start) + len(rest),
                ident=ident,
                ttl=ttl,
                tos=segment.tos,
                flags=(FLAG_MF if more else 0) | df,
                frag_offset=offset // 8,
                options=optional,
            ).serialize(fill_checksum=True)
        else:
            header = ctx.headers.write(src, dst, segment.proto, ttl, segment.tos, df, total, ident)
        counters["out.packets"] += 1
        counters["out.bytes"] += total
        ctx.queued += 1
        packet = Packet(
            ctx.ids.next(),
            _causes(segment),
            segment.traced,
            segment.ingress,
            ctx.link.iface if ctx.link is not None else 0,
            header + start,
            rest,
            Checksum.NONE if cut else checksum,
            gso_size,
            hop.next_hop,
            BROADCAST if hop.group else 0,
        )
        ctx.out.append((LINK, packet))


def is_local(ctx: Context, address: bytes) -> bool:
    """Whether it is one of ours, loopback included."""
    hop = ctx.table.lookup(address)
    return hop is not None and hop.local


def _no_way(ctx: Context, segment: Segment, hop: Hop | None) -> None:
    """No route, a route that refuses, or a device that is down."""
    if hop is not None and hop.refused:
        reason, code, _ = REFUSALS[hop.row.kind]
        if hop.row.kind is Kind.BLACKHOLE:
            ctx.drop(reason, segment.id, src=segment.src, dst=segment.dst)  # in silence: that is what it is for
            return
        _refuse(ctx, segment, reason, code)
        return
    _refuse(ctx, segment, reasons.NO_ROUTE, icmp.NET_UNREACH)


def _refuse(ctx: Context, segment: Segment, reason: Reason, code: int, mtu: int = 0) -> None:
    """Discard a segment and tell its transport why, in the form of the ICMP error that a router would have sent."""
    ctx.drop(reason, segment.id, src=segment.src, dst=segment.dst)
    start = segment.head
    if len(start) < QUOTE_MIN and isinstance(segment.payload, bytes):
        start += segment.payload[:QUOTE_MIN]
    own = ctx.meant.address
    quoted = Quoted(segment.src or own, segment.dst, segment.proto, start)
    tell(ctx, icmp.DEST_UNREACH, code, quoted, reporter=own, causes=_causes(segment), mtu=mtu)


def _loop_back(ctx: Context, segment: Segment, src: bytes, length: int, options: bytes) -> None:
    """To one of our own addresses: the segment comes straight back, and link never sees it (RFC 1122 3.2.1.3 g)."""
    total = IPV4_HEADER_LEN + len(options) + length
    if total > LOOPBACK_MTU:
        ctx.drop(reasons.DATAGRAM_TOO_LONG, segment.id, src=src, dst=segment.dst, length=length)
        return
    ctx.counters["loopback.packets"] += 1
    ctx.counters["loopback.bytes"] += total
    proto = segment.proto
    port = ctx.transports.get(proto)
    ttl = segment.ttl or ctx.config.ip.ttl
    if port is not None:
        # Nothing could damage it on the way, so a checksum that is not there yet need not be made.
        checksum = Checksum.VERIFIED if segment.checksum == Checksum.PARTIAL else segment.checksum
        network = b""
        if proto != Proto.TCP:  # which answers with RST instead
            network = (
                _header(segment, src, length, ttl, options).serialize(fill_checksum=True)
                if options
                else ctx.headers.write(src, segment.dst, proto, ttl, segment.tos, 0, total, 0)
            )
        back = Segment(
            ctx.ids.next(),
            _causes(segment),
            segment.traced,
            segment.ingress,
            0,
            src,
            segment.dst,
            proto,
            ttl,
            segment.tos,
            segment.head,
            segment.payload,
            checksum,
            segment.gso_size,
            segment.dont_fragment,
            0,
            network,
            visited(options, segment.dst, stack_milliseconds(ctx.now)) if options else b"",
        )
        ctx.out.append((port, back))
    elif proto == Proto.ICMP and isinstance(segment.payload, bytes):
        cause = Cause(segment.id, segment.traced, segment.ingress)
        header = _header(segment, src, length, ttl, options)
        ctx.icmp_arrives(ctx, Datagram(header, segment.head, segment.payload, cause, False))
    else:
        ctx.drop(reasons.NO_PROTOCOL, segment.id, src=src, dst=segment.dst, proto=proto_text(proto))


def _header(segment: Segment, src: bytes, length: int, ttl: int, options: bytes) -> Ipv4Header:
    return Ipv4Header.build(
        src, segment.dst, proto=segment.proto, payload_length=length, ttl=ttl, tos=segment.tos, options=options
    )


def _causes(segment: Segment) -> list[int]:
    return [segment.id] if segment.id else []


# what the transports are told


def _interfaces(ctx: Context) -> list[Interface]:
    """The device and loopback, for programs that ask for interfaces."""
    found = []
    link = ctx.link
    if link is not None:
        addresses = [
            InterfaceAddress(interface.address, interface.network.length, interface.network.broadcast or b"")
            for interface in ctx.meant.interfaces
        ]
        found.append(Interface(link.iface, link.name, link.kind, link.up, ctx.mtu, link.mac, addresses))
    loopback = [InterfaceAddress(LOOPBACK, 8, b"")]
    found.append(Interface(_loopback_index(ctx), "lo", "loopback", True, LOOPBACK_MTU, bytes(6), loopback))
    return found


def _loopback_index(ctx: Context) -> int:
    """Another one than the device's."""
    return ctx.link.iface + 1 if ctx.link is not None else 1


def _ways(ctx: Context) -> list[Way]:
    """The routing table, likewise."""
    device = ctx.link.iface if ctx.link is not None else 0
    found = []
    for row in ctx.table.rows:
        iface = _loopback_index(ctx) if row.kind is Kind.LOCAL else 0 if row.kind in REFUSALS else device
        way = row.prefix.network, row.prefix.length, str(row.kind), row.gateway, row.source, row.metric, iface
        found.append(Way(*way))
    return found


def send_routes(ctx: Context) -> None:
    """Tell every transport the routes as they are now; an older message that still waits is replaced."""
    up = ctx.device_up()
    usable = [
        row
        for row in ctx.table.rows
        if row.kind is Kind.LOCAL or row.kind in REFUSALS or (up and row.kind is Kind.UNICAST)
    ]
    gso_max = ctx.link.gso_max if ctx.link is not None else 0
    told = []
    for row in usable:
        local = row.kind is Kind.LOCAL
        number = REFUSALS[row.kind][2] if row.kind in REFUSALS else 0
        mtu, gso = (LOOPBACK_MTU, 0) if local else (ctx.mtu, gso_max)
        told.append(Route(row.prefix.network, row.prefix.length, row.source, mtu, gso, number))
    message = Routes(told, list(ctx.table.addresses), _interfaces(ctx), _ways(ctx))
    for item in [item for item in ctx.out if isinstance(item[1], Routes)]:
        ctx.out.remove(item)
    for port in sorted(set(ctx.transports.values())):
        ctx.out.append((port, message))
    ctx.emit("route", 0, routes=len(told))
