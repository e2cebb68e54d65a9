"""Every test that takes `isn` runs twice: with an ordinary ISN, and with both just below 2^32 so that they wrap."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["plain", "wrap"])
def isn(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keywords for a factory of tcp_host."""
    if request.param == "wrap":
        return {"isn": 2**32 - 3, "irs": 2**32 - 2}
    return {"isn": 1000, "irs": 5000}
