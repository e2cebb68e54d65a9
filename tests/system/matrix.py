"""The matrix of transfers against Linux over a bad path: its cells, how one is run, and the sample of them.

A cell is a choice from each of FACTORS. The stack stands on the left of a path, a kernel on the right; one of them
sends 10 MB (256 KB where packets are shorter than 600 bytes), and the other compares every byte.

`python -m tests.system.matrix [--stack] [--sample] [--limit=SECONDS] [WORD ...]` runs the cells whose name holds all
words, between two kernels (which says what a cell asks of Linux itself) or with the stack: a line for each.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import socket as std
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.system.impair import Impairment
from tests.system.paths import LEFT, KernelPath, Path, StackPath
from tests.system.streams import CHUNK, chunks, connect, digest, read_all, stream

FACTORS: dict[str, tuple[str, ...]] = {
    "mtu": ("1500", "drop-icmp", "drop-silent", "9000", "1280", "576", "68"),
    "trouble": ("calm", "loss", "dup", "reorder", "corrupt"),
    "delay": ("near", "far"),
    "window": ("wide", "tiny"),
    "sender": ("kernel", "stack"),
}
TROUBLE: dict[str, dict[str, float]] = {
    "calm": {},
    "loss": {"loss": 0.01},
    "dup": {"dup": 0.02},
    "reorder": {"reorder": 0.02, "reorder_ms": 2.0},
    "corrupt": {"corrupt": 0.01},
}
SIZE, SHORT_SIZE = 10_000_000, 256_000
SHORT_MTU = 600
RATE = 100_000_000
"""bit/s of the path. Without a limit Linux fails at MTU 68 against itself: its bursts of fragments overflow queues."""
QUEUE = 1_000_000
DROP_TO = 1280
"""The MTU of a path that shrinks in mid-transfer: above Linux's tcp_base_mss (1024), where it looks first."""
TINY, SHORT_TINY = 16_384, 4096
"""SO_RCVBUF of the receiver (the second where little is sent): less than two segments at an MTU of 9000. Smaller ones
take a round trip for every few KB, and minutes for all."""
LIMIT_S = 150.0
"""How long a cell may take. Linux against itself needs 25 s for the slowest, on a machine that does nothing else."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One choice of each factor."""

    mtu: str
    trouble: str
    delay: str
    window: str
    sender: str

    def __str__(self) -> str:
        return "-".join(getattr(self, factor) for factor in FACTORS)

    @property
    def number(self) -> int:
        """From the choices alone, each weighed with a number that is odd or even, so that its bits mix them."""
        return sum(
            FACTORS[factor].index(getattr(self, factor)) * (3 + 2 * place) for place, factor in enumerate(FACTORS)
        )

    @property
    def offload(self) -> bool:
        """Whether the stack uses segmentation offload: in every other cell."""
        return self.number % 2 == 0

    @property
    def connects(self) -> str:
        """Who opens the connection: the stack or the kernel."""
        return "stack" if self.number // 2 % 2 == 0 else "kernel"

    @property
    def device_mtu(self) -> int:
        """MTU of the devices at both ends."""
        return int(self.mtu) if self.mtu.isdecimal() else 1500

    @property
    def size(self) -> int:
        """Bytes to send."""
        return SHORT_SIZE if self.device_mtu < SHORT_MTU else SIZE

    def impairments(self) -> tuple[Impairment, Impairment]:
        """Of the packets toward the receiver, and of those toward the sender."""
        one_way = {"near": 0.0, "far": 1.0 if self.window == "tiny" or self.device_mtu < SHORT_MTU else 5.0}
        common: dict[str, Any] = {
            "rate_bps": RATE,
            "queue": QUEUE,
            "delay_ms": one_way[self.delay],
            "seed": self.number + 1,
        }
        common.update(TROUBLE[self.trouble])
        data = dict(common)
        if self.mtu.startswith("drop"):
            data.update(mtu=DROP_TO, mtu_after=self.size // 3, icmp=self.mtu == "drop-icmp")
        return Impairment(**data), Impairment(**common)


CELLS = [Cell(*levels) for levels in itertools.product(*FACTORS.values())]


def pairwise(factors: Mapping[str, tuple[str, ...]] = FACTORS) -> list[tuple[str, ...]]:
    """Few rows in which each two levels of any two factors meet: greedy, the same ones each time. Of rows that bring as
    many new pairs, the one that brings most new triples."""
    names = list(factors)
    pairs = list(itertools.combinations(range(len(names)), 2))
    missing = {(i, a, j, b) for i, j in pairs for a in factors[names[i]] for b in factors[names[j]]}
    triples = list(itertools.combinations(range(len(names)), 3))
    met_triples: set[tuple[int, int, int, str, str, str]] = set()
    rows = []
    candidates = list(itertools.product(*factors.values()))

    def gain(row: tuple[str, ...]) -> tuple[int, int]:
        new = sum((i, row[i], j, row[j]) in missing for i, j in pairs)
        return new, sum((i, j, k, row[i], row[j], row[k]) not in met_triples for i, j, k in triples)

    while missing:
        best = max(candidates, key=gain)
        missing.difference_update((i, best[i], j, best[j]) for i, j in pairs)
        met_triples.update((i, j, k, best[i], best[j], best[k]) for i, j, k in triples)
        rows.append(best)
    return rows


SAMPLE = {str(Cell(*row)) for row in pairwise()}


class Worlds:
    """One path at a time, kept while cells ask for the same devices. `kernel`: no stack, but two kernels."""

    def __init__(self, *, kernel: bool = False) -> None:
        self._kernel = kernel
        self._key: tuple[int, bool] | None = None
        self._path: Path | None = None

    def of(self, cell: Cell) -> Path:
        """The path for a cell."""
        key = (cell.device_mtu, cell.offload)
        if self._path is None or key != self._key:
            self.close()
            if self._kernel:
                self._path = KernelPath(mtu=cell.device_mtu)
            else:
                self._path = StackPath(mtu=cell.device_mtu, offload=cell.offload)
            self._key = key
            for host in (self._path.left, self._path.right):  # RFC 4821: or Linux hangs on a path that drops in silence
                host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_mtu_probing"])
        return self._path

    def close(self) -> None:
        """Take it down."""
        if self._path is not None:
            self._path.close()
            self._path = None


def one_end(
    make: Callable[[], std.socket],
    task: Mapping[str, Any],
    listener: std.socket | None = None,
    *,
    answers: bool = True,
) -> str:
    """One end of a transfer, with sockets that `make` makes: the sha256 of what was received, or, from the other end,
    of what was sent (if the receiver `answers` with it). `listener` listens already."""
    with contextlib.ExitStack() as undo:
        if task["connects"]:
            sock = undo.enter_context(_connected(make, task))
        else:
            listens = undo.enter_context(listener or listening(make, task))
            listens.settimeout(task["limit"])
            sock = undo.enter_context(listens.accept()[0])
            sock.settimeout(task["limit"])
        if not task["sends"]:
            found = read_all(sock)
            if answers:
                sock.sendall(found.encode())
            return found
        for chunk in chunks(stream(task["seed"], task["size"])):
            sock.sendall(chunk)
        sock.shutdown(std.SHUT_WR)
        answer = b""
        while more := sock.recv(CHUNK):  # the receiver's word, and its end: nothing is left under way
            answer += more
        return answer.decode()


def listening(make: Callable[[], std.socket], task: Mapping[str, Any]) -> std.socket:
    """The listening socket of the end that does not connect."""
    sock = make()
    _narrow(sock, task)
    sock.setsockopt(std.SOL_SOCKET, std.SO_REUSEADDR, 1)
    sock.bind(tuple(task["address"]))
    sock.listen()
    return sock


def _connected(make: Callable[[], std.socket], task: Mapping[str, Any]) -> std.socket:
    """The socket of the end that connects, once the other end listens."""

    def prepare(sock: std.socket) -> None:
        _narrow(sock, task)
        if task["source"]:
            sock.bind((task["source"], 0))

    return connect(make, tuple(task["address"]), timeout=task["limit"], prepare=prepare)


def _narrow(sock: std.socket, task: Mapping[str, Any]) -> None:
    if task["buffer"]:
        sock.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, task["buffer"])


