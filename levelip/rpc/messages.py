"""Messages between a client and the gateway (docs/rpc.md). A public protocol: any language with ZeroMQ and msgpack.

A client opens a DEALER socket to the gateway's door and says `Hello`; the gateway answers `Welcome` or `Refused`.
From then on the client sends `Request`s, each answered by one `Reply` with the same number, in any order, and both
sides send stream messages (rpc/stream.py). `Pending` tells of connections that wait on a listening socket.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from levelip.rpc.place import Payload
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Errno, Offset, Reset, Send, SocketId, Urgent

VERSION = 1
KNOWS_URGENT = 1  # Hello.knows: Urgent may be sent to the client


class Hello(Struct, array_like=True, tag=20):
    """First message of a client. `token` is empty, or the session's token when it comes back after a reconnect.
    `memory` is the name of a file that the client made in `Welcome.memory_dir` (empty: payloads travel inline).
    `knows` are the messages later than version 1's first ones that the client understands: bits of KNOWS_."""

    version: int
    software: str
    token: bytes = b""
    memory: str = ""
    knows: int = 0


class Welcome(Struct, array_like=True, tag=21):
    """The session is open. A client that wants shared memory makes the file and says Hello again with its name.

    `memory_slots` rings of `memory_slot` bytes each is the size that such a file must have.
    """

    version: int
    epoch: int
    token: bytes
    memory_dir: str
    memory_slot: int
    memory_slots: int


class Refused(Struct, array_like=True, tag=22):
    """The session, or a message that is no valid request, was refused. `errno` as Linux would answer."""

    errno: Errno
    message: str


Argument = int | bool | bytes | None
"""No lists or maps: a part of 1 MiB could make 70 MB of empty ones."""


class Request(Struct, array_like=True, tag=23):
    """A call on a socket. `op` and `args` are listed in docs/rpc.md; `sock` is 0 where the call makes one."""

    request: int
    op: str
    sock: SocketId
    args: Annotated[dict[str, Argument], Meta(max_length=16)]


class Reply(Struct, array_like=True, tag=24):
    """The answer to `request`: errno 0 and `data`, or an errno with a message."""

    request: int
    errno: Errno
    data: dict[str, Any] = {}
    message: str = ""


class Pending(Struct, array_like=True, tag=25):
    """`count` connections wait to be accepted on the listening socket `sock`."""

    sock: SocketId
    count: int


Packed = Annotated[bytes, Meta(max_length=16)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Byte = Annotated[int, Meta(ge=-1, le=255)]
IpOptions = Annotated[bytes, Meta(max_length=40)]  # in whole words


class SendDatagram(Struct, array_like=True, tag=26):
    """One datagram. Without `address`: to the peer of connect. With a `request` it is answered by a Reply, as sendto(2)
    would be; with 0 a failure is counted and no more. `tos`, `ttl` -1: the socket's own.
    `source`: one of our addresses, if not the usual one (IP_PKTINFO). `ip_options`: those of its IP header, if not the
    socket's (IP_RETOPTS)."""

    sock: SocketId
    address: Packed
    port: Port
    payload: Payload
    request: int = 0
    tos: Byte = -1
    ttl: Byte = -1
    source: Packed = b""
    ip_options: IpOptions | None = None


class DatagramIn(Struct, array_like=True, tag=28):
    """One datagram for the socket, and what recvmsg(2) tells of it. `upto` is for TookDatagrams. `ip_options`: those
    that it came with; `age`: ns that it has spent in the stack; `drops`: what the socket had no room for before it."""

    sock: SocketId
    upto: Offset
    address: Packed
    port: Port
    local_address: Packed
    tos: Byte
    ttl: Byte
    iface: int
    payload: Payload
    ip_options: IpOptions = b""
    age: Annotated[int, Meta(ge=0)] = 0
    drops: int = 0


class TookDatagrams(Struct, array_like=True, tag=29):
    """The application has taken all datagrams up to the one with this `upto`: there is room for more."""

    sock: SocketId
    upto: Offset


class DatagramError(Struct, array_like=True, tag=30):
    """An ICMP error about a datagram to `address`. SO_ERROR has `errno` if the socket is connected; with IP_RECVERR the
    rest belongs into the error queue: `payload` is what it quotes of the datagram. `icmp_type` -1: our own verdict."""

    sock: SocketId
    errno: Errno
    icmp_type: int
    icmp_code: int
    reporter: Packed
    address: Packed
    port: Port
    mtu: int = 0
    payload: Annotated[bytes, Meta(max_length=65_600)] = b""


ToGateway = Hello | Request | Send | Consumed | Eof | Reset | SendDatagram | TookDatagrams | Urgent
ToClient = Welcome | Refused | Reply | Pending | Accepted | Data | Eof | Reset | Urgent | DatagramIn | DatagramError
