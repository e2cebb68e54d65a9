"""The upper end of journeys: a segment's bytes in messages to the client, an application's bytes in a segment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from levelip.cli.main import cli
from levelip.cli.sources import recorded
from levelip.debug.collection import Collection
from levelip.debug.facts import MESSAGES
from levelip.debug.journeys import Journey, journey, journey_lines, journeys, paths
from levelip.debug.recorded import open_all, records
from levelip.debug.streams import known
from levelip.debug.tap import EVENT_MONO, KIND, Notice, Record, event_of
from levelip.debug.traces import read_trace
from levelip.debug.why import Unknown, why
from levelip.tracing.events import Event
from levelip.tracing.recording import RecordingError
from levelip.wire.tcp import ACK, FIN, PSH, RST, SYN, pack_tcp
from simulation.replay.player import Player
from simulation.replay.session import Session
from tests.unit.debug.test_journeys import write
from tests.unit.replay.replay_bench import dump, host_recordings, stop, transfer

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
CONN = "10.0.0.2:80>10.0.0.1:4711"
SOCK, PEER = 7, b"client"
NEAR_WRAP = 0xFFFF_FF00
TCP, IP, LINK = (code << 60 for code in (3, 2, 1))


def segment(mono: int, id_: int, seq: int, flags: int, *, size: int = 0, up: bool = True, process: str = "tcp",
            causes: tuple[int, ...] = ()) -> Record:  # fmt: skip
    """A segment at ip-tcp, as tcp took or made it. We are 10.0.0.2, port 80."""
    src, dst, ports = (A, B, (4711, 80)) if up else (B, A, (80, 4711))
    head = pack_tcp(*ports, seq=seq & 0xFFFF_FFFF, ack=1, flags=flags, window=500)
    fields = {"src": src, "dst": dst, "proto": 6, "ttl": 64}
    way = "in" if up else "out"
    return [0, "f", process, "ip-tcp", way, mono, mono, id_, list(causes), "Segment", fields, head, b"", size, 2, 0]


def message(process: str, seam: str, way: str, mono: int, kind: str, size: int = 0, **fields: Any) -> Record:
    return [0, "f", process, seam, way, mono, mono, 0, [], kind, fields, b"", b"", size, 0, 0]


def through(kind: str, mono: int, *, up: bool, size: int = 0, **fields: Any) -> list[Record]:
    """A message on its way between tcp and the client: 100 ns in the pipe, 10 in the gateway."""
    if up:
        return [
            message("tcp", "tcp-gateway", "out", mono, kind, size, sock=SOCK, **fields),
            message("gateway", "tcp-gateway", "in", mono + 100, kind, size, sock=SOCK, **fields),
            message("gateway", "gateway-client", "out", mono + 110, kind, size, sock=SOCK, peer=PEER, **fields),
        ]
    return [
        message("gateway", "gateway-client", "in", mono, kind, size, sock=SOCK, peer=PEER, **fields),
        message("gateway", "tcp-gateway", "out", mono + 10, kind, size, sock=SOCK, **fields),
        message("tcp", "tcp-gateway", "in", mono + 110, kind, size, sock=SOCK, **fields),
    ]


ENDS: dict[str, Any] = {"local_address": B, "local_port": 80, "remote_address": A, "remote_port": 4711}
OPEN: list[Record] = [
    segment(1000, IP | 1, NEAR_WRAP - 1, SYN),
    segment(1100, TCP | 1, NEAR_WRAP - 1, SYN | ACK, up=False, causes=(IP | 1,)),
    segment(2000, IP | 2, NEAR_WRAP, ACK),
    [0, "e", "tcp", 2005, [2000, "state", "", IP | 2, CONN, {"old": "SYN_RECEIVED", "new": "ESTABLISHED"}]],
    message("tcp", "tcp-gateway", "out", 2010, "Incoming", listener=3, sock=SOCK, rings=[], limit=99, **ENDS),
    message("gateway", "tcp-gateway", "in", 2110, "Incoming", listener=3, sock=SOCK, rings=[], limit=99, **ENDS),
    message("gateway", "gateway-client", "out", 2120, "Reply", request=1, errno=0, data={"sock": SOCK}, peer=PEER),
]


def parts(one: Journey) -> list[tuple[str, int | None]]:
    return [(hop.process, hop.stay) for hop in one.hops]


def test_a_segment_s_bytes_reach_the_client() -> None:
    """By offsets, across the wrap of sequence numbers; the hole before it counts as time in tcp."""
    late = segment(5000, IP | 4, NEAR_WRAP + 600, ACK | PSH, size=600)  # bytes 600:1200, before 0:600
    filler = segment(9000, IP | 3, NEAR_WRAP, ACK, size=600)
    data = through("Data", 9050, up=True, size=1200, offset=0)
    read = message("gateway", "gateway-client", "in", 9500, "Consumed", sock=SOCK, upto=1200, peer=PEER)
    collection = Collection([*OPEN, late, filler, *data, read])
    one = journey(collection, IP | 4)
    assert one.path == "tcp ↑ gateway ↑ client"
    assert parts(one) == [("tcp", 4050), ("gateway", 10), ("client", None)]
    assert one.pipes == [("tcp-gateway", 100), ("gateway-client", None)]
    assert one.took == 4160 and one.outcome == "taken"
    assert one.taken is not None and one.taken.mono == 9500
    text = "\n".join(journey_lines(collection, one))
    assert "Data 0:1200 of socket 7" in text
    assert "Consumed 1200 of socket 7, 4.5 µs after the start, says that it was read" in text
    assert parts(journey(collection, IP | 3))[0] == ("tcp", 50)


def test_a_segment_that_brings_nothing_new_ends_in_tcp() -> None:
    """A duplicate, and one that was discarded, though its bytes came later by another."""
    data = through("Data", 3050, up=True, size=600, offset=0)
    again = segment(4000, IP | 4, NEAR_WRAP, ACK, size=600)
    bad = segment(2500, IP | 5, NEAR_WRAP, ACK, size=600)
    drop = [0, "e", "tcp", 2501, [2500, "drop", "tcp_checksum", IP | 5, CONN, {}]]
    collection = Collection([*OPEN, bad, drop, segment(3000, IP | 3, NEAR_WRAP, ACK, size=600), *data, again])
    assert journey(collection, IP | 3).path == "tcp ↑ gateway ↑ client"
    for id_ in (IP | 4, IP | 5):
        assert journey(collection, id_).path == "tcp"


def test_the_handshake_the_end_and_a_reset_reach_the_client() -> None:
    """The ACK that made it ESTABLISHED led to Incoming and accept's Reply; a FIN to Eof; a RST to Reset."""
    fin = [segment(3000, IP | 3, NEAR_WRAP, ACK | FIN), *through("Eof", 3010, up=True, at=0)]
    rst = [segment(4000, IP | 4, NEAR_WRAP + 1, RST), *through("Reset", 4010, up=True, errno=104)]
    collection = Collection([*OPEN, *fin, *rst])
    opened = journey(collection, IP | 2)
    assert parts(opened) == [("tcp", 10), ("gateway", 10), ("client", None)]
    assert opened.hops[1].gone is not None and opened.hops[1].gone.name == "Reply of socket 7"
    assert parts(journey(collection, IP | 3)) == [("tcp", 10), ("gateway", 10), ("client", None)]
    assert parts(journey(collection, IP | 4)) == [("tcp", 10), ("gateway", 10), ("client", None)]
    assert journey(collection, IP | 1).path == "tcp"  # the SYN: nobody above hears of it


