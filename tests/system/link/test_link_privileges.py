"""Privileges are gone for good, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import socket, subprocess, threading
from pathlib import Path
from layers.link.privileges import drop_privileges, held_capabilities

{before}
drop_privileges()
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs"):
    print(name, int(status[name], 16))
print("CapBnd", int(status["CapBnd"], 16))
assert held_capabilities() == 0
child = subprocess.run(["grep", "CapPrm", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
print("child", int(child.split()[1], 16))
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    print("raw socket opened")
except PermissionError:
    print("raw socket refused")
print("files", open({path!r}).read())
"""


def run(path: str, before: str = "") -> subprocess.CompletedProcess[str]:
    program = _PROGRAM.format(path=path, before=before)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_nothing_is_left(tmp_path: object) -> None:
    """All five sets are empty, a child gets nothing back, and root still reads root's files."""
    path = f"{tmp_path}/mine"
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write("read")
    done = run(path)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert [told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "child")] == ["0"] * 5
    assert told["NoNewPrivs"] == "1"
    assert told["raw"] == "socket refused"
    assert told["files"] == "read"
    if os.geteuid() == 0:
        assert told["CapBnd"] == "0"


def test_another_thread_with_privileges_is_refused(tmp_path: object) -> None:
    """Linux keeps capabilities by thread: one that would keep them is found, and the process must not go on."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's threads have no capabilities to keep")
    before = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    done = run("/dev/null", before)
    assert done.returncode != 0
    assert "keeps capabilities" in done.stderr


def test_within_a_user_namespace(tmp_path: object) -> None:
    """Root of a user namespace gives up what it has there."""
    probe = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("user namespaces are not allowed here")
    program = _PROGRAM.format(path="/dev/null", before="assert held_capabilities() != 0")
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "CapPrm 0" in done.stdout.splitlines()
