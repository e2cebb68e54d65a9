"""A process on one side of a measurement, told what to do: `python -m benchmarks.agent stack|kernel|peer HOST SEED`.

A request is a line of JSON on standard input, [name, {argument: value}], an answer one on standard output,
{"ok": ...} or {"error": "..."}. It ends with its input. `Agent` is the other end of it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

_ENOUGH_S = 60.0


class AgentError(AssertionError):
    """What the agent was asked for failed; the text is its own."""


class Agent:
    """A started agent process; `popen` starts it with the arguments it is given after the interpreter."""

    def __init__(self, popen: Callable[..., subprocess.Popen[bytes]], kind: str, host: str, seed: int) -> None:
        argv = ["-m", "benchmarks.agent", kind, host, str(seed)]
        self._process = popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
        self._pending = b""
        self.pid = int(self.call("pid"))  # nsenter and setpriv end in exec: it is the child's

    def call(self, name: str, *, limit: float = _ENOUGH_S, **args: Any) -> Any:
        """Ask, and wait `limit` seconds for the answer. AgentError if it fails, is late, or the agent is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([name, args]).encode() + b"\n")
        except BrokenPipeError:
            raise AgentError(f"{name}: the program is gone") from None
        stdout = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([stdout], [], [], limit)[0]:
                raise AgentError(f"{name}: no answer within {limit:g} s")
            data = os.read(stdout, 1 << 20)
            if not data:
                raise AgentError(f"{name}: the program ended with {self._process.wait(5)}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise AgentError(f"{name}: {answer['error']}")
        return answer["ok"]

    def close(self) -> None:
        """End it; its sockets close with it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


def _programs(kind: str, host: str, seed: int) -> dict[str, Callable[..., Any]]:
    """What an agent of this kind can do."""
    if kind == "peer":
        from benchmarks import peer

        return {"ping": peer.ping, "pace": peer.Peer(seed).pace}
    from benchmarks.programs import Programs

    socket = importlib.import_module("levelip.client.socket" if kind == "stack" else "socket")
    programs = Programs(socket, host, seed)
    names = ("receive", "send", "pingpong", "pingpong_many", "connects", "hold", "exchange", "release")
    return {name: getattr(programs, name) for name in names}


def main() -> None:
    """Serve until the end of input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the bench's, which closes our input
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    programs = _programs(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    programs["pid"] = os.getpid
    programs["run_on"] = lambda cpus: os.sched_setaffinity(0, cpus)
    for line in sys.stdin:
        name, args = json.loads(line)
        try:
            answer = {"ok": programs[name](**args)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
