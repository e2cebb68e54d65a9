"""Wrong usage is told alike by all commands: exit code 2, and a line of usage before what is wrong."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_layer import FakeLayer
from click.testing import Result

from levelip.ipc.clock import StackClock
from levelip.ipc.rundir import RunDirectory

MEANINGLESS = """\
trace --host nowhere
trace --proto quic
trace --flags X
trace --filter 'tcp.prt == 80'
trace --filter 'conn.cwnd < 4'
trace --no-packets --filter tcp
trace --kind state --filter 'event drop'
trace --no-packets --kind state --filter 'event drop or tcp'
trace --journey --seconds 1 --from .
trace --journey --host nowhere
trace --journey --filter 'tcp.prt == 80'
capture -w x --host nowhere
capture -w x --filter 'tcp.prt == 80'
capture -w x --filter 'event drop'
paths --proto quic
why nonsense
why nonsense --flight
why 99999
why 10.0.0.300
why 10.0.0.1:80:90
why 10.0.0.1:99999
why '10.0.0.1:80>10.0.0.2'
why '10.0.0.1:80>10.0.0.2:9>10.0.0.3:7'
why 10.0.0
why ' '
graph 99999 -o x.svg
graph nonsense -o x.svg
qlog nonsense -o x
explain nonsense
lesson 99
get nonsense
set nonsense=1
set tcp.nagle=perhaps
set tcp.nagle
up --set tcp.nagle=perhaps
up --set tcp.congestion=nonsense
config --set nonsense=1
net show --set nonsense=1
fault set link nonsense=1
fault set link loss=200%
held delay l1 nonsense
route nonsense
route add nonsense
route add 10.9.0.0/16 through 10.0.0.1
address add nonsense
address del nonsense
group join 10.0.0.1
group leave nonsense
neigh --address nonsense
"""
"""Words that mean nothing, whatever the stack does, or whether there is one."""
MEANINGLESS_TO_A_STACK = """\
hold nonsense
step nonsense
step --at nonsense
held list nonsense
held show nonsense
held drop nonsense
held release --all --at nonsense
break add
break add 'tcp.prt == 80'
break add tcp --at nonsense
break add --on nonsense
break add 'event drop' --at link
inject nonsense '. 1:1(0)'
inject link '. 1:1(0)'
inject gateway-client:up '. 1:1(0)' --conn '10.0.0.2:80>10.0.0.1:4711'
inject ip-tcp:up nonsense --conn '10.0.0.2:80>10.0.0.1:4711'
inject ip-tcp:up '. 1:1(0)' --conn nonsense
inject link-ip:up --set nonsense=1 --conn '10.0.0.2:80>10.0.0.1:4711'
"""
"""Of what is looked at only where a stack runs."""


def is_usage(result: Result) -> bool:
    return result.exit_code == 2 and "Usage: " in result.stderr and "\nError: " in result.stderr


@pytest.mark.parametrize("line", MEANINGLESS.splitlines())
def test_words_that_mean_nothing_are_wrong_usage(lvlip: Callable[..., Result], line: str) -> None:
    """Before a stack is looked for."""
    result = lvlip(*shlex.split(line))
    assert is_usage(result), result.output


@pytest.mark.parametrize("line", MEANINGLESS_TO_A_STACK.splitlines())
def test_what_the_debugger_cannot_understand_is_wrong_usage(
    layer: Callable[..., FakeLayer], run: RunDirectory, lvlip: Callable[..., Result], line: str
) -> None:
    """Places, frames' names, expressions, packets; of a stack that is held, so that there would be something to do."""
    queues = {"now": 0, "queues": [], "breakpoints": {}, "stops": [], "next_deadline": None}
    answers = {
        "debug.state": lambda _: queues,
        "debug.held": lambda _: {"held": []},
        "debug.breakpoints": lambda _: {"refused": []},
    }
    for name in ("link", "ip", "tcp"):
        layer(name, **answers)
    StackClock(run.clock).close()
    assert lvlip("hold").exit_code == 0
    result = lvlip(*shlex.split(line))
    assert is_usage(result), result.output


def test_a_breakpoint_may_be_typed_without_quotes(
    layer: Callable[..., FakeLayer], run: RunDirectory, lvlip: Callable[..., Result]
) -> None:
    """As far as the shell leaves its words alone."""
    state = {"now": 0, "queues": [], "breakpoints": {}, "stops": [], "next_deadline": None}
    layer("tcp", **{"debug.state": lambda _: state, "debug.breakpoints": lambda _: {"refused": []}})
    StackClock(run.clock).close()
    result = lvlip("break", "add", "event", "state", "and", "conn.local_port", "==", "80", "--once")
    assert result.stdout == "breakpoint 1: event state and conn.local_port == 80 --once\n", result.output


@pytest.mark.parametrize(
    ("line", "told"),
    [("ss --port http", "'http' is not a valid integer."), ("stat -d x", "'x' is not a valid number of seconds.")],
)
def test_what_is_no_number_is_said_to_be_none(lvlip: Callable[..., Result], line: str, told: str) -> None:
    """Not that it is no range."""
    result = lvlip(*line.split())
    assert is_usage(result) and result.stderr.endswith(f"{told}\n")


def test_a_check_of_settings_has_found_something_wrong(lvlip: Callable[..., Result]) -> None:
    """What `config --check` was asked for is whether there is a mistake: there is, and that is no wrong usage."""
    result = lvlip("config", "--check", "--set", "tcp.nagle=perhaps", "--set", "nonsense=1")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2


def test_a_mistake_in_a_file_is_no_wrong_usage(lvlip: Callable[..., Result], tmp_path: Path) -> None:
    """Also where the command line has one besides."""
    file = tmp_path / "lab.toml"
    file.write_text("[tcp]\nnagle = 3\n")
    for command in ("up", "config"):
        result = lvlip(command, "--config", str(file), "--set", "nonsense=1")
        assert result.exit_code == 1
        assert "lab.toml:2: tcp.nagle = 3" in result.stderr
