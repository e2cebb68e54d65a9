"""Upward: a datagram finds its sockets, or is refused; an ICMP error finds the socket whose datagram it is about."""

from __future__ import annotations

import errno
import struct

from layers.udp import ping
from layers.udp.context import Context
from layers.udp.endpoints import CHARGE, Endpoint
from layers.udp.path_mtu import SMALLEST
from layers.udp.sending import PMTUDISC_PROBE
from levelip.frames.packet import BROADCAST, Checksum, IcmpError, PathMtu, Refused, Segment
from levelip.frames.seam import Datagram, Failed
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.addr import ANY
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import Proto
from levelip.wire.udp import UDP_HEADER_LEN, UdpHeader

TRUSTED = (int(Checksum.PARTIAL), int(Checksum.VERIFIED))
SECOND = 1_000_000_000
QUOTED = 548
"""Bytes of the datagram that go back for ICMP to quote: 576 less the IP header and ICMP's (RFC 1812 4.3.2.3)."""

_HARD = (2, 3)
"""Codes that end a connected socket's call at once: protocol and port unreachable (Linux `fatal`)."""


def segment_arrives(ctx: Context, segment: Segment) -> None:
    """One datagram from ip, as RFC 768 and RFC 1122 4.1.3 take it; or an echo reply."""
    if segment.proto == Proto.ICMP:
        _reply_arrives(ctx, segment)
        return
    ctx.counters["datagrams_in"] += 1
    data = segment.head
    if isinstance(segment.payload, Place):
        ctx.drop(reasons.UDP_NOT_INLINE, segment.id, src=segment.src)
        return
    data += segment.payload
    try:
        header = UdpHeader.parse(data)
    except Malformed:
        ctx.drop(reasons.UDP_MALFORMED, segment.id, src=segment.src, why="truncated")
        return
    if not UDP_HEADER_LEN <= header.length <= len(data):
        ctx.drop(reasons.UDP_MALFORMED, segment.id, src=segment.src, why="length")
        return
    data = data[: header.length]
    if header.checksum and segment.checksum not in TRUSTED:  # 0: the sender made none (RFC 768)
        pseudo = pseudo_header_sum(segment.src, segment.dst, Proto.UDP, len(data))
        if internet_checksum(data, pseudo):
            ctx.drop(reasons.UDP_CHECKSUM, segment.id, src=segment.src)  # in silence: RFC 1122 4.1.3.4
            return
    endpoints = ctx.endpoints
    where = (segment.dst, header.dst_port, segment.src, header.src_port)
    if segment.flags & BROADCAST:
        meant = list(endpoints.find_all(*where))
        if not meant:
            ctx.drop(reasons.UDP_NO_PORT, segment.id, port=header.dst_port, src=segment.src)
        for member in meant:
            _deliver(ctx, member, segment, header.src_port, data[UDP_HEADER_LEN:])
        return
    one = endpoints.find(*where)
    if one is not None:
        _deliver(ctx, one, segment, header.src_port, data[UDP_HEADER_LEN:])
        return
    ctx.drop(reasons.UDP_NO_PORT, segment.id, port=header.dst_port, src=segment.src)
    if segment.network:  # RFC 1122 4.1.3.1
        refused = Refused(
            segment.id, icmp.DEST_UNREACH, icmp.PORT_UNREACH, segment.network, data[:QUOTED], segment.flags
        )
        ctx.to_ip.append(refused)


def _reply_arrives(ctx: Context, segment: Segment) -> None:
    """An echo reply that no `lvlip ping` waits for: a socket may. The application gets the whole message."""
    ctx.counters["echo_replies_in"] += 1
    identifier, data = ping.identifier(segment)
    one = ctx.endpoints.find_ping(segment.dst, identifier)
    if one is None:
        ctx.drop(reasons.UDP_NO_PING, segment.id, src=segment.src, ident=identifier)
        return
    _deliver(ctx, one, segment, 0, data)


