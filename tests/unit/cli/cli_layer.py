"""A layer as tools see it: lock, control socket and tap bus of levelip.ipc, and answers that a test gives."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from levelip.frames.core import ControlError
from levelip.ipc.control import ControlServer
from levelip.ipc.memory import Memory
from levelip.ipc.rundir import RunDirectory
from levelip.ipc.tap import Tap
from levelip.tracing.events import Event
from tests.waiting import until

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]
_POLL_MS = 5
_PATIENCE_S = 60.0


class FakeLayer:
    """Runs in a thread from `start` to `stop`. `answers`: command → answer, or a function of its arguments."""

    def __init__(self, run: RunDirectory, name: str, answers: dict[str, Answer] | None = None) -> None:
        self.name = name
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._run = run
        self._answers: dict[str, Answer] = {"status": self._status, **(answers or {})}
        self._orders: queue.Queue[Callable[[], None]] = queue.Queue()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._tap: Tap | None = None

    def start(self) -> FakeLayer:
        self._thread.start()
        assert self._ready.wait(_PATIENCE_S)
        return self

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_PATIENCE_S)

    def frames(self, seam: str, direction: str, frames: Sequence[Any], stack: int = 0) -> None:
        """Publish frames, if somebody listens."""
        self._order(
            lambda: self._publish(lambda tap: tap.frames and tap.publish_frames(seam, direction, frames, stack))
        )

    def events(self, *events: Event) -> None:
        """Publish events, if somebody listens."""
        self._order(lambda: self._publish(lambda tap: tap.interest and tap.publish_events(events)))

    def order(self, what: Callable[[Tap], Any]) -> None:
        """Run something with the tap in the layer's thread, and wait for it."""
        self._order(lambda: self._publish(what))

    def hold_back(self, what: Callable[[Tap], Any]) -> None:
        """Publish something that is not sent before somebody asks for it."""
        assert self._tap is not None
        tap = self._tap
        self._order(lambda: what(tap))

    def wait_for_listener(self) -> None:
        """Until a tool's subscription is there."""
        self._wait(True)

    def wait_for_nobody(self) -> None:
        """Until the subscriptions of tools that have ended are gone, so that only the next one's is waited for."""
        self._wait(False)

    def _wait(self, wanted: bool) -> None:
        found: list[bool] = []

        def as_wanted() -> bool:
            self.order(lambda tap: found.append(bool(tap.frames or tap.interest)))
            return found[-1] == wanted

        until(as_wanted, "a tool listens" if wanted else "nobody listens any more", timeout=_PATIENCE_S, every=0.005)

    def _publish(self, what: Callable[[Tap], Any]) -> None:
        assert self._tap is not None
        what(self._tap)
        self._tap.flush()

    def _order(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._orders.put(run)
        assert done.wait(_PATIENCE_S)

    def _status(self, _args: dict[str, Any]) -> dict[str, Any]:
        return {
            "process": self.name, "pid": 4242, "version": "0.1.0", "epoch": 7, "uptime_ns": 61_000_000_000,
            "ready": True, "waiting_for": [], "neighbours": {}, "held": False,
        }  # fmt: skip

    def _serve(self) -> None:
        lock = self._run.lock(self.name)
        context: zmq.Context[Any] = zmq.Context()
        memory = Memory(self._run.memory, self._run.sessions)
        self._tap = tap = Tap(context, f"ipc://{self._run.tap(self.name)}", self.name, memory)
        control = ControlServer(context, f"ipc://{self._run.control(self.name)}", self._answer)
        self._ready.set()
        try:
            while not self._stopping.is_set():
                zmq.zmq_poll([(control.socket, zmq.POLLIN), (tap.socket, zmq.POLLIN)], _POLL_MS)
                tap.subscriptions()
                control.serve()
                while not self._orders.empty():
                    self._orders.get()()
        finally:
            control.close()
            tap.close()
            context.destroy(linger=0)
            memory.close()
            import os

            os.close(lock)

    def _answer(self, _token: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, args))
        assert self._tap is not None
        if name == "tap.listen":
            return self._tap.listen(args)
        if name == "tap.confirm":
            return self._tap.confirm(args)
        answer = self._answers.get(name)
        if answer is None:
            raise ControlError(f"{self.name} knows no command {name!r}")
        return answer(args) if callable(answer) else answer
