"""Floods at the device of a whole host that carries a transfer: it does not notice, and what they take is bounded."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from levelip.frames.packet import DeviceFrame
from levelip.wire.arp import ArpPacket
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ipv4 import FLAG_MF, Ipv4Header, Proto
from levelip.wire.tcp import ACK, RST, SYN
from tests.netsim.net import MS
from tests.netsim.tcp_apps import pattern, small_config
from tests.netsim.whole import MACS, A, B, WholeHost, network

SIZE = 500_000
EVERY = MS // 75
COUNT = 6000
STRANGER = bytes.fromhex("02aabbccddee")
BACKLOG = 16

Make = Callable[[random.Random, int, int], bytes]
"""Of chance, a count, and the port of ours that the transfer has."""


def address(number: int) -> bytes:
    """Of one of 250 strangers on the link."""
    return bytes((10, 0, 0, 3 + number % 250))


def packet(src: bytes, payload: bytes, proto: int, **header: int) -> bytes:
    """An Ethernet frame for us."""
    ip = Ipv4Header.build(src, A, proto=proto, payload_length=len(payload), **header).serialize(fill_checksum=True)
    return MACS[A] + STRANGER + b"\x08\x00" + ip + payload


def tcp(src: bytes, ports: tuple[int, int], seq: int, ack: int, flags: int) -> bytes:
    """A segment with a checksum that is right."""
    head = struct.pack(">HHIIHHHH", *ports, seq, ack, 5 << 12 | flags, 65_535, 0, 0)
    total = internet_checksum(head, pseudo_header_sum(src, A, Proto.TCP, len(head)))
    return packet(src, head[:16] + total.to_bytes(2, "big") + head[18:], Proto.TCP)


def fragments(rng: random.Random, number: int, _: int) -> bytes:
    """A piece of a datagram of which no other comes."""
    return packet(
        address(number), bytes(1400), 17, ident=number & 0xFFFF, frag_offset=rng.randrange(1, 5000), flags=FLAG_MF
    )


def arp(_: random.Random, number: int, __: int) -> bytes:
    """A stranger that asks for us."""
    asked = ArpPacket.request(sha=STRANGER, spa=bytes((10, 0, 0, 3 + number % 250)), tpa=A)
    return b"\xff" * 6 + STRANGER + b"\x08\x06" + asked.serialize()


def syns(rng: random.Random, number: int, _: int) -> bytes:
    """A connection that nobody wants."""
    return tcp(address(number), (rng.randrange(1024, 65_536), 80), rng.getrandbits(32), 0, SYN)


def acks(rng: random.Random, number: int, _: int) -> bytes:
    """For connections that are not there: each is worth an RST."""
    return tcp(address(number), (rng.randrange(1024, 65_536), 80), rng.getrandbits(32), rng.getrandbits(32), ACK)


def blind(rng: random.Random, _: int, port: int) -> bytes:
    """As if from the peer, in the midst of the transfer: RSTs, SYNs and ACKs with any number."""
    return tcp(B, (80, port), rng.getrandbits(32), rng.getrandbits(32), rng.choice([RST, SYN, ACK]))


FLOODS: dict[str, tuple[Make, ...]] = {
    "fragments": (fragments,), "arp": (arp,), "syn": (syns,), "ack": (acks,), "blind": (blind,),
    "all": (fragments, arp, syns, acks, blind),
}  # fmt: skip


def felt(host: WholeHost, name: str) -> int:
    """How often the flood came to what it is meant for."""
    layers = {"fragments": host.ip, "arp": host.link}
    counter = {
        "fragments": "fragment.in", "arp": "arp_replies_sent", "syn": "syn_cookies_sent", "ack": "resets_out",
        "blind": "answers_withheld", "all": "resets_out",
    }[name]  # fmt: skip
    return int(layers.get(name, host.core).counters[counter])


def bounded(host: WholeHost, now: int) -> None:
    """What strangers can take of each layer."""
    assert host.ip.control(1, "fragments", {}, now)["memory"] <= 4 << 20
    assert len(host.link.control(1, "neigh", {}, now)["neighbours"]) <= 257  # 250, the peer, and no more
    listeners = [row for row in host.core.control(1, "ss", {}, now)["sockets"] if row["state"] == "LISTEN"]
    assert listeners[0]["half_open"] <= BACKLOG


@pytest.mark.parametrize("name", FLOODS)
def test_a_transfer_beside_a_flood(name: str) -> None:
    """6,000 frames in the 80 ms that 500 KB each way take: every byte arrives, no later, and nothing is sent again."""
    net, a, b, _ = network(a=small_config(), b=small_config(), seed=5)
    a.listen(80, backlog=BACKLOG)
    b.listen(80)
    b.reply = pattern(1, SIZE)
    sock = a.connect(B, 80, pattern(2, SIZE), eof=True)
    assert net.run(lambda: bool(b.accepted) and bool(b.accepted[0].told), seconds=5)
    rng = random.Random(7)
    for number in range(COUNT):
        make = FLOODS[name][number % len(FLOODS[name])]
        frame = DeviceFrame(number, [], make(rng, number, sock.port), b"", bytes(10))
        net.later(net.now + number * EVERY, a.arrive, frame)
    start = net.now
    assert net.run(lambda: sock.eof and b.accepted[0].eof, seconds=60)
    assert net.now - start < 90 * MS
    bounded(a, net.now)
    net.run(seconds=0.5)
    bounded(a, net.now)
    assert felt(a, name) > COUNT // 10
    assert bytes(b.accepted[0].received) == sock.to_send and bytes(sock.received) == b.reply
    assert a.core.counters["retransmissions"] == b.core.counters["retransmissions"] == 0
