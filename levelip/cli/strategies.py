"""A congestion control of somebody's own, which the configuration names: whether tcp would start with it."""

from __future__ import annotations

import subprocess

from levelip.cli.common import Failure
from levelip.config import CONGESTIONS, Config
from levelip.debug.programs import environment, python

_IMPORT_S = 30.0


def check_strategy(config: Config) -> None:
    """Failure if tcp would not start with tcp.congestion. It is imported and made as there, by a process of its own:
    this package knows no layer, and what the import does must not stay here."""
    name = config.tcp.congestion
    if name in CONGESTIONS or "tcp" not in config.stack.layers:
        return
    command = python("layers.tcp.congestion", name)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, env=environment(),
            timeout=_IMPORT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"tcp.congestion: {name!r} is not imported after {_IMPORT_S:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ends the process that imports it, with {done.returncode}"]
        raise Failure(f"tcp.congestion: {said[-1]}")