def app_end(task: Mapping[str, Any]) -> str:
    """The stack's end."""
    from levelip.client import socket

    return one_end(socket.socket, task)


_ports = itertools.count(6000)


def run(path: Path, cell: Cell, *, limit: float = LIMIT_S) -> dict[str, Any]:
    """Run a cell; AssertionError if bytes are wrong, TimeoutError and the like if it does not end. What was seen."""
    far = path.fresh_address()
    for host in (path.left, path.right):  # path MTUs, which also set the MSS that Linux offers
        host.run(["ip", "route", "flush", "cache"])
    toward_receiver, toward_sender = cell.impairments()
    stack_sends = cell.sender == "stack"
    if stack_sends:
        path.impair(right=toward_receiver, left=toward_sender)
    else:
        path.impair(right=toward_sender, left=toward_receiver)
    stack_connects = cell.connects == "stack"
    port = next(_ports)
    common: dict[str, Any] = {
        "address": (far if stack_connects else LEFT, port),
        "seed": cell.number + 1,
        "size": cell.size,
        "limit": limit,
    }
    tiny = 0 if cell.window == "wide" else TINY if cell.size == SIZE else SHORT_TINY
    ours = {
        **common,
        "connects": stack_connects,
        "sends": stack_sends,
        "buffer": 0 if stack_sends else tiny,
        "source": "",
    }
    theirs = {
        **common,
        "connects": not stack_connects,
        "sends": not stack_sends,
        "buffer": tiny if stack_sends else 0,
        "source": far,
    }
    start = time.monotonic()
    if isinstance(path, StackPath):
        left = path.stack.submit(app_end, ours)
    else:
        left = _in_thread(path.left.socket, ours)
    ends = [left, _in_thread(path.right.socket, theirs)]
    wanted = digest(stream(common["seed"], cell.size))
    try:
        done, waiting = concurrent.futures.wait(ends, limit + 5, concurrent.futures.FIRST_EXCEPTION)
        got = [end.result() for end in done]  # what failed first is what is told
        assert not waiting, f"not done within {limit + 5:g} s"
    finally:
        stats = path.stats()
    assert got == [wanted, wanted], "bytes differ"
    return {"seconds": time.monotonic() - start, **stats}


