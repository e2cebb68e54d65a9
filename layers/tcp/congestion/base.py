"""What a congestion control strategy is: it alone owns cwnd and ssthresh; others tell it what happened, and read."""

from __future__ import annotations

from typing import Protocol

INFINITE_SSTHRESH = 1 << 31  # bytes: "arbitrarily high", RFC 5681 3.1; Linux shows 2147483647 segments


class Strategy(Protocol):
    """All sizes in bytes."""

    mss: int
    cwnd: int
    ssthresh: int

    def start(self, mss: int, segments: int) -> None:
        """The connection is established: set the initial window of `segments`."""

    def set_mss(self, mss: int) -> None:
        """The path's MSS has changed."""

    def acked(self, acked: int, limited: bool) -> None:
        """New data was acknowledged outside loss recovery; `limited` says that cwnd was what held us back."""

    def enter_recovery(self, flight: int) -> None:
        """A loss was found by duplicate ACKs while `flight` was outstanding; its retransmission goes out now."""

    def duplicate_ack(self) -> None:
        """One more packet has left the network during recovery."""

    def partial_ack(self, acked: int) -> None:
        """`acked` was acknowledged during recovery, but not all of it."""

    def exit_recovery(self, flight: int) -> None:
        """Everything that was outstanding when the loss was found has been acknowledged."""

    def timeout(self, flight: int, first: bool) -> None:
        """The retransmission timer fired; `first` for the first time on this data."""

    def idle(self, segments: int) -> None:
        """Nothing was sent for more than an RTO and more is to come now."""
