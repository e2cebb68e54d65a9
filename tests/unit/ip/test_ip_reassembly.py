"""Fragments from outside: in any order to one datagram, or refused for a reason, within bounds of time and memory."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ip_host import DIRECTED, MS, OWN, PEER, SECOND, TCP_HEAD, Host, icmp_packet, packet, read_icmp

from layers.ip.reassembly import DATAGRAM_COST, FRAGMENT_COST
from levelip.frames.packet import BROADCAST, Checksum, Packet, Segment
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, Ipv4Header, Proto

DATA = TCP_HEAD + bytes(i * 7 & 255 for i in range(80))  # 100 bytes: twelve units of 8 and a rest of 4
CE, ECT0, NOT_ECT = 3, 2, 0


def piece(start: int, stop: int, data: bytes = DATA, *, more: bool | None = None, id: int = 0, **fields: int) -> Packet:
    """Bytes `start` to `stop` of a datagram; the last one's MF is 0 unless told otherwise."""
    more = stop < len(data) if more is None else more
    flags = (FLAG_MF if more else 0) | fields.pop("flags", 0)
    options = {"ident": 9, "proto": Proto.TCP, **fields}
    return packet(data[start:stop], frag_offset=start // 8, flags=flags, id=id or start + 1, **options)  # type: ignore[arg-type]


def whole(host: Host, *pieces: Packet) -> Segment:
    """The one segment that the last of `pieces` completes; the others lead to nothing."""
    for early in pieces[:-1]:
        assert host.feed(early) == []
    return host.delivered(pieces[-1])


def data_of(got: Segment) -> bytes:
    assert isinstance(got.payload, bytes)
    return got.head + got.payload


@pytest.mark.rfc(
    "RFC 1122 3.2.1.4-1", "RFC 1122 3.3.2-1", "RFC 1122 3.3.2-2", "RFC 791 3.2-5", "RFC 815 3-1", "RFC 791 3.1-2",
)  # fmt: skip
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_any_order(host: Host, order: tuple[int, int, int]) -> None:
    """Three fragments make their datagram in whatever order they come; the transport verifies its checksum."""
    pieces = [piece(0, 40, ttl=9), piece(40, 80, ttl=8), piece(80, 100, ttl=7)]
    got = whole(host, *[pieces[i] for i in order])
    assert data_of(got) == DATA
    assert (got.src, got.dst, got.proto, got.ttl, got.checksum) == (PEER, OWN, Proto.TCP, 9, Checksum.UNVERIFIED)
    assert got.causes == [pieces[i].id for i in order]
    assert got.traced and got.ingress == 1234 and got.gso_size == 0 and not got.dont_fragment
    assert host.core.counters["fragment.in"] == 3 and host.core.counters["fragment.reassembled"] == 1
    assert host.core.next_timer() is None


@pytest.mark.rfc("RFC 791 3.2-4")
def test_datagrams_are_told_apart(host: Host) -> None:
    """Source, destination, protocol and ident together say which datagram a fragment belongs to."""
    start = [
        piece(0, 40, ident=9), piece(0, 40, ident=10), packet(DATA[:40], flags=1, ident=9, src=bytes((10, 0, 0, 3))),
        packet(DATA[:40], flags=1, ident=9, dst=DIRECTED), packet(DATA[:40], flags=1, ident=9, proto=132),
    ]  # fmt: skip
    for first in start:
        assert host.feed(first) == []
    assert data_of(host.delivered(piece(40, 100, ident=10))) == DATA
    assert host.core.control(1, "fragments", {}, host.now)["datagrams"] == 4
    got = host.delivered(packet(DATA[40:], frag_offset=5, ident=9, dst=DIRECTED))
    assert data_of(got) == DATA and got.flags == BROADCAST


@pytest.mark.rfc("RFC 1122 3.2.2.6", "RFC 1122 3.3.2-1", "RFC 1122 3.3.3-2")
def test_a_large_echo_is_answered_in_fragments(host: Host) -> None:
    """A request of 20,000 bytes comes in fragments, and its reply goes out in fragments that make up the same data."""
    request = IcmpMessage.echo_request(ident=3, sequence=4, payload=random.Random(1).randbytes(20_000))
    data = request.serialize(fill_checksum=True)
    out = []
    for start in range(0, len(data), 1480):
        stop = min(start + 1480, len(data))
        out = host.feed(piece(start, stop, data, proto=Proto.ICMP))
    headers = [Ipv4Header.parse(frame.head) for _, frame in out]
    assert [header.frag_offset * 8 for header in headers] == list(range(0, len(data), 1480))
    assert len({header.ident for header in headers}) == 1
    reply = IcmpMessage.parse(b"".join(frame.head[20:] + frame.payload for _, frame in out))
    assert reply.checksum_ok and reply.type == icmp.ECHO_REPLY and reply.payload == request.payload


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(min_size=21, max_size=3000),
    cuts=st.sets(st.integers(1, 374), max_size=30),
    seed=st.integers(0, 1 << 32),
    repeats=st.integers(0, 10),
)
@pytest.mark.rfc("RFC 791 3.2-5", "RFC 815 3-1")
def test_random_cuts_order_and_repeats(data: bytes, cuts: set[int], seed: int, repeats: int) -> None:
    """However a datagram is cut at units of 8 bytes, shuffled and repeated: it is whole exactly once, and the same."""
    rng = random.Random(seed)
    edges = [0, *sorted(cut * 8 for cut in cuts if cut * 8 < len(data)), len(data)]
    pieces = [piece(a, b, data, id=a + 1) for a, b in pairwise(edges)]
    if len(pieces) == 1:
        return
    rng.shuffle(pieces)
    last = pieces.pop()
    for _ in range(repeats):
        pieces.insert(rng.randrange(len(pieces) + 1), rng.choice(pieces))
    host = Host()
    assert data_of(whole(host, *pieces, last)) == data


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 13), st.booleans(), st.booleans()), max_size=25))
@pytest.mark.rfc("RFC 5722 4-1")
def test_what_is_delivered_is_the_original(pieces: list[tuple[int, int, bool, bool]]) -> None:
    """Of fragments that overlap, contradict each other and repeat, nothing is ever put together but the original."""
    host = Host()
    evil = bytes(100)
    got = []
    for unit, units, good, last in pieces:
        start = unit * 8
        stop = min(start + units * 8, 100)
        out = host.feed(piece(start, stop, DATA if good else evil, more=not last if start else True))
        got += [data_of(frame) for port, frame in out if port == "tcp"]
    state = host.core.snapshot()
    for partial in state["partials"]:
        ranges = [(each[0], each[1]) for each in partial["pieces"]]
        assert all(a[1] <= b[0] for a, b in pairwise(ranges))
        assert partial["have"] == sum(b - a for a, b in ranges)
    for data in got:  # each byte is from one fragment alone; none was overwritten by another
        assert all(byte in (DATA[i], evil[i]) for i, byte in enumerate(data))


