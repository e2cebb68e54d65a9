"""`make bench`: the figures of Level-IP beside those of the kernel alone, in one run (docs/performance.md).

BENCH_RUNS (5), BENCH_JSON=FILE and BENCH_ONLY=name,... are the flags' defaults. Exit status: 0, 1 if a benchmark
failed or its counters did not add up (with --strict also if a target is missed), 2 for a wrong call, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import cases, measure, paired, profiles, report, run_cases
from benchmarks.cases import SEED, Results
from benchmarks.worlds import StackWorld
from tests.system.namespace import lack
from tests.system.relay import be_prompt

CASES = {**cases.CASES, **paired.CASES, **run_cases.CASES}
_PROFILE_S = 20.0  # the kernel samples at its tick, 100 to 1,000 times a second of CPU time


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measures a stack against the kernel behind its tap.")
    runs = os.environ.get("BENCH_RUNS", "5")
    parser.add_argument("--runs", type=int, default=runs, metavar="N", help="runs of each (BENCH_RUNS; 5)")
    parser.add_argument(
        "--json",
        type=Path,
        default=os.environ.get("BENCH_JSON") or None,
        metavar="FILE",
        help="write every figure there (BENCH_JSON)",
    )
    parser.add_argument(
        "--only",
        default=os.environ.get("BENCH_ONLY", ""),
        metavar="NAME,...",
        help=f"some of {', '.join(CASES)} (BENCH_ONLY)",
    )
    parser.add_argument("--prompt", action="store_true", help="in real time, for a machine that is not ours alone")
    parser.add_argument("--strict", action="store_true", help="a missed target is a failure")
    parser.add_argument(
        "--profile", metavar="receive|send|pingpong|connects", nargs="?", const="receive",
        help="instead: where each process's time goes during this (receive)",
    )  # fmt: skip
    parser.add_argument("--no-offload", action="store_true", help="with --profile: MTU-sized packets")
    options = parser.parse_args(argv)
    options.only = [name for name in options.only.split(",") if name]
    if unknown := [name for name in options.only if name not in CASES]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.runs < 1:
        parser.error(f"{options.runs} runs")
    if options.profile not in (None, "receive", "send", "pingpong", "connects"):
        parser.error(f"--profile {options.profile}: receive, send, pingpong or connects")
    return options


def profile(console: Console, what: str, *, offload: bool) -> None:
    """Run a stack whose processes sample themselves, and show what they found."""
    with tempfile.TemporaryDirectory(prefix="lvprof") as directory:
        with StackWorld(seed=SEED, offload=offload, profile=Path(directory)) as world:
            if what in ("receive", "send"):
                size = measure.size_for(world, what, _PROFILE_S)
                console.print(f"{what}: {measure.run(world, what, size).gbit:.2f} Gbit/s while it is sampled")
            elif what == "pingpong":
                world.client.call("pingpong", seconds=_PROFILE_S, most=1_000_000)
            else:
                world.client.call("connects", at_once=16, seconds=_PROFILE_S, most=20_000)
            world.client.close()
            time.sleep(0.5)  # the helper ends, and leaves its samples
        for one in profiles.read_all(Path(directory)):
            console.print(one.text(), markup=False, highlight=False)
            console.print()


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    options = _arguments(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if missing := lack():
        console.print(f"bench: cannot run here: {missing}")
        return 1
    if options.profile:
        profile(console, options.profile, offload=not options.no_offload)
        return 0
    facts = report.machine()
    if options.prompt:
        console.print(f"bench: runs {be_prompt()}")
    results = Results(options.runs)
    failures: dict[str, str] = {}
    names = options.only or list(CASES)
    interrupted = False
    with console.status("") as status:
        for number, name in enumerate(names, 1):
            start = time.monotonic()

            def say(text: str, number: int = number) -> None:
                status.update(f"[{number}/{len(names)}] {text}")
                if not console.is_terminal:
                    print(f"[{number}/{len(names)}] {text}", file=sys.stderr, flush=True)

            results.say = say
            say(name)
            try:
                CASES[name](results)
            except KeyboardInterrupt:
                interrupted = True
                break
            except (AssertionError, OSError) as error:
                failures[name] = f"{type(error).__name__}: {error}"
            console.print(f"{name}: {'failed' if name in failures else 'done'} in {time.monotonic() - start:.0f} s")
    report.show(console, results, facts, failures)
    if options.json is not None:
        report.write_json(options.json, report.plain(results, facts, failures))
        console.print(f"every figure is in {options.json}")
    if interrupted:
        return 130
    missed = [figure.name for figure in results.figures if figure.samples and figure.holds is False]
    return 1 if failures or (options.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
