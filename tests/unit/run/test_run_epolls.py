"""Epoll sets go on with the socket that takes another's place; our own process stands for the program."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import threading
from pathlib import Path

import pytest

from levelip.client.epolls import EVENT, Watch, watches
from levelip.run.epolls import move

TID = threading.get_native_id()
libc = ctypes.CDLL(None, use_errno=True)


def descriptors() -> set[str]:
    """Open in this process, but for that by which they are listed."""
    return {path.name for path in list(Path("/proc/self/fd").iterdir()) if path.is_symlink()}


def event(epoll: select.epoll) -> tuple[int, int] | None:
    """Mask and the program's word of the next event, as C sees it; None: there is none."""
    room = ctypes.create_string_buffer(EVENT.size)
    if libc.epoll_wait(epoll.fileno(), room, 1, 0) != 1:
        return None
    mask, word = EVENT.unpack(room.raw)
    return mask, word


def test_what_watched_the_old_one_watches_the_new_one() -> None:
    """With its events and 64 bits of the program's own, and the old one no more, though a duplicate keeps it open;
    EPOLL_CTL_MOD and _DEL find it by its number; other descriptors keep theirs."""
    old, old_peer = socket.socketpair()
    new, new_peer = socket.socketpair()
    with old, old_peer, new, new_peer, old.dup() as copy, select.epoll() as one, select.epoll() as other:
        number = old.fileno()
        word = 0x0123_4567_89AB_CDEF
        assert libc.epoll_ctl(one.fileno(), 1, number, EVENT.pack(select.EPOLLIN | select.EPOLLET, word)) == 0
        other.register(copy, select.EPOLLIN)
        entries = watches(TID, number, os.fstat(number).st_ino)
        kept = os.dup(number)
        os.dup2(new.fileno(), number)
        before = descriptors()
        move(TID, number, entries, kept, new.fileno())
        assert descriptors() <= before, "nothing more is open"
        os.close(kept)
        old_peer.send(b"old")
        assert event(one) is None
        assert other.poll(0) == [(copy.fileno(), select.EPOLLIN)]
        new_peer.send(b"new")
        assert event(one) == (select.EPOLLIN, word)
        assert event(one) is None, "edge-triggered"
        assert libc.epoll_ctl(one.fileno(), 3, number, EVENT.pack(select.EPOLLOUT, 7)) == 0
        assert event(one) == (select.EPOLLOUT, 7)
        one.unregister(number)


def test_a_set_that_is_gone_stands_in_nobody_s_way() -> None:
    """A set that the program has closed meanwhile is left out; the others go on with the new one."""
    old, old_peer = socket.socketpair()
    new, new_peer = socket.socketpair()
    with old, old_peer, new, new_peer, select.epoll() as epoll:
        gone = select.epoll()
        for one in (gone, epoll):
            one.register(old, select.EPOLLIN)
        entries = sorted(
            watches(TID, old.fileno(), os.fstat(old.fileno()).st_ino), key=lambda one: one.epoll == epoll.fileno()
        )
        assert [entry.epoll for entry in entries] == [gone.fileno(), epoll.fileno()]
        kept = os.dup(old.fileno())
        gone.close()
        os.dup2(new.fileno(), old.fileno())
        move(TID, old.fileno(), entries, kept, new.fileno())
        os.close(kept)
        new_peer.send(b"x")
        assert epoll.poll(0) == [(old.fileno(), select.EPOLLIN)]


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has as many as RLIMIT_NPROC allows: the sets stay as they are, and signals come as before."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with select.epoll() as epoll:
        move(TID, 0, [Watch(epoll.fileno(), select.EPOLLIN, 0)], 0, 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before and gc.isenabled()


def test_a_wait_that_has_begun_ends_with_the_new_one() -> None:
    """Another thread waits in epoll_wait while the socket is replaced."""
    old, old_peer = socket.socketpair()
    new, new_peer = socket.socketpair()
    with old, old_peer, new, new_peer, select.epoll() as epoll:
        number = old.fileno()
        epoll.register(number, select.EPOLLIN)
        entries = watches(TID, number, os.fstat(number).st_ino)
        found: list[list[tuple[int, int]]] = []
        waiter = threading.Thread(target=lambda: found.append(epoll.poll(60)))
        waiter.start()
        kept = os.dup(number)
        os.dup2(new.fileno(), number)
        move(TID, number, entries, kept, new.fileno())
        os.close(kept)
        new_peer.send(b"x")
        waiter.join(90)
        assert found == [[(number, select.EPOLLIN)]]
