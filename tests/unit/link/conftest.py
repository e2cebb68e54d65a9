"""Fixtures of the link core's tests."""

from __future__ import annotations

import pytest
from link_host import Host


@pytest.fixture
def host() -> Host:
    """A core on a tap whose announcements are over."""
    return Host()
