"""The starter: what the shell waits for. It forks the supervisor, which starts the program, and mirrors it.

    shell ─▶ starter (lvlip run) ─▶ supervisor and socket helper (own session) ─▶ program (the starter's process group)

The program has the starter's terminal, process group and standard streams. Signals that the terminal sends reach it as
they would without us; those that somebody sends to the starter are passed on; and the starter ends as it ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from levelip.run.notify import die_with_parent, install
from levelip.run.supervisor import BORN, ENDED, FILTERED, NEWS, REFUSED, STARTED, STOPPED, supervise

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes, as the shell's
PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by the interpreter, not by whom it starts
PASSED_ON = frozenset(
    {
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
        signal.SIGCONT, signal.SIGWINCH, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR,
    }
)  # fmt: skip

ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})  # before the program has begun
STOPS = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})  # we stop when the program has stopped


class NotStarted(Exception):
    """The program could not be put on the stack; the text says why."""


def launch(
    argv: Sequence[str], endpoint: str, *, pid_file: Path | None = None, environment: Mapping[str, str] | None = None,
    nameservers: Sequence[str] = (), all_opens: bool = False,
) -> int:  # fmt: skip
    """Run a program over the stack at `endpoint`; its wait status (os.waitpid's). Raises NotStarted.

    `pid_file` gets the program's process id before it begins; `nameservers` are asked instead of the host's;
    `all_opens`: files of /proc/net are the stack's also for who opens them with O_CLOEXEC. The caller's SIGCHLD and the
    signals of PASSED_ON stay blocked, so that none is lost before `mirror`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | STOPS | {signal.SIGCHLD})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    me = os.getpid()
    variables = dict(os.environ if environment is None else environment)

    def start(channel: socket.socket) -> None:
        """In the program's process: never returns."""
        try:
            die_with_parent()
            if pid_file is not None:
                pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
            for number in PYTHONS_OWN:
                signal.signal(number, signal.SIG_DFL)
            listener = install(all_opens=all_opens)
        except OSError as error:
            channel.send(NEWS.pack(REFUSED, error.errno or 0) + _why(error).encode())
            os._exit(1)
        os.write(channel.fileno(), NEWS.pack(FILTERED, listener))  # no sendmsg: it is trapped from here on
        if not channel.recv(1):  # the supervisor is gone
            os._exit(1)
        os.close(listener)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            os.execvpe(argv[0], list(argv), variables)
        except OSError as error:
            os.write(2, f"lvlip run: {argv[0]}: {error.strerror}\n".encode())
            os._exit(NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE)

    sys.stdout.flush()
    sys.stderr.flush()
    if not os.fork():
        code = 1
        try:
            ours.close()
            supervise(endpoint, Path(argv[0]).name, theirs, me, start, nameservers=nameservers)
            code = 0
        finally:
            os._exit(code) if code == 0 else _crash()
    theirs.close()
    return _attend(ours)


def _crash() -> None:
    """The supervisor failed: say how, and go without the starter's cleaning up."""
    sys.excepthook(*sys.exc_info())
    os._exit(1)


def _why(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "there is a seccomp supervisor already (lvlip run, lvlip shell?): start the program as it is"
    if error.errno in (errno.ENOSYS, errno.EINVAL):
        return f"this kernel has no seccomp user notification with descriptors (Linux 5.14): {error}"
    return str(error)


def _attend(channel: socket.socket) -> int:
    """Pass signals on until the program has ended; its wait status. What is told comes with a SIGCHLD."""
    pid = ending = 0
    started = False
    while True:
        while (news := _hear(channel)) is not None:
            what, number = NEWS.unpack_from(news) if news else (b"", 0)
            if what == BORN:
                pid = number
            elif what == STARTED:
                started = True
            elif what == ENDED:
                return int(number)
            elif what == STOPPED:
                _stop(number)
            elif ending and not started:
                return ending
            elif what == REFUSED:
                raise NotStarted(news[NEWS.size :].decode(errors="replace"))
            else:
                raise NotStarted("the supervisor died")
        if ending and pid and not started:
            _kill(pid, signal.SIGKILL)  # it may wait for what never comes, with its signals blocked
        info = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            continue
        if not started and info.si_signo in ENDING:
            ending = info.si_signo if signal.getsignal(info.si_signo) is not signal.SIG_IGN else 0
        elif info.si_code <= 0:  # from a process; else from the terminal, which tells the program itself
            _kill(pid, info.si_signo)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)


def _stop(number: int) -> None:
    """Stop as the program did, until somebody lets us go on."""
    os.kill(os.getpid(), number)  # one with what the terminal has sent us, which is blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _hear(channel: socket.socket) -> bytes | None:
    try:
        return channel.recv(4096, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def mirror(status: int) -> int:
    """End as the program did: its exit code to return, or its signal, which ends us too."""
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its core is worth keeping, not ours
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
