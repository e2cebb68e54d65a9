"""struct msghdr in the program's memory: what sendmsg(2) and recvmsg(2) point to, and ancillary data (socket(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

from levelip.run import target
from levelip.run.values import MAX_SOCKADDR

MSGHDR = struct.Struct("=QIxxxxQQQQixxxx")  # of 64-bit machines, as all that follows
NAME = struct.Struct("=QI")  # its first fields: msg_name, msg_namelen
MMSGHDR_SIZE = MSGHDR.size + 8  # and msg_len, padded
NAME_LENGTH, CONTROL_LENGTH, FLAGS = 8, 40, 48  # offsets in struct msghdr
IOVEC = struct.Struct("=QQ")
CMSGHDR = struct.Struct("=Qii")
MAX_IOVECS = 1024  # UIO_MAXIOV
MAX_CONTROL = 20_480  # net.core.optmem_max
ALIGN = 8


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Message:
    """One struct msghdr of a thread; OSError where it is none."""

    def __init__(self, tid: int, address: int) -> None:
        self._tid = tid
        self.address = address
        fields = MSGHDR.unpack(target.read(tid, address, MSGHDR.size))
        self.name, self.name_length, vector, count, self._control, self._control_length, _ = fields
        if count > MAX_IOVECS:
            raise _refuse(errno.EMSGSIZE)
        raw = target.read(tid, vector, count * IOVEC.size)
        self.spans = [span for span in IOVEC.iter_unpack(raw) if span[1]]
        self.size = sum(length for _, length in self.spans)

    def destination(self) -> bytes:
        """msg_name, as it is; empty if there is none."""
        if not self.name or not self.name_length:
            return b""
        return target.read(self._tid, self.name, min(self.name_length, MAX_SOCKADDR))

    def gather(self) -> bytes:
        """The bytes to send."""
        return b"".join(target.read(self._tid, *span) for span in self.spans)

    def scatter(self, data: bytes) -> int:
        """Write what was received, as far as there is room; how much that was."""
        done = 0
        for address, length in self.spans:
            if done >= len(data):
                break
            piece = data[done : done + length]
            target.write(self._tid, address, piece)
            done += len(piece)
        return done

    def control(self) -> list[tuple[int, int, bytes]]:
        """Ancillary data to send: level, type, bytes of each."""
        if not self._control or not self._control_length:
            return []
        if self._control_length > MAX_CONTROL:
            raise _refuse(errno.ENOBUFS)
        raw = target.read(self._tid, self._control, self._control_length)
        rows, at = [], 0
        while at + CMSGHDR.size <= len(raw):
            length, level, kind = CMSGHDR.unpack_from(raw, at)
            if not CMSGHDR.size <= length <= len(raw) - at:
                raise _refuse(errno.EINVAL)
            rows.append((level, kind, raw[at + CMSGHDR.size : at + length]))
            at += (length + ALIGN - 1) // ALIGN * ALIGN
        return rows

    def answer(self, name: bytes, rows: Sequence[tuple[int, int, bytes]], flags: int) -> None:
        """What recvmsg(2) tells beside the bytes: the sender, ancillary data as far as there is room, flags."""
        if self.name:
            target.write(self._tid, self.name, name[: self.name_length])
            target.write(self._tid, self.address + NAME_LENGTH, len(name).to_bytes(4, "little"))
        packed = bytearray()
        room = self._control_length if self._control else 0
        for level, kind, data in rows:
            left = room - len(packed) - CMSGHDR.size
            if left < len(data):
                flags |= socket.MSG_CTRUNC  # and what there is room for, as net/core/scm.c put_cmsg
            if left < 0:
                break
            data = data[:left]
            packed += CMSGHDR.pack(CMSGHDR.size + len(data), level, kind) + data
            packed += bytes(min(-len(packed) % ALIGN, room - len(packed)))
        if packed:
            target.write(self._tid, self._control, bytes(packed))
        target.write(self._tid, self.address + CONTROL_LENGTH, len(packed).to_bytes(8, "little"))
        target.write(self._tid, self.address + FLAGS, flags.to_bytes(4, "little"))
