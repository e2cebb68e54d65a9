"""Stack time stands while it is held and goes on where it stood."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from levelip.ipc.clock import Hold, Holder, StackClock


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


def test_who_holds_and_why_stands_on_the_page(tmp_path: Path) -> None:
    """For any process, also after the holder has ended; it is gone when time runs again."""
    one, other = StackClock(tmp_path / "clock"), StackClock(tmp_path / "clock")
    assert other.why() is None
    why = Hold(Holder(12, 34, "me", "lvlip hold"), 5.0, ["ip-tcp up"], {"breakpoint": 1}, ["t1"])
    assert one.hold(why)
    one.close()
    assert other.why() == why
    generation = other.generation
    assert other.explain(Hold(why.holder, 5.0))
    assert other.generation != generation
    assert other.why() == Hold(why.holder, 5.0)
    assert other.resume()
    assert other.why() is None
    assert not other.explain(why)


def test_an_account_that_is_too_long_is_cut_to_who_and_where(tmp_path: Path) -> None:
    """A stop with a huge expression must not break the page."""
    clock = StackClock(tmp_path / "clock")
    holder = Holder(1, 2, "me", "x")
    clock.hold(Hold(holder, 1.0, ["link up"], {"text": "a" * 5000}))
    assert clock.why() == Hold(holder, 1.0, ["link up"])


def test_time_jumps_ahead_while_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 s are skipped after 5 s of standing: afterwards stack time is 55 s ahead of the monotonic clock."""
    at = 1_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: at)
    clock = StackClock(tmp_path / "clock")
    assert not clock.advance(2_000)
    clock.hold()
    at = 1_005
    assert clock.advance(1_060)
    assert clock.now() == 1_060
    assert not clock.advance(1_060)
    assert not clock.advance(1_059)
    assert clock.resume()
    assert clock.now() == clock.running() == 1_060
    assert clock.read() == (0, -55)


def test_the_time_of_day_is_that_of_the_last_hold_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 ns of the day at 100 of the monotonic clock; a hold of 5 makes stack time lag by as much, from when it
    began."""
    at = 100
    monkeypatch.setattr(time, "monotonic_ns", lambda: at)
    monkeypatch.setattr(time, "time_ns", lambda: at + 900)
    clock = StackClock(tmp_path / "clock")
    assert clock.now() + clock.wall_offset() == 1000
    assert clock.hold()
    at = 105
    assert clock.now() + clock.wall_offset() == 1000, "what came before the hold, which goes on"
    assert clock.resume()
    at = 106
    assert clock.now() + clock.wall_offset() == 1006
    assert clock.held_ns() == 5
