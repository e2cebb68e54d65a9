"""Graphs of a connection as pictures, SVG or PNG, drawn by matplotlib (`pip install level-ip[plots]`).

`draw` puts panels with one time axis under each other: "sequence", "window", "rtt"; or a "ladder", alone. The same
model gives the same bytes. What is drawn is flowgraph's; here is only how it looks.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from levelip.tracing import flowgraph
from levelip.tracing.flow import Flow
from levelip.tracing.flowgraph import Span
from levelip.wire.addr import format_address

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: Final = ("sequence", "window", "rtt", "ladder")
FORMATS: Final = ("svg", "png")
MOST_STEPS = 100
"""Lines of a ladder; a picture of more is not read."""
_MANY = 5_000
"""Marks of a kind from which on an SVG holds them as pixels."""

BLUE, RED, GREEN, GOLD, PURPLE, GREY, ORANGE = (
    "#1f5fa8", "#c8202c", "#2b8a3e", "#c99700", "#7b3fa0", "#8a8f98", "#d9661f",
)  # fmt: skip
PALE = {"RECOVERY": "#fbe3e4", "LOSS": "#f6c9cb", "CWR": "#fdf1d6"}
_HEIGHTS = {"sequence": 3.6, "window": 2.6, "rtt": 2.2}
_DPI = 130


class NoMatplotlib(RuntimeError):
    """matplotlib is not installed; the text says how to get it."""


def prepare() -> Any:
    """matplotlib.pyplot, set up for files alone and for the same bytes each time. NoMatplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise NoMatplotlib("pictures are drawn by matplotlib; install it with: pip install 'level-ip[plots]'") from None
    mpl.use("agg")
    mpl.rcParams.update({
        "svg.hashsalt": "level-ip", "svg.fonttype": "none", "path.simplify": True, "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555", "axes.labelcolor": "#333333",
        "axes.grid": True, "grid.color": "#e8eaee", "grid.linewidth": 0.6, "axes.axisbelow": True,
        "xtick.color": "#555555", "ytick.color": "#555555", "legend.frameon": False, "legend.fontsize": 7.5,
    })  # fmt: skip
    import matplotlib.pyplot as plt

    return plt


def draw(
    flow: Flow, kinds: Sequence[str] = ("sequence",), *, form: str = "svg", way: str = "", span: Span | None = None
) -> bytes:
    """The picture as a file of kind `form`. `way`: whose data the sequence graph shows; empty: the busier side's."""
    plt = prepare()
    if "ladder" in kinds:
        figure = _ladder(plt, flow, span)
    else:
        heights = [_HEIGHTS[kind] for kind in kinds]
        figure, rows = plt.subplots(
            len(kinds), 1, sharex=True, squeeze=False, figsize=(10, sum(heights) + 0.7), height_ratios=heights,
            layout="constrained",
        )  # fmt: skip
        way = way or flowgraph.busier(flow)
        for kind, axes in zip(kinds, rows[:, 0], strict=True):
            {"sequence": _sequence, "window": _window, "rtt": _rtt}[kind](axes, flow, way, span)
        rows[-1, 0].set_xlabel("seconds")
        rows[-1, 0].margins(x=0.01)
        figure.suptitle(_title(flow), fontsize=10.5, x=0.01, ha="left")
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    figure.savefig(out, format=form, dpi=_DPI, metadata=metadata, facecolor="white")
    plt.close(figure)
    return out.getvalue()


def _title(flow: Flow) -> str:
    state = f", {flow.state}" if flow.state else ""
    left_out = f", first {flow.segments.left_out} segments left out" if flow.segments.left_out else ""
    return f"{_end(*flow.local)} ↔ {_end(*flow.remote)}{state}{left_out}"


def _end(address: bytes, port: int) -> str:
    return f"{format_address(address)}:{port}"


def _s(t: int) -> float:
    return t / 1e9


def _bars(
    axes: Axes, bars: Iterable[tuple[int, int, int]], colour: str, label: str, width: float, z: float = 3
) -> None:
    """Vertical bars, each with a tick at its end, so that short ones are seen."""
    drawn = list(bars)
    if not drawn:
        return
    from matplotlib.collections import LineCollection

    lines = [[(_s(t), low), (_s(t), high)] for t, low, high in drawn]
    many = len(lines) > _MANY
    axes.add_collection(
        LineCollection(lines, colors=colour, linewidths=width, label=label, zorder=z, rasterized=many, capstyle="butt")
    )
    axes.plot(
        [_s(t) for t, _, _ in drawn], [high for _, _, high in drawn], linestyle="", marker="_", markersize=3 + width,
        markeredgewidth=0.7, color=colour, zorder=z, rasterized=many,
    )  # fmt: skip


