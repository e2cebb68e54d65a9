"""A lesson as a page of Markdown (docs/tutorial), and what of a page may differ from run to run."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from levelip.lessons.source import QUESTION, Lesson, lessons

HEAD: Final = "<!-- Made from levelip/lessons/{file} by scripts/tutorial.py; outputs are those of a run. -->\n"
VARIES: Final = (
    r"\b\d\d:\d\d:\d\d(?:\.\d{6})?\b",  # times of the day
    r"\b(?:seq|ack) \d{6,}(?::\d{6,})?\b",  # absolute sequence numbers: relative ones of a lesson are smaller
    r"\b(?:device|link|ip|tcp|gateway|tool)-[0-9a-f]{5}-\d+\b",  # ids of frames
    r"\bpid \d+\b",
    r"(/\S*/lv\w{8})/here\b",
)
"""What differs in every lesson."""


class Page:
    """A `Show` that writes a page."""

    def __init__(self, lesson: Lesson) -> None:
        self._parts = [
            HEAD.format(file=lesson.file),
            f"# {lesson.number}. {lesson.title}\n\n",
            f"Run it: `lvlip lesson {lesson.number}`\n\n",
        ]

    @property
    def text(self) -> str:
        """The page."""
        return "".join(self._parts).rstrip("\n") + "\n"

    def prose(self, text: str) -> None:
        self._parts.append(f"{text}\n\n")

    def file(self, name: str, text: str) -> None:
        self._parts.append(f"`{name}`:\n\n```python\n{text}```\n\n")

    def question(self, text: str, answer: str) -> None:
        summary = "<details><summary>Answer</summary>"
        self._parts.append(f"{QUESTION}{text}\n\n{summary}\n\n{answer}\n\n</details>\n\n")

    def begin_session(self, *, extra: bool) -> None:
        self._parts.append("```console\n")

    def command(self, line: str) -> None:
        self._parts.append(f"{line}\n")

    def output(self, text: str) -> None:
        if text:
            lines = text.rstrip("\n").splitlines()
            self._parts.append("".join(f"{line.rstrip()}\n" for line in lines))

    def end_session(self, *, extra: bool) -> None:
        self._parts.append("```\n\n")


def index() -> str:
    """docs/tutorial/README.md."""
    text = (files("levelip.lessons") / "README.md").read_text(encoding="utf-8")
    rows = "".join(f"{one.number}. [{one.title}]({one.file})\n" for one in lessons().values())
    return text.replace("{lessons}\n", rows)


def normal(lesson: Lesson, text: str) -> str:
    """A page with `#` for what differs from run to run."""
    for pattern in (*VARIES, *lesson.varies):
        text = re.sub(pattern, _blank, text, flags=re.MULTILINE)
    return text


def _blank(match: re.Match[str]) -> str:
    """The groups of a match made `#`, or all of it where it has none."""
    if not match.re.groups:
        return "#"
    text, start = match[0], match.start()
    for number in range(match.re.groups, 0, -1):
        if match[number] is not None:
            text = text[: match.start(number) - start] + "#" + text[match.end(number) - start :]
    return text
