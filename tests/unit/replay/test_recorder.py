"""A recorded core: off, into memory, into a file; and what ends a recording without ending anything else."""

from __future__ import annotations

import re
import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from replay_bench import WALL, dump, recorded, stop, transfer
from test_call_encoder import segment

from levelip.frames.core import ControlError
from levelip.ipc.recorder import SNAPSHOT_MOST_S
from levelip.ipc.recordfile import WAITING, FileSink
from levelip.tracing.recording import Recording
from simulation.replay.player import Player

MIB = 1 << 20


class Toy:
    """A core that does nothing; it raises what it is told to."""

    def __init__(self) -> None:
        self.interest = False
        self.counters: dict[str, int] = {}
        self.state: dict[str, Any] = {"rng": 1}

    def receive(self, frame: Any, now: int) -> None:
        if isinstance(frame, BaseException):
            raise frame

    def handle_timer(self, now: int) -> None: ...

    def next_timer(self) -> int | None:
        return None

    def outgoing(self, room: Any) -> list[Any]:
        return []

    def events(self) -> list[Any]:
        return []

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        raise ControlError(f"no {name}")

    def set(self, key: str, value: Any, now: int) -> None: ...

    def snapshot(self) -> dict[str, Any]:
        return self.state


def test_off_costs_nothing() -> None:
    """While nothing is recorded its verbs are the core's own, and they are again afterwards."""
    core = Toy()
    made = recorded(core, {})
    for verb in ("receive", "handle_timer", "next_timer", "outgoing", "events"):
        assert getattr(made, verb) == getattr(core, verb)


def test_off_again_after_a_file(tmp_path: Path) -> None:
    """As before it."""
    core = Toy()
    made = recorded(core, {})
    made.control(0, "record.start", {"file": str(tmp_path / "x.rec")}, 5)
    assert made.receive != core.receive
    assert core.interest, "events are recorded, too"
    made.control(0, "record.stop", {}, 6)
    assert made.receive == core.receive
    assert not core.interest
    made.close()


def test_somebody_else_listens(tmp_path: Path) -> None:
    """A recording's interest in events and a tool's do not take each other away; changes are recorded."""
    core = Toy()
    made = recorded(core, {}, flight=MIB)
    assert not core.interest, "the flight recorder makes no events"
    made.interest = True
    made.control(0, "record.start", {"file": str(tmp_path / "x.rec")}, 5)
    made.interest = False
    assert core.interest
    made.interest = True
    made.control(0, "record.stop", {}, 6)
    assert core.interest
    made.interest = False
    assert not core.interest
    made.close()


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("record.stop", {}, "nothing is recorded"),
        ("record.dump", {"file": "/tmp/x"}, "flight recorder is off"),
        ("record.start", {"file": "x.rec"}, "absolute"),
        ("record.start", {}, "absolute"),
        ("record.start", {"file": "/nowhere/at/all/x.rec"}, "No such file"),
    ],
)
def test_refused(name: str, args: dict[str, Any], text: str) -> None:
    """Commands that cannot be carried out say why."""
    with pytest.raises(ControlError, match=text):
        recorded(Toy(), {}).control(0, name, args, 0)


def test_one_file_at_a_time_and_none_overwritten(tmp_path: Path) -> None:
    """A second start is refused; so is a file that is there."""
    made = recorded(Toy(), {})
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path)}, 0)
    with pytest.raises(ControlError, match="recorded already"):
        made.control(0, "record.start", {"file": str(tmp_path / "y.rec")}, 0)
    made.control(0, "record.stop", {}, 0)
    with pytest.raises(ControlError, match="is there already; --force writes over it"):
        made.control(0, "record.start", {"file": str(path)}, 0)
    made.close()
    Recording(path).close()


def test_idle_rounds_are_no_calls(tmp_path: Path) -> None:
    """An outgoing() that again has nothing to give, after no other call and with the same room, leaves the core as it
    was. It has no instant either, and in a replay of a stack at rest all would stand at that of the last call."""
    made = recorded(Toy(), {}, flight=MIB)
    made.control(0, "record.start", {"file": str(tmp_path / "x.rec")}, 5)
    room = {"ip": 64}
    expected = made.control(0, "record.status", {}, 5)["calls"]

    def rounds(count: int) -> int:
        for number in range(count):
            made.events()
            made.outgoing(room)
            if number % 2:
                made.events()
        return int(made.control(0, "record.status", {}, 5)["calls"])

    assert rounds(5) == expected + 1
    made.handle_timer(7)
    assert rounds(5) == expected + 3, "what may have come of another call is asked"
    room["ip"] = 0
    assert rounds(5) == expected + 4, "the room is another"
    made.control(0, "record.stop", {}, 8)
    made.close()
    found = Recording(tmp_path / "x.rec")
    assert sum(1 for _ in found.entries(found.first)) == found.stop - found.first
    found.close()


