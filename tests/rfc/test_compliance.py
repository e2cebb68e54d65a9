"""docs/rfc-compliance.md is what its program would write now, and every mark on a test names a clause."""

from __future__ import annotations

import subprocess
import sys

from tests.rfc.compliance import ROOT, Requirement, mistakes, named, page

ROW = Requirement(id="RFC 1 MUST-1", section="1", level="MUST", text="be", where=["layers/tcp/core.py"])


def test_the_page_is_current() -> None:
    """Whoever adds a test with a mark, or a requirement, makes the page anew."""
    command = [sys.executable, "-m", "tests.rfc.compliance", "--check", "--allow-open"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_a_row_needs_a_test_or_a_reason() -> None:
    """An open row is named; a test or a reason closes it."""
    assert [line.split(":")[0] for line in mistakes([ROW], {})] == ["RFC 1 MUST-1"]
    assert mistakes([ROW], {"RFC 1 MUST-1": {"test_a.py::test_b"}}) == []
    declined = Requirement(id="RFC 1 MUST-1", section="1", level="MUST", text="be", why_not="because")
    assert mistakes([declined], {}) == []


def test_a_mark_names_a_clause() -> None:
    """A misspelt clause is found: no RFC, or no such row of an RFC that has rows."""
    tests = {"RFC 1 MUST-1": {"t"}, "RFC 1 MUST-2": {"t"}, "5681 3.2": {"t"}, "RFC 1 2.3": {"t"}, "RFC 2 1.1": {"t"}}
    found = mistakes([ROW], tests)
    assert [line.split(":")[0] for line in found] == [
        "'5681 3.2' is no clause (\"RFC NUMBER SECTION\")",
        "RFC 1 MUST-2",
    ]


def test_the_page_has_a_row_each() -> None:
    """With the source and the tests; long lists are counted."""
    text = page([ROW], {ROW.id: {f"test_{number}.py::t" for number in range(6)}})
    assert "| [1](#rfc-1) | 1 | 0 | 0 |" in text
    assert "| MUST-1 | 1 | MUST | be | `layers/tcp/core.py` | `test_0.py::t`" in text
    assert "and 2 more" in named({f"test_{number}.py::t" for number in range(6)})
