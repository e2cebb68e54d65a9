"""What `lvlip fault` does is told of: in traces, journeys and captures, and `why` names it as the cause."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from levelip.cli.comments import Commenter
from levelip.debug.collection import Collection
from levelip.debug.facts import Fact
from levelip.debug.findings import Finding
from levelip.debug.journeys import Journey, journey_lines, journeys
from levelip.debug.rules import inside
from levelip.debug.tap import EVENT_MONO, KIND, Record, event_of
from levelip.debug.why import Story, connection_story, packet_story, story_lines, why
from levelip.tracing.capturefile import CaptureFile
from levelip.tracing.events import Event
from levelip.tracing.flowfile import tcp_of
from levelip.tracing.formatting import sentence
from tests.netsim.whole import B
from tests.unit.debug.planted import PORT, Watched, addon_file

DATA = b"0123456789" * 6000
SEAMS = ("link", "link-ip", "ip-tcp")
WAYS = ("up", "down")


class Faulty(Watched):
    """10.0.0.1, which is watched, connects to 10.0.0.2; faults are set within 10.0.0.1 as `lvlip fault` sets them."""

    def transfer(self, *, reply: bytes | None = None, data: bytes = DATA, seconds: float = 5) -> Collection:
        self.b.reply = reply
        self.a.connect(B, PORT, data, eof=True)
        self.net.run(seconds=seconds)
        return Collection(self.a.records)

    def events(self, kind: str) -> list[Event]:
        found = [event_of(record) for record in self.a.records if record[KIND] == "e"]
        return [event for event in found if kind in (event.kind, event.reason)]


@pytest.fixture
def faulty() -> Faulty:
    return Faulty()


def story(collection: Collection) -> Story:
    (one,) = [talk for name, talk in collection.conversations.items() if name.endswith(f":{PORT}")]
    return connection_story(collection, one)


def names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seam", SEAMS)
def test_what_we_lose_is_the_cause(faulty: Faulty, seam: str, way: str) -> None:
    """At every seam and both ways: nothing is guessed of the path, nor of the stack."""
    gate = faulty.a.fault(seam, way, loss=0.08, seed=5)
    found = story(faulty.transfer(reply=DATA))
    assert gate.counts["lost"] > 2
    assert names(found.findings) == {"own_loss"}, story_lines(found)
    assert found.cause is not None
    arrow = "↑" if way == "up" else "↓"
    assert found.cause.says == f"packets that lvlip fault has lost: {gate.counts['lost']} at {seam} {arrow}"
    assert all(line.startswith("drop, lost on purpose (lvlip fault) at") for line in found.cause.because)
    assert len(faulty.events("fault_loss")) == gate.counts["lost"]


@pytest.mark.parametrize("way", WAYS)
def test_what_we_lose_is_the_cause_however_late_it_is_told(faulty: Faulty, way: str) -> None:
    """On a busy machine an event may be told long after its packet's successors passed: when it was done counts."""
    gate = faulty.a.fault("link", way, loss=0.08, seed=5)
    faulty.transfer(reply=DATA)
    for record in faulty.a.records:
        if record[KIND] == "e" and event_of(record).reason == "fault_loss":
            record[EVENT_MONO] += 170_000_000
    found = story(Collection(faulty.a.records))
    assert gate.counts["lost"] > 2
    assert names(found.findings) == {"own_loss"}, story_lines(found)


def test_a_loss_is_named_before_a_delay(faulty: Faulty) -> None:
    """Both have their consequences, and the delay came first: what was lost explains more."""
    faulty.a.fault("link", "down", delay_ns=1_500_000_000)
    faulty.a.fault("link", "up", loss=0.3, seed=5)
    found = story(faulty.transfer(reply=DATA, seconds=60))
    own = [finding for finding in found.findings if finding.name.startswith("own_")]
    assert [finding.name for finding in own] == ["own_loss", "own_delay"], story_lines(found)
    assert own[0].at > own[1].at and found.cause is own[0]