@pytest.mark.rfc("RFC 5722 4-1")
@pytest.mark.parametrize(
    ("start", "stop", "spoil"), [(32, 72, 0), (40, 72, 0), (48, 80, 0), (0, 96, 0), (40, 80, 1), (8, 48, 0)]
)
def test_overlap_refuses_all_of_it(host: Host, start: int, stop: int, spoil: int) -> None:
    """RFC 5722 4: the datagram is discarded in silence, with what still comes of it; the next one is taken."""
    host.feed(piece(0, 40))
    host.feed(piece(40, 80))
    data = DATA[:50] + bytes((DATA[50] ^ spoil,)) + DATA[51:]
    host.dropped(piece(start, stop, data, more=True), reasons.FRAGMENT_OVERLAP)
    host.dropped(piece(80, 100), reasons.FRAGMENT_OF_REFUSED)
    host.dropped(piece(0, 40), reasons.FRAGMENT_OF_REFUSED)
    assert data_of(whole(host, piece(0, 40, ident=10), piece(40, 100, ident=10))) == DATA
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    assert host.flush() == []  # silently: no time exceeded, either
    assert data_of(whole(host, piece(0, 40), piece(40, 100))) == DATA


@pytest.mark.rfc("RFC 791 3.2-5")
def test_duplicates_do_no_harm(host: Host) -> None:
    """The network may repeat a packet: an exact copy is dropped, and the datagram completes ."""
    host.feed(piece(0, 40))
    host.dropped(piece(0, 40), reasons.FRAGMENT_DUPLICATE)
    host.feed(piece(80, 100))
    host.dropped(piece(80, 100), reasons.FRAGMENT_DUPLICATE)
    assert data_of(host.delivered(piece(40, 80))) == DATA


