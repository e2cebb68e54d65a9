"""The impaired path that other tests stand on: it is as slow, long, narrow and lossy as it says, by seed."""

from __future__ import annotations

import dataclasses
import socket as std
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.ipv4 import Ipv4Header
from tests.system import paths
from tests.system.impair import ETHERNET, Fates, Impairment, Line, checksum, fragmentation_needed, fragments
from tests.system.namespace import lack
from tests.system.paths import KernelPath
from tests.waiting import until

MS = 1_000_000


def frame(size: int = 1514, *, number: int = 0, flags: int = 0, tos: int = 0) -> bytes:
    """An Ethernet frame of `size` bytes with an IPv4 packet whose payload starts with a number."""
    addresses = b"\x0a\0\0\x02", b"\x0a\0\0\x01"
    packet = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, tos, size - ETHERNET, 7, flags, 64, 17, 0, *addresses))
    struct.pack_into("!H", packet, 10, checksum(packet))
    payload = struct.pack("!I", number) + bytes(index & 0xFF for index in range(size - ETHERNET - 24))
    return bytes(12) + b"\x08\x00" + bytes(packet) + payload


# the calculator


def test_rate_and_delay() -> None:
    """1,250-byte frames at 10 Mbit/s take 1 ms each, one after the other, and then the delay."""
    line = Line(Impairment(rate_bps=10_000_000, delay_ms=20), "right")
    assert [line.take(frame(1250), 5)[0][0] for _ in range(3)] == [5 + 21 * MS, 5 + 22 * MS, 5 + 23 * MS]
    assert line.take(frame(1250), 100 * MS)[0][0] == 121 * MS  # an idle line starts at once


def test_the_queue_drops_its_tail() -> None:
    """10 Mbit/s and twice 20 ms: 50,000 bytes wait at most, the 41st of 1,250 finds no room."""
    line = Line(Impairment(rate_bps=10_000_000, delay_ms=20), "right")
    went = [bool(line.take(frame(1250), 0)) for _ in range(45)]
    assert went == [True] * 40 + [False] * 5
    assert line.counts.overflowed == 5
    assert line.take(frame(1250), MS)  # one has left since


def test_fates_follow_from_seed_and_number() -> None:
    """The same seed loses the same packets; another one, or the other direction, others; what 1 % loses, 3 % loses."""

    def lost(name: str = "right", **changes: Any) -> set[int]:
        fates = Fates(Impairment(**{"loss": 0.01, "seed": 7, **changes}), name)
        return {number for number in range(20_000) if fates.of(number)}

    assert lost() == lost()
    assert 140 < len(lost()) < 260  # 200 expected, 14 is one standard deviation
    assert lost() != lost(seed=8) and lost() != lost("left")
    assert lost() < lost(loss=0.03)
    assert lost(skip=1000) == {number for number in lost() if number >= 1000}
    with_more = Fates(Impairment(loss=0.01, dup=0.3, corrupt=0.3, reorder=0.3, seed=7), "right")
    assert {number for number in range(20_000) if with_more.of(number) & 1} == lost()


def test_arp_passes() -> None:
    """What is no IPv4 packet is delayed alone, and not numbered."""
    line = Line(Impairment(loss=1.0, delay_ms=3), "right")
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    assert line.take(arp, 0) == [(3 * MS, arp)]
    assert line.take(frame(), 0) == []
    assert dataclasses.asdict(line.counts) | {"packets": 1, "lost": 1, "others": 1} == dataclasses.asdict(line.counts)


def test_doubled_held_back_and_broken() -> None:
    """Two copies; one that is late by reorder_ms; one that differs in one bit beyond the Ethernet header."""
    assert len(Line(Impairment(dup=1.0), "right").take(frame(), 0)) == 2
    assert Line(Impairment(reorder=1.0, reorder_ms=4), "right").take(frame(), 0)[0][0] == 4 * MS
    ((_, broken),) = Line(Impairment(corrupt=1.0), "right").take(frame(), 0)
    wrong = int.from_bytes(broken, "big") ^ int.from_bytes(frame(), "big")
    assert wrong.bit_count() == 1 and broken[:ETHERNET] == frame()[:ETHERNET]


def test_a_narrow_path_answers_what_must_not_be_cut() -> None:
    """RFC 1191 4: with DF set the sender is told the MTU, or nothing; the header of what it sent is quoted."""
    line = Line(Impairment(mtu=1000, mtu_after=2000), "right")
    long = frame(1500, flags=0x4000)
    assert line.take(long, 0) == [(0, long)]  # below mtu_after
    assert line.take(long, 0) == []
    (error,) = line.errors
    ip = Ipv4Header.parse(error[ETHERNET:])
    assert (ip.src, ip.dst, ip.proto) == (b"\x0a\0\0\x01", b"\x0a\0\0\x02", 1)
    icmp = error[ETHERNET + 20 :]
    assert icmp[:2] == b"\x03\x04" and icmp[4:8] == struct.pack("!HH", 0, 1000) and checksum(icmp) == 0
    assert icmp[8:] == long[ETHERNET : ETHERNET + 548]
    assert error == fragmentation_needed(long, 1000)
    silent = Line(Impairment(mtu=1000, icmp=False), "right")
    assert silent.take(long, 0) == [] and silent.errors == []
    assert silent.counts.too_long == 1


