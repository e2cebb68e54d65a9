"""Urgent data as programs see it: one program, on the kernel's sockets, on the stack's, and between the two."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import ROOT, Stack
from tests.system.programs import urgent

pytestmark = pytest.mark.timeout(600)

PROGRAM = str(Path(urgent.__file__))
ON_STACK = [sys.executable, "-P", "-m", "levelip"]
UNDER_RUN = [sys.executable, "-P", "-m", "levelip.cli", "run", "--", sys.executable]
NOT_UNDER_RUN = {
    "nothing": "MSG_OOB of no bytes is EOPNOTSUPP",
    "not there": "recv(MSG_OOB) before the byte has come is EINVAL",
    "receive": "recv on a listener is EINVAL, not ENOTCONN",
    "send": "send before connect is ENOTCONN, not EPIPE",
}
"""Lines that are others there, as docs/run.md says (Gaps)."""


def sections(output: str) -> dict[str, list[str]]:
    """The lines of each case, by its name."""
    parts = [part.splitlines() for part in output.split("-- ")[1:]]
    return {name: lines for name, *lines in parts}


@pytest.fixture(scope="module")
def heard(_shared: Stack) -> dict[str, dict[str, list[str]]]:
    """What the program says, in every way that it can be run, all at the same time."""
    namespace = _shared.namespace
    assert namespace is not None
    namespace.run(["ip", "link", "set", "lo", "up"])
    variables = os.environ | _shared.env | {"PYTHONPATH": str(ROOT)}
    commands = {
        "kernel": [sys.executable, "-P", PROGRAM],
        "stack": [*ON_STACK, PROGRAM],
        "run": [*UNDER_RUN, PROGRAM],
        "sends": [sys.executable, "-P", PROGRAM, "sends", "10.0.0.1"],
        "receives": [sys.executable, "-P", PROGRAM, "receives", "10.0.0.2"],
    }
    programs = {
        way: namespace.popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for way, command in commands.items()
    }
    return {way: sections(program.communicate(timeout=300)[0]) for way, program in programs.items()}


@pytest.mark.parametrize("way", ["stack", "run", "sends", "receives"])
@pytest.mark.parametrize("case", [case.__name__ for case in urgent.CASES])
def test_urgent_data_as_on_the_kernel(
    shared_stack: Stack, heard: dict[str, dict[str, list[str]]], way: str, case: str
) -> None:
    """MSG_OOB, SO_OOBINLINE, SIOCATMARK, poll and select, SIGURG and errors are the kernel's. RFC 6093."""
    kernel, ours = heard["kernel"].get(case, []), heard[way].get(case, [])
    if way == "run":
        kernel, ours = ([line for line in said if line.split(":")[0] not in NOT_UNDER_RUN] for said in (kernel, ours))
    assert kernel and not any("Traceback" in line for line in kernel)
    assert kernel == ours, "\n".join(difflib.unified_diff(kernel, ours, "kernel", way, lineterm="", n=1))
