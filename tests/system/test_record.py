"""`lvlip script record` at a stack that carries traffic: the script that it writes passes."""

from __future__ import annotations

from pathlib import Path

from tests.system import streams
from tests.system.harness import Stack
from tests.system.listening import Listening
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, stream

LIMIT_S = 60.0
SIZE = 5_000


def download(stack: Stack, host: Namespace) -> None:
    """Our client takes some bytes from the kernel, and both close."""
    with KernelServer(host, stack.host, streams.sends(1, SIZE)) as server:
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, SIZE))
    stack.wait_ended(server.port)


def test_a_live_connection_becomes_a_script(shared_stack: Stack, tmp_path: Path) -> None:
    """Recorded while it happens; the program runs the script and says that it passes."""
    host = shared_stack.namespace
    assert host is not None
    target = tmp_path / "x.pkt"
    recording = Listening(shared_stack, "script", "record", "-o", str(target), "--seconds", "60")
    download(shared_stack, host)
    recording.finish()
    written = target.read_text()
    assert "connect(3, ..., ...)" in written
    assert f"({SIZE})" in written or "read(3, ..., " in written


def test_a_capture_becomes_a_script(shared_stack: Stack, tmp_path: Path) -> None:
    """`lvlip capture`, then `lvlip script record FILE`."""
    host = shared_stack.namespace
    assert host is not None
    capture, target = tmp_path / "x.pcapng", tmp_path / "y.pkt"
    capturing = Listening(shared_stack, "capture", "-w", str(capture))
    download(shared_stack, host)
    capturing.stop()
    done = shared_stack.lvlip("script", "record", str(capture), "-o", str(target), check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (target.read_text() if target.exists() else "")
