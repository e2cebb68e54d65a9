"""Bytes arrive whole over a bad network: packets lost, repeated, out of order, broken; on each seam, both ways."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system import streams
from tests.system.harness import Stack
from tests.system.listening import Listening
from tests.system.streams import KernelServer, digest, stream

SIZE = 300_000
LIMIT_S = 100.0
pytestmark = pytest.mark.timeout(300)
SEAMS = {"link": ["link"], "link-ip": ["link", "ip"], "ip-tcp": ["ip", "tcp"]}
"""Seam → the processes that apply its faults, each to what it takes in (docs/tracing.md)."""
MEANS = {"loss": "lost", "dup": "duplicated", "reorder": "reordered", "corrupt": "corrupted"}
PER_CENT = (2, 5, 10)
SEEDS = (7, 8, 9)


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The module's stack; its faults are taken away after each test."""
    yield shared_stack
    for layer in shared_stack.layers:
        shared_stack.ask(layer, "fault.clear")


def set_fault(stack: Stack, seam: str, **fault: Any) -> None:
    """Faults on a seam, in place of those it had."""
    for layer in SEAMS[seam]:
        stack.ask(layer, "fault.set", seam=seam, **{"direction": "both", **fault})


def done(stack: Stack, seam: str) -> list[dict[str, Any]]:
    """What the gates of a seam have done, one for each direction."""
    shown = itertools.chain.from_iterable(stack.ask(layer, "fault.show")["faults"] for layer in SEAMS[seam])
    return sorted((gate for gate in shown if gate["seam"] == seam), key=lambda gate: str(gate["direction"]))


def lost(stack: Stack) -> int:
    """Packets lost on purpose since the layers began, also by gates that are gone."""
    return sum(stack.counters(layer).get("drop.fault_loss", 0) for layer in stack.layers)


def exchange(stack: Stack, size: int = SIZE) -> float:
    """Our client and the kernel's server send each other a stream at the same time; how long that took, in s."""
    assert stack.namespace is not None
    start = time.monotonic()
    got: list[str] = []
    with KernelServer(stack.namespace, stack.host, lambda sock: got.append(streams.both_ways(sock, 1, size))) as server:
        ours = stack.submit(streams.app_both_ways, stack.host, server.port, 2, size)
        assert ours.result(LIMIT_S) == digest(stream(1, size))
    assert got == [digest(stream(2, size))]
    return time.monotonic() - start


@pytest.mark.matrix(sample=22)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("per_cent", PER_CENT)
@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("kind", MEANS)
def test_streams_survive(stack: Stack, kind: str, seam: str, per_cent: int, seed: int) -> None:
    """2 to 10 % of the packets of both directions lost, repeated, held back or broken: both streams arrive whole."""
    set_fault(stack, seam, **{kind: per_cent / 100}, seed=seed)
    exchange(stack)
    gates = done(stack, seam)
    assert [gate["direction"] for gate in gates] == ["down", "up"]
    assert sum(gate[MEANS[kind]] for gate in gates) > 0, f"nothing was {MEANS[kind]}: {gates}"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_direction_alone(stack: Stack, direction: str) -> None:
    """A fault toward the applications leaves the packets of the other direction alone, and the other way round."""
    set_fault(stack, "link-ip", loss=0.05, direction=direction, seed=3)
    exchange(stack)
    (gate,) = done(stack, "link-ip")
    assert gate["direction"] == direction
    assert gate["lost"] > 0


@pytest.mark.parametrize("seam", SEAMS)
def test_all_at_once(stack: Stack, seam: str) -> None:
    """2 % of each kind, together with a delay that changes from packet to packet."""
    kinds = dict.fromkeys(MEANS, 0.02)
    set_fault(stack, seam, **kinds, delay_ns=2_000_000, jitter_ns=1_000_000, seed=5)
    exchange(stack)


@pytest.mark.parametrize("seam", ["link", "ip-tcp"])
def test_why_names_the_fault_and_not_the_path(stack: Stack, seam: str) -> None:
    """Live, at the device and within: what we lost ourselves is the cause, and nothing is said of the path."""
    assert stack.namespace is not None
    set_fault(stack, seam, loss=0.05, seed=4)
    with KernelServer(stack.namespace, stack.host, lambda sock: streams.both_ways(sock, 1, SIZE)) as server:
        listening = Listening(stack, "why", str(server.port), "--json")
        assert stack.submit(streams.app_both_ways, stack.host, server.port, 2, SIZE).result(LIMIT_S)
        (story,) = [json.loads(line) for line in listening.stop(status=(1,)).splitlines()]
    names = [finding["finding"] for finding in story["findings"]]
    assert names[0] == "own_loss", story
    assert not {"segment_lost", "peer_segment_lost", "vanished_inside"} & set(names), story


