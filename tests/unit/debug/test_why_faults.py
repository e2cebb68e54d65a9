"""Faults planted by addons in the network: `why` names cause and rule, and points at the first wrong packet.

The network is virtual (tests/netsim/whole.py); `why` sees what the tap of 10.0.0.1 recorded and nothing else.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from levelip.debug.collection import Collection
from levelip.debug.why import Unknown, why
from levelip.frames.packet import format_frame_id
from levelip.ipc.addons import Addons
from levelip.ipc.seampoint import SeamPoint
from tests.netsim.whole import B, World
from tests.unit.debug.planted import PORT, Planted, addon_file, cause, config, to_segment

TEXT = b"0123456789" * 3000


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    """A transfer in both directions and an orderly end: no finding."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    planted.connect(TEXT, eof=True, reply=TEXT)
    story = planted.story()
    assert not story.findings, [(one.name, one.says) for one in story.findings]
    assert any("TIME_WAIT" in line for line in story.sentences)


def test_a_wrong_window_scale(tmp_path: Path) -> None:
    """A middlebox sets the shift of the SYN-ACK to 0: the peer's next window looks 8 times too small (RFC 7323 2.2)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn and tcp.flags.ack", way="up")
def hook(packet, context):
    packet["tcp.options.wscale.shift"] = 0
""")  # fmt: skip
    planted.connect(TEXT, eof=True)
    first = cause(planted.story(), "window_scale_wrong")
    assert first.syn and first.up and first.options.wscale == 0


def test_a_window_scale_that_is_far_too_large(tmp_path: Path) -> None:
    """The same with 14: 16 times and more of what the peer has."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn and tcp.flags.ack", way="up")
def hook(packet, context):
    packet["tcp.options.wscale.shift"] = 14
""")  # fmt: skip
    planted.connect(TEXT, eof=True)
    first = cause(planted.story(), "window_scale_wrong")
    assert first.syn and first.options.wscale == 14


def test_a_lost_fin_of_ours(tmp_path: Path) -> None:
    """Our FIN is lost once and repeated by the timer (RFC 9293 3.6)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.fin", way="down")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        packet.drop()
""")  # fmt: skip
    socket = planted.connect(b"hello")
    socket.then_eof = True
    socket.pump(planted.net.now)
    planted.wait(5)
    first = cause(planted.story(), "fin_lost")
    assert first.fin and not first.up


def test_a_lost_fin_of_the_peer(tmp_path: Path) -> None:
    """The peer's FIN is lost: the next ACK's number, one beyond what has come, shows it (RFC 9293 3.10.7.4)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.fin and tcp.len == 0", way="up")
def hook(packet, context):
    packet.drop()
""")  # fmt: skip
    socket = planted.connect(b"hello")
    served = planted.b.accepted[0]
    served.then_eof = True
    served.pump(planted.net.now)
    planted.net.run(seconds=0.05)
    socket.write(b"are you there", planted.net.now)
    planted.net.run(seconds=0.15)
    story = planted.story()
    first = cause(story, "peer_fin_lost")
    assert first.up and first.length == 0 and not first.fin


def test_a_stale_arp_entry(tmp_path: Path) -> None:
    """The first ARP reply names a MAC address that nobody has: the packets that went there (RFC 1122 2.3.2.1)."""
    planted = Planted(tmp_path, """
@addon.frame("arp.opcode == 2", way="up")
def hook(packet, context):
    if not hasattr(context.state, "done"):
        context.state.done = True
        packet["arp.src.hw_mac"] = "02:00:00:00:00:99"
""")  # fmt: skip
    planted.connect(b"hello", eof=True, reply=b"hi", seconds=30)
    story = planted.story()
    first = cause(story, "stale_arp")
    assert first.arp is not None and first.arp.sha == bytes.fromhex("020000000099")
    assert any(one.name == "syn_lost" for one in story.consequences) or len(story.findings) >= 1


def test_a_rewritten_mss(tmp_path: Path) -> None:
    """The SYN-ACK's MSS is made 536, but the peer's own packets are larger (RFC 9293 3.7.1)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="up")
def hook(packet, context):
    packet["tcp.options.mss_val"] = 536
""")  # fmt: skip
    planted.connect(b"GET", eof=True, reply=TEXT)
    first = cause(planted.story(), "mss_rewritten")
    assert first.syn and first.up and first.options.mss == 536


