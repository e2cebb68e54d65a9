"""Each lesson of the guided tour is run, and what it prints is held against its page in docs/tutorial."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelip.lessons.page import normal
from levelip.lessons.source import lessons
from tests.system.harness import ROOT
from tests.system.namespace import lack

TUTORIAL = ROOT / "docs" / "tutorial"
LIMIT_S = 250.0
LESSON = [sys.executable, "-P", "-m", "levelip.cli", "lesson"]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    """Where lessons have their directories: a short path (sockets lie below it), and nothing is left in it."""
    path = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
    yield path
    left = list(path.iterdir())
    shutil.rmtree(path)
    assert not left


def run(place: Path, *arguments: str, text: str = "", status: int = 0, **variables: str) -> str:
    """`lvlip lesson ARGUMENTS`: what it printed."""
    done = subprocess.run(
        [*LESSON, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, "TMPDIR": str(place), **variables},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.matrix(ids={"1", "9"})
@pytest.mark.parametrize("number", [pytest.param(number, id=str(number)) for number in lessons()])
def test_a_lesson_prints_what_its_page_says(place: Path, number: int) -> None:
    """Every output in docs/tutorial is that of a run. On a busy machine a timer may be late: one more run may tell."""
    lesson = lessons()[number]
    page = normal(lesson, (TUTORIAL / lesson.file).read_text(encoding="utf-8"))
    shown = normal(lesson, run(place, str(number), "--markdown"))
    if shown != page:
        shown = normal(lesson, run(place, str(number), "--markdown"))
    assert shown == page


@pytest.mark.matrix(ids={"7"})
@pytest.mark.parametrize("number", [pytest.param(number, id=str(number)) for number in lessons()])
def test_a_lesson_runs_without_a_kernel(place: Path, number: int) -> None:
    """Where no namespace is to be had, a second stack is the other side; a lesson that needs the kernel says so."""
    if lessons()[number].kernel:
        assert run(place, str(number), "--way", "wire", status=1) == ""
        return
    shown = run(place, str(number), "--way", "wire")
    assert "two stacks joined by a wire" in shown
    for side in ("ours", "peer"):
        raised = rf"^{side}>>> .*\n(?!ConnectionR|OSError: \[Errno 98\])\w+(?:Error|Exception)\b"
        assert not re.search(raised, shown, re.MULTILINE)


def test_a_reader_types_at_a_pause_and_leaves_by_ctrl_c(place: Path) -> None:
    """At a terminal a lesson waits for Enter, carries out what is typed instead, and Ctrl-C ends it and its stack."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [*LESSON, "1"], stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "TMPDIR": str(place)},
    )  # fmt: skip
    os.close(follower)
    said = ""

    def wait_for(text: str, start: int = 0) -> int:
        """Read until the text is there; where it ends."""
        nonlocal said
        deadline = time.monotonic() + LIMIT_S
        while text not in said[start:]:
            assert time.monotonic() < deadline, said
            if select.select([leader], [], [], 1)[0]:
                said += os.read(leader, 65_536).decode(errors="replace")
        return said.index(text, start) + len(text)

    try:
        at = wait_for("⏎")
        os.write(leader, b"ours>>> 6 * 7\n")
        at = wait_for("42", at)
        at = wait_for("⏎", at)
        os.write(leader, b"lvlip list\n")
        at = wait_for("lesson", at)
        at = wait_for("⏎", at)
        os.write(leader, b"\n")
        wait_for("SYN_RECEIVED → ESTABLISHED", at)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(60) == 130
    finally:
        if child.poll() is None:
            child.kill()
            child.wait(60)
        os.close(leader)


def test_keep_gives_a_shell_in_the_world(place: Path) -> None:
    """After the lesson its stack is still there for the shell that --keep starts, and gone when that ends."""
    shown = run(place, "1", "--keep", text="echo shell:; lvlip ss -t; python -c 'print(6 * 7)'\n", SHELL="/bin/sh")
    tail = shown[shown.index("shell:") :]
    assert "10.0.0.2:80" in tail
    assert "42" in tail


def test_a_lesson_that_is_not_there() -> None:
    """A number without a lesson is wrong usage."""
    done = subprocess.run([*LESSON, "11"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("Error: there is no lesson 11; see: lvlip lesson\n")
