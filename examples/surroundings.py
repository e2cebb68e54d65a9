"""Where the demo runs: a network namespace of its own if that is allowed, and the stack of this checkout in it.

Three ways, the first that works here: as root; without root, through a user namespace; else without any namespace,
two stacks joined by a wire. All that is started dies with the demo, and the namespace with the last process in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from levelip.ipc.control import ControlClient, ControlError
from levelip.ipc.rundir import LAYERS, RunDirectory, RunError
from levelip.lessons.ways import Way, WorldError, tied
from levelip.lessons.ways import enter as enter_as
from levelip.rpc.paths import DEFAULT_NAME, MAX_SOCKET_PATH

ROOT = Path(__file__).resolve().parents[1]
CONF = "supervisord.conf"
PEER = "peer"
"""Name of the second stack, where there is no kernel on the other side."""
HOST, STACK = "10.0.0.1", "10.0.0.2"
"""level-ip.toml's addresses: the kernel's side of the tap, and the stack's."""
READY_S = 20.0
STOP_S = 15.0
"""supervisord gives each layer 5 s before SIGKILL (stopwaitsecs)."""
_LONGEST_BELOW = len("/run/level-ip/gateway-gateway") + 8  # bytes; supervisord appends a pid to its socket's name
_STARTS = 3
"""A layer that failed so often in the same way fails for good."""
_DATED = re.compile(r"^[\d-]+ [\d:,]+ ")
_SHARED = (CONF, "level-ip.toml", "layers", "gateway", "levelip")

DemoError = WorldError
"""The demo cannot go on; the text says why."""


def enter(way: Way, arguments: Sequence[str]) -> None:
    """Go on in a new namespace: the same program, the same process, with `arguments`. Does not return."""
    enter_as(way, [*sys.argv[:1], *arguments, "--inside", way.name])


