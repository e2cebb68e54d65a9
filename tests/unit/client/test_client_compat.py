"""docs/socket-compat.md is what the code, the tables and the tests say, and leaves nothing out."""

from __future__ import annotations

import json
import socket as std
import sys
from pathlib import Path

import pytest

from levelip.client.socket import OURS
from tests.compat import cpython, sockets
from tests.compat.suites import SUITES


def test_nothing_is_left_out() -> None:
    """Each flag has its row, and no row is of a name that Python has not."""
    assert set(sockets.flags()) <= set(sockets.FLAGS)
    assert set(sockets.CALLS) <= set(sockets.methods())
    assert set(sockets.FUNCTIONS) <= set(sockets.functions())
    assert set(sockets.OPTION_NOTES) <= {name for name, _, _ in sockets.options()}
    assert {name for name in OURS if name != "socket"} <= set(sockets.functions())


def test_calls_are_tested() -> None:
    """Every method that is ours is used by the program that compares it with the kernel's."""
    by = sockets.touched()
    untested = [
        name
        for name in sockets.methods()
        if name in vars(sockets.socket) and not any("socketapi" in test for test in by.get(name, []))
    ]
    assert untested == []


def test_every_name_is_tested() -> None:
    """Each function, flag and option that is carried is touched by a test, or it is said why not."""
    by = sockets.touched()
    keys = [(name, (level, number)) for name, level, number in sockets.options()]
    carried = [
        name for name, key in keys if "yes" in [sockets.verdict(name, key, datagrams=one) for one in (False, True)]
    ]
    names = {*sockets.methods(), *sockets.functions(), *sockets.flags(), *carried}
    assert {name for name in names if not by.get(name)} == set(sockets.UNTESTED)


@pytest.mark.parametrize(("kind", "datagrams"), [(std.SOCK_STREAM, False), (std.SOCK_DGRAM, True)])
def test_linux_has_what_we_carry(kind: int, datagrams: bool) -> None:
    """An option that is carried is one that the running kernel knows on such a socket."""
    with std.socket(std.AF_INET, kind) as sock:
        for name, level, number in sockets.options():
            if sockets.verdict(name, (level, number), datagrams=datagrams) == "yes" and "MEMBERSHIP" not in name:
                try:
                    sock.getsockopt(level, number, 256)
                except OSError as error:
                    assert error.errno == 107, name  # ENOTCONN: IP_MTU


@pytest.mark.parametrize("way", cpython.OURS)
def test_what_was_counted_is_what_is_known(way: str) -> None:
    """Of the tests of CPython's suites no more are missing here than are named with a reason."""
    counts = json.loads(cpython.COUNTS.read_text())
    for suite in SUITES:
        missing = counts[suite.name]["kernel"]["passed"] - counts[suite.name][way]["passed"]
        assert missing <= len(suite.known(way) | suite.unsure(way)), suite.name
        assert counts[suite.name]["kernel"]["passed"] >= suite.at_least


def test_what_a_suite_said_is_read(tmp_path: Path) -> None:
    """Names come out alike from the report and from the output, where subtests and setUpClass are told alone."""
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase name="test.test_x.Good.test_a" /><testcase name="test.test_x.Good.test_b"><skipped>no</skipped>'
        '</testcase><testcase name="test.test_x.Bad.test_c"><failure>why</failure></testcase><testcase />'
        '<testcase name="test.test_x.Bad.test_e" /></testsuite></testsuites>'
    )
    rule, line = "=" * 70, "-" * 70
    said = "".join(
        f"{rule}\n{head}\n{line}\nTraceback\nError: {why}\n\n"
        for head, why in (
            ("FAIL: test_c (test.test_x.Bad.test_c)", "why"),
            ("FAIL: test_d (test.test_x.Bad.test_d) (i=1)", "sub"),
            ("ERROR: setUpClass (test.test_x.Worse)", "set up"),
        )
    )
    outcome = cpython.read(report, f"{said}{line}\nRan 4 tests in 0.1s\n", "test_x")
    assert outcome.passed == {"Good.test_a", "Bad.test_e"}
    assert outcome.skipped == {"Good.test_b": "no"}
    assert outcome.failed.keys() == {"Bad.test_c", "Bad.test_d", "Worse.setUpClass"}
    assert outcome.failed["Worse.setUpClass"] == "Traceback\nError: set up\n"
    kernel = cpython.Outcome(passed={"Good.test_a", "Good.test_b", "Bad.test_d", "Bad.test_f"})
    assert cpython.compared(kernel, outcome) == {
        "Bad.test_d": "Traceback\nError: sub\n", "Bad.test_f": "did not run", "Good.test_b": "skipped: no",
    }  # fmt: skip


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the page is made with Python 3.11, others have other names"
)
def test_the_page_is_what_would_be_written() -> None:
    """`python -m tests.compat.sockets` has nothing to change."""
    assert sockets.PAGE.read_text() == sockets.page()
