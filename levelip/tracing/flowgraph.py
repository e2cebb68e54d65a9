"""What the graphs of a connection show, as plain points: for pictures, xplot files, or whoever else draws.

The time-sequence graph is tcptrace's, of one direction of the data: segments as bars, the ACK line and the window line
as stairs, SACK blocks, and what was sent again. Sizes are bytes, times ns since the model's start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from levelip.tracing.flow import Flow
from levelip.tracing.flowrows import DecisionRow, SegmentRow

Span = tuple[int, int]
"""From and to, in ns, both included."""


@dataclass
class Sequence:
    """The time-sequence graph of what one side (`way`) sent."""

    way: str
    segments: list[tuple[int, int, int]] = field(default_factory=list)  # (t, first byte, end), sent for the first time
    again: list[tuple[int, int, int]] = field(default_factory=list)  # sent again
    reordered: list[tuple[int, int, int]] = field(default_factory=list)  # overtaken
    acks: list[tuple[int, int]] = field(default_factory=list)  # (t, acknowledged up to), one an ACK
    duplicates: list[tuple[int, int]] = field(default_factory=list)  # ACKs that say nothing new
    edges: list[tuple[int, int]] = field(default_factory=list)  # (t, end of the window)
    sacks: list[tuple[int, int, int]] = field(default_factory=list)  # (t, left, right)
    dsacks: list[tuple[int, int, int]] = field(default_factory=list)
    zero: list[tuple[int, int]] = field(default_factory=list)  # ACKs that close the window
    probes: list[tuple[int, int]] = field(default_factory=list)  # keep-alives and window probes
    marks: list[tuple[int, int, str]] = field(default_factory=list)  # (t, number, "SYN" | "FIN" | "RST")


@dataclass
class Windows:
    """What bounds the sender: the local side's congestion window, and the window that the peer gives it."""

    cwnd: list[tuple[int, int]] = field(default_factory=list)
    ssthresh: list[tuple[int, int | None]] = field(default_factory=list)
    flight: list[tuple[int, int]] = field(default_factory=list)
    peer: list[tuple[int, int]] = field(default_factory=list)
    again: list[int] = field(default_factory=list)  # instants of retransmissions
    timeouts: list[int] = field(default_factory=list)
    recovery: list[tuple[int, int, str]] = field(default_factory=list)  # (from, to, state) of loss recovery


@dataclass
class Rtts:
    """Round trips of the local side's data: samples and estimates of the stack, or what the ACKs show."""

    samples: list[tuple[int, int]] = field(default_factory=list)
    srtt: list[tuple[int, int]] = field(default_factory=list)
    rto: list[tuple[int, int]] = field(default_factory=list)
    timeouts: list[int] = field(default_factory=list)
    seen: bool = False  # the samples are an onlooker's


def busier(flow: Flow) -> str:
    """The way that carries more data."""
    return "out" if flow.out.bytes >= flow.into.bytes else "in"


def sequence(flow: Flow, way: str, span: Span | None = None) -> Sequence:
    """The time-sequence graph of the data that goes `way`."""
    made = Sequence(way)
    for row in _within(flow.segments.rows, span):
        if "beyond_window" in row.notes:
            continue
        if row.way == way:
            _sent(made, row)
        elif row.ack is not None and "R" not in row.flags:
            made.acks.append((row.t, row.ack))
            made.edges.append((row.t, row.ack + row.win))
            if "duplicate_ack" in row.notes or row.dsack:
                made.duplicates.append((row.t, row.ack))
            if "zero_window" in row.notes:
                made.zero.append((row.t, row.ack))
            made.sacks += [(row.t, left, right) for left, right in row.sack]
            if row.dsack:
                made.dsacks.append((row.t, row.dsack[0], row.dsack[1]))
    return made


def _sent(made: Sequence, row: SegmentRow) -> None:
    syn, fin = "S" in row.flags, "F" in row.flags
    end = row.seq + row.len + syn + fin
    if "R" in row.flags:
        made.marks.append((row.t, row.seq, "RST"))
        return
    if syn:
        made.marks.append((row.t, row.seq, "SYN"))
    if fin:
        made.marks.append((row.t, end, "FIN"))
    if "keep_alive" in row.notes or "zero_window_probe" in row.notes:
        made.probes.append((row.t, row.seq))
    elif end > row.seq:
        bar = (row.t, row.seq, end)
        if row.again:
            made.again.append(bar)
        elif "out_of_order" in row.notes:
            made.reordered.append(bar)
        else:
            made.segments.append(bar)


