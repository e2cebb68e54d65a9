"""Waiting for what another process or thread brings about: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, *, timeout: float = 60.0, every: float = 0.01) -> T:
    """What `condition()` says as soon as it is true of something, asked each `every` s; AssertionError, with `what` and
    what it said last, if that stays false for `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}; the last was {found!r}"
        time.sleep(every)
    return found
