"""Processes that answer what the page asks about files: of recordings `python -m simulation.replay --serve`, since that
takes the cores; of captures stories.py.

One is started at the first question and lives as long as the files are open. It may be given anything to chew on, so
each answer has a time; one that does not come ends the process, and the next question starts another. Both processes
have a session of their own: Ctrl-C in the terminal is for the server, which ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from levelip.debug.programs import environment, python

ANSWER_S = 120.0
CHECK_S = 600.0
_MAX_ANSWER = 64 << 20
_MODULE = "simulation.replay"


class ReplayError(Exception):
    """A question that the replay cannot answer; the text says why."""


class Asked:
    """A process that answers questions about files, one line of JSON each: `command`, and their paths. `directory`:
    where they lie if they are ours alone; gone with `close`."""

    def __init__(
        self, command: Sequence[str], paths: Sequence[Path], directory: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        self.paths = list(paths)
        self.closed = False
        self._command = list(command)
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def ask(self, do: str, **args: Any) -> Any:
        """One answer; questions wait for each other. ReplayError."""
        async with self._turn:
            if self.closed:
                raise ReplayError("that file is closed")
            process = await self._started()
            number = next(self._numbers)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await _exchange(process, {"id": number, "do": do, **args})
            except TimeoutError:
                await self._end()
                raise ReplayError(f"it has not answered within {ANSWER_S:g} s, and was ended") from None
            except BaseException:  # also a page that went away: the answer would be taken for the next one's
                await self._end()
                raise
        if "error" in answer:
            raise ReplayError(str(answer["error"]))
        return answer["ok"]

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                *self._command, *map(str, self.paths), stdin=pipe, stdout=pipe, limit=_MAX_ANSWER, env=environment(),
                start_new_session=True,
            )  # fmt: skip
            if self.closed:  # meanwhile: nobody else would end it
                await self._end()
                raise ReplayError("that file is closed")
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await _kill(process)

    async def close(self) -> None:
        """End what runs, and remove files of ours."""
        self.closed = True
        await self._end()
        if self._directory is not None:
            self._directory.cleanup()


class Replay(Asked):
    """The recordings of one stack, run again."""

    def __init__(self, paths: Sequence[Path], directory: tempfile.TemporaryDirectory[str] | None = None) -> None:
        super().__init__(python(_MODULE, "--serve", "--"), paths, directory)
        self._checker: asyncio.subprocess.Process | None = None
        self._checked: list[dict[str, Any]] | None = None
        self._check_turn = asyncio.Lock()

    async def check(self) -> list[dict[str, Any]]:
        """Whether all of it is the same again, a row a layer, as `lvlip replay --json` has it. Made once."""
        async with self._check_turn:
            if self._checked is None:
                self._checked = await self._check()
            return self._checked

    async def _check(self) -> list[dict[str, Any]]:
        if self.closed:
            raise ReplayError("that file is closed")
        pipe = asyncio.subprocess.PIPE
        arguments = python(_MODULE, "--json", "--", *map(str, self.paths))
        process = self._checker = await asyncio.create_subprocess_exec(
            *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment(),
            start_new_session=True,
        )  # fmt: skip
        try:
            if self.closed:  # meanwhile: nobody else would end it
                raise ReplayError("that file is closed")
            async with asyncio.timeout(CHECK_S):
                told, wrong = await process.communicate()
        except TimeoutError:
            raise ReplayError(f"the replay has not ended within {CHECK_S:g} s; it was ended") from None
        finally:
            await _kill(process)
            self._checker = None
        if process.returncode not in (0, 1):
            said = wrong.decode(errors="replace").strip().splitlines()
            raise ReplayError(said[-1] if said else "the replay was ended")
        return [msgspec.json.decode(line) for line in told.splitlines()]

    async def close(self) -> None:
        if self._checker is not None:
            with contextlib.suppress(ProcessLookupError):
                self._checker.kill()
        await super().close()


async def _exchange(process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(request) + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        answer: dict[str, Any] = msgspec.json.decode(line)
    except (OSError, ValueError) as error:  # ValueError: larger than the limit, or no JSON since it ended
        raise ReplayError("what looked for it has ended without an answer; the server's log says why") from error
    if answer.get("id") != request["id"]:
        raise ReplayError("another question was answered")
    return answer


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Ended, and waited for."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
