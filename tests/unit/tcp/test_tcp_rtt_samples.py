"""Many RTT samples in a round trip: RFC 7323 4.2. Worked out by hand, in ms; offsets are of segments of 1000 bytes."""

from __future__ import annotations

import pytest

from layers.tcp.rto import MS, Rto


def rto() -> Rto:
    """After a handshake of 100 ms: SRTT 100, RTTVAR 50."""
    made = Rto(200 * MS, 60_000 * MS, 1000 * MS)
    made.sample(100 * MS, 0)
    return made


def round_trip(made: Rto, first: int, samples: int, rtt: float) -> None:
    """`samples` segments from offset `first` on are out, and each is acknowledged after `rtt` ms."""
    nxt = first + samples * 1000
    for at in range(first + 1000, nxt + 1000, 1000):
        made.sample_of_ack(int(rtt * MS), at, nxt, 0)


@pytest.mark.rfc("RFC 7323 4.2-1")
def test_one_sample_a_round_trip_is_rfc_6298() -> None:
    """Ping-pong: alpha is 1/8 and beta 1/4 each time, however often: 100 + 80/8 = 110, 50 + (80 - 50)/4 = 57.5."""
    one, other = rto(), rto()
    for at in (1000, 2000, 3000):
        one.sample_of_ack(180 * MS, at, at, 0)
        other.sample(180 * MS, 0)
    assert (one.srtt, one.rttvar, one.rto) == (other.srtt, other.rttvar, other.rto)
    once = rto()
    once.sample_of_ack(180 * MS, 1000, 1000, 0)
    assert (once.srtt, once.rttvar) == (110 * MS, 57_500_000)


@pytest.mark.rfc("RFC 7323 4.2-1")
def test_the_first_of_ten_counts_a_tenth_of_what_one_would() -> None:
    """After a round trip with ten samples of 100 (RTTVAR is v by then): SRTT 100 + 80/80 = 101, v + (80 - v)/40."""
    made = rto()
    round_trip(made, 0, 10, 100)
    assert made.srtt == 100 * MS
    v = made.rttvar
    made.sample_of_ack(180 * MS, 11_000, 20_000, 0)
    assert (made.srtt, made.rttvar) == (101 * MS, v + (80 * MS - v) // 40)


@pytest.mark.rfc("RFC 7323 4.2-1")
@pytest.mark.parametrize("samples", [2, 10, 100])
def test_the_memory_is_as_long_with_many(samples: int) -> None:
    """A round trip of 180 moves SRTT from 100 to 110 with one sample; with any number to between 109 and 110: the sum
    of their parts, each of what is left. Eight round trips leave (7/8)^8 = 34 % of the old value, and not 0."""
    made = rto()
    round_trip(made, 0, samples, 100)
    round_trip(made, samples * 1000, samples, 180)
    assert 109 * MS <= made.srtt <= 110 * MS
    for count in range(2, 9):
        round_trip(made, count * samples * 1000, samples, 180)
    assert 0.33 <= (180 * MS - made.srtt) / (80 * MS) <= 0.40


@pytest.mark.rfc("RFC 7323 4.2-1")
def test_a_round_trip_with_more_samples_than_the_last() -> None:
    """Slow start, 10 samples, then 20: ten count a tenth each, the others 1/11 to 1/20: 1.67 of one in all."""
    made = rto()
    round_trip(made, 0, 10, 100)
    round_trip(made, 10_000, 20, 180)
    assert 114 * MS <= made.srtt <= 117 * MS


@pytest.mark.rfc("RFC 7323 4.2-1")
def test_few_acknowledgments_of_many_segments_count_in_full() -> None:
    """A receiver with offload acknowledges 40 segments by two ACKs: two samples are expected the next time, not 20."""
    made = rto()
    for start in (0, 40_000):
        for at in (20_000, 40_000):
            made.sample_of_ack(100 * MS, start + at, start + 40_000, 0)
    made.sample_of_ack(180 * MS, 100_000, 120_000, 0)
    assert made.srtt == 105 * MS
