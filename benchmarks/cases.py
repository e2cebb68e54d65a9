"""The benchmarks. Each adds figures to the Results; `CASES` is what `make bench` runs, in this order."""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import measure, probes
from benchmarks.agent import AgentError
from benchmarks.figures import Figure, paired_ratios, percentile, sign_test
from benchmarks.worlds import LAYERS, StackWorld, VethWorld
from tests.system.harness import ROOT
from tests.system.namespace import end

World = StackWorld | VethWorld
SEED = 20_240_817
CASE_LIMIT_S = 150.0  # a case that takes longer stops with the runs that it has
BULK_S = 2.2  # length of a bulk run
PAIRS, PAIR_S = 3, 0.8  # short runs, so that what disturbs one disturbs its partner: how many for one usual run
CHATTER_S = 1.0  # length of a ping-pong or connect run
MOST_CONNECTS = 2000  # in one run: ports in TIME_WAIT must not run out
MOST_TRIPS = 1_000_000
PINGS, PING_INTERVAL_S = 200, 0.005
MANY = 64
AT_ONCE = 16
OPEN = 1000
OPEN_EXCHANGE = 65_536
_LEAST_RUNS = 3
_LISTENING_S = 10.0


@dataclass
class Results:
    """What has been measured so far. `say` shows progress."""

    runs: int
    say: Callable[[str], None] = lambda _: None
    figures: list[Figure] = field(default_factory=list)
    bulk: dict[str, list[measure.Bulk]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: Figure) -> Figure:
        """Keep a figure."""
        self.figures.append(figure)
        return figure

    def rounds(self, what: str, times: int = 1) -> Iterator[int]:
        """The numbers of the runs to make, `times` as many as usual; fewer where time runs out, with a note."""
        until = time.monotonic() + CASE_LIMIT_S
        runs = self.runs * times
        for number in range(runs):
            if number >= min(_LEAST_RUNS, runs) and time.monotonic() > until:
                self.notes.append(f"{what}: only {number} runs, then its time of {CASE_LIMIT_S:g} s was over")
                return
            self.say(f"{what}, run {number + 1} of {runs}")
            yield number


# bulk


def bulk(results: Results, *, offload: bool) -> None:
    """One connection, both directions, beside the veth pair."""
    label = "on" if offload else "off"
    target = {"receive": 2.5, "send": 3.5} if offload else {"receive": 0.15, "send": 0.15}
    with VethWorld(seed=SEED, offload=offload) as veth, StackWorld(seed=SEED, offload=offload) as stack:
        for direction in ("receive", "send"):
            name = f"bulk {direction}, offload {label}"
            results.say(f"{name}: how much takes {BULK_S:g} s")
            sizes = {world: measure.size_for(world, direction, BULK_S) for world in (veth, stack)}
            figure = results.add(Figure(name, "Gbit/s", target=target[direction]))
            figure.note = f"{sizes[stack] >> 20:,} MB a run"
            ours = results.bulk[name] = []
            theirs = results.bulk[f"{name}, kernel alone"] = []
            for _ in results.rounds(name):
                for world, runs in ((veth, theirs), (stack, ours)):
                    runs.append(measure.run(world, direction, sizes[world]))
                    _sample(figure, world, runs[-1].gbit)


# many small things


@contextlib.contextmanager
def _pair(**options: Any) -> Iterator[tuple[StackWorld, VethWorld]]:
    with VethWorld(seed=SEED) as veth, StackWorld(seed=SEED, **options) as stack:
        yield stack, veth


def pingpong(results: Results) -> None:
    """64 bytes to and fro on one connection, as the processes come and with affinity set."""
    for label, target, options in (
        ("ping-pong", 500.0, {}),
        ("ping-pong, affinity set", None, {"affinity": True}),
    ):
        with _pair(**options) as worlds:
            rate = results.add(Figure(label, "/s", target=target))
            middle = results.add(Figure(f"{label}, median trip", "ms", higher_is_better=False))
            tail = results.add(Figure(f"{label}, 99 % trip", "ms", higher_is_better=False))
            for world in worlds:  # warm up
                world.client.call("pingpong", seconds=0.2, most=MOST_TRIPS)
            for _ in results.rounds(label):
                for world in worlds:
                    trips = world.client.call("pingpong", seconds=CHATTER_S, most=MOST_TRIPS)["trips"]
                    _sample(rate, world, len(trips) / sum(trips))
                    _sample(middle, world, 1e3 * statistics.median(trips))
                    _sample(tail, world, 1e3 * percentile(trips, 0.99))


