"""Samples and what is said of them: median, spread, ratio to a baseline, and whether a target is met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of all do not exceed (nearest rank). ValueError if none."""
    if not samples:
        raise ValueError("no samples")
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass
class Figure:
    """One measured quantity: a sample a run, beside the same of the kernel alone (`baseline`) where there is one."""

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    target: float | None = None
    higher_is_better: bool = True
    note: str = ""

    @property
    def median(self) -> float:
        """Of the samples; ValueError if there are none."""
        return statistics.median(self.samples) if self.samples else _none(self.name)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median: how far the runs differ; 0 for a single one."""
        return (max(self.samples) - min(self.samples)) / self.median if self.samples and self.median else 0.0

    @property
    def ratio(self) -> float | None:
        """Median over the baseline's median; None without a baseline."""
        base = statistics.median(self.baseline) if self.baseline else 0.0
        return self.median / base if base else None

    @property
    def holds(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.higher_is_better else self.median <= self.target

    def plain(self) -> dict[str, Any]:
        """All of it, raw samples too, as JSON takes it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "spread": self.spread,
            "samples": self.samples,
            "baseline_median": statistics.median(self.baseline) if self.baseline else None,
            "baseline_samples": self.baseline,
            "ratio": self.ratio,
            "target": self.target,
            "higher_is_better": self.higher_is_better,
            "holds": self.holds,
            "note": self.note,
        }


def _none(name: str) -> float:
    raise ValueError(f"{name}: no samples")


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Run by run, ours over theirs: what two alternating series differ by, free of the machine's slow drift."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def sign_test(ratios: Sequence[float]) -> float:
    """How probable it is that chance makes the ratios fall on one side of 1 as unevenly as they do (two-sided)."""
    above = sum(ratio > 1 for ratio in ratios)
    below = sum(ratio < 1 for ratio in ratios)
    n = above + below
    if not n:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(above, below) + 1))
    return min(1.0, tail / float(2 ** (n - 1)))


def scaled(value: float, unit: str) -> str:
    """A figure as people read it: three significant digits, with its unit."""
    if value == 0:
        return f"0 {unit}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f} {unit}"
