"""Numbers of any length in what people write: an error that says so, never a crash (Python reads 4,300)."""

from __future__ import annotations

import pytest

from levelip.debug.faultspec import BadFault, parse, parse_time
from levelip.frames.packet import Segment
from levelip.tracing.edit import EditError, edit, parse_changes
from levelip.tracing.expression import compile_expression
from levelip.tracing.expressionparser import ExpressionError
from levelip.tracing.packetline.read import read_packet_line
from levelip.tracing.packetline.values import ScriptError
from levelip.wire.tcp import ACK, pack_tcp
from simulation.replay.places import NoSuchPlace
from simulation.replay.session import _number
from simulation.replay.whatif import BadChange, parse_change
from simulation.script.parse import parse as parse_script

LONG = ["9" * 400, "9" * 5000]


@pytest.mark.parametrize("digits", LONG, ids=len)
def test_expressions_refuse_them(digits: str) -> None:
    for text in (
        f"tcp.port == {digits}",
        f"tcp.port == 0x{digits}",
        f"data[{digits}:1] == 00",
        f"tcp.len > {digits}.5",
    ):
        with pytest.raises(ExpressionError):
            compile_expression(text)


@pytest.mark.parametrize("digits", LONG, ids=len)
def test_faults_refuse_them(digits: str) -> None:
    for word in (f"delay={digits}s", f"delay=1ms±{digits}s", f"seed={digits}", f"rate={digits}mbit", f"loss={digits}%"):
        with pytest.raises(BadFault):
            parse([word])
    with pytest.raises(BadFault):
        parse_time(f"{digits}ms")


@pytest.mark.parametrize("digits", LONG, ids=len)
def test_packets_scripts_and_edits_refuse_them(digits: str) -> None:
    for line in (f"S 0:0(0) win {digits}", f"udp {digits} > 5 (1)", f"[ttl {digits}] . 1:1(0)"):
        with pytest.raises(ScriptError):
            read_packet_line(line)
    with pytest.raises(ScriptError):
        parse_script(f"0 write(3, ..., {digits}) = 1\n0 < S 0:{digits}(0) win 1", "x")
    head = pack_tcp(1, 2, seq=1, ack=1, flags=ACK, window=5)
    segment = Segment(1, [], False, 0, 1, bytes(4), bytes(4), 6, 64, 0, head, b"", 1, 0)
    for change in (f"tcp.seq={digits}", f"ip.ttl=0x{digits}", f"data={digits}0x"):
        with pytest.raises(EditError):
            edit(segment, parse_changes([change]))


@pytest.mark.parametrize("digits", LONG, ids=len)
def test_replay_refuses_them(digits: str) -> None:
    for span in (f"{digits}s", "infs", "nans", "-1s", "0ms"):
        with pytest.raises(BadChange, match="for how long"):
            parse_change(f"drop for {span}")
    assert parse_change("drop for 1.5s").span == 1_500_000_000
    for text in (digits, "²", "-1", "x"):
        with pytest.raises(NoSuchPlace, match="a number of calls"):
            _number(text, 1)
    assert _number("12", 1) == 12
