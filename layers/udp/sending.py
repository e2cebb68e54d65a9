"""Downward: sendto(2). A datagram gets its ports, source and checksum, and goes to ip, which cuts what is too long."""

from __future__ import annotations

import errno
from typing import NamedTuple

from layers.udp import ping
from layers.udp.context import Context
from layers.udp.endpoints import Endpoint
from layers.udp.path_mtu import MIN_PMTU
from levelip.frames.packet import BROADCAST, PROBE, Checksum, Segment
from levelip.frames.seam import Failed, Result, SendTo
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire.addr import ANY, LIMITED_BROADCAST, LOOPBACK, is_multicast
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ipv4 import IPV4_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH, Proto
from levelip.wire.udp import UDP_HEADER_LEN, UdpHeader

MAX_PAYLOAD = IPV4_MAX_TOTAL_LENGTH - IPV4_HEADER_LEN - UDP_HEADER_LEN
PMTUDISC_DONT, PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE = range(4)
LOCAL = -1
"""In place of an ICMP type: an error of our own (SO_EE_ORIGIN_LOCAL)."""


class SendError(Exception):
    """The datagram cannot be sent; `errno` as sendto(2) says it."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


def send_to(ctx: Context, call: SendTo) -> None:
    """Answered if the caller wants to know; a failure that nobody asked about is counted all the same."""
    one = ctx.endpoints.by_id.get(call.sock)
    if one is None:
        ctx.drop(reasons.UDP_UNKNOWN_SOCKET, call.id, sock=call.sock)
        if call.request:
            ctx.to_gateway.append(Result(call.request, errno.EBADF))
        return
    try:
        _send(ctx, one, call)
    except SendError as error:
        ctx.counters["send_errors"] += 1
        dst, port = call.address or one.peer, call.port or one.peer_port
        ctx.emit("send", one, frame=call.id, errno=error.errno, dst=dst, port=port)
        if call.request:
            ctx.to_gateway.append(Result(call.request, error.errno, {"address": one.address, "port": one.port}))
        return
    if call.request:
        ctx.to_gateway.append(Result(call.request, 0, {"address": one.address, "port": one.port}))


def _send(ctx: Context, one: Endpoint, call: SendTo) -> None:
    if not one.port:  # first of all, as Linux (inet_send_prepare): it stays though the datagram is refused
        take_port(ctx, one, one.address)
    dst, port = (call.address, call.port) if call.address else (one.peer, one.peer_port)
    is_ping = one.proto == Proto.ICMP
    if not dst:
        raise SendError(errno.EDESTADDRREQ)
    if isinstance(call.payload, Place) or not (port or is_ping):
        raise SendError(errno.EINVAL)
    number = ping.check(call.payload) if is_ping else errno.EMSGSIZE if len(call.payload) > MAX_PAYLOAD else 0
    if number:
        raise SendError(number)
    if not any(dst):
        dst = call.source if any(call.source) else this_host(ctx, one)
    found = way(ctx, one, dst, call.source)
    source = found.source
    group = is_multicast(dst)
    if is_ping:
        head, payload = ping.request(one, call.payload), b""
    else:
        head, payload = _udp_header(one, source, dst, port, call.payload), call.payload
    length = IPV4_HEADER_LEN + len(call.ip_options) + len(head) + len(payload)
    if length > IPV4_MAX_TOTAL_LENGTH:
        raise SendError(errno.EMSGSIZE)
    too_long = length > found.mtu
    if too_long and one.mtu_discover in (PMTUDISC_DO, PMTUDISC_PROBE):
        # Linux ip_local_error: the port is the peer's of connect(), if there is one
        failed = Failed(one.id, errno.EMSGSIZE, LOCAL, 0, ANY, dst, one.peer_port, found.mtu - len(call.ip_options))
        ctx.to_gateway.append(failed)
        raise SendError(errno.EMSGSIZE)
    if len(ctx.to_ip) >= ctx.udp.queue:
        ctx.drop(reasons.UDP_QUEUE_FULL, call.id, one, dst=dst)
        raise SendError(errno.ENOBUFS)
    ttl = call.ttl if call.ttl >= 0 else (one.multicast_ttl if group else one.ttl)
    segment = Segment(
        id=ctx.ids.next(),
        causes=[call.id] if call.id else [],
        traced=False,
        ingress=ctx.now,
        iface=0,
        src=source,
        dst=dst,
        proto=one.proto,
        ttl=ttl,
        tos=call.tos if call.tos >= 0 else one.tos,
        head=head,
        payload=payload,
        checksum=Checksum.NONE,
        gso_size=0,
        dont_fragment=one.mtu_discover != PMTUDISC_DONT and not too_long and not found.locked,
        flags=(BROADCAST if group or one.broadcast else 0) | (PROBE if one.mtu_discover == PMTUDISC_PROBE else 0),
        options=call.ip_options,
    )
    ctx.to_ip.append(segment)
    ctx.counters["echo_requests_out" if is_ping else "datagrams_out"] += 1
    looped = group and not is_ping and one.multicast_loop
    if looped and any(dst in other.groups for other in ctx.endpoints.by_id.values()):
        ctx.looped.append(_copy(ctx, segment))


def _udp_header(one: Endpoint, source: bytes, dst: bytes, port: int, payload: bytes) -> bytes:
    """RFC 768. A checksum that comes out as 0 is sent as all ones."""
    header = UdpHeader(one.port, port, UDP_HEADER_LEN + len(payload)).serialize()
    if one.no_check:
        return header
    data = header + payload
    checksum = internet_checksum(data, pseudo_header_sum(source, dst, Proto.UDP, len(data))) or 0xFFFF
    return header[:6] + checksum.to_bytes(2, "big")


def _copy(ctx: Context, segment: Segment) -> Segment:
    """What comes back to sockets of ours that are in the group (RFC 1112 6.1, IP_MULTICAST_LOOP)."""
    return Segment(
        id=segment.id, causes=[], traced=False, ingress=ctx.now, iface=0, src=segment.src, dst=segment.dst,
        proto=segment.proto, ttl=segment.ttl, tos=segment.tos, head=segment.head, payload=segment.payload,
        checksum=Checksum.VERIFIED, gso_size=0, flags=BROADCAST, options=segment.options,
    )  # fmt: skip


def this_host(ctx: Context, one: Endpoint) -> bytes:
    """What 0.0.0.0 means as a destination, where no source is given: the socket's own address, or loopback (Linux
    ip_route_output_key)."""
    return one.address if _is_one_host(ctx, one.address) else LOOPBACK


def _is_one_host(ctx: Context, address: bytes) -> bool:
    """Whether a bound address can be a source: it is neither any, nor a group, nor a broadcast address."""
    return any(address) and not ctx.routes.is_many(address)


class Way(NamedTuple):
    """How a datagram gets there. `locked`: the path is narrower than what we believe, so DF is not set."""

    source: bytes
    mtu: int
    locked: bool = False


def way(ctx: Context, one: Endpoint, dst: bytes, source: bytes = b"") -> Way:
    """The source address toward `dst`, and the MTU; SendError if there is no way, or none that the socket may use. A
    `source` of 0.0.0.0 is none."""
    if dst == LIMITED_BROADCAST or is_multicast(dst):
        route = next((row for row in ctx.routes.routes if not row.errno and row.source[:1] != b"\x7f"), None)
    else:
        route = ctx.routes.lookup(dst)
    if route is None:
        raise SendError(errno.ENETUNREACH)
    if route.errno:
        raise SendError(route.errno)
    if not one.broadcast and ctx.routes.is_broadcast(dst):
        raise SendError(errno.EACCES)
    given = source if any(source) else b""
    if given and not ctx.routes.is_ours(given):
        raise SendError(errno.EINVAL)
    chosen = given or (one.address if _is_one_host(ctx, one.address) else route.source)
    learned = ctx.path_mtus.find(dst, ctx.now) if one.mtu_discover < PMTUDISC_PROBE else 0
    if learned and learned < route.mtu:
        return Way(chosen, max(learned, min(MIN_PMTU, route.mtu)), learned < MIN_PMTU)
    return Way(chosen, route.mtu)


def take_port(ctx: Context, one: Endpoint, address: bytes = ANY) -> None:
    """An ephemeral port (RFC 6056 3.3.1) for a socket that has none; SendError if all are taken."""
    first, last = ctx.udp.port_first, max(ctx.udp.port_first, ctx.udp.port_last)
    port = ctx.endpoints.free_port(one, address, first, last, ctx.rng.randrange(last - first + 1))
    if not port:
        raise SendError(errno.EAGAIN)
    ctx.endpoints.bind(one, address, port)
