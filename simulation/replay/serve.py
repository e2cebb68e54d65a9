"""A replay that another program asks, line by line (levelip.debug.lines).

Nothing here has a position: each request says where (`layer`, and `at`, the number of the call that comes next there),
so that a view can jump about in the recording. Times are stack time in ns.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from levelip.cli.common import plain
from levelip.debug.collection import Collection
from levelip.debug.lines import answer_line, serve_lines
from levelip.debug.recorded import records
from levelip.debug.tap import Notice
from levelip.debug.why import Unknown, why
from levelip.debug.whydata import paths_data, with_journey
from levelip.frames.core import ControlError
from levelip.frames.packet import format_frame_id
from levelip.tracing.events import Event
from levelip.tracing.expression import compile_expression
from levelip.tracing.formatting import sentence
from levelip.tracing.reasons import lookup
from levelip.tracing.recordedcalls import Asked, Flushed, Interest, Received, TimerRan, Told
from levelip.tracing.recording import Recording
from simulation.replay.compare import differences, flatten, plain_state, short
from simulation.replay.layers import where_in, where_out
from simulation.replay.made import made_events
from simulation.replay.places import NoSuchPlace, find_place, is_expression, search_back
from simulation.replay.player import Player, Step
from simulation.replay.report import divergence_data
from simulation.replay.session import DERIVED, HIDDEN, TROUBLE, Session
from simulation.replay.text import call_text, frame_text

MOST_STEPS = 500
MOST_LINES = 4000
"""Lines of a state, or of what changed, in an answer."""
_ASIDE = (*HIDDEN, *DERIVED)
_EVENTS = list[tuple[str, dict[int, list[Event]], str]]


class Served:
    """Recordings of one stack, and a player for each use of each: rows, the state here, the state there."""

    def __init__(self, recordings: list[Recording]) -> None:
        self._recordings = {one.head.process: one for one in recordings}
        self._players: dict[tuple[str, str], Player] = {}
        self._indexes: dict[str, array[int]] = {}
        self._collection: Collection | None = None
        self._commands: dict[str, Callable[[dict[str, Any]], Any]] = {
            "about": self._about, "steps": self._steps, "time": self._time, "find": self._find, "state": self._state,
            "whatif": self._whatif, "why": self._why, "paths": self._paths,
        }  # fmt: skip

    def answer(self, line: bytes) -> dict[str, Any]:
        """What comes of a request. What a core raises is told: it is a find, or the recording is damaged."""
        return answer_line(line, self._do, trouble=(*TROUBLE, Unknown))

    def run(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Until the input ends."""
        serve_lines(self.answer, source, sink)

    def _do(self, request: dict[str, Any]) -> Any:
        return self._commands[request["do"]](request)

    def _recording(self, request: dict[str, Any]) -> Recording:
        found = self._recordings.get(str(request["layer"]))
        if found is None:
            raise NoSuchPlace(f"there is no recording of {request['layer']!s:.40}")
        return found

    def _player(self, request: dict[str, Any], use: str) -> Player:
        recording = self._recording(request)
        key = recording.head.process, use
        if key not in self._players:
            self._players[key] = Player(recording)
        return self._players[key]

    def _about(self, _request: dict[str, Any]) -> list[dict[str, Any]]:
        """The layers, the lowest first."""
        return [
            {
                "layer": name, "first": one.first, "stop": one.stop, "begin": one.span[0], "end": one.span[1],
                "events": one.head.events, "torn": one.torn, "version": one.head.version,
            }
            for name, one in self._recordings.items()
        ]  # fmt: skip

    # calls

    def _index(self, request: dict[str, Any]) -> Sequence[int]:
        """The calls of which something may have come; with `idle` all of them."""
        recording = self._recording(request)
        if request.get("idle"):
            return range(recording.first, recording.stop)
        process = recording.head.process
        if process not in self._indexes:
            self._indexes[process] = array("Q", _not_idle(recording))
        return self._indexes[process]

    def _steps(self, request: dict[str, Any]) -> dict[str, Any]:
        """Of the calls in the list, those from position `at` on, run, and what came of each."""
        player, index = self._player(request, "rows"), self._index(request)
        at, count = max(0, int(request["at"])), max(0, min(int(request["count"]), MOST_STEPS))
        rows: list[dict[str, Any]] = []
        for number in index[at : at + count]:
            player.seek(number)
            rows.append(_step_data(player, player.step()))
        return {"rows": rows, "all": len(index)}

    def _place(self, request: dict[str, Any], at: int) -> dict[str, Any]:
        """`at`: the call that comes next there; `position`: where in the list the last one before it is."""
        return {"at": at, "position": max(0, bisect_left(self._index(request), at) - 1)}

    def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Where a layer stands at an instant."""
        return self._place(request, self._player(request, "find").find_time(int(request["ns"])))

    def _find(self, request: dict[str, Any]) -> dict[str, Any]:
        """A place as `goto` and, with `back`, as `back` take it, from `at`; the call itself is the last one before."""
        player, text = self._player(request, "find"), str(request["place"]).strip()
        player.seek(int(request["at"]))
        if not request.get("back"):
            return self._place(request, find_place(player, text))
        if not is_expression(text):
            raise NoSuchPlace("back to what? an expression, such as: event retransmit")
        return self._place(request, search_back(player, compile_expression(text)) + 1)

    # states

    def _state(self, request: dict[str, Any]) -> dict[str, Any]:
        """The state before call `at`, and what changed between there and before call `since`, in the order of time; of
        one connection if `conn` names it."""
        player, conn = self._player(request, "here"), str(request.get("conn") or "")
        player.seek(int(request["at"]))
        now = _lines(player, conn)
        other = self._player(request, "there")
        other.seek(int(request["since"]))
        then = _lines(other, conn)
        rows = [(name, value) for name, value in flatten(now) if name and not name.startswith(HIDDEN)]
        found = differences(now, then) if other.at > player.at else differences(then, now)
        changes = [one for one in found if one[0] and not one[0].startswith(_ASIDE)]
        return {
            "at": player.at, "ns": player.now, "since": other.at, "since_ns": other.now,
            "rows": [[name, short(value)] for name, value in rows[:MOST_LINES]], "all": len(rows),
            "changes": [[name, short(old), short(new)] for name, old, new in changes[:MOST_LINES]],
            "changed": len(changes), "sockets": _sockets(player),
        }  # fmt: skip

    def _whatif(self, request: dict[str, Any]) -> list[str]:
        """The lines of `whatif`."""
        session = Session(list(self._recordings.values()))
        for line in (f"layer {self._recording(request).head.process}", f"goto #{int(request['at'])}"):
            if (answer := session.run(line)).failed:
                raise NoSuchPlace("\n".join(answer.lines))
        answer = session.run(f"whatif {request['change']}")
        if answer.failed:
            raise NoSuchPlace("\n".join(answer.lines))
        return answer.lines

    # stories

    def _why(self, request: dict[str, Any]) -> dict[str, Any]:
        """The stories of a subject, and of a frame its journey."""
        collection = self._collected()
        notes = [notice.text for notice in collection.notices]
        return {"stories": [with_journey(collection, one) for one in why(collection, str(request["subject"]))],
                "notes": notes[:20]}  # fmt: skip

    def _paths(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Packets grouped by the way that they took."""
        collection = self._collected()
        return {"paths": paths_data(collection), "notes": [notice.text for notice in collection.notices][:20]}

    def _collected(self) -> Collection:
        """Both sides of all seams; decisions that were not recorded are made again."""
        if self._collection is None:
            recordings = list(self._recordings.values())
            mute = [one for one in recordings if not one.head.events]
            made = msgspec.msgpack.decode(made_events(mute), type=_EVENTS)
            begin = min(one.span[0] for one in recordings)
            self._collection = Collection(
                Notice(begin, f"{process}: decisions left out: {note}") for process, _, note in made if note
            )
            events = {process: events for process, events, _ in made}
            self._collection.extend(records(recordings, both_sides=True, messages=True, events=events))
        return self._collection


