"""Why a signal may interrupt a trapped call that never waits on Linux (docs/run.md, "Gaps"): what the kernel allows.

A notification that its supervisor has not received yet is taken back by any signal with a handler.
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19) does not change that; what it changes is that one which was received
is never taken back, so that no handler would run during an accept that waits. Therefore we do without it, and a call
without SA_RESTART may be interrupted before it has begun.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket

import pytest

from levelip.run import notify
from levelip.run.bpf import INSTRUCTION, program
from levelip.run.syscalls import machine

WAIT_KILLABLE_RECV = 1 << 5  # linux/seccomp.h
PATIENCE_MS = 60_000
NO_FILTER = 99
libc = ctypes.CDLL(None, use_errno=True)


def interrupted(number: int, go: int, flags: int) -> None:
    """In the child: install the filter, say which descriptor is the listener, and call socket(2) under signals that
    are handled without SA_RESTART. Its exit status is the call's errno."""
    code = program(machine())
    libc.prctl(notify.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    filter_ = notify._Program(len(code) // INSTRUCTION.size, code)
    flags |= notify.FLAG_NEW_LISTENER
    listener = libc.syscall(machine().seccomp, notify.SET_MODE_FILTER, flags, ctypes.byref(filter_))
    os.write(number, b"%d" % listener)
    os.read(go, 1)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    made = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    os._exit(ctypes.get_errno() if made < 0 else 0)


@pytest.mark.parametrize(
    ("flags", "received", "outcome"),
    [(0, False, errno.EINTR), (0, True, errno.EINTR), (WAIT_KILLABLE_RECV, False, errno.EINTR),
     (WAIT_KILLABLE_RECV, True, errno.EXDEV)],
)  # fmt: skip
def test_when_a_signal_takes_a_call_back(flags: int, received: bool, outcome: int) -> None:
    """EXDEV is the supervisor's answer; EINTR means that the program has gone on without it."""
    (said, number), (go, start) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        try:
            interrupted(number, go, flags)
        finally:
            os._exit(NO_FILTER)
    try:
        found = int(os.read(said, 20))
        if found < 0:
            pytest.skip("this kernel has no such filter, or one is installed already")
        listener = notify.take_listener(pid, found)
        os.write(start, b"x")
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        assert poll.poll(PATIENCE_MS), "the call is made"
        note = notify.Listener(listener).receive() if received else None
        os.kill(pid, signal.SIGALRM)
        if note is not None:
            if flags:
                assert notify.Listener(listener).answer(note.id, code=errno.EXDEV), "it waits, deaf to the signal"
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == outcome
        os.close(listener)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for fd in (said, number, go, start):
            os.close(fd)
