"""`python -m levelip PROGRAM ARGS`: a whole Python program on the stack, by patch().

`lvlip run` does the same for programs in any language, at the system call.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

USAGE = """\
usage: python -m levelip [--name NAME] [--run DIR] PROGRAM [ARGS...]
       python -m levelip [--name NAME] [--run DIR] -m MODULE [ARGS...]
       python -m levelip [--name NAME] [--run DIR] -c COMMAND [ARGS...]

Runs a Python program whose sockets are those of a Level-IP stack: the standard
library's socket module, and all that is built on it, use the stack.

  --name NAME  which stack (LEVELIP_NAME, else level-ip)
  --run DIR    the directory of run directories (LEVELIP_RUN)
"""
_VARIABLES = {"--name": "LEVELIP_NAME", "--run": "LEVELIP_RUN"}


def main() -> None:
    """Read our options, patch, and be the program."""
    rest = sys.argv[1:]
    while rest and rest[0] in _VARIABLES:
        if len(rest) < 2:
            _complain(f"{rest[0]} needs a value")
        os.environ[_VARIABLES[rest[0]]] = rest[1]
        del rest[:2]
    if rest[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return
    if not rest:
        _complain("no program")
    if rest[0] in ("-m", "-c") and len(rest) < 2:
        _complain(f"{rest[0]} needs a value")
    if rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        _complain(f"unknown option {rest[0]}")
    from levelip import patch

    patch()
    if rest[0] == "-m":
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    elif rest[0] == "-c":
        sys.argv = ["-c", *rest[2:]]
        program = sys.modules["__main__"] = ModuleType("__main__")  # which pickle looks its functions up in
        exec(compile(rest[1], "<string>", "exec"), vars(program))
    else:
        sys.argv = rest
        path = Path(rest[0])
        sys.path[0] = str(path.resolve() if path.is_dir() else path.resolve().parent)
        try:
            code_is_there = path.exists()
        except OSError:
            code_is_there = False
        if not code_is_there:
            sys.exit(f"python -m levelip: can't open file {str(path)!r}: no such file")
        runpy.run_path(rest[0], run_name="__main__")


def _complain(what: str) -> None:
    sys.stderr.write(f"python -m levelip: {what}\n{USAGE}")
    sys.exit(2)


if __name__ == "__main__":
    main()
