"""CPython's own suites, over the stack's loopback: `python -m levelip -m test test_socket`, `lvlip run -- python -m
test test_socket`, and so on; what they say is compared test by test with the same on the kernel, in the same namespace.

What does not pass is in tests/compat/suites.py, each with its reason, and in docs/socket-compat.md. Where the suites
come from: tests/compat/cpython.py, which can also be called by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from tests.compat import cpython
from tests.compat.cpython import OURS, TITLES, Outcome
from tests.compat.suites import SUITES, Suite
from tests.system.harness import Stack

AT_ONCE = 4
"""Suites that run at the same time: most of what they do is to wait."""
PART = 0.98
"""Of a suite's tests that pass on the kernel, so many pass here; one may fail of however few."""
SHORT = {f"{name}-{way}-stack" for name in ("test_socket", "test_selectors", "test_socketserver") for way in OURS}
pytestmark = pytest.mark.parametrize(
    "_shared", [{"settings": cpython.SETTINGS}], indirect=True, scope="module", ids=["stack"]
)
Outcomes = Callable[[Suite, str], Outcome]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, _shared: Stack) -> Iterator[Outcomes]:
    """What became of a suite in one way. All that the session has chosen begin at once, those on the kernel too."""
    assert _shared.namespace is not None
    namespace = _shared.namespace
    begun: dict[tuple[str, str], Future[Outcome]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def begin(suite: Suite, way: str) -> Future[Outcome]:
            key = suite.name, way
            if key not in begun:
                begun[key] = pool.submit(
                    partial(cpython.run, suite, way, enter=namespace.command, variables=_shared.env)
                )
            return begun[key]

        for item in request.session.items:
            params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
            suite, way = params.get("suite"), params.get("way")
            if isinstance(suite, Suite) and isinstance(way, str) and not cpython.lack(suite.name):
                begin(suite, "kernel")
                begin(suite, way)
        yield lambda suite, way: begin(suite, way).result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.matrix(ids=SHORT)
@pytest.mark.timeout(900)  # each suite has its own limit, after which it shows where it stands
@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("suite", SUITES, ids=[suite.name for suite in SUITES])
def test_what_passes_on_the_kernel_passes_here(
    shared_stack: Stack, suite: Suite, way: str, request: pytest.FixtureRequest
) -> None:
    """All but the tests that are known to differ; and those differ still, else the list would be out of date."""
    if why := cpython.lack(suite.name):
        pytest.skip(why)
    run: Outcomes = request.getfixturevalue("outcomes")
    kernel, ours = run(suite, "kernel"), run(suite, way)
    assert not kernel.trouble, f"on the kernel's sockets: {kernel.trouble}"
    assert not ours.trouble, f"{TITLES[way]}: {ours.trouble}"
    assert len(kernel.passed) >= suite.at_least, kernel.failed
    differ, known = cpython.compared(kernel, ours), suite.known(way)
    told = [f"{name}\n{text}" for name, text in differ.items() if name not in known | suite.unsure(way)]
    assert not told, "\n\n".join([f"pass on the kernel and not by {TITLES[way]}:", *told])
    assert not known & ours.passed, "these pass now: take them out of tests/compat/suites.py"
    assert len(kernel.passed - ours.passed) <= max(1, (1 - PART) * len(kernel.passed))
