"""Journeys: a packet's way through all processes, where time goes, what was decided, what it led to; from traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from levelip.cli.main import cli
from levelip.cli.tracelines import JsonLines
from levelip.debug.collection import Collection
from levelip.debug.journeys import Journey, Journeys, journey, journey_lines, journeys, paths, percentile
from levelip.debug.tap import Notice, Record
from levelip.debug.traces import TraceError, parse_frame_id, read_trace
from levelip.debug.why import story_lines, why
from levelip.frames.packet import format_frame_id
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import ACK, PSH, pack_tcp
from tests.unit.debug.planted import Planted

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
LINK, IP, TCP, DEVICE = (code << 60 for code in (1, 2, 3, 6))
TEXT = b"0123456789" * 3000


def frame(process: str, seam: str, way: str, mono: int, id_: int, causes: list[int], *, back: bool = False,
          seq: int = 1, ack: int = 1, size: int = 10) -> Record:  # fmt: skip
    """One TCP segment at one seam; `back`: from 10.0.0.2, which is us, to 10.0.0.1."""
    ports, src, dst = ((80, 4711), B, A) if back else ((4711, 80), A, B)
    tcp = pack_tcp(*ports, seq=seq, ack=ack, flags=ACK | PSH if size else ACK, window=500)
    type_, fields, head = "Segment", {"src": src, "dst": dst, "proto": 6, "ttl": 64}, tcp
    if seam != "ip-tcp":
        type_, fields = ("Packet", {}) if seam == "link-ip" else ("DeviceFrame", {"vnet": b""})
        head = Ipv4Header.build(src, dst, proto=6, payload_length=len(tcp) + size).serialize() + tcp
    return [0, "f", process, seam, way, mono, mono, id_, causes, type_, fields, head, b"", size, 2, 0]


UP: list[Record] = [
    frame("link", "link", "in", 1000, DEVICE | 1, []),
    frame("link", "link-ip", "out", 31_000, LINK | 1, [DEVICE | 1]),
    frame("ip", "link-ip", "in", 81_000, LINK | 1, [DEVICE | 1]),
    frame("ip", "ip-tcp", "out", 101_000, IP | 1, [LINK | 1]),
    frame("tcp", "ip-tcp", "in", 171_000, IP | 1, [LINK | 1]),
    [0, "e", "tcp", 181_000, [171_000, "rtt", "", IP | 1, "10.0.0.2:80>10.0.0.1:4711", {"rtt": 5_000_000}]],
]
DOWN: list[Record] = [
    frame("tcp", "ip-tcp", "out", 201_000, TCP | 1, [IP | 1], back=True, ack=11, size=0),
    frame("ip", "ip-tcp", "in", 251_000, TCP | 1, [IP | 1], back=True, ack=11, size=0),
    frame("ip", "link-ip", "out", 261_000, IP | 2, [TCP | 1], back=True, ack=11, size=0),
    frame("link", "link-ip", "in", 301_000, IP | 2, [TCP | 1], back=True, ack=11, size=0),
    frame("link", "link", "out", 311_000, LINK | 2, [IP | 2], back=True, ack=11, size=0),
]


def test_time_in_each_process_and_each_pipe() -> None:
    """From the record "in" to "out" in a process, from "out" to the next one's "in" in a pipe."""
    one = journey(Collection([*UP, *DOWN]), IP | 1)
    assert one.ids == [DEVICE | 1, LINK | 1, IP | 1]
    assert [(hop.process, hop.stay) for hop in one.hops] == [("link", 30_000), ("ip", 20_000), ("tcp", None)]
    assert one.pipes == [("link-ip", 50_000), ("ip-tcp", 70_000)]
    assert one.took == 170_000
    assert one.path == "link ↑ ip ↑ tcp"
    assert [told.event.kind for told in one.hops[2].decisions] == ["rtt"]
    assert [(how, fact.id) for how, fact in one.led_to] == [("answer", TCP | 1)]
    assert one.outcome == "answered"


def test_an_answer_names_what_it_answers() -> None:
    """Its way is its own; the frame that caused it is told with the time between."""
    one = journey(Collection([*UP, *DOWN]), LINK | 2)
    assert one.ids == [TCP | 1, IP | 2, LINK | 2]
    assert one.from_frame is not None and one.from_frame.id == IP | 1
    assert one.began.startswith(f"because of {format_frame_id(IP | 1)}, which came 0.1 ms before")
    assert one.outcome == "sent"
    assert [hop.process for hop in one.hops] == ["tcp", "ip", "link"]


def test_a_discard_ends_it_with_its_reason() -> None:
    """The event that names the frame stands with the process that told it."""
    drop = [0, "e", "ip", 85_000, [85_000, "drop", "ip_bad_checksum", LINK | 1, "", {}]]
    one = journey(Collection([*UP[:3], drop]), DEVICE | 1)
    assert one.outcome == "dropped in ip: ip_bad_checksum"
    text = "\n".join(journey_lines(Collection([*UP[:3], drop]), one))
    assert "the header checksum is wrong, RFC 1122 3.2.1.2" in text