def test_the_ring_keeps_the_newest(tmp_path: Path) -> None:
    """It stays within its size, begins with a snapshot, and what it holds replays; the beginning is gone."""
    core, _, _ = transfer(None, size=6_000_000, flight=MIB // 2)
    status = core.control(0, "record.status", {}, 0)
    assert status["flight"]["bytes"] <= MIB
    found = dump(core, tmp_path / "x.rec")
    assert found.first > 0
    assert len(found.snapshots) >= 2
    assert found.stop == status["calls"]
    assert next(found.entries(0)) == next(found.entries(found.first)), "what it does not hold is passed over"
    assert Player(found).check() is None


def test_the_ring_alone_has_what_is_in_it(tmp_path: Path) -> None:
    """Beside the ring no entry is kept behind a round; with a file they are until its block is written, and the calls
    are counted alike."""
    path = tmp_path / "x.rec"
    core, numbers = Toy(), []
    made = recorded(core, {}, flight=MIB)

    def rounds() -> None:
        for _ in range(10):
            made.receive_all([segment(b"x")] * 10, 5)
            made.receive(segment(b"y"), 5)
            numbers.append(made.control(0, "record.status", {}, 5)["calls"])
            made.outgoing({})
            made.events()

    rounds()
    assert not made._entries
    assert numbers == [11 + 12 * number for number in range(10)]
    made.control(0, "record.start", {"file": str(path), "events": False}, 5)
    rounds()
    assert len(made._entries) == 30
    found, ring = stop(made, path), dump(made, tmp_path / "y.rec")
    assert (found.first, found.stop) == (120, 240) and (ring.first, ring.stop) == (0, 240)
    assert list(ring.entries(120)) == list(found.entries(120))
    rounds()
    assert not made._entries
    assert numbers == [11 + 12 * number for number in range(30)]


def test_ring_and_file_at_once(tmp_path: Path) -> None:
    """The flight recorder goes on beside a file."""
    path = tmp_path / "x.rec"
    core, _, _ = transfer(path, size=300_000, flight=8 * MIB)
    one = stop(core, path)
    other = dump(core, tmp_path / "y.rec")
    assert Player(one).check() is None
    assert Player(other).check() is None
    assert other.first == 0 and other.stop >= one.stop


def test_a_frame_that_cannot_be_recorded(tmp_path: Path) -> None:
    """Ends the recording with a reason; the core has it all the same."""
    seen = []
    core = Toy()
    core.receive = lambda frame, now: seen.append(frame)  # type: ignore[method-assign]
    made = recorded(core, {}, flight=MIB)
    made.control(0, "record.start", {"file": str(tmp_path / "x.rec")}, 0)
    made.receive(object(), 5)
    assert len(seen) == 1
    assert "cannot be recorded" in made.control(0, "record.status", {}, 0)["flight"]["failure"]
    assert made.receive is core.receive
    with pytest.raises(ControlError, match="cannot be recorded"):
        made.control(0, "record.dump", {"file": str(tmp_path / "y.rec")}, 0)
    made.close()


def test_a_snapshot_that_cannot_be_taken(tmp_path: Path) -> None:
    """The same."""
    core = Toy()
    made = recorded(core, {}, flight=MIB)
    core.state = {"x": object()}
    made.control(0, "record.start", {"file": str(tmp_path / "x.rec")}, 0)
    assert "cannot be recorded" in made.control(0, "record.status", {}, 0)["ended"]
    made.close()


def test_snapshots_that_take_too_long(tmp_path: Path) -> None:
    """With very many connections the flight recorder ends, and says why; a file can still be recorded."""

    class Slow(Toy):
        def snapshot(self) -> dict[str, Any]:
            began = time.thread_time()
            while time.thread_time() - began <= SNAPSHOT_MOST_S:
                pass
            return self.state

    core = Slow()
    made = recorded(core, {}, flight=MIB)
    status = made.control(0, "record.status", {}, 0)["flight"]
    assert not status["on"] and re.search(r"takes \d\.\d s", status["failure"])
    assert made.receive == core.receive
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path)}, 0)
    made.handle_timer(1)
    assert len(stop(made, path)) >= 1