def test_an_application_s_bytes_leave_in_a_segment() -> None:
    """With the time that they waited in tcp; a repetition comes from a timer and not from the application."""
    send = through("Send", 3000, up=False, offset=0, length=2000)
    first = segment(3200, TCP | 2, NEAR_WRAP, ACK, size=1000, up=False)
    second = segment(8000, TCP | 3, NEAR_WRAP + 1000, ACK, size=1000, up=False)  # it waited for an ACK
    again = segment(9000, TCP | 4, NEAR_WRAP, ACK, size=1000, up=False)
    collection = Collection([*OPEN, *send, first, second, again])
    one = journey(collection, TCP | 2)
    assert one.path == "client ↓ gateway ↓ tcp"
    assert parts(one) == [("client", None), ("gateway", 10), ("tcp", 90)]
    assert one.pipes == [("gateway-client", None), ("tcp-gateway", 100)]
    assert one.start.name == "Send 0:2000 of socket 7" and one.first.id == TCP | 2
    assert parts(journey(collection, TCP | 3))[-1] == ("tcp", 4890)
    assert journey(collection, TCP | 4).path == "tcp"
    (group,) = [group for group in paths(iter([one])) if group.path == one.path]
    assert group.what == "TCP data" and group.took == [200]


def test_connect_leads_to_a_syn_and_its_answer_to_the_reply() -> None:
    """By address and port down, by the connection up; the Reply to connect is found by its request's number."""
    where: dict[str, Any] = {"local_address": B, "local_port": 5000, "remote_address": A, "remote_port": 80}

    def tcp(mono: int, id_: int, seq: int, flags: int, up: bool) -> Record:
        record = segment(mono, id_, seq, flags, up=up)
        record[11] = pack_tcp(*((80, 5000) if up else (5000, 80)), seq=seq, ack=1, flags=flags, window=500)
        return record

    found = Collection([
        message("gateway", "gateway-client", "in", 1000, "Request", request=4, op="connect", sock=SOCK, peer=PEER),
        message("gateway", "tcp-gateway", "out", 1010, "Connect", sock=SOCK, region="", address=A, port=80),
        message("tcp", "tcp-gateway", "in", 1110, "Connect", sock=SOCK, region="", address=A, port=80),
        tcp(1120, TCP | 1, 50, SYN, False),
        tcp(2000, IP | 1, 90, SYN | ACK, True),
        message("tcp", "tcp-gateway", "out", 2010, "Connected", sock=SOCK, rings=[], limit=9, **where),
        message("gateway", "tcp-gateway", "in", 2110, "Connected", sock=SOCK, rings=[], limit=9, **where),
        message("gateway", "gateway-client", "out", 2120, "Reply", request=4, errno=0, data={}, peer=PEER),
    ])  # fmt: skip
    assert parts(journey(found, TCP | 1)) == [("client", None), ("gateway", 10), ("tcp", 10)]
    assert journey(found, TCP | 1).start.name == "connect of socket 7"
    assert parts(journey(found, IP | 1)) == [("tcp", 10), ("gateway", 10), ("client", None)]


