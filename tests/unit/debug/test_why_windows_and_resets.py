"""More faults planted by addons, or by an application: windows that are overrun or closed, resets, silence, ICMP."""

from __future__ import annotations

from pathlib import Path

import pytest

from levelip.debug.collection import Collection
from levelip.debug.facts import fact
from levelip.debug.tap import DIRECTION, KIND, SEAM
from levelip.debug.why import story_lines, why
from tests.netsim.whole import B
from tests.unit.debug.planted import PORT, Planted, cause, to_segment

TEXT = b"0123456789" * 3000
PASS = "def frame(packet, context): pass"


def test_a_peer_that_sends_beyond_our_window(tmp_path: Path) -> None:
    """Our window is widened on its way to the peer, and our application does not read: the peer overruns it."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.ack and not tcp.flags.syn", way="down")
def hook(packet, context):
    packet["tcp.window_size_value"] = 65535
""")  # fmt: skip
    socket = planted.connect(b"GET")
    socket.reading = False
    planted.b.accepted[0].write(TEXT * 20, planted.net.now)
    planted.wait(5)
    story = planted.story()
    assert "beyond_window" in [one.name for one in story.findings], [(one.name, one.says) for one in story.findings]
    found = next(one for one in story.findings if one.name == "beyond_window")
    assert found.packet is not None and found.packet.up and found.packet.length
    assert "RFC 9293 3.10.7.4" in found.kind.rule


def test_an_application_of_ours_that_does_not_read(tmp_path: Path) -> None:
    """Our window closes and stays closed (RFC 9293 3.8.6.2)."""
    planted = Planted(tmp_path, PASS)
    socket = planted.connect(b"GET")
    socket.reading = False
    planted.b.accepted[0].write(TEXT * 20, planted.net.now)
    planted.wait(5)
    first = cause(planted.story(), "our_zero_window")
    assert not first.up and first.window == 0


def test_a_router_that_says_unreachable(tmp_path: Path) -> None:
    """An ICMP host unreachable that quotes a segment of ours, and nothing else of it arrives (RFC 1122 4.2.3.9)."""
    planted = Planted(tmp_path, """
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header

@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    whole = packet.frame.head
    quoted = whole[14:14 + 28]
    body = IcmpMessage(3, 1, bytes(4), quoted).serialize()
    ip = Ipv4Header.build(whole[30:34], whole[26:30], proto=1, payload_length=len(body)).serialize(fill_checksum=True)
    back = packet.copy()
    back.frame.head = whole[6:12] + whole[:6] + whole[12:14] + ip + body
    back.frame.payload = b""
    packet.drop()
    context.inject(back, way="up")
""")  # fmt: skip
    planted.connect(b"hello", seconds=3)
    first = cause(planted.story(), "unreachable")
    assert first.up and first.icmp is not None and (first.icmp.type, first.icmp.code) == (3, 1)


def test_an_application_of_ours_that_aborts(tmp_path: Path) -> None:
    """ABORT (RFC 9293 3.10.5): the RST is ours, and the first wrong packet."""
    planted = Planted(tmp_path, PASS)
    socket = planted.connect(b"hello")
    socket.close(planted.net.now, abort=True)
    planted.wait(1)
    first = cause(planted.story(), "reset_by_us")
    assert first.rst and not first.up


def test_a_peer_that_resets(tmp_path: Path) -> None:
    """The peer's program aborts: its RST, with its own TTL and nothing after it, is believed."""
    planted = Planted(tmp_path, PASS)
    planted.connect(b"hello")
    planted.b.accepted[0].close(planted.net.now, abort=True)
    planted.wait(1)
    story = planted.story()
    first = cause(story, "reset_by_peer")
    assert first.rst and first.up
    assert story.cause is not None and story.cause.certain


HALF_OPEN = """
@addon.frame("tcp.flags.syn", way="down")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        packet.drop()
        old = packet.copy()
        old.remove("tcp.options.mss", "tcp.options.wscale", "tcp.options.sack_perm")
        old.edit({
            "eth.src": packet["eth.dst"], "eth.dst": packet["eth.src"], "ip.src": packet["ip.dst"],
            "ip.dst": packet["ip.src"], "tcp.srcport": packet["tcp.dstport"], "tcp.dstport": packet["tcp.srcport"],
            "tcp.flags": 16, "tcp.seq": 3_000_000_000, "tcp.ack": packet["tcp.seq"] + 660_000_000 & 0xFFFF_FFFF,
        })
        context.inject(old, way="up")
"""


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_peer_that_has_an_older_connection_half_open(tmp_path: Path, from_the_start: bool) -> None:
    """Its ACK for that is answered by a RST, and the SYN is sent again (RFC 9293 3.5.1): numbers count from that SYN
    and its answer, also where the records begin with the RST."""
    planted = Planted(tmp_path, HALF_OPEN)
    planted.connect(TEXT, eof=True)
    records = planted.a.records
    if not from_the_start:
        reset = next(
            number for number, record in enumerate(records)
            if record[KIND] == "f" and record[SEAM] == "ip-tcp" and record[DIRECTION] == "out" and fact(record).rst
        )  # fmt: skip
        records = records[reset:]
    told = [one for one in why(Collection(records), str(PORT)) if any("We opened" in text for text in one.sentences)]
    assert len(told) == 1
    assert any(text.startswith(f"We sent {len(TEXT)} bytes in ") for text in told[0].sentences), told[0].sentences
    assert not {"syn_on_open", "reset_by_us"} & {one.name for one in told[0].findings}, story_lines(told[0])
    if from_the_start:
        first = cause(told[0], "half_open")
        assert first.up and first.has_ack and not first.syn and first.seq == 3_000_000_000
        assert told[0].cause is not None and told[0].cause.certain
        assert "a RST" in told[0].cause.says and "the SYN was sent again" in told[0].cause.says
        assert len(told[0].findings) == 1, story_lines(told[0])
        assert [one.name for one in told[0].consequences] == ["discarded"]


