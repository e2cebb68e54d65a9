"""`make plots`: congestion windows and sequence over time, drawn from simulated transfers into docs/plots/*.svg.

Each picture is one or two real tcp cores that send to a third over a bottleneck of 20 Mbit/s with a round trip of 40 ms
and a queue of one such pipe, in virtual time and with fixed seeds: the same pictures on every machine. matplotlib is
needed to draw (`pip install level-ip[plots]`); what is drawn needs nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layers.tcp.congestion.base import INFINITE_SSTHRESH
from levelip.tracing.pictures import prepare
from tests.netsim.bottleneck import Flow, roomy
from tests.netsim.bottleneck import Path as NetworkPath

WHERE = Path(__file__).parents[1] / "docs" / "plots"
RATE = 20_000_000  # bits a second
RTT_MS = 40
QUEUE = RATE // 8 * RTT_MS // 1000  # bytes: one pipe
MSS = 1448
SECONDS = 12.0
POINTS = 300  # a line, at most
COLOURS = ("#1f5fa8", "#b5541c")


@dataclass(frozen=True)
class Scenario:
    """What one picture shows. `tcp` are settings of [tcp]; of two flows the second begins after 3 s."""

    title: str
    tcp: dict[str, Any]
    flows: int = 1
    queue: int = QUEUE
    mark_above: int = -1
    seconds: float = SECONDS


SCENARIOS = {
    "newreno": Scenario("newreno", {"congestion": "newreno", "hystart": False}),
    "cubic": Scenario("cubic, slow start by HyStart++", {"congestion": "cubic"}),
    "cubic-without-hystart": Scenario("cubic, hystart = false", {"congestion": "cubic", "hystart": False}),
    "cubic-ecn": Scenario(
        "cubic, ecn = 1: marks above a third of the queue", {"congestion": "cubic", "ecn": 1}, mark_above=QUEUE // 3
    ),
    "cubic-two-flows": Scenario("two flows of cubic", {"congestion": "cubic"}, flows=2, seconds=24.0),
}


@dataclass
class Line:
    """One flow's samples, thinned to POINTS."""

    times: list[float] = field(default_factory=list)
    cwnd: list[float] = field(default_factory=list)  # segments
    ssthresh: list[float | None] = field(default_factory=list)  # None: never lowered
    acked: list[float] = field(default_factory=list)  # MB


@dataclass
class Result:
    """What came of a scenario."""

    lines: list[Line]
    drops: list[float]  # instants
    dropped: int
    marked: int
    goodput: float  # Mbit/s


def simulate(scenario: Scenario) -> Result:
    """Run it in virtual time."""
    configs = [roomy(**scenario.tcp) for _ in range(scenario.flows)]
    path = NetworkPath(configs, rate=RATE, rtt_ms=RTT_MS, queue=scenario.queue, mark_above=scenario.mark_above)
    size = int(RATE / 8 * scenario.seconds)
    path.begin(0, size)
    if scenario.flows > 1:
        path.run(3.0)
        path.begin(1, size)
    path.run(scenario.seconds - (3.0 if scenario.flows > 1 else 0.0))
    lines = [thinned(flow) for flow in path.flows]
    drops = sorted({round((at - path.start) / 1e9, 2) for at, _ in path.bottleneck.drops})
    goodput = sum(flow.acked[-1] for flow in path.flows if flow.acked) * 8 / scenario.seconds / 1e6
    return Result(lines, drops, path.bottleneck.dropped, path.bottleneck.marked, goodput)


def thinned(flow: Flow) -> Line:
    """Every so many-th sample."""
    line = Line()
    step = max(1, -(-len(flow.times) // POINTS))
    for index in range(0, len(flow.times), step):
        ssthresh = flow.ssthresh[index]
        line.times.append(round(flow.times[index], 2))
        line.cwnd.append(round(flow.cwnd[index] / MSS, 1))
        line.ssthresh.append(None if ssthresh >= INFINITE_SSTHRESH else round(ssthresh / MSS, 1))
        line.acked.append(round(flow.acked[index] / 1e6, 2))
    return line


def draw(scenario: Scenario, result: Result, to: Path) -> None:
    """One SVG, the same bytes for the same result."""
    plt = prepare()
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7.2, 4.6), height_ratios=[2, 1])
    for line, colour in zip(result.lines, COLOURS, strict=False):
        above.plot(line.times, line.cwnd, color=colour, linewidth=1.1, label="cwnd")
        ssthresh = [float("nan") if value is None else value for value in line.ssthresh]
        above.plot(line.times, ssthresh, color=colour, linewidth=0.8, linestyle=":", label="ssthresh")
        below.plot(line.times, line.acked, color=colour, linewidth=1.1)
    pipe = RATE / 8 * RTT_MS / 1000 / (MSS + 90)
    full = pipe + scenario.queue / (MSS + 90)
    above.axhline(pipe, color="#999999", linewidth=0.7)
    above.axhline(full, color="#999999", linewidth=0.7, linestyle="--")
    if result.drops:
        above.plot(result.drops, [0.0] * len(result.drops), "|", color="#c02020", label="packets lost", clip_on=False)
    above.set_ylabel("segments")
    highest = max(max(line.cwnd) for line in result.lines)
    above.set_ylim(0, min(max(highest, full) * 1.05, 3 * full))
    above.legend(loc="upper right")
    lost = f"{result.dropped} lost" + (f", {result.marked} marked" if result.marked else "")
    above.set_title(f"{scenario.title}: {result.goodput:.1f} Mbit/s, {lost}", fontsize=10)
    below.set_ylabel("MB acknowledged")
    below.set_xlabel("s")
    below.set_ylim(bottom=0)
    figure.tight_layout()
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw those named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--to", type=Path, default=WHERE, help="directory")
    arguments = parser.parse_args(argv)
    for name in arguments.names or SCENARIOS:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name!r}; there is {', '.join(SCENARIOS)}")
        result = simulate(SCENARIOS[name])
        path = arguments.to / f"{name}.svg"
        draw(SCENARIOS[name], result, path)
        print(f"{path.name}: {result.goodput:.1f} Mbit/s, {result.dropped} lost, {result.marked} marked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
