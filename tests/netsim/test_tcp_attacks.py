"""A transfer while somebody who knows the four-tuple, but no number, sends what he can: every byte arrives, in time."""

from __future__ import annotations

import random
import struct

import pytest

from levelip.frames.packet import Checksum, Segment
from levelip.wire.tcp import ACK, PSH, RST, SYN, URG
from tests.netsim.net import MS, SECOND, Impairment
from tests.netsim.tcp_apps import pair, pattern

EVERY = MS // 10
FORGED = 8000


@pytest.mark.rfc("RFC 5961 3.2", "RFC 5961 4.2", "RFC 5961 5.2", "RFC 5961 7", "RFC 7323 5.3")
def test_a_transfer_under_8000_forged_segments() -> None:
    """300 KB each way in the 0.8 s in which forged RSTs, SYNs, ACKs and text come 100 µs apart, at both ends.

    RSTs and SYNs have random numbers and no timestamps, text has them: none is taken, the answers stay within the limit
    of a socket (500 ms: two or three each), and the connection needs no retransmission."""
    net, a, b, _, _ = pair(Impairment(delay=5 * MS), seed=9)
    b.listen(80)
    b.reply = pattern(1, 300_000)
    sock = a.connect(b.address, 80, pattern(2, 300_000), eof=True)
    assert net.run(lambda: bool(b.accepted) and bool(b.accepted[0].told), seconds=5)
    port = b.accepted[0].peer[1]
    rng = random.Random(4)
    for number in range(FORGED):
        to_b = number % 2 == 0
        flags = rng.choice([RST, RST | ACK, SYN, SYN | ACK, ACK, ACK | PSH, ACK | PSH | URG])
        options = struct.pack(">III", 0x0101080A, rng.getrandbits(32), rng.getrandbits(32))
        ports = (port, 80) if to_b else (80, port)
        head = struct.pack(
            ">HHIIHHHH", *ports, rng.getrandbits(32), rng.getrandbits(32), 32 << 10 | flags, rng.getrandbits(16), 0, 1
        )
        source, target = (a, b) if to_b else (b, a)
        data = b"evil" if flags & PSH else b""
        forged = Segment(number, [], False, net.now, 0, source.address, target.address, 6, 64, 0, head + options, data,
                         int(Checksum.VERIFIED), 0)  # fmt: skip
        net.later(net.now + number * EVERY, target.core.receive, forged)
    start = net.now
    assert net.run(lambda: sock.eof and b.accepted[0].eof, seconds=60)
    took = (net.now - start) / SECOND
    net.run(seconds=1)
    assert bytes(b.accepted[0].received) == sock.to_send and bytes(sock.received) == b.reply
    assert sock.error is None and b.accepted[0].error is None
    assert took < 1
    for host in (a, b):
        assert host.core.counters["answers_withheld"] > 1000
        assert host.core.counters["challenge_acks"] <= 3