def _stairs(axes: Axes, points: Sequence[tuple[int, float | None]], colour: str, label: str, **how: Any) -> None:
    if not points:
        return
    values = [float("nan") if value is None else value for _, value in points]
    how.setdefault("linewidth", 1.0)
    axes.step([_s(t) for t, _ in points], values, where="post", color=colour, label=label, **how)


def _dots(axes: Axes, points: Iterable[tuple[int, float]], colour: str, label: str, marker: str, size: float) -> None:
    drawn = list(points)
    if drawn:
        axes.plot(
            [_s(t) for t, _ in drawn], [value for _, value in drawn], linestyle="", marker=marker, markersize=size,
            color=colour, label=label, rasterized=len(drawn) > _MANY, zorder=4,
        )  # fmt: skip


def _sequence(axes: Axes, flow: Flow, way: str, span: Span | None) -> None:
    graph = flowgraph.sequence(flow, way, span)
    _stairs(axes, graph.edges, GOLD, "window's end", linewidth=0.9)
    _stairs(axes, graph.acks, GREEN, "acknowledged", linewidth=1.1)
    _bars(axes, graph.segments, BLUE, "segments", 1.4)
    _bars(axes, graph.reordered, ORANGE, "overtaken", 1.8)
    _bars(axes, graph.again, RED, "sent again", 1.8, 5)
    _bars(axes, graph.sacks, PURPLE, "SACK blocks", 0.9, 2)
    _bars(axes, graph.dsacks, ORANGE, "D-SACK", 2.2, 4)
    _dots(axes, graph.duplicates, GREEN, "duplicate ACKs", "|", 4)
    _dots(axes, graph.zero, RED, "window closed", "v", 5)
    _dots(axes, graph.probes, GREY, "probes", "P", 4)
    for t, number, name in graph.marks:
        axes.annotate(
            name, (_s(t), number), xytext=(3, 4), textcoords="offset points", fontsize=7,
            color=RED if name == "RST" else "#333333",
        )  # fmt: skip
    sender = _end(*(flow.local if way == "out" else flow.remote))
    axes.set_ylabel("bytes since the SYN")
    axes.set_title(f"data of {sender}", fontsize=8.5, loc="right", color="#555555")
    _scale_bytes(axes)
    numbers = [number for _, number in graph.acks]
    for _, start, end in (*graph.segments, *graph.again, *graph.reordered):
        numbers += (start, end)
    if numbers:  # a window far beyond what is sent would press the data into a corner
        low, high = min(numbers), max(numbers)
        edge = max([end for _, end in graph.edges], default=high)
        height = high - low + 1
        axes.set_ylim(low - 0.03 * height, max(min(edge, high + 0.4 * height), high) + 0.05 * height)
    _legend(axes, "upper left")


def _window(axes: Axes, flow: Flow, _way: str, span: Span | None) -> None:
    graph = flowgraph.windows(flow, span)
    for begin, end, state in graph.recovery:
        axes.axvspan(_s(begin), _s(max(end, begin + 1)), color=PALE[state], linewidth=0, zorder=0)
    _stairs(axes, graph.flight, GREY, "in flight", linewidth=0.7, zorder=2)
    lowered = [point for point in graph.ssthresh if point[1] is not None]
    _stairs(axes, graph.ssthresh if lowered else [], ORANGE, "ssthresh", linestyle=(0, (4, 2)))
    _stairs(axes, graph.cwnd, BLUE, "cwnd", linewidth=1.4, zorder=4)
    _stairs(axes, graph.peer, GOLD, "peer's window", linewidth=0.9)
    axes.set_ylabel("bytes")
    _scale_bytes(axes)
    highest = max([value for _, value in (*graph.flight, *graph.cwnd)], default=0)
    if highest:
        axes.set_ylim(0, highest * 1.15)
    _ticks_below(axes, graph.again, graph.timeouts)
    if not graph.cwnd:
        note = "no congestion window was told" if flow.told else "a capture tells no congestion window"
        axes.set_title(note, fontsize=8.5, loc="right", color="#555555")
    elif graph.recovery:
        axes.set_title("shaded: loss recovery", fontsize=8.5, loc="right", color="#555555")
    _legend(axes, "upper left")


