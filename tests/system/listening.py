"""A command that listens to a stack while a test goes on: trace, capture, graph, qlog, why."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time

from levelip.ipc.control import ControlError
from tests.system.harness import Stack

LIMIT_S = 60.0
SETTLE_S = 0.5
"""How long what the layers told last may be under way to who listens."""


class Listening:
    """From when it says that it listens until it ends, by itself (`finish`) or by Ctrl-C (`stop`)."""

    def __init__(self, stack: Stack, *argv: str) -> None:
        self._stack = stack
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at the end; a pipe would hold it up
        self.program = stack.popen(["-m", "levelip.cli", *argv], stdout=self._output, stderr=subprocess.PIPE, text=True)
        assert self.program.stderr is not None
        line = self.program.stderr.readline()
        assert line.startswith(("listening", "capturing", "watching")), line + self.program.stderr.read()

    def stop(self, *, status: tuple[int, ...] = (0, 130)) -> str:
        """End it by SIGINT, with one of these exit statuses; what it printed."""
        for layer in 2 * self._stack.layers:  # who answers has told before what came to it before
            with contextlib.suppress(ControlError):
                self._stack.ask(layer, "status")
        time.sleep(SETTLE_S)
        self.program.send_signal(2)
        return self.finish(status=status)

    def finish(self, *, status: tuple[int, ...] = (0,)) -> str:
        """It ends by itself; what it printed."""
        _, errors = self.program.communicate(timeout=LIMIT_S)
        assert self.program.returncode in status, errors
        with self._output as output:
            output.seek(0)
            return output.read()