def test_our_mss_rewritten_on_the_way(tmp_path: Path) -> None:
    """The MSS of our SYN is made smaller beyond what we see: the peer's segments are all too small."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="down")
def hook(packet, context):
    packet["tcp.options.mss_val"] = 536
""")  # fmt: skip
    planted.connect(b"GET", eof=True, reply=TEXT)
    first = cause(planted.story(), "our_mss_rewritten")
    assert first.syn and not first.up and first.options.mss == 1460


def test_a_shrunk_window(tmp_path: Path) -> None:
    """From some ACK on the window field is an eighth: the peer seems to take back what it granted (SHLD-14)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.ack_raw and not tcp.flags.syn", way="up")
def hook(packet, context):
    seen = context.state.seen = getattr(context.state, "seen", 0) + 1
    if seen > 3:
        packet["tcp.window_size_value"] = packet["tcp.window_size_value"] // 8
        context.state.first = getattr(context.state, "first", packet.frame.id)
""")  # fmt: skip
    planted.connect(TEXT * 3, eof=True)
    first = cause(planted.story(), "window_shrunk")
    assert first.up
    assert first.id == planted.cable.addons.addons["fault"].context.state.first


def test_a_window_that_shrinks_at_once_where_none_is_scaled(tmp_path: Path) -> None:
    """We offer no scale, so the peer has none (RFC 7323 2.2): what the SYN-ACK granted is taken back."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.ack_raw and not tcp.flags.syn", way="up")
def hook(packet, context):
    packet["tcp.window_size_value"] = packet["tcp.window_size_value"] // 4
    context.state.first = getattr(context.state, "first", packet.frame.id)
""", a=config(window_scaling=False))  # fmt: skip
    planted.connect(TEXT * 3, eof=True)
    first = cause(planted.story(), "window_shrunk")
    assert first.id == planted.cable.addons.addons["fault"].context.state.first


def test_stripped_options(tmp_path: Path) -> None:
    """SACK-permitted and timestamps are taken out of the SYN-ACK; the peer believes that they were agreed on."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="up")
def hook(packet, context):
    packet.remove("tcp.options.sack_perm", "tcp.options.timestamp")
""")  # fmt: skip
    planted.connect(TEXT, eof=True, reply=b"hi")
    first = cause(planted.story(), "options_stripped")
    assert first.syn and first.up and first.options.timestamps is None


def test_timestamps_stripped_after_the_handshake(tmp_path: Path) -> None:
    """Once agreed on, each segment must carry one: those without are discarded (RFC 7323 3.2)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.len > 0", way="up")
def hook(packet, context):
    packet.remove("tcp.options.timestamp")
""")  # fmt: skip
    planted.connect(b"GET", eof=True, reply=b"hello")
    first = cause(planted.story(), "timestamps_missing")
    assert first.up and first.length


def test_a_corrupted_checksum(tmp_path: Path) -> None:
    """One segment of the peer is damaged on the way: its checksum is wrong (RFC 9293 3.1 MUST-3)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.len > 0", way="up")
def hook(packet, context):
    if not hasattr(context.state, "bad"):
        context.state.bad = packet.frame.id
        packet.edit({"tcp.window_size_value": 77}, checksums="keep")
""")  # fmt: skip
    planted.connect(b"GET", eof=True, reply=TEXT)
    first = cause(planted.story(), "bad_checksum")
    assert first.id == planted.cable.addons.addons["fault"].context.state.bad


def test_a_blackholed_path_mtu(tmp_path: Path) -> None:
    """Packets above 1,000 bytes vanish without ICMP; the handshake and small segments pass (RFC 2923 2.1)."""
    planted = Planted(tmp_path, """
@addon.frame("ip.len > 1000", way="down")
def hook(packet, context):
    packet.drop()
""")  # fmt: skip
    socket = planted.connect(b"hello")
    socket.write(TEXT, planted.net.now)
    planted.wait(20)
    first = cause(planted.story(), "path_mtu_blackhole")
    assert not first.up and first.ip_length == 1500


def test_a_late_duplicate_of_the_syn(tmp_path: Path) -> None:
    """The peer's SYN comes once more in the midst of the connection: challenge ACK (RFC 5961 4.2)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="up")
def hook(packet, context):
    context.inject(packet.copy(), ms=300)
""")  # fmt: skip
    planted.connect(b"hello")
    first = cause(planted.story(), "syn_on_open")
    assert first.syn and first.up


