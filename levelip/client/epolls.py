"""Which epoll sets watch a descriptor: one whose connect() is tried anew gets another socket, that they watch then."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import NamedTuple

EPOLL_CTL_ADD, EPOLL_CTL_DEL = 1, 2
EVENT = struct.Struct("=IQ" if platform.machine() == "x86_64" else "=I4xQ")  # struct epoll_event, packed on x86_64 only

_libc = ctypes.CDLL(None, use_errno=True)


class Watch(NamedTuple):
    """One entry of an epoll set: the set's number in the program, events that are waited for, the program's word."""

    epoll: int
    events: int
    data: int


def watches(tid: int | str, number: int, inode: int) -> list[Watch]:
    """Entries for the socket `inode` as descriptor `number`, in the epoll sets of a thread ("self": this process); see
    proc_pid_fdinfo(5)."""
    found = []
    try:
        names = os.listdir(f"/proc/{tid}/fd")  # noqa: PTH208 - names are all it takes
    except OSError:
        return []
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{tid}/fd/{name}") != "anon_inode:[eventpoll]":  # noqa: PTH115
                continue
            for line in Path(f"/proc/{tid}/fdinfo/{name}").read_text(encoding="ascii").splitlines():
                # tfd: 5 events: 19 data: 7f0000000005  pos:0 ino:8ac1 sdev:9
                words = line.replace(":", " ").split()
                if words[:1] == ["tfd"]:
                    entry = dict(zip(words[::2], words[1::2], strict=False))
                    if (int(entry["tfd"]), int(entry["ino"], 16)) == (number, inode):
                        found.append(Watch(int(name), int(entry["events"], 16), int(entry["data"], 16)))
    return found


def control(epoll: int, operation: int, number: int, entry: Watch) -> None:
    """epoll_ctl(2) of our descriptor `number` with an entry's events and word, which select.epoll cannot give. What
    the kernel refuses stays undone."""
    _libc.epoll_ctl(epoll, operation, number, EVENT.pack(entry.events, entry.data))
