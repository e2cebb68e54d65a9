"""All that the gateway knows, as plain Structs: a snapshot is these, written down."""

from __future__ import annotations

from msgspec import Struct, field

from gateway.table import State
from levelip.frames.packet import FrameIds, Process
from levelip.rpc.messages import Reply, Request
from levelip.rpc.place import Rings

NOT_YET = -1  # an offset or errno that has not come


class Call(Struct, kw_only=True):
    """A call that tcp has to settle. `step` is what tcp was last asked ("": nothing yet)."""

    op: str  # "bind", "listen", "connect", or "restore": ours, after a restart of tcp
    request: int = 0
    address: bytes = b""
    port: int = 0
    backlog: int = 0
    nonblocking: bool | None = None
    step: str = ""
    asked: int = 0  # number of that question
    deadline: int = 0  # while it waits for tcp to come up: when it fails with ENETDOWN


class Socket(Struct, kw_only=True):
    """One socket of a client, or a connection that waits to be accepted (then `listener` is set)."""

    id: int
    session: int
    state: State = State.NEW
    listener: int = 0
    options: dict[str, int] = field(default_factory=dict)
    so_error: int = 0
    call: Call | None = None
    waiting: list[Request] = field(default_factory=list)  # calls that came while `call` is under way
    unreported: bool = False  # a non-blocking connect succeeded; the next connect() says so

    # names
    local_address: bytes = b""
    local_port: int = 0
    remote_address: bytes = b""
    remote_port: int = 0
    chosen_address: bytes = b""  # by bind(): kept when a connect fails (Linux: SOCK_BINDADDR_LOCK)
    chosen_port: int = 0  # likewise (SOCK_BINDPORT_LOCK)
    bound_port: int = 0  # the port it has, chosen by whomever; 0 while it has none

    # tcp's side
    in_tcp: bool = False  # tcp holds a port, a listener or a connection under this id
    leaving: bool = False  # Close was said; the id can be used again after Released
    region: str = ""  # the session's memory at the time of connect or listen ("": tcp's own)
    rings: Rings | None = None

    # listening
    backlog: int = 0
    queue: list[int] = field(default_factory=list)

    # outgoing stream: offsets
    sent: int = 0  # end of what the client sent
    accepted: int = 0
    limit: int = 0
    ended: bool = False  # the client sent Eof

    # incoming stream: consumed <= relayed <= received
    received: int = 0
    relayed: int = 0
    consumed: int = 0
    urgent: int = 0  # the peer's mark: offset after its last urgent octet; 0: there was none
    eof: int = NOT_YET
    eof_relayed: bool = False
    reset: int = NOT_YET  # errno of the end of the connection
    marked: int = 0  # Data messages not yet consumed: those up to the offset `mark`, and those after it
    fresh: int = 0
    mark: int = 0
    ip_options: bytes = b""  # of each segment


class DatagramSocket(Struct, kw_only=True):
    """One datagram socket. `call`: the op that udp has to settle, and its request; others wait behind it."""

    id: int
    session: int
    proto: int = 17
    options: dict[str, int] = field(default_factory=dict)
    so_error: int = 0
    local_address: bytes = b""
    local_port: int = 0
    remote_address: bytes = b""
    remote_port: int = 0
    chosen_address: bytes = b""  # by bind(): kept when connect() is dissolved
    chosen_port: bool = False  # likewise
    groups: list[bytes] = field(default_factory=list)
    ip_options: bytes = b""  # of each datagram, unless it brings its own
    call: str = ""
    request: int = 0
    args: list[bytes | int] = field(default_factory=list)  # of that call: address and port
    deadline: int = 0  # while that call waits for udp to come up: when it fails with ENETDOWN
    waiting: list[Request] = field(default_factory=list)
    upto: int = 0  # of the last datagram that the client was told of
    taken: int = 0  # of the last one that it has taken


class Session(Struct, kw_only=True):
    """One client. `peer` is empty while its connection is lost and it may come back with its token; `known_as` is the
    connection that it has or had."""

    number: int
    token: bytes
    peer: bytes
    known_as: bytes
    uid: int
    pid: int
    software: str = ""
    memory: str = ""
    knows: int = 0  # bits of KNOWS_ in levelip/rpc/messages.py
    sockets: dict[int, bool] = field(default_factory=dict)  # ids in the order of their making
    deadline: int = 0  # while detached: when it is given up
    replies: list[Reply] = field(default_factory=list)  # that came while it was detached
    calls: int = 0  # that are not answered yet
    inline: int = 0  # bytes of streams that travelled inline and were not consumed yet, of all its sockets
    starved: dict[int, bool] = field(default_factory=dict)  # sockets whose bytes wait until that becomes less
    since: int = 0


class Asked(Struct):
    """A question to tcp that is under way."""

    kind: str  # "call" (bind, listen), an option's name, "getpeername", "shutdown"; of udp "datagram", "sendto"
    sock: int
    session: int = 0
    request: int = 0


class Orphan(Struct, kw_only=True):
    """A closed socket that tcp has not released yet. With a deadline, close() waits for it (SO_LINGER)."""

    region: str = ""
    session: int = 0
    request: int = 0
    deadline: int = 0


class GatewayState(Struct, kw_only=True):
    """Everything."""

    epoch: int
    sessions: dict[int, Session] = field(default_factory=dict)
    sockets: dict[int, Socket] = field(default_factory=dict)
    datagrams: dict[int, DatagramSocket] = field(default_factory=dict)
    udp_epoch: int = 0  # of the last udp that was up
    udp_up: bool = False
    orphans: dict[int, Orphan] = field(default_factory=dict)
    asked: dict[int, Asked] = field(default_factory=dict)
    pins: dict[str, int] = field(default_factory=dict)  # region → orphans whose bytes lie in it
    ended_regions: dict[str, bool] = field(default_factory=dict)  # their session is over, a pin holds them
    zombies: list[int] = field(default_factory=list)  # ids that tcp held when its pipe broke
    tcp_epoch: int = 0  # of the last tcp that was up
    tcp_up: bool = False
    tcp_since: int = 0  # when it came up
    sessions_made: int = 0
    sockets_made: int = 0
    requests_made: int = 0
    ids: FrameIds = field(default_factory=lambda: FrameIds(Process.GATEWAY, 0))  # of datagrams that go to udp
    timers: list[tuple[int, str, int]] = field(default_factory=list)  # a heap of (deadline, kind, id)

    def next_socket(self) -> int:
        """A fresh id. Bit 62 is clear (tcp's ids have it set); no id recurs in another epoch of 30 bits."""
        self.sockets_made += 1
        return (self.epoch & 0x3FFF_FFFF) << 32 | self.sockets_made & 0xFFFF_FFFF
