"""`levelip.debug` is where a program finds the debugger, and what it raises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import levelip.debug
from levelip.debug.debugger import Debugger as Home


def test_the_debugger_is_where_it_is_looked_for() -> None:
    """With all that its methods raise."""
    assert levelip.debug.Debugger is Home
    for name in levelip.debug.__all__:
        assert getattr(levelip.debug, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Debuger'"):
        levelip.debug.Debuger  # noqa: B018


def test_it_is_loaded_when_it_is_asked_for() -> None:
    """Modules that are lists need no ZeroMQ."""
    code = "import sys, levelip.debug.advice; assert 'zmq' not in sys.modules; from levelip.debug import Debugger"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
