"""Captures as sources of `why`, journeys and paths: what a pcapng of ours keeps is enough to name causes.

Each capture is made of the records of a virtual network (planted.py) as lvlip capture makes it, by its Commenter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.debug.captured import is_capture, read_capture
from levelip.debug.collection import Collection
from levelip.debug.journeys import journey, journey_lines, journeys_of, paths
from levelip.debug.tap import KIND, PACKET_SEAMS, SEAM
from levelip.debug.why import Story, why
from levelip.frames.packet import format_frame_id
from levelip.tracing.capturefile import CaptureError, CaptureFile
from levelip.tracing.comments import read_comment
from levelip.tracing.events import Event
from levelip.tracing.formatting import event_line
from levelip.tracing.pcapng import LINKTYPE_RAW, Interface, PcapngWriter
from tests.unit.debug.planted import PORT, Planted, captured

TEXT = b"0123456789" * 3000
NOTHING = "def frame(packet, context): pass"


def story(path: Path) -> Story:
    (one,) = why(Collection(read_capture(path)), str(PORT))
    return one


def test_nothing_is_wrong_where_nothing_is(tmp_path: Path) -> None:
    """All packets are bound to those of the next seam: nothing seems to have vanished or been changed inside."""
    planted = Planted(tmp_path, NOTHING)
    planted.connect(TEXT, eof=True, reply=TEXT)
    path = captured(planted.a.records, tmp_path / "all.pcapng")
    assert is_capture(path)
    told = story(path)
    assert not told.findings, [(one.name, one.says) for one in told.findings]
    assert any("TIME_WAIT" in line for line in told.sentences), "states are read from comments"


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ("""
@addon.frame("tcp.flags.syn and tcp.flags.ack", way="up")
def hook(packet, context):
    packet["tcp.options.wscale.shift"] = 0
""", "window_scale_wrong"),
        ("""
@addon.frame("tcp.flags.fin", way="down")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        packet.drop()
""", "fin_lost"),
        ("""
@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    context.state.n = getattr(context.state, "n", 0) + 1
    if context.state.n == 4:
        packet.drop()
""", "segment_lost"),
    ],
)  # fmt: skip
def test_the_same_cause_as_from_the_live_records(tmp_path: Path, hook: str, name: str) -> None:
    """And the same first wrong packet, named by its number in the file, which is Wireshark's."""
    planted = Planted(tmp_path, hook)
    planted.connect(TEXT, eof=True, seconds=10)
    live = planted.story()
    assert live.cause is not None and live.first_wrong is not None
    path = captured(planted.a.records, tmp_path / "all.pcapng")
    told = story(path)
    assert told.cause is not None and told.cause.name == live.cause.name == name
    wrong = told.first_wrong
    assert wrong is not None and (wrong.seq, wrong.ack, wrong.up) == (
        live.first_wrong.seq, live.first_wrong.ack, live.first_wrong.up,
    )  # fmt: skip
    number = int(wrong.name.rpartition("-")[2])
    with path.open("rb") as stream:
        packets = list(CaptureFile(stream))
    assert wrong.seq.to_bytes(4, "big") in packets[number - 1].data


def live_ways(planted: Planted) -> set[tuple[int, tuple[str, ...]]]:
    """Of each TCP packet that reached tcp: its number and its processes."""
    collection = Collection(one for one in planted.a.records if not isinstance(one, list) or one[KIND] == "e"
                            or one[SEAM] in PACKET_SEAMS)  # fmt: skip
    return {(one.first.seq, tuple(hop.process for hop in one.hops if hop.process in ("link", "ip", "tcp")))
            for one in journeys_of(collection) if one.up and one.first.is_tcp}  # fmt: skip


def test_journeys_over_seams(tmp_path: Path) -> None:
    """A packet upward goes link, ip, tcp, as live; one downward is seen from where ip takes it in."""
    planted = Planted(tmp_path, NOTHING)
    planted.connect(TEXT, eof=True, reply=TEXT)
    collection = Collection(read_capture(captured(planted.a.records, tmp_path / "all.pcapng")))
    mine = list(journeys_of(collection))
    up = {(one.first.seq, tuple(hop.process for hop in one.hops)) for one in mine if one.up and one.first.is_tcp}
    assert up == live_ways(planted) and {way for _, way in up} == {("link", "ip", "tcp")}
    assert {one.path for one in mine if not one.up and one.first.is_tcp} == {"ip ↓ link"}
    one = next(one for one in mine if one.up and one.first.syn)
    assert journey(collection, one.ids[-1]).ids == one.ids, "whichever of its frames is asked about"
    assert [format_frame_id(id_).split("-")[0] for id_ in one.ids] == ["device", "link", "ip"]
    assert any("to ip" in line for line in journey_lines(collection, one)), "from going in to going in"
    groups = paths(iter(mine))
    assert sum(group.count for group in groups) == len(mine)
    data = next(group for group in groups if group.path == "link ↑ ip ↑ tcp")
    assert {"link and link-ip", "ip and ip-tcp"} == set(data.parts), "times from seam to seam"


