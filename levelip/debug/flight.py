"""The flight recorders of a running stack written out, so that what happened until now can be looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from levelip.debug.tap import silent_text
from levelip.frames.core import ControlError
from levelip.ipc.control import NotRunning

WRITE_S = 60.0
_POLL_S = 0.02
Ask = Callable[..., dict[str, Any]]
"""ask(process, request, **arguments): its control socket's answer; ControlError."""


def write_flight(ask: Ask, running: Iterable[str], directory: Path) -> list[str]:
    """Write each process's flight recorder into DIRECTORY/PROCESS.rec; which processes are silent, and left out.
    ControlError if none is on, or one could not be written."""
    held: list[str] = []
    silent: list[str] = []
    for name in running:
        try:
            if ask(name, "record.status")["flight"]["on"]:
                held.append(name)
        except NotRunning:
            silent.append(name)
    if not held and silent:
        raise ControlError(silent_text(silent))
    if not held:
        raise ControlError("the flight recorders are off: set stack.flight_recorder_mib, or use lvlip record start")
    for name in held:
        ask(name, "record.dump", file=str(directory / f"{name}.rec"), overwrite=False)
    for name in held:
        if error := written(ask, name)["error"]:
            raise ControlError(f"{name}: {error}")
    return silent


def written(ask: Ask, name: str) -> dict[str, Any]:
    """Wait until a process's file is written: {"path", "bytes", "error"}. ControlError if that takes too long."""
    deadline = time.monotonic() + WRITE_S
    while (writing := ask(name, "record.status")["writing"])["busy"]:
        if time.monotonic() > deadline:
            raise ControlError(f"{name}: {writing['path']} is still being written after {WRITE_S:g} s")
        time.sleep(_POLL_S)
    return dict(writing)
