"""A Python prompt without a terminal: one statement a line comes in as JSON, what it printed goes back.

`python -m levelip.lessons.console ours|peer`: `socket` is the module of Level-IP for ours, the standard library's for
peer; where there is no kernel on the other side, peer is a program of the second stack (`peer-stack`).
"""

from __future__ import annotations

import code
import contextlib
import importlib
import io
import json
import os
import sys
import time
from types import ModuleType


def module(side: str) -> ModuleType:
    """What `socket` is on a side."""
    return importlib.import_module("socket" if side == "peer" else "levelip.client.socket")


def main(side: str) -> None:
    """Until end of file. What a statement prints, or its exception's last line, is what a reader sees."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints by itself is not an answer
    names = {"__name__": "__console__", "socket": module(side), "time": time}
    interpreter = code.InteractiveInterpreter(names)
    for line in sys.stdin:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            unfinished = interpreter.runsource(json.loads(line))
            if unfinished:  # a loop in one line
                interpreter.runsource(json.loads(line) + "\n")
        text = printed.getvalue()
        if text.startswith("Traceback"):
            text = text.rstrip("\n").splitlines()[-1] + "\n"
        answers.write(json.dumps(text) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
