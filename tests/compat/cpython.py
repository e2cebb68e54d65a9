"""Runs CPython's own suites on the stack and on the kernel, in one network namespace, and compares test by test.

    python -m tests.compat.cpython                       every suite of suites.py, in every way
    python -m tests.compat.cpython test_ssl --way run    one, in one way (kernel: the comparison)
    python -m tests.compat.cpython --write               keeps the counts for docs/socket-compat.md
    python -m tests.compat.cpython test_ssl -m '*alpn*'  some tests of it, and why they fail

The suites are those of the interpreter, of LEVELIP_CPYTHON_TESTS (a directory that has `test`), or of .venv/cpython,
where scripts/cpython-tests.sh puts them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.compat.suites import SUITES, Suite
from tests.system.namespace import environment

ROOT = Path(__file__).resolve().parents[2]
COUNTS = Path(__file__).with_name("cpython.json")
UNPACKED = ROOT / ".venv" / "cpython"
SETTINGS = {
    "tcp.send_buffer": 1 << 19,  # tests fill them, some by 512 bytes a call and in no more than 5 s
    "tcp.receive_buffer": 1 << 19,
    "gateway.dns_servers": ["10.0.0.2"],  # the stack itself, where nobody serves: names are nowhere, at once
}
"""Of the stack that they run on."""
WAYS: dict[str, list[str]] = {
    "kernel": [sys.executable, "-m"],
    "patch": [sys.executable, "-m", "levelip", "-m"],
    "run": [sys.executable, "-m", "levelip.cli", "run", "--", sys.executable, "-m"],
}
RUNNER = "tests.compat.patient"  # of CPython's tests
TITLES = {"kernel": "kernel", "patch": "python -m levelip", "run": "lvlip run"}
OURS = ("patch", "run")
GRACE_S = 20.0
"""How much longer than regrtest's own limit, which shows where each thread stands, the whole may take."""
_TAIL = 6_000
_ABOUT = re.compile(r"^(\w+) \(([\w.]+)\)")
_FAILED = re.compile(
    r"^(?:FAIL|ERROR): (\w+ \([\w.]+\)).*\n(?:.*\n)??-{70}\n((?:.*\n)*?)\n?(?=={70}|-{70})", re.MULTILINE
)


@dataclass(slots=True)
class Outcome:
    """What became of the tests of one suite; names are Class.method, with the module before it in a package."""

    passed: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)  # name → reason
    failed: dict[str, str] = field(default_factory=dict)  # name → what it said
    seconds: float = 0.0
    trouble: str = ""  # it did not come to its end: the last that it said

    @property
    def ran(self) -> set[str]:
        """Tests that ran to an end, good or bad."""
        return self.passed | set(self.failed)


def path() -> list[str]:
    """Where the suites are if not in the distribution's own place."""
    if named := os.environ.get("LEVELIP_CPYTHON_TESTS"):
        return [named]
    return [str(UNPACKED)] if (UNPACKED / "test").is_dir() else []


def lack(name: str) -> str:
    """Why that suite cannot be run here; empty if it can."""
    for place in (Path(found) / "test" for found in path()):
        if (place / f"{name}.py").exists() or (place / name).is_dir():
            return ""
    if importlib.util.find_spec(f"test.{name}") is not None:
        return ""
    return f"this Python has no test.{name}; scripts/cpython-tests.sh brings it, or says what is missing"


def run(
    suite: Suite,
    way: str,
    *,
    enter: Callable[[Sequence[str | os.PathLike[str]]], list[str]],
    variables: Mapping[str, str],
    patterns: Sequence[str] = (),
) -> Outcome:
    """Run a suite, or those of its tests that match. `enter` makes a command one of the namespace; `variables` name
    the stack. Bounded by the suite's limit; what hangs is told by name in `trouble`."""
    with tempfile.TemporaryDirectory(prefix="lvcpython", dir="/tmp") as directory:
        report = Path(directory) / "report.xml"
        words = [*WAYS[way], RUNNER, "-v", f"--timeout={suite.limit_s}", f"--junit-xml={report}", *suite.options]
        words += [word for pattern in suite.left_out for word in ("-i", pattern)]
        words += [word for pattern in patterns for word in ("-m", pattern)]
        variables = {**variables, "PYTHONPATH": os.pathsep.join([str(ROOT), *path()])}
        start = time.monotonic()
        log = Path(directory) / "log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                enter([*words, suite.name]), env=environment(variables), cwd=directory, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                status = child.wait(suite.limit_s + GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait(60)
        said = log.read_text(errors="replace")
        outcome = read(report, said, suite.name)
        if not report.exists():
            outcome.trouble = f"exit {status}\n{said[-_TAIL:]}"
        outcome.seconds = time.monotonic() - start
        return outcome


