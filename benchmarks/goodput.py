"""`make goodput`: the stack beside Linux under loss, through the same impaired path, with the same losses.

For each rate, loss and direction two transfers are a pair: one between two kernels, one between a kernel and the stack
in the place of the left one, with the same congestion control and the same seed: the relay loses the packets with the
same numbers. "send": the left host sends, so that our sender is measured; "receive": our receiver, against Linux's
sender in both. The figure is payload over time from the request to the last byte, compared whole.

All of it runs in real time where that is allowed (SCHED_RR, the kernels' sockets as well as the stack), so that other
work on the machine does not decide who wins: with four busy loops beside it 20 and 50 Mbit/s without loss stay at 1.00.
Nothing in real time is throttled for that time (sched_rt_runtime_us): a stop of 50 ms a second would be a loss of its
own. (Linux 6.12 and later still stop it that long while other work waits: the fair server.) The relay runs before all.

At 100 Mbit/s segmentation offload is on (GRO at the receiving ends, as network cards do); below it is off, and the
stack handles single packets. GOODPUT_JSON=FILE is --json's default. Exit status: 0, 1 if a transfer failed or (with
--strict) a ratio is below 0.9, 2 for a wrong call, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.agent import Agent
from benchmarks.cases import SEED
from benchmarks.pattern import PERIOD
from benchmarks.report import machine
from benchmarks.worlds import MeasuredStack, popen_in
from tests.system import paths
from tests.system.impair import Impairment
from tests.system.namespace import lack
from tests.system.paths import RIGHT, KernelPath, StackPath
from tests.system.relay import be_prompt

ONE_WAY_MS = 20.0
MSS, FRAME = 1448, 1514  # bytes: with timestamps, at an MTU of 1500
SKIP = 4
"""Packets at the start of each direction that are never lost: the handshake and the request, whose loss costs a second
and tells nothing."""
OFFLOAD_FROM = 100  # Mbit/s
TARGET = 0.9  # issue 3
ALGORITHMS = {"reno": "newreno", "cubic": "cubic"}
"""Linux's name → ours."""
_LIMIT_S = 110.0
_offsets = itertools.count(1)


@dataclass
class Cell:
    """One row: the Mbit/s of each pair, and what the relay saw of the last one."""

    algorithm: str
    rate: int
    loss: float
    direction: str
    kernel: list[float] = field(default_factory=list)
    stack: list[float] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the pairs'."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """Of each pair, sorted."""
        return sorted(ours / theirs for ours, theirs in zip(self.stack, self.kernel, strict=True))

    def size(self, seconds: float) -> int:
        """Bytes that take about `seconds`: at the rate of the path, or what Mathis's formula leaves of it (MSS / RTT *
        1.22 / sqrt(loss); Mathis, Semke, Mahdavi, Ott 1997), so that runs at a high loss do not last minutes."""
        rate = self.rate * 1e6 / 8 * MSS / FRAME
        if self.loss:
            rate = min(rate, MSS / (2 * ONE_WAY_MS / 1000) * 1.22 / self.loss**0.5)
        return int(rate * seconds)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "algorithm": self.algorithm,
            "rate_mbit": self.rate,
            "loss": self.loss,
            "direction": self.direction,
            "kernel_mbit": self.kernel,
            "stack_mbit": self.stack,
            "ratio": self.ratio if self.stack else None,
            "relay": self.seen,
        }


