"""Where commands fail that cannot make sense of their arguments: it may be ours and not the asker's fault, and nothing
else would tell where, as the process lives on."""

from __future__ import annotations

import logging
import time
from types import TracebackType

AGAIN_S = 60.0
"""So long the same place is not logged again: whoever asks over and over (a web view) must not fill the log."""


class CommandLog:
    """Writes tracebacks, one a place in the code and minute: their number is bounded by the code."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        # file, line, error → until when (time.monotonic)
        self._told: dict[tuple[str, int, type[Exception]], float] = {}

    def failed(self, command: str, error: Exception) -> None:
        """A command was refused with an error of levelip.frames.core.BAD_ARGUMENTS, which is being handled."""
        place, now = (*_raised_at(error.__traceback__), type(error)), time.monotonic()
        if now < self._told.get(place, now):
            return
        self._told[place] = now + AGAIN_S
        self._log.warning("command %s refused as one with bad arguments", command, exc_info=error)


def _raised_at(traceback: TracebackType | None) -> tuple[str, int]:
    """File and line of the innermost frame."""
    where = "", 0
    while traceback is not None:
        where = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return where
