"""What all tests share: the sample of large matrices that `make test` runs (`make test-all`: --all runs them whole)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import settings

SAMPLE = 6
"""Cells of a matrix that run without --all, unless its mark says another number, @pytest.mark.matrix(sample=12), or
which: @pytest.mark.matrix(ids={...}), as in the brackets of the test's name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run every cell of tests marked `matrix`, not a sample")


def pytest_configure(config: pytest.Config) -> None:
    """Properties: always the same examples, so that no run differs from the last; other ones each time with --all. No
    limit on the time of an example, which is the machine's."""
    settings.register_profile("make test", deadline=None, derandomize=True)
    settings.register_profile("make test-all", deadline=None)
    settings.load_profile("make test-all" if config.getoption("--all") else "make test")
    if not config.getoption("--all"):
        _without_constants_of_ours()


def _without_constants_of_ours() -> None:
    """hypothesis makes some examples of constants that stand in our modules, of those that are loaded by then: other
    ones in each worker and after each change. To read them all takes the first property of a worker half a minute on a
    busy machine, for which it may fail."""
    with contextlib.suppress(ImportError, AttributeError):  # versions differ, and know nothing of this before 6.131
        from hypothesis.internal.conjecture import providers

        none = providers._local_constants
        providers._get_local_constants = lambda: none


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep evenly spread cells of each matrix: the first, the last, and some between; the same ones each time."""
    if config.getoption("--all"):
        return
    matrices: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("matrix"):
            matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for cells in matrices.values():
        marker = cells[0].get_closest_marker("matrix")
        if marker and "ids" in marker.kwargs:
            chosen = marker.kwargs["ids"]
            left_out.update(cell for cell in cells if cell.nodeid.partition("[")[2].removesuffix("]") not in chosen)
            continue
        sample = marker.kwargs.get("sample", SAMPLE) if marker else SAMPLE
        if len(cells) > sample:
            kept = {round(index * (len(cells) - 1) / max(1, sample - 1)) for index in range(sample)}
            left_out.update(cell for index, cell in enumerate(cells) if index not in kept)
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
