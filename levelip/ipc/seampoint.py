"""Where frames pass on their way into a core (or out to the device): what stands there may change, keep or add some.

Stages come in a fixed order, so that each sees what those before it left: an addon rewrites, a fault loses, a debugger
stops what is left. With no stage there is no point, and a frame passes without a look.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

ORDER: Final = ("addon", "fault", "debug")


class Stage(Protocol):
    """One thing that stands at a point; frames that it keeps come out of `due` or `drain` later."""

    def push(self, frames: list[Any], now: int) -> list[Any]:
        """Take frames; those that pass at once."""

    def due(self, now: int) -> list[Any]:
        """Frames whose time has come."""

    def next_timer(self) -> int | None:
        """When `due` has something; pure."""

    def drain(self) -> list[Any]:
        """All that is kept, at once: the stage is taken away."""


class SeamPoint:
    """One way (`up`: toward the applications, or `down`) of one port."""

    def __init__(self, seam: str, way: str) -> None:
        self.seam = seam
        self.way = way
        self._stages: dict[str, Stage] = {}

    def __bool__(self) -> bool:
        """Whether anything stands here."""
        return bool(self._stages)

    @property
    def full(self) -> bool:
        """Whether a stage can keep no more: then the port is not read."""
        return any(getattr(stage, "full", False) for stage in self._stages.values())

    def get(self, name: str) -> Stage | None:
        """The stage of this name (of ORDER)."""
        return self._stages.get(name)

    def put(self, name: str, stage: Stage) -> None:
        """Let a stage stand here, in the place of the one that had this name."""
        stages = {**self._stages, name: stage}
        self._stages = {one: stages[one] for one in ORDER if one in stages}

    def take(self, name: str, now: int) -> list[Any]:
        """Take a stage away; the frames that it kept, past the stages behind it."""
        kept = self._stages[name].drain()
        later = self._behind(name)
        del self._stages[name]
        return _through(later, kept, now)

    def push(self, frames: list[Any], now: int) -> list[Any]:
        """Frames through every stage; those that pass at once."""
        return _through(list(self._stages.values()), frames, now)

    def due(self, now: int) -> list[Any]:
        """Frames that a stage kept until now, past the stages behind it."""
        passed: list[Any] = []
        for name, stage in list(self._stages.items()):
            if frames := stage.due(now):
                passed += _through(self._behind(name), frames, now)
        return passed

    def next_timer(self) -> int | None:
        """When `due` has something; pure."""
        return min((at for stage in self._stages.values() if (at := stage.next_timer()) is not None), default=None)

    def _behind(self, name: str) -> list[Stage]:
        names = list(self._stages)
        return [self._stages[one] for one in names[names.index(name) + 1 :]]


def _through(stages: list[Stage], frames: list[Any], now: int) -> list[Any]:
    for stage in stages:
        if not frames:
            break
        frames = stage.push(frames, now)
    return frames