def test_a_connection_that_was_open_before() -> None:
    """What tcp knows of it stands for its SYNs; it makes no story of its own."""
    data = through("Data", 3010, up=True, size=10, offset=(5 << 32) + 100)
    seq = NEAR_WRAP + (5 << 32) + 100
    before = through("Data", 2000, up=True, size=100, offset=5 << 32)
    told = known(1, CONN, SOCK, 1, NEAR_WRAP - 1)
    collection = Collection([told, *before, segment(3000, IP | 3, seq, ACK, size=10), *data])
    assert journey(collection, IP | 3).path == "tcp ↑ gateway ↑ client"
    assert not collection.events
    assert [story.subject for story in why(collection, "80")] == [CONN]


def test_a_trace_read_back_has_the_same_ends(tmp_path: Path) -> None:
    """`lvlip trace --json` keeps sockets, offsets and addresses."""
    told = [*OPEN, segment(3000, IP | 3, NEAR_WRAP, ACK, size=600), *through("Data", 3050, up=True, size=600, offset=0)]
    back = read_trace(write(tmp_path / "t.jsonl", told))
    assert parts(journey(Collection(back), IP | 3)) == parts(journey(Collection(told), IP | 3))


# recordings


def test_every_byte_of_a_recorded_upload_has_its_send(tmp_path: Path) -> None:
    """From a transfer with losses: what is sent for the first time came from the application, what is sent
    again did not, and what came in reached the gateway."""
    path = tmp_path / "tcp.rec"
    client, _, _ = transfer(path, size=200_000)
    stop(client, path).close()
    found = list(journeys(recorded(path)))
    first = [one for one in found if not one.up and one.first.length and one.start is not one.first]
    assert sum(one.first.length for one in first) >= 200_000
    again = [one for one in found if not one.up and one.first.length and one.start is one.first]
    assert again and all(one.began.startswith(("a timer: retransmit", "because of")) for one in again)
    came = [one for one in found if one.up and one.first.length]
    assert any(one.hops[-1].gone is not None and one.hops[-1].gone.type == "Data" for one in came)