def test_a_full_disk_ends_the_recording_only(tmp_path: Path) -> None:
    """The transfer goes on; the status says why, and the file is good as far as it goes."""
    path = tmp_path / "x.rec"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    try:
        core, _, _ = transfer(path, size=6_000_000)
        core.close()
        status = core.control(0, "record.status", {}, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in status["ended"] or "File too large" in status["writing"]["error"]
    found = Recording(path)
    assert found.torn
    assert len(found) > 100
    assert Player(found).check() is None


def test_a_slow_disk(tmp_path: Path) -> None:
    """Blocks that the disk does not take fill no memory: the sink refuses more, with a reason."""
    go = threading.Event()

    class Slow(FileSink):
        def _write(self, block: bytes) -> None:
            go.wait(100)
            super()._write(block)

    sink = Slow(tmp_path / "x.rec")
    block = bytes(1 << 20)
    taken = sum(sink.put(block) for _ in range(2 * WAITING // len(block)))
    assert WAITING // len(block) <= taken <= WAITING // len(block) + 1
    assert "too slow" in sink.error
    go.set()
    sink.finish()
    sink.wait()
    assert not sink.busy


def test_a_file_behind_a_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that ends while a dump is still being written: at the process's end both are whole."""
    core, _, _ = transfer(tmp_path / "file.rec", size=30_000, flight=1 << 20)
    go = threading.Event()
    write = FileSink._write

    def slow(sink: FileSink, block: bytes) -> None:
        if sink.path.name == "dump.rec":
            go.wait(100)
        write(sink, block)

    monkeypatch.setattr(FileSink, "_write", slow)
    core.control(0, "record.dump", {"file": str(tmp_path / "dump.rec")}, 0)
    core.control(0, "record.stop", {}, 0)
    ending = threading.Thread(target=core.close)
    ending.start()
    go.set()
    ending.join()
    for name in ("dump.rec", "file.rec"):
        found = Recording(tmp_path / name)
        assert not found.torn and found.end is not None
        found.close()


def test_a_crash(tmp_path: Path) -> None:
    """The last call and the traceback are in the file; the newest few of a process are kept."""
    core = Toy()
    for number in range(6):
        made = recorded(core, {}, flight=MIB)
        made.handle_timer(7)
        try:
            made.receive(ZeroDivisionError("oops"), 8)
        except ZeroDivisionError as error:
            problem: BaseException = error
        old = tmp_path / f"tcp-2000010{number}-000000-1.rec"
        old.touch()
        path = made.crash(problem, tmp_path, 4)
        # an exception is no frame: recording had ended before it, so nothing is written
        assert path is None
    made = recorded(core, {}, flight=MIB)
    made.handle_timer(7)
    path = made.crash(ZeroDivisionError("oops"), tmp_path, 4)
    assert path is not None
    found = Recording(path)
    assert found.end is not None and "ZeroDivisionError: oops" in found.end.crash
    assert len(found) == 1
    assert len(list(tmp_path.glob("tcp-*.rec"))) == 4


def test_each_file_says_what_makes_its_time_the_time_of_day(tmp_path: Path) -> None:
    """It is asked for when a file begins: holds since the process began have moved it."""
    made = recorded(Toy(), {}, flight=MIB)
    made.control(0, "record.start", {"file": str(tmp_path / "file.rec")}, 5)
    made.close()
    made = recorded(Toy(), {}, flight=MIB)
    made.control(0, "record.dump", {"file": str(tmp_path / "dump.rec")}, 5)
    made.close()
    crash = made.crash(ZeroDivisionError("oops"), tmp_path, 4)
    assert crash is not None
    for path in (tmp_path / "file.rec", tmp_path / "dump.rec", crash):
        found = Recording(path)
        assert found.head.wall_offset == WALL
        found.close()


@pytest.mark.parametrize("how", ["record.dump", "record.start"])
def test_each_hold_moves_the_time_of_day_of_what_comes_behind_it(tmp_path: Path, how: str) -> None:
    """Stack time stands at 10 for 500 ns and at 20 for 1,000 ns; then a debugger steps to a timer at 35."""
    held = 0
    made = recorded(Toy(), {}, flight=MIB, held_ns=lambda: held)
    path = tmp_path / "held.rec"
    if how == "record.start":
        made.control(0, how, {"file": str(path)}, 1)
    times = [5, 10]
    for now in times:
        made.handle_timer(now)
    for lag, later in ((500, (11, 20)), (1000, (21, 30)), (-5, (35,))):
        held += lag
        for now in later:
            made.handle_timer(now)
    if how == "record.dump":
        made.control(0, how, {"file": str(path)}, 36)
    made.close()
    found = Recording(path)
    expected = {5: 5, 10: 10, 11: 511, 20: 520, 21: 1521, 30: 1530, 35: 1530, 36: 1531}
    assert {now: now + found.wall_offset(now) - WALL for now in expected} == expected
    instants = {5: 5, 10: 10, 400: 11, 511: 11, 520: 20, 521: 21, 1521: 21, 1530: 30, 1531: 36}
    assert {wall: found.instant_of(WALL + wall) for wall in instants} == instants
    assert not found.torn
    assert [entry.now for _, entry in found.entries(found.first) if hasattr(entry, "now")][:2] == times
    found.close()


def test_holds_from_before_what_the_flight_recorder_keeps_are_forgotten(tmp_path: Path) -> None:
    """Its list does not grow as long as the process lives; what is left is right."""
    held = 0
    made = recorded(Toy(), {}, flight=1 << 19, held_ns=lambda: held)
    for now in range(1, 4000):
        held += 10
        made.handle_timer(now)
        made.set("note", "x" * 400, now)
        made.events()
    assert len(made._keep._lags) < 2000
    path = tmp_path / "dump.rec"
    made.control(0, "record.dump", {"file": str(path)}, 4000)
    made.close()
    found = Recording(path)
    begin = found.span[0]
    assert begin > 2000
    assert begin + found.wall_offset(begin) == WALL + 11 * begin
    found.close()
