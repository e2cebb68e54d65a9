"""Time-sequence graphs as xplot files, drawn as tcptrace draws them; xplot, jPlot and others show them.

The format (README and demo.0 of xplot 0.90, README.tcp_plots): the first line names the types of the coordinates, each
other line is a command; a colour's name is a command, too, and holds from then on; texts and titles stand on the line
after theirs. Seconds since the model's start on the x axis, relative sequence numbers on the y axis.

    white    segments, an arrow at each end; red: sent again; blue: overtaken
    green    the ACK line, a tick where an ACK says nothing new; yellow: the window line
    purple   SACK blocks, "S"; pink: D-SACK blocks
    orange   SYN, FIN, RST; magenta: zero windows and what probes them
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from levelip.tracing.flowgraph import Sequence

_UNSIGNED = 1 << 32


class XplotWriter:
    """Writes one graph to a text stream; `graph` once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = ""

    def graph(self, sequence: Sequence, title: str) -> None:
        """The time-sequence graph."""
        bars = [*sequence.segments, *sequence.again, *sequence.reordered]
        highest = max([end for _, _, end in bars] + [edge for _, edge in sequence.edges], default=0)
        lowest = min([start for _, start, _ in bars], default=0)
        kind = "unsigned" if lowest >= 0 and highest < _UNSIGNED else "double"  # unsigned has 32 bits
        self._write(f"timeval {kind}", "title", " ".join(title.split()), "xlabel", "time", "ylabel", "sequence number")
        self._bars("white", sequence.segments)
        self._bars("red", sequence.again, "R")
        self._bars("blue", sequence.reordered, "O")
        self._stairs("green", sequence.acks, "dtick")
        self._stairs("yellow", sequence.edges, "utick")
        self._blocks("purple", sequence.sacks, "S")
        self._blocks("pink", sequence.dsacks, "D")
        for name, points in (("Z", sequence.zero), ("P", sequence.probes)):
            for t, number in points:
                self._text("magenta", t, number, name)
        for t, number, name in sequence.marks:
            self._text("orange", t, number, name)
        self._write("go")

    def _bars(self, colour: str, bars: Iterable[tuple[int, int, int]], letter: str = "") -> None:
        for t, start, end in bars:
            at = _time(t)
            self._in(colour)
            self._write(f"darrow {at} {start}", f"uarrow {at} {end}", f"line {at} {start} {at} {end}")
            if letter:
                self._write(f"atext {at} {end}", letter)

    def _stairs(self, colour: str, points: Iterable[tuple[int, int]], tick: str) -> None:
        before: tuple[int, int] | None = None
        for t, number in points:
            at = _time(t)
            self._in(colour)
            if before is not None:
                was, level = before
                self._write(f"line {_time(was)} {level} {at} {level}")
                if level != number:
                    self._write(f"line {at} {level} {at} {number}")
                else:
                    self._write(f"{tick} {at} {number}")
            before = (t, number)

    def _blocks(self, colour: str, blocks: Iterable[tuple[int, int, int]], letter: str) -> None:
        for t, left, right in blocks:
            at = _time(t)
            self._in(colour)
            self._write(f"line {at} {left} {at} {right}", f"htick {at} {left}", f"htick {at} {right}")
            self._write(f"rtext {at} {right}", letter)

    def _text(self, colour: str, t: int, number: int, text: str) -> None:
        self._in(colour)
        self._write(f"dot {_time(t)} {number}", f"atext {_time(t)} {number}", text)

    def _in(self, colour: str) -> None:
        if colour != self._colour:
            self._colour = colour
            self._write(colour)

    def _write(self, *lines: str) -> None:
        for line in lines:
            self._stream.write(line + "\n")


def _time(t: int) -> str:
    """Seconds to the microsecond, as timeval has them; none are negative there."""
    microseconds = max(t, 0) // 1000
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"
