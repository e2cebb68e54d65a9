"""Why the gateway's door is no ROUTER socket: what one message of endless parts does to libzmq's.

    .venv/bin/python -m benchmarks.endless_parts

Each line: a socket of libzmq with its bounds set as tightly as they go, a client that sends parts with "more follows",
and the memory of the process as they come. Nothing is shown to the application meanwhile.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import zmq

MIB = 1 << 20
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
CASES = (  # a name, type of the socket, bytes of a part, address space of the process in MiB (0: any), MiB sent
    ("ROUTER", zmq.ROUTER, 100_000, 0, 300),
    ("ROUTER, empty parts", zmq.ROUTER, 0, 0, 40),
    ("ROUTER, RLIMIT_AS 400 MiB", zmq.ROUTER, 100_000, 400, 500),
    ("ROUTER, RLIMIT_AS 400 MiB, empty parts", zmq.ROUTER, 0, 400, 60),
    ("REP", zmq.REP, 100_000, 0, 100),
)


def _serve(pipe: Connection, path: str, kind: int, limit: int) -> None:
    """Bind, say so, and tell each part that is shown."""
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit * MIB, limit * MIB))
    served = zmq.Context().socket(kind)
    served.setsockopt(zmq.MAXMSGSIZE, MIB)
    served.setsockopt(zmq.RCVHWM, 1)
    served.bind(f"ipc://{path}")
    pipe.send("bound")
    while True:
        if served.poll(100):
            served.recv(zmq.NOBLOCK)
            pipe.send("part")


def _resident(pid: int | None) -> float:
    """MiB."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / MIB
    return 0.0


def _case(path: str, name: str, kind: int, size: int, limit: int, most: int) -> str:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(theirs, path, kind, limit), daemon=True)
    process.start()
    assert ours.poll(20) and ours.recv() == "bound"
    before, peak, sent, end = _resident(process.pid), 0.0, 0, "it would have taken more"
    piece = b"\x03" + size.to_bytes(8, "big") + bytes(size)
    piece *= max(1, 65_536 // len(piece))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        client.sendall(GREETING + READY)
        time.sleep(0.2)
        try:
            while sent < most * MIB:
                client.sendall(piece)
                sent += len(piece)
                peak = max(peak, _resident(process.pid))
        except OSError as error:
            end = f"then: {error.strerror or error}"
        time.sleep(0.5)
        peak = max(peak, _resident(process.pid))
        shown = "a part was shown" if ours.poll(0) else "nothing shown"
    if process.exitcode is not None or not process.is_alive():
        end += f", and the process died ({process.exitcode})"
    process.kill()
    process.join()
    return f"{name:42} {sent / MIB:4.0f} MiB sent: {before:3.0f} → {peak:3.0f} MiB; {shown}; {end}"


def main() -> None:
    """Run all, and print."""
    print(f"libzmq {zmq.zmq_version()}, MAXMSGSIZE 1 MiB, RCVHWM 1")
    with tempfile.TemporaryDirectory(prefix="lv", dir="/tmp") as directory:
        for number, case in enumerate(CASES):
            print(_case(f"{directory}/{number}", *case), flush=True)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
