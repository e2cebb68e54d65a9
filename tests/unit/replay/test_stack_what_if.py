"""What a whole recorded stack would have done: gateway, tcp and ip of an upload run on from one lost packet."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from replay_bench import DELAY, host_upload, stop, transfer

from layers.tcp.core import TcpCore
from levelip.tracing.recordedcalls import Received, decode_frame
from levelip.tracing.recording import Recording
from simulation.replay.__main__ import main
from simulation.replay.closedloop import first_difference
from simulation.replay.player import Player
from simulation.replay.session import Answer, Session
from simulation.replay.whatif import parse_change, what_if
from tests.netsim.net import Impairment

SIZE = 400_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded upload without losses."""
    made = tmp_path_factory.mktemp("upload")
    for recording in host_upload(made, SIZE).values():
        assert Player(recording).check() is None
    return made


@pytest.fixture
def session(directory: Path) -> Session:
    """At the beginning of it, in tcp."""
    return Session([Recording(path) for path in sorted(directory.glob("*.rec"))])


def run(session: Session, line: str) -> Answer:
    """A command that succeeds."""
    answer = session.run(line)
    assert not answer.failed, answer.lines
    return answer


def rows(answer: Answer, text: str, what: str = "") -> list[dict[str, Any]]:
    return [row for row in answer.data["made"] if text in row["text"] and what in ("", row["what"])]


def in_the_middle(session: Session, layer: str, condition: str) -> None:
    """Before the packet that it is true of, in the second half of slow start."""
    run(session, f"layer {layer}")
    run(session, "goto 70ms")
    run(session, f"goto {condition}")
    run(session, "back")


def test_a_timer_that_was_late_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine timers ran 20 ms late: of a packet that is not changed nothing follows, alone or as a stack."""
    path, punctual = tmp_path / "tcp.rec", TcpCore.next_timer
    monkeypatch.setattr(TcpCore, "next_timer", lambda core: at + 20_000_000 if (at := punctual(core)) else at)
    core, _, _ = transfer(path, size=100_000, how=Impairment(loss=0.05), seed=5)
    monkeypatch.undo()
    player = Player(stop(core, path))
    recording = player.recording
    calls = [(number, entry) for number, entry in recording.entries(0) if isinstance(entry, Received)]
    for number, entry in calls[10:40:5]:
        frame = decode_frame(entry.code, entry.frame, entry.cuts)
        assert first_difference(player, number, frame, entry.now, recording.span[1]) is None, number
    player.seek(calls[10][0])
    assert what_if(player, parse_change("edit tcp.urgent_pointer=0 then recorded for 9s")).data["same"]


def test_a_lost_segment_is_sent_again(session: Session) -> None:
    """One of our data packets is lost below tcp: SACKs come a round trip later, the lost bytes are sent again, once,
    the window is cut, and all that the program wrote arrives (RFC 9293 3.8.1, RFC 6675, RFC 9438 4.6)."""
    in_the_middle(session, "ip", "tcp.len > 0 and direction == down")
    answer = run(session, "whatif drop for 5s")

    assert answer.data["peer"] == "recorded, then acknowledging"
    lost = answer.data["packet"].split("seq ")[1].split(",")[0]
    start = float(answer.data["difference"])
    again = rows(answer, f"seq {lost.split(':')[0]}:", "out")
    assert len(again) == 1, answer.lines
    assert 2 * DELAY / 1e9 <= float(again[0]["time"]) - start < 10 * DELAY / 1e9, "long before an RTO"
    assert rows(answer, "sack", "in")
    assert rows(answer, "RECOVERY", "event") and not rows(answer, "RTO expired", "event")
    assert rows(answer, "Flags [F.", "out") or rows(answer, "Flags [FP", "out")
    final = max(int(row["text"].split("ack ")[1].split(",")[0]) for row in rows(answer, "ack", "in"))
    run(session, "goto start")
    syn = "\n".join(run(session, "goto tcp.flags.syn and direction == down").lines)
    iss = int(syn.split("seq ")[1].split(",")[0])
    assert final == iss + 1 + SIZE + 1, "all of it arrived, and the FIN"


def test_a_silent_peer(session: Session) -> None:
    """The same, and nobody answers any more: the RTO, doubled each time (RFC 6298 5.5)."""
    in_the_middle(session, "ip", "tcp.len > 0 and direction == down")
    answer = run(session, "whatif drop then silence for 10s")
    assert answer.data["peer"] == "silent"
    assert not rows(answer, "", "in")
    times = [float(row["time"]) for row in rows(answer, "RTO expired", "event")]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(gaps) >= 3
    assert all(later == pytest.approx(2 * sooner, rel=0.05) for sooner, later in itertools.pairwise(gaps))


def test_a_lost_ack_changes_little(session: Session) -> None:
    """The next one says as much: nothing is sent again, and all arrives."""
    in_the_middle(session, "tcp", "tcp.len == 0 and direction == up")
    answer = run(session, "whatif drop for 5s")
    if not answer.data["same"]:
        assert not rows(answer, "RTO expired", "event")
        assert not rows(answer, "retransmit", "event")
        assert rows(answer, "Flags [F", "out")


def test_an_edit_that_matters_to_nobody(session: Session) -> None:
    """Nothing else comes out, to the end."""
    in_the_middle(session, "tcp", "tcp.len == 0 and direction == up")
    answer = run(session, "whatif edit ip.ttl=63")
    assert answer.data["same"] is True
    assert "same as recorded" in answer.lines[-1]


def test_one_layer_alone(session: Session) -> None:
    """As before, if that is asked for."""
    in_the_middle(session, "tcp", "tcp.len == 0 and direction == up")
    answer = run(session, "whatif drop then recorded")
    assert "peer" not in answer.data
    answer = run(session, "whatif drop then silence alone for 2s")
    assert "peer" not in answer.data


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_anywhere(session: Session, part: float) -> None:
    """Whatever is lost in either layer, all that was written arrives in the end."""
    for layer in ("ip", "tcp"):
        run(session, f"layer {layer}")
        recording = session.player.recording
        run(session, f"goto #{recording.first + int(len(recording) * part)}")
        answer = session.run("whatif drop for 30s")
        if answer.failed:
            assert "no packet comes" in answer.lines[0]
        elif "[S]" in answer.data["packet"] or "[S.]" in answer.data["packet"]:
            assert rows(answer, "Flags [S]", "out"), "a handshake that nobody answers"
        elif not answer.data["same"]:
            assert rows(answer, "Flags [F", "out"), answer.lines
            assert not any("unacked 0" not in line and "ESTABLISHED" in line for line in answer.lines[-3:])


def test_the_program(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`lvlip replay DIR --layer ...` would leave one recording; all of DIR runs the stack, and says who answers."""
    where = "goto tcp.len > 0 and direction == down"
    assert main([str(directory), "-e", "layer ip", "-e", where, "-e", "whatif drop"]) == 0
    shown = capsys.readouterr().out
    assert "the peer answers as recorded until" in shown and "then acknowledges" in shown
    assert main([str(directory), "--goto", "tcp.len == 0", "--what-if", "drop then silence", "--json"]) == 0
    data = [json.loads(line) for line in capsys.readouterr().out.splitlines()][-1]
    assert data["command"] == "whatif" and data["peer"] in ("silent", "recorded")
