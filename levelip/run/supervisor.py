"""The supervisor: parent of the program and its socket helper in one process.

It is the program's parent, since the kernel lets a process look into its descendants only (Yama), and takes over
orphans for the same reason. It has left the terminal's session, so that Ctrl-C does not cut what the program wrote.
The starter (launcher.py) hears from it how the program ended; what is still to be delivered does not keep that waiting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence

from levelip.client.door import let_go_of_stderr
from levelip.client.helper import detach

NEWS = struct.Struct("=ci")  # what happened to the program, and a number
BORN, STARTED, ENDED, STOPPED = b"b", b"p", b"e", b"s"  # its pid, twice; its wait status; the signal
REFUSED, FILTERED = b"r", b"f"  # an errno, then text; the program's number of the listener


class Processes:
    """The program and the orphans that it left. `fd` is readable when one of them has changed, or the starter died."""

    def __init__(self, pid: int, starter: socket.socket, starter_pid: int) -> None:
        self.ended = False
        self._pid = pid
        self._starter = starter
        self._starter_pid = starter_pid
        self._starter_lives = True
        self._woken, wake = socket.socketpair()
        self._wake = wake
        for end in (self._woken, wake, starter):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._both = select.epoll()
        self._both.register(self._woken.fileno(), select.EPOLLIN)
        self._both.register(starter.fileno(), select.EPOLLIN)
        self.fd = self._both.fileno()
        self.tell(STARTED, pid)
        os.kill(os.getpid(), signal.SIGCHLD)  # it may have ended before

    def tell(self, what: bytes, number: int) -> None:
        """Tell the starter of it."""
        _tell(self._starter, self._starter_pid, NEWS.pack(what, number))

    def event(self) -> None:
        """Reap; and where the starter was killed, kill the program, as a kill of it would have."""
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        if self._starter_lives and not self._hear_starter():
            self._let_starter_go()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid != self._pid:
                continue
            if os.WIFSTOPPED(status):
                self.tell(STOPPED, os.WSTOPSIG(status))
                continue
            if os.WIFCONTINUED(status):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._starter_pid, signal.SIGCONT)
                continue
            self.ended = True
            self.tell(ENDED, status)
            if self._starter_lives:
                self._let_starter_go()
            let_go_of_stderr()

    def _hear_starter(self) -> bool:
        try:
            return bool(self._starter.recv(1))
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def _let_starter_go(self) -> None:
        self._starter_lives = False
        self._both.unregister(self._starter.fileno())


def supervise(
    endpoint: str, software: str, starter: socket.socket, starter_pid: int, start: Callable[[socket.socket], None],
    *, nameservers: Sequence[str] = (),
) -> None:  # fmt: skip
    """Fork the program, which `start` turns the child into after it told of its listener (or a refusal) through the
    socket that it is given, and was answered; serve it until its last process and its last socket are gone."""
    from levelip.run.notify import become_subreaper

    become_subreaper()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        starter.close()  # else it would not see our end
        start(theirs)
    theirs.close()
    _tell(starter, starter_pid, NEWS.pack(BORN, pid))
    try:
        listener = _await_listener(pid, ours, starter)
    except OSError as error:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _tell(starter, starter_pid, NEWS.pack(REFUSED, error.errno or 0) + str(error.strerror or error).encode())
        return
    ours.send(b"g")
    ours.close()
    os.setsid()
    _close_all_but({2, starter.fileno(), listener})
    detach()
    processes = Processes(pid, starter, starter_pid)

    from levelip.client.loop import Loop
    from levelip.run.trap import Trap

    loop = Loop(endpoint, Trap(listener, processes, nameservers), f"{software}[{pid}]", share=True)
    loop.run()
    loop.close()


def _await_listener(pid: int, child: socket.socket, starter: socket.socket) -> int:
    """The listener of a child that is about to become the program; OSError if it is not, or the starter has died."""
    from levelip.run.notify import take_listener

    ready, _, _ = select.select([child, starter], [], [])  # the starter says nothing: readable is its end
    news = b"" if child not in ready else child.recv(4096)
    what, number = NEWS.unpack_from(news) if news else (REFUSED, errno.ECHILD)
    if what != FILTERED:
        raise OSError(number, news[NEWS.size :].decode(errors="replace") or "the program could not be started")
    return take_listener(pid, number)


def _tell(starter: socket.socket, starter_pid: int, news: bytes) -> None:
    """Tell the starter, which waits for signals."""
    with contextlib.suppress(OSError):
        starter.send(news, socket.MSG_NOSIGNAL)
        os.kill(starter_pid, signal.SIGCHLD)


def _close_all_but(kept: set[int]) -> None:
    """The program's descriptors are not ours to hold: whoever reads its output waits for their end."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - plain numbers
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
    null = os.open(os.devnull, os.O_RDWR)  # 0
    os.dup2(null, 1)
