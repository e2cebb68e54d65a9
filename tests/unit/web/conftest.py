from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from levelip.ipc.rundir import RunDirectory


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A run directory in which nothing runs, with a path short enough for sockets."""
    root = tempfile.mkdtemp(prefix="lv", dir="/tmp")
    made = RunDirectory("t", root)
    made.create()
    yield made
    shutil.rmtree(made.memory, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
