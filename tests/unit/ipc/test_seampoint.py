"""Stages at a seam: their order, and what becomes of frames that a stage kept."""

from __future__ import annotations

from typing import Any

from levelip.ipc.seampoint import SeamPoint


class Marking:
    """Adds its letter to each frame; keeps those that start with "k" until 10."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.kept: list[str] = []

    def push(self, frames: list[Any], _now: int) -> list[Any]:
        self.kept += [frame + self.letter for frame in frames if frame.startswith("k")]
        return [frame + self.letter for frame in frames if not frame.startswith("k")]

    def due(self, now: int) -> list[Any]:
        return self.drain() if now >= 10 else []

    def next_timer(self) -> int | None:
        return 10 if self.kept else None

    def drain(self) -> list[Any]:
        kept, self.kept = self.kept, []
        return kept


def test_frames_pass_addon_fault_and_debug_in_this_order() -> None:
    """Whatever the order in which they were put there."""
    point = SeamPoint("ip-tcp", "up")
    for name in ("debug", "addon", "fault"):
        point.put(name, Marking(name[0]))
    assert point.push(["x-"], 0) == ["x-afd"]


def test_what_a_stage_kept_meets_the_stages_behind_it_only() -> None:
    """When its time has come, and when the stage is taken away."""
    point = SeamPoint("ip-tcp", "up")
    point.put("addon", Marking("a"))
    point.put("fault", Marking("f"))
    assert point.push(["k"], 0) == []
    assert point.next_timer() == 10
    assert point.due(5) == []
    assert point.due(10) == ["kaf"]
    point.push(["k"], 12)
    point.take("addon", 13)
    assert point.take("fault", 14) == ["kaf"]
    assert not point


def test_a_stage_replaces_the_one_of_its_name() -> None:
    """A second fault on a seam is not added to the first."""
    point = SeamPoint("link", "down")
    point.put("fault", Marking("f"))
    point.put("fault", Marking("g"))
    assert point.push(["x"], 0) == ["xg"]
