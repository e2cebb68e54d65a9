"""Stack time stands while it is held and goes on where it stood."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from levelip.ipc.clock import StackClock


def test_stack_time_is_monotonic_time_less_the_time_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s pass, the clock is held for 5 s, 1 s passes: two processes read the same 11 s."""
    at = 100
    monkeypatch.setattr(time, "monotonic_ns", lambda: at)
    one, other = StackClock(tmp_path / "clock"), StackClock(tmp_path / "clock")
    assert one.now() == other.now() == 100
    at = 110
    assert one.hold()
    assert not other.hold()
    assert other.held
    assert other.running() is None
    at = 115
    assert one.now() == other.now() == 110
    assert other.resume()
    assert not one.resume()
    assert not one.held
    at = 116
    assert one.now() == other.now() == one.running() == 111
    assert one.read() == (0, 5)
    assert one.hold()
    at = 120
    assert one.resume()
    assert other.now() == 111


def test_a_new_process_finds_the_clock_as_it_was(tmp_path: Path) -> None:
    """The page outlives a restart: a hold survives the process that asked for it."""
    first = StackClock(tmp_path / "clock")
    first.hold()
    stood = first.now()
    first.close()
    again = StackClock(tmp_path / "clock")
    assert again.held
    assert again.now() == stood
