"""Carries a lesson out, block by block, and tells a `Show` what there is to show.

Commands that end with `&` are jobs, numbered from 1; their lines are shown when they begin, at `wait` (which waits for
all of them) and at `kill -INT %N` (which waits for that one), so that outputs never mix.
"""

from __future__ import annotations

import re
import signal
import time
from typing import Protocol

from levelip.lessons.source import File, Lesson, Prose, Question, Session
from levelip.lessons.ways import WorldError
from levelip.lessons.world import World

_KILL = re.compile(r"kill -(\w+) %(\d+)")
_RAISED = re.compile(r"\w+(?:Error|Exception)\b")
_NO_COMMAND = (126, 127)
"""Exit statuses of the shell where there is no such command."""
SETTLE_S = 1.0
"""Before a job is interrupted: what has happened is on its way to it."""


class Show(Protocol):
    """What sees a lesson: a terminal, or a page."""

    def prose(self, text: str) -> None: ...

    def file(self, name: str, text: str) -> None: ...

    def question(self, text: str, answer: str) -> None: ...

    def begin_session(self, *, extra: bool) -> None: ...

    def command(self, line: str) -> None: ...

    def output(self, text: str) -> None: ...

    def end_session(self, *, extra: bool) -> None: ...


def carry_out(lesson: Lesson, world: World, show: Show) -> None:
    """All blocks of a lesson, in a world that has started. WorldError."""
    for block in lesson.blocks:
        match block:
            case Prose():
                show.prose(block.text)
            case File():
                world.write(block.name, block.text)
                show.file(block.name, block.text)
            case Question():
                show.question(block.text, block.answer)
            case Session():
                show.begin_session(extra=block.extra)
                for line in block.commands:
                    show.command(line)
                    if not block.extra:
                        show.output(perform(world, line))
                show.end_session(extra=block.extra)


def perform(world: World, line: str) -> str:
    """One command with its prompt (a shell's without one): what it printed. WorldError."""
    for side in ("ours", "peer"):
        if line.startswith(f"{side}>>> "):
            return world.python(side, line.removeprefix(f"{side}>>> "))
    command = line.removeprefix("$ ").strip()
    if command.endswith("&"):
        job = world.begin(command[:-1].strip())
        return job.said()
    if command == "wait":
        return "".join(job.wait() for job in world.jobs)
    if match := _KILL.fullmatch(command):
        number = int(match[2]) - 1
        if number >= len(world.jobs):
            return f"there is no job {match[2]}\n"
        time.sleep(SETTLE_S)
        world.jobs[number].signal(getattr(signal, f"SIG{match[1]}"))
        return world.jobs[number].wait() if match[1] in ("INT", "TERM", "KILL") else ""
    return world.run(command)[1]


def try_extras(lesson: Lesson, world: World) -> None:
    """Carry out what a reader may try at the end. WorldError if one of these commands is no good."""
    for block in lesson.blocks:
        if isinstance(block, Session) and block.extra:
            for line in block.commands:
                if line.startswith("$ "):
                    status, output = world.run(line.removeprefix("$ "))
                    bad = status in _NO_COMMAND or "Traceback" in output or "Usage: " in output
                else:
                    output = perform(world, line)
                    bad = bool(_RAISED.match(output))
                if bad:
                    raise WorldError(f"{line}\n{output}")
