"""Calls that wait for somebody, made in threads for which nobody waits: the server ends in time, whatever they do.

The threads of a ThreadPoolExecutor, asyncio's own among them, are joined when the loop or the interpreter ends; one
that waits for a silent process would hold the end until its patience is over.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Worker:
    """One thread, which makes one call after the other; it begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._calls = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, call: Callable[..., Any], *args: Any) -> Any:
        """What `call(*args)` returns or raises. One that is cancelled before its turn is not made; in its turn, it is
        made to its end, and what came of it is lost."""
        future: Future[Any] = Future()
        self._calls.put((future, call, args))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """The thread ends after what it was asked until now."""
        self._calls.put(None)

    def _run(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call, args = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    """One call in a thread of its own."""
    worker = Worker(getattr(call, "__name__", "call"))
    try:
        return await worker.call(call, *args)
    finally:
        worker.close()
