"""All mutants, in a copy of the tree: `python -m tests.mutants.worker`, started there by run.py.

Inside one pytest session: collect; find out in a child which lines each test runs (kept until the tree changes); then
the mutants, a round of each module at a time, in the order of their fingerprints. That order is as good as a random one
and the same each time, so what is done of a module at any moment is a fair sample of it. Results are lines of JSON,
appended as they come: a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import sys
import time
from collections import Counter, defaultdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from tests.mutants import trial
from tests.mutants.make import Made, Mutant, make, modules

TESTS = ("tests/unit/tcp", "tests/unit/ip", "tests/netsim", "tests/scripts")
"""What runs against the mutants: all that is in virtual time."""
TOO_SLOW = (
    "tests/netsim/test_tcp_congestion_net.py::test_two_flows_share_a_bottleneck",
    "tests/netsim/test_tcp_congestion_net.py::test_hystart_overshoots_less",
    "tests/netsim/test_tcp_two_stacks.py",
    "tests/unit/tcp/test_tcp_syn_cookies.py::test_a_flood_of_100_000_syns",
    "tests/unit/tcp/test_congestion_docs.py::test_the_pictures_are_of_this_code",
)
"""But these, which take seconds each."""
ROUND = 20
"""Of each module so many at a time, then of the next: so that a run that ends early has a sample of all."""
FIRST = (
    "layers.tcp.segment_arrives", "layers.tcp.acknowledgment", "layers.tcp.output", "layers.tcp.loss",
    "layers.tcp.recovery.*", "layers.tcp.rto", "layers.ip.reassembly", "layers.ip.sending", "layers.ip.receiving",
    "layers.ip.routing",
)  # fmt: skip
"""The heart: these modules come first."""


class Runs:
    """Which tests run which lines, and the CPU seconds that each takes."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.tests: list[str] = data["tests"]
        self.seconds: list[float] = data["seconds"]
        self.lines: dict[str, dict[str, list[int]]] = data["lines"]

    def reaching(self, path: Path, reach: tuple[int, int]) -> list[int]:
        """The tests that run any of these lines, quick ones first."""
        by_line = self.lines.get(str(path), {})
        found = {test for line in range(reach[0], reach[1] + 1) for test in by_line.get(str(line), ())}
        return sorted(found, key=self.seconds.__getitem__)

    def within(self, tests: list[int], budget: float) -> list[int]:
        """As many of these as take `budget` seconds together; at least one."""
        total = 0.0
        for count, test in enumerate(tests):
            total += self.seconds[test]
            if total > budget and count:
                return tests[:count]
        return tests


def measure(items: list[pytest.Item]) -> dict[str, Any]:
    """Run all tests once, with coverage by test. A test that fails ends it: against mutants it would say nothing."""
    cover = coverage.Coverage(data_file=None, config_file=False, include=[f"{Path.cwd()}/layers/*"])
    failed, seconds = [], []
    cover.start()
    for index, item in enumerate(items):
        cover.switch_context(str(index))
        before = time.process_time()
        reports = runtestprotocol(item, nextitem=items[index + 1] if index + 1 < len(items) else None, log=False)
        seconds.append(round(time.process_time() - before, 4))
        failed += [f"{item.nodeid}: {report.longreprtext[-300:]}" for report in reports if report.failed]
        if index % 100 == 99:
            print(f"mutants: which lines each test runs: {index + 1} of {len(items)}", flush=True)
    cover.stop()
    if failed:
        sys.exit("mutants: these tests fail without a mutant:\n  " + "\n  ".join(failed))
    data = cover.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for name in data.measured_files():
        by_line = {
            str(line): [int(context) for context in contexts if context]
            for line, contexts in data.contexts_by_lineno(name).items()
        }
        lines[str(Path(name).relative_to(Path.cwd()))] = by_line
    return {"tests": [item.nodeid for item in items], "seconds": seconds, "lines": lines}


