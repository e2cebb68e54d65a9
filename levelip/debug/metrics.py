"""A stack's counters and gauges for Prometheus: asked of the processes at each scrape, by names of its conventions.

    levelip_process_up{process}            1 if it runs and answers        levelip_neighbour_up{process,neighbour}
    levelip_process_start_time_seconds     levelip_process_cpu_seconds_total   levelip_process_resident_memory_bytes
    levelip_process_restarts_total         seen since this exporter began  levelip_stack_held
    levelip_drops_total{process,reason,severity}                           levelip_queue_frames{process,neighbour,where}
    levelip_tcp_connections{state}         levelip_tcp_half_open, _accept_queue, _orphans
    levelip_gateway_clients, _sockets      levelip_PROCESS_COUNTER_total   all other counters, as `lvlip stat` has them

A scrape costs three small requests a process, and tcp a look at each connection's state; answers are kept for
`KEEP_S`, so that several scrapers cost no more than one, and silent processes are waited for `SCRAPE_S` at most, all
together.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from levelip import __version__
from levelip.debug.tap import PROCESSES
from levelip.frames.core import ControlError
from levelip.host.usage import usage
from levelip.ipc.control import ControlClient, ask_all
from levelip.ipc.patience import SCRAPE_S
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.reasons import lookup

KEEP_S = 1.0
_ODD = re.compile(r"[^a-zA-Z0-9_]")
_DROP = "drop."
_REQUESTS = (("status", PROCESSES), ("counters", PROCESSES), ("totals", ("tcp",)), ("clients", ("gateway",)))
"""What is asked, one after the other, and of whom."""


class StackCollector(Collector):
    """Metrics of one stack. Safe for several threads: one asks, the others wait for its answer."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._kept: list[Metric] = []
        self._kept_at = float("-inf")
        self._epochs: dict[str, int] = {}
        self._restarts = dict.fromkeys(PROCESSES, 0)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: registering asks nobody."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families."""
        with self._lock:
            if time.monotonic() - self._kept_at > KEEP_S:
                self._kept = list(self._ask_all())
                self._kept_at = time.monotonic()
            return self._kept

    def _ask_all(self) -> Iterable[Metric]:
        began = time.monotonic()
        facts = self._facts()
        yield from self._processes(facts)
        yield from _queues(facts)
        yield from _counters(facts)
        yield from _tcp(facts["tcp"].get("totals"))
        yield from _gateway(facts["gateway"].get("clients"))
        info = GaugeMetricFamily("levelip_build_info", "The version of the exporter.", labels=["version", "stack"])
        info.add_metric([__version__, self._run.name], 1)
        yield info
        took = time.monotonic() - began
        yield GaugeMetricFamily("levelip_scrape_duration_seconds", "How long asking the processes took.", value=took)

    def _facts(self) -> dict[str, dict[str, Any]]:
        """What each process says of itself; what it did not answer is missing. All are asked at once: a scraper waits
        for one that is silent, but not for one after the other."""
        facts: dict[str, dict[str, Any]] = {process: {"pid": self._run.holder(process)} for process in PROCESSES}
        clients = {process: ControlClient(self._run, process) for process, one in facts.items() if one["pid"]}
        try:
            for request, asked in _REQUESTS:
                wanted = {process: clients[process] for process in asked if process in clients}
                with contextlib.suppress(ControlError):  # refused: by another version
                    answers, silent = ask_all(wanted, request, lambda _: SCRAPE_S)
                    for process, answer in answers.items():
                        facts[process][request] = answer
                    for process in silent:  # that it is down is what is told
                        del clients[process]
        finally:
            for client in clients.values():
                client.close()
        for process, one in facts.items():
            if (status := one.get("status")) is not None:
                before = self._epochs.get(process)
                if before is not None and before != status["epoch"]:
                    self._restarts[process] += 1
                self._epochs[process] = status["epoch"]
        return facts

    def _processes(self, facts: dict[str, dict[str, Any]]) -> Iterable[Metric]:
        label = ["process"]
        up = GaugeMetricFamily("levelip_process_up", "Whether the process runs and answers.", labels=label)
        ready = GaugeMetricFamily("levelip_process_ready", "Whether it waits for no neighbour.", labels=label)
        start = GaugeMetricFamily("levelip_process_start_time_seconds", "When it started, since 1970.", labels=label)
        cpu = CounterMetricFamily("levelip_process_cpu_seconds", "CPU time, user and system.", labels=label)
        memory = GaugeMetricFamily("levelip_process_resident_memory_bytes", "Resident memory.", labels=label)
        restarts = CounterMetricFamily(
            "levelip_process_restarts", "Starts seen since this exporter began, but the first.", labels=label
        )
        held = False
        for process, one in facts.items():
            status = one.get("status")
            up.add_metric([process], status is not None)
            restarts.add_metric([process], self._restarts[process])
            if status is not None:
                held = held or bool(status["held"])
                ready.add_metric([process], bool(status["ready"]))
                start.add_metric([process], time.time() - status["uptime_ns"] / 1e9)
            used = usage(one["pid"]) if one["pid"] else None
            if used is not None:
                cpu.add_metric([process], used[0])
                memory.add_metric([process], used[1])
        yield from (up, ready, start, cpu, memory, restarts)
        yield GaugeMetricFamily("levelip_stack_held", "Whether stack time stands (lvlip hold).", value=held)