@pytest.mark.rfc("RFC 791 3.2")
@pytest.mark.parametrize(
    "bad", [piece(0, 0, more=True), piece(0, 41, more=True), piece(40, 47, more=True), piece(40, 40, more=False)]
)
def test_bad_lengths(host: Host, bad: Packet) -> None:
    """All fragments but the last hold whole units of 8 bytes, and none is empty."""
    host.dropped(bad, reasons.FRAGMENT_LENGTH)
    assert host.core.control(1, "fragments", {}, host.now)["datagrams"] == 0


@pytest.mark.rfc("RFC 791 3.2", "RFC 1122 3.3.2-3")
def test_no_datagram_beyond_65535(host: Host) -> None:
    """A fragment that ends beyond what a total length can say ("ping of death"), and options that make it so."""
    host.dropped(packet(bytes(16), frag_offset=8190, ident=1), reasons.FRAGMENT_BEYOND)
    host = Host()
    data = random.Random(2).randbytes(65_515)  # with 20 bytes of header exactly what fits
    edges = [*range(0, 65_515, 13_000), 65_515]
    pieces = [piece(a, b, data) for a, b in pairwise(edges)]
    assert data_of(whole(host, *pieces)) == data
    for rest in pieces[1:]:
        host.feed(rest)
    host.dropped(piece(0, 13_000, data, options=bytes(4)), reasons.FRAGMENT_BEYOND)  # type: ignore[arg-type]


@pytest.mark.rfc("RFC 791 3.2", "RFC 815 5-1")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (piece(80, 100), piece(40, 80, more=False)),
        (piece(40, 80, more=False), piece(80, 100)),
        (piece(40, 80, more=False), piece(80, 88, more=True)),
        (piece(80, 88, more=True), piece(40, 80, more=False)),
    ],
)
def test_two_ends(host: Host, first: Packet, second: Packet) -> None:
    """Fragments that tell different lengths of their datagram are of no honest sender: all is refused."""
    host.feed(first)
    host.dropped(second, reasons.FRAGMENT_END)
    host.dropped(piece(0, 40), reasons.FRAGMENT_OF_REFUSED)


def test_too_many_fragments() -> None:
    """A datagram in more pieces than ip.fragments_per_datagram is refused."""
    host = Host(fragments_per_datagram=3)
    for start in (0, 8, 16):
        host.feed(piece(start, start + 8))
    host.dropped(piece(24, 32), reasons.FRAGMENT_COUNT)
    host.dropped(piece(32, 100), reasons.FRAGMENT_OF_REFUSED)


