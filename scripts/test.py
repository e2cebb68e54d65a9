"""Run all tests: `make test`. First those in virtual time, several at once; then the system tests, most of them two at
a time, as each lives in namespaces of its own; last, alone, those that measure or use the whole machine.

The last line adds all up. Further arguments go to pytest: scripts/test.py -k arp -x
"""

from __future__ import annotations

import os
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


def lack() -> str:
    """Why system tests cannot run here; empty if they can."""
    sys.path.insert(0, str(ROOT))
    from tests.system.namespace import lack as of_namespaces

    return of_namespaces()


def run(selection: list[str], arguments: list[str], total: Counter[str]) -> bool:
    """Run pytest on a selection and add its counts to `total`; whether all is well."""
    with tempfile.TemporaryDirectory(prefix="lvtest") as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-ra", f"--junitxml={report}", *selection, *arguments]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
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
    sys.exit(main(sys.argv[1:]))
