"""What an option costs: the same transfer with and without it, in turn, in one run, so that what disturbs one disturbs
its partner. Figures are ratios pair by pair: of throughput, and of the CPU time of all processes together.

Recording, the web view at 1 Gbit/s, and the process of a transport that is not used. The order within the rounds
changes from one to the next.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks import measure
from benchmarks.cases import PAIR_S, PAIRS, SEED, Results
from benchmarks.figures import Figure, paired_ratios, sign_test
from benchmarks.worlds import LAYERS, StackWorld

RECORDED = 0.8  # issue 4: of the throughput without
WATCHED = 0.7
RATE = 1_000_000_000  # bit/s
WEB_S = 1.5  # length of a run: the page must have time to show it
DIRECTIONS = ("receive", "send")

Runs = dict[str, list[measure.Bulk]]
Ways = Mapping[str, Callable[[], measure.Bulk]]


def _in_turn(results: Results, name: str, ways: Ways, times: int) -> Runs:
    """Every way once a round, each round in another order."""
    runs: Runs = {way: [] for way in ways}
    order = list(ways)
    for number in results.rounds(name, times):
        order = [*order[1:], order[0]] if number % 2 else order[::-1]
        for way in order:
            runs[way].append(ways[way]())
    return runs


def _compare(results: Results, name: str, runs: Runs, way: str, base: str, target: float | None) -> None:
    """Two figures: throughput and CPU of `way`, of what they are with `base`."""
    ours, theirs = runs[way], runs[base]
    figure = results.add(Figure(name, "of without", target=target))
    figure.samples = paired_ratios([one.gbit for one in ours], [one.gbit for one in theirs])
    low, high = min(figure.samples), max(figure.samples)
    figure.note = (
        f"{len(ours)} pairs of {ours[0].size >> 20:,} MB, {low:.2f} to {high:.2f}; "
        f"p = {sign_test(figure.samples):.2g} that chance alone explains it"
    )
    cost = results.add(Figure(f"{name}, CPU", "of without", higher_is_better=False))
    cost.samples = paired_ratios([one.cpu_s for one in ours], [one.cpu_s for one in theirs])
    cost.note = ", ".join(
        f"{layer} {_cpu(ours, layer) / _cpu(theirs, layer):.2f}" for layer in ("link", "ip", "tcp", "gateway")
    )


def _cpu(runs: list[measure.Bulk], layer: str) -> float:
    return sum(one.cpu[layer] for one in runs)


# recording


def recording(results: Results, *, offload: bool) -> None:
    """The flight recorder, and recording into files beside it, against neither; and that neither costs nothing: against
    a stack whose source does not ask for them."""
    label = "on" if offload else "off"
    off = {"stack.flight_recorder_mib": 0}
    with (
        StackWorld(seed=SEED, offload=offload, settings=off) as without,
        StackWorld(seed=SEED, offload=offload, settings=off, cut="recording") as cut,
        StackWorld(seed=SEED, offload=offload) as flight,
        tempfile.TemporaryDirectory(prefix="lvbench") as directory,
    ):
        for direction in DIRECTIONS:
            name = f"{direction}, offload {label}"
            results.say(f"recording, {name}: how much takes {PAIR_S:g} s")
            size = measure.size_for(without, direction, PAIR_S)
            for world in (cut, flight):  # warm up
                measure.run(world, direction, size)
            run = functools.partial(measure.run, direction=direction, size=size)

            def to_files(events: bool, direction: str = direction, size: int = size) -> measure.Bulk:
                with _recorded(flight, Path(directory), events=events):
                    return measure.run(flight, direction, size)

            ways: Ways = {
                "off": functools.partial(run, without),
                "cut": functools.partial(run, cut),
                "flight": functools.partial(run, flight),
                "file": functools.partial(to_files, True),
                "frames": functools.partial(to_files, False),
            }
            runs = _in_turn(results, f"recording, {name}", ways, PAIRS)
            _compare(results, f"recorder off, {name}", runs, "off", "cut", 0.98)
            _compare(results, f"flight recorder, {name}", runs, "flight", "off", RECORDED)
            _compare(results, f"record start, {name}", runs, "file", "off", RECORDED)
            _compare(results, f"record start --no-events, {name}", runs, "frames", "off", RECORDED)


@contextlib.contextmanager
def _recorded(world: StackWorld, directory: Path, *, events: bool) -> Iterator[None]:
    """Every process is recorded into a file, which goes afterwards. AssertionError if one ended before it should."""
    for layer in LAYERS:
        world.stack.ask(layer, "record.start", file=str(directory / f"{layer}.rec"), events=events, overwrite=True)
    try:
        yield
    finally:
        for layer in LAYERS:
            status = world.stack.ask(layer, "record.status")
            assert status["file"] is not None, f"{layer}: {status['ended']}"
            world.stack.ask(layer, "record.stop")
        for layer in LAYERS:
            world.stack.wait_until(functools.partial(_is_written, world, layer), f"the recording of {layer} is written")
            (directory / f"{layer}.rec").unlink()


def _is_written(world: StackWorld, layer: str) -> bool:
    return not world.stack.ask(layer, "record.status")["writing"]["busy"]


# the web view

LISTEN = "(on) => app.ask('settings', {seams: ['link', 'ip-tcp'], events: true, detail: 'first128', listening: on})"


def web(results: Results) -> None:
    """A page of the web view that shows the connections, in headless Chromium, while 1 Gbit/s pass, against none."""
    if not shutil.which("chromium"):
        results.notes.append("web view: not measured, chromium is not installed")
        return
    from tests.system.browser import chromium, new_page, web_view

    with StackWorld(seed=SEED) as world, web_view(world.stack) as url, chromium() as browser:
        page, _ = new_page(browser, url)
        world.peer.call("pace", rate=RATE // 8)
        size = int(RATE / 8 * WEB_S)
        for direction in DIRECTIONS:
            seen: list[float] = []

            def run(watched: bool, direction: str = direction, seen: list[float] = seen) -> measure.Bulk:
                page.evaluate("() => app.to('connections')")
                page.evaluate(LISTEN, watched)
                page.wait_for_timeout(300)
                rate = RATE // 8 if direction == "send" else 0
                done = measure.run(world, direction, size, rate=rate)
                if not watched:
                    seen.append(done.gbit)
                return done

            run(True)  # warm up
            ways: Ways = {"without": functools.partial(run, False), "watched": functools.partial(run, True)}
            runs = _in_turn(results, f"web view, {direction}", ways, 1)
            name = f"web view at {RATE / 1e9:g} Gbit/s, {direction}"
            _compare(results, name, runs, "watched", "without", WATCHED)
            results.notes.append(f"{name}: without the view {sum(seen) / len(seen):.2f} Gbit/s of what was asked for")


# a transport that nobody uses


def transports(results: Results) -> None:
    """TCP with the udp process beside it, against a stack without one."""
    layers = tuple(layer for layer in LAYERS if layer != "udp")
    with StackWorld(seed=SEED) as five, StackWorld(seed=SEED, layers=layers) as four:
        for direction in DIRECTIONS:
            size = measure.size_for(four, direction, PAIR_S)
            measure.run(five, direction, size)  # warm up
            ways: Ways = {
                "four": functools.partial(measure.run, four, direction, size),
                "five": functools.partial(measure.run, five, direction, size),
            }
            name = f"with the udp process, {direction}"
            _compare(results, name, _in_turn(results, name, ways, PAIRS), "five", "four", None)


CASES: dict[str, Callable[[Results], None]] = {
    "record": functools.partial(recording, offload=True),
    "record-no-offload": functools.partial(recording, offload=False),
    "web": web,
    "udp": transports,
}