def test_a_flight_recording_has_its_decisions_made_again(tmp_path: Path) -> None:
    """Without events in it: the replay makes those that a recording with events holds."""
    with_events, without = tmp_path / "told.rec", tmp_path / "flight.rec"
    client, _, _ = transfer(with_events, size=100_000)
    told = stop(client, with_events)
    flight = dump(transfer(None, size=100_000, flight=32 << 20)[0], without)
    assert told.head.events and not flight.head.events

    def decided(path: Path) -> list[Any]:
        return [record[4][:6] for record in recorded(path) if not isinstance(record, Notice) and record[KIND] == "e"]

    assert [list(one) for one in decided(without)] == [list(one) for one in decided(with_events)]
    assert len(decided(without)) > 50
    stories = [[(one.name, one.says) for one in why(Collection(recorded(path)), "80")[0].findings] for path in
               (with_events, without)]  # fmt: skip
    assert stories[0] and stories[0] == stories[1]


def test_a_replay_that_takes_time_is_told_to_a_terminal(tmp_path: Path) -> None:
    """And to nobody else."""
    path = tmp_path / "flight.rec"
    dump(transfer(None, size=20_000, flight=32 << 20)[0], path)
    command = [sys.executable, "-m", "levelip.cli", "why", "80", "--from", str(path)]
    ours, theirs = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        """Until its other end is closed: a terminal that nobody reads is full soon, and stops who writes."""
        with contextlib.suppress(OSError):
            while part := os.read(ours, 1 << 16):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        on_terminal = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=False)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    piped = subprocess.run(command, capture_output=True, check=False)
    assert "replaying 0 MB of recordings" in b"".join(parts).decode()
    assert piped.stderr == b"" and piped.stdout == on_terminal.stdout and piped.returncode == on_terminal.returncode


def test_what_faults_did_is_in_a_flight_recording(tmp_path: Path) -> None:
    """It stands between the calls, is told of with those that a replay makes, and is no difference to a replay, which
    can go there."""
    client = transfer(None, size=100_000, flight=32 << 20)[0]
    lost = Event(client._now, "drop", "fault_loss", 77, "10.0.0.1:1>10.0.0.2:80", {"seam": "ip-tcp", "way": "up"})
    client.faulted([lost])
    path = tmp_path / "flight.rec"
    flight = dump(client, path)
    assert flight.head.events is False and Player(flight).check() is None
    found = [event_of(one) for one in recorded(path) if not isinstance(one, Notice) and one[KIND] == "e"]
    assert found.count(lost) == 1 and len(found) > 50
    answer = Session([flight]).run("goto reason == fault_loss")
    assert not answer.failed and "lost on purpose (lvlip fault) at ip-tcp" in "".join(answer.lines)


def test_what_never_came_to_a_core_is_told_at_its_time(tmp_path: Path) -> None:
    """An addon drops a packet long after the last call, and no call follows: the record has the time of the deed."""
    client = transfer(None, size=20_000, flight=32 << 20)[0]
    at = client._now + 5_000_000_000
    data = {"seam": "ip-tcp", "way": "up", "addon": "lossy"}
    client.faulted([Event(at, "drop", "addon_drop", 77, "10.0.0.1:1>10.0.0.2:80", data)])
    dump(client, tmp_path / "flight.rec")
    found = [one for one in recorded(tmp_path) if not isinstance(one, Notice) and one[KIND] == "e"]
    assert [one[EVENT_MONO] for one in found if event_of(one).reason == "addon_drop"] == [at]


def test_what_is_no_recording_is_left_out_beside_one(tmp_path: Path) -> None:
    """A directory in which one file was torn before its first snapshot: the others are read, and that is told."""
    client, _, _ = transfer(tmp_path / "tcp.rec", size=50_000)
    stop(client, tmp_path / "tcp.rec").close()
    whole = [one for one in recorded(tmp_path) if not isinstance(one, Notice)]
    (tmp_path / "ip.rec").write_bytes((tmp_path / "tcp.rec").read_bytes()[:300])
    (told, *_), found = (
        [one for one in recorded(tmp_path) if isinstance(one, Notice) is notice] for notice in (True, False)
    )
    assert told.text.startswith("left out: ") and "ip.rec" in told.text and found == whole
    (tmp_path / "tcp.rec").write_bytes(b"junk")
    with pytest.raises(RecordingError, match=r"ip\.rec.*; .*tcp\.rec is no Level-IP recording"):
        list(recorded(tmp_path))


