"""Fixtures of the ip layer's tests."""

from __future__ import annotations

import pytest
from ip_host import Host


@pytest.fixture
def host() -> Host:
    """10.0.0.2/24 behind 10.0.0.1, its device up, every event told."""
    return Host()
