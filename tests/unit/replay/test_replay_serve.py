"""A replay that another program asks, a line of JSON each way: the same answers as at the prompt, from any place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from replay_bench import host_upload, lossy_upload, stop, transfer

from levelip.tracing.recording import Recording
from simulation.replay.serve import MOST_STEPS, Served
from simulation.replay.session import Session
from tests.netsim.net import Impairment


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded upload with losses."""
    return lossy_upload(tmp_path_factory.mktemp("serve") / "tcp.rec")


@pytest.fixture
def served(path: Path) -> Served:
    return Served([Recording(path)])


def ask(served: Served, do: str, **args: Any) -> Any:
    """The answer, as it comes over the line."""
    (line,) = talk(served, json.dumps({"id": 7, "do": do, **args}))
    assert line["id"] == 7
    return line.get("ok", line)


def talk(served: Served, *lines: str) -> list[dict[str, Any]]:
    sink = io.BytesIO()
    served.run(io.BytesIO("".join(f"{line}\n" for line in lines).encode()), sink)
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def test_what_came_of_calls(served: Served, path: Path) -> None:
    """Any page of calls, in any order: what was received, decided and put out is what the prompt tells."""
    (about,) = ask(served, "about")
    assert about["layer"] == "tcp" and about["stop"] > 200
    session = Session([Recording(path)])
    told = session.run("next 60").data["steps"]
    later = ask(served, "steps", layer="tcp", at=30, count=30, idle=True)
    before = ask(served, "steps", layer="tcp", at=0, count=30, idle=True)
    rows = before["rows"] + later["rows"]
    assert [row["call"] for row in rows] == list(range(60))
    for row, mine in zip(rows, told, strict=True):
        texts = [one["text"] for one in row["out"] if one["seam"] != "memory"]
        assert texts == [one["text"] for one in mine["out"] if not one["text"].startswith("Store ")]
        assert [one["kind"] for one in row["events"]] == [one["kind"] for one in mine["events"]]
    assert all(one["text"] and one["id"] for row in rows for one in row["out"] if one["seam"] == "ip-tcp")
    assert before["all"] == about["stop"]
    most = ask(served, "steps", layer="tcp", at=0, count=10**9, idle=True)["rows"]
    assert len(most) == min(MOST_STEPS, about["stop"])
    assert ask(served, "steps", layer="tcp", at=about["stop"], count=5)["rows"] == []


def test_calls_of_which_nothing_came_are_left_out(served: Served) -> None:
    """The list without them has every frame and decision that the whole list has."""
    whole = ask(served, "steps", layer="tcp", at=0, count=500, idle=True)["rows"]
    brief = ask(served, "steps", layer="tcp", at=0, count=500)
    assert brief["all"] == len(brief["rows"]) < len(whole)
    assert [row for row in whole if row["out"] or row["events"] or "in" in row] == [
        row for row in brief["rows"] if row["out"] or row["events"] or "in" in row
    ]
    for position in (0, 40, brief["all"] - 1):
        call = brief["rows"][position]["call"]
        assert ask(served, "find", layer="tcp", at=0, place=f"#{call + 1}") == {"at": call + 1, "position": position}


def test_the_state_at_any_place_and_what_changed(served: Served, path: Path) -> None:
    """Forward and back, whole or a connection's, and the difference between two places: as `state` and `diff`."""
    session = Session([Recording(path)])
    session.run("goto event retransmit")
    at = session.player.at
    (name,) = [f"{one['local']}:{one['local_port']}>{one['remote']}:{one['remote_port']}"
               for one in session.run("connections").data["sockets"]]  # fmt: skip
    session.run("back 40")
    cwnd = session.run("state congestion.cwnd").data["state"]
    changes = session.run(f"diff #{at - 40} #{at}").data["changes"]
    late = ask(served, "state", layer="tcp", at=at, since=at - 40, conn=name)
    early = ask(served, "state", layer="tcp", at=at - 40, since=0, conn=name)
    assert dict(early["rows"])["congestion.cwnd"] == str(*cwnd.values())
    assert late["ns"] > early["ns"] and late["since_ns"] == early["ns"]
    prefix = f"connections[{name}]."
    mine = {name: (before, after) for name, before, after in late["changes"]}
    theirs = {one["name"].removeprefix(prefix) for one in changes if one["name"].startswith(prefix)}
    assert theirs and set(mine) == theirs
    assert dict(late["rows"])["tx.snd_una"] == mine["tx.snd_una"][1] != mine["tx.snd_una"][0]
    assert late["sockets"][0]["info"]["snd_cwnd"] > 0
    turned = ask(served, "state", layer="tcp", at=at - 40, since=at, conn=name)
    assert turned["changes"] == late["changes"], "from the earlier to the later, wherever the mark is"
    assert turned["rows"] == early["rows"] and turned["ns"] == early["ns"]
    whole = ask(served, "state", layer="tcp", at=at, since=at)
    assert f"{prefix}congestion.cwnd" in dict(whole["rows"]) and whole["changes"] == []
    assert ask(served, "state", layer="tcp", at=at, since=at, conn="10.9.9.9:1>10.9.9.8:2")["rows"] == []


