"""Why a sender is not faster: how long it had data, and how long of that something else than the network held it back.

Linux's chronographs (tcp_chrono_start, tcp_chrono_stop), the times of struct tcp_info. One is running, the one that
says most; tcpi_busy_time is the sum of all three.

    IDLE   nothing is written that is not acknowledged
    BUSY   there is: the network, or cwnd, is the limit
    RWND   data waits, and the peer's window does not let it go
    SNDBUF all is sent, cwnd would take more, and the send buffer has no room for it
"""

from __future__ import annotations

from dataclasses import dataclass, field

IDLE, BUSY, RWND, SNDBUF = range(4)


@dataclass(slots=True)
class Chronograph:
    """One connection's. `spent` has ns by kind, what runs since `since` (an instant) left out."""

    kind: int = IDLE
    since: int = 0
    spent: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def turn(self, kind: int, now: int) -> None:
        """Another reason counts from now on. Callers ask `kind` first: mostly it is the same."""
        self.spent[self.kind] += now - self.since
        self.kind = kind
        self.since = now

    def total(self, kind: int, now: int) -> int:
        """The ns of one kind until now."""
        return self.spent[kind] + (now - self.since if kind == self.kind else 0)

    def busy(self, now: int) -> int:
        """The ns with data that was not acknowledged, whatever the reason."""
        return sum(self.total(kind, now) for kind in (BUSY, RWND, SNDBUF))
