"""HyStart++ (RFC 9406): leave slow start when the round trips get longer, before the queue overflows.

Rounds are measured in sequence space: a round ends when what SND.NXT was at its start is acknowledged. If the shortest
RTT of a round is well above that of the round before, slow start goes on at a quarter of its speed (Conservative Slow
Start, CSS) for up to five rounds; if the RTT falls again meanwhile, it was a false alarm and slow start resumes.

Samples are counted in packets, not in ACKs: an ACK of 2n segments counts as n, as a receiver that acknowledges every
second segment (RFC 5681 4.2) would have sent n over the same stretch. Behind segmentation offload one ACK may cover
a whole round, and a count of ACKs would never come to N_RTT_SAMPLE in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from layers.tcp.congestion.base import AckSample

# RFC 9406 4.3; times in ns
MIN_RTT_THRESH = 4_000_000
MAX_RTT_THRESH = 16_000_000
MIN_RTT_DIVISOR = 8
N_RTT_SAMPLE = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5

NONE = -1  # "infinity" of the RFC: no RTT yet
SEGMENTS_AN_ACK = 2  # RFC 5681 4.2


class Phase(IntEnum):
    """How slow start goes on."""

    OFF = 0  # as without HyStart++
    STANDARD = 1
    CONSERVATIVE = 2
    DONE = 3


@dataclass(slots=True)
class HyStart:
    """RFC 9406 4.2; names are the RFC's: currentRoundMinRTT, lastRoundMinRTT, rttSampleCount, cssBaselineMinRtt."""

    enabled: bool = True
    window_end: int = 0  # offset: the round ends when it is acknowledged
    last_min: int = NONE
    current_min: int = NONE
    samples: int = 0
    baseline: int = NONE  # set: in CSS
    rounds: int = 0  # of CSS, the partial first one included
    remainder: int = 0  # bytes acknowledged in CSS that have not yet made the window grow

    def acked(self, sample: AckSample, mss: int) -> Phase:
        """One ACK in slow start. The state after it."""
        if not self.enabled:
            return Phase.OFF
        if sample.rtt >= 0:
            if self.current_min < 0 or sample.rtt < self.current_min:
                self.current_min = sample.rtt
            self.samples += max(-(-sample.acked // (SEGMENTS_AN_ACK * mss)), 1)
        if self.samples >= N_RTT_SAMPLE and self.current_min >= 0:
            if self.baseline < 0:
                self._look_for_delay()
            elif self.current_min < self.baseline:  # the exit was spurious: resume slow start
                self.baseline = NONE
                self.rounds = 0
        if sample.una >= self.window_end:
            self.window_end = sample.nxt
            self.last_min = self.current_min
            self.current_min = NONE
            self.samples = 0
            if self.baseline >= 0:
                self.rounds += 1
                if self.rounds >= CSS_ROUNDS:
                    return Phase.DONE
        return Phase.STANDARD if self.baseline < 0 else Phase.CONSERVATIVE

    def _look_for_delay(self) -> None:
        """Whether this round is so much slower than the last that a queue must be building up."""
        if self.last_min < 0:
            return
        threshold = max(MIN_RTT_THRESH, min(self.last_min // MIN_RTT_DIVISOR, MAX_RTT_THRESH))
        if self.current_min >= self.last_min + threshold:
            self.baseline = self.current_min
            self.rounds = 0

    def share(self, acked: int) -> int:
        """What `acked` bytes make the window grow by in CSS."""
        total = acked + self.remainder
        self.remainder = total % CSS_GROWTH_DIVISOR
        return total // CSS_GROWTH_DIVISOR
