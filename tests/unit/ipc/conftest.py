"""Runtimes of a stack in a directory of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from levelip.config import Config
from levelip.ipc.rundir import RunDirectory
from levelip.ipc.runtime import Runtime


@pytest.fixture
def runtime(run: RunDirectory) -> Iterator[Callable[..., Runtime]]:
    """Makes the runtime of a layer; all are closed at the end."""
    made: list[Runtime] = []

    def make(name: str, config: Config | None = None) -> Runtime:
        made.append(Runtime(name, config or Config(), run))
        return made[-1]

    yield make
    for one in made:
        one.close()