def windows(flow: Flow, span: Span | None = None) -> Windows:
    """Congestion window, threshold, flight and the peer's window over time."""
    made = Windows()
    for change in _within(flow.windows.rows, span):
        made.cwnd.append((change.t, change.cwnd))
        made.ssthresh.append((change.t, change.ssthresh))
    for row in _within(flow.segments.rows, span):
        made.flight.append((row.t, row.out_flight))
        if row.way == "in" and row.ack is not None and "beyond_window" not in row.notes and "R" not in row.flags:
            made.peer.append((row.t, row.win))
        if row.way == "out" and row.again:
            made.again.append(row.t)
    began: tuple[int, str] | None = None
    last = flow.last
    for decision in _within(flow.decisions.rows, span):
        if decision.kind == "rto":
            made.timeouts.append(decision.t)
        elif decision.kind == "recovery" and "new" in decision.data:
            if began is not None:
                made.recovery.append((began[0], decision.t, began[1]))
            state = str(decision.data["new"])
            began = (decision.t, state) if state in ("CWR", "RECOVERY", "LOSS") else None
    if began is not None:
        made.recovery.append((began[0], last if span is None else min(last, span[1]), began[1]))
    return made


def rtts(flow: Flow, span: Span | None = None) -> Rtts:
    """Round trips; the stack's own where it told any, else those that the ACKs show."""
    rows = [row for row in _within(flow.rtts.rows, span) if row.way == "out"]
    made = Rtts(seen=not any(row.why == "rtt" for row in rows))
    for row in rows:
        if row.rtt is not None and row.why == ("ack" if made.seen else "rtt"):
            made.samples.append((row.t, row.rtt))
        if row.srtt is not None:
            made.srtt.append((row.t, row.srtt))
        if row.rto is not None:
            made.rto.append((row.t, row.rto))
        if row.why == "rto":
            made.timeouts.append(row.t)
    return made


@dataclass
class Step:
    """One line of a ladder: an arrow ("out" or "in") or a note (""), with its text."""

    t: int
    way: str
    text: str
    bad: bool = False  # sent again, reset, dropped
    id: str = ""


QUIET = frozenset({"rtt", "cwnd", "timer", "rcvbuf", "window", "dsack"})
"""Kinds of decisions that a ladder leaves out: they come with nearly every ACK, or say what the arrow shows."""


def ladder(flow: Flow, span: Span | None = None) -> list[Step]:
    """Segments and decisions in their order."""
    steps = [(row.t, row.n, segment_step(row)) for row in _within(flow.segments.rows, span)]
    steps += [
        (row.t, row.n, decision_step(row)) for row in _within(flow.decisions.rows, span) if row.kind not in QUIET
    ]
    steps.sort(key=lambda entry: entry[:2])
    return [step for _, _, step in steps]


def segment_step(row: SegmentRow) -> Step:
    """The arrow of a segment."""
    bad = bool(row.again) or "R" in row.flags or "beyond_window" in row.notes
    return Step(row.t, row.way, segment_text(row), bad=bad, id=row.id)


def decision_step(row: DecisionRow) -> Step:
    """The note of a decision."""
    return Step(row.t, "", row.text, bad=row.kind in ("drop", "rto", "loss", "reset"), id=row.id)


_FLAGS = {"S": "SYN", "F": "FIN", "R": "RST", "P": "PSH", "U": "URG", "E": "ECE", "W": "CWR"}
_SHOWN = ("retransmission", "spurious_retransmission", "out_of_order", "zero_window", "keep_alive", "zero_window_probe",
          "window_update", "duplicate_ack", "beyond_window")  # fmt: skip


def segment_text(row: SegmentRow) -> str:
    """ "PSH 1:501 (500) ack 1 win 64240, retransmission"."""
    names = [_FLAGS[flag] for flag in row.flags if flag in _FLAGS and flag != "P"]
    text = " ".join(names)
    if row.len:
        pieces = f" = {-(-row.len // row.gso)} × {row.gso}" if row.gso else ""
        text += f" {row.seq}:{row.seq + row.len} ({row.len}{pieces})"
    elif names:
        text += f" {row.seq}"
    if row.ack is not None:
        text += f" ack {row.ack}"
    text += f" win {row.win}"
    if row.dsack:
        text += f" dsack {row.dsack[0]}:{row.dsack[1]}"
    if row.sack:
        text += " sack " + " ".join(f"{left}:{right}" for left, right in row.sack)
    told = [note.replace("_", " ") for note in row.notes if note in _SHOWN]
    return text.strip() + (f", {', '.join(told)}" if told else "")


R = TypeVar("R", bound=tuple[Any, ...])


def _within(rows: list[R], span: Span | None) -> list[R]:
    if span is None:
        return rows
    first, last = span
    return [row for row in rows if first <= row[1] <= last]