def test_an_injected_rst(tmp_path: Path) -> None:
    """A RST with the right number ends the connection; the peer knows nothing of it (RFC 5961 3)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.len > 1000", way="up")
def hook(packet, context):
    context.state.seen = getattr(context.state, "seen", 0) + 1
    if context.state.seen == 5:
        forged = packet.copy()
        forged.edit({"tcp.flags": 4, "tcp.seq": packet["tcp.nxtseq"], "data": b"", "ip.ttl": 200})
        context.inject(forged)
""")  # fmt: skip
    planted.connect(b"GET", reply=TEXT * 4)
    story = planted.story()
    first = cause(story, "reset_forged")
    assert first.rst and first.up and first.ttl == 200
    assert not [one for one in story.findings if one.name in ("stray_reset", "changed_inside")]
    assert story.cause is not None and story.cause.certain


def test_acks_that_come_later_than_the_timeout(tmp_path: Path) -> None:
    """ACKs are held back for 700 ms from some point on: sent again for nothing (RFC 6298, RFC 3522)."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.ack and not tcp.flags.syn", way="up")
def hook(packet, context):
    context.state.seen = getattr(context.state, "seen", 0) + 1
    if context.state.seen > 6:
        packet.delay(700)
""")  # fmt: skip
    socket = planted.connect(TEXT)
    socket.write(b"more" * 100, planted.net.now)
    planted.wait(5)
    story = planted.story()
    first = cause(story, "late_ack")
    assert first.up and first.has_ack
    assert "timestamp" in " ".join(story.cause.because if story.cause else [])


def test_a_lost_segment(tmp_path: Path) -> None:
    """The plainest fault: the fifth data segment of ours is lost and sent again (RFC 5681 3.2)."""
    planted = Planted(tmp_path, to_segment(5, "drop()"))
    planted.connect(TEXT * 2, eof=True)
    first = cause(planted.story(), "segment_lost")
    assert not first.up and first.length


def test_a_segment_that_is_overtaken(tmp_path: Path) -> None:
    """One segment of ours is held back for 30 ms: sent again for nothing, as the peer's D-SACK says (RFC 2883)."""
    planted = Planted(tmp_path, to_segment(25, "delay(30)"))
    planted.connect(TEXT * 3, eof=True)
    first = cause(planted.story(), "spurious_retransmission")
    assert not first.up and first.length


def test_a_repetition_for_nothing_is_not_the_first_to_be_told_of(tmp_path: Path) -> None:
    """A segment is overtaken, as above, and then the peer stops reading: that is what a person suffers from."""
    planted = Planted(tmp_path, to_segment(10, "delay(30)"))
    planted.a.connect(B, PORT, TEXT * 20)
    planted.net.run(lambda: bool(planted.b.accepted), seconds=1)
    planted.b.accepted[0].reading = False
    planted.wait(5)
    story = planted.story()
    cause(story, "zero_window")
    assert "spurious_retransmission" in [one.name for one in story.findings[1:]]


def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    """The RST that answers the SYN (RFC 9293 3.10.7.1)."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    planted.a.connect(B, 81)
    planted.wait(3)
    (story,) = why(Collection(planted.a.records), "81")
    first = cause(story, "refused")
    assert first.rst and first.up


def test_a_syn_that_nobody_answers(tmp_path: Path) -> None:
    """All SYNs are lost: the first is where it begins."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="down")
def hook(packet, context):
    packet.drop()
""")  # fmt: skip
    planted.connect(b"x", seconds=10)
    first = cause(planted.story(), "syn_unanswered")
    assert first.syn and not first.up


def test_a_host_that_is_not_there(tmp_path: Path) -> None:
    """ARP requests stay without an answer (RFC 1122 2.3.2.1)."""
    planted = Planted(tmp_path, """
@addon.frame("arp", way="up")
def hook(packet, context):
    packet.drop()
""")  # fmt: skip
    planted.connect(b"x", seconds=10)
    story = planted.story()
    first = cause(story, "neighbour_silent")
    assert first.arp is not None and first.arp.oper == 1
    sent = Counter(fact.dst for fact in Collection(planted.a.records).on_wire if fact.arp and not fact.up)
    assert sent.total() > sent["10.0.0.2"], "there were announcements, too"
    said = "4 ARP requests for 10.0.0.2 stayed without an answer"  # three, and the first of the next attempt
    assert story.findings[0].says.startswith(said)
    assert [one.name for one in story.findings] == ["neighbour_silent"], "what tcp made of it follows from it"


def test_a_peer_that_does_not_read(tmp_path: Path) -> None:
    """Its window closes and stays closed (RFC 9293 3.8.6.1): no fault of the network."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    planted.a.connect(B, PORT, TEXT * 20)
    planted.net.run(lambda: bool(planted.b.accepted), seconds=1)
    planted.b.accepted[0].reading = False
    planted.wait(5)
    first = cause(planted.story(), "zero_window")
    assert first.up and first.window == 0


