"""Calls and answers between a program and its helper, and the questions about the program's ends."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.client import control
from levelip.client.control import Answer, Call
from levelip.client.ends import Ends, unread

NUMBERS = st.integers(0, (1 << 63) - 1)
INTS = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.dictionaries(st.text(max_size=9), INTS | st.binary() | st.text() | st.none())


@given(NUMBERS, st.text(max_size=20), NUMBERS, VALUES)
def test_call_round_trip(number: int, op: str, inode: int, args: dict[str, object]) -> None:
    """decode(encode(x)) == x."""
    call = Call(number, op, inode, args)
    assert control.decode_call(control.encode(call)) == call


@given(NUMBERS, st.integers(0, 4095), VALUES, st.text(max_size=50))
def test_answer_round_trip(number: int, code: int, data: dict[str, object], message: str) -> None:
    """decode(encode(x)) == x."""
    answer = Answer(number, code, data, message)
    assert control.decode_answer(control.encode(answer)) == answer


@given(st.binary(max_size=60))
def test_garbage_is_a_value_error(data: bytes) -> None:
    """Nothing but a ValueError (msgspec's own error is one) comes out of a message that is none."""
    try:
        control.decode_call(data)
    except ValueError:
        return


def test_descriptors_travel() -> None:
    """A descriptor arrives as another number for the same file, close-on-exec; the end is an empty message."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        reading, writing = os.pipe()
        control.send(one, b"take this", (reading,))
        message, fds = control.receive(two)
        assert message == b"take this"
        assert len(fds) == 1
        assert os.fstat(fds[0]).st_ino == os.fstat(reading).st_ino
        assert not os.get_inheritable(fds[0])
        for fd in (reading, writing, *fds):
            os.close(fd)
        one.close()
        assert control.receive(two) == (b"", [])


@pytest.mark.parametrize("netlink", [True, False])
def test_alive(netlink: bool) -> None:
    """An end is alive while somebody holds it: by sock_diag, and by /proc/net/unix where there is none."""
    ends = Ends()
    ends._no_netlink = not netlink
    ours, theirs = socket.socketpair()
    other = theirs.dup()
    inodes = [os.fstat(sock.fileno()).st_ino for sock in (ours, theirs)]
    assert ends.alive(inodes) == set(inodes)
    theirs.close()
    assert ends.alive(inodes) == set(inodes)
    other.close()
    assert ends.alive(inodes) == {inodes[0]}
    assert ends.alive([]) == set()
    ours.close()
    ends.close()


def test_borrow() -> None:
    """A process's end is lent by the kernel where we may trace it (ourselves, here), found by its inode."""
    ours, theirs = socket.socketpair()
    inode = os.fstat(theirs.fileno()).st_ino
    lent = Ends().borrow({inode, 1}, lambda: [os.getpid(), 0], {})
    assert list(lent) == [inode]
    with socket.socket(fileno=lent[inode]) as again:
        again.send(b"x")
    assert ours.recv(1) == b"x"
    ours.close()
    theirs.close()


def test_unread() -> None:
    """What we wrote counts as unread until the other side has read all of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not unread(ours)
        ours.send(b"ab")
        assert theirs.recv(1) == b"a"
        assert unread(ours)
        assert theirs.recv(1) == b"b"
        assert not unread(ours)
