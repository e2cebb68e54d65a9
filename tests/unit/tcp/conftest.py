"""Every test that takes `isn` runs twice: with an ordinary ISN, and with both just below 2^32 so that they wrap."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))


@pytest.fixture(params=["plain", "wrap"])
def isn(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keywords for a factory of tcp_host."""
    if request.param == "wrap":
        return {"isn": 2**32 - 3, "irs": 2**32 - 2}
    return {"isn": 1000, "irs": 5000}
