"""What unit tests of several packages share, and what none of them may leave behind."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from levelip.ipc.control import ControlClient
from levelip.ipc.rundir import RunDirectory

THREADS_END_S = 100.0
PATIENCE_S = 100.0


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_test() -> Iterator[None]:
    """One that is left takes time and locks from all later tests, which then fail in its place."""
    before = set(threading.enumerate())
    yield
    begun = set(threading.enumerate()) - before
    deadline = time.monotonic() + THREADS_END_S
    for thread in begun:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert [thread.name for thread in begun if thread.is_alive()] == []


@pytest.fixture
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools wait for layers, which are threads of the test, until these have had their turn, however busy the machine
    is. A test about how long they wait for one that is silent asks for `impatient`."""
    if "impatient" in request.fixturenames:
        return
    wait_for = ControlClient.wait_for

    def patiently(client: ControlClient, number: int, deadline: float) -> dict[str, Any] | None:
        return wait_for(client, number, max(deadline, time.monotonic() + PATIENCE_S))

    monkeypatch.setattr(ControlClient, "wait_for", patiently)
    monkeypatch.setattr("levelip.debug.tap.CONFIRM_S", PATIENCE_S)


@pytest.fixture
def impatient() -> None:
    """Tools wait as long as they say."""


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A run directory whose paths are short enough for sockets."""
    root = tempfile.mkdtemp(prefix="lv", dir="/tmp")
    made = RunDirectory("t", root)
    made.create()
    yield made
    shutil.rmtree(made.memory, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
