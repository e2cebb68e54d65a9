"""The program's side of a trapped call: its memory, its descriptors, its processes."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


class _Span(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read(tid: int, address: int, length: int) -> bytes:
    """`length` bytes of a thread's memory; OSError (EFAULT, or EPERM where we may not look)."""
    if not length:
        return b""
    buffer = ctypes.create_string_buffer(length)
    ours, theirs = _Span(ctypes.addressof(buffer), length), _Span(address, length)
    _all(_libc.process_vm_readv(tid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0), length)
    return buffer.raw


def write(tid: int, address: int, data: bytes) -> None:
    """Write into a thread's memory; OSError as `read`."""
    if not data:
        return
    buffer = ctypes.create_string_buffer(data, len(data))
    ours, theirs = _Span(ctypes.addressof(buffer), len(data)), _Span(address, len(data))
    _all(_libc.process_vm_writev(tid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0), len(data))


def _all(done: int, length: int) -> None:
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if done < length:
        raise OSError(14, "Bad address")  # EFAULT: the rest is not mapped


def socket_inode(tid: int, fd: int) -> int:
    """The inode of a thread's descriptor, 0 if it is no socket; OSError if it is not open, or not to be seen."""
    found = os.stat(f"/proc/{tid}/fd/{fd}")  # noqa: PTH116 - one for each trapped call
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else 0


def descriptor_flags(tid: int, fd: int) -> int:
    """O_ flags of a thread's descriptor, with O_CLOEXEC; 0 if they are not to be seen."""
    try:
        info = os.open(f"/proc/{tid}/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(info, 256)
    except OSError:
        text = b""
    finally:
        os.close(info)
    _, _, rest = text.partition(b"flags:")
    return int(rest.split(None, 1)[0], 8) if rest.strip() else 0


def capabilities(tid: int) -> int:
    """A thread's effective capabilities (capabilities(7)); 0 if they are not to be seen."""
    try:
        text = Path(f"/proc/{tid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    _, _, rest = text.partition("CapEff:")
    return int(rest.split(None, 1)[0], 16) if rest.strip() else 0


def descendants() -> list[int]:
    """All processes below this one, the nearest first."""
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        pid = todo.pop(0)
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - plain names
        except OSError:
            continue
        for thread in threads:
            try:
                children = Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()
            except OSError:
                continue
            todo.extend(map(int, children))
            found.extend(map(int, children))
    return found
