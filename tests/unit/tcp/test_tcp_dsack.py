"""D-SACK, what came twice, as a receiver tells it (RFC 2883); what a sender makes of it is in test_tcp_scoreboard.

100 bytes a segment; the first has offset 0 and sequence number 1.
"""

from __future__ import annotations

import random

import pytest
from tcp_host import Got, Host, established

from layers.tcp.receive_space import ReceiveSpace

ISN = dict[str, int]
BOTH = pytest.mark.parametrize("isn", [{"isn": 1000, "irs": 5000}, {"isn": 2**32 - 5, "irs": 2**32 - 150}])


def text(c: Host, first: int, last: int, **fields: object) -> None:
    """Bytes with the sequence numbers `first` up to `last`, which is not among them."""
    c.inject("A", seq=first, ack=1, data=b"x" * (last - first), **fields)


def told(c: Host) -> list[tuple[int, int]]:
    """The blocks of the one ACK that came out."""
    assert len(c.segments) == 1, list(c.segments)
    return Got(c, c.segments.popleft()).sack


@BOTH
@pytest.mark.rfc("RFC 2883 4.1-1", "RFC 2883 4-1", "RFC 2883 4-2", "RFC 2883 4-3")
def test_a_whole_segment_again_below_the_acknowledgment(isn: ISN) -> None:
    """The first block is what came twice, in that ACK and in no other."""
    c = established(**isn)
    text(c, 1, 101)
    text(c, 101, 201)
    c.quiet()
    text(c, 1, 101)
    assert told(c) == [(1, 101)]
    assert c.core.counters["dsacks_out"] == 1
    text(c, 201, 301)
    assert told(c) == []
    text(c, 401, 501)
    assert told(c) == [(401, 501)]


@BOTH
@pytest.mark.rfc("RFC 2883 4.2-1", "RFC 2883 4-3")
def test_a_part_of_a_segment_again(isn: ISN) -> None:
    """50 bytes were there, 50 are new: the block has the 50, and the ACK, at once, all of it."""
    c = established(**isn)
    text(c, 1, 101)
    c.quiet()
    text(c, 51, 151)
    c.expect("A", ack=151, sack=[(51, 101)])
    c.expect_nothing()


@BOTH
@pytest.mark.rfc("RFC 2883 4-1", "RFC 2883 4-4")
def test_again_within_what_is_held_beyond_a_hole(isn: ISN) -> None:
    """201 to 500 is held: of 301 to 400, come again, the second block is the larger one that holds it, and not the one
    that came last before."""
    c = established(**isn)
    for at in (201, 301, 401, 601):
        text(c, at, at + 100)
    c.quiet()
    text(c, 301, 401)
    assert told(c) == [(301, 401), (201, 501), (601, 701)]
    text(c, 451, 551)
    assert told(c) == [(451, 501), (201, 551), (601, 701)]


@BOTH
@pytest.mark.rfc("RFC 2883 4.2-1")
def test_what_fills_a_hole_and_overlaps_what_is_behind_it(isn: ISN) -> None:
    """101 to 200 was held; 1 to 150 comes: 50 bytes twice, and nothing is held any more."""
    c = established(**isn)
    text(c, 101, 201)
    c.quiet()
    text(c, 1, 151)
    c.expect("A", ack=201, sack=[(101, 151)])


@BOTH
@pytest.mark.rfc("RFC 2018 2-2")
def test_not_to_a_peer_without_sack(isn: ISN) -> None:
    """Who has not permitted it gets no block."""
    c = established(sack=False, **isn)
    text(c, 1, 101)
    c.quiet()
    text(c, 1, 101)
    assert told(c) == [] and "dsacks_out" not in c.core.counters


@BOTH
def test_what_paws_refuses_is_told_too(isn: ISN) -> None:
    """An old duplicate with an old timestamp is a duplicate (Linux tcp_send_dupack)."""
    c = established(**isn)
    text(c, 1, 101)
    c.quiet()
    text(c, 1, 101, ts=1)
    assert c.dropped("tcp_paws") == 1 and told(c) == [(1, 101)]


def test_probes_and_keepalives_are_told_nothing() -> None:
    """An empty segment below the window has nothing twice."""
    c = established()
    text(c, 1, 101)
    c.quiet()
    c.inject("A", seq=100, ack=1)
    assert told(c) == []


@pytest.mark.rfc("RFC 2883 4-3")
def test_repeated_against_a_set_of_bytes() -> None:
    """Whatever has come: the first run of bytes that had, and None where none had."""
    rng = random.Random(3)
    for _ in range(300):
        space = ReceiveSpace(ring=4096, buffer=4096, rcv_nxt=0)
        have: set[int] = set()
        for _ in range(12):
            start = rng.randrange(60)
            end = start + rng.randrange(1, 20)
            twice = [at for at in range(start, end) if at in have or at < space.rcv_nxt]
            run = next((at for at in range(twice[0], end + 1) if at == end or at not in twice), 0) if twice else 0
            assert space.repeated(start, end) == ((twice[0], run) if twice else None)
            if end <= space.rcv_nxt:
                continue
            start = max(start, space.rcv_nxt)
            have |= set(range(start, end))
            if start == space.rcv_nxt:
                space.advance(end)
            else:
                space.insert(start, end)
