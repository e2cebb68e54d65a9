"""The supervisor of one stack: its configuration file, its start and its end, and questions by its XML-RPC."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from levelip.cli.common import Failure, alive
from levelip.configfile import CONFIG_VARIABLE, SETTINGS_VARIABLE, Overlay
from levelip.debug.programs import search_path
from levelip.ipc.rundir import RunDirectory
from levelip.rpc.paths import MAX_SOCKET_PATH

MALLOC = {
    "MALLOC_TOP_PAD_": "16777216",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}
"""glibc keeps freed memory instead of giving it back and faulting it in again: 6-10 % of throughput (DESIGN 4)."""
MODULES = {"link": "layers.link", "ip": "layers.ip", "tcp": "layers.tcp", "udp": "layers.udp", "gateway": "gateway"}
STOP_WAIT_S = 5
"""How long a process may take to end after SIGTERM before SIGKILL."""
KILL_WAIT_S = 5.0
"""How long it may take to be gone after SIGKILL; supervisord sends that up to a second late."""
UNTOLD_S = 1.0
"""How long somebody waits without being told for what."""
SUPERVISORD_S = 10.0
"""So long supervisord may be silent before it counts as one that hangs."""
ORDER_S = 30.0
"""Likewise, while it carries out an order: to end a layer takes STOP_WAIT_S and more."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PID_DIGITS = 8
"""supervisord binds SOCKET.PID first; pids go up to 4194304."""
_RPC_ERRORS = (OSError, HTTPException, xmlrpc.client.Error)


@dataclass(frozen=True, slots=True)
class Paths:
    """Files of the supervisor in a run directory."""

    conf: Path
    config: Path
    settings: Path
    socket: Path
    pidfile: Path
    log: Path

    @classmethod
    def of(cls, run: RunDirectory) -> Paths:
        return cls(
            run.path / "supervisord.conf",
            run.path / "config.toml",
            run.path / "settings.json",
            run.path / "supervisor.sock",
            run.path / "supervisord.pid",
            run.logs / "supervisord.log",
        )


@dataclass(frozen=True, slots=True)
class Program:
    """What the supervisor says of one layer. `pid` is 0 while it does not run."""

    layer: str
    state: str
    pid: int
    started: int
    exit_status: int
    log: str


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over an AF_UNIX socket; OSError after `timeout` seconds of silence."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, host: Any) -> HTTPConnection:
        return _UnixConnection(self._path, self._timeout)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Supervisor:
    """Questions and orders to the supervisor of a stack, over its socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def _server(self, timeout: float) -> Any:
        transport = _UnixTransport(str(self.socket), timeout)
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def pid(self) -> int | None:
        """Its process id, or None if nobody answers."""
        try:
            return int(self._server(SUPERVISORD_S).getPID())
        except _RPC_ERRORS:
            return None

    def identifier(self) -> str:
        """The name of the stack that it runs (the checkout's socket lies where all stacks of that directory do)."""
        return str(self._call("getIdentification"))

    def programs(self) -> dict[str, Program]:
        """The layers that it runs."""
        found = {}
        for info in self._call("getAllProcessInfo"):
            found[info["name"]] = Program(
                info["name"], info["statename"], info["pid"], info["start"], info["exitstatus"], info["stdout_logfile"]
            )
        return found

    def stop(self, layer: str) -> None:
        """End a layer and wait for it; no error if it does not run."""
        try:
            self._call("stopProcess", layer, True)
        except Failure as failure:
            if "NOT_RUNNING" not in str(failure):
                raise

    def start(self, layer: str) -> None:
        """Start a layer; no error if it runs."""
        try:
            self._call("startProcess", layer, True)
        except Failure as failure:
            if "ALREADY_STARTED" not in str(failure):
                raise

    def shutdown(self) -> None:
        """Tell it to end all layers and then itself. At a shutdown it ends one layer after the other, each within
        STOP_WAIT_S; so they are told all at once before."""
        self._call("stopAllProcesses", False)
        self._call("shutdown")

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self._server(ORDER_S), method)(*args)
        except xmlrpc.client.Fault as fault:
            raise Failure(f"supervisord: {fault.faultString}") from None
        except _RPC_ERRORS as error:
            raise Failure(f"supervisord does not answer at {self.socket}: {error}") from None


def find(run: RunDirectory) -> tuple[Supervisor, int] | None:
    """The supervisor that runs the stack, and its pid: one of `lvlip up`, or of supervisord.conf in a checkout, whose
    socket lies in the directory above."""
    for path in (Paths.of(run).socket, run.root / "supervisor.sock"):
        if path.exists():
            supervisor = Supervisor(path)
            pid = supervisor.pid()
            if pid is not None and supervisor.identifier() == run.name:
                return supervisor, pid
    return None


def was_set(run: RunDirectory) -> Overlay | None:
    """What was set since the stack's supervisor started; None without one, which could remember nothing."""
    running = find(run)
    if running is None:
        return None
    try:
        overlay = msgspec.json.decode(Paths.of(run).settings.read_bytes(), type=Overlay)
    except (OSError, msgspec.DecodeError):
        return Overlay(running[1])
    return overlay if overlay.supervisor == running[1] else Overlay(running[1])