@pytest.mark.rfc(
    "RFC 1122 3.2.2.4", "RFC 792 time-exceeded", "RFC 1122 3.3.2-5", "RFC 791 3.2-6", "RFC 792 4-1", "RFC 815 7-1",
)  # fmt: skip
def test_time_is_over(host: Host) -> None:
    """30 s after the first fragment came, and no nanosecond before: dropped, and its sender is told what was lost."""
    host.feed(piece(0, 40, tos=0x10))
    host.now += 10 * SECOND
    host.feed(piece(80, 100))
    assert host.core.next_timer() == 31 * SECOND  # it came at 1 s
    host.core.handle_timer(31 * SECOND - 1)
    assert host.flush() == [] and host.core.events() == []
    host.now = 31 * SECOND
    host.core.handle_timer(host.now)
    [(port, out)] = host.flush()
    header, message = read_icmp(out)
    assert port == "link" and (message.type, message.code) == (icmp.TIME_EXCEEDED, icmp.EXC_FRAGTIME)
    assert header.dst == PEER and message.payload[20:] == DATA[:40] and message.payload[1] == 0x10
    assert host.core.counters[reasons.FRAGMENT_TIME.counter] == 1
    assert host.core.next_timer() is None and host.core.control(1, "fragments", {}, host.now)["memory"] == 0
    assert out.causes == [81]


@pytest.mark.rfc("RFC 792 time-exceeded", "RFC 792 4-2", "RFC 1122 3.2.2-6")
@pytest.mark.parametrize(
    "only", [piece(40, 80), packet(DATA[:40], flags=FLAG_MF, dst=DIRECTED, link_flags=BROADCAST),
             icmp_packet(IcmpMessage.dest_unreachable(1, DATA[:40]), flags=FLAG_MF)]
)  # fmt: skip
def test_when_nobody_is_told(host: Host, only: Packet) -> None:
    """RFC 792: without fragment zero nothing is sent; RFC 1122 3.2.2: nor about broadcasts and ICMP errors."""
    host.feed(only)
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    assert host.flush() == []
    assert host.core.counters[reasons.FRAGMENT_TIME.counter] == 1


@pytest.mark.rfc("RFC 1122 3.3.2")
def test_time_can_be_set(host: Host) -> None:
    """ip.fragment_time_ms holds for what comes from then on."""
    host.core.set("fragment_time_ms", 60_000, host.now)
    host.feed(piece(0, 40))
    assert host.core.next_timer() == 61 * SECOND


@pytest.mark.rfc("RFC 1122 3.3.2")
def test_the_oldest_goes_first() -> None:
    """Room for two datagrams: the third drives out the first, which then never completes; the others do."""
    host = Host(fragment_memory=2 * (DATAGRAM_COST + FRAGMENT_COST + 40))
    host.feed(piece(0, 40, ident=1))
    host.feed(piece(0, 40, ident=2))
    host.dropped(piece(0, 40, ident=3), reasons.FRAGMENT_MEMORY)
    assert data_of(host.delivered(piece(40, 100, ident=2))) == DATA
    assert data_of(host.delivered(piece(40, 100, ident=3))) == DATA
    assert host.feed(piece(40, 100, ident=1)) == []


def test_switched_off() -> None:
    """ip.fragment_memory = 0: no fragment is taken."""
    Host(fragment_memory=0).dropped(piece(0, 40), reasons.FRAGMENTS_OFF)


def test_a_fragment_in_shared_memory(host: Host) -> None:
    """link leaves none there (its checksum covers more than itself); one that were would be out of a core's reach."""
    host.dropped(packet(place=Place("pool", 0, 65_536, 0, 3000), flags=FLAG_MF), reasons.IP_NOT_INLINE)


@pytest.mark.rfc("RFC 3168 5.3-1", "RFC 3168 5.3-2")
@pytest.mark.parametrize(
    ("ecns", "result"),
    [((ECT0, ECT0), ECT0), ((ECT0, CE), CE), ((CE, ECT0), CE), ((1, CE), CE), ((NOT_ECT, NOT_ECT), NOT_ECT),
     ((CE, CE), CE), ((NOT_ECT, CE), None), ((CE, NOT_ECT), None)],
)  # fmt: skip
def test_congestion_marks_are_kept(host: Host, ecns: tuple[int, int], result: int | None) -> None:
    """RFC 3168 5.3: CE on one makes CE of the whole, DSCP stays; beside one that cannot carry it, all is dropped."""
    first, last = piece(0, 40, tos=0xB8 | ecns[0]), piece(40, 100, tos=0xB8 | ecns[1])
    host.feed(first)
    if result is None:
        host.dropped(last, reasons.FRAGMENT_ECN)
    else:
        assert host.delivered(last).tos == 0xB8 | result


