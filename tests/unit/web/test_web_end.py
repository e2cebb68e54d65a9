"""The end of the web view: whoever waits is told, and what waits for a silent process is left behind."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import signal
import sys
import threading

import pytest

from levelip.frames.core import ControlError
from levelip.ipc.rundir import LAYERS, RunDirectory
from levelip.web import replay
from levelip.web.desk import Desk
from levelip.web.live import Ended, Live
from levelip.web.replay import Asked, Replay, ReplayError
from levelip.web.security import Access
from levelip.web.server import make_server
from levelip.web.worker import Worker, in_thread
from tests.silent import silent_layers
from tests.unit.cli.cli_layer import FakeLayer


def test_a_worker_makes_one_call_after_the_other() -> None:
    """In their order, in one thread; what one raises, its caller gets; one that was given up is not made."""
    made: list[int] = []
    go = threading.Event()

    def call(number: int) -> tuple[int, int]:
        assert go.wait(60)
        made.append(number)
        if number == 2:
            raise ControlError("no")
        return number, threading.get_ident()

    async def story() -> None:
        worker = Worker("w")
        calls = [asyncio.ensure_future(worker.call(call, number)) for number in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        calls[2].cancel()
        await asyncio.sleep(0)
        go.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        worker.close()
        first, second, third, fourth = answers
        assert isinstance(second, ControlError) and isinstance(third, asyncio.CancelledError)
        assert isinstance(first, tuple) and isinstance(fourth, tuple) and first[1] == fourth[1] != threading.get_ident()
        assert made == [1, 2, 4]

    asyncio.run(story())


def test_no_thread_is_waited_for() -> None:
    """A call that does not come back holds neither the loop nor the interpreter."""
    made, never = threading.Event(), threading.Event()

    def wait_for_nobody() -> None:
        made.set()
        assert never.wait(100)

    async def story() -> None:
        asked = asyncio.ensure_future(in_thread(wait_for_nobody))
        await asyncio.to_thread(made.wait)
        asked.cancel()

    asyncio.run(story())
    (left,) = [one for one in threading.enumerate() if one.name == "wait_for_nobody"]
    assert left.daemon
    never.set()
    left.join()


def test_a_silent_stack_does_not_hold_the_end(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """Five processes that do not answer may be waited for, however long; the end comes all the same, while a thread
    still waits, and who had asked is told."""
    monkeypatch.setattr("levelip.web.layers.PAGE_S", 100.0)

    def asking() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "ask"]

    async def story() -> None:
        live = Live(run)
        await live.start()
        asked = asyncio.ensure_future(live.ask(live.stopping.hold, ""))
        while not asking():
            await asyncio.sleep(0.01)
        live.end()
        with pytest.raises(Ended, match="lvlip web ends"):
            await asked
        with pytest.raises(Ended):
            await live.ask(live.layers.poll)
        await live.stop()

    with silent_layers(run):
        asyncio.run(story())
        (left,) = asking()
    answering = [FakeLayer(run, name).start() for name in LAYERS]
    left.join()
    for layer in answering:
        layer.stop()


def test_a_file_that_is_closed_while_its_process_starts(run: RunDirectory) -> None:
    """The process is ended: nobody else would, and it would hold the server's output open."""

    async def story() -> None:
        desk = Desk(Live(run))
        asked = Asked([sys.executable, "-c", "import time; time.sleep(60)"], [])
        question = asyncio.ensure_future(asked.ask("steps"))
        await asyncio.sleep(0)
        await asked.close()
        with pytest.raises(ReplayError, match=r"closed|ended"):
            await question
        assert asked._process is None
        await desk.end()

    asyncio.run(story())


def test_a_recording_that_is_closed_while_its_check_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is ended likewise."""
    monkeypatch.setattr(replay, "python", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])

    async def story() -> None:
        asked = Replay([])
        question = asyncio.ensure_future(asked.check())
        await asyncio.sleep(0)
        await asked.close()
        with pytest.raises(ReplayError, match="closed"):
            await asyncio.wait_for(question, 60)
        assert asked._checker is None

    asyncio.run(story())


def test_what_is_kept_does_not_hold_the_end(run: RunDirectory) -> None:
    """The interpreter ends by looking through all objects for cycles, of which rows have none: not through these."""
    server = make_server(Desk(Live(run)), Access(8420))
    try:
        server.handle_exit(signal.SIGTERM, None)
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit and gc.get_freeze_count() > 1000
    finally:
        faulthandler.cancel_dump_traceback_later()
        gc.unfreeze()
