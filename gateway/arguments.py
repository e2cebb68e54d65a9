"""The arguments of each call, as the client must give them (docs/rpc.md, "Calls")."""

from __future__ import annotations

import errno
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gateway.errors import CallError

AF_INET = 2
SOCK_STREAM, SOCK_DGRAM = 1, 2
IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP = 0, 1, 6, 17
SOL_SOCKET = 1
SOCK_TYPE_MASK = 0xF
SOCK_FLAGS = 0o4000 | 0o2000000  # SOCK_NONBLOCK and SOCK_CLOEXEC, which are the client's affair
Port = Annotated[int, Meta(ge=0, le=65_535)]
Int = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]  # a C int


class NoArguments(Struct, forbid_unknown_fields=True):
    """accept, getsockname, getpeername, interfaces, resolver."""


class SocketArguments(Struct, forbid_unknown_fields=True):
    """socket: Linux's numbers for address family, type and protocol."""

    family: Int = 2
    type: Int = 1
    proto: Int = 0


class BindArguments(Struct, forbid_unknown_fields=True):
    """bind: packed address (empty or all zero: any) and port (0: one is chosen)."""

    address: Annotated[bytes, Meta(max_length=128)]
    port: Port


class ListenArguments(Struct, forbid_unknown_fields=True):
    """listen."""

    backlog: Int = 128


class ConnectArguments(Struct, forbid_unknown_fields=True):
    """connect. `nonblocking`: see docs/rpc.md, "connect"."""

    address: Annotated[bytes, Meta(max_length=128)]
    port: Port
    nonblocking: bool | None = None


class ShutdownArguments(Struct, forbid_unknown_fields=True):
    """shutdown: 0 SHUT_RD, 1 SHUT_WR, 2 SHUT_RDWR."""

    how: Annotated[int, Meta(ge=0, le=2)]


class CloseArguments(Struct, forbid_unknown_fields=True):
    """close: `abort` resets; `unread`: the application leaves received bytes unread."""

    abort: bool = False
    unread: bool = False


class SetOptionArguments(Struct, forbid_unknown_fields=True):
    """setsockopt."""

    level: Int
    option: Int
    value: Int | Annotated[bytes, Meta(max_length=4096)]  # no option is as long; it may have to wait here


class GetOptionArguments(Struct, forbid_unknown_fields=True):
    """getsockopt."""

    level: Int
    option: Int


ARGUMENTS: dict[str, type[Struct]] = {
    "socket": SocketArguments,
    "bind": BindArguments,
    "listen": ListenArguments,
    "accept": NoArguments,
    "connect": ConnectArguments,
    "shutdown": ShutdownArguments,
    "close": CloseArguments,
    "setsockopt": SetOptionArguments,
    "getsockopt": GetOptionArguments,
    "getsockname": NoArguments,
    "getpeername": NoArguments,
    "interfaces": NoArguments,
    "resolver": NoArguments,
}
OF_NO_SOCKET = frozenset({"socket", "interfaces", "resolver"})


def parse(op: str, args: dict[str, Any]) -> Any:
    """The arguments of `op` as its Struct; raises msgspec.ValidationError, or CallError where there is no such call."""
    if op not in ARGUMENTS:
        raise CallError(errno.ENOSYS, f"no call {op[:40]!r}")
    return msgspec.convert(args, ARGUMENTS[op])
