"""Socket options by Linux's numbers: what is allowed, what is answered, and what tcp is told.

A value is kept under the option's name in the socket's `options`, so that it can be set in any state; children inherit
it from their listener. The behaviour was compared with Linux 6.18 (test_gateway_linux.py).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.arguments import AF_INET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET
from gateway.config import GatewayCoreConfig
from gateway.errors import CallError
from gateway.state import DatagramSocket, Socket
from levelip.config import CONGESTIONS
from levelip.wire.ipoptions import to_send

BIND_TO_DEVICE: Final = (SOL_SOCKET, 25)
INTERFACE_NAME: Final = 16  # IFNAMSIZ
LOOPBACK: Final = "lo"
OF_AF_UNIX: Final = ((SOL_SOCKET, 16), (SOL_SOCKET, 34))  # SO_PASSCRED, SO_PASSSEC
FORCED: Final = {(SOL_SOCKET, 32): 7, (SOL_SOCKET, 33): 8}  # SO_SNDBUFFORCE, SO_RCVBUFFORCE: what they set
STAMPS: Final = ("SO_TIMESTAMP", "SO_TIMESTAMPNS")  # one of them at most is on
CONGESTION: Final = (IPPROTO_TCP, 13)
MIN_SNDBUF: Final = 4608  # SOCK_MIN_SNDBUF (include/net/sock.h)
MIN_RCVBUF: Final = 2304  # SOCK_MIN_RCVBUF
MSS_DEFAULT: Final = 536  # TCP_MSS_DEFAULT: what TCP_MAXSEG shows before there is a connection
MSS_MIN, MSS_MAX = 88, 32_767  # TCP_MIN_MSS, MAX_TCP_WINDOW
KEEP_MAX_S: Final = 32_767  # MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL
COUNT_MAX: Final = 127  # MAX_TCP_KEEPCNT, MAX_TCP_SYNCNT
FIN_TIMEOUT_MAX_S: Final = 120  # TCP_FIN_TIMEOUT_MAX
SYN_TIMEOUT_S: Final = 1  # TCP_TIMEOUT_INIT: TCP_DEFER_ACCEPT is kept as so many retransmissions of a SYN-ACK
RTO_MAX_S: Final = 120  # TCP_RTO_MAX
DEFER_MOST: Final = 255  # rskq_defer_accept is a byte
PMTUDISC_WANT: Final = 1  # IP_PMTUDISC_WANT
PRIORITY_MOST: Final = 6  # SO_PRIORITY that anybody may set (net/core/sock.c sk_set_prio_allowed)
CONGESTION_NAME: Final = 16  # TCP_CA_NAME_MAX
NEWRENO: Final = "reno"  # Linux's name of newreno, which getsockopt answers
INT_MAX: Final = (1 << 31) - 1
_INT = struct.Struct("=i")
_UCRED = struct.Struct("=iii")
_LINGER = struct.Struct("=ii")
_TIMEVAL = struct.Struct("=qq")
_MICRO: Final = 1_000_000


class Kind(Enum):
    """How an option's bytes are read and shown."""

    FLAG = "flag"
    INT = "int"
    BUFFER = "buffer"
    LINGER = "linger"
    TIME = "time"
    NAME = "name"
    TOS = "tos"
    BYTE = "byte"  # the last one of an int
    TTL = "ttl"
    MAXSEG = "maxseg"
    QUICKACK = "quickack"
    DEFER = "defer"
    LINGER2 = "linger2"
    CLAMP = "clamp"
    PORTS = "ports"
    DEVICE = "device"  # 1: bound to the one that there is
    OPTIONS = "options"  # of the IP header: bytes, kept apart
    READ = "read"  # computed from the socket; cannot be set


@dataclass(frozen=True, slots=True)
class Option:
    """One row. `low` to `high` is allowed (else EINVAL); tcp hears `value * scale` under `tcp` (empty: nothing)."""

    name: str
    kind: Kind
    tcp: str = ""
    low: int = -INT_MAX - 1
    high: int = INT_MAX
    scale: int = 1