def _deliver(ctx: Context, one: Endpoint, segment: Segment, src_port: int, payload: bytes) -> None:
    charge = len(payload) + CHARGE
    limit = one.rcvbuf or ctx.udp.receive_buffer
    if one.waiting + charge > limit and one.waiting:  # one datagram always has room, as Linux lets the last one in
        one.drops += 1
        ctx.drop(reasons.UDP_BUFFER_FULL, segment.id, one, length=len(payload), buffer=limit)
        return
    one.charged += charge
    ctx.counters["datagrams_delivered"] += 1
    ctx.to_gateway.append(
        Datagram(
            one.id, one.charged, segment.src, src_port, segment.dst, segment.tos, segment.ttl, segment.iface, payload,
            ctx.ids.next(), [segment.id], segment.options, segment.ingress, one.drops,
        )
    )  # fmt: skip
    ctx.emit("datagram", one, frame=segment.id, src=segment.src, port=src_port, length=len(payload))


def icmp_arrives(ctx: Context, error: IcmpError) -> None:
    """RFC 1122 4.1.3.3: whoever sent the datagram that the error is about hears of it."""
    if error.proto == Proto.ICMP:
        remote_port, payload = 0, error.head
        one = ctx.endpoints.find_ping(error.src, ping.identifier_of_request(error))
    elif error.proto == Proto.UDP and len(error.head) >= 4:
        local_port, remote_port = struct.unpack_from(">HH", error.head)
        payload = error.head[UDP_HEADER_LEN:]
        one = ctx.endpoints.find(error.src, local_port, error.dst, remote_port)
    else:
        one = None
    if one is None:
        ctx.drop(reasons.UDP_ICMP_STRAY, error.id, dst=error.dst)
        return
    hard = False
    if error.icmp_type == icmp.DEST_UNREACH:
        number = icmp.unreachable_errno(error.icmp_code)
        hard = error.icmp_code in _HARD or (error.icmp_code == icmp.FRAG_NEEDED and one.mtu_discover != 0)
        if error.icmp_code == icmp.FRAG_NEEDED:
            _too_big(ctx, one, error)
    elif error.icmp_type == icmp.TIME_EXCEEDED:
        number = errno.EHOSTUNREACH
    elif error.icmp_type == icmp.PARAMETER_PROBLEM:
        number, hard = errno.EPROTO, True
    else:
        ctx.drop(reasons.UDP_ICMP_STRAY, error.id, one, dst=error.dst)
        return
    ctx.counters["icmp_errors_in"] += 1
    ctx.emit("icmp", one, frame=error.id, type=error.icmp_type, code=error.icmp_code, errno=number)
    told = (error.icmp_type, error.icmp_code, error.reporter or ANY)
    origin = ctx.ids.next(), [error.id]
    ctx.to_gateway.append(Failed(one.id, number, *told, error.dst, remote_port, error.mtu, hard, *origin, payload))


def _too_big(ctx: Context, one: Endpoint, error: IcmpError) -> None:
    """Fragmentation needed and DF set: what goes there from now on is smaller (RFC 1191 3, RFC 8085 3.2).

    The ports of a socket of ours are all the proof that there is (RFC 8085 5.2), as in Linux.
    """
    route = ctx.routes.lookup(error.dst)
    old = ctx.path_mtus.find(error.dst, ctx.now) or (route.mtu if route is not None else 0)
    if one.mtu_discover > PMTUDISC_PROBE or not SMALLEST <= error.mtu < old:  # Linux ip_sk_accept_pmtu
        return
    ctx.counters["path_mtu_lowered"] += 1
    ctx.emit("pmtu", one, frame=error.id, dst=error.dst, old=old, new=error.mtu)
    ctx.path_mtus.learn(error.dst, error.mtu, ctx.now + ctx.udp.mtu_expires_s * SECOND)
    ctx.to_ip.append(PathMtu(error.dst, error.mtu, ctx.udp.mtu_expires_s * 1000))