class Worlds:
    """Both paths of one algorithm, with a program on each left host and servers on each right one."""

    def __init__(self, algorithm: str, *, offload: bool) -> None:
        self._undo = contextlib.ExitStack()
        try:
            options: dict[str, Any] = {"gro": offload, "congestion": algorithm}
            kernel = self._undo.enter_context(KernelPath(**options))
            settings = {"tcp.congestion": ALGORITHMS[algorithm]}
            stack_path = StackPath(offload=offload, settings=settings, stack_type=MeasuredStack, **options)
            stack = self._undo.enter_context(stack_path)

            assert isinstance(stack.stack, MeasuredStack)
            for path in (kernel, stack):
                self._undo.callback(Agent(popen_in(path.right), "peer", paths.LEFT, SEED).close)
            self.paths = {"kernel": kernel, "stack": stack}
            self.agents = {
                "kernel": Agent(popen_in(kernel.left), "kernel", RIGHT, SEED),
                "stack": Agent(stack.stack.start_program, "stack", RIGHT, SEED),
            }
            for agent in self.agents.values():
                self._undo.callback(agent.close)
        except BaseException:
            self._undo.close()
            raise

    def run(self, leg: str, cell: Cell, size: int, seed: int) -> tuple[float, dict[str, Any]]:
        """One transfer: Mbit/s, and what the relay saw. AgentError if it fails."""
        path = self.paths[leg]
        line = Impairment(rate_bps=cell.rate * 10**6, delay_ms=ONE_WAY_MS, loss=cell.loss, skip=SKIP, seed=seed)
        path.impair(right=line, left=line)
        offset = next(_offsets) * 1_000_003 % PERIOD
        seconds = self.agents[leg].call(cell.direction, offset=offset, size=size, limit=_LIMIT_S)["seconds"]
        return size * 8 / seconds / 1e6, {"leg": leg, "seed": seed, "seconds": seconds, **path.stats()}

    def close(self) -> None:
        """All of it."""
        self._undo.close()


def measure(cells: list[Cell], pairs: int, seconds: float, say: Any) -> dict[str, str]:
    """Fill the cells; what failed, by cell."""
    failures: dict[str, str] = {}
    done = 0

    def key(cell: Cell) -> tuple[str, bool]:
        return cell.algorithm, cell.rate >= OFFLOAD_FROM

    for (algorithm, offload), group in itertools.groupby(sorted(cells, key=key), key):
        try:
            worlds = Worlds(algorithm, offload=offload)
        except AssertionError as error:
            failures[f"{algorithm}, offload {'on' if offload else 'off'}"] = str(error)
            continue
        try:
            for cell in group:
                size = cell.size(seconds)
                for number in range(pairs):
                    done += 1
                    what = f"{algorithm} {cell.rate} Mbit/s {cell.loss:.1%} {cell.direction}"
                    say(f"[{done}/{len(cells) * pairs}] {what}, pair {number + 1}, {size / 1e6:.1f} MB")
                    try:
                        legs = ("kernel", "stack") if number % 2 == 0 else ("stack", "kernel")
                        found = {leg: worlds.run(leg, cell, size, 1000 + number) for leg in legs}
                    except AssertionError as error:
                        failures[what] = f"pair {number + 1}: {error}"
                        break
                    cell.kernel.append(found["kernel"][0])
                    cell.stack.append(found["stack"][0])
                    cell.seen += [seen for _, seen in found.values()]
        finally:
            worlds.close()
    return failures


@contextlib.contextmanager
def unthrottled() -> Iterator[None]:
    """Let what runs in real time use a CPU whole, where that is allowed; as it was, afterwards."""
    path = Path("/proc/sys/kernel/sched_rt_runtime_us")
    try:
        before = path.read_text()
        path.write_text("-1")
    except OSError:
        yield
        return
    try:
        yield
    finally:
        path.write_text(before)


def relay_facts() -> dict[str, Any]:
    """What the relay itself can do here."""
    with KernelPath() as path:
        paths.round_trips(path, 1)
        return {
            "promptness": path.promptness,
            "added_round_trip_ms": paths.added_delay(path),  # before the flood, whose tail would be in its way
            "packets_per_s": paths.ceiling(path),
        }


def show(console: Console, cells: list[Cell]) -> None:
    """The table."""
    table = Table("algorithm", "Mbit/s", "loss", "direction", "Linux", "Level-IP", "ratio", "of pairs", "pairs")
    for cell in cells:
        if cell.stack:
            colour = "green" if cell.ratio >= TARGET else "red"
            table.add_row(*_row(cell)[:6], f"[{colour}]{cell.ratio:.2f}[/]", *_row(cell)[7:])
    console.print(table)


