"""Congestion window validation, RFC 7661: how much of cwnd is used, and what follows where it is little. Of connections
with `tcp.slow_start_after_idle = false`; with true cwnd comes down as in Linux instead (`output`).

pipeACK is the most that was acknowledged in a round trip, of the last three round trips or the last second (4.2). While
it is half of cwnd or more, or not known, cwnd is validated (4.3). Else the application sends less than it may:

    validated      pipeACK >= cwnd / 2             as ever
    not validated  pipeACK < cwnd / 2              cwnd stays (4.4), and grows only while it is full
                   congestion                      half of what was really used, not of cwnd (4.4.1)
                   for more than five minutes      half of cwnd (4.4.3)

This file measures and remembers; cwnd and ssthresh are the strategy's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SECOND = 1_000_000_000  # ns
LEAST_PERIOD = SECOND  # 4.2: the sampling period is max(3 RTT, 1 s)
ROUND_TRIPS = 3
PARTS = 5  # of a sampling period, of each of which the largest sample is kept (4.5.1)
UNDEFINED = -1


@dataclass(slots=True)
class Validation:
    """One connection's. Bytes, stream offsets, instants in ns.

    A sample is what is acknowledged from when something was outstanding until all of that is acknowledged: a round
    trip, told by offsets, so that a pause is no part of it.
    """

    start: int = 0  # SND.UNA when the sample under way began
    end: int = -1  # SND.NXT then: acknowledged, the sample is taken
    samples: list[tuple[int, int, int]] = field(default_factory=list)  # when its part began, when it was taken; bytes
    defined: bool = False
    valid_at: int = 0  # when cwnd was validated last, or reduced for not being so
    # while a reduction is under way that began when cwnd was not validated
    used: int = UNDEFINED  # max(pipeACK, LossFlightSize); else UNDEFINED
    repaired: int = 0  # R of 4.4.1: what was sent again, each byte once
    repaired_to: int = -1

    def acked(self, before: int, una: int, nxt: int, srtt: int, now: int) -> None:
        """SND.UNA went from `before` to `una`, while no loss is being repaired (4.2)."""
        if before >= self.end:
            self.start = before
            self.end = nxt
        if una >= self.end:
            self._take(una - self.start, srtt, now)
            self.start = una
            self.end = nxt

    def _take(self, size: int, srtt: int, now: int) -> None:
        samples = self.samples
        self.defined = True
        part = _period(srtt) // PARTS
        if samples and now - samples[-1][0] < part:
            began, at, most = samples[-1]
            samples[-1] = (began, now, size) if size >= most else (began, at, most)
            return
        samples.append((now, now, size))
        del samples[: -PARTS - 1]

    def pipe_ack(self, srtt: int, now: int) -> int:
        """4.2; UNDEFINED at the start and after a recovery, until there is a sample; 0 if the last are too old."""
        if not self.defined:
            return UNDEFINED
        since = now - _period(srtt)
        return max((size for _, at, size in self.samples if at >= since), default=0)

    def validated(self, cwnd: int, srtt: int, now: int) -> bool:
        """4.3. Notes when it was so last."""
        used = self.pipe_ack(srtt, now)
        if used < 0 or 2 * used >= cwnd:
            self.valid_at = now
            return True
        return False

    def congested(self, cwnd: int, flight: int, srtt: int, now: int) -> bool:
        """Congestion is found while `flight` bytes are in flight (LossFlightSize). Whether cwnd is not validated; then
        `window` says what is left of it, until `reset`."""
        if self.validated(cwnd, srtt, now):
            return False
        self.used = max(self.pipe_ack(srtt, now), flight)
        self.repaired = 0
        self.repaired_to = -1
        return True

    def again(self, start: int, end: int) -> None:
        """[start, end) is sent again, in the order of the stream but for what is lost again: that counts once."""
        if end > self.repaired_to:
            self.repaired += end - max(start, self.repaired_to)
            self.repaired_to = end

    def window(self) -> int:
        """4.4.1: (max(pipeACK, LossFlightSize) - R) / 2; nothing is repaired yet when congestion is found."""
        return max(self.used - self.repaired, 0) // 2

    def reset(self, now: int) -> None:
        """Loss recovery is over: pipeACK is undefined (4.4.1), and cwnd validated thereby (4.3)."""
        self.valid_at = now
        self.samples.clear()
        self.defined = False
        self.end = -1
        self.used = UNDEFINED


def _period(srtt: int) -> int:
    """The pipeACK sampling period (4.2)."""
    return max(ROUND_TRIPS * srtt, LEAST_PERIOD)