def test_dont_fragment_on_fragments(host: Host) -> None:
    """DF on a fragment is taken, as by Linux, and passed on if all had it."""
    assert whole(host, piece(0, 40, flags=FLAG_DF), piece(40, 100, flags=FLAG_DF)).dont_fragment
    assert not whole(host, piece(0, 40, flags=FLAG_DF), piece(40, 100)).dont_fragment


@pytest.mark.rfc("RFC 791 3.1")
def test_options_of_fragment_zero_count(host: Host) -> None:
    """The reassembled header is that of fragment zero: an echo's record route comes back once."""
    data = IcmpMessage.echo_request(ident=1, sequence=1, payload=bytes(100)).serialize(fill_checksum=True)
    route = bytes((7, 7, 4, 0, 0, 0, 0, 0))
    host.feed(piece(48, 108, data, proto=Proto.ICMP))
    header, reply = host.replied(piece(0, 48, data, proto=Proto.ICMP, options=route))  # type: ignore[arg-type]
    assert header.options == bytes((7, 7, 8)) + OWN + b"\0" and len(reply.payload) == 100


def test_protocol_unreachable_about_a_reassembled_datagram(host: Host) -> None:
    """The quote is of the datagram as a whole, 576 bytes in all (RFC 1812 4.3.2.3)."""
    data = bytes(2000)
    host.feed(piece(0, 1480, data, proto=132))
    [(_, out)] = host.feed(piece(1480, 2000, data, proto=132))
    header, message = read_icmp(out)
    assert header.total_length == 576 and message.code == icmp.PROT_UNREACH
    assert Ipv4Header.parse(message.payload).total_length == 2020


def test_a_flood_of_fragments_is_bounded() -> None:
    """20,000 fragments of datagrams that never complete: memory stays within ip.fragment_memory, the rest goes on."""
    host = Host(fragment_memory=1 << 20)
    host.core.interest = False
    rng = random.Random(3)
    for number in range(20_000):
        host.now += MS // 10
        start = rng.randrange(1, 8000)
        host.feed(packet(bytes(8), frag_offset=start, flags=FLAG_MF, ident=number & 0xFFFF, src=bytes((10, 0, 1, 1))))
    facts = host.core.control(1, "fragments", {}, host.now)
    assert facts["memory"] <= 1 << 20 and facts["datagrams"] <= (1 << 20) // DATAGRAM_COST
    assert host.core.counters[reasons.FRAGMENT_MEMORY.counter] == 20_000 - facts["datagrams"]
    assert data_of(whole(host, piece(0, 40), piece(40, 100))) == DATA


def test_a_datagram_for_all_is_marked(host: Host) -> None:
    """One to a broadcast address says so to its transport, one to us alone does not; each is as its fragments were."""
    for dst, flags in ((DIRECTED, BROADCAST), (OWN, 0)):
        got = whole(host, *[packet(DATA[a:b], frag_offset=a // 8, flags=FLAG_MF if b < 100 else 0, ident=9, dst=dst,
                                   link_flags=flags) for a, b in ((0, 40), (40, 100))])  # fmt: skip
        assert (got.flags, got.dst, got.iface, got.traced, got.ingress) == (flags, dst, 1, True, 1234)


@pytest.mark.parametrize("bits", [(True, True), (True, False), (False, True), (False, False)])
def test_dont_fragment_if_all_say_so(host: Host, bits: tuple[bool, bool]) -> None:
    """RFC 791 3.2; and no other flag is left."""
    first, last = (FLAG_DF if df else 0 for df in bits)
    got = whole(host, piece(0, 40, flags=first), piece(40, 100, flags=last))
    assert got.dont_fragment is all(bits)


