"""`lvlip ping` prints what ping prints and exits as ping exits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from cli_layer import FakeLayer
from click.testing import Result

from levelip.cli.ping import time_text
from levelip.debug.programs import python
from levelip.frames.core import ControlError
from levelip.ipc.clock import StackClock
from levelip.ipc.rundir import RunDirectory

Lvlip = Callable[..., Result]
Layer = Callable[..., FakeLayer]


def reply(args: dict[str, Any], rtt_ns: int = 1_230_000) -> dict[str, Any]:
    return {"from": args["dst"], "ttl": 64, "size": args["size"] + 8, "rtt_ns": rtt_ns}


def test_prints_as_ping(lvlip: Lvlip, layer: Layer) -> None:
    """Header, a line an answer, the summary: word for word as iputils."""
    times = iter([500_000, 1_500_000])
    ip = layer("ip", ping=lambda args: reply(args, next(times)))
    result = lvlip("ping", "10.0.0.1", "-c", "2", "-i", "0.05", "-W", "60")  # else the last answer has 50 ms
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:4] == [
        "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.",
        "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.500 ms",
        "64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=1.50 ms",
        "",
    ]
    assert lines[4] == "--- 10.0.0.1 ping statistics ---"
    assert re.fullmatch(r"2 packets transmitted, 2 received, 0% packet loss, time \d+ms", lines[5])
    # mean 1.0, mdev = sqrt((0.25 + 2.25) / 2 - 1) = 0.5
    assert lines[6] == "rtt min/avg/max/mdev = 0.500/1.000/1.500/0.500 ms"
    asked = [args for name, args in ip.asked if name == "ping"]
    assert [args["seq"] for args in asked] == [1, 2]
    assert len({args["id"] for args in asked}) == 1


def test_options_reach_the_layer(lvlip: Lvlip, layer: Layer) -> None:
    """-s, -t and -W become size, ttl and timeout_ms."""
    ip = layer("ip", ping=reply)
    assert "100(128) bytes of data" in lvlip("ping", "10.0.0.1", "-c1", "-s100", "-t7", "-W", "60.25").output
    [args] = [args for name, args in ip.asked if name == "ping"]
    assert (args["size"], args["ttl"], args["timeout_ms"]) == (100, 7, 60_250)


def test_nothing_answers(lvlip: Lvlip, layer: Layer) -> None:
    """Lost requests print no line; all lost is exit code 1."""
    layer("ip", ping={"error": "timeout"})
    result = lvlip("ping", "10.0.0.9", "-c", "3", "-i", "0.01", "-W", "0.1")
    assert result.exit_code == 1
    assert "icmp_seq" not in result.output
    assert "3 packets transmitted, 0 received, 100% packet loss" in result.output
    assert "rtt" not in result.output


def test_unreachable(lvlip: Lvlip, layer: Layer) -> None:
    """An ICMP error is a line with its sender and is counted as an error."""
    layer("ip", ping={"error": "Destination Host Unreachable", "from": "10.0.0.2", "type": 3, "code": 1, "mtu": 0})
    result = lvlip("ping", "10.0.0.9", "-c", "1")
    assert "From 10.0.0.2 icmp_seq=1 Destination Host Unreachable" in result.output
    assert "1 packets transmitted, 0 received, +1 errors, 100% packet loss" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"error": "Network is unreachable", "local": True}, "ping: connect: Network is unreachable"),
        ({"error": "message too long, mtu: 1500", "local": True}, "ping: local error: message too long, mtu: 1500"),
    ],
)
def test_errors_of_our_own(lvlip: Lvlip, layer: Layer, answer: dict[str, Any], text: str) -> None:
    """What does not even leave ends it with exit code 2."""
    layer("ip", ping=answer)
    result = lvlip("ping", "192.0.2.1", "-c", "3")
    assert result.exit_code == 2
    assert text in result.stderr


def test_refused_by_the_layer(lvlip: Lvlip, layer: Layer) -> None:
    """A request that ip refuses is told in its words."""

    def refuse(args: dict[str, Any]) -> dict[str, Any]:
        raise ControlError("10.0.0.255 is a broadcast or multicast address; ping asks single hosts")

    layer("ip", ping=refuse)
    result = lvlip("ping", "10.0.0.255")
    assert result.exit_code == 2 and "broadcast" in result.stderr


def test_no_stack(lvlip: Lvlip) -> None:
    """Without a stack: exit code 2 and what to do."""
    result = lvlip("ping", "10.0.0.1")
    assert result.exit_code == 2 and "lvlip up" in result.stderr


def test_unknown_name(lvlip: Lvlip, layer: Layer) -> None:
    """A name that the resolver does not know."""
    layer("ip", ping=reply)
    result = lvlip("ping", "nobody.invalid")
    assert result.exit_code == 2 and result.stderr.startswith("ping: nobody.invalid: ")


def test_names_are_shown_with_their_address(lvlip: Lvlip, layer: Layer) -> None:
    """A name stays beside its address."""
    layer("ip", ping=reply)
    output = lvlip("ping", "localhost", "-c", "1").output
    assert "PING localhost (127.0.0.1)" in output
    assert "64 bytes from localhost (127.0.0.1): icmp_seq=1" in output


def test_json(lvlip: Lvlip, layer: Layer) -> None:
    """--json: one value a line, the summary last."""
    layer("ip", ping=reply)
    lines = lvlip("ping", "10.0.0.1", "-c", "2", "-i", "0.01", "-W", "60", "--json").output.splitlines()
    first, _, summary = map(json.loads, lines)
    assert first["icmp_seq"] == 1 and first["rtt_ms"] == 1.23
    assert (summary["transmitted"], summary["received"], summary["loss_percent"]) == (2, 2, 0.0)
    assert summary["rtt_ms"]["avg"] == pytest.approx(1.23)


def test_ctrl_c_prints_the_summary(layer: Layer, run: RunDirectory) -> None:
    """Ctrl-C ends it cleanly, with the summary and the exit code of what was received so far."""
    layer("ip", ping=reply)
    command = python("levelip.cli", "ping", "10.0.0.1", "-i", "600", "--name", run.name, "--run", str(run.root))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("PING 10.0.0.1 ")
            assert process.stdout.readline().startswith("64 bytes from 10.0.0.1: icmp_seq=1 ")
            process.send_signal(signal.SIGINT)
            assert "1 packets transmitted, 1 received, 0% packet loss" in process.stdout.read()
            assert process.wait() == 0
        finally:
            process.kill()


def test_a_lost_answer_of_the_layer_is_a_lost_packet(lvlip: Lvlip, layer: Layer) -> None:
    """Requests go out on time even if no answer comes at all (ip was killed): they count as lost."""
    from levelip.frames.core import DEFERRED

    layer("ip", ping=lambda args: DEFERRED)
    result = lvlip("ping", "10.0.0.1", "-c", "3", "-i", "0.05", "-W", "0.1")
    assert "3 packets transmitted, 0 received, 100% packet loss" in result.output


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.0434, "0.043"), (0.9999, "1.00"), (1.2349, "1.23"), (9.996, "10.0"), (12.34, "12.3"), (123.4, "123")],
)
def test_three_digits(milliseconds: float, text: str) -> None:
    """Times have three significant digits, as iputils prints them."""
    assert time_text(milliseconds) == text


def test_a_held_stack_is_told(lvlip: Lvlip, layer: Layer, run: RunDirectory) -> None:
    """Else one would look for what loses the packets."""
    layer("ip", ping={"error": "timeout"})
    clock = StackClock(run.clock)
    for held in (False, True):
        if held:
            clock.hold()
        result = lvlip("ping", "10.0.0.9", "-c", "1", "-W", "0.01")
        assert result.exit_code == 1
        assert ("ping: the stack is held, so that nothing passes; see: lvlip status" in result.stderr) == held
    clock.close()