_F, _I, _R = Kind.FLAG, Kind.INT, Kind.READ
OPTIONS: Final[dict[tuple[int, int], Option]] = {
    (SOL_SOCKET, 1): Option("SO_DEBUG", _F),  # this and what has no name for tcp below: kept, as nothing acts on it
    (SOL_SOCKET, 2): Option("SO_REUSEADDR", _F, "reuse_address"),
    (SOL_SOCKET, 3): Option("SO_TYPE", _R),
    (SOL_SOCKET, 4): Option("SO_ERROR", _R),
    (SOL_SOCKET, 5): Option("SO_DONTROUTE", _F),
    (SOL_SOCKET, 6): Option("SO_BROADCAST", _F),
    (SOL_SOCKET, 7): Option("SO_SNDBUF", Kind.BUFFER, "sndbuf"),
    (SOL_SOCKET, 8): Option("SO_RCVBUF", Kind.BUFFER, "rcvbuf"),
    (SOL_SOCKET, 9): Option("SO_KEEPALIVE", _F, "keepalive"),
    (SOL_SOCKET, 10): Option("SO_OOBINLINE", _F),  # the client acts on it
    (SOL_SOCKET, 12): Option("SO_PRIORITY", _I),
    (SOL_SOCKET, 13): Option("SO_LINGER", Kind.LINGER),
    (SOL_SOCKET, 15): Option("SO_REUSEPORT", _F, "reuse_port"),
    (SOL_SOCKET, 17): Option("SO_PEERCRED", _R),
    (SOL_SOCKET, 18): Option("SO_RCVLOWAT", _I, "rcvlowat"),  # the client acts on it; on the two timeouts it alone
    (SOL_SOCKET, 19): Option("SO_SNDLOWAT", _R),
    (SOL_SOCKET, 20): Option("SO_RCVTIMEO", Kind.TIME),
    (SOL_SOCKET, 21): Option("SO_SNDTIMEO", Kind.TIME),
    BIND_TO_DEVICE: Option("SO_BINDTODEVICE", Kind.DEVICE),
    (SOL_SOCKET, 30): Option("SO_ACCEPTCONN", _R),
    (SOL_SOCKET, 36): Option("SO_MARK", _I),
    (SOL_SOCKET, 38): Option("SO_PROTOCOL", _R),
    (SOL_SOCKET, 39): Option("SO_DOMAIN", _R),
    (SOL_SOCKET, 46): Option("SO_BUSY_POLL", _I, "", 0),
    (SOL_SOCKET, 49): Option("SO_INCOMING_CPU", _I),
    (IPPROTO_TCP, 1): Option("TCP_NODELAY", _F, "nodelay"),
    (IPPROTO_TCP, 2): Option("TCP_MAXSEG", Kind.MAXSEG, "maxseg", MSS_MIN, MSS_MAX),
    (IPPROTO_TCP, 3): Option("TCP_CORK", _F, "cork"),
    (IPPROTO_TCP, 4): Option("TCP_KEEPIDLE", _I, "keepidle_ms", 1, KEEP_MAX_S, 1000),
    (IPPROTO_TCP, 5): Option("TCP_KEEPINTVL", _I, "keepintvl_ms", 1, KEEP_MAX_S, 1000),
    (IPPROTO_TCP, 6): Option("TCP_KEEPCNT", _I, "keepcnt", 1, COUNT_MAX),
    (IPPROTO_TCP, 7): Option("TCP_SYNCNT", _I, "syncnt", 1, COUNT_MAX),
    (IPPROTO_TCP, 8): Option("TCP_LINGER2", Kind.LINGER2, "linger2_ms", scale=1000),
    (IPPROTO_TCP, 9): Option("TCP_DEFER_ACCEPT", Kind.DEFER, "defer_accept"),
    (IPPROTO_TCP, 10): Option("TCP_WINDOW_CLAMP", Kind.CLAMP, "window_clamp"),
    (IPPROTO_TCP, 11): Option("TCP_INFO", _R),
    (IPPROTO_TCP, 12): Option("TCP_QUICKACK", Kind.QUICKACK, "quickack"),
    CONGESTION: Option("TCP_CONGESTION", Kind.NAME, "congestion"),
    (IPPROTO_TCP, 18): Option("TCP_USER_TIMEOUT", _I, "user_timeout_ms", 0),
    (IPPROTO_TCP, 23): Option("TCP_FASTOPEN", _I, "", 0),  # no cookies (RFC 7413): as where sysctl tcp_fastopen is 1
    (IPPROTO_TCP, 25): Option("TCP_NOTSENT_LOWAT", _I, "notsent_lowat"),
    (IPPROTO_TCP, 30): Option("TCP_FASTOPEN_CONNECT", _I, "", 0, 1),
    (IPPROTO_IP, 1): Option("IP_TOS", Kind.TOS, "tos"),
    (IPPROTO_IP, 2): Option("IP_TTL", Kind.TTL, "ttl", 1, 255),
    (IPPROTO_IP, 4): Option("IP_OPTIONS", Kind.OPTIONS),
    (IPPROTO_IP, 8): Option("IP_PKTINFO", _F),  # this and the next two tell nothing of a stream
    (IPPROTO_IP, 10): Option("IP_MTU_DISCOVER", _I, "mtu_discover", 0, 5),  # IP_PMTUDISC_DONT to _OMIT
    (IPPROTO_IP, 12): Option("IP_RECVTTL", _F),
    (IPPROTO_IP, 13): Option("IP_RECVTOS", _F),
    (IPPROTO_IP, 14): Option("IP_MTU", _R),
    (IPPROTO_IP, 24): Option("IP_BIND_ADDRESS_NO_PORT", _F),
    (IPPROTO_IP, 51): Option("IP_LOCAL_PORT_RANGE", Kind.PORTS, "port_range"),
}
DATAGRAM_OPTIONS: Final[dict[tuple[int, int], Option]] = {
    **{key: option for key, option in OPTIONS.items() if key[0] == SOL_SOCKET},
    (SOL_SOCKET, 6): Option("SO_BROADCAST", _F, "broadcast"),
    (SOL_SOCKET, 7): Option("SO_SNDBUF", Kind.BUFFER),
    (SOL_SOCKET, 9): Option("SO_KEEPALIVE", _F),
    (SOL_SOCKET, 11): Option("SO_NO_CHECK", _F, "no_check"),
    (SOL_SOCKET, 18): Option("SO_RCVLOWAT", _I),  # kept, as on Linux: one datagram is enough
    (IPPROTO_IP, 1): Option("IP_TOS", Kind.BYTE, "tos"),
    (IPPROTO_IP, 2): Option("IP_TTL", Kind.TTL, "ttl", 1, 255),
    (SOL_SOCKET, 29): Option("SO_TIMESTAMP", _F),  # these three, too, are the client's (see IP_PKTINFO)
    (SOL_SOCKET, 35): Option("SO_TIMESTAMPNS", _F),
    (SOL_SOCKET, 40): Option("SO_RXQ_OVFL", _F),
    (IPPROTO_IP, 4): Option("IP_OPTIONS", Kind.OPTIONS),
    (IPPROTO_IP, 6): Option("IP_RECVOPTS", _F),
    (IPPROTO_IP, 7): Option("IP_RETOPTS", _F),
    (IPPROTO_IP, 8): Option("IP_PKTINFO", _F),  # as the two before: the client shows what came with each datagram
    (IPPROTO_IP, 11): Option("IP_RECVERR", _F),
    (IPPROTO_IP, 12): Option("IP_RECVTTL", _F),
    (IPPROTO_IP, 13): Option("IP_RECVTOS", _F),
    (IPPROTO_IP, 10): Option("IP_MTU_DISCOVER", _I, "mtu_discover", 0, 5),
    (IPPROTO_IP, 14): Option("IP_MTU", _R),
    (IPPROTO_IP, 24): Option("IP_BIND_ADDRESS_NO_PORT", _F),
    (IPPROTO_IP, 33): Option("IP_MULTICAST_TTL", Kind.TTL, "multicast_ttl", 0, 255),
    (IPPROTO_IP, 34): Option("IP_MULTICAST_LOOP", _F, "multicast_loop"),
    (IPPROTO_IP, 49): Option("IP_MULTICAST_ALL", _I, "multicast_all", 0, 1),
}
"""Those of a datagram socket; what udp acts on has its name there. Memberships are calls (datagrams.py)."""
BY_NAME: Final[dict[str, Option]] = {option.name: option for option in OPTIONS.values()}


