"""CPython's own tests of its sockets, over the stack's loopback: `python -m levelip -m test test_socket` and so on.

They are part of Python's distribution (Debian: libpython3.11-testsuite, which wants an interpreter of its version);
LEVELIP_CPYTHON_TESTS names a directory that has them as `test`, if the interpreter has not.
What is left out and what may fail is in tests/compat/suites.py, each with its reason, and in docs/socket-compat.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.suites import SUITES, Suite
from tests.system.harness import ROOT, Stack

LIMIT_S = 360
BUFFERS = {"tcp.send_buffer": 1 << 20, "tcp.receive_buffer": 1 << 20}  # tests fill them, and count on less than 10 MB
pytestmark = pytest.mark.parametrize("_shared", [{"settings": BUFFERS}], indirect=True, scope="module", ids=["1MB"])
_FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)
_RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)


def failed(output: str) -> set[str]:
    """Class.method of each test that failed, as unittest lists them at the end."""
    found = set()
    for method, where in _FAILED.findall(output):
        words = where.split(".")
        name = words[-2] if words[-1] == method else words[-1]
        found.add(f"{name}.{method}")
    return found


@pytest.mark.matrix(ids={"test_socketserver-1MB"})
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("suite", SUITES, ids=[suite.name for suite in SUITES])
def test_cpython_s_own_tests(shared_stack: Stack, tmp_path: Path, suite: Suite) -> None:
    """All pass but those that are known to fail."""
    if not available(suite.name):
        pytest.skip(f"this Python has no test.{suite.name} (Debian: libpython3.11-testsuite)")
    assert shared_stack.namespace is not None
    shared_stack.namespace.run(["ip", "link", "set", "lo", "up"])
    ignored = [word for pattern in suite.left_out for word in ("-i", pattern)]
    done = subprocess.run(
        shared_stack.namespace.command(
            [sys.executable, "-m", "levelip", "-m", "test", "-v", *suite.options, *ignored, suite.name]
        ),
        env={**os.environ, **shared_stack.env, "PYTHONPATH": os.pathsep.join([str(ROOT), *extra_path()])},
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    ran = sum(map(int, _RAN.findall(output)))
    assert ran >= suite.at_least, output[-3000:]
    found = failed(output)
    assert found - set(suite.may_fail) == set(), output[-20_000:]


def extra_path() -> list[str]:
    """Where the suites are if not in the distribution's own place."""
    return [path for path in [os.environ.get("LEVELIP_CPYTHON_TESTS", "")] if path]


def available(name: str) -> bool:
    """Whether the interpreter has that suite."""
    found = any((Path(path) / "test" / f"{name}.py").exists() for path in extra_path())
    return found or importlib.util.find_spec(f"test.{name}") is not None