def read(report: Path, said: str, suite: str) -> Outcome:
    """What regrtest's --junit-xml says, and its output: failures of subtests and of setUpClass are there alone."""
    outcome = Outcome()
    for about, text in _FAILED.findall(said):
        outcome.failed[short(about, suite)] = text
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        if case.get("name") is None:
            continue
        name = short(case.get("name") or "", suite)
        for kind in ("error", "failure"):
            if (bad := case.find(kind)) is not None:
                outcome.failed[name] = bad.text or bad.get("message") or kind
        if (skipped := case.find("skipped")) is not None:
            outcome.skipped[name] = skipped.text or ""
        elif name not in outcome.failed:
            outcome.passed.add(name)
    outcome.passed -= set(outcome.failed)
    return outcome


def short(name: str, suite: str) -> str:
    """`test.test_x.Class.method` without the suite; `setUpClass (test.test_x.Class)` likewise."""
    if found := _ABOUT.match(name):
        name = found[2] if found[2].endswith(f".{found[1]}") else f"{found[2]}.{found[1]}"
    return name.removeprefix("test.").removeprefix(f"{suite}.")


def compared(kernel: Outcome, ours: Outcome) -> dict[str, str]:
    """Tests that passed on the kernel and not on ours, and what became of them."""
    return {
        name: ours.failed.get(name) or ("skipped: " + ours.skipped[name] if name in ours.skipped else "did not run")
        for name in sorted(kernel.passed - ours.passed)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run, compare, print. 1 if a suite did not come to its end."""
    from tests.system.harness import Stack
    from tests.system.namespace import Namespace

    parser = argparse.ArgumentParser(prog="python -m tests.compat.cpython", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="kernel, patch, run; all if left out")
    parser.add_argument("-m", dest="patterns", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--jobs", type=int, default=3, help="suites at once")
    parser.add_argument("--write", action="store_true", help=f"keep the counts in {COUNTS.relative_to(ROOT)}")
    options = parser.parse_args(argv)
    known = {suite.name: suite for suite in SUITES}
    chosen = [known.get(name) or Suite(name, 1) for name in options.suites or known]
    counts: dict[str, dict[str, dict[str, int]]] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    bad = False
    with (
        Namespace() as namespace,
        Stack(namespace, settings=SETTINGS) as stack,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        begun = {}
        for suite in chosen:
            if why := lack(suite.name):
                print(f"{suite.name}: {why}")
                continue
            for way in options.way or WAYS:
                begun[suite.name, way] = pool.submit(
                    run, suite, way, enter=namespace.command, variables=stack.env, patterns=options.patterns
                )
        for (name, way), future in begun.items():
            outcome = future.result()
            told = {what: len(getattr(outcome, what)) for what in ("passed", "skipped", "failed")}
            counts.setdefault(name, {})[way] = told
            words = ", ".join(f"{number} {what}" for what, number in told.items())
            print(f"{name} [{TITLES[way]}]: {words}, {outcome.seconds:.1f} s", flush=True)
            if outcome.trouble:
                bad = True
                print(f"  {outcome.trouble}", flush=True)
                continue
            kernel = begun.get((name, "kernel"))
            rows = outcome.failed if kernel is None or way == "kernel" else compared(kernel.result(), outcome)
            for test, text in rows.items():
                print(f"  {test}: {text if options.patterns else text.strip().splitlines()[-1]}", flush=True)
    if options.write and not options.patterns:
        COUNTS.write_text(json.dumps(counts, indent=1) + "\n")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
