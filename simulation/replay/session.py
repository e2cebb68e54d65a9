"""Moving through recordings: the commands of the prompt and of scripts. One position a layer; `layer` changes over."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from levelip.cli.common import plain
from levelip.configfile import ConfigError
from levelip.frames.core import ControlError
from levelip.tracing.expression import compile_expression
from levelip.tracing.expressionparser import ExpressionError
from levelip.tracing.recordedcalls import DamagedFrame
from levelip.tracing.recording import Recording, RecordingError
from simulation.net import NeverAtRest
from simulation.replay.closedloop import LAYERS
from simulation.replay.compare import change_lines, differences, flatten, plain_state, short
from simulation.replay.layers import where_in, where_out
from simulation.replay.places import NoSuchPlace, find_place, frames_of, is_expression, matches, search_back, wall_text
from simulation.replay.player import Player, Step
from simulation.replay.report import divergence_data, divergence_text
from simulation.replay.stackwhatif import what_if_stack, whole_stack
from simulation.replay.text import call_text, event_text, frame_text, out_lines, time_text
from simulation.replay.whatif import BadChange, Change, Result, parse_change, what_if

MAX_SHOWN = 200  # calls that one command shows
TROUBLE = (
    NoSuchPlace, ExpressionError, RecordingError, DamagedFrame, ConfigError, BadChange, ControlError, NeverAtRest,
)  # fmt: skip
HIDDEN = ("rng", "events", "interest")
DERIVED = ("ports.table", "ports.by_socket", "timers.heap")  # say for programs what other rows say for people


@dataclass(slots=True)
class Answer:
    """What a command came to: lines for people, data for programs. `failed`: it could not be done, or the replay
    diverged."""

    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    failed: bool = False


class Session:
    """The players of some recordings, one of them at work."""

    def __init__(self, recordings: list[Recording]) -> None:
        self._recordings = {one.head.process: one for one in recordings}
        self._players: dict[str, Player] = {}
        process = "tcp" if "tcp" in self._recordings else next(iter(self._recordings))
        self.player = self._get(process)
        self._others: dict[str, Player] = {}
        self._before = self.player.at  # where the last command that moved began
        self.diverged = False

    def _get(self, process: str) -> Player:
        if process not in self._players:
            self._players[process] = Player(self._recordings[process])
        return self._players[process]

    @property
    def names(self) -> list[str]:
        """Every command."""
        return sorted(COMMANDS)

    def run(self, line: str) -> Answer:
        """One command. Nothing but the replay's own divergence or a mistake in `line` makes it fail."""
        word, _, rest = line.strip().partition(" ")
        name = _SHORT.get(word, word)
        if not name:
            return Answer()
        command = COMMANDS.get(name)
        if command is None:
            return Answer([f"there is no command {word!r}; see: help"], {"error": f"no command {word!r}"}, True)
        try:
            answer: Answer = command(self, rest.strip())
        except TROUBLE as error:
            return Answer([str(error)], {"error": str(error)}, True)
        answer.data = {"command": name, **self.position(), **answer.data}
        return answer

    # where we are

    def position(self) -> dict[str, Any]:
        """For programs."""
        player = self.player
        return {
            "layer": player.process, "call": player.at, "calls": player.recording.stop,
            "time": time_text(player.now, player.recording.span[0]), "stack_ns": player.now,
        }  # fmt: skip

    def prompt(self) -> str:
        """ "tcp #123 1.234567 > "."""
        where = self.position()
        return f"{where['layer']} #{where['call']} {where['time']}> "

    def where(self, _rest: str) -> Answer:
        """where                what comes next, and how far the recording goes"""
        player = self.player
        begin, end = player.recording.span
        calls = f"call #{player.at} of #{player.recording.first} to #{player.recording.stop - 1}"
        times = f"{time_text(player.now, begin)} s of {time_text(end, begin)} s"
        clock = wall_text(player.recording, player.now)
        return Answer([f"{player.process}: before {calls}, {times}, {clock}"], {"wall": clock})

    # moving

    def next(self, rest: str) -> Answer:
        """next [N]             run N calls (1) and show what came of them (n)"""
        count = _number(rest, 1)
        answer = Answer(data={"steps": []})
        player = self.player
        self._before = player.at
        for _ in range(count):
            if player.ended:
                answer.lines.append("the recording ends here")
                break
            self._show(answer, player.step())
            if self.diverged:
                break
        return answer

    def back(self, rest: str) -> Answer:
        """back [N|EXPRESSION]  go back N calls (1), or before the last call of which it is true (b)"""
        player = self.player
        self._before = player.at
        if rest and not rest.isdigit():
            here = player.at
            expression = compile_expression(rest)
            try:
                number = search_back(player, expression)
            except NoSuchPlace:
                player.seek(here)
                raise
            player.seek(number)
        else:
            player.seek(player.at - _number(rest, 1))
        return self._next_call()

    def goto(self, rest: str) -> Answer:
        """goto PLACE           #123 (a call), 1.5 or 20ms (a time), +20ms, -20ms, 19:22:47.9 (of the day), start, end,
                                tcp-3fa21-77 (a frame), or an expression: behind the next call that it is true of (g)"""
        if not rest:
            raise NoSuchPlace("goto where? see: help")
        player = self.player
        self._before = player.at
        if is_expression(rest):
            here = player.at
            expression = compile_expression(rest)
            while not player.ended:
                step = player.step()
                self._see(step)
                if step.divergence is not None or matches(player, step, expression):
                    answer = Answer(data={"steps": []})
                    self._show(answer, step)
                    return answer
            player.seek(here)
            raise NoSuchPlace(f"no call from here on is like that: {rest}")
        player.seek(find_place(player, rest))
        return self._next_call()

    def _next_call(self) -> Answer:
        """What comes next, without running it."""
        player = self.player
        if player.ended:
            return Answer(["the recording ends here"])
        entry = player.recording.entry(player.at)
        frame = next(frames_of(entry), None) if hasattr(entry, "code") else None
        when = self._when(player.at, getattr(entry, "now", player.now))
        return Answer([f"next: {when} {call_text(player.process, entry, frame)}"])

    def continue_(self, _rest: str) -> Answer:
        """continue             run to the end, or to the first frame or event that is not what was recorded (c)"""
        player = self.player
        self._before = player.at
        found = player.check()
        if found is None:
            return Answer([f"all the same to the end, call #{player.at}"], {"same": True})
        self.diverged = True
        data = divergence_data(player, found)
        return Answer(divergence_text(player, found).splitlines(), {"same": False, "divergence": data}, True)

    def _see(self, step: Step) -> None:
        self.diverged |= step.divergence is not None

    def _when(self, number: int, now: int | None = None) -> str:
        at = self.player.now if now is None else now
        return f"#{number} {time_text(at, self.player.recording.span[0])}"

    def _show(self, answer: Answer, step: Step) -> None:
        """What came of a call."""
        process, player = self.player.process, self.player
        self._see(step)
        if len(answer.data["steps"]) >= MAX_SHOWN:
            if len(answer.data["steps"]) == MAX_SHOWN:
                answer.lines.append("...")
            return
        answer.lines.append(f"{self._when(step.number)} {call_text(process, step.entry, step.frame)}")
        answer.lines += [f"    {event_text(process, event).strip()}" for event in step.events]
        answer.lines += [f"    {line}" for line in out_lines(process, step.out)]
        if step.error is not None:
            answer.lines.append(f"    raised {type(step.error).__name__}: {step.error}")
        row: dict[str, Any] = {
            "call": step.number,
            "time": time_text(step.now, player.recording.span[0]),
            "what": call_text(process, step.entry, step.frame).strip(),
            "out": [{"seam": where_out(process, port)[0], "text": frame_text(frame, where_out(process, port)[0])}
                    for port, frame in step.out],
            "events": [plain({"kind": one.kind, "reason": one.reason, "conn": one.conn, "data": one.data})
                       for one in step.events],
        }  # fmt: skip
        if step.frame is not None:
            row["seam"], row["way"] = where_in(process, step.frame)
        if step.divergence is not None:
            answer.failed = True
            row["divergence"] = divergence_data(player, step.divergence)
            answer.lines += ["  this is not what was recorded:", f"    {row['divergence']['recorded']}"]
        answer.data["steps"].append(row)

    def layer(self, rest: str) -> Answer:
        """layer NAME           go on in another layer of the recording, at the same instant"""
        if rest not in self._recordings:
            raise NoSuchPlace(f"there is no recording of {rest or 'nothing'}; there are {', '.join(self._recordings)}")
        now = self.player.now
        self.player = self._get(rest)
        self.player.seek(self.player.find_time(now))
        self._before = self.player.at
        return self._next_call()

    # looking

    def connections(self, _rest: str) -> Answer:
        """connections          every socket of tcp, its state and figures (ss)"""
        player = self.player
        if player.process not in ("tcp", "gateway"):
            raise NoSuchPlace(f"{player.process} has no connections; change over with: layer tcp")
        rows = player.core.control(0, "ss", {}, player.now)["sockets"]
        lines = []
        for row in rows:
            line = f"{row['state']:<13}"
            for side in ("local", "remote"):
                end = f"{row.get(side, row.get(f'{side}_address'))}:{row[f'{side}_port']}"
                line += f" {end:<22}"
            if info := row.get("info"):
                line += f" cwnd {info['snd_cwnd']} ssthresh {info['snd_ssthresh']} rtt {info['rtt'] / 1000:g} ms"
                line += f" rto {info['rto'] / 1000:g} ms unacked {info['unacked']} lost {info['lost']}"
            lines.append(line.rstrip())
        return Answer(lines or ["there are none"], {"sockets": plain(rows)})

    def state(self, rest: str) -> Answer:
        """state [CONN|PATH]    all that the layer knows here; of one connection; what has PATH in its name (s)"""
        flat = self._flat(self.player)
        if rest:
            whole = re.compile(rf"(?:^|\.){re.escape(rest)}(?:$|[.\[])")  # a name, or several, of the path
            chosen = {name: value for name, value in flat.items() if whole.search(name)}
            chosen = chosen or {name: value for name, value in flat.items() if rest in name}
            if not chosen:
                raise NoSuchPlace(f"nothing of the state has {rest!r} in its name")
            flat = chosen
        return Answer([f"{name} = {short(value)}" for name, value in flat.items()], {"state": plain(flat)})

    @staticmethod
    def _flat(player: Player) -> dict[str, Any]:
        state = plain_state(player.core.snapshot())
        return {name: value for name, value in flatten(state) if not name.startswith(HIDDEN)}

    def diff(self, rest: str) -> Answer:
        """diff [FROM [TO]]     what changed in the state between two places (where the last command began, here); an
                                expression goes in quotes"""
        player = self.player
        words = _words(rest)
        if len(words) > 2:
            raise NoSuchPlace("diff takes two places at most; an expression goes in quotes: diff start 'event rto'")
        here = player.at
        try:
            begin = find_place(player, words[0]) if words else self._before
            end = find_place(player, words[1]) if len(words) > 1 else here
        finally:
            player.seek(here)  # an expression is looked for by running on
        other = self._others.setdefault(player.process, Player(player.recording))
        if begin > end:
            begin, end = end, begin
        other.seek(begin)
        before = plain_state(other.core.snapshot())
        other.seek(end)
        changes = differences(before, plain_state(other.core.snapshot()))
        changes = [one for one in changes if not one[0].startswith(HIDDEN)]
        lines = [f"from #{begin} to #{end}:" if changes else f"nothing changed from #{begin} to #{end}"]
        lines += [f"  {line}" for line in change_lines([one for one in changes if not one[0].startswith(DERIVED)])]
        rows = [{"name": name, "before": plain(old), "after": plain(new)} for name, old, new in changes]
        return Answer(lines, {"from": begin, "to": end, "changes": rows})

    def whatif(self, rest: str) -> Answer:
        """whatif CHANGE        the next packet from here is lost (drop) or another (edit FIELD=VALUE ...): what the
                                stack does then, if gateway, tcp and ip were recorded; else, or with "alone", this
                                layer, beside what it did. "then silence": nothing more comes; "then recorded":
                                alone, with all that came in the recording; "for 5s": so long"""
        change = parse_change(rest)
        try:
            result = self._what_if(change)
        except TROUBLE:
            raise
        except Exception as error:  # of a core: a find, or a damaged recording
            raise BadChange(f"a core raises then: {type(error).__name__}: {error}") from error
        return Answer(result.lines, result.data)

    def _what_if(self, change: Change) -> Result:
        if not change.alone and self.player.process in LAYERS and whole_stack(self._recordings):
            return what_if_stack(self._recordings, self.player, change)
        return what_if(self.player, change)

    def help(self, rest: str) -> Answer:
        """help                 this"""
        lines = []
        for name, command in COMMANDS.items():
            text = command.__doc__ or ""
            if rest in ("", name):
                first, *more = text.splitlines()
                lines += [first, *(f"{'':<21}{line.strip()}" for line in more)]
        return Answer(lines)


COMMANDS: dict[str, Callable[[Session, str], Answer]] = {
    "next": Session.next,
    "back": Session.back,
    "goto": Session.goto,
    "continue": Session.continue_,
    "where": Session.where,
    "state": Session.state,
    "diff": Session.diff,
    "connections": Session.connections,
    "layer": Session.layer,
    "whatif": Session.whatif,
    "help": Session.help,
}
_SHORT = {"n": "next", "b": "back", "g": "goto", "c": "continue", "s": "state", "ss": "connections", "d": "diff",
          "?": "help", "h": "help", "what-if": "whatif"}  # fmt: skip


_DIGITS = 18  # of a number of calls: no recording has more


def _words(text: str) -> list[str]:
    """As a shell parts them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise NoSuchPlace(f"{text}: {str(error).lower()}") from None


def _number(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdecimal() or len(text) > _DIGITS:
        raise NoSuchPlace(f"a number of calls is needed, not {text!r}")
    return int(text)