class Worker:
    """The plugin: what pytest does instead of running the tests."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.work: Path = arguments.work
        self.status = 0

    def pytest_configure(self) -> None:
        """Properties as tests, not as searches: the same examples each time, no shrinking, no database, no clock."""
        hypothesis.settings.register_profile(
            "mutants", derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        )  # fmt: skip
        hypothesis.settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        if session.testsfailed:
            raise pytest.UsageError("the tests cannot be collected")
        self.items = session.items
        self.runs = self.lines_of_tests()
        self.position = {test: index for index, test in enumerate(self.runs.tests)}
        if [item.nodeid for item in self.items] != self.runs.tests:
            raise pytest.UsageError("other tests than those that were measured")
        gc.collect()
        gc.freeze()
        made = [self.made(module, path) for module, path in modules() if self.wanted(module)]
        if not made:
            raise pytest.UsageError(f"no module fits {' '.join(self.arguments.modules)}")
        made.sort(key=self.place)
        self.all(made)
        return True

    def wanted(self, module: str) -> bool:
        """Whether the command line names it."""
        return not self.arguments.modules or any(fnmatch(module, name) for name in self.arguments.modules)

    @staticmethod
    def place(made: Made) -> tuple[int, str]:
        """The heart first."""
        places = [place for place, name in enumerate(FIRST) if fnmatch(made.module, name)]
        return (places or [len(FIRST)])[0], made.module

    def lines_of_tests(self) -> Runs:
        """From the file of the last run if the tree is the same, else measured in a child."""
        file = self.work / ("lines-with.json" if self.arguments.tests else "lines.json")
        state = tree_state() + "".join(self.arguments.tests)
        if file.exists():
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["state"] == state:
                return Runs(data)
        pid = os.fork()
        if not pid:
            try:
                data = measure(self.items)
                data["state"] = state
                file.write_text(json.dumps(data), encoding="utf-8")
                os._exit(0)
            except SystemExit as exit_:
                print(exit_, flush=True)
            finally:
                sys.stdout.flush()
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            sys.exit(1)
        return Runs(json.loads(file.read_text(encoding="utf-8")))

    def made(self, module: str, path: Path) -> Made:
        """The mutants of a module, kept in a file until it changes."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = self.work / "made" / f"{module}.json"
        if file.exists():
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["digest"] == digest:
                mutants = [Mutant(**{**mutant, "reach": tuple(mutant["reach"])}) for mutant in data["mutants"]]
                return Made(module, data["sources"], mutants)
        made = make(module, path)
        made.mutants.sort(key=lambda mutant: mutant.fingerprint)
        fields = Mutant.__slots__
        data = {
            "digest": digest,
            "path": str(path),
            "sources": made.sources,
            "mutants": [{name: getattr(mutant, name) for name in fields} for mutant in made.mutants],
        }
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(data), encoding="utf-8")
        return made

    def all(self, made: list[Made]) -> None:
        """Every mutant that has no result yet; `--again` those, too, that lived."""
        paths = dict(modules())
        done = results(self.work)
        alone = bool(self.arguments.tests)
        rounds: dict[int, list[tuple[Made, Mutant]]] = defaultdict(list)
        for each in made:
            unfit = trial.check(each)
            if unfit:
                print(f"mutants: left out, as it cannot be replaced: {each.module}: {', '.join(unfit)}", flush=True)
            fit = [mutant for mutant in each.mutants if mutant.function not in unfit]
            chosen = fit[: self.arguments.sample] if self.arguments.sample else fit
            body = {name: function_digest(source) for name, source in each.sources.items()}
            for rank, mutant in enumerate(chosen):
                last = done.get(mutant.fingerprint)
                known = last is not None and last["body"] == body[mutant.function]
                lived = last is not None and last["status"] not in ("killed", "timeout", "unfit")
                if (known and lived) if alone else (not known or (lived and self.arguments.again)):
                    rounds[rank // ROUND].append((each, mutant))
        todo = [one for number in sorted(rounds) for one in rounds[number]]
        self.counts: Counter[str] = Counter()
        self.progress = Progress(len(todo))
        with (self.work / "results.jsonl").open("a", encoding="utf-8") as out:
            running: dict[int, tuple[Made, Mutant, tuple[int, int], float]] = {}
            for each, mutant in todo:
                reaching = self.runs.reaching(paths[each.module], mutant.reach)
                if not reaching:
                    self.note(out, each, mutant, "no tests", (0, 0), 0.0)
                    continue
                tests = self.runs.within(reaching, self.arguments.budget)
                while len(running) >= self.arguments.max_children:
                    self.wait(out, running)
                pid = trial.start(
                    each, mutant, [self.items[test] for test in tests], [self.runs.seconds[test] for test in tests]
                )
                running[pid] = each, mutant, (len(tests), len(reaching)), time.monotonic()
            while running:
                self.wait(out, running)
        self.progress.show(self.counts, "", last=True)

    def wait(self, out: Any, running: dict[int, tuple[Made, Mutant, tuple[int, int], float]]) -> None:
        """One child's end."""
        pid, wait_status = os.wait()
        each, mutant, tests, since = running.pop(pid)
        self.note(out, each, mutant, trial.status_of(wait_status), tests, time.monotonic() - since)

    def note(self, out: Any, each: Made, mutant: Mutant, status: str, tests: tuple[int, int], seconds: float) -> None:
        """A line of results. One that some tests alone do not kill is not known to live."""
        self.counts[status] += 1
        self.progress.show(self.counts, mutant.module)
        if self.arguments.tests and status not in ("killed", "timeout"):
            return
        body = function_digest(each.sources[mutant.function])
        result = {
            "fingerprint": mutant.fingerprint, "module": mutant.module, "function": mutant.function, "body": body,
            "status": status, "tests": tests[0], "reaching": tests[1], "seconds": round(seconds, 2),
        }  # fmt: skip
        out.write(json.dumps(result) + "\n")
        out.flush()


class Progress:
    """A line every ten seconds."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.since = self.shown = time.monotonic()

    def show(self, counts: Counter[str], module: str, last: bool = False) -> None:
        """What is done and how fast."""
        now = time.monotonic()
        if now - self.shown < 10 and not last:
            return
        self.shown = now
        done = sum(counts.values())
        rate = done / max(0.001, now - self.since)
        text = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        left = f", {(self.total - done) / rate / 60:.0f} min left" if rate and done < self.total else ""
        print(f"mutants: {done} of {self.total}: {text}; {rate:.1f} a second{left}  {module}", flush=True)


def function_digest(source: str) -> str:
    """What a function was when a mutant of it was tried."""
    return hashlib.sha256(source.encode()).hexdigest()[:10]


def results(work: Path) -> dict[str, dict[str, Any]]:
    """By fingerprint the last result."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    file = work / "results.jsonl"
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            found[result["fingerprint"]] = result
    return dict(found)


def tree_state() -> str:
    """A hash of all that the tests may read, in the copy."""
    digest = hashlib.sha256()
    for top in ("levelip", "gateway", "layers", "simulation", "tests"):
        for path in sorted(Path(top).rglob("*")):
            if path.suffix in (".py", ".pkt", ".toml", ".txt") and path.parent != Path("tests/mutants"):
                digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


def main(argv: list[str]) -> int:
    """Run in the copy of the tree."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--max-children", type=int, default=2)
    parser.add_argument("--budget", type=float, default=5.0)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--with", dest="tests", action="append", default=[])
    arguments = parser.parse_args(argv)
    flags = ["-s", "--no-header", "--no-summary", "-o", "timeout=0"]
    flags += ["-p", "no:faulthandler", "-p", "no:cacheprovider", "-p", "no:xdist"]
    flags += [*(arguments.tests or TESTS), *[f"--deselect={test}" for test in TOO_SLOW]]
    return int(pytest.main(flags, plugins=[Worker(arguments)]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
