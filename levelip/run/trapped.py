"""One trapped call of the program: where it came from, and how its answer gets there, at most once."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from levelip.client.control import Answer
from levelip.client.datagrams import DatagramPair
from levelip.client.pump import Pair
from levelip.run import target
from levelip.run.notify import Listener, Notification
from levelip.run.values import MAX_SOCKADDR

if TYPE_CHECKING:
    from levelip.run.netlink import NetlinkSocket

Finish = Callable[["Trapped", Answer, tuple[int, ...]], bool]

_REDONE = frozenset({"socket", "listen", "accept", "accept4", "connect", "open", "openat"})
"""Calls that, restarted, are not answered with the old answer."""


class Trapped:
    """A caller (client.connecting.Caller). `finish` carries an answer to the program; False: it was interrupted.

    A thread makes one call at a time. If its next one is the same again, on the same socket, a signal has interrupted
    this one and the kernel or the program restarts it: then this one goes on with the new notification's id, and an
    answer that could not be delivered is delivered now (`kept`). A connect or accept whose descriptor has ceased to
    block meanwhile, or begun to, is another call: the program has seen the interruption.
    """

    __slots__ = (
        "_listener", "args", "blocks", "datagrams", "deadline", "finish", "id", "inode", "kept", "late", "name",
        "netlink", "over", "pair", "pid", "resume", "tid",
    )  # fmt: skip

    def __init__(
        self, listener: Listener, note: Notification, name: str, inode: int, pair: Pair | None,
        datagrams: DatagramPair | None = None, netlink: NetlinkSocket | None = None,
    ) -> None:  # fmt: skip
        self.id = note.id
        self.pid = self.tid = note.tid
        self.args = note.args
        self.name = name
        self.inode = inode
        self.pair = pair
        self.datagrams = datagrams
        self.netlink = netlink  # its socket is one of the three, or none
        self.finish: Finish = Trapped.plain
        self.kept: Answer | None = None
        self.over = False  # answered, or given up
        self.blocks: bool | None = None  # whether the descriptor of a connect or accept does
        self.deadline: float | None = None
        self.late: Callable[[], None] | None = None  # what then
        self.resume: Callable[[], None] | None = None  # when the same call is made once more: go on
        self._listener = listener

    def same(self, other: Trapped) -> bool:
        """Whether the other is this call once more."""
        return (self.name, self.args, self.inode) == (other.name, other.args, other.inode)

    def valid(self) -> bool:
        """Whether the program still waits for the answer."""
        return self._listener.valid(self.id)

    @property
    def times(self) -> dict[int, float | None]:
        """The socket's SO_RCVTIMEO and SO_SNDTIMEO in seconds, where they are set."""
        sock = self.pair or self.datagrams or self.netlink
        assert sock is not None
        return sock.times

    # -- answers

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> bool:
        """Carry an answer of the helper to the program."""
        if self.over:
            return False
        try:
            done = self.finish(self, answer, fds)
        except OSError as error:  # EFAULT: an address that is not the program's; EMFILE: no room for a descriptor
            no_room = error.errno == errno.EMFILE and self.name in ("accept", "accept4")  # it waits for the next one
            done = self.reply(code=error.errno or errno.EIO) and not no_room
        if not done and self.name in _REDONE:
            self.over = True
        elif not done:
            self.kept = answer
        return done

    def plain(self, answer: Answer, _: tuple[int, ...] = ()) -> bool:
        """No result but an errno."""
        return self.reply(code=answer.errno)

    def reply(self, value: int = 0, *, code: int = 0) -> bool:
        """The call returns."""
        self.over = self._listener.answer(self.id, value, code)
        return self.over

    def settle(self, value: int = 0, *, code: int = 0) -> None:
        """It returns, or fails; interrupted, the same call once more does, and nothing is done again."""
        self.finish = lambda call, _, __: call.reply(value, code=code)
        self.answer(Answer(0, 0, {}))

    def fail(self, code: int) -> None:
        """It fails."""
        self.over = True
        self._listener.answer(self.id, 0, code)

    def let_through(self) -> bool:
        """The kernel carries it out, on the program's end of a pair or on what is not ours."""
        self.over = self._listener.let_through(self.id)
        return self.over

    def pass_on(self) -> None:
        """Likewise, and nothing is left to be done."""
        self.over = True
        self._listener.let_through(self.id)

    def give(self, fd: int, *, cloexec: bool) -> bool:
        """The call returns a new descriptor, for our `fd`."""
        self.over = self._listener.give(self.id, fd, cloexec=cloexec) is not None
        return self.over

    def replace(self, fd: int, number: int, *, cloexec: bool) -> bool:
        """Put our `fd` in the place of the program's descriptor `number`; the call goes on."""
        return self._listener.give(self.id, fd, cloexec=cloexec, number=number) is not None

    # -- the program's memory

    def read(self, address: int, length: int) -> bytes:
        """Bytes of it; OSError as target.read."""
        return target.read(self.tid, address, length)

    def read_name(self, address: int, length: int) -> bytes:
        """A socket address of it; none where there is none."""
        if length < 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        return self.read(address, min(length, MAX_SOCKADDR)) if address else b""

    def write(self, address: int, data: bytes) -> None:
        """Write into it; OSError as target.write."""
        target.write(self.tid, address, data)

    def write_sized(self, address: int, size_address: int, data: bytes) -> None:
        """As much of `data` as the size at `size_address` has room for, and there how long it is (socklen_t)."""
        room = int.from_bytes(self.read(size_address, 4), "little", signed=True)
        if room < 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        target.write(self.tid, address, data[:room])
        target.write(self.tid, size_address, len(data).to_bytes(4, "little"))

    def number(self, index: int) -> int:
        """An argument that is an int in C."""
        value = self.args[index] & 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value

    def __getstate__(self) -> Any:
        raise TypeError("a trapped call belongs to this process")


@contextlib.contextmanager
def refusing(call: Trapped) -> Any:
    """An OSError in the block is the call's errno."""
    try:
        yield
    except OSError as error:
        call.fail(error.errno or errno.EIO)
