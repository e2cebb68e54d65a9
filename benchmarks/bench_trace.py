"""How many lines a second `lvlip trace > file` writes: a publisher of its own process sends TCP segments on a real tap
bus, a little faster than they are taken, and `lvlip trace` writes them to a file.

    python benchmarks/bench_trace.py [SECONDS] [--json]

Prints lines a second and what was left out. BENCH_JSON=FILE appends the figures as one JSON line.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zmq

from levelip.frames.packet import Segment
from levelip.ipc.control import ControlServer
from levelip.ipc.memory import Memory
from levelip.ipc.rundir import RunDirectory
from levelip.ipc.tap import Tap
from levelip.wire.tcp import ACK, PSH, pack_tcp

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
MASK = 0xFFFFFFFF
BATCH = 10
REPEATS = 20
HORIZON_S = 60.0


def publish(run: RunDirectory, ready: int) -> None:
    """Send segments for as long as somebody listens, paced by what the tool takes (its queue is bounded)."""
    lock = run.lock("tcp")
    context: zmq.Context[Any] = zmq.Context()
    tap = Tap(context, f"ipc://{run.tap('tcp')}", "tcp", Memory(run.memory, run.sessions))

    def answer(_token: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
        return tap.listen(args) if name == "tap.listen" else tap.confirm(args)

    control = ControlServer(context, f"ipc://{run.control('tcp')}", answer)
    os.write(ready, b"!")
    deadline = time.monotonic() + HORIZON_S
    sent = 0
    while time.monotonic() < deadline:
        tap.subscriptions()
        control.serve()
        if not tap.frames:
            time.sleep(0.005)
            continue
        frames = [
            Segment(
                1, [], False, 0, 1, A, B, 6, 64, 0,
                pack_tcp(4711, 80, seq=(sent + i) * 1448 & MASK, ack=1, flags=ACK | PSH, window=9, options=TIMESTAMPS),
                b"x" * 1448, 2, 0,
            )
            for i in range(BATCH)
        ]  # fmt: skip
        for listener in tap._active:  # by-passes publish_frames, which would cost more than the tool that we measure
            for frame in frames:
                record = tap.record(frame, "ip-tcp", "in", 0, time.monotonic_ns(), listener.limit)
                for _ in range(REPEATS):
                    tap._send(listener, record)
        tap.flush()
        sent += BATCH
        time.sleep(0.0001)
    os.close(lock)


def main() -> int:
    numbers = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    seconds = float(numbers[0]) if numbers else 3.0
    flags = ["--json"] if "--json" in sys.argv else []
    root = Path(tempfile.mkdtemp(prefix="lvb", dir="/tmp"))
    run = RunDirectory("b", root)
    run.create()
    read_end, write_end = os.pipe()
    publisher = os.fork()
    if publisher == 0:
        publish(run, write_end)
        os._exit(0)
    tool: subprocess.Popen[bytes] | None = None
    try:
        os.read(read_end, 1)
        target = root / "trace"
        with target.open("wb") as out:
            command = [sys.executable, "-m", "levelip.cli", "--run", str(root), "--name", "b", "trace", *flags]
            tool = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
            deadline = time.monotonic() + HORIZON_S
            while not target.stat().st_size:
                if tool.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("lvlip trace writes nothing")
                time.sleep(0.01)
            before, start = target.stat().st_size, time.monotonic()
            time.sleep(seconds)
            after, took = target.stat().st_size, time.monotonic() - start
            os.kill(publisher, signal.SIGSTOP)  # the tool writes all that has come, and is to come to an end of it
            tool.send_signal(signal.SIGTERM)
            before_cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
            _, said = tool.communicate(timeout=20)
            cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = target.read_bytes().count(b"\n")
        rate = lines * (after - before) / target.stat().st_size / took
        spent = cpu.ru_utime + cpu.ru_stime - before_cpu.ru_utime - before_cpu.ru_stime
        figures = {
            "trace_lines_per_s": round(rate),
            "trace_cpu_us_per_line": round(spent / lines * 1e6, 1),
            "lines": lines,
            "said": " ".join(said.decode().split()),
        }
        print(json.dumps(figures))
        if name := os.environ.get("BENCH_JSON"):
            with Path(name).open("a") as file:
                file.write(json.dumps(figures) + "\n")
        return 0
    finally:
        if tool is not None:
            tool.kill()
            tool.wait()
        os.kill(publisher, signal.SIGKILL)
        os.waitpid(publisher, 0)
        shutil.rmtree(run.memory, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