def test_a_peer_that_stays_with_its_older_connection(tmp_path: Path) -> None:
    """Our RSTs are lost on the way: each SYN is answered alike, and none with a SYN-ACK (RFC 9293 3.5.1)."""
    planted = Planted(tmp_path, HALF_OPEN.replace("not hasattr(context.state, \"done\")", "True"))
    planted.connect(b"hello", seconds=4)
    story = planted.story()
    first = cause(story, "half_open")
    assert first.up and not first.syn
    assert story.cause is not None and len(story.cause.because) == 2, story_lines(story)
    assert [one.name for one in story.findings] == ["half_open"], story_lines(story)


def test_an_old_duplicate_ack_beside_the_handshake(tmp_path: Path) -> None:
    """It does no harm where the SYN is answered at once: no older connection is told of."""
    planted = Planted(tmp_path, HALF_OPEN.replace("packet.drop()", "pass"))
    planted.connect(b"hello")
    assert "half_open" not in {one.name for one in planted.story().findings}


def test_sack_blocks_taken_out(tmp_path: Path) -> None:
    """SACK was agreed on, a segment of ours is lost, and the peer's duplicate ACKs have no blocks (RFC 2018 4)."""
    planted = Planted(tmp_path, to_segment(5, "drop()") + """
@addon.frame("tcp.flags.ack and not tcp.flags.syn", way="up")
def strip(packet, context):
    packet.remove("tcp.options.sack")
""")  # fmt: skip
    planted.connect(TEXT * 2, eof=True)
    story = planted.story()
    found = next((one for one in story.findings if one.name == "sack_missing"), None)
    assert found is not None, [(one.name, one.says) for one in story.findings]
    assert found.packet is not None and found.packet.up and not found.packet.options.sack
    assert story.cause is found, [(one.name, one.says) for one in story.findings]


def test_a_reset_with_a_number_outside_of_the_window(tmp_path: Path) -> None:
    """It is ignored, and told of; the connection goes on (RFC 5961 3.2)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.len > 0", way="up")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        forged = packet.copy()
        forged.edit({"tcp.flags": 4, "tcp.seq": (packet["tcp.seq"] + 0x10000000) % 2**32, "data": b""})
        context.inject(forged, ms=100)
""")  # fmt: skip
    socket = planted.connect(b"GET", reply=TEXT)
    assert bytes(socket.received) == TEXT and socket.error is None
    first = cause(planted.story(), "stray_reset")
    assert first.rst and first.up


def test_a_reset_in_time_wait_ends_nothing(tmp_path: Path) -> None:
    """It is discarded (RFC 1337), so nobody reset the connection, which had ended."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.len > 0", way="up")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        forged = packet.copy()
        forged.edit({"tcp.flags": 4, "tcp.seq": (packet["tcp.seq"] + 0x10000000) % 2**32, "data": b""})
        context.inject(forged, ms=100)
""")  # fmt: skip
    planted.connect(b"GET", eof=True, reply=TEXT)
    story = planted.story()
    assert any("TIME_WAIT" in line for line in story.sentences)
    assert not {"reset_by_peer", "reset_forged"} & {one.name for one in story.findings}


def test_a_peer_that_falls_silent(tmp_path: Path) -> None:
    """From some point on nothing of the peer arrives; what we send is repeated in vain (RFC 9293 3.8.3)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp", way="up")
def hook(packet, context):
    if context.state.__dict__.setdefault("until", context.now + 2_000_000_000) < context.now:
        packet.drop()
""")  # fmt: skip
    socket = planted.connect(b"hello")
    socket.write(b"are you there", planted.net.now)
    planted.wait(20)
    first = cause(planted.story(), "peer_silent")
    assert not first.up and first.length == len(b"are you there")


def test_subjects_of_these_tests_are_one_connection(tmp_path: Path) -> None:
    """A connection that goes well beside these has none of their findings."""
    planted = Planted(tmp_path, PASS)
    planted.a.connect(B, PORT, TEXT * 20, eof=True)
    planted.wait(5)
    story = planted.story()
    assert not story.findings, [(one.name, one.says) for one in story.findings]
