"""The program's side: starts its socket helper, and calls it. One helper a program and its forked children.

Every thread has a connection of its own; after a fork the child opens new ones through the door that it inherited.
Descriptors that came from elsewhere, over exec or in a message, belong to the helper that made them, which lets in
who asks for it by its process id (`program_of`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from socket import AF_UNIX, SO_DOMAIN, SO_PEERCRED, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET
from typing import Any

from levelip.client import control, kernel
from levelip.client.control import Call
from levelip.rpc.paths import door_endpoint

_SOURCE = str(Path(__file__).resolve().parents[2])  # the directory that holds the package


class HelperLost(ConnectionResetError):
    """The helper died: its sockets are reset."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "Connection reset: the socket helper is gone")

    def __reduce__(self) -> tuple[type[HelperLost], tuple[()]]:
        """Made without arguments, so pickled without (concurrent.futures carries it to another process)."""
        return HelperLost, ()


class _Connection:
    """A thread's connection."""

    def __init__(self, channel: kernel.socket) -> None:
        self.pid, self.number, self.inode = os.getpid(), 0, 0
        self.channel = channel
        self.inode = os.fstat(channel.fileno()).st_ino

    def usable(self) -> bool:
        """Not inherited by a fork, and not closed behind our back (os.closerange)."""
        return self.pid == os.getpid() and self._is_open()

    def _is_open(self) -> bool:
        try:
            return os.fstat(self.channel.fileno()).st_ino == self.inode
        except OSError:
            return False

    def __del__(self) -> None:
        if self._is_open():  # in a forked child, too, which has those of the parent's other threads
            self.channel.close()
        else:
            self.channel.detach()  # the number may be another file's by now


class Program:
    """This program's connection to its helper, which starts at the first socket."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._local = threading.local()
        self._door: kernel.socket | None = None
        self._door_inode = 0
        self._hooked = False
        self.endpoint = ""
        self.helper = 0  # its process id, once there was a socket

    # -- calls

    def call(
        self,
        op: str,
        inode: int,
        args: dict[str, Any] | None = None,
        *,
        fds: tuple[int, ...] = (),
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], int]:
        """Call the helper; the answer's data and the descriptor that came with it (-1: none; else the caller's).

        Raises OSError with Linux's errno; TimeoutError when `timeout` seconds pass; HelperLost.
        """
        local = self._local  # whoever leaves the helper, or forks, meanwhile: then the connection is not kept
        connection, alive = self._take(), True
        connection.number += 1
        number, channel = connection.number, connection.channel
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            control.send(channel, control.encode(Call(number, op, inode, args or {})), fds)
            while True:
                if deadline is not None:
                    channel.settimeout(max(0.001, deadline - time.monotonic()))
                message, got = control.receive(channel)
                if not message:
                    raise ConnectionResetError
                answer = control.decode_answer(message)
                if answer.number == number:
                    break
                control.close_all(got)  # of a call that was given up
        except TimeoutError:
            raise TimeoutError("timed out") from None  # as the standard library says it
        except (ConnectionResetError, BrokenPipeError):
            alive = False
            raise HelperLost from None
        finally:
            if deadline is not None:
                channel.settimeout(None)
            if alive:
                local.connection = connection
        if answer.errno:
            control.close_all(got)
            raise OSError(answer.errno, answer.message or os.strerror(answer.errno))
        return answer.data, got[0] if got else -1

    def new_socket(self, family: int, kind: int, proto: int) -> int:
        """A new socket's descriptor; starts the helper, or another one if it died."""
        args = {"family": family, "type": kind, "proto": proto}
        try:
            fd = self.call_for_fd("socket", 0, args)[1]
        except HelperLost:
            with self._lock:
                self._shut_door()
            fd = self.call_for_fd("socket", 0, args)[1]
        if not self.helper:
            self.helper = maker(fd)
        return fd

    def call_for_fd(self, op: str, inode: int, args: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """As `call`, where the answer brings a descriptor; EMFILE if there was no room for it."""
        data, fd = self.call(op, inode, args)
        if fd < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return data, fd

    # -- connections

    def _take(self) -> _Connection:
        """This thread's connection, for one call, or a new one. While a call is under way there is none to be taken: a
        signal's handler and the end of a forgotten socket (whose repr the standard library makes) call within it."""
        connection: _Connection | None = self._local.__dict__.pop("connection", None)  # at once, whoever interrupts
        if connection is not None and connection.usable():
            return connection
        return _Connection(self._enter())

    def _enter(self) -> kernel.socket:
        """A connection to the helper; starts one where there is none."""
        with self._lock:
            for _ in range(2):
                door = self._open_door()
                ours, theirs = kernel.socketpair(AF_UNIX, SOCK_SEQPACKET)
                with theirs:
                    try:
                        control.send(door, b"+", (theirs.fileno(),))
                    except (BrokenPipeError, ConnectionResetError):
                        ours.close()
                        self._shut_door()  # the helper died: start another
                        continue
                return ours
        raise HelperLost

    def _shut_door(self) -> None:
        self.helper = 0
        if self._door is not None:
            if self._door_is_ours():
                self._door.close()
            else:
                self._door.detach()
            self._door = None

    def leave(self) -> None:
        """Let go of the helper; it ends once the sockets, which only bytes go through from now on, are closed. The next
        socket starts another helper, which looks for the stack anew (LEVELIP_RUN, LEVELIP_NAME)."""
        with self._lock:
            self._shut_door()
            self._local = threading.local()

    def _door_is_ours(self) -> bool:
        assert self._door is not None
        try:
            return os.fstat(self._door.fileno()).st_ino == self._door_inode
        except OSError:
            return False

    def _open_door(self) -> kernel.socket:
        if self._door is not None and self._door_is_ours():
            return self._door
        self._shut_door()
        self.endpoint = door_endpoint()
        path = Path(self.endpoint.removeprefix("ipc://"))
        if not path.exists():
            raise OSError(errno.ENETDOWN, f"Network is down: no Level-IP stack at {path} (start one with: lvlip up)")
        self._hook()
        door = self._start(self.endpoint)
        if self._door is not None:  # a signal's handler has started one meanwhile, which has sockets already
            door.close()
            return self._door
        self._door = door
        self._door_inode = os.fstat(self._door.fileno()).st_ino
        return self._door

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            os.register_at_fork(after_in_child=self._forked)

    @staticmethod
    def _start(endpoint: str) -> kernel.socket:
        """Start a helper; our end of its door. Raises OSError if it cannot start."""
        door, theirs = kernel.socketpair(AF_UNIX, SOCK_SEQPACKET)
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            entry for entry in (_SOURCE, environment.get("PYTHONPATH", "")) if entry
        )
        program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
        command = [sys.executable, "-P", "-m", "levelip.client.helper"]
        command += [endpoint, str(theirs.fileno()), f"{program}[{os.getpid()}]"]
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(door.close)
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            if process.wait():  # its starter ends at once; the helper is nobody's child
                raise OSError(errno.ENETDOWN, f"Network is down: the socket helper {command} did not start")
            undo.pop_all()
        return door

    def _forked(self) -> None:
        """In a forked child: the door is shared, the threads' connections are the parent's."""
        self._lock = threading.RLock()
        inherited = getattr(self._local, "connection", None)
        self._local = threading.local()
        if inherited is not None:
            with contextlib.suppress(OSError):
                if os.fstat(inherited.channel.fileno()).st_ino == inherited.inode:
                    inherited.channel.close()


