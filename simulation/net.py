"""Hosts in virtual time: cores wired to each other, a memory that stores bytes, a clock that jumps.

A `Node` is one host: cores by name, and where each core's ports lead. Output on "memory" is carried out on the
network's memory, all else goes to the function that `wire` named for (core, port). A `Net` has the clock: it
delivers what is due, runs timers, flushes, until a condition holds or the time is up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from levelip.rpc.place import INLINE_LIMIT, Payload, Place

MS = 1_000_000
SECOND = 1_000_000_000


class NeverAtRest(Exception):
    """So many steps, and something is still due: timers or answers without end, or far more than anybody waits for."""


class Memory:
    """Every ring and pool slot is a bytearray of its own, found by region and base."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, int], bytearray] = {}
        self.pool_slots = 0

    def _bytes(self, place: Place) -> bytearray:
        held = self.places.get((place.region, place.base))
        if held is None:
            held = self.places[place.region, place.base] = bytearray(place.size)
        if len(held) != place.size:
            raise AssertionError("one base, two sizes")
        if not 0 <= place.length <= place.size:
            raise AssertionError(f"a place longer than its ring: {place}")
        return held

    def read(self, payload: Payload) -> bytes:
        """The bytes of a payload, wherever it lies."""
        if not isinstance(payload, Place):
            return bytes(payload)
        held = self._bytes(payload)
        at = payload.start % payload.size
        first = held[at : at + payload.length]
        return bytes(first + held[: payload.length - len(first)])

    def store(self, place: Place, payload: Payload) -> None:
        """Copy a payload into a place of the same length."""
        data = self.read(payload)
        if len(data) != place.length:
            raise AssertionError(f"{len(data)} bytes into {place}")
        held = self._bytes(place)
        at = place.start % place.size
        first = min(len(data), place.size - at)
        held[at : at + first] = data[:first]
        held[: len(data) - first] = data[first:]

    def pool(self, data: bytes) -> Payload:
        """What link would hand up: short payloads inline, long ones in a slot of the device pool."""
        if len(data) <= INLINE_LIMIT:
            return data
        self.pool_slots += 1
        place = Place("pool", (self.pool_slots % 1024) * 65_536, 65_536, 0, len(data), self.pool_slots)
        self.store(place, data)
        return place


class Node:
    """One host."""

    def __init__(self, name: str, memory: Memory) -> None:
        self.name = name
        self.memory = memory
        self.cores: dict[str, Any] = {}
        self.wires: dict[tuple[str, str], Callable[[Any, int], None]] = {}
        self.room: dict[str, dict[str, int]] = {}
        self.waiting: frozenset[str] = frozenset()  # cores that are not asked now what they have to say

    def add(self, name: str, core: Any) -> None:
        """A core of this host."""
        self.cores[name] = core

    def wire(self, core: str, port: str, to: Callable[[Any, int], None]) -> None:
        """What `core` puts out on `port` is given to `to`."""
        self.wires[core, port] = to

    def flush(self, now: int) -> None:
        """Until no core that may speak has anything left to say; bounded."""
        for _ in range(10_000):
            quiet = True
            for name, core in self.cores.items():
                if name in self.waiting:
                    continue
                output = core.outgoing(self.room.get(name, {}))
                for port, frame in output:
                    quiet = False
                    if port == "memory":
                        self.memory.store(frame.place, frame.payload)
                for port, frame in output:
                    if port != "memory":
                        self.wires[name, port](frame, now)
            if quiet:
                return
        raise NeverAtRest(f"the cores of {self.name} answer each other without end")


class Net:
    """Clock, nodes and what is under way."""

    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.memory = Memory()
        self.nodes: list[Node] = []
        self._under_way: list[tuple[int, int, Callable[[Any, int], None], Any]] = []
        self._count = 0

    def add(self, name: str) -> Node:
        """A new host."""
        node = Node(name, self.memory)
        self.nodes.append(node)
        return node

    def later(self, at: int, to: Callable[[Any, int], None], frame: Any) -> None:
        """Give `frame` to `to` at instant `at`."""
        self._count += 1
        heapq.heappush(self._under_way, (at, self._count, to, frame))

    def next_event(self) -> int | None:
        """When something happens next."""
        cores = [core for node in self.nodes for core in node.cores.values()]
        times = [timer for core in cores if (timer := core.next_timer()) is not None]
        if self._under_way:
            times.append(self._under_way[0][0])
        return min(times, default=None)

    def run(self, until: Callable[[], bool] | None = None, *, seconds: float = 60, steps: int = 400_000) -> bool:
        """Go on until the condition holds (True), all is quiet, or the time is used up (False). NeverAtRest: so are
        the steps."""
        began = self.now
        deadline = began + int(seconds * SECOND)
        for node in self.nodes:
            node.flush(self.now)
        for _ in range(steps):
            if until is not None and until():
                return True
            at = self.next_event()
            if at is None or at > deadline:
                self.now = deadline if at is not None else self.now
                return until is None
            self.step(max(self.now, at))
        raise NeverAtRest(f"after {steps} steps, {(self.now - began) / SECOND:.6f} s on, something is still due")

    def advance(self, to: int, after: Callable[[], None] | None = None, *, steps: int = 400_000) -> None:
        """Go on until the instant `to`, whatever is due then included. `after` is called after each step.

        NeverAtRest if that takes more than so many steps."""
        began = self.now
        for _ in range(steps):
            at = self.next_event()
            if at is None or at > to:
                self.now = max(self.now, to)
                return
            self.step(max(self.now, at))
            if after is not None:
                after()
        raise NeverAtRest(f"after {steps} steps, {(self.now - began) / SECOND:.6f} s on, something is still due")

    def step(self, at: int) -> None:
        """Do what is due at `at`."""
        self.now = at
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, to, frame = heapq.heappop(self._under_way)
            to(frame, self.now)
        for node in self.nodes:
            for core in node.cores.values():
                due = core.next_timer()
                if due is not None and due <= self.now:
                    core.handle_timer(self.now)
            node.flush(self.now)