def find(level: int, number: int, *, reading: bool, table: Mapping[tuple[int, int], Option] = OPTIONS) -> Option:
    """The row; CallError as Linux for one that is not known, or cannot be set."""
    option = table.get((level, number))
    if (level, number) in OF_AF_UNIX:
        raise CallError(errno.EOPNOTSUPP)  # as Linux says since 6.16 (sk_may_scm_recv)
    if option is None:
        known_level = level in (SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP if table is OPTIONS else IPPROTO_UDP)
        raise CallError(errno.EOPNOTSUPP if reading and not known_level else errno.ENOPROTOOPT)
    if not reading and option.kind is Kind.READ:
        raise CallError(errno.ENOPROTOOPT, f"{option.name} can only be read")
    return option


def check_allowed(option: Option, kept: Mapping[str, int], before: Mapping[str, int], *, uid: int) -> None:
    """What only CAP_NET_ADMIN or CAP_NET_RAW may set on Linux, only root may here: CallError (net/core/sock.c
    sk_setsockopt, sock_bindtoindex_locked)."""
    if uid == 0:
        return
    if option.kind is Kind.DEVICE and before.get(option.name, 0):
        raise CallError(errno.EPERM, "only root may take a socket away from its device")
    value = kept.get(option.name, 0)
    if option.name == "SO_DEBUG" and value:
        raise CallError(errno.EACCES)
    raised = option.name == "SO_BUSY_POLL" and value > before.get(option.name, 0)
    if option.name == "SO_MARK" or raised or (option.name == "SO_PRIORITY" and not 0 <= value <= PRIORITY_MOST):
        raise CallError(errno.EPERM)


