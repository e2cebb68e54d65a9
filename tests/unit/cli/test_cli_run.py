"""`lvlip run --trace` and `--capture`: who watches beside the program ends with the command, however that ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from levelip.cli import unmodified
from levelip.cli.common import Failure, Stack
from tests.waiting import until

SILENT = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
FAILS = "import os; print(os.getpid(), flush=True); raise SystemExit('no such seam')"


def watched_by(program: str, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lvlip run` with a watcher that is another program, which writes its process id."""
    monkeypatch.setattr(unmodified, "python", lambda *_: [sys.executable, "-S", "-c", program])
    with unmodified._watching(Stack("t"), ["trace"], to):
        pytest.fail("the program must not begin")


def begun(pid_file: Path) -> None:
    """Wait until it has written its process id."""
    until(lambda: pid_file.read_text().endswith("\n"), "the watcher runs")


def gone(pid_file: Path) -> bool:
    """Whether the process of that id has ended, and was waited for."""
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_an_interrupt_before_it_listens_leaves_no_watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in a session of its own, where Ctrl-C does not come, and would write on and on."""

    def interrupted(*_: object) -> None:
        begun(tmp_path / "out")
        raise KeyboardInterrupt

    monkeypatch.setattr(unmodified.select, "select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watched_by(SILENT, tmp_path / "out", monkeypatch)
    assert gone(tmp_path / "out")


def test_a_watcher_that_does_not_begin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it said, if it ended; and if it only says nothing it is ended."""
    with pytest.raises(Failure, match="lvlip trace did not begin: no such seam"):
        watched_by(FAILS, tmp_path / "out", monkeypatch)
    assert gone(tmp_path / "out")

    def says_nothing(*_: object) -> tuple[list[object], ...]:
        begun(tmp_path / "silent")
        return [], [], []

    monkeypatch.setattr(unmodified.select, "select", says_nothing)
    with pytest.raises(Failure, match="lvlip trace did not begin: "):
        watched_by(SILENT, tmp_path / "silent", monkeypatch)
    assert gone(tmp_path / "silent")


LISTENS = """
import os, signal, sys, time
signal.signal(signal.SIGINT, {handler})
print(os.getpid(), flush=True)
print("listening; end with Ctrl-C", file=sys.stderr, flush=True)
time.sleep(600)
"""
WORKS = "lambda *_: ([None for _ in iter(lambda: time.process_time() < 2, False)], sys.exit())"


@pytest.mark.parametrize(
    ("handler", "hangs"),
    [("signal.SIG_IGN", True), (WORKS, False)],
    ids=["one that hangs", "one that works"],
)
def test_a_watcher_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], handler: str, hangs: bool
) -> None:
    """It is killed, and that is said; one that has much to write has its time."""
    monkeypatch.setattr(unmodified, "IDLE_S", 0.5 if hangs else 1.5)
    monkeypatch.setattr(unmodified, "python", lambda *_: [sys.executable, "-c", LISTENS.format(handler=handler)])
    with unmodified._watching(Stack("t"), ["trace"], tmp_path / "out"):
        pid = int((tmp_path / "out").read_text())
    assert gone(tmp_path / "out")
    text = f"lvlip trace (pid {pid}) did not end and was killed; what it wrote may lack its end\n"
    assert capsys.readouterr().err == (text if hangs else "")
