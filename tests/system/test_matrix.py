"""The stack and Linux over a bad path, whatever the MTU, trouble, delay, window and direction: every byte arrives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import matrix
from tests.system.matrix import CELLS, FACTORS, SAMPLE, Cell, Worlds
from tests.system.namespace import lack

pytestmark = pytest.mark.timeout(240)

ORDERED = sorted(CELLS, key=lambda cell: (cell.device_mtu, cell.offload))
"""Cells with the same devices one after the other."""


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    made = Worlds()
    yield made
    made.close()


@pytest.mark.matrix(ids=SAMPLE)
@pytest.mark.parametrize("cell", ORDERED, ids=str)
def test_transfer(worlds: Worlds, cell: Cell) -> None:
    """A stream crosses a path that loses, doubles, reorders or breaks packets, is long, narrow, or narrows under way;
    the receiver has all of it, and says so."""
    try:
        seen = matrix.run(worlds.of(cell), cell)
        assert not list(matrix.met(cell, seen))
    except BaseException:
        worlds.close()  # the next cell starts anew
        raise


def test_the_sample_holds_every_pair_of_levels() -> None:
    """Of two factors any two levels meet in a cell of the sample, and the sample is no larger than the two largest
    factors make it."""
    rows = [tuple(getattr(cell, factor) for factor in FACTORS) for cell in CELLS if str(cell) in SAMPLE]
    for i, first in enumerate(FACTORS.values()):
        for j, second in list(enumerate(FACTORS.values()))[i + 1 :]:
            assert {(row[i], row[j]) for row in rows} == {(a, b) for a in first for b in second}
    sizes = sorted(map(len, FACTORS.values()))
    assert len(rows) == sizes[-1] * sizes[-2]
    halves = {(cell.offload, cell.connects, cell.sender) for cell in CELLS if str(cell) in SAMPLE}
    assert len(halves) == 8  # with and without offload, opened by either, sent by either
