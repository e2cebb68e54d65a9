"""Explicit congestion notification, RFC 3168 6.1: what both ends agreed on, what was marked, what is to be said of it.

    we                        a router                     the peer
     | data, ECT(0)  ------------>  data, CE  ---------------> |   `echo`: ECE on every segment of his
     | <-------------------------------------------  ACK, ECE  |
     |   our window is reduced, once a window (`reduced`)      |
     | data, CWR  -------------------------------------------> |   no ECE any more

Both directions are in one `Ecn`; what is done about a mark is in `marks`. `tcp.ecn` has Linux's values (tcp_ecn).
"""

from __future__ import annotations

from dataclasses import dataclass

from levelip.frames.packet import Segment
from levelip.wire.tcp import CWR, ECE

OFF, ON, ON_REQUEST = 0, 1, 2  # tcp.ecn: never; ask and answer; answer only
ECT_0, CE = 2, 3  # the low bits of tos, RFC 3168 5
FIELD = 3
_FLAGS_BYTE = 13  # offset in the TCP header


@dataclass(slots=True)
class Ecn:
    """One connection's. Offsets are of our stream."""

    on: bool = False  # both want it
    asking: bool = False  # our SYN asks
    echo: bool = False  # a mark came: ECE until the peer says CWR (6.1.3)
    cwr: bool = False  # our window was reduced: the next new data says so (6.1.2)
    until: int = -1  # SND.NXT at the last reduction: marks of what was sent before it are old news
    ece: bool = False  # the segment at hand has ECE
    marks_in: int = 0  # packets that came marked
    delivered: int = 0  # packets that arrived by ACKs with ECE: tcpi_delivered_ce
    echoes_in: int = 0  # segments that came with ECE
    reductions: int = 0  # of our window, for a mark

    # the handshake, 6.1.1

    def syn_flags(self, *, again: bool, fallback: bool) -> int:
        """Flags of our SYN. 6.1.1.1: sent `again` it does not ask, lest a path that drops such SYNs keeps us out
        (Linux tcp_ecn_fallback)."""
        if again and fallback:
            self.asking = False
        return ECE | CWR if self.asking else 0

    def syn_ack_flags(self) -> int:
        """Flags of our SYN-ACK."""
        return ECE if self.on else 0

    def answered(self, flags: int) -> None:
        """A SYN-ACK, or the SYN of a simultaneous open, answers our SYN; the first says yes by ECE without CWR."""
        said = flags & (ECE | CWR)
        self.on = self.asking and (said == ECE or (said == ECE | CWR and not flags & 0x10))

    def asked(self, flags: int, tos: int, mode: int) -> None:
        """A SYN came to a listener. One that is itself ECT is not of a peer that keeps to 6.1.1 (Linux
        tcp_ecn_create_request)."""
        self.on = mode != OFF and flags & (ECE | CWR) == ECE | CWR and not tos & FIELD

    # as receiver, 6.1.3

    def received(self, tos: int, flags: int, packets: int) -> bool:
        """A segment with data came. Whether the ACK shall go at once, as its news is (Linux tcp_ecn_check_ce)."""
        told = self.echo
        if flags & CWR:
            self.echo = False
        if tos & FIELD == CE:
            self.echo = True
            self.marks_in += packets
        return self.echo is not told or bool(flags & CWR)

    # as sender, 6.1.2

    def must_reduce(self, ack: int) -> bool:
        """ECE came on an acknowledgment of all below `ack`: once a window of data."""
        self.echoes_in += 1
        return ack > self.until

    def reduced(self, nxt: int) -> None:
        """Our window was reduced, for whatever reason, while SND.NXT was `nxt`."""
        self.until = nxt
        self.cwr = self.on

    def new_data(self, segment: Segment) -> Segment:
        """What goes out for the first time with data may be marked (6.1.4 not pure ACKs, 6.1.5 not retransmissions,
        6.1.6 not probes); the first after a reduction says CWR. The device keeps that to a super-segment's first
        packet."""
        segment.tos = segment.tos & ~FIELD | ECT_0
        if self.cwr:
            self.cwr = False
            head = bytearray(segment.head)
            head[_FLAGS_BYTE] |= CWR
            segment.head = bytes(head)
        return segment
