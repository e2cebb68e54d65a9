"""A lesson's file: Markdown, in which blocks of commands are carried out.

    # The title
    <!-- set: tcp.rto_min_ms=1000 -->             settings of the stack of this lesson
    <!-- varies: cwnd (\\d+) -->                    what may differ from run to run (page.py); may be repeated

    <!-- kernel: why -->                          why it cannot be shown with a second stack as the other side

    Prose, with the RFC's section.

    ```python drop.py                             a file that is written into the lesson's directory
    ```
    ```session                                    commands, each shown before what it says
    ours>>> s = socket.create_connection(("10.0.0.1", 80))       Python of a program that uses the stack
    peer>>> listener = socket.create_server(("10.0.0.1", 80))    Python of a program on the other side
    $ lvlip ss -ti                                               a shell's command; with & a job (runner.py)
    ```
    **What do you expect?** a question            and, as the next paragraph, its answer:
    **Answer.** ...

    ```try                                        what a reader may do at the end: shown, and carried out by the test
    ```
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

QUESTION: Final = "**What do you expect?** "
ANSWER: Final = "**Answer.** "
PROMPTS: Final = ("ours>>> ", "peer>>> ", "$ ")
_NAME = re.compile(r"(\d+)-([a-z-]+)\.md")
_NOTE = re.compile(r"<!-- (set|varies|kernel): (.*) -->\n*")
_FENCE = re.compile(r"^```(\w+) *(.*)\n((?:.*\n)*?)```\n", re.MULTILINE)


class BadLesson(ValueError):
    """A lesson's file is not as it has to be; the text says where."""


@dataclass(frozen=True, slots=True)
class Prose:
    """Paragraphs of Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What the reader is asked before it is seen."""

    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class File:
    """A program that the lesson uses."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Session:
    """Commands, each with its prompt. `extra`: those to try at the end, not carried out with the others."""

    commands: tuple[str, ...]
    extra: bool = False


Block = Prose | Question | File | Session


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson. `varies`: expressions, whose groups (or which as a whole) differ from run to run. `kernel`: why its
    other side has to be the kernel; empty: it need not be."""

    number: int
    name: str
    title: str
    blocks: tuple[Block, ...]
    settings: tuple[str, ...]
    varies: tuple[str, ...]
    kernel: str = ""

    @property
    def file(self) -> str:
        """Name of the page in docs/tutorial."""
        return f"{self.number}-{self.name}.md"


def lessons() -> dict[int, Lesson]:
    """All lessons, by number."""
    found = {}
    for entry in files("levelip.lessons").iterdir():
        if match := _NAME.fullmatch(entry.name):
            number = int(match[1])
            found[number] = parse(number, match[2], entry.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def parse(number: int, name: str, text: str) -> Lesson:
    """A lesson's file. BadLesson."""
    heading, _, rest = text.partition("\n")
    if not heading.startswith("# "):
        raise BadLesson(f"lesson {number}: the first line is no heading")
    notes = _NOTE.findall(rest)
    blocks = tuple(_blocks(number, _NOTE.sub("", rest)))
    return Lesson(
        number,
        name,
        heading[2:],
        blocks,
        tuple(word for kind, value in notes if kind == "set" for word in value.split()),
        tuple(value for kind, value in notes if kind == "varies"),
        " ".join(value for kind, value in notes if kind == "kernel"),
    )


def _blocks(number: int, text: str) -> Iterator[Block]:
    at = 0
    for fence in _FENCE.finditer(text):
        yield from _prose(number, text[at : fence.start()])
        at = fence.end()
        kind, name, body = fence[1], fence[2], fence[3]
        if kind == "python" and name:
            yield File(name, body)
        elif kind in ("session", "try"):
            commands = tuple(body.splitlines())
            for command in commands:
                if not command.startswith(PROMPTS):
                    raise BadLesson(f"lesson {number}: a command begins with one of {', '.join(PROMPTS)}: {command!r}")
            yield Session(commands, extra=kind == "try")
        else:
            yield Prose(fence[0].rstrip("\n"))
    yield from _prose(number, text[at:])


def _prose(number: int, text: str) -> Iterator[Block]:
    paragraphs = [part for part in text.strip("\n").split("\n\n") if part.strip()]
    kept: list[str] = []
    while paragraphs:
        paragraph = paragraphs.pop(0).strip("\n")
        if not paragraph.startswith(QUESTION):
            kept.append(paragraph)
            continue
        if kept:
            yield Prose("\n\n".join(kept))
            kept = []
        if not paragraphs or not paragraphs[0].startswith(ANSWER):
            raise BadLesson(f"lesson {number}: a question without an answer: {paragraph!r}")
        yield Question(paragraph.removeprefix(QUESTION), paragraphs.pop(0).strip("\n").removeprefix(ANSWER))
    if kept:
        yield Prose("\n\n".join(kept))
