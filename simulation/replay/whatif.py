"""What one layer would have done had one packet been lost, or been another.

The state before the packet is taken, the packet is changed, and the layer runs on: with all that came in the recording
after it (`then recorded`: the peer does not react to the change, as it cannot here), or with nothing more coming (`then
silence`: what its timers do). Timers run when they are due. What comes out is held against what came out then. Events
that only tell of round trip times and of how cwnd grows are left out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

from levelip.configfile import ConfigError
from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Segment
from levelip.rpc.place import Place
from levelip.tracing.edit import EditError, edit, parse_changes
from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import MAX_PAYLOAD, Asked, Flushed, Received, SetTo, TimerRan, decode_frame
from levelip.tracing.recording import RecordingError
from simulation.replay.layers import where_out
from simulation.replay.player import Player
from simulation.replay.text import event_text, frame_text, in_text, time_text
from simulation.replay.trust import check_setting

PACKETS: Final = (Packet, Segment, DeviceFrame, IcmpError)
MS: Final = 1_000_000
LATE_NS: Final = 5 * MS  # a timer that the recording ran this late at most is left to it: a loop is not punctual
RECORDED_NS: Final = 2_000 * MS
SILENCE_NS: Final = 60_000 * MS
LINES: Final = 40
FLUSHES: Final = 10_000
Made = tuple[int, str, str, str]  # instant, "out", "event" or "figure", text, port
_UNITS: Final = {"ms": MS, "us": 1_000, "s": 1_000 * MS}


class BadChange(ValueError):
    """The change cannot be made; the text says what would be right."""


@dataclass(slots=True)
class Change:
    """`edits` empty: the packet is lost. `span`: ns to run on."""

    edits: dict[str, str]
    silence: bool = False
    span: int = 0
    alone: bool = False  # one layer only, beside what was recorded


@dataclass(slots=True)
class Result:
    """Lines for people, data for programs."""

    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def parse_change(text: str) -> Change:
    """ "drop", "edit FIELD=VALUE...", and behind it "then silence", "for 5s", "alone". BadChange."""
    words = text.split()
    change = Change({})
    edits: list[str] = []
    if not words or words[0] not in ("drop", "lose", "edit"):
        raise BadChange("what if what? whatif drop, or whatif edit FIELD=VALUE..., then silence or recorded, for TIME")
    at = 1
    while at < len(words):
        word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
        if word == "then":
            if following not in ("silence", "recorded"):
                raise BadChange(f"then silence or then recorded, not {following!r}")
            change.silence = following == "silence"
            change.alone |= following == "recorded"
            at += 2
        elif word == "for":
            change.span = _span(following)
            at += 2
        elif word == "alone":
            change.alone = True
            at += 1
        else:
            edits.append(word)
            at += 1
    if words[0] == "edit":
        if not edits:
            raise BadChange("edit what? whatif edit tcp.window_size_value=0")
        try:
            change.edits = parse_changes(edits)
        except EditError as error:
            raise BadChange(str(error)) from None
    elif edits:
        raise BadChange(f"{edits[0]!r}: a packet that is lost has no fields to change")
    return change


def _span(text: str) -> int:
    for unit in ("ms", "us", "s"):
        number = text.removesuffix(unit)
        if number != text or unit == "s":
            try:
                span = int(float(number) * _UNITS[unit])
            except (ValueError, OverflowError):  # infinity
                break
            if span > 0:
                return span
            break
    raise BadChange(f"for how long? 500ms or 5s, not {text!r}")


def what_if(player: Player, change: Change) -> Result:
    """Change the next packet from where the player is (which stays there) and run on. BadChange."""
    recording, begin = player.recording, player.recording.span[0]
    number, changed, now, result = change_next(player, change)
    run = _Run(player, number, change)
    run.go(changed, now)
    made = run.made
    then = _recorded_output(player, number, run.end)
    _beside(player, result, made, then, compare=not change.silence)
    result.data["end"] = time_text(run.end, begin)
    result.lines.append(f"at {time_text(run.end, begin)} s:")
    result.lines += [f"    {line}" for line in ending(run.core, player.process, run.end)]
    if recording.torn and run.end >= recording.span[1]:
        result.lines.append(recording.torn)
    return result


def change_next(player: Player, change: Change) -> tuple[int, Any, int, Result]:
    """The next packet's call, the packet as it is changed (None: lost), when; and what is told of that. BadChange."""
    number, frame, now = next_packet(player)
    text = in_text(player.process, frame).strip()
    changed: Any = None
    if change.edits:
        try:
            changed = edit(copy.copy(frame), change.edits, read=zeros)
        except EditError as error:
            raise BadChange(str(error)) from None
    result = Result(data={"call": number, "packet": text, "lost": not change.edits, "edited": change.edits})
    result.lines.append(f"what if #{number} {time_text(now, player.recording.span[0])} {text}")
    result.lines.append("    were lost" if changed is None else f"    were {in_text(player.process, changed).strip()}")
    return number, changed, now, result


