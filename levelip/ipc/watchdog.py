"""A bound on how long code of others may run in the loop: an endless loop in it becomes an exception there.

A signal, since the loop has one thread and Python looks at signals between two instructions. What hangs in C (a
pathological regular expression, a blocking system call that is resumed) is not ended by it.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class TookTooLong(BaseException):
    """Raised in code that ran for too long. No Exception, so that `except Exception` within a loop does not eat it."""


class Watchdog:
    """Main thread only. `install` before the first `arm`; `remove` gives SIGALRM back."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._active = False
        self._before: Any = None
        self._installed = False

    def install(self) -> None:
        """Take SIGALRM."""
        if not self._installed:
            self._before = signal.signal(signal.SIGALRM, self._bark)
            self._installed = True

    def remove(self) -> None:
        """Give it back."""
        if self._installed:
            self.disarm()
            signal.signal(signal.SIGALRM, self._before)
            self._installed = False

    def arm(self) -> None:
        """From now on code has so many seconds; and is told again after as many, if it goes on."""
        self._active = True
        signal.setitimer(signal.ITIMER_REAL, self.seconds, self.seconds)

    def disarm(self) -> None:
        """It has come back."""
        self._active = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _bark(self, _number: int, _frame: FrameType | None) -> None:
        if self._active:
            raise TookTooLong(f"it ran for more than {self.seconds:g} s")