@given(size=st.integers(200, 3000), mtu=st.integers(68, 1500))
def test_fragments_make_the_packet(size: int, mtu: int) -> None:
    """RFC 791 3.2: none is longer than the MTU, offsets are multiples of 8 and join, all but the last say that more
    follow, checksums hold; and together they are the payload."""
    whole = frame(size)
    payload = b""
    pieces = fragments(whole, mtu)
    for index, piece in enumerate(pieces):
        ip = piece[ETHERNET:]
        assert len(ip) <= mtu and checksum(ip[:20]) == 0
        total, _, flags = struct.unpack_from("!HHH", ip, 2)
        assert total == len(ip) and (flags & 0x1FFF) * 8 == len(payload)
        assert bool(flags & 0x2000) == (index < len(pieces) - 1)
        payload += ip[20:]
    assert payload == whole[ETHERNET + 20 :]


def test_a_long_queue_marks() -> None:
    """RFC 3168 5: ECN-capable packets that find more than `mark` bytes waiting get CE, the others pass; the header's
    checksum holds."""
    line = Line(Impairment(rate_bps=10_000_000, delay_ms=20, mark=2500), "right")
    marks = [line.take(frame(1250, tos=2), 0)[0][1][ETHERNET + 1] & 3 for _ in range(5)]
    assert marks == [2, 2, 2, 3, 3]
    ((_, plain),) = line.take(frame(1250), 0)
    assert plain[ETHERNET + 1] == 0
    ((_, marked),) = line.take(frame(1250, tos=1), 0)
    assert marked[ETHERNET + 1] & 3 == 3 and checksum(marked[ETHERNET : ETHERNET + 20]) == 0


# the program


@pytest.fixture(scope="module")
def path() -> Iterator[KernelPath]:
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    with KernelPath() as made:
        paths.round_trips(made, 1)  # ARP
        yield made


def arrivals(path: KernelPath, impairment: Impairment, count: int, *, pause: float = 0.0) -> list[int]:
    """The numbers of datagrams of 1,200 bytes, sent in a row, in the order in which they arrive."""
    path.impair(right=impairment)
    with path.left.socket(std.AF_INET, std.SOCK_DGRAM) as near, path.right.socket(std.AF_INET, std.SOCK_DGRAM) as far:
        far.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 4 << 20)
        far.bind((paths.RIGHT, 0))
        near.connect(far.getsockname())
        for number in range(count):
            near.send(struct.pack("!I", number) + bytes(1196))
            if pause and number % 10 == 9:
                time.sleep(pause)
        until(lambda: path.stats()["right"]["packets"] >= count, "the relay has seen all")
        did = path.stats()["right"]
        far.settimeout(60)
        due = count - did["lost"] - did["corrupted"] - did["overflowed"] + did["duplicated"]
        found = [struct.unpack_from("!I", far.recv(2048))[0] for _ in range(due)]
        far.settimeout(0.1)
        with pytest.raises(TimeoutError):
            far.recv(2048)
        return found


def test_order_is_kept(path: KernelPath) -> None:
    """At 50 Mbit/s and 5 ms a row of 500 datagrams arrives whole and in order."""
    assert arrivals(path, Impairment(rate_bps=50_000_000, delay_ms=5, queue=10**6), 500) == list(range(500))


def test_the_same_seed_loses_the_same_packets(path: KernelPath) -> None:
    """Twice the same datagrams arrive, and others with another seed; exactly those that Fates says are lost."""
    lossy = Impairment(loss=0.1, seed=5)
    first = arrivals(path, lossy, 500, pause=0.001)
    assert first == arrivals(path, lossy, 500, pause=0.001)
    fates = Fates(lossy, "right")
    assert first == [number for number in range(500) if not fates.of(number)]
    assert first != arrivals(path, dataclasses.replace(lossy, seed=6), 500, pause=0.001)


def test_reordered_and_doubled(path: KernelPath) -> None:
    """Nothing is missing, some come twice, some after later ones."""
    found = arrivals(path, Impairment(reorder=0.05, reorder_ms=3, dup=0.05), 500, pause=0.002)
    assert set(found) == set(range(500)) and len(found) > 500
    assert found != sorted(found)
    stats = path.stats()["right"]
    assert len(found) == 500 + stats["duplicated"] and stats["reordered"] > 0


def test_corrupted_packets_do_not_reach_the_socket(path: KernelPath) -> None:
    """The far kernel verifies checksums, as behind a cable: what was broken is not delivered."""
    found = arrivals(path, Impairment(corrupt=0.1), 500, pause=0.001)
    broken = path.stats()["right"]["corrupted"]
    assert broken > 0 and len(found) == 500 - broken


def test_the_delay_is_what_was_asked_for(path: KernelPath) -> None:
    """20 ms each way: no round trip takes less than 40 ms, and the quickest of some little more (the others say how
    busy the machine is)."""
    far_way = Impairment(delay_ms=20)
    trips: list[float] = []

    def quick() -> bool:
        trips.extend(paths.round_trips(path, 20, right=far_way, left=far_way))
        return min(trips) < 60.0

    until(quick, "a round trip of little more than 40 ms")
    assert min(trips) >= 40.0, trips


def test_the_rate_is_what_was_asked_for(path: KernelPath) -> None:
    """5 MB of TCP at 50 Mbit/s take no less than what their frames need."""
    size = 5_000_000
    path.impair(right=Impairment(rate_bps=50_000_000, delay_ms=2, queue=200_000), left=Impairment(delay_ms=2))
    with path.right.socket() as listener, path.left.socket() as sender:
        listener.bind((paths.RIGHT, 0))
        listener.listen()
        sender.settimeout(60)
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        with receiver:
            receiver.settimeout(60)
            start = time.monotonic()
            thread = threading.Thread(target=lambda: sender.sendall(bytes(size)), daemon=True)
            thread.start()
            taken = 0
            while taken < size:
                taken += len(receiver.recv(1 << 18))
            seconds = time.monotonic() - start
            thread.join(60)
    least = size * 1514 / 1448 * 8 / 50e6  # s: each 1,448 bytes go in a frame of 1,514
    assert seconds >= 0.95 * least, path.stats()
