"""What developers start: scripts/test.py adds up and ends its pytests, and tests.mutants.run says what it lacks."""

from __future__ import annotations

import os
import re
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
sys.modules["make_test"] = made
spec.loader.exec_module(made)
made.TIDY_S = float(sys.argv[1])
first, beside, then, last = ([made.Part(path.split("/")[-1], [path], quiet="quiet" in path)] for path in sys.argv[2:])
made.parts = lambda: (first, [*beside, *then], last)
made.lack = str
made.listen()
sys.exit(made.main([]))
"""
"""scripts/test.py with selections of ours, of which some are quiet, and another patience: one, two beside it, and one
for the end."""
SLOW = """
import os, pathlib, pytest, time
here = pathlib.Path(__file__).parent
print("said in", here.name)

@pytest.fixture
def lent():
    yield
    {down}

def test_long(lent):
    (here / "up").write_text(str(os.getpid()))
    time.sleep(100)
"""


class Started:
    """scripts/test.py with two tests beside each other that take long, and what their fixtures do at the end, for which
    they have `tidy_s`."""

    def __init__(self, directory: Path, down: str, tidy_s: float) -> None:
        self.places = [directory / name for name in ("one", "quiet", "quiet_then", "last")]
        for place in self.places:
            place.mkdir()
            (place / "test_slow.py").write_text(SLOW.format(down=down))
        self.process = started(tidy_s, self.places)
        self.pytests = [self._pid(place / "up") for place in self.places[:2]]

    def _pid(self, up: Path) -> int:
        until(lambda: self.process.poll() is not None or (up.exists() and up.read_text()), "the test begins")
        return int(up.read_text())

    def end(self, number: int) -> str:
        """What it said until its end."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=90)
        return said

    def clear(self) -> None:
        for pid in (*self.pytests, self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def started(tidy_s: float, places: list[Path]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tidy_s), *map(str, places)], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def slow(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Started]:
    started = Started(tmp_path, *request.param)
    yield started
    if started.process.poll() is None:
        started.clear()


@pytest.mark.parametrize("slow", [("(here / 'down').touch()", 50.0)], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_pytest_ends_with_the_script_and_tidies_up(slow: Started, number: signal.Signals, tmp_path: Path) -> None:
    """Fixtures of all that run take down what they have started; nothing goes on running, and nothing begins."""
    said = slow.end(number)
    assert slow.process.returncode == 128 + number
    assert [(place / "down").exists() for place in slow.places] == [True, True, False, False]
    assert [(place / "up").exists() for place in slow.places] == [True, True, False, False]
    assert number.name in said
    assert not any(map(runs, slow.pytests))


@pytest.mark.parametrize("slow", [("time.sleep(100)", 2.0)], indirect=True)
def test_what_does_not_tidy_up_is_killed(slow: Started) -> None:
    """The script ends all the same, and so does each pytest."""
    begun = time.monotonic()
    slow.end(signal.SIGTERM)
    assert time.monotonic() - begun < 50
    assert not any(map(runs, slow.pytests))


def test_all_parts_are_added_up(tmp_path: Path) -> None:
    """Each with its time; what a quiet one says is shown after the one that is watched; one failure is failure,
    and keeps nobody from being run."""
    bodies = {
        "one": "def test_one():\n    print('shown')\n    assert False",
        "quiet": "def test_two():\n    print('kept')\n    assert False\ndef test_three(): pass",
        "quiet_then": "import pytest\ndef test_four(): pytest.skip('so')",
        "last": "def test_five(): pass",
    }
    for name, body in bodies.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_it.py").write_text(body)
    process = started(50.0, [tmp_path / name for name in bodies])
    said, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (1, "")
    assert said.index("shown") < said.index("\ntest: quiet:\n") < said.index("kept")
    *_, one, quiet, then, last, together, total = said.splitlines()
    for line, count in ((one, "0, 1, 0"), (quiet, "1, 1, 0"), (then, "0, 0, 1"), (last, "1, 0, 0")):
        passed, failed, skipped = count.split(", ")
        assert re.search(rf": {passed} passed, {failed} failed, {skipped} skipped, \d+ s$", line)
    assert re.fullmatch(r"test: \d+ s", together)
    assert total == "total: 2 passed, 2 failed, 1 skipped"


def test_no_test_is_left_out_or_run_twice() -> None:
    """Parts of scripts/test.py, taken together, are tests/; each test is in one of them."""
    code = (
        "import importlib.util, subprocess, sys\n"
        "spec = importlib.util.spec_from_file_location('make_test', 'scripts/test.py')\n"
        "made = sys.modules['make_test'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(made)\n"
        "for lane in made.parts():\n"
        "    for part in lane:\n"
        "        print('\\n'.join(part.selection))\n"
        "        print()\n"
    )
    listed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[Path] = []
    for words in listed.stdout.strip().split("\n\n"):
        given = words.split("\n")
        ignored = [ROOT / word.partition("=")[2] for word in given if word.startswith("--ignore=")]
        files = {file for word in given if not word.startswith("-") for file in files_below(ROOT / word)}
        found += [file for file in files if not any(file.is_relative_to(path) for path in ignored)]
    assert sorted(found) == sorted(files_below(ROOT / "tests"))


def files_below(path: Path) -> list[Path]:
    assert path.exists()
    return [path] if path.is_file() else list(path.rglob("test_*.py"))


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
