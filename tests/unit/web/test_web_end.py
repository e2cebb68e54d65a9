"""The end of the web view: whoever waits is told, and what waits for a silent process is left behind."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from levelip.frames.core import ControlError
from levelip.ipc.rundir import RunDirectory
from levelip.web import replay
from levelip.web.desk import Desk
from levelip.web.live import STOP_S, Ended, Live
from levelip.web.replay import Asked, Replay, ReplayError
from levelip.web.worker import Worker, in_thread
from tests.silent import silent_layers


@pytest.fixture
def silent(run: RunDirectory) -> Iterator[RunDirectory]:
    """A stack all of whose processes live, and none of which answers."""
    with silent_layers(run):
        yield run


def test_a_worker_makes_one_call_after_the_other() -> None:
    """In their order, in one thread; what one raises, its caller gets; one that was given up is not made."""
    made: list[int] = []
    go = threading.Event()

    def call(number: int) -> tuple[int, int]:
        assert go.wait(5)
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
    never = threading.Event()

    async def story() -> None:
        asked = asyncio.ensure_future(in_thread(never.wait))
        await asyncio.sleep(0.05)
        asked.cancel()

    begun = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - begun < 2
    (left,) = [one for one in threading.enumerate() if one.name == "wait"]
    assert left.daemon
    never.set()
    left.join(5)


def test_a_silent_stack_does_not_hold_the_end(silent: RunDirectory) -> None:
    """Five processes that do not answer may be waited for, for seconds each; the end comes within twice STOP_S, and who
    had asked is told at once."""

    async def story() -> None:
        live = Live(silent)
        await live.start()
        asked = asyncio.ensure_future(live.ask(live.stopping.hold, ""))
        await asyncio.sleep(0.3)
        live.end()
        begun = time.monotonic()
        with pytest.raises(Ended, match="lvlip web ends"):
            await asked
        assert time.monotonic() - begun < 0.5
        with pytest.raises(Ended):
            await live.ask(live.layers.poll)
        await live.stop()
        assert time.monotonic() - begun < 2 * STOP_S + 0.5

    begun = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - begun < 2 * STOP_S + 2, "nor does the loop wait for its threads"


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
            await asyncio.wait_for(question, 10)
        assert asked._checker is None

    asyncio.run(story())
