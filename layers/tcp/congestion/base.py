"""What a congestion control strategy is: it alone owns cwnd and ssthresh; others tell it what happened, and read.

Loss recovery moves cwnd while it lasts (`set_window`: PRR, RFC 9937; NewReno's inflation, RFC 6582 3.2); how far it
falls (ssthresh), how it grows, and what comes back when a reduction proves spurious, is the strategy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

INFINITE_SSTHRESH = 1 << 31  # bytes: "arbitrarily high", RFC 5681 3.1; Linux shows 2147483647 segments


@dataclass(slots=True)
class AckSample:
    """What one ACK told. Sizes in bytes, times in ns, `una` and `nxt` stream offsets after it."""

    acked: int  # newly delivered: acknowledged cumulatively and by SACK
    una: int
    nxt: int
    flight: int  # in flight before it
    limited: bool  # cwnd was what held us back
    rtt: int  # measured by this ACK; -1: none
    srtt: int
    min_rtt: int
    now: int


@runtime_checkable
class Strategy(Protocol):
    """All sizes in bytes, all times in ns. A strategy is a slotted dataclass: its fields and its name are its state."""

    name: ClassVar[str]
    mss: int
    cwnd: int
    ssthresh: int

    def start(self, mss: int, segments: int, now: int) -> None:
        """The connection is established: set the initial window of `segments`."""

    def set_mss(self, mss: int) -> None:
        """The path's MSS has changed."""

    def acked(self, sample: AckSample) -> None:
        """New data was acknowledged, not in recovery; or after a timeout (slow start again)."""

    def enter_recovery(self, flight: int, now: int) -> None:
        """A loss was found while `flight` was outstanding: remember for `undo`, set ssthresh. cwnd is recovery's."""

    def congestion_experienced(self, flight: int, now: int) -> None:
        """The peer echoes ECN's mark: the same reduction without a loss (RFC 3168 6.1.2)."""

    def reduce_to(self, window: int) -> None:
        """The reduction just made, or now ending, is to `window`: of a cwnd that was not used (RFC 7661 4.4.1)."""

    def set_window(self, cwnd: int) -> None:
        """Recovery moves the window."""

    def exit_recovery(self, now: int) -> None:
        """Recovery has ended: cwnd is ssthresh (RFC 6582 3.2 step 3, RFC 9937 6.4)."""

    def timeout(self, flight: int, first: bool, now: int) -> None:
        """The retransmission timer fired; `first`: no reduction was made for this data yet, so remember for `undo`."""

    def undo(self, now: int) -> None:
        """The last reduction was for nothing lost: back to what was before it."""

    def idle(self, idle_for: int, rto: int, now: int) -> None:
        """Nothing was sent for longer than an RTO and more is to come now."""

    def unused(self, used: int, now: int) -> None:
        """For an RTO the application had data to send, but never more than `used` bytes in flight."""