def test_the_story_of_one_packet(tmp_path: Path) -> None:
    """Asked by its id at any seam, the first wrong packet's story names the finding; another's names where to look."""
    planted = Planted(tmp_path, """
@addon.frame("tcp.flags.syn", way="up")
def hook(packet, context):
    packet["tcp.options.mss_val"] = 536
""")  # fmt: skip
    planted.connect(b"GET", eof=True, reply=TEXT)
    collection = Collection(planted.a.records)
    wrong = cause(planted.story(), "mss_rewritten")
    kin = [wrong.id, *collection.caused[wrong.id]]
    assert len(kin) == 2
    for id_ in kin:
        (story,) = why(collection, format_frame_id(id_))
        assert story.cause is not None and story.cause.name == "mss_rewritten"
        assert any("SYN_SENT → ESTABLISHED" in line for line in story.sentences)
    (story,) = why(collection, next(fact for fact in collection.facts if fact.is_tcp and fact.length).name)
    assert not story.findings
    assert f"first wrong packet {wrong.name}" in story.sentences[-1]


def test_what_was_not_recorded_is_told(tmp_path: Path) -> None:
    """Names of connections that are there, instead of a guess."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    planted.connect(b"x")
    collection = Collection(planted.a.records)
    for subject in ("81", "10.0.0.9:80", "1.2.3.4:5>6.7.8.9:10", "tcp-00001-9999"):
        with pytest.raises(Unknown, match="recorded"):
            why(collection, subject)
    name = next(iter(collection.conversations))
    for subject in (name, ">".join(reversed(name.split(">"))), "10.0.0.2:80", "80", "10.0.0.2"):
        assert [story.subject for story in why(collection, subject)] == [name]
    with pytest.raises(Unknown, match="no connections"):
        why(Collection(), "80")


@pytest.mark.parametrize("way", ["down", "up"])
@pytest.mark.parametrize("seam", ["ip-tcp", "link-ip"])
def test_a_packet_that_is_lost_within_the_stack(tmp_path: Path, seam: str, way: str) -> None:
    """A fault at a seam inside takes pieces of super-segments: they are in the records before it and not behind."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    inside = Addons(World(planted.net, "tcp"), [(seam, way)], slow_ms=1e6)
    path = addon_file(tmp_path, f"""
@addon.frame("tcp.len > 0", seam="{seam}", way="{way}", frames="wire")
def hook(packet, context):
    context.state.seen = getattr(context.state, "seen", 0) + 1
    if context.state.seen in (6, 9):
        packet.drop()
""", "inside.py")  # fmt: skip
    assert inside.load(str(path), {}, planted.net.now) is not None
    point = planted.a.points[seam, way] = SeamPoint(seam, way)
    point.put("addon", inside.stage(seam, way))
    planted.connect(TEXT, eof=True, reply=TEXT)
    story = planted.story()
    assert story.cause is not None
    assert story.cause.name == "vanished_inside", [(one.name, one.says) for one in story.findings]
    assert story.first_wrong is not None
    assert story.first_wrong.up == (way == "up")


def test_a_packet_that_is_changed_within_the_stack(tmp_path: Path) -> None:
    """The seam behind which it is another, with what changed."""
    planted = Planted(tmp_path, "def frame(packet, context): pass")
    inside = Addons(World(planted.net, "ip"), [("link-ip", "up")], slow_ms=1e6)
    path = addon_file(tmp_path, """
@addon.frame("tcp.flags.syn", seam="link-ip")
def hook(packet, context):
    packet["tcp.window_size_value"] = 1000
""", "inside.py")  # fmt: skip
    assert inside.load(str(path), {}, planted.net.now) is not None
    point = planted.a.points["link-ip", "up"] = SeamPoint("link-ip", "up")
    point.put("addon", inside.stage("link-ip", "up"))
    planted.connect(b"x", eof=True, reply=TEXT)
    story = planted.story()
    assert story.cause is not None and story.cause.name == "changed_inside"
    assert "came to ip otherwise than it had left link: window 65160 → 1000" in story.cause.says
    assert story.first_wrong is not None
    assert (story.first_wrong.process, story.first_wrong.seam) == ("ip", "link-ip")
