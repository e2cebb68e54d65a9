"""How fast the network delivers what we send: the delivery rate of tcp_info; and the rate at which Linux would pace.

Each ACK of something new gives a sample: how many packets have arrived since the newest of those that it tells of was
sent, and in what time. For that, whatever is sent remembers how things stood (`Mark`): how many packets had arrived,
when the last of them did, and when that one had been sent.

    sent   --X-----------------P-------------------------->     send interval: from X to P
    ACKs   --------------X----------------------P--------->     ACK interval: from X's to P's

    X is the packet whose ACK was the last before P went: sent at `first_at`, acknowledged at `delivered_at`, when
    `delivered` packets had arrived, 10 for example. With P's ACK they are 30: 20 packets in the longer of the two.

The longer one counts, as ACKs that come in bursts make the network look faster than it is, and so do packets that went
out in one. Where nothing was in flight when P went, both instants are that of P. A sample of less than the smallest RTT
is not taken. What was sent while the application had too little to send is marked, until all of that has arrived: such
a sample says how fast the application is, and replaces only a lower one.

draft-ietf-ccwg-bbr 4.1 (before: draft-cheng-iccrg-delivery-rate-estimation); Linux net/ipv4/tcp_rate.c. Nothing is
decided by these figures.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000_000  # ns
UNLIMITED = 0xFFFF_FFFF_FFFF_FFFF  # Linux's sk_pacing_rate where nothing has set it
SLOW_START_RATIO = 200  # percent: Linux tcp_pacing_ss_ratio
AVOIDANCE_RATIO = 120  # percent: tcp_pacing_ca_ratio
LEAST_SRTT = 125  # ns: Linux keeps SRTT in units of 1/8 µs

Mark = tuple[int, int, int, bool]
"""`delivered`, `delivered_at`, `first_at`, and whether the application was the limit, when something was sent."""


@dataclass(slots=True)
class Rate:
    """One connection's. Instants and times in ns, -1: none yet."""

    mark: Mark | None = None  # of what is sent now; None before anything but a SYN was
    first_at: int = -1  # when what arrived last was sent
    delivered: int = 0  # packets that have arrived, by the last ACK that told of any
    sent: int = 0  # packets that were sent for the first time, as they are cut now: delivered or under way
    limited: int = 0  # the application is the limit, until more packets than this have arrived; 0: it is not
    reneged: bool = False  # the peer has thrown away what it had named: what it acknowledges now may be from before
    # of the ACK that is being taken, what was sent last
    newest: Mark | None = None
    newest_at: int = -1
    newest_end: int = -1
    # the last sample that counts
    packets: int = 0
    interval: int = 0
    app_limited: bool = True  # as Linux: until there is another

    def begin(self, at: int, delivered: int) -> None:
        """Something is sent while nothing is in flight: time counts from now on (tcp_rate_skb_sent)."""
        self.first_at = at
        self.delivered = delivered
        self.mark = (delivered, at, at, self.limited > 0)

    def arrived(self, mark: Mark | None, sent_at: int, end: int) -> None:
        """The ACK at hand tells, for the first time, of packets sent at `sent_at`, the last of them up to offset `end`
        (tcp_rate_skb_delivered)."""
        if mark is None:
            return
        if self.newest is None or sent_at > self.newest_at or (sent_at == self.newest_at and end > self.newest_end):
            self.newest = mark
            self.newest_at = sent_at
            self.newest_end = end

    def acked(self, delivered: int, min_rtt: int, now: int) -> None:
        """An ACK was taken, and what it tells of was handed to `arrived`: `delivered` packets have arrived by now;
        `min_rtt` 0: not known (tcp_rate_gen)."""
        if delivered == self.delivered:
            return
        self.delivered = delivered
        limited = self.limited
        if limited and delivered > limited:
            self.limited = limited = 0
        newest = self.newest
        if newest is not None:
            before, since, first, app_limited = newest
            self.newest = None
            self.first_at = at = self.newest_at
            interval = now - since
            sending = at - first
            if sending > interval:  # noqa: PLR1730 - max() takes as long as all else here
                interval = sending
            if interval >= min_rtt > 0 and not self.reneged:
                packets = delivered - before
                if not app_limited or packets * self.interval >= self.packets * interval:
                    self.packets = packets
                    self.interval = interval
                    self.app_limited = app_limited
        self.mark = (delivered, now, self.first_at, limited > 0)

    def per_second(self, mss: int) -> int:
        """The delivery rate in bytes a second, 0 while there is none (tcp_compute_delivery_rate)."""
        return self.packets * mss * SECOND // self.interval if self.interval else 0


def pacing_rate(mss: int, cwnd: int, ssthresh: int, packets_out: int, srtt: int) -> int:
    """Bytes a second: somewhat more than a window each round trip, so that it can grow (Linux tcp_update_pacing_rate).

    `cwnd` and `ssthresh` in bytes, `srtt` in ns. Linux works it out at each ACK, and without an RTT (0) leaves the
    division out.
    """
    ratio = SLOW_START_RATIO if cwnd < ssthresh // 2 else AVOIDANCE_RATIO
    window = max(cwnd // mss, packets_out, 1)
    return mss * window * ratio * SECOND // (100 * max(srtt, LEAST_SRTT))
