"""Fixtures of the system tests, and the report of a stack beside a test that failed with it.

`namespace`, `stack` (parametrize it indirectly with a dict of Stack's arguments), `make_stack` and `make_namespace`
for tests that need several; `shared_stack`, one a module, and `host`, its other side; `view`, the web view. A test that
needs what this machine does not allow is skipped, and the reason names it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.harness import Stack
from tests.system.namespace import Namespace, lack
from tests.system.streams import PATIENCE_S

if TYPE_CHECKING:
    from tests.system.webview import View

STACKS = pytest.StashKey[list[Stack]]()


@pytest.fixture
def make_namespace() -> Iterator[Callable[..., Namespace]]:
    """Makes namespaces that go with the test."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    made: list[Namespace] = []

    def make(**options: Any) -> Namespace:
        made.append(Namespace(**options))
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()


@pytest.fixture
def namespace(make_namespace: Callable[..., Namespace]) -> Namespace:
    """An empty namespace: the host on the other side of the stack's device."""
    return make_namespace()


@pytest.fixture
def make_stack(request: pytest.FixtureRequest) -> Iterator[Callable[..., Stack]]:
    """Makes stacks, started and ready, that are stopped after the test."""
    made = request.node.stash.setdefault(STACKS, [])

    def make(namespace: Namespace | None = None, **options: Any) -> Stack:
        stack = Stack(namespace, **options)
        made.append(stack)
        return stack.start()

    yield make
    for stack in reversed(made):
        stack.stop()


@pytest.fixture
def stack(request: pytest.FixtureRequest, make_stack: Callable[..., Stack], namespace: Namespace) -> Stack:
    """A stack on a tap, or as the test's parameter says: {"device": "tun", "offload": False, "supervised": True}."""
    return make_stack(namespace, **getattr(request, "param", {}))


@pytest.fixture(scope="module")
def _shared(request: pytest.FixtureRequest) -> Iterator[Stack]:
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    with Namespace() as namespace, Stack(namespace, **getattr(request, "param", {})) as stack:
        yield stack


@pytest.fixture
def shared_stack(request: pytest.FixtureRequest, _shared: Stack) -> Stack:
    """A stack in a namespace that the tests of a module use one after the other, for those that leave it whole.

    Parametrize `_shared` (indirectly, scope="module") as `stack` is. Each test leaves no fault set and no port taken.
    """
    request.node.stash.setdefault(STACKS, []).append(_shared)
    return _shared


@pytest.fixture
def host(shared_stack: Stack) -> Namespace:
    """The other side of the module's stack."""
    assert shared_stack.namespace is not None
    return shared_stack.namespace


@pytest.fixture
def raw(host: Namespace) -> Iterator[socket.socket]:
    """A raw ICMP socket of that side: what it reads, the kernel has put together."""
    with host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(PATIENCE_S)
        yield sock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the report of every stack of a test that failed, while they still run."""
    report = yield
    if report.failed and call.when in ("setup", "call"):
        for stack in item.stash.get(STACKS, []):
            if stack.directory.exists():
                report.sections.append((f"stack {stack.name}", stack.report()))
    return report


@pytest.fixture(scope="module")
def viewed_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """What the web view's tests of a module share (webview.py)."""
    from tests.system.webview import viewed

    with viewed(tmp_path_factory.mktemp("web")) as made:
        yield made


@pytest.fixture
def view(viewed_stack: View) -> Iterator[View]:
    """The web view with a page of this test's own."""
    with viewed_stack.afresh() as fresh:
        yield fresh
