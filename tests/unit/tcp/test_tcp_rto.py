"""The retransmission timeout, RFC 6298: SRTT, RTTVAR and RTO of a few round trips, worked out by hand (in ms)."""

from __future__ import annotations

import pytest

from layers.tcp.rto import AFTER_SYN_LOSS, MS, Rto


def rto(*samples: float, floor: int = 200, ceiling: int = 60_000) -> Rto:
    """After these samples, in ms."""
    made = Rto(floor * MS, ceiling * MS, 1000 * MS)
    for sample in samples:
        made.sample(int(sample * MS), 0)
    return made


def test_the_first_round_trip_sets_srtt_and_half_of_it_as_variance() -> None:
    """SRTT = R = 401, RTTVAR = R / 2 = 200.5, RTO = SRTT + 4 RTTVAR = 1203."""
    found = rto(401)
    assert (found.srtt, found.rttvar, found.rto) == (401 * MS, 401 * MS // 2, 1203 * MS)
    assert (found.min_rtt, found.samples) == (401 * MS, 1)


@pytest.mark.parametrize(
    ("second", "srtt", "rttvar"),
    [
        (480, 410, 170),  # delta +80: RTTVAR = 200 + (80 - 200) / 4, SRTT = 400 + 80 / 8
        (320, 390, 170),  # delta -80: the same variance, SRTT = 400 - 80 / 8
        (400, 400, 150),  # delta 0: the variance falls by a quarter
        (2000, 600, 550),  # delta +1600
    ],
)
def test_a_further_round_trip_counts_an_eighth_and_its_deviation_a_quarter(
    second: int, srtt: int, rttvar: int
) -> None:
    """RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R| with the old SRTT, then SRTT = 7/8 SRTT + 1/8 R; RTO = SRTT + 4 RTTVAR."""
    found = rto(400, second)
    assert (found.srtt, found.rttvar, found.rto) == (srtt * MS, rttvar * MS, (srtt + 4 * rttvar) * MS)
    assert found.min_rtt == min(400, second) * MS
    assert found.samples == 2


def test_the_floor_is_below_the_variance_term() -> None:
    """Of a path of 10 ms: 4 RTTVAR = 20 ms is less than the floor of 200, so RTO = 10 + 200. Equal to it: the same."""
    assert rto(10).rto == 210 * MS
    assert rto(100).rto == 300 * MS  # 4 * 50 is the floor
    assert rto(102).rto == (102 + 204) * MS


def test_the_ceiling_bounds_all() -> None:
    """A ceiling of 500 ms, with a sample (300 + 600), after backoffs, after a lost SYN, and when one is taken back."""
    found = rto(300, ceiling=500)
    assert found.rto == 500 * MS
    found.back_off()
    assert found.rto == 500 * MS
    found.revert()
    assert found.rto == 500 * MS
    fresh = rto(ceiling=500)
    fresh.after_syn_loss()
    assert fresh.rto == 500 * MS


def test_a_sample_of_nothing_is_a_nanosecond() -> None:
    """A clock that did not move, or went back, is no reason to have no SRTT (0 means: none yet)."""
    assert rto(0).srtt == 1
    assert rto(-5).srtt == 1
    assert rto(0).min_rtt == 1


def test_backoffs_double_until_a_sample_ends_them() -> None:
    """1 s, 2, 4; then a sample of 100 ms: RTO 300, no backoff, and a further timeout doubles that."""
    found = rto()
    found.back_off()
    assert (found.rto, found.backoffs) == (2000 * MS, 1)
    found.back_off()
    assert (found.rto, found.backoffs) == (4000 * MS, 2)
    found.sample(100 * MS, 0)
    assert (found.rto, found.backoffs) == (300 * MS, 0)
    found.back_off()
    assert (found.rto, found.backoffs) == (600 * MS, 1)


def test_a_backoff_that_the_network_explains_is_taken_back() -> None:
    """RFC 6069 4.1: RTO = 300 ms, three timeouts: 2400; taken back one by one: 1200, 600, 300, and no further."""
    found = rto(100)
    for _ in range(3):
        found.back_off()
    assert found.rto == 2400 * MS
    for expected, left in ((1200, 2), (600, 1), (300, 0), (300, 0)):
        found.revert()
        assert (found.rto, found.backoffs) == (expected * MS, left)


def test_a_backoff_without_a_sample_is_halved_again() -> None:
    """While opening there is no SRTT to compute from: 1 s, 2, 4, back to 2 and 1, and no further."""
    found = rto()
    found.back_off()
    found.back_off()
    for expected, left in ((2000, 1), (1000, 0), (1000, 0)):
        found.revert()
        assert (found.rto, found.backoffs) == (expected * MS, left)


def test_after_a_lost_syn_the_first_data_waits_three_seconds() -> None:
    """Unless a round trip is known, by timestamps."""
    found = rto()
    found.back_off()
    found.after_syn_loss()
    assert (found.rto, found.backoffs) == (3000 * MS, 0) == (AFTER_SYN_LOSS, 0)
    known = rto(100)
    known.back_off()
    known.after_syn_loss()
    assert (known.rto, known.backoffs) == (600 * MS, 0)


@pytest.mark.rfc("RFC 8985 6.2-1")
def test_the_smallest_of_late() -> None:
    """Of the last 150 to 300 s, as a path may become longer for good. Periods end at 150 s, at the first sample after,
    and so on."""
    found = rto()
    for second, rtt, smallest in (
        (0, 50, 50), (1, 40, 40), (2, 45, 40), (149, 80, 40),
        (150, 90, 40), (151, 70, 40), (299, 75, 40),
        (300, 95, 70), (449, 94, 70),
        (460, 99, 94), (461, 60, 60),
        (760, 66, 66), (770, 30, 30),
    ):  # fmt: skip
        found.sample(rtt * MS, second * 1000 * MS)
        assert found.min_rtt == smallest * MS, second
    long_after = rto()
    long_after.sample(40 * MS, 0)
    long_after.sample(80 * MS, 300_000 * MS - 1)
    assert long_after.min_rtt == 40 * MS
    long_after.sample(85 * MS, 600_000 * MS - 1)
    assert long_after.min_rtt == 85 * MS, "nothing was measured for two periods"