def unforced(level: int, number: int, value: int | bytes, *, uid: int) -> tuple[int, int | bytes]:
    """The number of the option to set, and its value. Of a forced one, which has no limit on Linux, it is the plain
    one, whose limit here is the ring. CallError unless by root (net/core/sock.c sk_setsockopt)."""
    if (level, number) not in FORCED:
        return number, value
    if uid != 0:
        raise CallError(errno.EPERM)
    return FORCED[level, number], max(integer(value), 0)


def check_length(level: int, number: int, value: int | bytes) -> None:
    """Whatever the option, SOL_SOCKET and IPPROTO_TCP want an int at least (but names)."""
    if (level, number) in (CONGESTION, BIND_TO_DEVICE):
        return
    if level in (SOL_SOCKET, IPPROTO_TCP) and isinstance(value, bytes) and len(value) < _INT.size:
        raise CallError(errno.EINVAL, "the value is shorter than an int")


def _number(option: Option, value: int | bytes) -> int:
    """The C int that was given; a level-IP option may also be one byte (net/ipv4/ip_sockglue.c)."""
    if isinstance(value, int):
        return value
    if len(value) >= _INT.size:
        number: int = _INT.unpack_from(value)[0]
        return number
    if option.name.startswith("IP_"):
        return value[0] if value else 0
    raise CallError(errno.EINVAL, f"{option.name} takes an int")


