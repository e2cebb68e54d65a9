"""What developers start: scripts/test.py ends its pytest, and tests.mutants.run says what it lacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)
DRIVER = """
import importlib.util, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which whoever runs these tests may have ignored, by nohup
spec = importlib.util.spec_from_file_location("make_test", "scripts/test.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
made.TIDY_S = float(sys.argv[2])
made.listen()
sys.exit(made.pytest_status([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", sys.argv[1]]))
"""
"""scripts/test.py with one selection, and another patience."""
SLOW = """
import os, pathlib, pytest, time
here = pathlib.Path(__file__).parent

@pytest.fixture
def lent():
    yield
    {down}

def test_long(lent):
    (here / "up").write_text(str(os.getpid()))
    time.sleep(100)
"""


class Started:
    """scripts/test.py with a test that takes long, and what its fixture does at the end, for which it has `tidy_s`."""

    def __init__(self, directory: Path, down: str, tidy_s: float) -> None:
        path = directory / "test_slow.py"
        path.write_text(SLOW.format(down=down))
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(path), str(tidy_s)], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        up = directory / "up"
        until(lambda: self.process.poll() is not None or (up.exists() and up.read_text()), "the test begins")
        self.pytest = int(up.read_text())

    def end(self, number: int) -> str:
        """What it said until its end."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=90)
        return said

    def clear(self) -> None:
        for pid in (self.pytest, self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@pytest.fixture
def slow(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Started]:
    started = Started(tmp_path, *request.param)
    yield started
    if started.process.poll() is None:
        started.clear()


@pytest.mark.parametrize("slow", [("(here / 'down').touch()", 50.0)], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_pytest_ends_with_the_script_and_tidies_up(slow: Started, number: signal.Signals, tmp_path: Path) -> None:
    """Fixtures take down what they have started; nothing goes on running."""
    said = slow.end(number)
    assert slow.process.returncode == 128 + number
    assert (tmp_path / "down").exists()
    assert number.name in said
    with pytest.raises(ProcessLookupError):
        os.kill(slow.pytest, 0)


@pytest.mark.parametrize("slow", [("time.sleep(100)", 2.0)], indirect=True)
def test_what_does_not_tidy_up_is_killed(slow: Started) -> None:
    """The script ends all the same, and so does pytest."""
    begun = time.monotonic()
    slow.end(signal.SIGTERM)
    assert time.monotonic() - begun < 50
    with pytest.raises(ProcessLookupError):
        os.kill(slow.pytest, 0)


def test_mutants_without_what_they_need(tmp_path: Path) -> None:
    """One line names what is missing and who installs it; --help needs nothing."""
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'mutmut' else find(name, *more)\n"
        "from tests.mutants import run; sys.exit(run.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code]
    tried = subprocess.run([*command, "--work", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 1 and "mutmut" in tried.stderr and "`make mutants`" in tried.stderr
    assert tried.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    told = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0 and "--survivors" in told.stdout
