"""`lvlip script record` at a stack that carries traffic: the script that it writes passes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, stream

LIMIT_S = 60.0
SIZE = 5_000


def download(stack: Stack, host: Namespace) -> None:
    """Our client takes some bytes from the kernel, and both close."""
    with KernelServer(host, stack.host, streams.sends(1, SIZE)) as server:
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, SIZE))


def test_a_live_connection_becomes_a_script(shared_stack: Stack, tmp_path: Path) -> None:
    """Recorded while it happens; the program runs the script and says that it passes."""
    host = shared_stack.namespace
    assert host is not None
    target = tmp_path / "x.pkt"
    recording = shared_stack.popen(
        ["-m", "levelip.cli", "script", "record", "-o", str(target), "--seconds", "20"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert recording.stderr is not None
    assert recording.stderr.readline().startswith("listening")
    download(shared_stack, host)
    output, errors = recording.communicate(timeout=LIMIT_S)
    written = target.read_text() if target.exists() else ""
    assert recording.returncode == 0, output + errors + written
    assert "connect(3, ..., ...)" in written
    assert f"({SIZE})" in written or "read(3, ..., " in written


def test_a_capture_becomes_a_script(shared_stack: Stack, tmp_path: Path) -> None:
    """`lvlip capture`, then `lvlip script record FILE`."""
    host = shared_stack.namespace
    assert host is not None
    capture, target = tmp_path / "x.pcapng", tmp_path / "y.pkt"
    capturing = shared_stack.popen(
        ["-m", "levelip.cli", "capture", "-w", str(capture)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert capturing.stderr is not None
    assert capturing.stderr.readline().startswith("capturing")
    download(shared_stack, host)
    time.sleep(0.3)
    capturing.send_signal(2)
    capturing.communicate(timeout=LIMIT_S)
    done = shared_stack.lvlip("script", "record", str(capture), "-o", str(target), check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (target.read_text() if target.exists() else "")
