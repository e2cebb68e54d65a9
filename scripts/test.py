"""Run all tests: `make test`. Two lanes beside each other: what has real processes and namespaces of its own, two at a
time, and what computes in virtual time, for which load means nothing; then, alone, what measures or uses the whole
machine.

The last line adds all up, those before it say how long each part took. Further arguments go to pytest:
scripts/test.py -k arp -x

Ctrl-C, SIGTERM and the end of the terminal end pytest too, in order, so that fixtures take down what they have started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REAL = ("tests/system", "tests/process")
"""Tests of real processes."""
ALONE = (
    "tests/system/test_many_connections.py",
    "tests/system/test_relay.py",
    "tests/system/test_stopping.py",
    "tests/system/test_web.py",
    "tests/test_packaging.py",
)
"""Tests that measure time or use the whole machine: one at a time."""
MATRIX = "tests/system/test_matrix.py"
"""It does little but wait for slow paths."""
LONG = (
    "tests/process/test_lvlip_stack.py",
    "tests/system/test_recording.py",
    "tests/system/test_demo.py",
    "tests/system/test_restarts.py",
    "tests/system/test_client_cpython.py",
    "tests/system/test_two_hosts.py",
    "tests/system/test_net.py",
    "tests/system/test_web_pages.py",
    "tests/system/test_run_programs.py",
    "tests/system/test_addons.py",
    "tests/system/test_run_more.py",
    "tests/system/test_web_files.py",
    "tests/system/test_faults.py",
)
"""Files that take longest, which begin first, so that none is left over for one worker at the end."""
WORKERS = min(4, max(2, os.cpu_count() or 2))
NO_TESTS = 5
"""pytest's exit status when no test was selected."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIDY_S = 30.0
"""How long pytest may take for its fixtures, once it was told to end."""
POLL_S = 0.2


def lack() -> str:
    """Why system tests cannot run here; empty if they can."""
    sys.path.insert(0, str(ROOT))
    from tests.system.namespace import lack as of_namespaces

    return of_namespaces()


told: list[int] = []
"""Signals that told us to end."""


def listen() -> None:
    """Note signals from now on. nohup's choice stays. SIGINT, which shells have ignored in the background, is heard
    there too, and by pytest."""
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: told.append(number))