def pingpong_many(results: Results) -> None:
    """64 bytes to and fro on 64 connections of one program at once."""

    def one(world: World) -> float:
        done = world.client.call("pingpong_many", connections=MANY, seconds=CHATTER_S, most=MOST_TRIPS)
        return float(done["trips"] / done["seconds"])

    _rate(results, f"ping-pong, {MANY} connections", one, 4000.0)


def connects(results: Results) -> None:
    """Connect, exchange one byte, close."""

    def one(world: World, at_once: int) -> float:
        done = world.client.call("connects", at_once=at_once, seconds=CHATTER_S, most=MOST_CONNECTS)
        return float(done["connections"] / done["seconds"])

    _rate(results, "connect, one byte, close", functools.partial(one, at_once=1), 250.0)
    _rate(results, f"connect, one byte, close, {AT_ONCE} at once", functools.partial(one, at_once=AT_ONCE), 500.0)


def _rate(results: Results, label: str, one: Callable[[World], float], target: float) -> None:
    figure = results.add(Figure(label, "/s", target=target))
    with _pair() as worlds:
        for world in worlds:  # warm up
            one(world)
        for _ in results.rounds(label):
            for world in worlds:
                _sample(figure, world, one(world))


def ping(results: Results) -> None:
    """ICMP echo from the kernel's side into the stack."""
    middle = results.add(Figure("ICMP echo, median", "ms", target=1.0, higher_is_better=False))
    tail = results.add(Figure("ICMP echo, 99 %", "ms", higher_is_better=False))
    with _pair() as worlds:
        for world in worlds:  # warm up: ARP
            world.peer.call("ping", host=world.address, count=20, interval=PING_INTERVAL_S)
        for _ in results.rounds("ICMP echo"):
            for world in worlds:
                trips = world.peer.call("ping", host=world.address, count=PINGS, interval=PING_INTERVAL_S)
                _sample(middle, world, 1e3 * statistics.median(trips))
                _sample(tail, world, 1e3 * percentile(trips, 0.99))


def _sample(figure: Figure, world: World, value: float) -> None:
    (figure.samples if isinstance(world, StackWorld) else figure.baseline).append(value)


# 1,000 connections


def memory(results: Results) -> None:
    """1,000 connections of one program: what each costs in the layers and the helper, open and after 64 KB on each."""
    idle = results.add(Figure(f"memory a connection, {OPEN} open", "KB", higher_is_better=False))
    used = results.add(Figure(f"memory a connection, {OPEN_EXCHANGE >> 10} KB later", "KB", higher_is_better=False))
    shared = results.add(Figure("shared memory a connection, after that", "KB", higher_is_better=False))
    opening = results.add(Figure(f"opening {OPEN} connections", "/s"))
    for _ in results.rounds(f"{OPEN} connections"):
        with StackWorld(seed=SEED) as world:
            world.client.call("hold", connections=1)  # starts the helper
            names = [*LAYERS, "helper"]
            pids = {name: pid for name, pid in world.processes().items() if name in names}
            before, files = _pss(pids), probes.files_bytes(world.stack.run_directory.memory)
            took = world.client.call("hold", connections=OPEN)["seconds"]
            opening.samples.append(OPEN / took)
            opened = _pss(pids)
            idle.samples.append((sum(opened.values()) - sum(before.values())) / OPEN / 1024)
            world.client.call("exchange", size=OPEN_EXCHANGE, limit=120)
            exchanged = _pss(pids)
            used.samples.append((sum(exchanged.values()) - sum(before.values())) / OPEN / 1024)
            grown = probes.files_bytes(world.stack.run_directory.memory) - files
            shared.samples.append(grown / OPEN / 1024)
            parts = {name: (opened[name] - before[name]) / OPEN / 1024 for name in pids}
            idle.note = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
            world.client.call("release")


