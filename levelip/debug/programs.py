"""Our other programs, started as processes of their own: `python -m MODULE`, whatever lies in the working directory.

Without -P Python would look there first: a file called socket.py or random.py of the person at the keyboard would be
imported in place of the standard library's.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

import levelip


def python(module: str, *words: str) -> list[str]:
    """The command that runs a module of ours, to be started in `environment()`."""
    return [sys.executable, "-P", "-m", module, *words]


def environment() -> dict[str, str]:
    """Ours, with what a module of ours needs to be found there."""
    return {**os.environ, **search_path()}


def search_path() -> dict[str, str]:
    """PYTHONPATH with the directory in which this levelip lies, unless it is installed; empty where nothing is needed.
    What is relative counts from here, wherever the process will run."""
    package = Path(levelip.__file__).resolve().parent.parent
    installed = [Path(directory).resolve() for directory in [*site.getsitepackages(), site.getusersitepackages()]]
    given = [str(Path(one).absolute()) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    paths = given if package in installed else [str(package), *given]
    return {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
