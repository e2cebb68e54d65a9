"""storm.c in Python, on levelip.client: `python storm.py ADDRESS PORT THREADS CONNECTS`."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

from levelip.client import socket

ADDRESS, PORT, THREADS, CONNECTS = sys.argv[1], *map(int, sys.argv[2:5])
signals: list[None] = []


def on_alarm(_number: int, _frame: object) -> None:
    """Count."""
    signals.append(None)


def connected() -> socket.socket:
    """A connection to the peer."""
    sock = socket.socket()
    sock.connect((ADDRESS, PORT))
    return sock


def put(sock: socket.socket, word: bytes) -> None:
    """Send it whole."""
    sock.sendall(word)


def get(sock: socket.socket, word: bytes) -> None:
    """It must come back."""
    back = b""
    while len(back) < len(word):
        more = sock.recv(len(word) - len(back))
        assert more, "the end comes before the answer"
        back += more
    assert back == word, "another answer"


def turn(word: bytes, kind: int) -> None:
    """One connection."""
    sock = connected()
    match kind:
        case 0:
            put(sock, word)
            get(sock, word)
        case 1:
            put(sock, word)
            copy = sock.dup()
            sock.close()
            get(copy, word)
            copy.close()
        case 2:
            child = os.fork()
            if not child:
                status = 1
                try:
                    put(sock, word)
                    get(sock, word)
                    status = 0
                finally:
                    os._exit(status)
            sock.close()
            assert os.waitpid(child, 0)[1] == 0, "a child failed"
        case 3:
            copy = sock.dup()
            other = threading.Thread(target=copy.close)
            other.start()
            put(sock, word)
            get(sock, word)
            other.join()
        case _:
            put(sock, word)
            get(sock, word)
            sock.set_inheritable(True)
            subprocess.run(["/bin/true"], close_fds=False, check=True)
    sock.close()


def worker(number: int, failures: list[BaseException]) -> None:
    """A thread's connections, one after the other."""
    try:
        for index in range(CONNECTS):
            turn(struct.pack("=II", index, number), 4 if index % 10 == 9 else index % 4)
    except BaseException as error:
        failures.append(error)


def descriptors() -> int:
    """Open here."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def main() -> None:
    """See storm.c."""
    turn(b"\xff" * 8, 0)
    before = descriptors()
    print("ready", flush=True)
    sys.stdin.readline()
    signal.signal(signal.SIGALRM, on_alarm)
    failures: list[BaseException] = []
    threads = [threading.Thread(target=worker, args=(number, failures)) for number in range(THREADS)]
    signal.setitimer(signal.ITIMER_REAL, 150e-6, 150e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    if failures:
        raise failures[0]
    print("done", descriptors() - before, len(signals), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
