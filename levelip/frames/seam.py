"""Messages between tcp and gateway besides the stream's, and frames that a shell gives to or takes from any core."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from levelip.frames.packet import FrameId, Instant, IpOptions
from levelip.rpc.messages import ToClient as ClientMessage
from levelip.rpc.messages import ToGateway as GatewayMessage
from levelip.rpc.place import Payload, Place, Rings
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Errno, Offset, Reset, Send, SocketId, Urgent

Port = Annotated[int, Meta(ge=0, le=65_535)]
LocalAddress = Annotated[bytes, Meta(max_length=16)]  # empty: any


# gateway → tcp


class Bind(Struct, array_like=True, tag=40):
    """Reserve a local address and port (0: choose one). Answered by Result with data "address", "port".

    `port_range`: IP_LOCAL_PORT_RANGE, the first port in the low half and the last in the high one.
    """

    request: int
    sock: SocketId
    address: LocalAddress
    port: Port
    reuse_address: bool = False
    reuse_port: bool = False
    port_range: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] = 0


class Listen(Struct, array_like=True, tag=41):
    """Listen on a bound socket; a repeat changes the backlog. Children's rings lie in `region` (empty: tcp's own).

    `options` (name → integer, as in SetOption) are inherited by the children. Answered by Result.
    """

    request: int
    sock: SocketId
    region: str
    backlog: int
    options: dict[str, int] = {}


class Connect(Struct, array_like=True, tag=42):
    """Active open. Binds an ephemeral port first if the socket has none. Answered by Connected, or by Reset(errno)."""

    sock: SocketId
    region: str
    address: Annotated[bytes, Meta(min_length=4, max_length=16)]
    port: Port
    options: dict[str, int] = {}
    ip_options: IpOptions = b""


class Taken(Struct, array_like=True, tag=43):
    """The application accepted `sock`: one place in its listener's backlog is free again."""

    listener: SocketId
    sock: SocketId


class SetOption(Struct, array_like=True, tag=44):
    """A socket option that tcp acts on, by name: nodelay, keepalive, maxseg, sndbuf, rcvbuf, ... `ip_options` is that
    of this name, whose `value` is 0."""

    sock: SocketId
    name: str
    value: int
    ip_options: IpOptions = b""


class GetInfo(Struct, array_like=True, tag=45):
    """Ask for the figures of TCP_INFO. Answered by Result with data as docs/rpc.md lists it; by udp with "mtu", that on
    the way to the peer, or, with socket 0, interfaces and routes."""

    request: int
    sock: SocketId


class Close(Struct, array_like=True, tag=46):
    """The application has closed the socket: finish gracefully what was sent, or with `abort` send RST at once.

    What arrives for it after that is answered with RST (RFC 9293 3.10.4, RFC 2525 2.17); a listener ends with its
    children that were not taken. Answered by Released when tcp has forgotten the id.
    """

    sock: SocketId
    abort: bool = False


# tcp → gateway


class Result(Struct, array_like=True, tag=50):
    """The answer to the message with the same `request` number."""

    request: int
    errno: Errno
    data: dict[str, Any] = {}


class Connected(Struct, array_like=True, tag=51):
    """The active open of `sock` succeeded; bytes below `limit` may be sent."""

    sock: SocketId
    local_address: bytes
    local_port: Port
    remote_address: bytes
    remote_port: Port
    rings: Rings
    limit: Offset


class Incoming(Struct, array_like=True, tag=52):
    """A connection on `listener` is established; tcp named it `sock`. `ip_options`: that its segments bear, echoed from
    its SYN."""

    listener: SocketId
    sock: SocketId
    local_address: bytes
    local_port: Port
    remote_address: bytes
    remote_port: Port
    rings: Rings
    limit: Offset
    ip_options: IpOptions = b""


class Released(Struct, array_like=True, tag=53):
    """tcp owes this socket nothing any more: all was acknowledged or given up (it may still be in TIME-WAIT)."""

    sock: SocketId


# gateway → udp (besides Bind, SetOption and Close)


class OpenDatagram(Struct, array_like=True, tag=80):
    """Make a datagram socket; `proto` 17: UDP, 1: ICMP echo. `options` as in SetOption. Nothing is answered."""

    sock: SocketId
    proto: Port
    options: dict[str, int] = {}


class Associate(Struct, array_like=True, tag=81):
    """connect(2): datagrams to and from that peer only; an empty address dissolves it (AF_UNSPEC).

    Answered by Result with data "address", "port": the local side, which it chooses if bind() did not.
    """

    request: int
    sock: SocketId
    address: LocalAddress
    port: Port