def test_places(served: Served, path: Path) -> None:
    """By expression, forward and back, by time, by frame; what is none is told."""
    session = Session([Recording(path)])
    session.run("goto event retransmit")
    at = session.player.at
    assert ask(served, "find", layer="tcp", at=0, place="event retransmit")["at"] == at
    last = ask(served, "find", layer="tcp", at=10**6, place="event retransmit", back=True)
    assert last["at"] >= at and ask(served, "find", layer="tcp", at=at, place="event retransmit", back=True)["at"] == at
    assert ask(served, "find", layer="tcp", at=0, place="#17")["at"] == 17
    (row,) = ask(served, "steps", layer="tcp", at=at - 1, count=1, idle=True)["rows"]
    assert ask(served, "time", layer="tcp", ns=row["ns"])["at"] <= at - 1
    rows = ask(served, "steps", layer="tcp", at=0, count=50)["rows"]
    frame = next(one["id"] for row in rows for one in row["out"] if one["id"])
    found = ask(served, "find", layer="tcp", at=0, place=frame)["position"]
    (row,) = ask(served, "steps", layer="tcp", at=found, count=1)["rows"]
    assert frame in [one["id"] for one in row["out"]]
    for place in ("event retransmit and tcp.flags.sin", "#99999999", "19:99", "tcp-00000-99", ""):
        assert "error" in ask(served, "find", layer="tcp", at=0, place=place), place
    assert "error" in ask(served, "find", layer="ip", at=0, place="start")
    assert "error" in ask(served, "find", layer="tcp", at=5, place="#3", back=True)


def test_a_story_and_a_journey(tmp_path: Path) -> None:
    """Of a host's three layers: who opened the connection, and a SYN's way from the program down to ip."""
    served = Served(list(host_upload(tmp_path, 50_000).values()))
    (story,) = ask(served, "why", subject="80")["stories"]
    assert "We opened" in story["story"][0] and story["findings"] == []
    rows = ask(served, "steps", layer="ip", at=0, count=50)["rows"]
    ids = [one["id"] for row in rows for one in row["out"] if one["id"]]
    (frame,) = ask(served, "why", subject=ids[0])["stories"]
    assert frame["journey"]["path"].endswith("gateway ↓ tcp ↓ ip") and ids[0] in frame["journey"]["frames"]
    assert "nothing of 4711 was recorded" in ask(served, "why", subject="4711")["error"]


def test_what_was_not_recorded_is_decided_again(tmp_path: Path) -> None:
    """A recording without events tells the same story."""
    made = tmp_path / "tcp.rec"
    core, _, _ = transfer(made, size=100_000, how=Impairment(loss=0.03), seed=5, events=False)
    stop(core, made)
    (story,) = ask(Served([Recording(made)]), "why", subject="80")["stories"]
    assert any("SYN_SENT" in text for text in story["story"])
    assert any("again" in text for text in story["story"])


def test_what_if(served: Served) -> None:
    """The future in which the next packet is lost; a change that makes no sense is told."""
    at = ask(served, "find", layer="tcp", at=0, place="tcp.len == 0 and direction == up and tcp.ack > 2000")["at"] - 1
    lines = ask(served, "whatif", layer="tcp", at=at, change="drop then silence alone for 1s")
    assert lines[0].startswith("what if #") and len(lines) > 2
    assert "error" in ask(served, "whatif", layer="tcp", at=at, change="explode")


def test_whatever_comes_is_answered(served: Served) -> None:
    """Garbage is refused with the id that it had, and the next request answered."""
    lines = ["", "{", "[]", '{"id": 3}', '{"id": 4, "do": "nothing"}',
             '{"id": 5, "do": "steps", "layer": "tcp", "at": "x"}']  # fmt: skip
    answers = talk(served, *lines, '{"id": 6, "do": "about"}')
    assert [one["id"] for one in answers] == [None, None, None, 3, 4, 5, 6]
    assert all("error" in one for one in answers[:-1]) and answers[-1]["ok"]
