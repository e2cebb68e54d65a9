"""Packet scripts of tcp's recordings: they do what was recorded, call by call, or there are none and it is said why."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from layers.tcp.congestion import cubic
from levelip.frames.packet import Segment
from levelip.frames.seam import Close
from levelip.rpc.stream import Consumed, Eof, Send, Urgent
from levelip.tracing.recording import Recording
from simulation.replay.export import _settings, to_script
from simulation.replay.rounds import find_connection, rounds_of
from simulation.replay.toscript import connection_script
from simulation.script.parse import parse
from simulation.script.record import RecordError
from simulation.script.run import Result, Runner, prepare, run
from tests.netsim.net import MS, Impairment
from tests.unit.replay.exchange_bench import LOSSY, SHAPES, Shape, exchange
from tests.unit.replay.replay_bench import dump, record_host, stop, transfer

TAKEN = (Segment, Send, Consumed, Eof, Close, Urgent)


def rounds_since(recording: Recording, origin: int, begin: int) -> list[Any]:
    """(instant, what was taken, whether timers ran, how many segments went out) of the rounds in which anything was
    done."""
    found = []
    for one in rounds_of(recording):
        taken = [type(frame).__name__ for frame in one.taken if isinstance(frame, TAKEN)]
        out = sum(isinstance(frame, Segment) for _, frame in one.out)
        if one.now - origin >= begin and (taken or out or one.timers):
            found.append((one.now - origin, taken, one.timers, out))
    return found


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_a_script_passes(tmp_path: Path, name: str, seed: int) -> None:
    """Whatever happened to the connection, on either end: its script passes, down to the windows and the nanosecond."""
    recording = exchange(tmp_path / "tcp.rec", seed, SHAPES[name])
    text, notes = to_script(recording)
    result = run(parse(text))
    assert result.status == 0, (text, result.error, result.failure)
    assert not result.warnings
    assert bool(notes) == (name == "several")
    if name == "too long":
        assert "< icmp type_3 code_4 mtu 1000 [" in text
        assert "`lvlip set tcp.delayed_ack_ms=20`" in text


@pytest.mark.parametrize("name", ["late", "server"])
def test_timers_have_an_end(tmp_path: Path, name: str) -> None:
    """A script whose timers run more often than any stack's is refused, by a count that grows with the rounds of the
    recording: instants that lie years apart cost no more."""
    recording = exchange(tmp_path / "tcp.rec", 3, SHAPES[name])
    with pytest.raises(RecordError, match=r"would not do what was recorded at .*more timers have run than any stack"):
        connection_script(recording, _settings(recording), timers=(0, 0))
    assert connection_script(recording, _settings(recording), timers=(0, 1))[0] == to_script(recording)[0]


@pytest.mark.parametrize("name", ["on time", "late", "server", "close"])
def test_the_same_calls(tmp_path: Path, name: str) -> None:
    """tcp is given in the script what it was given then, at the same instants and in the same rounds."""
    recording = exchange(tmp_path / "tcp.rec", 3, SHAPES[name])
    script = parse(to_script(recording)[0])
    begun, _ = find_connection(recording, 0)
    origin = begun.at // 1_000_000_000 * 1_000_000_000
    runner = Runner(script, prepare(script, {}, ()), Result(script))
    base = runner.base
    directory = tmp_path / "again"
    directory.mkdir()
    cores = record_host(runner.host, directory)
    runner.run()
    again = {name: stop(core, directory / f"{name}.rec") for name, core in cores.items()}["tcp"]
    then = rounds_since(recording, origin, begun.at - origin)
    now = rounds_since(again, base, begun.at - origin)
    end = now[-1][0]
    assert len(now) > 15
    assert [one for one in then if one[0] <= end] == now


def test_what_it_looks_like(tmp_path: Path) -> None:
    """Lines of one instant are one round; a timer that ran late is said to be."""
    text, _ = to_script(exchange(tmp_path / "tcp.rec", 1, SHAPES["late"]))
    lines = text.splitlines()
    assert {"--rounds", "--strict", "--tolerance_usecs=0"} <= set(lines)
    late = next(index for index, line in enumerate(lines) if "`timers late 0.00" in line)
    assert lines[late + 1].split()[0] == "+" + lines[late].split("late ")[1].rstrip("`")
    assert sum(line.lstrip().startswith("+0 <") for line in lines) > 10


def test_it_fails_where_the_core_is_another(tmp_path: Path) -> None:
    """CUBIC's beta (RFC 9438 4.6), a timer or an option: what the script expects is what was."""
    script = parse(to_script(exchange(tmp_path / "tcp.rec", 1, Shape(LOSSY, late=3 * MS, size=300_000)))[0])
    assert run(script).status == 0
    with mock.patch.object(cubic, "BETA", (6, 10)):
        assert run(script).status == 1
    for name, value in (("tcp.delayed_ack_ms", "39"), ("tcp.tlp", "false"), ("tcp.initial_window", "9")):
        assert run(script, settings={name: value}).status == 1, name


def test_no_script_that_would_not_pass(tmp_path: Path) -> None:
    """This Level-IP does not do what was recorded: that is said, with the packet that differs, and what to do."""
    recording = exchange(tmp_path / "tcp.rec", 1, Shape(LOSSY, size=300_000))
    with mock.patch.object(cubic, "BETA", (6, 10)), pytest.raises(RecordError) as error:
        to_script(recording)
    text = str(error.value)
    assert "would not do what was recorded at 0." in text
    assert "recorded: +0" in text and "in a script" in text
    assert "`lvlip replay` tells" in text and "--to-test" in text


def test_one_of_several(tmp_path: Path) -> None:
    """--port names the connection; without it the first is taken, and that is said."""
    recording = exchange(tmp_path / "tcp.rec", 4, SHAPES["several"])
    first, found = find_connection(recording, 0)
    assert len(found) == 3
    text, notes = to_script(recording)
    assert "is the first of 3 connections; --port names another" in notes[0]
    for one in found:
        chosen, none = to_script(recording, port=one.ends[2])
        assert not none
        assert (chosen == text) == (one is first)
        assert run(parse(chosen)).status == 0
    with pytest.raises(RecordError, match=r"no connection with port 7 begins in tcp.rec; those that do: 10\.0\.0\.1:"):
        to_script(recording, port=7)


def test_a_recording_that_begins_in_the_middle(tmp_path: Path) -> None:
    """What the flight recorder has may have no SYN: the error says whose, and what to do."""
    core, _, _ = transfer(None, size=3_000_000, how=Impairment(loss=0.01), flight=256 << 10, seed=5)
    recording = dump(core, tmp_path / "tcp.rec")
    assert recording.first > 0
    with pytest.raises(RecordError) as error:
        to_script(recording)
    text = str(error.value)
    assert "no connection begins in tcp.rec: 10.0.0.1:" in text and "> 10.0.0.2:80 had begun before" in text
    assert "Start the recording before it connects" in text and "--to-test, with --from and --to" in text