def test_each_frame_is_compared_once_however_many_connections(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stories of all connections of a port cost what their records cost, not that times their number."""
    for _ in range(5):
        collection = faulty.transfer(data=b"hello", seconds=1)
    looked: list[int] = []
    before = inside._before
    monkeypatch.setattr(inside, "_before", lambda all_, one: looked.append(one.id) or before(all_, one))
    assert len(why(collection, str(PORT))) == 5
    assert len(looked) == sum(fact.is_tcp for fact in collection.facts)


def test_what_the_path_loses_besides_is_told_too(faulty: Faulty, tmp_path: Path) -> None:
    """A segment that the cable lost is no consequence of the one that we lost."""
    faulty.cable.load(addon_file(tmp_path, """
def loaded(context):
    context.state.seen = 0

@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    context.state.seen += 1
    if context.state.seen == 9:
        packet.drop()
"""))  # fmt: skip
    faulty.a.fault("link", "down", loss=0.05, seed=5)
    found = story(faulty.transfer())
    assert names(found.findings) == {"own_loss", "segment_lost"}


def test_what_happened_to_each_packet(faulty: Faulty) -> None:
    """Its journey says where it was lost, of a super-segment that some of its packets were; none is lost in silence."""
    gate = faulty.a.fault("link", "down", loss=0.08, seed=5)
    collection = faulty.transfer()
    found = list(journeys(faulty.a.records))
    gone = [one for one in found if one.outcome == "dropped in link: fault_loss"]
    parts = [one for one in found if one.outcome == "sent in part"]
    assert len(gone) + sum(len(one.thinned) for one in parts) == gate.counts["lost"]
    assert parts and "packet" in _line(collection, parts[0], "without")
    if gone:
        assert "drop, lost on purpose" in _line(collection, gone[0], "lost on purpose")


def _line(collection: Collection, one: Journey, word: str) -> str:
    return next(line for line in journey_lines(collection, one) if word in line)


def test_corruption_delay_and_repetition(faulty: Faulty) -> None:
    """Each is an event with what was done to which segment; damage is the cause of a wrong checksum."""
    gate = faulty.a.fault("link", "up", corrupt=0.1, dup=0.1, seed=3)
    faulty.a.fault("link", "down", delay_ns=3_000_000, seed=3)
    collection = faulty.transfer(reply=DATA)
    told = faulty.events("fault")
    done = [event.data["what"] for event in told]
    assert done.count("corrupt") == gate.counts["corrupted"] > 0
    assert done.count("dup") == gate.counts["duplicated"] > 0
    assert done.count("delay") > 10
    delayed = next(event for event in told if event.data["what"] == "delay" and event.data.get("length"))
    text = sentence(delayed)
    assert text.startswith("lvlip fault: delayed by 3 ms at link ↓, Flags ["), text
    assert f"seq {delayed.data['seq']}" in text
    found = story(collection)
    assert found.cause is not None and found.cause.name == "own_corruption", story_lines(found)
    assert "bad_checksum" in names(found.consequences)
    assert "bad_checksum" not in names(found.findings)
    damaged = next(event for event in told if event.data["what"] == "corrupt")
    (one,) = [one for one in journeys(faulty.a.records) if damaged.frame in one.ids]
    assert any("a bit flipped" in line for line in journey_lines(collection, one))


def test_delay_without_consequence_is_nothing_wrong(faulty: Faulty) -> None:
    """Asked for and harmless: the events tell it, the story does not."""
    faulty.a.fault("link", "up", delay_ns=100_000)
    assert not story(faulty.transfer(data=b"hello")).findings
    assert faulty.events("fault")


def test_a_lost_syn(faulty: Faulty) -> None:
    """All of them lost by us: nobody is blamed for not answering."""
    faulty.a.fault("link", "down", loss=1.0)
    found = story(faulty.transfer(seconds=20))
    assert names(found.findings) == {"own_loss"}, story_lines(found)
    assert "Flags [S]" in found.findings[0].because[-1]


def test_an_arp_reply_that_we_lose(faulty: Faulty) -> None:
    """It belongs to no connection: the peer's address says that it is about this one."""
    faulty.a.fault("link", "up", loss=1.0)
    found = story(faulty.transfer(seconds=20))
    assert found.cause is not None and found.cause.name == "own_loss", story_lines(found)
    assert names(found.consequences) == {"neighbour_silent", "discarded"}
    assert any("src 10.0.0.2" in line for line in found.findings[0].because)


def test_reordering_explains_a_hole(faulty: Faulty) -> None:
    """What was kept back leaves a hole in what came, which is no loss of the path."""
    gate = faulty.a.fault("link", "up", reorder=0.1, seed=4)
    found = story(faulty.transfer(reply=DATA))
    assert gate.counts["reordered"]
    assert names(found.findings) == {"own_reordering"}, story_lines(found)
    assert "peer_segment_lost" in names(found.consequences)


def test_comments_in_a_capture(faulty: Faulty) -> None:
    """On the packet where there is one; what was lost on its way out stands on the frame that it came of."""
    faulty.a.fault("link", "down", loss=0.08, seed=5)
    faulty.transfer()
    stream = io.BytesIO()
    commenter = Commenter(stream, ["link-ip"], ethernet=True)
    records: list[Record] = [r for r in faulty.a.records if r[KIND] == "e" or r[3:5] == ["link-ip", "in"]]
    commenter.take(records, captured=True)  # type: ignore[arg-type]
    commenter.finish()
    lost = faulty.events("fault_loss")
    assert stream.getvalue().count(b"drop, lost on purpose (lvlip fault) at link") == len(lost)
    by_id = {record[7]: record for record in records if record[KIND] == "f"}
    assert all(event.frame in by_id for event in lost)


def test_a_delayed_packet_has_its_own_comment(faulty: Faulty) -> None:
    """It is told of when it is kept back, before it passes: the comment waits for it."""
    faulty.a.fault("link", "down", delay_ns=400_000_000)
    faulty.transfer(data=b"hello")
    stream = io.BytesIO()
    commenter = Commenter(stream, ["link"], ethernet=True)
    records: list[Record] = [r for r in faulty.a.records if r[KIND] == "e" or r[3] == "link"]
    commenter.take([r for r in records if r[KIND] == "f" or r[4][1] == "fault"], captured=True)
    commenter.finish()
    stream.seek(0)
    noted = 0
    for packet in CaptureFile(stream):
        found = tcp_of(packet.linktype, packet.data, packet.length)
        for comment in packet.comments:
            if not comment.startswith("link: "):  # with a time: its packet has not passed by the end
                continue
            seq = f"seq {int.from_bytes(found[2][4:8], 'big')}," if found is not None else ""
            assert seq in comment and bool(seq) == ("seq" in comment)  # ARP has none
            noted += bool(seq)
    assert noted >= 3


def test_nothing_is_made_while_nobody_listens(faulty: Faulty) -> None:
    """Counters always run, events do not."""
    gate = faulty.a.fault("link", "down", loss=0.2)
    faulty.a.tellers["link"].interest = False
    faulty.transfer()
    assert gate.counts["lost"] and not faulty.events("fault_loss")


def test_why_of_a_lost_frame(faulty: Faulty) -> None:
    """By the id that the event names."""
    faulty.a.fault("ip-tcp", "down", loss=0.1, seed=5)
    collection = faulty.transfer()
    lost = faulty.events("fault_loss")[0]
    found = packet_story(collection, lost.frame)
    assert found.cause is not None and found.cause.name == "own_loss"
    assert isinstance(found.first_wrong, Fact) and found.first_wrong.id == lost.frame


def test_what_is_no_tcp(faulty: Faulty) -> None:
    """A ping's answer that was lost on its way in, of no connection: why names the fault, by the frame."""
    faulty.a.fault("link-ip", "up", loss=1.0)
    faulty.a.ip.control(1, "ping", {"dst": "10.0.0.2"}, faulty.net.now)
    faulty.net.run(seconds=1)
    (lost,) = faulty.events("fault_loss")
    found = packet_story(Collection(faulty.a.records), lost.frame)
    assert names(found.findings) == {"own_loss"}, story_lines(found)
    assert found.first_wrong is not None and found.first_wrong.icmp is not None
