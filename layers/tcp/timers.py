"""All deadlines of all connections in one heap, removed lazily.

A connection keeps its deadlines in a list by kind. The heap holds an entry (instant, kind, id) at or before each of
them; moving a deadline later costs nothing, as the early entry is only put back when it comes up. So next_timer may
be early, never late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

OFF = -1

RETRANSMIT = 0
PERSIST = 1
DELAYED_ACK = 2
KEEPALIVE = 3
FIN_WAIT = 4
TIME_WAIT = 5
PMTU = 6
REORDER = 7
LOSS_PROBE = 8
KINDS = 9

NAMES = (
    "retransmit", "persist", "delayed_ack", "keepalive", "fin_wait", "time_wait", "pmtu", "reorder", "loss_probe",
)  # fmt: skip


class Owner(Protocol):
    """What has timers: `deadlines` as wanted, `scheduled` as the heap has them; OFF where there is none."""

    id: int
    deadlines: list[int]
    scheduled: list[int]


@dataclass(slots=True)
class Timers:
    """The heap."""

    heap: list[tuple[int, int, int]] = field(default_factory=list)

    def arm(self, owner: Owner, kind: int, deadline: int) -> None:
        """The timer `kind` of `owner` shall fire at `deadline`."""
        owner.deadlines[kind] = deadline
        scheduled = owner.scheduled[kind]
        if scheduled < 0 or deadline < scheduled:
            owner.scheduled[kind] = deadline
            heappush(self.heap, (deadline, kind, owner.id))

    def push(self, deadline: int, kind: int, ident: int) -> None:
        """An entry for something that keeps its deadline elsewhere."""
        heappush(self.heap, (deadline, kind, ident))

    def next(self) -> int | None:
        """When `due` wants to be asked again."""
        return self.heap[0][0] if self.heap else None

    def pop(self, now: int) -> tuple[int, int, int] | None:
        """The first entry at or before `now`."""
        if self.heap and self.heap[0][0] <= now:
            return heappop(self.heap)
        return None

    def expired(self, owner: Owner, kind: int, at: int) -> bool:
        """Whether the timer of the popped entry really is due; an entry that is only early goes back."""
        if owner.scheduled[kind] != at:
            return False
        owner.scheduled[kind] = OFF
        deadline = owner.deadlines[kind]
        if deadline < 0:
            return False
        if deadline > at:
            self.arm(owner, kind, deadline)
            return False
        owner.deadlines[kind] = OFF
        return True