def _rtt(axes: Axes, flow: Flow, _way: str, span: Span | None) -> None:
    graph = flowgraph.rtts(flow, span)

    def in_ms(points: Iterable[tuple[int, int]]) -> list[tuple[int, float | None]]:
        return [(t, value / 1e6) for t, value in points]

    samples = [(t, value / 1e6) for t, value in graph.samples]
    _dots(axes, samples, GREY if graph.srtt else BLUE, "RTT, as the ACKs show it" if graph.seen else "RTT", ".", 3)
    _stairs(axes, in_ms(graph.srtt), BLUE, "SRTT", linewidth=1.3)
    _stairs(axes, in_ms(graph.rto), RED, "RTO", linewidth=1.0)
    axes.set_ylabel("ms")
    values = [value for _, value in samples] + [value / 1e6 for _, value in graph.rto]
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 8 * min(positive):
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif values:
        axes.set_ylim(bottom=0)
    _ticks_below(axes, [], graph.timeouts)
    _legend(axes, "upper left")


def _ticks_below(axes: Axes, again: Sequence[int], timeouts: Sequence[int]) -> None:
    """Instants at the foot of a panel."""
    for instants, colour, label in ((again, RED, "sent again"), (timeouts, "#000000", "RTO expired")):
        if instants:
            axes.plot(
                [_s(t) for t in instants], [0.015] * len(instants), "|", color=colour, markersize=7, label=label,
                transform=axes.get_xaxis_transform(), clip_on=False, zorder=6,
            )  # fmt: skip


def _legend(axes: Axes, where: str) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc=where, ncols=min(len(handles), 8), bbox_to_anchor=(0, 1.10), borderaxespad=0, handlelength=1.6,
                    columnspacing=1.2)  # fmt: skip


def _scale_bytes(axes: Axes) -> None:
    def text(value: float, _position: float) -> str:
        for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size:
                return f"{value / size:g} {unit}"
        return f"{value:g}"

    axes.yaxis.set_major_formatter(text)


def _ladder(plt: Any, flow: Flow, span: Span | None) -> Figure:
    """Two lifelines, time downward, a line a segment or decision; not to scale, as nothing would be read else."""
    steps = flowgraph.ladder(flow, span)
    shown, left = steps[:MOST_STEPS], len(steps) - MOST_STEPS
    height = 0.25 * (len(shown) + (left > 0)) + 1.0
    figure: Figure = plt.figure(figsize=(10, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_xlim(0, 10)
    axes.set_ylim(height, 0)
    near, far = 2.2, 8.8
    bottom = height - 0.15
    for x, end in ((near, flow.local), (far, flow.remote)):
        axes.plot([x, x], [0.65, bottom], color="#b8bcc4", linewidth=1.2, zorder=1)
        axes.text(x, 0.5, _end(*end), ha="center", fontsize=9.5, fontweight="bold")
    y = 0.95
    for step in shown:
        axes.text(0.15, y, f"{_s(step.t):.6f}", va="center", fontsize=7.5, color="#777777", family="monospace")
        colour = RED if step.bad else BLUE if step.way == "out" else GREEN
        if step.way:
            x0, x1 = (near, far) if step.way == "out" else (far, near)
            axes.annotate(
                "", (x1, y + 0.05), (x0, y - 0.02), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 0.9},
            )  # fmt: skip
            axes.text(
                (near + far) / 2, y - 0.005, step.text, ha="center", va="center", fontsize=7.5, color=colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=3,
            )  # fmt: skip
        else:
            axes.text(near - 0.08, y, "•", ha="center", va="center", fontsize=8, color=RED if step.bad else "#555555")
            axes.text(
                near + 0.12, y, step.text, va="center", fontsize=7.5, style="italic",
                color=RED if step.bad else "#555555", zorder=3,
            )  # fmt: skip
        y += 0.25
    if left > 0:
        axes.text(near + 0.12, y, f"… {left} more; choose a time with --from and --to", va="center", fontsize=8)
    return figure
