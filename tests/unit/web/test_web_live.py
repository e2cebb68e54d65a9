"""The running stack as a source: processes asked, records taken, what is too much left out and told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from levelip.frames.packet import Segment
from levelip.ipc.control import ControlClient
from levelip.ipc.rundir import LAYERS, RunDirectory
from levelip.tracing.events import Event
from levelip.web.debugging import Stopping
from levelip.web.layers import QUIET_S, Layers
from levelip.web.live import STALE_NS, Live
from tests import waiting
from tests.silent import silent_layers
from tests.unit.cli.cli_layer import FakeLayer
from tests.unit.web.webrecords import MS, NAME, OURS, THEIRS, anew, segment

HEAD = bytes([0, 80, 0x12, 0x67]) + bytes(8) + bytes([0x50, 0x10]) + bytes(6)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of these tests come from threads: on a busy machine they are stored late."""
    monkeypatch.setattr("levelip.web.live.STALE_NS", 10**12)


async def until(condition: Callable[[], object], what: str) -> None:
    """While the event loop goes on."""
    await asyncio.to_thread(waiting.until, condition, what)


def test_rates_restarts_and_drops(run: RunDirectory) -> None:
    """Counters become rates; another epoch is a restart, and its counters begin anew; drops have their reason."""
    counters = {"rx_packets": 100, "rx_bytes": 1000, "drop.tcp_checksum": 3}
    status = {
        "process": "link", "pid": 1, "version": "0", "epoch": 7, "uptime_ns": 10**9, "ready": False, "held": False,
        "waiting_for": ["ip"], "neighbours": {"ip": {"up": True, "epoch": 1, "waiting": 5}},
    }  # fmt: skip
    answers = {
        "status": lambda _: dict(status),
        "counters": lambda _: {"counters": dict(counters)},
        "fault.show": {"faults": []},
    }
    layer = FakeLayer(run, "link", answers).start()
    layers = Layers(run)
    try:
        begun = time.monotonic()
        first = layers.poll()
        polled = time.monotonic()
        link = first["layers"][0]
        assert (link["state"], link["waiting_for"], link["queues"], link["rates"]) == ("waits", ["ip"], {"ip": 5}, {})
        assert link["drops"][0]["name"] == "tcp_checksum" and "RFC" in link["drops"][0]["text"]
        assert [one["state"] for one in first["layers"][1:]] == ["stopped"] * 4
        counters["rx_packets"] = 200
        again = time.monotonic()
        second = layers.poll()
        longest, shortest = time.monotonic() - begun, again - polled
        assert 100 / longest <= second["seams"]["link"]["up_packets"] <= 100 / shortest
        status["epoch"], counters["rx_packets"] = 8, 5
        third = layers.poll()["layers"][0]
        assert third["restarts"] == 1 and third["rates"] == {}
    finally:
        layers.close()
        layer.stop()


def test_a_connection_that_becomes_time_wait_has_no_rate(run: RunDirectory) -> None:
    """Its record has no totals any more: what was sent before is not sent back."""
    row = {"sock": 1, "state": "ESTABLISHED", "local": "10.0.0.2", "local_port": 80, "remote": "10.0.0.1",
           "remote_port": 4711, "info": {"bytes_acked": 800_000, "bytes_received": 10}}  # fmt: skip
    layer = FakeLayer(run, "tcp", {"ss": lambda _: {"sockets": [dict(row)]}}).start()
    layers = Layers(run)
    try:
        anew(layers)
        row["info"] = {"bytes_acked": 900_000, "bytes_received": 10}
        (one,) = anew(layers)
        assert one["down"] > 0 and one["up"] == 0
        row["state"], row["info"] = "TIME_WAIT", {}
        (one,) = anew(layers)
        assert (one["up"], one["down"]) == (0, 0)
    finally:
        layers.close()
        layer.stop()


def test_rates_of_a_connection_by_tcps_clock(run: RunDirectory) -> None:
    """However late an answer comes, its figures are of the instant that tcp names; while stack time stands, no rate."""
    row = {"sock": 1, "state": "ESTABLISHED", "local": "10.0.0.2", "local_port": 80, "remote": "10.0.0.1",
           "remote_port": 4711, "info": {"bytes_received": 1000, "bytes_acked": 0}}  # fmt: skip
    told = {"now": 5_000_000_000, "sockets": [row]}
    layer = FakeLayer(run, "tcp", {"ss": lambda _: dict(told)}).start()
    layers = Layers(run)
    try:
        assert anew(layers)[0]["up"] == 0
        told["now"] = 7_500_000_000
        row["info"] = {"bytes_received": 126_000, "bytes_acked": 2500}
        (one,) = anew(layers)
        assert (one["up"], one["down"]) == (50_000, 1000)
        assert anew(layers)[0]["up"] == 0
    finally:
        layers.close()
        layer.stop()