def zeros(place: Place) -> bytes:
    """What stands for the bytes of shared memory, which no recording has."""
    if not 0 <= place.length <= MAX_PAYLOAD:
        raise BadChange(f"a packet of {place.length} bytes cannot be edited")
    return bytes(place.length)


def next_packet(player: Player) -> tuple[int, Any, int]:
    """Call, frame and instant of the next packet that the layer is given. BadChange if there is none."""
    for number, entry in player.recording.entries(player.at):
        if isinstance(entry, Received):
            frame = decode_frame(entry.code, entry.frame, entry.cuts)
            if isinstance(frame, PACKETS):
                return number, frame, entry.now
    raise BadChange("no packet comes from here on")


class _Run:
    """The other future. `made`: all that came of it, in order."""

    def __init__(self, player: Player, number: int, change: Change) -> None:
        other = Player(player.recording)
        other.seek(number)
        self.core = other.core
        self.made: list[Made] = []
        self._recording = player.recording
        self._process = player.process
        self._number = number
        self._silence = change.silence
        self._span = change.span or (SILENCE_NS if change.silence else RECORDED_NS)
        self._room: dict[str, int] = {}
        self.end = 0

    def go(self, changed: Any, now: int) -> None:
        self.end = now + self._span
        if changed is not None:
            self.core.receive(changed, now)
        if self._silence:
            self._flush(now)
            self._timers(self.end)
            return
        last = now
        then = Player(self._recording)  # as it was: a timer that was late in the recording is as late here
        then.seek(self._number)
        then.step()
        for _, entry in self._recording.entries(self._number + 1):
            at = getattr(entry, "now", last)
            if at > self.end:
                break
            self._timers(at - LATE_NS, then.core.next_timer())
            last = at
            self._entry(entry, at)
            then.step()
        self.end = min(self.end, max(last, now))  # what would have come after the recording's end nobody knows

    def _entry(self, entry: Any, at: int) -> None:
        core = self.core
        match entry:
            case Received():
                core.receive(decode_frame(entry.code, entry.frame, entry.cuts), at)
            case TimerRan():
                core.handle_timer(at)
            case Flushed():
                self._room = entry.room
                self._take(at)
            case Asked() | SetTo():
                try:
                    if isinstance(entry, Asked):
                        core.control(entry.token, entry.name, entry.args, at)
                    else:
                        check_setting(self._process, entry.key, entry.value)
                        core.set(entry.key, entry.value, at)
                except (RecordingError, ConfigError):
                    raise
                except Exception as error:
                    self.made.append((at, "event", f"{type(error).__name__}: {error}", ""))

    def _timers(self, until: int, recorded: int | None = None) -> None:
        """What is due, when it is due; but that of the recording, which runs when it ran."""
        for _ in range(FLUSHES):
            due = self.core.next_timer()
            if due is None or due > until or due == recorded:
                return
            self.core.handle_timer(due)
            self._flush(due)

    def _flush(self, now: int) -> None:
        for _ in range(FLUSHES):
            if not self._take(now):
                return

    def _take(self, now: int) -> bool:
        output = self.core.outgoing(self._room)
        self.made += [_told(self._process, event, now) for event in self.core.events()]
        for port, frame in output:
            if port not in ("memory", "control"):
                self.made.append((now, "out", frame_text(frame, where_out(self._process, port)[0]), port))
        return bool(output)