def test_pieces_of_a_super_segment(tmp_path: Path) -> None:
    """Those are bound to it whose bytes it holds; a repetition is bound to the newest that was not taken."""
    planted = Planted(tmp_path, NOTHING)
    planted.connect(TEXT, eof=True)
    path = captured(planted.a.records, tmp_path / "all.pcapng")
    with path.open("rb") as stream:
        packets = list(CaptureFile(stream))
    data = [one for one in packets if one.interface == "link" and one.direction == 2 and one.length > 1000]
    assert data, "there is data in it"
    collection = Collection(read_capture(path))
    of_link = [one for one in collection.facts if one.seam == "link" and not one.up and one.is_tcp]
    assert of_link and all(one.causes for one in of_link)
    for one in of_link:
        (cause,) = one.causes
        before = collection.by_id[cause][0]
        assert (one.seq - before.seq) & 0xFFFF_FFFF < max(1, before.length) and before.mono <= one.mono


def test_a_capture_of_one_seam(tmp_path: Path) -> None:
    """`why` works on it, as on a trace of one seam; there are no ways between."""
    planted = Planted(tmp_path, NOTHING)
    planted.connect(TEXT, eof=True)
    told = story(captured(planted.a.records, tmp_path / "one.pcapng", ("link",)))
    assert not told.findings and any("30000 bytes" in line for line in told.sentences)


def foreign(records: list[Any], path: Path) -> Path:
    """The packets of the link alone, as another's tool would have captured them: no names, ways or comments."""
    ours = captured(records, path.with_suffix(".ours"), ("link",))
    with ours.open("rb") as stream, path.open("wb") as target:
        writer = PcapngWriter(target, [Interface("eth0", 1)])
        for one in CaptureFile(stream):
            writer.packet(0, one.when, one.data, one.length)
    return path


def test_anothers_capture(tmp_path: Path) -> None:
    """A lost segment is found from packets alone; what the source is, is said."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn and tcp.flags.ack", way="up")
def hook(packet, context):
    packet["tcp.options.wscale.shift"] = 0
""")  # fmt: skip
    planted.connect(TEXT, eof=True)
    collection = Collection(read_capture(foreign(planted.a.records, tmp_path / "theirs.pcapng")))
    (told,) = why(collection, str(PORT))
    assert told.cause is not None and told.cause.name == "window_scale_wrong"
    assert "not a capture of lvlip's" in collection.notices[-1].text


def test_what_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"{}")
    assert not is_capture(path) and not is_capture(tmp_path)
    with pytest.raises(CaptureError):
        list(read_capture(path))
    path.write_bytes(b"\x1f\x8bgarbage")
    assert is_capture(path)
    with pytest.raises(CaptureError, match="gzip"):
        list(read_capture(path))


def events() -> Iterator[tuple[Event, dict[str, Any]]]:
    place = {"seam": "link", "way": "down", "flags": "P.", "seq": 7, "ack": 9, "length": 1448}
    yield Event(0, "drop", reason="fault_loss", data=place), place
    yield Event(0, "drop", reason="tcp_checksum", data={}), {}
    yield Event(0, "fault", data={"what": "dup", **place}), {"what": "dup", **place}
    delayed = {"what": "delay", "ns": 5_000_000, "seam": "link", "way": "up"}
    yield Event(0, "fault", data=delayed), {"what": "delay", "seam": "link", "way": "up"}
    again = {"why": "rto", "offset": 5, "length": 10, "attempt": 2}
    yield Event(0, "retransmit", data=again), again
    fast = {"why": "fast", "offset": 0, "length": 10}
    yield Event(0, "retransmit", data=fast), fast
    syn = {"why": "rto", "offset": -1, "length": 1, "attempt": 1}
    yield Event(0, "retransmit", data=syn), syn
    state = {"old": "LISTEN", "new": "SYN_RECEIVED", "input": "SYN"}
    yield Event(0, "state", data=state), state
    yield Event(0, "reset", data={"sent": True}), {"sent": True}
    yield Event(0, "pmtu", data={"old": 1500, "new": 1280, "why": "black hole"}), {"new": 1280, "why": "black hole"}
    yield Event(0, "window", data={"old": 5, "new": 0}), {}


@pytest.mark.parametrize(("event", "data"), list(events()))
def test_comments_are_read_back(event: Event, data: dict[str, Any]) -> None:
    """Kind, reason, and what rules ask for; the sentence stays as it was."""
    one = Event(event.at, event.kind, event.reason, 0, "10.0.0.2:80>10.0.0.1:4711", event.data)
    line = event_line("tcp", one)
    read = read_comment(f"12:00:00.000001 {line}")
    assert read is not None and read.loose
    assert (read.process, read.kind, read.reason, read.conn) == ("tcp", event.kind, event.reason, one.conn)
    assert {name: value for name, value in read.data.items() if name != "text"} == data
    again = Event(0, read.kind, read.reason, 0, read.conn, read.data)
    assert event_line("tcp", again) == line
    assert read_comment("somebody's remark") is None