def test_what_is_no_recording_and_what_is_torn(tmp_path: Path) -> None:
    """Said, with what came before the tear."""
    with pytest.raises(RecordingError, match=r"no \.rec file in"):
        list(recorded(tmp_path))
    path = tmp_path / "tcp.rec"
    client, _, _ = transfer(path, size=50_000)
    stop(client, path).close()
    whole = len(list(recorded(path)))
    path.write_bytes(path.read_bytes()[:-20])
    found = list(recorded(path))
    assert len(found) >= whole
    assert any(isinstance(one, Notice) and "torn" in one.text for one in found)
    with pytest.raises(Unknown, match=r"(?s)there were no connections in 0 frames.*tcp: torn: torn at byte"):
        why(Collection(one for one in found if isinstance(one, Notice)), "80")
    (tmp_path / "two.rec").write_bytes(path.read_bytes())
    with pytest.raises(RecordingError, match="two recordings of one process"):
        open_all(sorted(tmp_path.glob("*.rec")))
    (opened,) = open_all([path])
    assert {record[2] for record in records([opened]) if not isinstance(record, Notice)} == {"tcp"}
    opened.close()


def test_commands_read_recordings(tmp_path: Path) -> None:
    """why, paths, trace --journey, graph and qlog, of a file and of a directory; --flight needs a running stack."""
    path = tmp_path / "rec" / "tcp.rec"
    path.parent.mkdir()
    client, _, _ = transfer(path, size=50_000)
    stop(client, path).close()

    def lvlip(*argv: str) -> str:
        done = CliRunner().invoke(cli, [*argv, "--run", str(tmp_path)])
        assert done.exit_code == (1 if argv[0] == "why" else 0), done.output
        return done.output

    assert "States: CLOSED → SYN_SENT → ESTABLISHED" in lvlip("why", "80", "--from", str(path.parent))
    assert " of socket 2" in lvlip("trace", "--journey", "--from", str(path))
    assert "TCP data" in lvlip("paths", "--from", str(path.parent), "--port", "80")
    for other in (("--port", "81"), ("--proto", "icmp"), ("--host", "10.9.9.9"), ("--flags", "U")):
        assert lvlip("paths", "--from", str(path), *other) == "no packets were seen\n"
    assert "TCP SYN" in lvlip("paths", "--from", str(path), "--host", "10.0.0.2", "--flags", "S")
    picture, log = tmp_path / "x.xpl", tmp_path / "x.qlog"
    lvlip("graph", str(path), "-o", str(picture))
    lvlip("qlog", str(path.parent), "-o", str(log))
    assert "timeval" in picture.read_text().splitlines()[0]
    assert "recovery" in log.read_text()
    assert CliRunner().invoke(cli, ["why", "80", "--flight", "--from", str(path)]).exit_code == 2
    assert CliRunner().invoke(cli, ["why", "80", "--flight", "--run", str(tmp_path)]).exit_code == 1


def test_recordings_of_one_stack_begin_together(tmp_path: Path) -> None:
    """What one of them does not reach back to would seem lost: it is left out of the others, and that is said."""
    recordings = list(host_recordings(tmp_path, 3).values())
    whole = [one for one in records(recordings, both_sides=True, messages=True) if not isinstance(one, Notice)]
    middle = whole[len(whole) // 2][6 if whole[len(whole) // 2][KIND] == "f" else 3]
    late = recordings[0]
    late.snapshots[0] = dataclasses.replace(late.snapshots[0], begin=middle)
    found = list(records(recordings, both_sides=True, messages=True))
    cut = [one for one in found if not isinstance(one, Notice)]
    assert 0 < len(cut) < len(whole)
    assert min(one[6] for one in cut if one[KIND] == "f") >= middle
    assert any(isinstance(one, Notice) and "left out" in one.text for one in found)
    for one in recordings:
        one.close()


def test_messages_that_make_no_sense_break_nothing() -> None:
    """A trace that somebody wrote by hand: what cannot be read is passed over."""
    odd = [
        message("tcp", "tcp-gateway", "out", 2010, kind, sock=sock, offset="x", at=None, upto=[], address=b"x", port={})
        for kind in (*sorted(MESSAGES), "Nothing")
        for sock in (SOCK, "x", None)
    ]
    data = through("Data", 3050, up=True, size=600, offset=0)
    collection = Collection([*odd, *OPEN, segment(3000, IP | 3, NEAR_WRAP, ACK, size=600), *data])
    assert journey(collection, IP | 3).path == "tcp ↑ gateway ↑ client"
