"""The running stack as a source: a thread listens to the tap bus, another asks the processes, once a second.

What it takes is bounded. Records come in batches; the thread takes the next only when the server has stored the last,
so that what is too much stays in ZeroMQ's queue and then is left out by the publishers, who number what they send: the
page shows how many. What had to wait longer than `STALE_NS` is passed over, so that the page shows now and not a while
ago, and counted as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import zmq

from levelip.debug.tap import (
    AGAIN_S,
    PROCESSES,
    SEAMS,
    Notice,
    Record,
    Request,
    TapReader,
    one_side,
    time_of,
)
from levelip.frames.core import ControlError
from levelip.ipc.clock import StackClock
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.eventfields import connection_figures
from levelip.web.debugging import Stopping
from levelip.web.layers import Layers
from levelip.web.packets import KEEP
from levelip.web.source import Source
from levelip.web.worker import Worker, in_thread

READ_S = 0.1
POLL_S = 1.0
HELD_POLL_S = 0.4
RETRY_S = 1.0
STALE_NS = 2_000_000_000
HISTORY = 120
"""Polls whose rates of the seams are kept for pages that come later."""
STOP_S = 1.0
"""How long the threads may take to close what they have; whoever waits for a silent process is left behind."""
DETAILS = ("headers", "first128", "full")
DEFAULT_SEAMS = ("link", "ip-tcp")
T = TypeVar("T")
log = logging.getLogger("web")


class Live(Source):
    """The stack of a run directory, which need not run yet. Lives in one event loop, from `start` to `stop`."""

    def __init__(self, run: RunDirectory, *, keep: int = KEEP) -> None:
        super().__init__("live", "live", f"stack {run.name}", keep=keep)
        self.run = run
        self.origin = stack_now(run)
        self.wall = time.time_ns() - self.origin
        self.seams: tuple[str, ...] = DEFAULT_SEAMS
        self.events = True
        self.detail = "first128"
        self.listening = True
        self._wants = 0  # how often what is wanted changed
        self._heard: tuple[int, list[str]] = (0, [])  # the processes that are heard, by which of these
        self.lost: dict[str, int] = {}
        self.passed_over = 0
        self.rate = 0.0  # records a second
        self.state: dict[str, Any] = {}
        self.sockets: list[dict[str, Any]] = []
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)  # of each poll {"time": .., "seams": ..}
        self.polled = 0  # how often; a page sends what changed
        self.debug: dict[str, Any] | None = None
        self.layers = Layers(run)
        self.stopping = Stopping(run)
        self._asker = Worker("ask")
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._changed = threading.Event()
        self._counted = (time.monotonic(), 0)

    async def start(self) -> None:
        """Begin to listen and to ask."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._listen, name="tap", daemon=True)
        self._thread.start()
        self._poller = asyncio.create_task(self._poll())
        self._poller.add_done_callback(_end_on_fault)

    @property
    def ended(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._ended.is_set()

    def end(self) -> None:
        """Whoever waits for the stack gets an Ended, now and from now on; the threads are told to end."""
        self._ending.set()
        self._ended.set()

    async def stop(self) -> None:
        """End, and close what can be closed within twice STOP_S."""
        self.end()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError, Ended):
                await self._poller
        if self._thread is not None:
            await in_thread(self._thread.join, STOP_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._asker.call(self._close)
        self._asker.close()

    def _close(self) -> None:
        self.layers.close()
        self.stopping.close()

    async def ask(self, call: Any, *args: Any) -> Any:
        """Call a method of `layers` or `stopping` in their thread. Ended."""
        return await self.unless_ended(self._asker.call(call, *args))

    async def unless_ended(self, wanted: Awaitable[T]) -> T:
        """What comes of it; Ended, and it is cancelled, once `end` was called."""
        asked, ended = asyncio.ensure_future(wanted), asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Ended
            return asked.result()
        finally:
            asked.cancel()
            ended.cancel()

    def listen_for(self, seams: list[str], *, events: bool, detail: str, listening: bool) -> None:
        """Change what is listened for, from now on. ValueError for what does not exist."""
        if not set(seams) <= set(SEAMS):
            raise ValueError(f"seams are {', '.join(SEAMS)}")
        if detail not in DETAILS:
            raise ValueError(f"detail is one of {', '.join(DETAILS)}")
        self.seams = tuple(seam for seam in SEAMS if seam in seams)
        self.events, self.detail, self.listening = events, detail, listening
        self._wants += 1
        self._changed.set()

    @property
    def heard(self) -> list[str]:
        """The processes that are heard, by what is wanted now; of a stack that comes up, more and more."""
        wants, heard = self._heard
        return heard if wants == self._wants else []

    def settings(self) -> dict[str, Any]:
        """As `listen_for` takes them, and what was left out."""
        return {
            "seams": list(self.seams), "events": self.events, "detail": self.detail, "listening": self.listening,
            "heard": self.heard, "lost": self.lost, "passed_over": self.passed_over, "rate": self.rate,
        }  # fmt: skip

    def connections(self) -> list[dict[str, Any]]:
        """Those that tcp has now, then those that were seen and are gone."""
        now = {row["name"] for row in self.sockets}
        seen = super().connections()
        totals = {row["name"].partition("#")[0]: row for row in reversed(seen)}
        rows = [_with_totals(row, totals.get(row["name"])) for row in self.sockets]
        gone = [row for row in seen if row["name"].partition("#")[0] not in now]
        for row in gone:
            if row["state"] not in ("CLOSED", "TIME_WAIT"):
                row["state"] = "gone"  # how it ended was not seen
        return [*rows, *gone]

    # the processes

    async def _poll(self) -> None:
        while True:
            begun = time.monotonic()
            self.state = await self.ask(self.layers.poll)
            self.history.append({name: self.state[name] for name in ("time", "seams")})
            self._stands(await self.ask(self.stopping.state, False, self.layers.silent))
            self.sockets = await self.ask(self.layers.sockets)
            for row in self.sockets:
                if row["proto"] == "tcp" and row["state"] not in ("LISTEN", "TIME_WAIT"):
                    self.flows.know(
                        row["name"], out_wscale=row["rcv_wscale"], in_wscale=row["snd_wscale"], state=row["state"]
                    )
            self._count_rate(begun)
            self.polled += 1
            pause = HELD_POLL_S if self.state["held"] else POLL_S
            await asyncio.sleep(max(0.2, pause - (time.monotonic() - begun)))

    async def refresh(self) -> None:
        """Ask now, so that what was just changed is seen at the next tick."""
        self.state = {**self.state, "faults": await self.ask(self.layers.faults)}
        self._stands(await self.ask(self.stopping.state, True, self.layers.silent))
        self.polled += 1

    def _stands(self, debug: dict[str, Any] | None) -> None:
        self.debug = debug
        if debug is not None:
            self.state = {**self.state, "held": debug["held"]}

    def figures(self, conn: str) -> Mapping[str, Any]:
        """What `conn.NAME` in a filter means: a connection's figures as tcp told them last."""
        row = self.layers.rows.get(conn)
        return connection_figures(row) if row is not None else {}

    def _count_rate(self, now: float) -> None:
        then, before = self._counted
        total = self.packets.frames + self.packets.events
        if now > then:
            self.rate = (total - before) / (now - then)
        self._counted = now, total

    # the tap bus

    def _request(self) -> Request:
        sides = {**one_side(list(PROCESSES)), "tcp": ["ip-tcp", "tcp-gateway:in"]}
        sides["ip"] = [one for one in sides["ip"] if not one.startswith("ip-tcp")]  # in tcp's order, of tcp alone
        seams = {name: [one for one in own if one.partition(":")[0] in self.seams] for name, own in sides.items()}
        return Request(seams, list(PROCESSES) if self.events else [], self.detail, {})

    def _listen(self) -> None:
        """The thread, until `stop`. A fault of ours ends the server: a page that stands still must not look alive."""
        try:
            self._listen_anew()
        except BaseException:
            log.exception("listening to the tap bus")
            signal.raise_signal(signal.SIGTERM)

    def _listen_anew(self) -> None:
        """Listen, and again whenever what is wanted changes."""
        while not self._ending.is_set():
            self._changed.clear()
            wants = self._wants
            request = self._request()
            if not self.listening or not request.processes():
                self._changed.wait(READ_S)
                continue
            reader = TapReader(self.run, request, patience=AGAIN_S)  # others are not to wait for one that is silent
            before = dict(self.lost)
            try:
                reader.open(may_be_none=True)
                while not self._ending.is_set() and not self._changed.is_set():
                    self._heard = wants, reader.heard
                    records = reader.read(READ_S)
                    for name, number in reader.lost.items():
                        self.lost[name] = before.get(name, 0) + number
                    if records:
                        self._hand_over(records)
            except (ControlError, zmq.ZMQError) as error:
                log.info("not listening: %s", error)
                self._ending.wait(RETRY_S)
            finally:
                self._heard = wants, []
                reader.close()

    def _hand_over(self, records: list[Record | Notice]) -> None:
        """Wait until the server has stored them; old ones are passed over, with a notice that says how many."""
        stale = time.monotonic_ns() - STALE_NS
        fresh = [record for record in records if time_of(record) >= stale]
        if len(fresh) < len(records):
            missing = len(records) - len(fresh)
            self.passed_over += missing
            when = time_of(fresh[0]) if fresh else stale
            fresh.insert(0, Notice(when, f"{missing} passed over: the page was behind"))
        assert self._loop is not None
        stored = threading.Event()

        def store() -> None:
            try:
                self.take(fresh)
            finally:
                stored.set()

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(store)
            while not stored.wait(READ_S) and not self._ending.is_set():
                pass

    def take(self, records: list[Record | Notice]) -> None:
        """Store records, in the event loop."""
        self.packets.extend(records)
        add = self.flows.add
        for record in records:
            if not isinstance(record, Notice):
                add(record)


class Ended(ControlError):
    """The server ends, and waits for nothing any more."""

    def __init__(self) -> None:
        super().__init__("lvlip web ends")


def _end_on_fault(task: asyncio.Task[None]) -> None:
    """The server ends with the task that asks the processes, unless it was told to end."""
    if task.cancelled() or isinstance(task.exception(), Ended):
        return
    if (fault := task.exception()) is not None:
        log.error("asking the processes", exc_info=fault)
        signal.raise_signal(signal.SIGTERM)


def _with_totals(row: dict[str, Any], seen: dict[str, Any] | None) -> dict[str, Any]:
    """A TIME-WAIT record has no figures any more; what was seen of the connection has."""
    if row["state"] != "TIME_WAIT" or seen is None:
        return row
    totals = {name: seen[name] for name in ("received", "acked", "rtt", "retrans", "retrans_bytes")}
    return {**row, **totals, "cwnd": None, "ssthresh": None}


def stack_now(run: RunDirectory) -> int:
    """Stack time; of a stack that was never started, what it would be."""
    if not run.clock.exists():
        return time.monotonic_ns()
    clock = StackClock(run.clock)
    try:
        return clock.now()
    finally:
        clock.close()