def test_an_error_about_what_was_put_together(host: Host) -> None:
    """Nobody takes the protocol: the error quotes the whole, without MF or an offset, and names the last fragment."""
    host.feed(packet(DATA[:40], flags=FLAG_MF, ident=9, proto=132, id=5))
    out = host.sent(packet(DATA[40:], frag_offset=5, ident=9, proto=132, id=6))
    _, message = read_icmp(out)
    quoted = Ipv4Header.parse(message.payload)
    assert (quoted.flags, quoted.frag_offset, quoted.total_length) == (0, 0, 120)
    assert message.payload[20:] == DATA and out.causes == [6]
    assert (out.traced, out.ingress) == (True, 1234)


def test_an_error_about_what_never_came_together(host: Host) -> None:
    """RFC 792: time exceeded, code 1, with fragment zero; of the last that came. For all: silence."""
    host.feed(piece(0, 40, id=5))
    host.feed(piece(48, 56, id=6))
    host.feed(packet(DATA[:40], flags=FLAG_MF, ident=10, dst=DIRECTED, link_flags=BROADCAST))
    host.feed(piece(8, 40, ident=11))  # not the first
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    [(port, out)] = host.flush()
    assert port == "link" and isinstance(out, Packet)
    _, message = read_icmp(out)
    assert (message.type, message.code, message.payload[20:]) == (11, 1, DATA[:40])
    assert (out.causes, out.traced, out.ingress) == ([6], True, 1234)
    drops = [event for event in host.core.events() if event.reason == reasons.FRAGMENT_TIME.name]
    assert [(event.frame, event.data["fragments"]) for event in drops] == [(6, 2), (77, 1), (9, 1)]


def test_ends_that_disagree(host: Host) -> None:
    """A last fragment that ends at 16, and one that goes on beyond: refused, whichever came first. At its end: fine."""
    host.feed(piece(8, 16, more=False, ident=20))
    host.dropped(piece(16, 24, more=True, ident=20), reasons.FRAGMENT_END)
    host.feed(piece(16, 24, more=True, ident=21))
    host.dropped(piece(8, 16, more=False, ident=21), reasons.FRAGMENT_END)
    host.feed(piece(16, 24, more=False, ident=22))
    host.feed(piece(8, 16, ident=22))
    assert data_of(host.delivered(piece(0, 8, ident=22))) == DATA[:24]


def test_what_a_refused_datagram_still_costs(host: Host) -> None:
    """Its record, until its time is over; its bytes are free at once."""
    host.feed(piece(0, 40))
    used = host.core.control(1, "fragments", {}, host.now)["memory"]
    assert used == DATAGRAM_COST + FRAGMENT_COST + 40
    host.dropped(piece(32, 80), reasons.FRAGMENT_OVERLAP)
    found = host.core.control(1, "fragments", {}, host.now)
    assert found["memory"] == DATAGRAM_COST
    assert (found["oldest"][0]["bytes"], found["oldest"][0]["fragments"], found["oldest"][0]["refused"]) == (0, 0, True)
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    assert host.flush() == [] and host.core.control(1, "fragments", {}, host.now)["memory"] == 0
    assert not [event for event in host.core.events() if event.reason == reasons.FRAGMENT_TIME.name]


@pytest.mark.parametrize("options", [0, 4, 40])
def test_headers_however_they_are_split(host: Host, options: int) -> None:
    """The IP header whole in the head or not, with options or without: the same packet; padding is cut off."""
    for head_size in (1, 19, 20, 20 + options, 23 + options, 40 + options):
        got = host.delivered(packet(DATA, options=bytes([1]) * options, head_size=head_size, trailer=b"pad"))
        assert data_of(got) == DATA