class DemoStack:
    """The stack of this checkout, run by supervisord from supervisord.conf; on a wire, its peer too.

    Where the checkout cannot hold a run directory (its path is too long for sockets, it belongs to another user, or a
    stack runs in it already) a directory in /tmp with links to it stands in.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self._temporary: Path | None = None
        self.here = ROOT if self._fits() else self._mirror()
        self.run = RunDirectory(DEFAULT_NAME, self.here / "run")
        self.peer = RunDirectory(PEER, self.here / "run")
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[Any]] = []
        self._peer_started = False
        self._old_logs = {path: path.stat().st_size for path in (self.here / "run").glob("*.log")}

    def _fits(self) -> bool:
        run = ROOT / "run"
        if len(os.fsencode(ROOT)) + _LONGEST_BELOW > MAX_SOCKET_PATH or not re.fullmatch(r"[\w./+-]+", str(ROOT)):
            return False
        if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
            return False
        owned = [run, run / DEFAULT_NAME, run / f"{DEFAULT_NAME}.door"]
        if not run.is_dir() or any(path.exists() and path.stat().st_uid != os.geteuid() for path in owned):
            return False
        return not any(RunDirectory(DEFAULT_NAME, run).holder(layer) for layer in LAYERS)

    def _mirror(self) -> Path:
        self._temporary = here = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
        for name in _SHARED:
            (here / name).symlink_to(ROOT / name)
        (here / ".venv").symlink_to(sys.prefix)
        (here / "run").mkdir()
        return here

    def environment(self, name: str = DEFAULT_NAME) -> dict[str, str]:
        """For programs that use the stack: none of the caller's LEVELIP_ variables, ours instead."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LEVELIP_")}
        return {**kept, "LEVELIP_RUN": str(self.run.root), "LEVELIP_NAME": name}

    def start(self) -> float:
        """Start all and wait until it is ready; the seconds that took. DemoError."""
        start = time.monotonic()
        environment = self.environment()
        del environment["LEVELIP_RUN"], environment["LEVELIP_NAME"]  # the conf has them
        if self.way.name == "wire":
            environment["LEVELIP_DEVICE_KIND"] = "wire"
            environment["LEVELIP_DEVICE_WIRE_PEER"] = str(self.peer.path / "wire.sock")
        command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-s", "-c", CONF]
        with (self.here / "run" / "demo.log").open("ab") as log:
            self._supervisor = subprocess.Popen(
                tied(command, "TERM"),
                cwd=self.here,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if self.way.name == "wire":
            self._start_peer()
        while waiting := [layer for layer in LAYERS if not self._is_ready(layer)]:
            if self._supervisor.poll() is not None:
                raise DemoError(f"supervisord ended with status {self._supervisor.returncode}")
            if failing := [layer for layer in waiting if self._fails_repeatedly(layer)]:
                raise DemoError(f"ends as soon as it is started: {', '.join(failing)}")
            if time.monotonic() - start > READY_S:
                raise DemoError(f"not ready after {READY_S:.0f} s: {', '.join(waiting)}")
            time.sleep(0.05)
        return time.monotonic() - start

    def _start_peer(self) -> None:
        settings = {
            "device.kind": "wire",
            "device.wire_peer": self.run.path / "wire.sock",
            "ip.address": f"{HOST}/24",
            "ip.gateway": "",
        }
        flags = [f"--set={key}={value}" for key, value in settings.items()]
        self._peer_started = True
        done = subprocess.run(
            [*self.lvlip("up"), *flags],
            env=self.environment(PEER),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=READY_S + STOP_S,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"the second stack does not start:\n{done.stderr.strip()}")

    def lvlip(self, *arguments: str) -> list[str]:
        """The command line of `lvlip`; which stack is meant says the environment."""
        return [sys.executable, "-P", "-m", "levelip.cli", *arguments]

    def _is_ready(self, layer: str) -> bool:
        client = ControlClient(self.run, layer, timeout=0.5)
        try:
            return bool(client.request("status")["ready"])
        except ControlError:
            return False
        finally:
            client.close()

    def pid(self, layer: str) -> int:
        """The process of a layer, 0 while there is none."""
        return self.run.holder(layer) or 0

    def popen(self, command: Sequence[str], *, name: str = DEFAULT_NAME, **options: Any) -> subprocess.Popen[Any]:
        """Start a program that may use the stack of that name; it ends with the demo."""
        child = subprocess.Popen(
            tied(command), env=self.environment(name), stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        self._children.append(child)
        return child

    def _log(self, name: str) -> list[str]:
        """What this run wrote into a log; an earlier run's lines do not matter."""
        path = self.here / "run" / f"{name}.log"
        try:
            return path.read_bytes()[self._old_logs.get(path, 0) :].decode(errors="replace").splitlines()
        except OSError:
            return []

    def _fails_repeatedly(self, layer: str) -> bool:
        """Whether the log says the same failure at each of several starts."""
        said = [_DATED.sub("", line) for line in self._log(layer) if " INFO " not in line]
        return bool(said) and said.count(said[-1]) >= _STARTS

    def logs(self, lines: int = 12) -> list[str]:
        """What of the logs matters: each layer's last lines that are more than information, or the last ones."""
        said: list[str] = []
        for name in (*LAYERS, "demo"):
            text = self._log(name)
            serious = list(dict.fromkeys(line for line in text if " INFO " not in line))
            said += [f"{name}.log: {line}" for line in (serious or text[-3:])[-lines:]]
        return said

    def stop(self) -> list[str]:
        """End everything that was started, from the top down; what did not go the easy way."""
        trouble: list[str] = []
        for child in self._children:
            _end(child, signal.SIGKILL)
        if self._peer_started:
            down = [*self.lvlip("down")]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    down, env=self.environment(PEER), stdin=subprocess.DEVNULL, capture_output=True, timeout=STOP_S,
                    check=False,
                )  # fmt: skip
        if self._supervisor is not None and not _end(self._supervisor, signal.SIGTERM):
            trouble.append("supervisord had to be killed")
        for run in (self.run, self.peer):
            for layer in LAYERS:
                with contextlib.suppress(ProcessLookupError, RunError):
                    if pid := run.holder(layer):
                        trouble.append(f"{layer} (pid {pid}) had to be killed")
                        os.kill(pid, signal.SIGKILL)
            shutil.rmtree(run.memory, ignore_errors=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        return trouble


def _end(child: subprocess.Popen[Any], number: signal.Signals) -> bool:
    """Signal a child, and kill it if it does not go in time; whether that was not needed."""
    if child.poll() is None:
        child.send_signal(number)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(STOP_S)
        return False
    return True
