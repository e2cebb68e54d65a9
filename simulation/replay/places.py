"""Places in a recording as people name them: a call, a time, a frame, the next call of which an expression is true."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from levelip.frames.core import ControlError
from levelip.frames.packet import Process, format_frame_id
from levelip.tracing.eventfields import connection_figures
from levelip.tracing.expression import Expression, compile_expression
from levelip.tracing.recordedcalls import Faulted, Flushed, Received, decode_frame
from levelip.tracing.recording import Recording
from simulation.replay.layers import where_in, where_out
from simulation.replay.player import Player, Step

_CALL = re.compile(r"#(\d{1,18})")
_TIME = re.compile(r"([+-]?)(\d{1,18}(?:\.\d{1,18})?)\s*(s|ms|us|µs)?")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(\.\d{1,9})?")
_LIKE_CLOCK = re.compile(r"[\d:.]*\d:[\d:.]*")
_FRAME = re.compile(rf"(?:{'|'.join(one.name.lower() for one in Process)})-[0-9a-f]{{5}}-\d+")
_UNITS = {None: 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3}


class NoSuchPlace(ValueError):
    """There is no such place; the text says what would be right."""


def is_expression(text: str) -> bool:
    """Whether it is none of the other kinds of place."""
    kinds = (_CALL, _TIME, _CLOCK, _LIKE_CLOCK, _FRAME)
    return text not in ("start", "end") and not any(kind.fullmatch(text) for kind in kinds)


def find_place(player: Player, text: str) -> int:
    """The number of the call before which a player is to be. NoSuchPlace; ExpressionError, whose text shows the spot.

    "#123", a call; "1.5" or "20ms", since the beginning of the recording; "+20ms", "-20ms", from here; "19:22:47.9", a
    time of day, as `lvlip trace` has it; "tcp-3fa21-77": behind the call that took or gave the frame; "start",
    "end"; an expression: behind the next call that it is true of.
    """
    text = text.strip()
    recording = player.recording
    if text in ("start", "end"):
        return recording.first if text == "start" else recording.stop
    if found := _CALL.fullmatch(text):
        number = int(found[1])
        if not recording.first <= number <= recording.stop:
            raise NoSuchPlace(f"there is no call {text}; there are #{recording.first} to #{recording.stop - 1}")
        return number
    if found := _TIME.fullmatch(text):
        ns = int(float(found[2]) * _UNITS[found[3]])
        origin = {"": recording.span[0], "+": player.now, "-": player.now}[found[1]]
        return player.find_time(origin - ns if found[1] == "-" else origin + ns)
    if found := _CLOCK.fullmatch(text):
        return player.find_time(_instant(recording, found))
    if _FRAME.fullmatch(text):
        return find_frame(recording, text) + 1
    if _LIKE_CLOCK.fullmatch(text):
        raise NoSuchPlace(f"{text} is no time of day, as 19:22:47.9")
    step = search(player, compile_expression(text))
    if step is None:
        raise NoSuchPlace(f"no call from here on is like that: {text}")
    return step.number + 1


def wall_text(recording: Recording, now: int) -> str:
    """The time of day of an instant, "19:22:47.973118"."""
    second, ns = divmod(now + recording.wall_offset(now), 10**9)
    return f"{time.strftime('%H:%M:%S', time.localtime(second))}.{ns // 1000:06d}"


def _instant(recording: Recording, clock: re.Match[str]) -> int:
    """The first instant from the beginning on at which clocks show this. NoSuchPlace if the recording ended before."""
    begin = recording.span[0] + recording.wall_offset(recording.span[0])
    at = time.localtime(begin // 10**9)
    seconds = int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])
    seconds -= at.tm_hour * 3600 + at.tm_min * 60 + at.tm_sec
    target = (begin // 10**9 + seconds) * 10**9 + int(float(clock[4] or 0) * 10**9)
    if target < begin - 10**9:  # after midnight
        target += 86_400 * 10**9
    instant = recording.instant_of(target)
    first, last = recording.span
    if instant > last + 10**9:
        raise NoSuchPlace(f"{clock[0]}: the recording goes from {wall_text(recording, first)} to "
                          f"{wall_text(recording, last)}")  # fmt: skip
    return instant


def find_frame(recording: Recording, ident: str) -> int:
    """The first call that took or gave the frame of this id."""
    for number, entry in recording.entries(recording.first):
        for frame in frames_of(entry):
            if (one := getattr(frame, "id", 0)) and format_frame_id(one) == ident:
                return number
    raise NoSuchPlace(f"the {recording.head.process} of this recording took and gave no frame {ident}")


def frames_of(entry: Any) -> Iterator[Any]:
    """The frames of a call, as recorded."""
    if isinstance(entry, Received):
        yield decode_frame(entry.code, entry.frame, entry.cuts)
    elif isinstance(entry, Flushed):
        for _, code, raw, cuts in entry.out:
            yield decode_frame(code, raw, cuts)


def search(player: Player, expression: Expression, *, told: Callable[[Step], None] | None = None) -> Step | None:
    """Run on to the next call of which it is true, of a frame or an event; None at the end."""
    while not player.ended:
        step = player.step()
        if told is not None:
            told(step)
        if matches(player, step, expression):
            return step
    return None


def search_back(player: Player, expression: Expression) -> int:
    """The number of the last call before here of which it is true. NoSuchPlace; the player has moved then."""
    stop = player.at
    begins = [block.first for block in player.recording.snapshots if block.first < stop]
    for begin in reversed(begins):
        player.seek(begin)
        last = -1
        while player.at < stop:
            step = player.step()
            if matches(player, step, expression):
                last = step.number
        if last >= 0:
            return last
        stop = begin
    raise NoSuchPlace(f"no call before here is like that: {expression}")


def matches(player: Player, step: Step, expression: Expression) -> bool:
    """Whether it is true of what came of a call; figures of connections are those after it."""
    process = player.process

    def figures(conn: str) -> Mapping[str, Any]:
        return connection_row(player, conn)

    if step.frame is not None and expression.matches_frame(step.frame, *where_in(process, step.frame), figures=figures):
        return True
    for port, frame in step.out:
        if expression.matches_frame(frame, *where_out(process, port), figures=figures):
            return True
    told = step.entry.events if isinstance(step.entry, Faulted) else step.events
    return any(expression.matches_event(event, figures) for event in told)


def connection_row(player: Player, conn: str) -> Mapping[str, Any]:
    """Figures of a connection by its name; empty for none. (A command that changes nothing of tcp.)"""
    if player.process != "tcp":
        return {}
    try:
        found = player.core.control(0, "conn", {"conn": conn}, player.now)
    except ControlError:
        return {}
    return connection_figures(found["ss"])