def _not_idle(recording: Recording) -> Iterator[int]:
    for number, entry in recording.entries(recording.first):
        if not isinstance(entry, Told | Interest) and (not isinstance(entry, Flushed) or entry.out):
            yield number


def _step_data(player: Player, step: Step) -> dict[str, Any]:
    process = player.process
    row: dict[str, Any] = {
        "call": step.number, "ns": step.now, "kind": _kind(step.entry),
        "text": call_text(process, step.entry, step.frame) if step.frame is None else "",
        "out": list(_out_data(process, step.out)),
        "events": [_event_data(event) for event in step.events],
    }  # fmt: skip
    if step.frame is not None:
        row["in"] = _frame_data(step.frame, *where_in(process, step.frame))
    if step.error is not None:
        row["raised"] = f"{type(step.error).__name__}: {step.error}"
    if step.divergence is not None:
        row["divergence"] = divergence_data(player, step.divergence)
    return row


def _out_data(process: str, output: list[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    """What it put out; what goes to shared memory in one."""
    stores = [frame for port, frame in output if port == "memory"]
    if stores:
        size = sum(len(store.payload) for store in stores)
        yield {"seam": "memory", "way": "", "text": f"{size} bytes stored", "id": ""}
    for port, frame in output:
        if port != "memory":
            yield _frame_data(frame, *where_out(process, port))


def _kind(entry: Any) -> str:
    if isinstance(entry, Received):
        return "in"
    return "timer" if isinstance(entry, TimerRan) else "command" if isinstance(entry, Asked) else "other"


def _frame_data(frame: Any, seam: str, way: str) -> dict[str, Any]:
    ident = getattr(frame, "id", 0)
    return {"seam": seam, "way": way, "text": frame_text(frame, seam), "id": format_frame_id(ident) if ident else ""}


def _event_data(event: Event) -> dict[str, Any]:
    reason = lookup(event.reason) if event.reason else None
    return {
        "kind": event.kind, "text": sentence(event), "conn": event.conn, "reason": event.reason,
        "severity": reason.severity.value if reason else "", "rule": str(reason) if reason else "",
    }  # fmt: skip


def _lines(player: Player, conn: str) -> dict[str, Any]:
    """The state; of a connection its row alone, and without its name."""
    state = plain_state(player.core.snapshot())
    if not conn:
        return state
    for table in ("connections", "time_wait"):
        rows = state.get(table)
        for name, row in _named(rows if isinstance(rows, list) else []):
            if name == conn:
                return row
    return {}


def _named(rows: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("local"), bytes) and isinstance(row.get("remote"), bytes):
            local, remote = (".".join(map(str, row[side])) for side in ("local", "remote"))
            yield f"{local}:{row['local_port']}>{remote}:{row['remote_port']}", row


def _sockets(player: Player) -> list[dict[str, Any]]:
    """tcp's sockets, as `ss` has them."""
    if player.process != "tcp":
        return []
    try:
        rows: list[dict[str, Any]] = plain(player.core.control(0, "ss", {}, player.now)["sockets"])
    except ControlError:
        return []
    return rows[:1000]
