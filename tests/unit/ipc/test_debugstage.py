"""The debugger's stage: what it holds, in which order it lets go, where a breakpoint stops."""

from __future__ import annotations

from typing import Any

from levelip.ipc import debugstage
from levelip.ipc.debugstage import DebugStage, Held
from levelip.ipc.seampoint import SeamPoint


class Desk:
    """Admits frames with numbers from 1; stops at frames that are in `wanted`."""

    def __init__(self, *wanted: str) -> None:
        self.wanted = set(wanted)
        self.count = 0
        self.stopped: list[tuple[int, str]] = []
        self.stage = DebugStage(self.admit, lambda frame: frame if frame in self.wanted else None, self.stop)

    def admit(self, frame: Any) -> Held:
        self.count += 1
        return Held(self.count, frame, entered=self.count)

    def stop(self, held: Held, found: Any) -> None:
        self.stopped.append((held.number, found))
        self.stage.shut = True


def frames(stage: DebugStage) -> list[Any]:
    return [held.frame for held in stage.everything()]


def test_shut_it_keeps_everything_and_opened_it_lets_go_in_order_before_what_is_newer() -> None:
    """Also what comes while the rest is still to go waits behind it."""
    stage = Desk().stage
    stage.shut = True
    assert stage.push(["a", "b"], 0) == []
    assert stage.next_timer() is None
    assert stage.due(10**9) == []
    stage.shut = False
    assert stage.next_timer() == 0
    assert stage.push(["c"], 0) == []
    assert stage.due(0) == ["a", "b", "c"]
    assert stage.push(["d"], 0) == ["d"]
    assert stage.idle


def test_what_it_lets_go_in_one_round_is_bounded() -> None:
    """So that control and other ports have their turn."""
    stage = Desk().stage
    stage.shut = True
    stage.push([str(number) for number in range(200)], 0)
    stage.shut = False
    assert len(stage.due(0)) == debugstage.RELEASE == 128
    assert len(stage.due(0)) == 72


def test_it_is_full_at_a_number_of_frames_or_bytes(monkeypatch: Any) -> None:
    """Then nobody reads for it; the point that it stands at says so."""

    class Packet:
        def __init__(self, size: int) -> None:
            self.head, self.payload = b"", bytes(size)

    monkeypatch.setattr(debugstage, "MOST_FRAMES", 3)
    monkeypatch.setattr(debugstage, "MOST_BYTES", 100)
    stage = Desk().stage
    stage.shut = True
    point = SeamPoint("link", "up")
    point.put("debug", stage)
    point.push(["a", "b"], 0)
    assert not point.full
    point.push(["c"], 0)
    assert point.full
    for held in stage.everything():
        stage.remove(held)
    point.push([Packet(60)], 0)
    assert not point.full
    point.push([Packet(60)], 0)
    assert point.full
    stage.move(stage.queue[1], 0)
    stage.replace(stage.queue[0], Packet(10))
    assert not point.full


def test_a_breakpoint_lets_pass_what_was_before_and_holds_its_frame_first() -> None:
    """What came behind it waits behind it, and has yet to be looked at."""
    desk = Desk("x")
    desk.stage.watched = True
    assert desk.stage.push(["a", "x", "b", "x"], 0) == ["a"]
    assert desk.stopped == [(1, "x")]
    assert frames(desk.stage) == ["x", "b", "x"]
    desk.stage.shut = False
    assert desk.stage.due(0) == ["x", "b"]  # the first x is not stopped again, the second is
    assert desk.stopped == [(1, "x"), (3, "x")]
    desk.stage.shut = False
    assert desk.stage.due(0) == ["x"]


def test_frames_that_were_about_to_be_fed_go_back_to_the_front() -> None:
    """In their order, and no breakpoint looks at them again."""
    desk = Desk("a")
    desk.stage.watched = desk.stage.shut = True
    desk.stage.push(["z"], 0)
    desk.stage.put_back(["a", "b"])
    assert [(held.number, held.frame) for held in desk.stage.queue] == [(2, "a"), (3, "b"), (1, "z")]
    desk.stage.shut = False
    assert desk.stage.due(0) == ["a", "b", "z"]
    assert desk.stopped == []


def test_held_frames_are_moved_repeated_delayed_and_removed() -> None:
    """A delayed one goes when its stack time has come, behind what waits then."""
    stage = Desk().stage
    stage.shut = True
    stage.push(["a", "b", "c"], 0)
    a, b, c = stage.everything()
    stage.move(c, 0)
    assert frames(stage) == ["c", "a", "b"]
    stage.move(c, -1)
    stage.insert_after(a, "a2")
    assert frames(stage) == ["a", "a2", "b", "c"]
    stage.delay(a, 50)
    assert frames(stage) == ["a2", "b", "c", "a"]
    stage.remove(b)
    assert stage.find(b.number) is None
    assert stage.find(a.number) is a
    stage.shut = False
    assert stage.due(10) == ["a2", "c"]
    assert stage.next_timer() == 50
    assert stage.push(["d"], 20) == ["d"]
    assert stage.due(50) == ["a"]
    assert stage.idle


def test_taken_away_it_gives_all_that_it_holds() -> None:
    """Nothing is lost with the stage."""
    stage = Desk().stage
    stage.shut = True
    stage.push(["a", "b"], 0)
    stage.delay(stage.queue[0], 50)
    assert stage.drain() == ["b", "a"]
    assert stage.idle is False
    stage.shut = False
    assert stage.idle