@pytest.mark.parametrize("seam", ["link", "ip-tcp"])
def test_a_flight_recorder_knows_what_the_fault_did(stack: Stack, seam: str) -> None:
    """Afterwards, with nobody listening meanwhile: which packets were lost and sent twice is recorded with them, by
    which `why --flight` names the same cause as live; and the recording's replay is the same."""
    assert stack.namespace is not None
    before = lost(stack)
    set_fault(stack, seam, loss=0.05, dup=0.05, seed=4)
    with KernelServer(stack.namespace, stack.host, lambda sock: streams.both_ways(sock, 1, SIZE)) as server:
        assert stack.submit(streams.app_both_ways, stack.host, server.port, 2, SIZE).result(LIMIT_S)
    for layer in stack.layers:
        stack.ask(layer, "fault.clear")
    told = stack.lvlip("why", str(server.port), "--flight", "--json", check=False, timeout=LIMIT_S)
    assert told.returncode == 1, told.stderr
    (story,) = [json.loads(line) for line in told.stdout.splitlines()]
    said = {finding["finding"]: finding["says"] for finding in story["findings"]}
    assert "own_loss" in said, story  # what was sent twice is told of only where something came of it
    assert not {"segment_lost", "peer_segment_lost", "vanished_inside"} & set(said), story
    counts = re.findall(r"(\d+) at", said["own_loss"])
    assert 0 < sum(int(count) for count in counts) <= lost(stack) - before, said
    flown = stack.directory / f"flown-{seam}"
    stack.lvlip("record", "dump", str(flown))
    replayed = stack.lvlip("replay", str(flown), timeout=LIMIT_S)
    assert replayed.stdout.count(": the same") == len(stack.layers), replayed.stdout
    found = stack.lvlip("replay", str(flown / "link.rec" if seam == "link" else flown / "tcp.rec"),
                        "--goto", "reason == fault_loss", "-e", "next 0", check=False)  # fmt: skip
    assert "lost on purpose (lvlip fault)" in found.stdout, found


def test_a_delay_is_seen_in_the_round_trip_time(stack: Stack) -> None:
    """25 ms each way make 50 ms in echo replies, and in what TCP measures; nothing is lost by it."""
    set_fault(stack, "link", delay_ns=25_000_000)
    times = [stack.ask("ip", "ping", dst=stack.host, timeout_ms=25_000)["rtt_ns"] for _ in range(10)]
    assert 50_000_000 <= min(times) < 1_000_000_000, times
    exchange(stack)
    assert sum(gate["lost"] + gate["overflowed"] for gate in done(stack, "link")) == 0


def test_a_rate_bounds_the_throughput(stack: Stack) -> None:
    """10 Mbit/s each way: 1 MB both ways at once takes 0.8 s at least, and the queue of the limit drops the rest."""
    set_fault(stack, "link", rate_bps=10_000_000)
    assert exchange(stack, 1_000_000) >= 0.8


def test_the_same_seed_meets_the_same_packets(stack: Stack) -> None:
    """Echo requests one after the other: which are lost is decided by the seed, and differs for another one."""
    for port in {row["remote_port"] for row in stack.ask("tcp", "ss")["sockets"]} - {0}:
        stack.wait_ended(port)  # of tests before: packets of theirs would draw numbers, too

    def fate() -> bool:
        """Of one request: whether it and its answer pass. One that is late was lost only if a gate says so."""
        before = done(stack, "link-ip")
        answered = "rtt_ns" in stack.ask("ip", "ping", dst=stack.host, timeout_ms=60)

        def known() -> bool:
            (down, up), (down_before, up_before) = done(stack, "link-ip"), before
            lost = down["lost"] > down_before["lost"]
            return down["packets"] > down_before["packets"] and (lost or up["packets"] > up_before["packets"])

        stack.wait_until(known, "the request is lost, or its answer comes")
        return answered or sum(gate["lost"] for gate in done(stack, "link-ip")) == sum(gate["lost"] for gate in before)

    def fates(seed: int) -> list[bool]:
        set_fault(stack, "link-ip", loss=0.3, seed=seed)
        return [fate() for _ in range(25)]

    first = fates(11)
    assert True in first and False in first
    assert fates(11) == first
    assert fates(12) != first