def test_an_ack_that_names_no_cause_is_found_by_its_number() -> None:
    """A delayed ACK is a timer's: the first segment of ours that acknowledges all of it."""
    later = frame("tcp", "ip-tcp", "out", 40_201_000, TCP | 1, [], back=True, ack=11, size=0)
    one = journey(Collection([*UP, later]), DEVICE | 1)
    assert [(how, fact.id) for how, fact in one.led_to] == [("ack", TCP | 1)]
    assert one.outcome == "acknowledged later"


def test_a_retransmission_names_the_timer_that_led_to_it(tmp_path: Path) -> None:
    """A lost segment at the end of the data is sent again by tail loss probe or RTO: the journey says so."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        packet.drop()
""")  # fmt: skip
    planted.connect(b"hello")
    began = [one.began for one in journeys(planted.a.records) if not one.up and one.first.length]
    assert began[0] == "data of the application"
    assert began[1].startswith("a timer: retransmit, ")
    assert "seq 1:6" in began[1]


def test_every_packet_is_one_journey(tmp_path: Path) -> None:
    """No frame is in two of them, none is left out, and super-segments' pieces are counted with theirs."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    planted.connect(TEXT, eof=True, reply=TEXT)
    found = list(journeys(planted.a.records))
    ids = [id_ for one in found for id_ in one.ids]
    assert len(ids) == len(set(ids))
    recorded = {record[7] for record in planted.a.records if record[1] == "f" and record[7]}
    assert set(ids) == recorded
    whole = [one for one in found if one.first.is_tcp]
    assert {one.path for one in whole} == {"link ↑ ip ↑ tcp", "tcp ↓ ip ↓ link"}
    assert all(one.outcome in ("answered", "sent", "taken", "acknowledged later") for one in whole)


def test_paths_group_by_what_way_and_end() -> None:
    """Counts and percentiles of the whole and of each part; nearest rank."""
    again = [[*record] for record in UP]
    for record in again:
        if record[1] == "f":
            record[6] += 1_000_000 + (record[6] - 1000)  # each part takes twice as long
            record[7] += 100
            record[8] = [cause + 100 for cause in record[8]]
    groups = paths(journeys([*UP[:5], *again[:5]]))
    assert [(group.what, group.path, group.outcome, group.count) for group in groups] == [
        ("TCP data", "link ↑ ip ↑ tcp", "taken", 2)
    ]
    assert groups[0].took == [170_000, 340_000]
    assert groups[0].parts == {
        "link": [30_000, 60_000], "ip": [20_000, 40_000], "link-ip": [50_000, 100_000], "ip-tcp": [70_000, 140_000],
    }  # fmt: skip
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7], 0.5) == 7


# traces read back


def write(path: Path, records: list[Record]) -> Path:
    lines = JsonLines()
    path.write_text("".join(lines.line(record) + "\n" for record in records))
    return path


def numbered(found: list[Journey]) -> list[tuple[str, str, int, str]]:
    return [(one.path, one.outcome, one.took, one.began) for one in found]


def test_a_trace_read_back_tells_the_same_story(tmp_path: Path) -> None:
    """Journeys and findings from `lvlip trace --json` are those of the live records."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="up")
def hook(packet, context):
    packet.remove("tcp.options.timestamp")
    packet["tcp.options.wscale.shift"] = 0