@pytest.mark.parametrize(("kind", "data"), [
    ("route", {"routes": 3}), ("device", {"name": "tap0", "up": True, "mtu": 1500}),
    ("dsack", {"left": 5, "right": 9}), ("reneged", {"una": 5}), ("reordering", {"packets": 3, "first": True}),
    ("fragment", {"pieces": 2, "dst": "10.0.0.1", "ident": 7, "mtu": 1500}),
    ("reassembled", {"length": 9, "src": "10.0.0.1", "fragments": 2, "ident": 7}),
    ("datagram", {"length": 9, "src": "10.0.0.1", "port": 5}),
    ("rcvbuf", {"size": 9, "space": 9, "rtt": 5, "most": 9}), ("probe", {"number": 1, "why": "window", "next": 5}),
    ("probe", {"number": 1, "why": "keepalive"}), ("mtu_probe", {"size": 1400, "low": 1, "high": 2}),
    ("syn_cookie", {"half_open": 5, "port": 80}), ("urgent", {"upto": 5, "sent": True}), ("timer", {"name": "RTO"}),
    ("listen", {"port": 80, "backlog": 5}), ("conflict", {"address": "10.0.0.1", "mac": "02:00:00:00:00:01"}),
    ("doubt", {"dst": "10.0.0.1"}), ("gateway", {"gateway": "10.0.0.1", "retry_ms": 5}),
    ("redirect", {"dst": "10.0.0.9", "new": "10.0.0.3", "old": "10.0.0.1"}),
    ("send", {"errno": 13, "dst": "10.0.0.9", "port": 5}), ("ecn", {"echo": True}), ("ecn", {"echo": False}),
    ("client", {"pid": 5, "what": "is gone"}), ("call", {"op": "connect", "sock": 5, "pid": 7, "errno": 111}),
    ("cwnd", {"old": 10, "new": 20, "why": "ack"}), ("rtt", {"rtt": 5}), ("rto", {"rto": 5}), ("window", {"new": 5}),
    ("loss", {"bytes": 5, "why": "rack"}), ("recovery", {"old": "OPEN", "new": "LOSS", "why": "rto"}),
    ("icmp", {"name": "echo request"}), ("arp", {"address": "10.0.0.1", "old": "a", "new": "b"}),
    ("socket", {"sock": 1, "before": "a", "after": "b"}), ("addon", {"what": "loaded", "addon": "x"}),
])  # fmt: skip
def test_the_kind_of_every_sentence(kind: str, data: dict[str, Any]) -> None:
    """So that `event dsack` filters an opened capture as it does the live stack."""
    line = event_line("tcp", Event(0, kind, data=data))
    read = read_comment(line)
    assert read is not None and read.kind == kind and not read.loose, line


@pytest.mark.parametrize("numbers", ["bytes 960:1460", "seq 961:1461"])
def test_bytes_of_an_older_capture_count_from_0(numbers: str) -> None:
    """Sentences say numbers as segments have them; they said offsets before. The data is the same."""
    said = f"retransmit, RTO, {numbers}, attempt 2"
    read = read_comment(f"tcp: {said} [10.0.0.2:80 > 10.0.0.1:4711]")
    assert read is not None
    assert read.data == {"why": "rto", "offset": 960, "length": 500, "attempt": 2, "text": said}
    older = read_comment("tcp: the peer has bytes 1:9 twice, RFC 2883")
    assert older is not None and older.kind == "dsack"


def test_raw_interfaces_of_seams(tmp_path: Path) -> None:
    """A file that merely calls its interfaces as we do is read, too, whatever is in it."""
    path = tmp_path / "odd.pcapng"
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface("link", LINKTYPE_RAW), Interface("ip-tcp", LINKTYPE_RAW)])
        for data in (b"", b"\x45", bytes(60), b"\x4f" + bytes(30), b"\x45" + bytes(8) + b"\x06" + bytes(30)):
            for interface in (0, 1):
                writer.packet(interface, 1, data, len(data), comments=["tcp: drop, [", "x"])
    collection = Collection(read_capture(path))
    assert len(collection.facts) == 10 and list(journeys_of(collection))


@pytest.mark.parametrize(
    ("kind", "reason", "data"),
    [
        ("addon", "", {"addon": "nat", "what": "changed", "changes": ["ip.ttl=9", "without tcp.options.mss"]}),
        ("addon", "", {"addon": "slow", "what": "delayed"}),
        ("hand", "", {"what": "changed", "changes": ["tcp.seq=5"]}),
        ("hand", "", {"what": "repeated"}),
        ("drop", "addon_drop", {"addon": "lossy"}),
        ("drop", "debug_drop", {}),
    ],
)
def test_what_addons_and_debuggers_did_is_read_from_comments(kind: str, reason: str, data: dict[str, Any]) -> None:
    """With the name: so the verdict about it is that of the records which were captured."""
    place = {"seam": "link", "way": "down", "flags": "S", "seq": 5, "length": 0}
    event = Event(0, kind, reason, data={**data, **place})
    found = read_comment(event_line("link", event))
    assert found is not None and (found.kind, found.reason) == (kind, reason)
    assert {name: value for name, value in found.data.items() if name != "text"} == {**data, **place}