def _queues(facts: dict[str, dict[str, Any]]) -> Iterable[Metric]:
    labels = ["process", "neighbour"]
    up = GaugeMetricFamily("levelip_neighbour_up", "Whether a process hears its neighbour.", labels=labels)
    frames = GaugeMetricFamily(
        "levelip_queue_frames", "Frames that wait for a neighbour: refused by its pipe, or still in the core.",
        labels=[*labels, "where"],
    )  # fmt: skip
    for process, one in facts.items():
        for neighbour, fact in one.get("status", {}).get("neighbours", {}).items():
            up.add_metric([process, neighbour], bool(fact["up"]))
            frames.add_metric([process, neighbour, "pipe"], fact.get("waiting", 0))
        for neighbour, count in one.get("totals", {}).get("waiting", {}).items():
            frames.add_metric([process, neighbour, "core"], count)
    yield from (up, frames)


def _counters(facts: dict[str, dict[str, Any]]) -> Iterable[Metric]:
    drops = CounterMetricFamily(
        "levelip_drops", "What was discarded, by reason (lvlip explain REASON).",
        labels=["process", "reason", "severity"],
    )  # fmt: skip
    families: dict[str, CounterMetricFamily] = {}
    for process, one in facts.items():
        for name, value in sorted(one.get("counters", {"counters": {}})["counters"].items()):
            if name.startswith(_DROP):
                reason = lookup(name.removeprefix(_DROP))
                severity = reason.severity.value if reason is not None else ""
                drops.add_metric([process, name.removeprefix(_DROP), severity], value)
                continue
            full = f"levelip_{process}_{_ODD.sub('_', name)}"
            families[full] = CounterMetricFamily(full, f"{process}'s counter {name}.", value=value)
    yield drops
    yield from families.values()


def _tcp(totals: dict[str, Any] | None) -> Iterable[Metric]:
    if totals is None:
        return
    states = GaugeMetricFamily("levelip_tcp_connections", "Connections by state (RFC 9293 3.3.2).", labels=["state"])
    for state, count in totals["states"].items():
        states.add_metric([state], count)
    yield states
    for name, means, key in (
        ("half_open", "Connections in a listener's SYN queue.", "half_open"),
        ("accept_queue", "Connections that wait for accept().", "untaken"),
        ("orphans", "Connections that nobody owns any more.", "orphans"),
    ):
        yield GaugeMetricFamily(f"levelip_tcp_{name}", means, value=totals[key])


def _gateway(answer: dict[str, Any] | None) -> Iterable[Metric]:
    if answer is None:
        return
    clients = answer["clients"]
    yield GaugeMetricFamily("levelip_gateway_clients", "Client sessions.", value=len(clients))
    sockets = sum(one["sockets"] for one in clients)
    yield GaugeMetricFamily("levelip_gateway_sockets", "Sockets of all clients.", value=sockets)


def registry(run: RunDirectory) -> CollectorRegistry:
    """A registry of a stack's metrics and nothing else."""
    made = CollectorRegistry()
    made.register(StackCollector(run))
    return made
