"""The retransmission timeout of RFC 6298, in nanoseconds, and the smallest round trip of late. Knows no clock: it is
given samples and asked for the RTO."""

from __future__ import annotations

from dataclasses import dataclass

MS = 1_000_000  # nanoseconds

AFTER_SYN_LOSS = 3000 * MS  # RFC 6298 5.7: RTO for data if the SYN's timer had to fire
MIN_RTT_PERIOD = 150_000 * MS  # two of them are as long as Linux remembers the smallest RTT (tcp_min_rtt_wlen)


@dataclass(slots=True)
class Rto:
    """SRTT, RTTVAR and RTO.

    Deviates from RFC 6298 2.3 as Linux does (tcp_rtt_estimator, tcp_rto_min): the floor is below the variance term,
    RTO = SRTT + max(floor, 4 RTTVAR), not below the sum, so that a delayed ACK on a path of tiny RTTs does not meet
    an RTO of just that delay. It is never smaller than the RFC's with the same floor.
    """

    floor: int
    ceiling: int
    rto: int
    srtt: int = 0  # 0: no sample yet
    rttvar: int = 0
    min_rtt: int = 0  # of this period and the one before it: RFC 8985 6.2 step 1
    period_min: int = 0  # of this period alone
    period_end: int = 0  # instant
    samples: int = 0
    backoffs: int = 0  # timeouts in a row
    round_end: int = 0  # offset: a round trip is over once something beyond it is acknowledged
    in_round: int = 0  # samples in it so far
    expected: int = 1  # samples that a round trip has: as many as the one before had

    def sample_of_ack(self, rtt: int, una: int, nxt: int, now: int) -> None:
        """As `sample`, of an ACK up to offset `una` with `nxt` sent: one of many in a round trip, perhaps.

        RFC 7323 4.2: alpha and beta of RFC 6298 are meant for one sample a round trip; with more the memory must not be
        shorter. Its appendix G divides them by the number of samples to expect, which it takes to be one for two
        segments in flight; here it is what the last round trip had, since receivers with offload (ours and Linux)
        acknowledge many segments at once. A round trip with more than the last divides by what it has had so far.
        """
        if una > self.round_end:
            self.expected = self.in_round or 1
            self.in_round = 0
            self.round_end = nxt
        self.in_round += 1
        self.sample(rtt, now, self.expected if self.expected > self.in_round else self.in_round)

    def sample(self, rtt: int, now: int, share: int = 1) -> None:
        """Take a measurement made at `now`, one of `share` in a round trip. The caller keeps Karn's rule (RFC 6298 3):
        never of a segment sent twice."""
        if rtt <= 0:
            rtt = 1
        srtt = self.srtt
        if srtt:  # RFC 6298 2.3, alpha 1/8, beta 1/4
            delta = rtt - srtt
            self.rttvar += ((delta if delta > 0 else -delta) - self.rttvar) // (4 * share)
            self.srtt = srtt + delta // (8 * share)
        else:  # RFC 6298 2.2
            self.srtt = srtt = rtt
            self.rttvar = rtt // 2
            self.min_rtt = self.period_min = rtt
            self.period_end = now + MIN_RTT_PERIOD
        if now >= self.period_end:  # the path may have become longer since
            self.min_rtt = self.period_min if now < self.period_end + MIN_RTT_PERIOD else rtt
            self.period_min = rtt
            self.period_end = now + MIN_RTT_PERIOD
        self.period_min = min(self.period_min, rtt)
        self.min_rtt = min(self.min_rtt, rtt)
        self.samples += 1
        self.backoffs = 0
        self._compute()

    def _compute(self) -> None:
        var = 4 * self.rttvar
        rto = self.srtt + (var if var > self.floor else self.floor)
        self.rto = rto if rto < self.ceiling else self.ceiling

    def back_off(self) -> None:
        """The timer fired: RFC 6298 5.5. The doubled RTO stands until the next valid sample (Karn)."""
        self.backoffs += 1
        self.rto = min(self.rto * 2, self.ceiling)

    def revert(self) -> None:
        """The network, not congestion, was to blame for a timeout: take back one backoff. RFC 6069 4.1."""
        if not self.backoffs:
            return
        self.backoffs -= 1
        if self.srtt:
            self._compute()
            self.rto = min(self.rto << self.backoffs, self.ceiling)
        else:
            self.rto //= 2

    def after_syn_loss(self) -> None:
        """RFC 6298 5.7: the SYN was sent more than once, so its RTT is unknown; be careful with the first data."""
        self.backoffs = 0
        if not self.srtt:
            self.rto = min(AFTER_SYN_LOSS, self.ceiling)