def test_records_of_the_bus_become_rows(run: RunDirectory) -> None:
    """A listener is there within a moment; frames and events arrive in rows and in the flow model."""
    layer = FakeLayer(run, "tcp", {"ss": {"sockets": []}, "counters": {"counters": {}}}).start()

    async def story() -> None:
        live = Live(run)
        await live.start()
        try:
            await asyncio.to_thread(layer.wait_for_listener)
            frame = Segment(5, [], False, 0, 1, OURS, THEIRS, 6, 64, 0, HEAD, b"x" * 200, 2, 0)
            layer.frames("ip-tcp", "out", [frame], 10**9)
            layer.frames("tcp-gateway", "in", [frame], 10**9)
            layer.events(Event(10**9 + 1, "state", conn=NAME, data={"old": "LISTEN", "new": "SYN_RECEIVED"}))
            await until(lambda: live.packets.frames and live.packets.events, "a frame and an event are stored")
            assert live.packets.frames == 1, "tcp-gateway was not asked for"
            assert len(live.packets.record(0)[12]) == 128, "the first 128 bytes of its payload"
            assert live.flows.flows[NAME].state == "SYN_RECEIVED"
            live.listen_for(["tcp-gateway"], events=False, detail="headers", listening=True)
            await until(lambda: live.heard == ["tcp"], "tcp has confirmed what is wanted now")
            layer.frames("tcp-gateway", "in", [frame], 10**9)
            await until(lambda: live.packets.frames == 2, "the frame is stored")
            live.listen_for([], events=False, detail="headers", listening=False)
            await asyncio.to_thread(layer.wait_for_nobody)  # while nothing is wanted, nothing is made
        finally:
            await live.stop()

    try:
        asyncio.run(story())
    finally:
        layer.stop()


def test_what_is_old_is_passed_over_and_told(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that had to wait too long are not shown: the page shows now. How many they were stands in the rows."""
    monkeypatch.setattr("levelip.web.live.STALE_NS", STALE_NS)

    async def story() -> None:
        live = Live(run)
        live._loop = asyncio.get_running_loop()
        now = time.monotonic_ns()
        old, new = segment(now - STALE_NS - 500 * MS, "down"), segment(now + STALE_NS * 100, "down")
        await asyncio.to_thread(live._hand_over, [old, old, new])
        assert live.passed_over == 2 and live.packets.frames == 1
        assert live.packets.row(0, 0)[2:] == ["n", "2 passed over: the page was behind"]
        assert live.settings()["passed_over"] == 2

    asyncio.run(story())


def test_a_layer_that_does_not_answer_is_silent(run: RunDirectory, impatient: None) -> None:
    """A lock that is held, and no answer: shown as such, in bounded time."""
    lock = run.lock("ip")
    layers = Layers(run)
    try:
        begun = time.monotonic()
        states = {one["name"]: one["state"] for one in layers.poll()["layers"]}
        assert states["ip"] == "silent" and time.monotonic() - begun < 50
    finally:
        layers.close()
        os.close(lock)


def test_a_silent_layer_does_not_make_the_others_look_old(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """Once it was found silent, nothing that is asked each second waits long for it: not for its state, nor for what it
    holds. As soon as it answers it is no longer silent."""
    layers, stopping = Layers(run), Stopping(run)
    waits: list[float] = []
    wait_for = ControlClient.wait_for

    def noted(client: ControlClient, number: int, deadline: float) -> dict[str, Any] | None:
        waits.append(deadline - time.monotonic())
        return wait_for(client, number, deadline)

    try:
        with silent_layers(run):
            layers.poll()
            assert layers.silent == set(LAYERS)
            monkeypatch.setattr(ControlClient, "wait_for", noted)
            layers.poll()
            layers.sockets()
            layers.addons()
            debug = stopping.state(silent=layers.silent)
            assert debug is not None and not debug["held"]
            assert waits and max(waits) <= QUIET_S
            assert sum(wait for wait in waits if wait > 0) <= 25 * QUIET_S, "those that are asked at once wait together"
        monkeypatch.setattr("levelip.web.layers.QUIET_S", 60.0)  # a thread answers, once it has its turn
        layer = FakeLayer(run, "ip", {"counters": {"counters": {}}, "fault.show": {"faults": []}}).start()
        layers.poll()
        assert layers.silent == set()
        layer.stop()
    finally:
        layers.close()
        stopping.close()


def test_a_stack_that_went_down_neither_runs_nor_is_held(run: RunDirectory) -> None:
    """Though its clock stands there still."""
    stopping = Stopping(run)
    layer = FakeLayer(run, "ip", {"debug.state": {"queues": [], "breakpoints": {}, "next_deadline": None}}).start()
    try:
        debug = stopping.state()
        assert debug is not None and not debug["held"]
    finally:
        layer.stop()
    assert stopping.state() is None
    stopping.close()
