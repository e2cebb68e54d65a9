"""The bench's own arithmetic: medians, ratios, verdicts, and what chance explains."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, paired_ratios, percentile, scaled, sign_test


def test_percentile_is_the_nearest_rank() -> None:
    """Of 1..200 the 99 % sample is the 198th; of one sample it is that one; of none it is an error."""
    samples = [float(n) for n in range(200, 0, -1)]
    assert percentile(samples, 0.99) == 198
    assert percentile(samples, 0.5) == 100
    assert percentile(samples, 0) == 1
    assert percentile(samples, 1) == 200
    assert percentile([7.0], 0.99) == 7
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="no share"):
        percentile([1.0], 99)


def test_a_figure_is_judged_by_its_median_not_by_its_best_run() -> None:
    """Two good runs of five do not meet a target; the ratio is that of the medians."""
    figure = Figure("bulk", "Gbit/s", [2.0, 9.0, 2.4, 2.6, 2.3], [8.0, 4.0, 6.0], target=2.5)
    assert figure.median == 2.4
    assert figure.holds is False
    assert figure.ratio == pytest.approx(0.4)
    assert figure.spread == pytest.approx(7 / 2.4)


def test_for_a_time_less_is_better() -> None:
    """An echo of 0.4 ms is below a limit of 1 ms, one of 1.2 ms is not; without a target there is no verdict."""
    assert Figure("echo", "ms", [0.4], target=1.0, higher_is_better=False).holds is True
    assert Figure("echo", "ms", [1.2], target=1.0, higher_is_better=False).holds is False
    assert Figure("echo", "ms", [1.2]).holds is None
    assert Figure("echo", "ms", [1.2]).ratio is None


def test_a_figure_without_samples_has_no_median() -> None:
    """Nothing was measured: that is an error, not zero."""
    with pytest.raises(ValueError, match="echo: no samples"):
        Figure("echo", "ms").median  # noqa: B018 - the attribute raises


def test_plain_holds_every_raw_sample() -> None:
    """The JSON row has samples of both sides and what was made of them."""
    row = Figure("x", "/s", [3.0, 1.0, 2.0], [4.0], target=2.0).plain()
    assert row["samples"] == [3.0, 1.0, 2.0]
    assert row["baseline_samples"] == [4.0]
    assert (row["median"], row["baseline_median"], row["ratio"], row["holds"]) == (2.0, 4.0, 0.5, True)


def test_paired_ratios_cancel_a_drift_that_both_share() -> None:
    """A machine that gets slower by half during the runs changes both series, not their ratios."""
    theirs = [10.0, 8.0, 5.0]
    assert paired_ratios([0.9 * one for one in theirs], theirs) == pytest.approx([0.9] * 3)
    with pytest.raises(ValueError, match="longer"):
        paired_ratios([1.0], theirs)


@pytest.mark.parametrize(
    ("ratios", "chance"),
    [
        ([0.9] * 5, 2 / 32),  # all five below: 2 of the 32 equally likely outcomes are so uneven
        ([0.9, 0.9, 0.9, 0.9, 1.1], 2 * (1 + 5) / 32),
        ([0.9, 1.1], 1.0),
        ([1.0, 1.0], 1.0),  # ties tell nothing
        ([], 1.0),
    ],
)
def test_sign_test_by_hand(ratios: list[float], chance: float) -> None:
    """The two-sided sign test, counted on paper."""
    assert sign_test(ratios) == pytest.approx(chance)


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.186, "4.19 x"), (0.0512, "0.0512 x"), (8792.4, "8,792 x"), (0.0, "0 x"), (54.32, "54.3 x")],
)
def test_figures_are_shown_with_three_digits(value: float, text: str) -> None:
    """Neither noise digits nor lost ones."""
    assert scaled(value, "x") == text