def parse(option: Option, value: int | bytes, config: GatewayCoreConfig) -> dict[str, int]:
    """What is to be kept for the new value: name → number. CallError for a wrong length or value."""
    match option.kind:
        case Kind.LINGER:
            return _parse_linger(value)
        case Kind.TIME:
            return _parse_time(option, value)
        case Kind.NAME:
            return {option.name: _parse_congestion(value, config)}
        case Kind.FLAG:
            return {option.name: int(bool(_number(option, value)))}
        case Kind.BUFFER:
            return {option.name: _buffer(option, _number(option, value), config)}
        case Kind.TOS:
            return {option.name: _number(option, value) & 0xFC}  # the ECN bits are TCP's (RFC 3168 6.1)
        case Kind.BYTE:
            return {option.name: _number(option, value) & 0xFF}
        case Kind.QUICKACK:
            given = _number(option, value)
            return {option.name: (1 if given & 1 else 2) if given else 0}
        case Kind.DEFER:
            return {option.name: _retransmissions(_number(option, value))}
        case Kind.LINGER2:
            given = _number(option, value)
            return {option.name: -1 if given < 0 else min(given, FIN_TIMEOUT_MAX_S)}
        case Kind.CLAMP:
            given = _number(option, value)
            return {option.name: max(given, MIN_RCVBUF // 2) if given else 0}
        case Kind.PORTS:
            return {option.name: _ports(value)}
        case Kind.DEVICE:
            return {option.name: _device(value, config)}
    number = _number(option, value)
    if option.kind is Kind.TTL and number == -1:
        return {option.name: 1 if option.name == "IP_MULTICAST_TTL" else config.ttl}
    if option.kind is Kind.MAXSEG and number == 0:
        return {option.name: 0}
    if option.name == "SO_RCVLOWAT":  # of a stream (net/ipv4/tcp.c tcp_set_rcvlowat) half of the buffer at most
        most = config.tcp.receive_buffer >> 1 if option.tcp else INT_MAX
        return {option.name: min(INT_MAX if number < 0 else number or 1, most)}
    if not option.low <= number <= option.high:
        raise CallError(errno.EINVAL, f"{option.name}: {option.low} to {option.high}")
    if option.name == "TCP_FASTOPEN":  # include/net/tcp.h fastopen_queue_tune
        return {option.name: min(number, config.tcp.backlog_max)}
    return {option.name: number}


def _device(value: int | bytes, config: GatewayCoreConfig) -> int:
    """1 for the one device, 0 for none (net/core/sock.c sock_setbindtodevice). Loopback is refused: the socket would be
    reached from outside all the same."""
    given = _INT.pack(value) if isinstance(value, int) else value
    name = given[: INTERFACE_NAME - 1].split(b"\0")[0].decode("utf-8", "replace")
    if not name:
        return 0
    if name == LOOPBACK:
        raise CallError(errno.EOPNOTSUPP, "sockets cannot be kept to loopback: bind to 127.0.0.1")
    if name != config.device:
        raise CallError(errno.ENODEV, f"no interface {name!r}; there is {config.device}")
    return 1


def _ports(value: int | bytes) -> int:
    """The first port in the low half, the last in the high one; 0: the system's (net/ipv4/ip_sockglue.c)."""
    if isinstance(value, bytes) and len(value) != _INT.size:
        raise CallError(errno.EINVAL, "IP_LOCAL_PORT_RANGE takes 32 bits")
    given = integer(value)
    first, last = given & 0xFFFF, given >> 16 & 0xFFFF
    if first and last and first > last:
        raise CallError(errno.EINVAL, f"ports {first} to {last}")
    return given & 0xFFFF_FFFF


def _retransmissions(seconds: int) -> int:
    """How many SYN-ACKs are sent in so many seconds (net/ipv4/tcp.c secs_to_retrans)."""
    if seconds <= 0:
        return 0
    timeout = period = SYN_TIMEOUT_S
    count = 1
    while seconds > period and count < DEFER_MOST:
        count += 1
        timeout = min(timeout * 2, RTO_MAX_S)
        period += timeout
    return count


def _seconds(retransmissions: int) -> int:
    """The time that so many SYN-ACKs take (retrans_to_secs)."""
    timeout, period = SYN_TIMEOUT_S, 0
    for _ in range(retransmissions):
        period += timeout
        timeout = min(timeout * 2, RTO_MAX_S)
    return period


def _buffer(option: Option, asked: int, config: GatewayCoreConfig) -> int:
    """Linux keeps twice what was asked (half of it for bookkeeping), within a limit; ours is the ring's size."""
    sending = option.name == "SO_SNDBUF"
    ring = config.tcp.send_ring if sending else config.tcp.receive_ring
    asked = ring if asked < 0 else min(asked, ring)  # net/core/sock.c takes the number as unsigned
    return max(asked * 2, MIN_SNDBUF if sending else MIN_RCVBUF)


def _parse_linger(value: int | bytes) -> dict[str, int]:
    if isinstance(value, int) or len(value) < _LINGER.size:
        raise CallError(errno.EINVAL, "SO_LINGER takes a struct linger")
    on, seconds = _LINGER.unpack_from(value)
    if not on:
        return {"SO_LINGER": 0}
    return {"SO_LINGER": 1, "linger_s": seconds if seconds >= 0 else INT_MAX}


def _parse_time(option: Option, value: int | bytes) -> dict[str, int]:
    if isinstance(value, int) or len(value) < _TIMEVAL.size:
        raise CallError(errno.EINVAL, f"{option.name} takes a struct timeval")
    seconds, micro = _TIMEVAL.unpack_from(value)
    if not 0 <= micro < _MICRO:
        raise CallError(errno.EDOM, f"{option.name}: 0 to 999999 microseconds")
    return {option.name: max(seconds * _MICRO + micro, 0) if seconds >= 0 else 0}


def _parse_congestion(value: int | bytes, config: GatewayCoreConfig) -> int:
    """The strategy's place in CONGESTIONS plus one; 0 for the configured one where that is somebody's own."""
    if value == b"":
        raise CallError(errno.EINVAL, "TCP_CONGESTION takes a name")
    given = _INT.pack(value) if isinstance(value, int) else value
    name = given[: CONGESTION_NAME - 1].split(b"\0")[0].decode("ascii", "replace")
    own = _congestion_name(config.tcp.congestion)
    if name in CONGESTIONS or name == NEWRENO:
        return CONGESTIONS.index("newreno" if name == NEWRENO else name) + 1
    if name == own:
        return 0
    known = dict.fromkeys([*CONGESTIONS, NEWRENO, own])
    raise CallError(errno.ENOENT, f"no congestion control {name!r}; there is {', '.join(known)}")


def _congestion_name(configured: str) -> str:
    """What getsockopt answers: Linux's name, or that of somebody's own class, in small letters."""
    name = NEWRENO if configured == "newreno" else configured.rpartition(":")[2].lower()
    return name[: CONGESTION_NAME - 1]


def default(option: Option, config: GatewayCoreConfig) -> int:
    """What a socket has that never set the option."""
    tcp = config.tcp
    values = {
        "SO_SNDBUF": min(tcp.send_initial, tcp.send_buffer),
        "SO_RCVBUF": min(tcp.receive_initial, tcp.receive_buffer),
        "SO_RCVLOWAT": 1,
        "SO_INCOMING_CPU": -1,
        "TCP_NODELAY": int(not tcp.nagle),
        "TCP_MAXSEG": MSS_DEFAULT,
        "TCP_KEEPIDLE": tcp.keepalive_idle_ms // 1000,
        "TCP_KEEPINTVL": tcp.keepalive_interval_ms // 1000,
        "TCP_KEEPCNT": tcp.keepalive_probes,
        "TCP_SYNCNT": tcp.syn_retries,
        "TCP_QUICKACK": 1,
        "TCP_LINGER2": tcp.fin_timeout_ms // 1000,
        "IP_MTU_DISCOVER": PMTUDISC_WANT,
        "IP_TTL": config.ttl,
    }
    return values.get(option.name, 0)


def show(option: Option, kept: Mapping[str, int], config: GatewayCoreConfig) -> bytes:
    """The bytes that getsockopt answers, for every kind but READ."""
    if option.kind is Kind.NAME:
        place = kept.get(option.name, 0)
        name = _congestion_name(CONGESTIONS[place - 1] if place else config.tcp.congestion)
        return name.encode("ascii", "replace").ljust(CONGESTION_NAME, b"\0")
    if option.kind is Kind.DEVICE:
        return config.device.encode() + b"\0" if kept.get(option.name) else b""
    value = kept.get(option.name)
    if value is None or (option.kind in (Kind.MAXSEG, Kind.LINGER2) and value == 0):
        value = default(option, config)
    if option.kind is Kind.QUICKACK:
        return _INT.pack(int(bool(value)))
    if option.kind is Kind.DEFER:
        return _INT.pack(_seconds(value))
    if option.kind is Kind.LINGER:
        return _LINGER.pack(value, kept.get("linger_s", 0))
    if option.kind is Kind.TIME:
        return _TIMEVAL.pack(*divmod(value, _MICRO))
    if option.kind is Kind.PORTS:
        return value.to_bytes(4, "little")
    return _INT.pack(value)


def integer(value: int | bytes) -> int:
    """The C int that was given. CallError if it is shorter."""
    if isinstance(value, int):
        return value
    if len(value) < _INT.size:
        raise CallError(errno.EINVAL, "the value is shorter than an int")
    found: int = _INT.unpack_from(value)[0]
    return found


def ip_options(value: int | bytes, *, uid: int) -> bytes:
    """IP_OPTIONS as they will be sent. CallError if they cannot be; root may send kinds that nobody knows."""
    wanted = to_send(_INT.pack(value) if isinstance(value, int) else value, privileged=uid == 0)
    if wanted is None:
        raise CallError(errno.EINVAL, "no IP options, or a source route")
    return wanted


def number(value: int) -> bytes:
    """A C int, as getsockopt answers it."""
    return _INT.pack(value)


def for_tcp(option: Option, value: int) -> int:
    """What tcp is told: a buffer's real size, times in ms, -1 as it is."""
    if value < 0:
        return value
    return value // 2 if option.kind is Kind.BUFFER else value * option.scale


def computed(name: str, sock: Socket | DatagramSocket, *, kind: int, proto: int) -> bytes:
    """The value of an option that is no setting but what the socket is; SO_ERROR is cleared by it. 0 for any other, as
    SO_ACCEPTCONN."""
    match name:
        case "SO_ERROR":
            error, sock.so_error = sock.so_error, 0
            return number(error)
        case "SO_SNDLOWAT":
            return number(1)  # always (net/core/sock.c sk_getsockopt)
        case "SO_PEERCRED":
            return _UCRED.pack(0, -1, -1)  # no process, as of every socket that is not AF_UNIX
        case "SO_TYPE":
            return number(kind)
        case "SO_DOMAIN":
            return number(AF_INET)
        case "SO_PROTOCOL":
            return number(proto)
    return number(0)


def all_for_tcp(kept: Mapping[str, int]) -> dict[str, int]:
    """Everything that was set before and that tcp acts on, by tcp's names."""
    told = {}
    for name, value in kept.items():
        option = BY_NAME.get(name)
        if option is not None and option.tcp:
            told[option.tcp] = for_tcp(option, value)
    return told
