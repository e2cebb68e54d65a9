"""The debugger's stage at a seam point: holds frames in a bounded queue, and looks whether one is waited for.

Shut, it keeps everything, in the order of arrival. Opened again it lets go what it holds, a bounded number a round and
before anything newer, so that the order stays; what has not been looked at yet is looked at then. It never drops: a
full queue is not fed (`full`), so that what comes from the device waits, and is lost, in the device's own queue.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Look = Callable[[Any], Any]
"""A frame → the breakpoint that it is stopped at, or None."""
MOST_FRAMES = 1000
MOST_BYTES = 16 << 20
RELEASE = 128  # frames let go in one round, as many as the loop takes from a port


@dataclass(slots=True, eq=False)
class Held:
    """One held frame. `number` is the process's count; `entered` CLOCK_MONOTONIC ns; `checked`: no breakpoint waits for
    it any more; `due`: stack time before which it is not to go (0: none)."""

    number: int
    frame: Any
    entered: int
    checked: bool = False
    due: int = 0


class DebugStage:
    """One way of one port. `admit` makes a Held of a frame (and takes its bytes out of the device's pool); `look` finds
    the breakpoint that waits for a frame, `stop` is told of what was found and shuts the stage."""

    def __init__(self, admit: Callable[[Any], Held], look: Look, stop: Callable[[Held, Any], None]) -> None:
        self._admit = admit
        self._look = look
        self._stop = stop
        self.queue: deque[Held] = deque()
        self.delayed: list[tuple[int, int, Held]] = []  # a heap of (due, number, held)
        self.shut = False
        self.watched = False  # a breakpoint looks at what passes
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read for it."""
        return len(self.queue) >= MOST_FRAMES or self._bytes >= MOST_BYTES

    @property
    def idle(self) -> bool:
        """Whether nothing would change if it were not there."""
        return not (self.shut or self.watched or self.queue or self.delayed)

    # Stage (levelip.ipc.seampoint)

    def push(self, frames: list[Any], now: int) -> list[Any]:
        if self.shut or self.queue:
            for frame in frames:
                self.append(frame)
            return []
        if not self.watched:
            return frames
        for index, frame in enumerate(frames):
            found = self._look(frame)
            if found is not None:
                held = self.append(frame)
                held.checked = True
                self._stop(held, found)
                for later in frames[index + 1 :]:
                    self.append(later)
                return frames[:index]
        return frames

    def due(self, now: int) -> list[Any]:
        if self.shut:
            return []
        while self.delayed and self.delayed[0][0] <= now:
            self._keep(heapq.heappop(self.delayed)[2])
        passed: list[Any] = []
        while self.queue and len(passed) < RELEASE:
            held = self.queue[0]
            if self.watched and not held.checked:
                held.checked = True
                if (found := self._look(held.frame)) is not None:
                    self._stop(held, found)
                    break
            self._forget(self.queue.popleft())
            passed.append(held.frame)
        return passed

    def next_timer(self) -> int | None:
        if self.shut:
            return None
        if self.queue:
            return 0
        return self.delayed[0][0] if self.delayed else None

    def drain(self) -> list[Any]:
        left = [*self.queue, *(held for _, _, held in sorted(self.delayed, key=lambda entry: entry[:2]))]
        self.queue.clear()
        self.delayed.clear()
        self._bytes = 0
        return [held.frame for held in left]

    # held frames

    def append(self, frame: Any) -> Held:
        """Hold one more frame, as the last."""
        held = self._admit(frame)
        self._keep(held)
        return held

    def put_back(self, frames: Iterable[Any]) -> None:
        """Hold frames before all others: they were about to pass when the stage was shut."""
        back = [self._admit(frame) for frame in frames]
        for held in back:
            held.checked = True
            self._bytes += _size(held)
        self.queue.extendleft(reversed(back))

    def find(self, number: int) -> Held | None:
        """The held frame of that number, delayed ones too."""
        return next((held for held in self.everything() if held.number == number), None)

    def everything(self) -> list[Held]:
        """All held frames: those that go next first, then the delayed."""
        return [*self.queue, *(entry[2] for entry in sorted(self.delayed, key=lambda entry: entry[:2]))]

    def remove(self, held: Held) -> None:
        """Hold a frame no longer."""
        if held in self.queue:
            self.queue.remove(held)
            self._forget(held)
        else:
            self.delayed = [entry for entry in self.delayed if entry[2] is not held]
            heapq.heapify(self.delayed)

    def replace(self, held: Held, frame: Any) -> None:
        """Another frame in the same place."""
        counted = held in self.queue
        self._bytes -= _size(held) if counted else 0
        held.frame = frame
        self._bytes += _size(held) if counted else 0

    def insert_after(self, held: Held, frame: Any) -> Held:
        """Hold a frame right behind another one."""
        made = self._admit(frame)
        made.checked = True
        if held in self.queue:
            self.queue.insert(self.queue.index(held) + 1, made)
            self._bytes += _size(made)
        else:
            made.due = held.due
            heapq.heappush(self.delayed, (made.due, made.number, made))
        return made

    def delay(self, held: Held, due: int) -> None:
        """Let a frame go no earlier than at `due` (stack time), and then behind what waits."""
        self.remove(held)
        held.due = due
        heapq.heappush(self.delayed, (due, held.number, held))

    def move(self, held: Held, place: int) -> None:
        """Let a frame be the `place`th that goes, from 0; -1: the last."""
        self.remove(held)
        held.due = 0
        self.queue.insert(len(self.queue) if place < 0 else min(place, len(self.queue)), held)
        self._bytes += _size(held)

    def _keep(self, held: Held) -> None:
        held.due = 0
        self.queue.append(held)
        self._bytes += _size(held)

    def _forget(self, held: Held) -> None:
        self._bytes -= _size(held)


def _size(held: Held) -> int:
    frame = held.frame
    return len(getattr(frame, "head", b"")) + len(getattr(frame, "payload", b""))
