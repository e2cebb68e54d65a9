"""The run directory's shared memory: who ends last removes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from levelip.ipc.rundir import RunDirectory

HOLDS = """
import sys
from levelip.ipc.rundir import RunDirectory
one = RunDirectory("t", sys.argv[1])
one.enter()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stack(run: RunDirectory) -> Iterator[RunDirectory]:
    """A run directory that no process uses yet."""
    shutil.rmtree(run.memory)
    yield run
    assert not run.memory.exists(), list(run.memory.rglob("*"))


def another(run: RunDirectory) -> RunDirectory:
    """As another process has it."""
    return RunDirectory(run.name, run.root)


def test_who_leaves_last_removes_the_shared_memory(stack: RunDirectory) -> None:
    """With what the layers and clients left there; as long as another one uses it all stays."""
    first, second = another(stack), another(stack)
    first.enter()
    second.enter()
    assert [oct(path.stat().st_mode & 0o7777) for path in (stack.memory, stack.sessions)] == ["0o711", "0o1733"]
    left = [stack.memory / "own-1", stack.memory / "pool-1", stack.sessions / "abc"]
    for path in left:
        path.touch()
    first.leave()
    first.leave()
    assert all(path.exists() for path in left)
    second.leave()
    assert not stack.memory.exists()


def test_what_a_killed_process_left_stays_for_its_successor(stack: RunDirectory) -> None:
    """A flight recorder's memory: the next process of the layer makes a recording of it, and is last again."""
    one = another(stack)
    one.enter()
    ring = stack.memory / "flight-tcp-1-2"
    ring.touch()
    one.leave()
    assert ring.exists()
    one.enter()
    assert stack.sessions.is_dir()
    ring.unlink()
    one.leave()


def test_a_killed_process_keeps_nobody(stack: RunDirectory) -> None:
    """What it had locked is free."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(stack.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        one = another(stack)
        one.enter()
        process.kill()
    one.leave()


def test_one_that_comes_while_the_last_one_leaves(stack: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a directory of its own, not one that is gone from its place."""
    import fcntl

    last, next_one = another(stack), another(stack)
    last.enter()
    flock = fcntl.flock

    def lock(fd: int, how: int) -> None:
        last.leave()  # between the next one's open() and its lock; a second call does nothing
        flock(fd, how)

    monkeypatch.setattr("levelip.ipc.rundir.fcntl.flock", lock)
    next_one.enter()
    assert stack.memory.is_dir() and stack.sessions.is_dir()
    next_one.leave()