def is_figure(event: Event) -> bool:
    """Whether it only tells of figures that any change changes a little."""
    return event.kind in ("rtt", "timer") or (event.kind == "cwnd" and event.data.get("why") == "ack")


def _told(process: str, event: Event, now: int) -> Made:
    """An event; "figure" where it only tells of figures that any change changes a little."""
    return now, "figure" if is_figure(event) else "event", event_text(process, event).strip(), ""


def _recorded_output(player: Player, number: int, end: int) -> list[Made]:
    """What came out then, from the packet's call on, and the events that a replay makes of it."""
    other = Player(player.recording)
    other.seek(number)
    found: list[Made] = []
    while not other.ended:
        step = other.step()
        if step.now > end:
            break
        found += [_told(player.process, event, step.now) for event in step.events]
        for port, frame in step.out:
            if port not in ("memory", "control"):
                found.append((step.now, "out", frame_text(frame, where_out(player.process, port)[0]), port))
    return found


def _beside(player: Player, result: Result, made: list[Any], then: list[Any], *, compare: bool) -> None:
    """What both did, in short; "-" what only the recording has, "+" what only this future has."""
    from difflib import SequenceMatcher

    begin = player.recording.span[0]

    def line(sign: str, row: Any) -> str:
        at, what, text, port = row
        seam = f"{where_out(player.process, port)[0]:<14}" if port else f"{'':<14}"
        return f"  {sign} {time_text(at, begin)} {what:<5} {seam} {text}"

    result.data["made"] = [{"time": time_text(row[0], begin), "what": row[1], "text": row[2]} for row in made]
    then, made = ([row for row in rows if row[1] != "figure"] for rows in (then, made))
    if not compare:
        result.lines += [line("+", row) for row in made[:LINES]]
        if len(made) > LINES:
            result.lines.append(f"    and {len(made) - LINES} more")
        return
    keys = [[row[1:] for row in rows] for rows in (then, made)]
    lines: list[str] = []
    differing = 0
    for tag, a, b, c, d in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            lines.append(f"    {b - a} frame{'s' * (b - a > 1)} or event{'s' * (b - a > 1)} as recorded")
            continue
        differing += 1
        lines += [line("-", row) for row in then[a:b]] + [line("+", row) for row in made[c:d]]
    result.data["same"] = not differing
    if not differing:
        lines = ["    what came out is the same as recorded"]
    result.lines += lines[:LINES]
    if len(lines) > LINES:
        result.lines.append(f"    and {len(lines) - LINES} lines more")


def ending(core: Any, process: str, now: int) -> list[str]:
    """Where it all ends: tcp's connections, or the next timer."""
    if process != "tcp":
        due = core.next_timer()
        return ["no timer runs" if due is None else f"next timer in {(due - now) / 1e9:.3f} s"]
    rows = core.control(0, "ss", {}, now)["sockets"]
    lines = []
    for row in rows:
        if row["state"] == "LISTEN":
            continue
        line = f"{row['local']}:{row['local_port']} > {row['remote']}:{row['remote_port']} {row['state']}"
        if info := row.get("info"):
            line += f", cwnd {info['snd_cwnd']}, unacked {info['unacked']}, retransmits {info['retransmits']}"
        timers = [f"{name} in {left / 1e6:.0f} ms" for name, left in row["timers"].items()]
        lines.append(", ".join([line, *timers]))
    return lines or ["no connection is left"]