def _in_thread(make: Callable[[], std.socket], task: Mapping[str, Any]) -> concurrent.futures.Future[str]:
    """A kernel's end; one that listens does so when this returns."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    listener = None if task["connects"] else listening(make, task)

    def work() -> None:
        try:
            future.set_result(one_end(make, task, listener))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def met(cell: Cell, stats: Mapping[str, Any]) -> Iterator[str]:
    """What the cell was to meet and did not: a cell without its trouble proves nothing."""
    data, acks = (stats["right"], stats["left"]) if cell.sender == "stack" else (stats["left"], stats["right"])
    counter = {"loss": "lost", "dup": "duplicated", "reorder": "reordered", "corrupt": "corrupted"}.get(cell.trouble)
    if counter and not data[counter] + acks[counter]:
        yield f"nothing was {counter}"
    if cell.mtu.startswith("drop") and not data["too_long"] + data["fragmented"]:
        yield "no packet was too long"
    if stats["ring_full"] or stats["refused"]:
        yield f"the relay lost frames of its own: {stats}"


def main(argv: list[str]) -> int:
    """See the module's text."""
    words = [word for word in argv if not word.startswith("--")]
    worlds = Worlds(kernel="--stack" not in argv)
    chosen = [cell for cell in CELLS if all(word in str(cell).split("-") or word in str(cell) for word in words)]
    if "--sample" in argv:
        chosen = [cell for cell in chosen if str(cell) in SAMPLE]
    limit = next((float(word.partition("=")[2]) for word in argv if word.startswith("--limit=")), LIMIT_S)
    failed = 0
    start = time.monotonic()
    try:
        for cell in sorted(chosen, key=lambda cell: (cell.device_mtu, cell.offload)):
            try:
                seen = run(worlds.of(cell), cell, limit=limit)
                said = "; ".join(met(cell, seen)) or "fine"
                print(f"{cell!s:45} {seen['seconds']:6.2f} s  {said}", flush=True)
            except Exception as error:
                failed += 1
                print(f"{cell!s:45} FAILED  {type(error).__name__}: {error}"[:300], flush=True)
                worlds.close()
    except KeyboardInterrupt:
        return 130
    finally:
        worlds.close()
    print(f"{len(chosen)} cells, {failed} failed, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
