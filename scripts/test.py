"""Run all tests: `make test`. First those in virtual time, several at once; then the system tests, most of them two at
a time, as each lives in namespaces of its own; last, alone, those that measure or use the whole machine.

The last line adds all up. Further arguments go to pytest: scripts/test.py -k arp -x

Ctrl-C, SIGTERM and the end of the terminal end pytest too, in order, so that fixtures take down what they have started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = "tests/system"
ALONE = (
    "tests/system/test_many_connections.py",
    "tests/system/test_relay.py",
    "tests/system/test_stopping.py",
    "tests/system/test_web.py",
    "tests/test_packaging.py",
)
"""Tests that measure time or use the whole machine: one at a time."""
WAITING = ("tests/system/test_matrix.py",)
"""Those that do little but wait for a slow path: more at once than there are CPUs."""
WORKERS = min(4, max(2, os.cpu_count() or 2))
NO_TESTS = 5
"""pytest's exit status when no test was selected."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIDY_S = 30.0
"""How long pytest may take for its fixtures, once it was told to end."""


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


def pytest_status(command: list[str]) -> int:
    """Run pytest, in a process group of its own, so that it is told to end once, by us. SystemExit if so."""
    child = subprocess.Popen(command, cwd=ROOT, process_group=0)
    while not told:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(0.2)
    print(
        f"test: {signal.Signals(told[0]).name}; pytest tidies up, for {TIDY_S:g} s at most", file=sys.stderr, flush=True
    )
    child.send_signal(signal.SIGINT)
    try:
        child.wait(TIDY_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    sys.exit(128 + told[0])


def run(selection: list[str], arguments: list[str], total: Counter[str]) -> bool:
    """Run pytest on a selection and add its counts to `total`; whether all is well."""
    with tempfile.TemporaryDirectory(prefix="lvtest") as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-ra", f"--junitxml={report}", *selection, *arguments]
        status = pytest_status(command)
        if report.exists():
            for suite in ElementTree.parse(report).iter("testsuite"):
                count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
                failed = count["failures"] + count["errors"]
                total.update(passed=count["tests"] - failed - count["skipped"], failed=failed, skipped=count["skipped"])
    return status in (0, NO_TESTS)


def main(argv: list[str]) -> int:
    """0 if no test failed and some passed."""
    start = time.monotonic()
    if missing := lack():
        print(f"test: this machine does not allow {missing}; tests that need it count as skipped", flush=True)
    total: Counter[str] = Counter()
    virtual = ["tests", f"--ignore={SYSTEM}", *[f"--ignore={path}" for path in ALONE], f"--numprocesses={WORKERS}"]
    virtual.append("--dist=worksteal")  # the slow ones come last
    waiting = [*WAITING, f"--numprocesses={WORKERS + 1}"]
    system = [SYSTEM, *[f"--ignore={path}" for path in (*WAITING, *ALONE)], f"--numprocesses={WORKERS}"]
    alone = [path for path in ALONE if (ROOT / path).exists()]
    results = [run(selection, argv, total) for selection in (virtual, waiting, [*system, "--dist=loadfile"], alone)]
    print(f"test: {time.monotonic() - start:.0f} s")
    print(f"total: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if all(results) and total["passed"] and not total["failed"] else 1


if __name__ == "__main__":
    listen()
    sys.exit(main(sys.argv[1:]))
