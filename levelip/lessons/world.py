"""Where a lesson happens: a stack of its own in this namespace, a directory, two Python prompts, a shell's commands.

All of it is gone when the lesson ends, however it ends: the stack's supervisor and every command die with this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from levelip.ipc.rundir import LAYERS, RunDirectory, RunError
from levelip.lessons.ways import Way, WorldError, loopback_up, tied

NAME, PEER = "lesson", "peer"
"""The stack, and the second one where there is no kernel on the other side."""
HOST = "10.0.0.1"
LONGEST = 32
"""Bytes of TMPDIR: below it lie sockets, whose paths are short."""
READY_S = 60.0
STOP_S = 60.0
"""supervisord gives each layer 5 s before SIGKILL."""
COMMAND_S = 60.0
"""How long a command may take."""
JOB_READY_S = 60.0
"""How long a job may take until it says its first line."""
SETTINGS = ("device.offload=false", "tcp.timestamps=false")
"""Packets as on the cable, with short lines: no super-segments, no timestamps."""


class World:
    """A stack and everything around it; `close` ends all."""

    def __init__(self, way: Way, settings: Sequence[str]) -> None:
        self.way = way
        wanted = tempfile.gettempdir()
        self.directory = Path(tempfile.mkdtemp(prefix="lv", dir=wanted if len(wanted) <= LONGEST else "/tmp"))
        self._settings = (*SETTINGS, *settings)
        self._supervisors: list[subprocess.Popen[bytes]] = []
        self._consoles: dict[str, subprocess.Popen[str]] = {}
        self.jobs: list[Job] = []

    def start(self) -> None:
        """Start the stack (on a wire, both) and wait until it is ready. WorldError."""
        programs = self.directory / "bin"
        (self.directory / "run").mkdir()
        (self.directory / "here").mkdir()
        programs.mkdir()
        for name, words in (("lvlip", "-P -m levelip.cli"), ("python", "")):
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n', encoding="utf-8")
            path.chmod(0o755)
        if self.way.name != "wire":
            loopback_up()
            for scope in ("all", "default"):  # the kernel's own chatter is not part of a lesson
                with contextlib.suppress(OSError):
                    Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1", encoding="ascii")
            self._up(NAME, [])
            return
        for name, other, own in ((NAME, PEER, ()), (PEER, NAME, (f"ip.address={HOST}/24", "ip.gateway="))):
            wire = self.directory / "run" / other / "wire.sock"
            self._up(name, ["device.kind=wire", f"device.wire_peer={wire}", *own])

    def _up(self, name: str, settings: Sequence[str]) -> None:
        log = self.directory / f"{name}.log"
        flags = [f"--set={setting}" for setting in (*self._settings, *settings)]
        with log.open("wb") as output:
            supervisor = subprocess.Popen(
                tied([sys.executable, "-P", "-m", "levelip.cli", "up", "--foreground", *flags], "TERM"),
                cwd=self.directory,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._supervisors.append(supervisor)
        deadline = time.monotonic() + READY_S
        while "is up: " not in log.read_text(errors="replace"):
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise WorldError(f"the stack does not start:\n{log.read_text(errors='replace').strip()}")
            time.sleep(0.05)

    def environment(self, name: str = NAME) -> dict[str, str]:
        """For commands: none of the caller's LEVELIP_ variables, ours instead."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LEVELIP_")}
        return {
            **kept,
            "LEVELIP_RUN": str(self.directory / "run"),
            "LEVELIP_NAME": name,
            "PATH": f"{self.directory / 'bin'}:{kept.get('PATH', os.defpath)}",
            "COLUMNS": "160",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }

    def write(self, name: str, text: str) -> None:
        """A file in the directory in which commands run."""
        (self.directory / "here" / name).write_text(text, encoding="utf-8")

    # commands

    def run(self, command: str) -> tuple[int, str]:
        """A command of the shell: exit status and what it printed. WorldError if it takes too long."""
        with self._popen(["sh", "-c", command], subprocess.PIPE) as child:
            try:
                output, _ = child.communicate(timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                _kill(child)
                output, _ = child.communicate()
                raise WorldError(f"{command}: not done within {COMMAND_S:.0f} s\n{_text(output)}") from None
            except BaseException:
                _kill(child)  # which may have ended just now
                raise
        return child.returncode, _text(output)

    def begin(self, command: str) -> Job:
        """A job: a command that runs beside others; it has said its first line, or has ended, when this returns."""
        path = self.directory / f"job{len(self.jobs) + 1}"
        with path.open("wb") as output:
            job = Job(command, self._popen(["sh", "-c", f"exec {command}"], output), path)
        self.jobs.append(job)
        deadline = time.monotonic() + JOB_READY_S
        while b"\n" not in path.read_bytes() and job.child.poll() is None:
            if time.monotonic() > deadline:
                raise WorldError(f"{command}: it says nothing for {JOB_READY_S:.0f} s")
            time.sleep(0.02)
        return job

    def _popen(self, command: Sequence[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            tied(command),
            cwd=self.directory / "here",
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def shell(self) -> None:
        """A shell in this world, at the terminal, until it ends."""
        shell = os.environ.get("SHELL", "/bin/sh")
        before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for what runs in the shell
        try:
            subprocess.run([shell], cwd=self.directory / "here", env=self.environment(), check=False)
        finally:
            signal.signal(signal.SIGINT, before)

    # Python

    def python(self, side: str, statement: str) -> str:
        """Carry a statement out at the prompt of "ours" or "peer": what it printed. WorldError."""
        console = self._consoles.get(side)
        if console is None:
            console = self._consoles[side] = self._console(side)
        assert console.stdin is not None and console.stdout is not None
        try:
            console.stdin.write(json.dumps(statement) + "\n")
            console.stdin.flush()
            ready, _, _ = select.select([console.stdout], [], [], COMMAND_S)
            answer = console.stdout.readline() if ready else ""
        except OSError as error:
            raise WorldError(f"{side}>>> {statement}: {error}") from None
        if not answer:
            raise WorldError(f"{side}>>> {statement}: " + ("it ended" if ready else f"not done in {COMMAND_S:.0f} s"))
        return str(json.loads(answer))

    def _console(self, side: str) -> subprocess.Popen[str]:
        second = side == "peer" and self.way.name == "wire"
        with (self.directory / f"{side}.log").open("ab") as log:
            return subprocess.Popen(
                tied([sys.executable, "-P", "-m", "levelip.lessons.console", "ours" if second else side]),
                cwd=self.directory / "here",
                env=self.environment(PEER if second else NAME),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def close(self) -> None:
        """End everything that was started, and remove what was written."""
        for child in self._consoles.values():
            _kill(child)
        for job in self.jobs:
            _kill(job.child)
        for supervisor in self._supervisors:
            if supervisor.poll() is None:
                supervisor.terminate()
        for supervisor in self._supervisors:
            try:
                supervisor.wait(STOP_S)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait(STOP_S)
        for name in (NAME, PEER):
            run = RunDirectory(name, self.directory / "run")
            for layer in LAYERS:
                with contextlib.suppress(ProcessLookupError, RunError):
                    if pid := run.holder(layer):
                        os.kill(pid, signal.SIGKILL)
            shutil.rmtree(run.memory, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)


class Job:
    """A command that runs beside others; what it says is shown in pieces."""

    def __init__(self, command: str, child: subprocess.Popen[bytes], path: Path) -> None:
        self.command = command
        self.child = child
        self._path = path
        self._shown = 0

    def said(self) -> str:
        """What it said since the last time, whole lines."""
        data = self._path.read_bytes()[self._shown :]
        if self.child.poll() is None:
            data = data[: data.rfind(b"\n") + 1]
        self._shown += len(data)
        return _text(data)

    def wait(self) -> str:
        """What it said until its end; WorldError if that does not come."""
        try:
            self.child.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            raise WorldError(f"{self.command}: not done within {COMMAND_S:.0f} s\n{self.said()}") from None
        return self.said()

    def signal(self, number: int) -> None:
        """As kill(1)."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child.pid, number)


def _kill(child: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(STOP_S)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