""")  # fmt: skip
    planted.connect(TEXT, eof=True, reply=b"hi")
    path = write(tmp_path / "t.jsonl", planted.a.records)
    back = list(read_trace(path))
    assert len(back) == len(planted.a.records)
    assert numbered(list(journeys(back))) == numbered(list(journeys(planted.a.records)))
    live, read = (why(Collection(records), "80") for records in (planted.a.records, back))
    assert story_lines(live[0]) == story_lines(read[0])
    assert live[0].findings


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"event": "rtt"}', '{"seam": "link", "head": "zz"}'])
def test_a_file_that_is_no_trace(tmp_path: Path, text: str) -> None:
    """The line is named; a last line that was torn off is told of, and what came before is used."""
    path = tmp_path / "t.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(TraceError, match="line 1"):
        list(read_trace(path))
    write(path, UP)
    with path.open("a") as file:
        file.write(text)
    found = list(read_trace(path))
    assert len(found) == len(UP) + 1
    assert isinstance(found[-1], Notice)


@pytest.mark.parametrize("text", ["tcp-3fa21-77", "device-00001-1", "tool-fffff-1099511627775", "0-00000-0"])
def test_frame_ids_are_read_as_they_are_written(text: str) -> None:
    assert format_frame_id(parse_frame_id(text)) == text


@pytest.mark.parametrize("text", ["", "80", "tcp-1", "tcp-zz-1", "tcp-1-x", "nobody-1-1", "9-1-1", "tcp-fffffff-1"])
def test_what_is_no_frame_id(text: str) -> None:
    with pytest.raises(ValueError, match="frame id"):
        parse_frame_id(text)


# the commands


@pytest.fixture
def lvlip(tmp_path: Path) -> Callable[..., Result]:
    def run(*argv: str) -> Result:
        return CliRunner().invoke(cli, [*argv, "--run", str(tmp_path)], standalone_mode=True)

    return run


def test_commands_read_a_trace_without_a_stack(tmp_path: Path, lvlip: Callable[..., Result]) -> None:
    """trace --journey, paths and why take --from FILE; why's exit code says whether something is wrong."""
    file = str(write(tmp_path / "t.jsonl", [*UP, *DOWN]))
    shown = lvlip("trace", "--journey", "--from", file).stdout
    assert "50.0 µs in the pipe link-ip" in shown
    assert "answered, 170.0 µs from the first seam to the last" in shown
    (first, second) = map(json.loads, lvlip("trace", "--journey", "--from", file, "--json").stdout.splitlines())
    assert first["path"] == "link ↑ ip ↑ tcp"
    assert [pipe["ns"] for pipe in second["pipes"]] == [50_000, 40_000]
    only = lvlip("trace", "--journey", "--from", file, "--filter", "event rtt", "--json").stdout.splitlines()
    assert [json.loads(line)["path"] for line in only] == ["link ↑ ip ↑ tcp"]
    table = lvlip("paths", "--from", file, "--parts").stdout.splitlines()
    assert table[0].split() == ["count", "p50", "p90", "p99", "what", "way", "end", "such", "as"]
    assert "170 µs" in table[1] or "110 µs" in table[1]
    fine = lvlip("why", "80", "--from", file)
    assert fine.exit_code == 0
    assert "Nothing is wrong, as far as these records go." in fine.stdout
    with Path(file).open("a") as trace:
        trace.write('{"notice": "tcp did not answer: what it does is left out", "mono_ns": 1}\n')
        trace.write('{"notice": "ip: 3 left out", "mono_ns": 2}\n{"torn')
    missing = f"tcp did not answer: what it does is left out\nthe last line of {file} is torn\n"
    for words in (("paths",), ("trace", "--journey")):
        assert lvlip(*words, "--from", file).stderr == missing, "it is no silent lack"
    unknown = lvlip("why", "81", "--from", file)
    assert unknown.exit_code == 1
    assert "nothing of 81 was recorded; there is one connection" in unknown.stderr


def test_what_does_not_go_together_is_said(tmp_path: Path, lvlip: Callable[..., Result]) -> None:
    """--from without --journey, --journey with --layer: usage errors; a torn file: one line."""
    file = tmp_path / "t.jsonl"
    file.write_text("{}\n")
    assert lvlip("trace", "--from", str(file)).exit_code == 2
    assert lvlip("trace", "--journey", "--layer", "ip", "--from", str(file)).exit_code == 2
    torn = lvlip("why", "80", "--from", str(file))
    assert torn.exit_code == 1
    assert "line 1: not a line of lvlip trace --json" in torn.stderr
    assert lvlip("why", "80").exit_code == 1


@pytest.mark.parametrize("words", [("why", "80", "--from"), ("paths", "--from"), ("trace", "--journey", "--from")])
def test_what_is_none_of_ours_is_told_with_what_is(
    tmp_path: Path, lvlip: Callable[..., Result], words: tuple[str, ...]
) -> None:
    """A text file, and a directory without recordings: each is named, with what would do."""
    file = tmp_path / "notes.txt"
    file.write_text("not what you think\n")
    told = lvlip(*words, str(file)).stderr
    assert str(file) in told
    assert told.endswith("; captures (pcapng, pcap), recordings and lvlip trace --json are read\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    said = f"lvlip: there is no .rec file in {empty}; lvlip record start or dump writes them\n"
    assert lvlip(*words, str(empty)).stderr == said


@pytest.mark.parametrize(
    ("heard", "waited_for"),
    [
        (("ip", "tcp"), False),
        (("tcp", "ip", "udp", "gateway"), False),
        (("link", "tcp"), True),
        (("link", "ip", "tcp"), True),
    ],
)
def test_nobody_is_waited_for_who_is_not_heard(heard: tuple[str, ...], waited_for: bool) -> None:
    """What ip sent to a link that is silent, or on another host, is told of at once; to one that is heard, not yet."""
    stream = Journeys(Collection(), heard=lambda: heard)
    for record in DOWN[:3]:
        stream.add(record)
    assert [one.path for one in stream.ready(DOWN[2][6] + 1)] == ([] if waited_for else ["tcp ↓ ip"])


def test_who_has_it_is_waited_for_as_long_as_it_is_heard() -> None:
    """A packet that went into link comes out of it, unless link falls silent meanwhile."""
    heard = ["link", "ip", "tcp"]
    stream = Journeys(Collection(), heard=lambda: heard)
    for record in DOWN[:4]:
        stream.add(record)
    until = DOWN[3][6] + 1
    assert list(stream.ready(until)) == []
    heard.remove("link")
    assert [one.path for one in stream.ready(until)] == ["tcp ↓ ip ↓ link"]
