"""docs/rfc-compliance.md is what its program would write now, and every mark on a test names a clause."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from simulation.script.parse import clauses_of
from tests.rfc.compliance import ROOT, Requirement, mistakes, named, page, requirements

ROW = Requirement(id="RFC 1 MUST-1", section="1", level="MUST", text="be", where=["layers/tcp/core.py"])


@pytest.mark.timeout(900)  # all tests are collected
def test_the_page_is_current() -> None:
    """Whoever adds a test with a mark, or a requirement, makes the page anew."""
    command = [sys.executable, "-m", "tests.rfc.compliance", "--check", "--allow-open"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_row_needs_a_test_or_a_reason() -> None:
    """An open row is named; a test or a reason closes it."""
    assert [line.split(":")[0] for line in mistakes([ROW], {})] == ["RFC 1 MUST-1"]
    assert mistakes([ROW], {"RFC 1 MUST-1": {"test_a.py::test_b"}}) == []
    declined = Requirement(id="RFC 1 MUST-1", section="1", level="MUST", text="be", why_not="because")
    assert mistakes([declined], {}) == []


def test_a_mark_names_a_clause() -> None:
    """A misspelt clause is found: no RFC, or no such row of an RFC that has rows."""
    tests = {
        "RFC 1 MUST-1": {"t"},
        "RFC 1 MUST-2": {"t"},
        "RFC 1 2.3-1": {"t"},
        "5681 3.2": {"t"},
        "RFC 1": {"t"},
        "RFC 1 2.3": {"t"},
        "RFC 2 1.1": {"t"},
    }
    found = mistakes([ROW], tests)
    assert [line.split(":")[0] for line in found] == [
        "'5681 3.2' is no clause (\"RFC NUMBER SECTION\")",
        "RFC 1 2.3-1",
        "RFC 1 MUST-2",
    ]


def test_the_page_has_a_row_each() -> None:
    """With the source and the tests; long lists are counted."""
    text = page([ROW], {ROW.id: {f"test_{number}.py::t" for number in range(6)}})
    assert "| [1](#rfc-1) | 1 | 0 | 0 |" in text
    assert "| MUST-1 | 1 | MUST | be | `layers/tcp/core.py` | `test_0.py::t`" in text
    assert "and 2 more" in named({f"test_{number}.py::t" for number in range(6)})


def test_a_section_proves_the_row_that_it_has_alone() -> None:
    """Where a section has two rows, its name does not say which of them is meant."""
    one = Requirement(id="RFC 1 2.1-1", level="MUST", text="be", where=["layers/tcp/core.py"])
    more = [Requirement(id=f"RFC 1 2.2-{n}", level="MUST", text="be", where=["layers/tcp/core.py"]) for n in (1, 2)]
    tests = {"RFC 1 2.1": {"t"}, "RFC 1 2.2": {"t"}}
    assert [line.split(":")[0] for line in mistakes([one, *more], tests)] == ["RFC 1 2.2-1", "RFC 1 2.2-2"]
    text = page([one, *more], tests)
    assert "| [1](#rfc-1) | 1 | 0 | 2 |" in text
    assert "| RFC 1 2.2 | `t` |" in text


def test_a_row_that_another_replaced() -> None:
    """It is met if the other is, and it must name a row that stands for itself."""
    old = Requirement(id="RFC 0 1-1", level="MUST", text="be", same_as="RFC 1 MUST-1")
    assert mistakes([old, ROW], {ROW.id: {"t"}}) == []
    assert "| [0](#rfc-0) | 1 | 0 | 0 |" in page([old, ROW], {ROW.id: {"t"}})
    assert "as RFC 1 MUST-1 (**open**)" in page([old, ROW], {})
    assert [line.split(":")[0] for line in mistakes([old], {})] == ["RFC 0 1-1"]


def test_a_row_is_met_or_not() -> None:
    """A test that proves what its row says is not done: one of the two is wrong."""
    declined = Requirement(id="RFC 1 MUST-1", section="1", level="MUST", text="be", why_not="because")
    assert [line.split(":")[0] for line in mistakes([declined], {declined.id: {"t"}})] == ["RFC 1 MUST-1"]


def test_ids_count_within_their_section() -> None:
    """RFC 5681 3.2-1, 3.2-2, ...: marks stay exact when rows are added at the end of a section."""
    numbers: dict[str, int] = {}
    for row in requirements():
        if row.rfc != "9293":
            numbers[f"{row.rfc} {row.section}"] = numbers.get(f"{row.rfc} {row.section}", 0) + 1
            assert row.id == f"RFC {row.rfc} {row.section}-{numbers[f'{row.rfc} {row.section}']}"


def test_packet_scripts_name_what_they_cover() -> None:
    """Each of those that are sorted by RFC names a clause, and at least 200 one that no other script names."""
    scripts = {path: clauses_of(path.read_text()) for path in (ROOT / "tests" / "scripts").rglob("*.pkt")}
    assert not [path.name for path, clauses in scripts.items() if path.parent.name.startswith("rfc") and not clauses]
    times = Counter(clause for clauses in scripts.values() for clause in clauses)
    assert sum(any(times[clause] == 1 for clause in clauses) for clauses in scripts.values()) >= 200