def environment() -> dict[str, str]:
    """Ours, but bytecode is kept: tests start processes by the thousand, and without it each compiles all that it
    imports."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Part:
    """One run of pytest. What one that is `quiet` says is shown while no other is being shown."""

    name: str
    selection: Sequence[str]
    quiet: bool = False
    count: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    well: bool = False
    """No test failed."""

    def start(self, arguments: Sequence[str], directory: Path) -> None:
        """Start pytest, in a process group of its own, so that it is told to end once, by us. `directory` takes its
        report, and what it says if it is quiet."""
        self._report = directory / f"{self.name}.xml"
        command = [sys.executable, "-m", "pytest", "-ra", f"--junitxml={self._report}"]
        command += ["-o", f"cache_dir=.pytest_cache/{self.name}"]  # what failed last, for --lf
        command += [*self.selection, *arguments]
        self._begun = time.monotonic()
        if not self.quiet:
            self._child = subprocess.Popen(command, cwd=ROOT, env=environment(), process_group=0)
            return
        said = directory / f"{self.name}.txt"
        with said.open("wb") as output:
            self._child = subprocess.Popen(
                command, cwd=ROOT, env=environment(), process_group=0, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._said = said.open("rb")

    def ended(self) -> bool:
        """Whether it has; its counts are there then."""
        status = self._child.poll()
        if status is None:
            return False
        self.seconds = time.monotonic() - self._begun
        self.well = status in (0, NO_TESTS)
        if self._report.exists():
            for suite in ElementTree.parse(self._report).iter("testsuite"):
                count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
                failed = count["failures"] + count["errors"]
                passed = count["tests"] - failed - count["skipped"]
                self.count.update(passed=passed, failed=failed, skipped=count["skipped"])
        return True

    def show(self) -> bool:
        """What a quiet one has said since this was asked last; whether that was all, as it had ended before."""
        all_said = self._child.poll() is not None
        if self._said.tell() == 0:
            print(f"\ntest: {self.name}:", flush=True)
        sys.stdout.buffer.write(self._said.read())
        sys.stdout.flush()
        return all_said

    def tell(self) -> None:
        """Have it end."""
        self._child.send_signal(signal.SIGINT)

    def end(self, deadline: float) -> None:
        """Wait for its end, until `deadline` (monotonic) at most."""
        try:
            self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def __str__(self) -> str:
        return f"{self.name}: {counts(self.count)}, {self.seconds:.0f} s"


def counts(count: Counter[str]) -> str:
    return f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"


def run(lanes: Sequence[Sequence[Part]], arguments: Sequence[str]) -> None:
    """Run the parts of each lane one after the other, the lanes beside each other. SystemExit if we are told to end."""
    waiting = [list(lane) for lane in lanes]
    running: list[Part | None] = [None for _ in lanes]
    to_show: list[Part] = []
    with tempfile.TemporaryDirectory(prefix="lvtest") as directory:
        while not told:
            for lane, part in enumerate(running):
                if part is not None and part.ended():
                    print(f"\ntest: {part}", flush=True)
                    running[lane] = None
                if running[lane] is None and waiting[lane]:
                    running[lane] = started = waiting[lane].pop(0)
                    started.start(arguments, Path(directory))
                    to_show += [started] if started.quiet else []
            if all(part is None or part.quiet for part in running):
                while to_show and to_show[0].show():
                    to_show.pop(0)
            if not any(running) and not to_show:
                return
            time.sleep(POLL_S)
        name = signal.Signals(told[0]).name
        print(f"test: {name}; pytest tidies up, for {TIDY_S:g} s at most", file=sys.stderr, flush=True)
        last = [part for part in running if part is not None]
        for part in last:
            part.tell()
        deadline = time.monotonic() + TIDY_S
        for part in last:
            part.end(deadline)
        for part in to_show:
            part.show()
    sys.exit(128 + told[0])


def parts() -> tuple[list[Part], list[Part], list[Part]]:
    """Tests of real processes; those beside them; those that are alone."""
    alone = [path for path in ALONE if (ROOT / path).exists()]
    files = [str(path.relative_to(ROOT)) for place in REAL for path in sorted((ROOT / place).rglob("test_*.py"))]
    real = [path for path in dict.fromkeys([*LONG, *files]) if path in files and path not in (*alone, MATRIX)]
    virtual = ["tests", *[f"--ignore={path}" for path in (*REAL, *alone)]]
    return (
        [Part("real", [*real, f"--numprocesses={WORKERS}", "--dist=loadfile", "--no-loadscope-reorder"])],
        [
            Part("virtual", [*virtual, f"--numprocesses={WORKERS - 1}", "--dist=worksteal"], quiet=True),
            Part("matrix", [MATRIX], quiet=True),
        ],
        [Part("alone", alone)],
    )


def main(argv: list[str]) -> int:
    """0 if no test failed and some passed."""
    start = time.monotonic()
    if missing := lack():
        print(f"test: this machine does not allow {missing}; tests that need it count as skipped", flush=True)
    real, beside, alone = parts()
    run([real, beside], argv)
    run([alone], argv)
    done = [*real, *beside, *alone]
    total: Counter[str] = sum((part.count for part in done), Counter())
    for part in done:
        print(f"test: {part}")
    print(f"test: {time.monotonic() - start:.0f} s")
    print(f"total: {counts(total)}")
    return 0 if all(part.well for part in done) and total["passed"] and not total["failed"] else 1


if __name__ == "__main__":
    listen()
    sys.exit(main(sys.argv[1:]))