class SendTo(Struct, array_like=True, tag=82):
    """One datagram, whole, never in shared memory. No `address`: to the peer. `tos`, `ttl` of -1: the socket's.

    Answered by Result if `request` is not 0 (data "address", "port" where it had to take a local port), errno as
    sendto(2) would say it. `id` is the cause of the segment that comes of it. `ip_options`: of its IP header.
    """

    request: int
    sock: SocketId
    address: LocalAddress
    port: Port
    payload: Payload
    tos: int = -1
    ttl: int = -1
    source: LocalAddress = b""
    id: FrameId = 0
    ip_options: IpOptions = b""


class Took(Struct, array_like=True, tag=83):
    """The application has taken datagrams of altogether `upto` charged bytes since the socket was made (Datagram)."""

    sock: SocketId
    upto: Offset


class Member(Struct, array_like=True, tag=84):
    """Join or leave a multicast group (IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP). Answered by Result."""

    request: int
    sock: SocketId
    group: LocalAddress
    join: bool


# udp → gateway (besides Result and Released)


class Datagram(Struct, array_like=True, tag=85):
    """One datagram for a socket. `upto`: what the socket was charged so far, this one included (Took gives it back).
    `ip_options`: those that came, with ours in them; `arrived`: when it entered the stack; `drops`: datagrams that the
    socket had no room for until then."""

    sock: SocketId
    upto: Offset
    address: LocalAddress
    port: Port
    local_address: LocalAddress
    tos: int
    ttl: int
    iface: int
    payload: Payload
    id: FrameId = 0
    causes: list[FrameId] = []
    ip_options: IpOptions = b""
    arrived: Instant = 0
    drops: int = 0


class Failed(Struct, array_like=True, tag=86):
    """An ICMP error about a datagram of this socket: `errno` is what SO_ERROR shows if it is connected. `payload`: what
    the error quotes of the datagram's. `icmp_type` -1: our own verdict, which the sender has heard (EMSGSIZE)."""

    sock: SocketId
    errno: Errno
    icmp_type: int
    icmp_code: int
    reporter: LocalAddress
    address: LocalAddress
    port: Port
    mtu: int = 0
    hard: bool = False
    id: FrameId = 0
    causes: list[FrameId] = []
    payload: Annotated[bytes, Meta(max_length=65_600)] = b""


GatewayToUdp = OpenDatagram | Bind | Associate | SendTo | Took | Member | SetOption | GetInfo | Close
UdpToGateway = Result | Released | Datagram | Failed
GatewayToTcp = Bind | Listen | Connect | Taken | SetOption | GetInfo | Close | Urgent | Send | Consumed | Eof | Reset
TcpToGateway = Result | Connected | Incoming | Released | Urgent | Accepted | Data | Eof | Reset


# Shell ↔ any core


class NeighbourUp(Struct, array_like=True, tag=60):
    """A neighbour process said hello; `epoch` is new at each of its starts."""

    name: str
    epoch: int


class NeighbourDown(Struct, array_like=True, tag=61):
    """The connection to a neighbour process is lost."""

    name: str


class Store(Struct, array_like=True, tag=62):
    """core → "memory": copy `payload` to `place` (of the same length) before anything else of this batch is sent."""

    place: Place
    payload: Payload


class StoreFailed(Struct, array_like=True, tag=67):
    """shell → core: a Store could not be carried out (the client took its memory away, or it is full)."""

    place: Place


class Answer(Struct, array_like=True, tag=63):
    """core → "control": the late answer to a control command."""

    token: int
    data: dict[str, Any]


class FromClient(Struct, array_like=True, tag=64):
    """shell → gateway: a message of the client behind `peer` (a connection of ZeroMQ), with its real uid and pid.

    `memory_errno` is what the shell found when it checked the file that a Hello names (0: all is well).
    """

    peer: bytes
    uid: int
    pid: int
    message: GatewayMessage
    memory_errno: int = 0


class ClientLost(Struct, array_like=True, tag=65):
    """shell → gateway: the client behind `peer` is gone: its process ended, or (not `dead`) only its connection."""

    peer: bytes
    dead: bool = True


class ForClient(Struct, array_like=True, tag=66):
    """gateway → "client": a message for the client behind `peer`."""

    peer: bytes
    message: ClientMessage


class ForgetClient(Struct, array_like=True, tag=68):
    """gateway → "client": nothing more will be said to `peer`; the shell need not watch it any longer."""

    peer: bytes


class ForgetMemory(Struct, array_like=True, tag=69):
    """gateway → "client": the session's file `region` holds nothing that anybody needs; remove it."""

    region: str


class Probe(Struct, array_like=True, tag=70):
    """gateway → "client": see whether the connection to `peer` still stands (ClientLost follows if it does not)."""

    peer: bytes
