"""Fixtures of the ip layer's tests. Every test ends with a look at the state of its cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ip_host import HOSTS, Host, check_state


@pytest.fixture
def host() -> Host:
    """10.0.0.2/24 behind 10.0.0.1, its device up, every event told."""
    return Host()


@pytest.fixture(autouse=True)
def restorable() -> Iterator[None]:
    """Whatever the test did, its cores have a state that a snapshot holds whole."""
    HOSTS.clear()
    yield
    for host in HOSTS[:8]:
        check_state(host.core)
    HOSTS.clear()
