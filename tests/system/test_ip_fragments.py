"""Fragments between the stack and the kernel: both cut, both put together, in order and out of it."""

from __future__ import annotations

import contextlib
import random
import socket as std
import time
from itertools import pairwise

import pytest

from levelip.wire.checksum import internet_checksum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import FLAG_MF, Ipv4Header, Proto
from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import PATIENCE_S
from tests.waiting import until


def reply_to(raw: std.socket, ident: int) -> IcmpMessage:
    """The echo reply with that identifier, within bounds."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        packet = raw.recv(70_000)
        message = IcmpMessage.parse(packet, (packet[0] & 15) * 4)
        if message.type == 0 and message.ident == ident:
            assert internet_checksum(packet[(packet[0] & 15) * 4 :]) == 0
            return message
    raise AssertionError("no reply")


@pytest.mark.rfc("RFC 791 3.2", "RFC 1122 3.3.2", "RFC 1122 3.3.3")
@pytest.mark.parametrize("size", [1473, 8000, 20_000, 65_507])
def test_the_kernel_pings_us_in_fragments(shared_stack: Stack, raw: std.socket, size: int) -> None:
    """The kernel cuts the request, we put it together and cut the reply, the kernel puts that together: same bytes."""
    data = streams.stream(size, size)
    request = IcmpMessage.echo_request(ident=size, sequence=1, payload=data)
    raw.sendto(request.serialize(fill_checksum=True), (shared_stack.address, 0))
    assert reply_to(raw, size).payload == data


def test_lvlip_ping_in_fragments(shared_stack: Stack) -> None:
    """`lvlip ping -s 20000` is answered by the kernel; with -M do it is refused with the MTU."""
    done = shared_stack.lvlip("ping", "-c", "3", "-i", "0.05", "-W", "50", "-s", "20000", shared_stack.host)
    assert "3 packets transmitted, 3 received, 0% packet loss" in done.stdout
    assert "20008 bytes from" in done.stdout and "wrong data" not in done.stdout
    done = shared_stack.lvlip("ping", "-c", "1", "-s", "20000", "-M", "do", shared_stack.host, check=False)
    assert done.returncode == 2 and "message too long, mtu: 1500" in done.stderr


@pytest.mark.rfc("RFC 791 3.2", "RFC 815 3", "RFC 5722 4")
@pytest.mark.parametrize("seed", range(5))
def test_fragments_out_of_order_and_twice(shared_stack: Stack, host: Namespace, raw: std.socket, seed: int) -> None:
    """Hand-made fragments through the kernel's raw socket, shuffled and repeated: one reply, with all the data."""
    rng = random.Random(seed)
    data = rng.randbytes(9000)
    message = IcmpMessage.echo_request(ident=1000 + seed, sequence=1, payload=data).serialize(fill_checksum=True)
    edges = sorted({0, len(message), *(8 * rng.randrange(1, len(message) // 8) for _ in range(12))})
    pieces = [(a, b) for start, stop in pairwise(edges) for a, b in _within(start, stop)]
    rng.shuffle(pieces)
    last = pieces.pop()
    sent = [*pieces, *rng.sample(pieces, 3)]
    rng.shuffle(sent)
    with host.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_RAW) as sender:
        for start, stop in [*sent, last]:
            header = Ipv4Header.build(
                std.inet_aton(shared_stack.host), std.inet_aton(shared_stack.address), proto=Proto.ICMP,
                payload_length=stop - start, ident=4000 + seed, frag_offset=start // 8,
                flags=FLAG_MF if stop < len(message) else 0,
            )  # fmt: skip
            sender.sendto(header.serialize(fill_checksum=True) + message[start:stop], (shared_stack.address, 0))
    assert reply_to(raw, 1000 + seed).payload == data
    assert shared_stack.counters("ip").get("drop.fragment_overlap", 0) == 0


def _within(start: int, stop: int) -> list[tuple[int, int]]:
    """Pieces that fit into the device's MTU."""
    return [(a, min(a + 1480, stop)) for a in range(start, stop, 1480)]


def _wait_for_the_flood(stack: Stack, raw: std.socket) -> None:
    """Until a ping goes through: the device's queue, full of the flood, loses what comes next, and no test of ours."""
    raw.settimeout(0.2)

    def answered() -> bool:
        request = IcmpMessage.echo_request(ident=98, sequence=1, payload=b"")
        raw.sendto(request.serialize(fill_checksum=True), (stack.address, 0))
        with contextlib.suppress(TimeoutError):
            return reply_to(raw, 98).type == 0
        return False

    until(answered, "a ping goes through")
    raw.settimeout(PATIENCE_S)


@pytest.mark.rfc("RFC 1122 3.3.2")
def test_a_flood_of_fragments(shared_stack: Stack, host: Namespace, raw: std.socket) -> None:
    """5,000 datagrams that never complete: ip stays within its bound, and a ping in fragments still is answered."""
    source, own = std.inet_aton(shared_stack.host), std.inet_aton(shared_stack.address)
    with host.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_RAW) as sender:
        for number in range(5000):
            header = Ipv4Header.build(
                source, own, proto=253, payload_length=1000, ident=number, frag_offset=125, flags=FLAG_MF
            )
            sender.sendto(header.serialize(fill_checksum=True) + bytes(1000), (shared_stack.address, 0))
    facts = shared_stack.ask("ip", "fragments")
    assert facts["memory"] <= 4_194_304
    _wait_for_the_flood(shared_stack, raw)
    request = IcmpMessage.echo_request(ident=99, sequence=1, payload=bytes(5000))
    raw.sendto(request.serialize(fill_checksum=True), (shared_stack.address, 0))
    assert len(reply_to(raw, 99).payload) == 5000


@pytest.mark.rfc("RFC 792 time-exceeded", "RFC 1122 3.3.2")
@pytest.mark.parametrize("_shared", [{"settings": {"ip.fragment_time_ms": 15_000}}], indirect=True, scope="module")
def test_the_kernel_hears_of_time_exceeded(shared_stack: Stack, host: Namespace, raw: std.socket) -> None:
    """Fragment zero alone: after ip.fragment_time_ms the kernel's side gets "fragment reassembly time exceeded"."""
    header = Ipv4Header.build(
        std.inet_aton(shared_stack.host), std.inet_aton(shared_stack.address), proto=253, payload_length=64,
        ident=7, flags=FLAG_MF,
    )  # fmt: skip
    with host.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_RAW) as sender:
        sender.sendto(header.serialize(fill_checksum=True) + bytes(64), (shared_stack.address, 0))
    raw.settimeout(20 + PATIENCE_S)
    deadline = time.monotonic() + 20 + PATIENCE_S
    while time.monotonic() < deadline:
        message = IcmpMessage.parse(raw.recv(2000), 20)
        if (message.type, message.code) == (11, 1):
            assert message.payload[4:6] == (7).to_bytes(2, "big")
            return
    raise AssertionError("not told")