class Visit(Program):
    """Another program's helper, whose descriptors we were given. Raises OSError if there is none of that id."""

    def __init__(self, helper: int) -> None:
        super().__init__()
        self.helper = helper
        self._enter().close()

    def _enter(self) -> kernel.socket:
        channel = kernel.socket(AF_UNIX, SOCK_SEQPACKET)
        channel.settimeout(None)
        try:
            channel.connect(control.address(self.helper))
        except OSError:
            channel.close()
            raise HelperLost from None
        self._hook()
        return channel


PROGRAM = Program()  # there is one helper a program
_visits: dict[int, Program] = {}


def maker(fd: int) -> int:
    """Which process made the pair that an AF_UNIX descriptor is an end of: ours are the helper's."""
    with kernel.socket(AF_UNIX, SOCK_STREAM, 0, os.dup(fd)) as probe:
        return int(struct.unpack("3i", probe.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))[0])


def program_of(fd: int) -> tuple[Program, dict[str, Any]] | None:
    """Whose helper serves this descriptor, ours or one that is visited, and what it says of it ("state"); None if it is
    no socket of the stack.

    Raises OSError for what is no socket at all.
    """
    with kernel.socket(AF_UNIX, SOCK_STREAM, 0, os.dup(fd)) as probe:
        if probe.getsockopt(SOL_SOCKET, SO_DOMAIN) != AF_UNIX:
            return None
        pid = int(struct.unpack("3i", probe.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))[0])
    if pid == os.getpid() or (not pid and not PROGRAM.endpoint):
        return None
    try:
        program = PROGRAM if pid == PROGRAM.helper else _visits.get(pid) or Visit(pid)
        state = program.call("state", os.fstat(fd).st_ino)[0]
    except OSError:
        _visits.pop(pid, None)
        return None
    if program is not PROGRAM:
        _visits[pid] = program
    return program, state
