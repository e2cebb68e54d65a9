"""Every test that takes `isn` runs twice: with an ordinary ISN, and with both just below 2^32 so that they wrap.

Every test ends with a look at the state of its cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tcp_host import HOSTS

from tests.netsim.tcp_invariants import check_snapshot


@pytest.fixture(params=["plain", "wrap"])
def isn(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keywords for a factory of tcp_host."""
    if request.param == "wrap":
        return {"isn": 2**32 - 3, "irs": 2**32 - 2}
    return {"isn": 1000, "irs": 5000}


@pytest.fixture(autouse=True)
def restorable() -> Iterator[None]:
    """Whatever the test did, its cores have a state that a snapshot holds whole."""
    HOSTS.clear()
    yield
    for host in HOSTS[:8]:
        check_snapshot(host.core)
    HOSTS.clear()
