"""The client's stacks, as tests take them: a fake gateway behind a door that this process's sockets find."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from clienttools import Stack

from levelip.client.program import PROGRAM


@pytest.fixture(params=["memory", "inline"])
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A running stack, with session memory and without."""
    yield from _stack(monkeypatch, memory=request.param == "memory")


@pytest.fixture
def memory_stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A running stack with session memory only."""
    yield from _stack(monkeypatch, memory=True)


def _stack(monkeypatch: pytest.MonkeyPatch, *, memory: bool) -> Iterator[Stack]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # the gateway and the peers are threads here
    stack = Stack(memory=memory)
    monkeypatch.setenv("LEVELIP_RUN", str(stack.run))
    monkeypatch.delenv("LEVELIP_NAME", raising=False)
    PROGRAM.leave()
    try:
        yield stack
    finally:
        PROGRAM.leave()
        stack.end()
        sys.setswitchinterval(interval)
