"""Stream messages: the same six words between tcp, gateway and the client (docs/rpc.md).

Every message names a socket and absolute byte offsets (0 is the first byte after the SYN) and every grant is a limit,
so all are idempotent: a repeat changes nothing, and after a reconnect a sender goes back to the receiver's offset.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from levelip.rpc.place import Payload

SocketId = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Offset = Annotated[int, Meta(ge=0, le=1 << 62)]
Errno = Annotated[int, Meta(ge=0, le=4095)]


class Send(Struct, array_like=True, tag=1):
    """Application → network: `length` bytes of the outgoing stream from `offset` on.

    With an empty payload they lie in the socket's send ring already; else `payload` holds all of them, as bytes (the
    codec carries long ones as a part of their own, which a receiver has as bytes again; any other Place is refused).
    `record`: MSG_EOR, no segment holds bytes from both sides of their end.
    """

    sock: SocketId
    offset: Offset
    length: Offset
    payload: Payload = b""
    record: bool = False


class Accepted(Struct, array_like=True, tag=2):
    """Network → application: bytes below `upto` were taken; bytes below `limit` may be sent."""

    sock: SocketId
    upto: Offset
    limit: Offset


class Data(Struct, array_like=True, tag=3):
    """Network → application: bytes of the incoming stream from `offset` on, in order, in the receive ring or inline."""

    sock: SocketId
    offset: Offset
    payload: Payload


class Consumed(Struct, array_like=True, tag=4):
    """Application → network: bytes of the incoming stream below `upto` were taken; their place may be reused."""

    sock: SocketId
    upto: Offset


class Eof(Struct, array_like=True, tag=5):
    """Either way: the stream in that direction ends at offset `at` (a FIN; shutdown(SHUT_WR))."""

    sock: SocketId
    at: Offset


class Reset(Struct, array_like=True, tag=6):
    """Either way: the connection is gone, both directions; `errno` is what SO_ERROR shows (0: abort from our side)."""

    sock: SocketId
    errno: Errno


class Urgent(Struct, array_like=True, tag=47):
    """Either way: the stream is urgent up to offset `upto`, its last urgent octet is the one before (RFC 9293 3.8.5).

    It comes before the Send or Data of that octet, so that no segment leaves without its mark, and is told as soon as
    the peer has announced it.
    """

    sock: SocketId
    upto: Offset


Stream = Send | Accepted | Data | Consumed | Eof | Reset | Urgent