def conf_text(run: RunDirectory, layers: Sequence[str]) -> str:
    """The configuration of supervisord for these layers."""
    paths = Paths.of(run)
    variables = {
        "LEVELIP_RUN": str(run.root),
        "LEVELIP_NAME": run.name,
        CONFIG_VARIABLE: str(paths.config),
        SETTINGS_VARIABLE: str(paths.settings),
        **MALLOC,
        **search_path(),
    }
    environment = ",".join(f'{name}="{_plain(value)}"' for name, value in variables.items())
    text = f"""\
; Written by `lvlip up`; changes are lost at the next start.
[supervisord]
logfile={_plain(str(paths.log))}
pidfile={_plain(str(paths.pidfile))}
childlogdir={_plain(str(run.logs))}
directory={_plain(str(run.path))}
identifier={_plain(run.name)}
nodaemon=false

[unix_http_server]
file={_plain(str(paths.socket))}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{_plain(str(paths.socket))}
"""
    for layer in layers:
        text += f"""
[program:{layer}]
command="{_plain(sys.executable)}" -P -m {MODULES[layer]}
environment={environment}
autorestart=true
startsecs=0
stopasgroup=true
killasgroup=true
stopwaitsecs={STOP_WAIT_S}
redirect_stderr=true
stdout_logfile={_plain(str(run.logs / layer))}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""
    return text


def _plain(text: str) -> str:
    """A path in supervisord's file, which expands "%" once for some keys and twice for others."""
    if any(sign in text for sign in '"%\n'):
        raise Failure(f"{text!r}: supervisord cannot take a path with a quote, a percent sign or a newline; "
                      "choose another --run")  # fmt: skip
    return text


def check_socket(run: RunDirectory) -> None:
    """Failure if supervisord cannot bind its socket there for its length."""
    size = len(os.fsencode(Paths.of(run).socket)) + 1 + _PID_DIGITS
    if size > MAX_SOCKET_PATH:
        raise Failure(
            f"{run.path}: supervisord's socket below it would have {size} bytes, {MAX_SOCKET_PATH} are allowed; "
            "choose a shorter directory (--run or LEVELIP_RUN) or --name"
        )


def spawn(run: RunDirectory, *, foreground: bool = False) -> subprocess.Popen[bytes] | None:
    """Start supervisord; in the background it has its socket open, or Failure, when this returns."""
    paths = Paths.of(run)
    command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(paths.conf)]
    environ = {name: value for name, value in os.environ.items() if not is_override(name)}
    if foreground:
        nothing = subprocess.DEVNULL  # what it says is in its log; a Ctrl-C is ours to pass on
        parent, libc = os.getpid(), ctypes.CDLL(None)
        return subprocess.Popen(
            [*command, "-n", "-s"],
            env=environ,
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
            preexec_fn=lambda: _end_with(parent, libc),  # noqa: PLW1509 - nothing has made a thread yet
        )
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise Failure(f"supervisord does not start: {done.stdout.decode(errors='replace').strip()}")
    return None


def _end_with(parent: int, libc: ctypes.CDLL) -> None:
    """In a child: SIGTERM when its parent ends, however that ends, so that no stack is left behind (prctl(2))."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def is_override(variable: str) -> bool:
    """Whether it is LEVELIP_<SECTION>_<KEY>, which `up` has written into the stack's configuration already."""
    from levelip.configfile import keys

    return variable in {key.variable for key in keys().values()}


def orphans(run: RunDirectory, layers: Sequence[str]) -> dict[str, int]:
    """Layers that hold their locks though no supervisor answers: pid by layer. Failure for one started by hand."""
    left = {}
    for layer in layers:
        pid = run.holder(layer)
        if pid is None:
            continue
        if not was_supervised(pid):
            raise Failure(
                f"{layer} of stack {run.name!r} is running already (pid {pid}), started by hand; "
                "end it first, or use another --name"
            )
        left[layer] = pid
    return left


def was_supervised(pid: int) -> bool:
    """Whether supervisord started this process."""
    try:
        return b"SUPERVISOR_ENABLED=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def silent(run: RunDirectory) -> int | None:
    """The pid of a supervisord of `lvlip up` that is there, though it may not answer; None if there is none."""
    paths = Paths.of(run)
    try:
        pid = int(paths.pidfile.read_text("ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(paths.conf) in words and alive(pid) else None


def end(processes: Mapping[str, int], tell: Callable[[str], None]) -> set[str]:
    """SIGTERM to all (name → pid), and SIGKILL for those that do not listen, which are returned."""
    slow = dict(processes)
    for number, seconds in ((signal.SIGTERM, float(STOP_WAIT_S)), (signal.SIGKILL, KILL_WAIT_S)):
        for pid in slow.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        left = wait_for_end(slow, seconds, tell)
        if not left:
            return set(slow) if number == signal.SIGKILL else set()
        slow = left
    raise Failure(f"{named(slow)}: not ended, even by SIGKILL")


def wait_for_end(
    processes: Mapping[str, int], seconds: float, tell: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Those that are still there after so long. `tell` hears whom it waits for, once, if that takes long."""
    begun = time.monotonic()
    left = dict(processes)
    told = False
    while left := {name: pid for name, pid in left.items() if alive(pid)}:
        passed = time.monotonic() - begun
        if passed > seconds:
            break
        if passed > UNTOLD_S and not told:
            told = True
            tell(f"waiting for {named(left)} to end, {seconds - passed:.0f} s at most")
        time.sleep(0.05)
    return left


def named(processes: Mapping[str, int]) -> str:
    """For a person: "tcp (pid 5), gateway (pid 7)"."""
    return ", ".join(f"{name} (pid {pid})" for name, pid in processes.items())


def tail(path: Path, lines: int = 10) -> list[str]:
    """The last lines of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return last_lines(file, lines)
    except OSError:
        return []


def last_lines(file: BinaryIO, lines: int) -> list[str]:
    """The last lines of what a file holds by now; it stands behind them then, so that what is added is read next."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 65_536))
    return file.read().decode(errors="replace").splitlines()[-lines:] if lines else []
