"""%{ code }%: Python with the figures of TCP_INFO as tcpi_..., in one namespace for the whole script."""

from __future__ import annotations

import contextlib
import io
import textwrap
import traceback
from typing import Any

from gateway.info import unpack
from levelip.tracing.reasons import lookup
from levelip.wire.ipv4 import Ipv4Header
from simulation.program import Program
from simulation.script.constants import CODE
from simulation.script.language import Code


class CodeFailed(Exception):
    """The code raised: `line` of the script, and what was said."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class CodeRunner:
    """Runs the pieces of one script. They are programs of whoever wrote the script: nothing restrains them."""

    def __init__(self, program: Program, path: str) -> None:
        self._program = program
        self._path = path
        self.sent: list[Ipv4Header] = []  # of all packets of the stack
        self._names: dict[str, Any] = {**CODE, "answer": None, "sent": self.sent, "dropped": self.dropped}
        self.printed = io.StringIO()

    def dropped(self, reason: str) -> int:
        """How often something was discarded for this reason (levelip/tracing/reasons.py), in any layer."""
        if lookup(reason) is None:
            raise NameError(f"there is no reason {reason!r}; see `lvlip explain`")
        return sum(core.counters.get(f"drop.{reason}", 0) for core in self._program.host.cores.values())

    def answer(self, said: dict[str, Any] | None) -> None:
        """What ip said to the last `lvlip` command is `answer`; None: nothing yet."""
        self._names["answer"] = said

    def run(self, code: Code) -> dict[str, int]:
        """Run one piece with the figures of the socket that was used last. Returns these; raises CodeFailed."""
        figures: dict[str, int] = {}
        stream = self._program.current
        if stream is not None:
            with contextlib.suppress(OSError):
                figures = unpack(self._program.tcp_info(stream))
                figures["delivery_rate_app_limited"] = figures["app_limited"] & 1
        self._names.update({f"tcpi_{name}": value for name, value in figures.items()})
        source = textwrap.dedent(code.text) if code.text.startswith("\n") else code.text.strip()
        try:
            program = compile("\n" * (code.line - 1) + source + "\n\n", self._path, "exec")  # after a "\\" too
            with contextlib.redirect_stdout(self.printed):
                exec(program, self._names)
        except (Exception, SystemExit) as error:  # whatever the script's author wrote, it is his, and said so
            line = code.line
            if isinstance(error, SyntaxError):
                line = error.lineno or line
            for frame in traceback.extract_tb(error.__traceback__):
                if frame.filename == self._path and frame.lineno is not None:
                    line = frame.lineno
            said = str(error)
            raise CodeFailed(f"{type(error).__name__}{': ' if said else ''}{said}", line) from None
        return figures
