"""We send to the kernel over a bad path: its SACKs, D-SACKs and timestamps steer our recovery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.system import streams
from tests.system.harness import Stack
from tests.system.streams import KernelServer, digest, stream

SIZE = 3_000_000
LIMIT_S = 60.0
pytestmark = pytest.mark.parametrize(
    "_shared", [{"settings": {"tcp.rto_min_ms": 3000}}], ids=["patient"], indirect=True, scope="module"
)
"""A timer that fires is to tell of our recovery, not of a machine on which the kernel or we stand still for 0.2 s."""


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The module's stack; its faults are taken away after each test."""
    yield shared_stack
    for layer in shared_stack.layers:
        shared_stack.ask(layer, "fault.clear")


def send(stack: Stack, **fault: Any) -> tuple[dict[str, int], dict[str, Any]]:
    """3 MB of ours to the kernel's server, 5 ms each way and `fault` on the way there: what tcp counted meanwhile, and
    what the gate on that way did."""
    assert stack.namespace is not None
    stack.ask("link", "fault.set", seam="link", direction="up", delay_ns=5_000_000, seed=1)
    stack.ask("link", "fault.set", seam="link", direction="down", delay_ns=5_000_000, seed=2, **fault)
    before = stack.counters("tcp")
    got: list[str] = []
    with KernelServer(stack.namespace, stack.host, lambda sock: got.append(streams.both_ways(sock, 1, 10))) as server:
        ours = stack.submit(streams.app_both_ways, stack.host, server.port, 2, SIZE)
        assert ours.result(LIMIT_S) == digest(stream(1, 10))
    assert got == [digest(stream(2, SIZE))]
    after = stack.counters("tcp")
    gates = stack.ask("link", "fault.show")["faults"]
    gate = next(row for row in gates if row["seam"] == "link" and row["direction"] == "down")
    return {name: value - before.get(name, 0) for name, value in after.items()}, gate


@pytest.mark.rfc("RFC 8985 6.2", "RFC 2018 5", "RFC 9937 6")
def test_losses_are_repaired_without_timeouts(stack: Stack) -> None:
    """2 % lost: each is sent again, seldom more, and the timer fires hardly ever."""
    counted, gate = send(stack, loss=0.02)
    assert gate["lost"] > 10
    assert counted["fast_retransmits"] > 0
    assert counted.get("rto_timeouts", 0) <= gate["lost"] // 10
    assert counted["retransmissions"] <= 2 * gate["lost"]


@pytest.mark.rfc("RFC 8985 6.2", "RFC 3522 3.2", "RFC 3708 3")
def test_reordering_is_learned(stack: Stack) -> None:
    """5 % held back: seen as reordering, and few are sent again for it."""
    counted, gate = send(stack, reorder=0.05)
    assert gate["reordered"] > 30
    assert counted["reordering_seen"] > 0
    assert counted.get("retransmissions", 0) <= gate["reordered"] // 2
    assert not counted.get("rto_timeouts", 0)


@pytest.mark.rfc("RFC 2883 4")
def test_duplicates_are_told_by_dsack(stack: Stack) -> None:
    """5 % repeated by the network: the kernel says so, and nothing is sent again."""
    counted, gate = send(stack, dup=0.05)
    assert gate["duplicated"] > 30
    assert counted["dsacks_in"] > 0
    assert not counted.get("fast_retransmits", 0) and not counted.get("rto_timeouts", 0)
