"""Scripts in rounds (--rounds): what comes at one instant is taken together, and timers may be late."""

from __future__ import annotations

import pytest

from simulation.script.packets import Flow, flags_text, option_text, read_options
from simulation.script.parse import parse
from simulation.script.run import run
from tests.unit.simulation.test_script_run import ESTABLISHED, fails, passes

SLOW_ACKS = "   +0 setsockopt(4, SOL_TCP, TCP_QUICKACK, [0], 4) = 0\n"
ROUNDS = "--rounds\n" + ESTABLISHED + SLOW_ACKS
TWO = """
   +.1 < . 1:1001(1000) ack 1 win 65535
   +0 < . 1001:2001(1000) ack 1 win 65535
"""
DELAYED = ROUNDS + "  +.1 < . 1:101(100) ack 1 win 65535\n"  # an ACK within 40 ms


def test_one_instant_is_one_round() -> None:
    """Two writes at once are one segment, where at once each goes alone."""
    writes = "   +.1 write(4, ..., 100) = 100\n   +0 write(4, ..., 200) = 200\n"
    passes(ROUNDS + writes + "   +0 > P. 1:301(300) ack 1")
    assert "seq" in fails(ESTABLISHED + writes + "   +0 > P. 1:301(300) ack 1")
    apart = writes.replace("+0 write", "+0 `round`\n   +0 write")
    assert fails(ROUNDS + apart + "   +0 > P. 1:301(300) ack 1")["seq"] == ("1:301(300)", "1:101(100)")


def test_what_came_is_read_in_a_later_round() -> None:
    """As tcp tells the program of it when the round ends."""
    data = ROUNDS + "   +.1 < P. 1:101(100) ack 1 win 65535\n"
    passes(data + "   +0 `round`\n   +0 read(4, ..., 100) = 100\n   +.04 > . 1:1(0) ack 101")
    too_early = data + "   +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n   +0 read(4, ..., 100) = 100\n"
    assert fails(too_early)["result"] == ("100", "-1 EAGAIN")


def test_timers_fire_when_they_are_due() -> None:
    """Unless a line says otherwise; at the instant of a line they run behind what it brings."""
    passes(DELAYED + "   +.04 > . 1:1(0) ack 101")
    assert fails(DELAYED + "   +.041 > . 1:1(0) ack 101", settings={"tcp.delayed_ack_ms": "30"})
    passes(DELAYED + "   +.04 < . 101:201(100) ack 1 win 65535\n   +0 > . 1:1(0) ack 201")


def test_a_timer_that_is_late() -> None:
    """It runs then, and not before, also when no line is there."""
    late = DELAYED + "   +.04 `timers late 0.0015`\n"
    passes(late + "   +.0015 > . 1:1(0) ack 101")
    assert "time" in fails(late + "   +.01 > . 1:1(0) ack 101")
    passes(late + "   +.0015 < . 101:201(100) ack 1 win 65535\n   +0 > . 1:1(0) ack 201")
    passes(late + "   +.0005 write(4, ..., 10) = 10\n   +0 > P. 1:11(10) ack 101")


def test_no_timer_is_due() -> None:
    """A line that says that one is late is an expectation, too."""
    assert fails(DELAYED + "   +.039 `timers late 0.0015`")["timer"] == ("0.239000", "0.240000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ESTABLISHED + "   +0 `round`", "only a script with --rounds"),
        (ESTABLISHED + "   +0 `timers late 0.1`", "only a script with --rounds"),
        (ROUNDS + "   +0 `timers late 0`", "from 0 to 3600"),
        (ROUNDS + "   +0 `timers late soon`", "from 0 to 3600"),
        (ROUNDS + "   +0 `lvlip set tcp.nonsense=1`", "there is no setting tcp.nonsense"),
        (ROUNDS + "   +0 `lvlip set tcp.delayed_ack_ms=x`", "tcp.delayed_ack_ms = x"),
    ],
)
def test_errors(text: str, message: str) -> None:
    """Each points at its line."""
    result = run(parse(text))
    assert result.error is not None
    assert message in result.error.message
    assert result.error.line == len(text.splitlines())


def test_a_setting_changed_on_the_way() -> None:
    """`lvlip set`, in rounds or not."""
    for text in (ESTABLISHED + SLOW_ACKS, ROUNDS):
        changed = text + "   +.1 `lvlip set tcp.delayed_ack_ms=10`\n   +.1 < . 1:101(100) ack 1 win 65535\n"
        passes(changed + "   +.01 > . 1:1(0) ack 101")


def test_code_sees_the_round_over() -> None:
    """What it asks of the stack is answered."""
    passes(ROUNDS + TWO + "   +0 %{ assert tcpi_bytes_received == 2000 }%\n   +0 > . 1:1(0) ack 2001")


def test_a_name_as_a_setting() -> None:
    """--set with a value in quotation marks, as a recording's settings are written."""
    passes('--set=tcp.congestion="newreno"\n' + ESTABLISHED)


@pytest.mark.parametrize("flags", range(0x100))
def test_flags_can_be_read_again(flags: int) -> None:
    """As lines have them, whatever they are."""
    text = flags_text(flags)
    event = parse(f"0 < {text} 0:0(0) ack 0 win 0" if flags & 0x10 else f"0 < {text} 0:0(0) win 0").events[0]
    assert event.action.flags == flags  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "raw", ["020305", "030405ff", "0506aabbccdd", "080a0102", "0202", "fe0601020304", "02", "0500"]
)
def test_options_whose_numbers_cannot_be_read(raw: str) -> None:
    """They are written in bytes."""
    for option in read_options(bytes.fromhex(raw), Flow(0, 0)):
        assert option_text(option).startswith(f"option {option.kind}")
