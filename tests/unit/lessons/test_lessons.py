"""The lessons' files: what is in each, how they are read, and what of a page may differ from run to run."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from levelip.cli.common import Stack
from levelip.cli.main import cli
from levelip.lessons import ways
from levelip.lessons.page import Page, index, normal
from levelip.lessons.source import BadLesson, File, Lesson, Prose, Question, Session, lessons, parse

TUTORIAL = Path(__file__).resolve().parents[3] / "docs" / "tutorial"
TEXT = """\
# A title

<!-- set: tcp.tlp=false tcp.rto_min_ms=500 -->
<!-- varies: took (\\d+) ms -->

Some prose.

**What do you expect?** A question?

**Answer.** An answer.

```python drop.py
x = 1
```

```session
ours>>> 1 + 1
$ lvlip ss
```

## Try it yourself

```try
$ lvlip stat
$ lvlip ss
```
"""


def test_a_lesson_is_read() -> None:
    """Title, settings, what varies, and each kind of block in its order."""
    lesson = parse(3, "x", TEXT)
    assert (lesson.title, lesson.settings) == ("A title", ("tcp.tlp=false", "tcp.rto_min_ms=500"))
    assert lesson.varies == (r"took (\d+) ms",)
    assert lesson.blocks == (
        Prose("Some prose."),
        Question("A question?", "An answer."),
        File("drop.py", "x = 1\n"),
        Session(("ours>>> 1 + 1", "$ lvlip ss")),
        Prose("## Try it yourself"),
        Session(("$ lvlip stat", "$ lvlip ss"), extra=True),
    )


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("# A title", "A title", "no heading"),
        ("**Answer.** An answer.\n\n", "", "without an answer"),
        ("$ lvlip ss\n```\n\n##", "lvlip ss\n```\n\n##", "begins with one of"),
    ],
)
def test_a_mistake_in_a_lesson_is_told(was: str, becomes: str, says: str) -> None:
    """A lesson without a heading, a question without an answer, a command without a prompt."""
    assert was in TEXT
    with pytest.raises(BadLesson, match=says):
        parse(3, "x", TEXT.replace(was, becomes))


def test_there_are_ten_and_the_index_names_them() -> None:
    """docs/tutorial has the index and a page for each lesson, and nothing else."""
    known = lessons()
    assert list(known) == list(range(1, 11))
    assert (TUTORIAL / "README.md").read_text(encoding="utf-8") == index()
    assert {path.name for path in TUTORIAL.iterdir()} == {"README.md", *(lesson.file for lesson in known.values())}


@pytest.mark.parametrize("lesson", lessons().values(), ids=lambda lesson: lesson.name)
def test_each_lesson_has_what_a_lesson_needs(lesson: Lesson) -> None:
    """The section of an RFC, a question, two commands to try at the end; and it is short."""
    prose = "\n".join(block.text for block in lesson.blocks if isinstance(block, Prose))
    assert re.search(r"RFC \d+ \d", prose)
    assert any(isinstance(block, Question) for block in lesson.blocks)
    assert isinstance(lesson.blocks[-1], Session)
    assert lesson.blocks[-1].extra
    assert len(lesson.blocks[-1].commands) == 2
    assert len((TUTORIAL / lesson.file).read_text(encoding="utf-8").splitlines()) <= 130
    for pattern in lesson.varies:
        re.compile(pattern)


@pytest.mark.parametrize("lesson", lessons().values(), ids=lambda lesson: lesson.name)
def test_the_page_has_the_text_of_its_lesson(lesson: Lesson) -> None:
    """All that a page says beside outputs is in the lesson's file: none was changed without the other."""
    page = Page(lesson)
    for block in lesson.blocks:
        match block:
            case Prose():
                page.prose(block.text)
            case File():
                page.file(block.name, block.text)
            case Question():
                page.question(block.text, block.answer)
            case Session():
                page.begin_session(extra=block.extra)
                for command in block.commands:
                    page.command(command)
                page.end_session(extra=block.extra)
    written = iter((TUTORIAL / lesson.file).read_text(encoding="utf-8").splitlines())
    for line in page.text.splitlines():
        assert line in written, line  # in this order


LINE = (
    "08:05:08.091346 ip-tcp         ↑ IP 10.0.0.1.80 > 10.0.0.2.4711: Flags [.], seq 344185:345645, ack 3444185245, "
    "win 69, length 1460 tcp-b5f49-4 pid 77 took 15 ms"
)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("08:05:08.091346", "23:59:59.000001"), ("3444185245", "17777777"), ("tcp-b5f49-4", "tcp-00000-12"),
     ("pid 77", "pid 8"), ("took 15 ms", "took 2 ms"), ("seq 344185:345645", "seq 144185:145645")],
)  # fmt: skip
def test_what_varies_is_no_difference(was: str, becomes: str) -> None:
    """Times of day, absolute sequence numbers, frame ids, pids, and what the lesson names."""
    lesson = parse(3, "x", TEXT)
    assert was in LINE
    assert normal(lesson, LINE) == normal(lesson, LINE.replace(was, becomes))


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("win 69", "win 70"), ("length 1460", "length 1448"), ("[.]", "[P.]"), ("↑", "↓"), ("4711", "4712"),
     ("ip-tcp", "link"), ("tcp-b5f49-4", "ip-b5f49-4 x"), ("took", "lasted")],
)  # fmt: skip
def test_a_wrong_output_is_a_difference(was: str, becomes: str) -> None:
    """Everything else: windows, lengths, flags, directions, ports, seams."""
    lesson = parse(3, "x", TEXT)
    assert was in LINE
    assert normal(lesson, LINE) != normal(lesson, LINE.replace(was, becomes))


def test_an_interrupt_is_heard_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a shell's background job, which begins with SIGINT ignored: before anything is tried or started."""
    heard: list[Any] = []

    def choose(_wanted: str) -> ways.Way:
        heard.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        raise ways.WorldError("there is none")

    monkeypatch.setattr(ways, "choose", choose)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = CliRunner().invoke(cli, ["lesson", "1"], obj=Stack(alone=True))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert result.stderr == "lvlip: there is none\n"
    for handler in heard:
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGINT, None)
    assert len(heard) == 3