def _row(cell: Cell) -> list[str]:
    ratios = cell.ratios
    return [
        cell.algorithm,
        str(cell.rate),
        f"{cell.loss:.1%}",
        cell.direction,
        f"{statistics.median(cell.kernel):.2f}",
        f"{statistics.median(cell.stack):.2f}",
        f"{cell.ratio:.2f}",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        str(len(ratios)),
    ]


def markdown(cells: list[Cell]) -> str:
    """The same table for a page of docs/."""
    head = [
        "algorithm",
        "Mbit/s",
        "loss",
        "direction",
        "Linux, Mbit/s",
        "Level-IP, Mbit/s",
        "ratio",
        "of pairs",
        "pairs",
    ]
    rows = [head, ["---"] * len(head), *(_row(cell) for cell in cells if cell.stack)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="goodput", description="Goodput under loss, beside Linux.")
    parser.add_argument("--pairs", type=int, default=9, metavar="N", help="paired runs of each row (9)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run, about (10)")
    parser.add_argument("--rates", default="10,20,50,100", help="Mbit/s (10,20,50,100)")
    parser.add_argument("--loss", default="0,0.1,1,3", help="per cent (0,0.1,1,3)")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help=f"of {', '.join(ALGORITHMS)} (all)")
    parser.add_argument("--directions", default="receive,send", help="receive, send (both)")
    parser.add_argument("--strict", action="store_true", help=f"a ratio below {TARGET} is a failure")
    parser.add_argument(
        "--json", type=Path, default=os.environ.get("GOODPUT_JSON") or None, metavar="FILE", help="every figure, there"
    )
    options = parser.parse_args(argv)
    try:
        options.rates = [int(word) for word in options.rates.split(",")]
        options.loss = [float(word) / 100 for word in options.loss.split(",")]
    except ValueError as error:
        parser.error(str(error))
    for name, known in (("algorithms", ALGORITHMS), ("directions", ("receive", "send"))):
        words = getattr(options, name).split(",")
        if unknown := [word for word in words if word not in known]:
            parser.error(f"no {unknown[0]} among {name}")
        setattr(options, name, words)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    options = _arguments(argv)
    console = Console(width=None if sys.stdout.isatty() else 140)
    if missing := lack():
        console.print(f"goodput: cannot run here: {missing}")
        return 1
    cells = [
        Cell(*row) for row in itertools.product(options.algorithms, options.rates, options.loss, options.directions)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C, so that all is as it was
    promptness = be_prompt()
    facts = {**machine(), "load": os.getloadavg(), "runs": promptness, "relay": relay_facts()}
    relay = facts["relay"]
    console.print(
        f"relay: {relay['packets_per_s']:,.0f} packets/s, adds {relay['added_round_trip_ms']['p50']:.2f} ms to a round "
        f"trip (p99 {relay['added_round_trip_ms']['p99']:.2f}), runs {relay['promptness']}; "
        f"all else {promptness}; load {facts['load'][0]:.1f}"
    )
    failures: dict[str, str] = {}
    interrupted = False
    start = time.monotonic()
    with console.status("") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)

        try:
            with unthrottled():
                failures = measure(cells, options.pairs, options.seconds, say)
        except KeyboardInterrupt:
            interrupted = True
    show(console, cells)
    for what, why in failures.items():
        console.print(f"[red]{what}: {why}[/]", highlight=False)
    console.print(f"{time.monotonic() - start:.0f} s; load at the end {os.getloadavg()[0]:.1f}")
    if options.json is not None:
        found = {"machine": facts, "cells": [cell.plain() for cell in cells], "failures": failures}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        options.json.with_suffix(".md").write_text(markdown(cells) + "\n", encoding="utf-8")
        console.print(f"every figure is in {options.json}, the table in {options.json.with_suffix('.md')}")
    if interrupted:
        return 130
    missed = [cell for cell in cells if cell.stack and cell.ratio < TARGET]
    return 1 if failures or (options.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
