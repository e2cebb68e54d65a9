"""What the web view asks is waited for."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _patient(patient: None) -> None:
    """Else a layer that has not had its turn is taken for a silent one."""
