"""docs/packet-scripts.md keeps up with the code: calls, sysctls, and every line of its example."""

from __future__ import annotations

import re
from pathlib import Path

from simulation.script.answers import SYSCTLS
from simulation.script.calls import Calls
from simulation.script.parse import parse
from simulation.script.report import failure_text
from simulation.script.run import run
from tests.unit.simulation.test_script_rounds import ROUNDS, SLOW_ACKS
from tests.unit.simulation.test_script_run import ESTABLISHED, fails, passes

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "packet-scripts.md").read_text(encoding="utf-8")


def test_all_sysctls_are_on_the_page() -> None:
    """A row for each, and none too many."""
    assert set(re.findall(r"^\| (net\.[a-z0-9_.]+) \|", PAGE, re.MULTILINE)) == set(SYSCTLS)


def test_all_calls_are_on_the_page() -> None:
    """By name."""
    found = re.search(r"\*\*Calls\*\*: (.*?)\. `\.\.\.`", PAGE, re.DOTALL)
    assert found is not None
    assert found[1].replace("\n", " ").split(", ") == Calls.names()


def test_the_rounds_shown_pass() -> None:
    """Behind a handshake; answered at once the first write goes alone."""
    example = re.search(r"## Rounds\n.*?\n\n((?:    [^\n]*\n)+)", PAGE, re.DOTALL)
    assert example is not None
    passes(ROUNDS + example[1])
    at_once = example[1].partition("       +.1 < . 1001")[0]
    assert fails(ESTABLISHED + SLOW_ACKS + at_once)["seq"] == ("1:301(300)", "1:101(100)")


def test_the_failure_shown_is_the_failure_that_comes() -> None:
    """The worked example: the same lines, but for the real time that it took."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE)
    script = next(block for block in blocks if "--strict\n" in block)
    source = "\n".join(line[4:] for line in script.partition("    $ lvlip")[0].splitlines()).strip("\n") + "\n"
    result = run(parse(source, "ex.pkt"))
    assert result.failure is not None
    for line in failure_text(result).splitlines():
        if line.strip():
            assert line.strip() in PAGE, line