def _pss(pids: dict[str, int]) -> dict[str, int]:
    return {name: probes.pss_bytes(pid) for name, pid in pids.items()}


# tracing


def tracing_idle(results: Results) -> None:
    """Nobody subscribed, against the same stack with tracing cut out of its source; short runs in turn, paired."""
    for direction in ("receive", "send"):
        name = f"tracing, nobody listens, {direction}"
        figure = results.add(Figure(name, "of without", target=0.98))
        cost = results.add(Figure(f"{name}, CPU", "of without", higher_is_better=False))
        with StackWorld(seed=SEED) as whole, StackWorld(seed=SEED, cut="tracing") as cut:
            results.say(f"{name}: how much takes {PAIR_S:g} s")
            size = measure.size_for(whole, direction, PAIR_S)
            measure.run(cut, direction, size)  # warm up
            runs: dict[StackWorld, list[measure.Bulk]] = {whole: [], cut: []}
            for number in results.rounds(name, PAIRS):
                for world in (whole, cut) if number % 2 else (cut, whole):
                    runs[world].append(measure.run(world, direction, size))
        figure.samples = paired_ratios([one.gbit for one in runs[whole]], [one.gbit for one in runs[cut]])
        figure.note = f"{len(figure.samples)} pairs; by chance alone {100 * sign_test(figure.samples):.0f} %"
        cost.samples = paired_ratios([one.cpu_s for one in runs[whole]], [one.cpu_s for one in runs[cut]])
        cost.note = f"by chance alone {100 * sign_test(cost.samples):.0f} %"


def tracing_on(results: Results) -> None:
    """`lvlip trace > file` during bulk: throughput against the same without, and what the trace left out."""
    with StackWorld(seed=SEED) as world, tempfile.TemporaryDirectory(prefix="lvbench") as directory:
        for direction in ("receive", "send"):
            name = f"lvlip trace > file, {direction}"
            figure = results.add(Figure(name, "of without", target=0.5))
            size = measure.size_for(world, direction, BULK_S)
            alone: list[float] = []
            traced: list[float] = []
            lines = left_out = 0
            for _ in results.rounds(name):
                alone.append(measure.run(world, direction, size).gbit)
                with _trace(world, Path(directory)) as told:
                    traced.append(measure.run(world, direction, size).gbit)
                lines += told["lines"]
                left_out += told["left_out"]
            figure.samples = paired_ratios(traced, alone)
            figure.note = f"{lines:,} lines written, said to be left out: {left_out:,}"


@contextlib.contextmanager
def _trace(world: StackWorld, directory: Path) -> Iterator[dict[str, int]]:
    """Runs `lvlip trace`; after it, how many lines it has written and what it says that it left out."""
    target, log = directory / "trace.txt", directory / "trace.log"
    told: dict[str, int] = {"lines": 0, "left_out": 0}
    with target.open("wb") as output, log.open("wb") as errors:
        assert world.stack.namespace is not None
        process = world.stack.namespace.popen(
            [sys.executable, "-P", "-m", "levelip.cli", "trace"],
            env={**world.stack.env, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + _LISTENING_S
        while "listening" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > until:
                raise AgentError(f"lvlip trace does not listen: {log.read_text(errors='replace')}")
            time.sleep(0.02)
        yield told
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
    finally:
        end(process)
    said = re.search(r"^(\d+) left out", log.read_text(errors="replace"), re.MULTILINE)
    told["left_out"] = int(said[1]) if said else 0
    with target.open("rb") as lines:
        told["lines"] = sum(1 for _ in lines)


CASES: dict[str, Callable[[Results], None]] = {
    "bulk": functools.partial(bulk, offload=True),
    "bulk-no-offload": functools.partial(bulk, offload=False),
    "pingpong": pingpong,
    "pingpong-64": pingpong_many,
    "connect": connects,
    "ping": ping,
    "memory": memory,
    "trace-idle": tracing_idle,
    "trace-on": tracing_on,
}
