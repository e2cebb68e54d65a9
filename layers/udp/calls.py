"""What the gateway asks for: bind, connect, options, memberships, close, as messages."""

from __future__ import annotations

import errno

from msgspec import to_builtins

from layers.udp.context import Context
from layers.udp.endpoints import OPTIONS, Endpoint
from layers.udp.sending import SendError, take_port, this_host, way
from levelip.frames.packet import Groups
from levelip.frames.seam import Associate, Bind, Close, GetInfo, Member, OpenDatagram, Released, Result, SetOption, Took
from levelip.tracing import reasons
from levelip.wire.addr import ANY, is_multicast
from levelip.wire.ipv4 import Proto

GROUPS = 20
"""Groups of one socket at most, as Linux (igmp_max_memberships)."""


def get_info(ctx: Context, call: GetInfo) -> None:
    """Of a socket the MTU on the way to its peer (IP_MTU); of none what ip told of interfaces and routes."""
    if call.sock:
        _tell_mtu(ctx, call)
        return
    data = {"interfaces": to_builtins(ctx.routes.interfaces, builtin_types=(bytes,)),
            "routes": to_builtins(ctx.routes.ways, builtin_types=(bytes,))}  # fmt: skip
    ctx.to_gateway.append(Result(call.request, 0, data))


def open_datagram(ctx: Context, call: OpenDatagram) -> None:
    """A socket without address, port or peer. A repeat is the gateway's after its neighbour came back: nothing new."""
    if call.sock in ctx.endpoints.by_id:
        return
    if len(ctx.endpoints.by_id) >= ctx.udp.sockets:
        ctx.drop(reasons.UDP_NO_SOCKETS, 0, sock=call.sock)  # each later call on it is answered with EBADF
        return
    one = Endpoint(call.sock, call.proto)
    for name, value in call.options.items():
        _set(one, name, value)
    ctx.endpoints.add(one)


def bind(ctx: Context, call: Bind) -> None:
    """bind(2): one of our addresses, a group, a broadcast address, or any (RFC 1122 4.1.4)."""
    one = _found(ctx, call.sock, call.request)
    if one is None:
        return
    address = call.address or ANY
    one.reuse_address, one.reuse_port = int(call.reuse_address), int(call.reuse_port)
    number = 0
    many = ctx.routes.is_many(address)
    if not ctx.routes.is_ours(address) and (not many or one.proto == Proto.ICMP):  # Linux ping_check_bind_addr
        number = errno.EADDRNOTAVAIL
    elif one.port:
        number = errno.EINVAL
    elif not call.port:
        try:
            take_port(ctx, one, address)
        except SendError:
            number = errno.EADDRINUSE
    elif ctx.endpoints.conflict(one, address, call.port):
        number = errno.EADDRINUSE
    else:
        ctx.endpoints.bind(one, address, call.port)
    if not number:
        one.chosen_address, one.chosen_port = address, bool(call.port)
    data = {} if number else {"address": one.address, "port": one.port}
    ctx.to_gateway.append(Result(call.request, number, data))


def associate(ctx: Context, call: Associate) -> None:
    """connect(2): a peer, and the source address toward it if bind() chose none; an empty address: no peer."""
    one = _found(ctx, call.sock, call.request)
    if one is None:
        return
    if not call.address:
        one.peer, one.peer_port = b"", 0
        one.address = one.chosen_address
        if not one.chosen_port:
            ctx.endpoints.unbind(one)
        ctx.to_gateway.append(Result(call.request, 0, {"address": one.address, "port": one.port}))
        return
    peer = call.address if any(call.address) else this_host(ctx, one)
    try:
        source = way(ctx, one, peer).source
        if not one.port:
            take_port(ctx, one, one.address)
    except SendError as error:
        ctx.to_gateway.append(Result(call.request, error.errno))
        return
    if not any(one.address):
        ctx.endpoints.bind(one, source, one.port)
    one.peer, one.peer_port = peer, call.port
    ctx.to_gateway.append(Result(call.request, 0, {"address": one.address, "port": one.port}))


def took(ctx: Context, call: Took) -> None:
    """The application has taken datagrams: there is room again."""
    one = ctx.endpoints.by_id.get(call.sock)
    if one is None:
        ctx.drop(reasons.UDP_UNKNOWN_SOCKET, 0, sock=call.sock)
        return
    one.taken = max(one.taken, min(call.upto, one.charged))


def member(ctx: Context, call: Member) -> None:
    """IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP; ip is told of the groups that anybody is in, and speaks IGMP."""
    one = _found(ctx, call.sock, call.request)
    if one is None:
        return
    number = 0
    if call.join and not is_multicast(call.group):
        number = errno.EINVAL
    elif call.join and call.group in one.groups:
        number = errno.EADDRINUSE
    elif call.join and len(one.groups) >= GROUPS:
        number = errno.ENOBUFS
    elif not call.join and call.group not in one.groups:
        number = errno.EADDRNOTAVAIL
    elif call.join:
        one.groups.append(call.group)
    else:
        one.groups.remove(call.group)
    if not number:
        tell_groups(ctx)
    ctx.to_gateway.append(Result(call.request, number))


def tell_groups(ctx: Context) -> None:
    """All groups that a socket is in; an older message that still waits is replaced."""
    groups = sorted({group for one in ctx.endpoints.by_id.values() for group in one.groups})
    for item in [item for item in ctx.to_ip if isinstance(item, Groups)]:
        ctx.to_ip.remove(item)
    ctx.to_ip.append(Groups(groups))


def _tell_mtu(ctx: Context, call: GetInfo) -> None:
    """The MTU on the way to the peer, for IP_MTU (RFC 8085 3.2); ENOTCONN without one."""
    one = _found(ctx, call.sock, call.request)
    if one is None:
        return
    if not one.peer:
        ctx.to_gateway.append(Result(call.request, errno.ENOTCONN))
        return
    try:
        mtu = way(ctx, one, one.peer).mtu
    except SendError as error:
        ctx.to_gateway.append(Result(call.request, error.errno))
        return
    ctx.to_gateway.append(Result(call.request, 0, {"mtu": mtu}))


def set_option(ctx: Context, call: SetOption) -> None:
    """One of endpoints.OPTIONS."""
    one = ctx.endpoints.by_id.get(call.sock)
    if one is None:
        ctx.drop(reasons.UDP_UNKNOWN_SOCKET, 0, sock=call.sock)
    elif not _set(one, call.name, call.value):
        ctx.counters["options_ignored"] += 1


def close(ctx: Context, call: Close) -> None:
    """The socket is gone at once; what was sent is under way, what had come is lost."""
    one = ctx.endpoints.by_id.get(call.sock)
    if one is not None:
        release(ctx, one)
    ctx.to_gateway.append(Released(call.sock))


def release(ctx: Context, one: Endpoint) -> None:
    """Forget a socket, its port and its groups."""
    ctx.endpoints.remove(one)
    if one.groups:
        tell_groups(ctx)


def _found(ctx: Context, sock: int, request: int) -> Endpoint | None:
    one = ctx.endpoints.by_id.get(sock)
    if one is None:
        ctx.drop(reasons.UDP_UNKNOWN_SOCKET, 0, sock=sock)
        ctx.to_gateway.append(Result(request, errno.EBADF))
    return one


def _set(one: Endpoint, name: str, value: int) -> bool:
    if name not in OPTIONS:
        return False
    setattr(one, name, value)
    return True
