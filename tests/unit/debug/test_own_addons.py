"""What addons of this stack did is told of, lives in a recording, and stands beside what `why` finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from levelip.debug.collection import Collection
from levelip.debug.journeys import journey, journey_lines
from levelip.debug.tap import KIND, event_of
from levelip.debug.why import Story, connection_story, packet_story, story_lines
from levelip.tracing.events import Event
from levelip.tracing.formatting import sentence
from tests.netsim.whole import B
from tests.unit.debug.planted import PORT, Watched, addon_file

DATA = b"0123456789" * 6000
SHRINKS = """
def loaded(context):
    context.state.seen = 0

@addon.frame("tcp.flags.ack and not tcp.flags.syn", way="up")
def hook(packet, context):
    context.state.seen += 1
    if context.state.seen > 2:
        packet["tcp.window_size_value"] = 3
"""
DROPS_THIRD = """
def loaded(context):
    context.state.seen = 0

@addon.frame("tcp.len > 0", way="down", frames="wire")
def hook(packet, context):
    context.state.seen += 1
    if context.state.seen == 3:
        packet.drop()
"""


class Bench(Watched):
    """10.0.0.1, which is watched, connects to 10.0.0.2; addons are loaded into 10.0.0.1's link."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def load(self, text: str, name: str) -> None:
        self.a.addon(addon_file(self.directory, text, f"{name}.py"))

    def transfer(self, *, reply: bytes | None = None, seconds: float = 5) -> Collection:
        self.b.reply = reply
        self.a.connect(B, PORT, DATA, eof=True)
        self.net.run(seconds=seconds)
        return Collection(self.a.records)

    def events(self) -> list[Event]:
        found = [event_of(record) for record in self.a.records if record[KIND] == "e"]
        return [event for event in found if "addon" in event.data]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def story(collection: Collection) -> Story:
    (one,) = [talk for name, talk in collection.conversations.items() if name.endswith(f":{PORT}")]
    return connection_story(collection, one)


def make_of_the_third(changes: str) -> str:
    """An addon that makes another of the third packet that comes in."""
    return f"""
def loaded(context):
    context.state.seen = 0

@addon.frame("tcp.flags.ack and not tcp.flags.syn", way="up")
def hook(packet, context):
    context.state.seen += 1
    if context.state.seen == 3:
        other = packet.copy()
        {changes}
        context.inject(other, way="up")
"""


def test_a_reset_that_an_addon_made_is_no_reset_of_the_peer(bench: Bench) -> None:
    bench.load(make_of_the_third('other["tcp.flags"] = 4'), "killer")
    found = story(bench.transfer(seconds=2))
    one = found.cause
    assert one is not None and one.name == "own_change", story_lines(found)
    assert "reset_by_peer" not in [other.name for other in found.findings]
    assert one.packet is not None and one.packet.rst and one.packet.up
    assert one.says == f"addon killer made {one.packet.name}, a RST, which ended the connection"


def test_a_packet_that_became_a_reset_by_an_addon_is_none_of_the_peer(bench: Bench) -> None:
    bench.load(SHRINKS.replace('packet["tcp.window_size_value"] = 3', 'packet["tcp.flags.reset"] = 1'), "turner")
    found = story(bench.transfer(seconds=2))
    assert found.cause is not None and found.cause.name == "own_change", story_lines(found)
    assert "reset_by_peer" not in [one.name for one in found.findings]


def test_a_window_in_a_packet_that_was_discarded_closes_none(bench: Bench) -> None:
    """Without a timestamp it is not looked at (RFC 7323 3.2): what it says of the window is nothing that happened."""
    bench.load(make_of_the_third(
        'other.remove("tcp.options.timestamp"); other["tcp.window_size_value"] = 0'
    ), "odd")  # fmt: skip
    socket = bench.a.connect(B, PORT, DATA)
    bench.net.run(seconds=2)
    socket.write(DATA, bench.net.now)
    bench.net.run(seconds=2)
    found = story(Collection(bench.a.records))
    assert [one.name for one in found.findings] == ["timestamps_missing"], story_lines(found)


def test_what_is_discarded_for_its_options_is_told_though_the_syns_were_not_seen(bench: Bench) -> None:
    bench.load(make_of_the_third('other.remove("tcp.options.timestamp")'), "odd")
    bench.transfer(seconds=2)
    syns = next(
        number for number, record in enumerate(bench.a.records)
        if record[KIND] == "e" and event_of(record).kind == "state" and event_of(record).data["new"] == "ESTABLISHED"
    )  # fmt: skip
    found = story(Collection(bench.a.records[syns:]))
    assert [(one.name, one.reason) for one in found.findings] == [("discarded", "tcp_no_timestamp")]


def test_the_addon_that_changed_the_first_wrong_packet_is_named(bench: Bench) -> None:
    """The rule is that of what shows; beside it stands which addon set what, and the story counts its deeds."""
    bench.load(SHRINKS, "shaper")
    collection = bench.transfer(seconds=2)
    found = story(collection)
    assert found.cause is not None and found.cause.name == "window_shrunk", story_lines(found)
    assert any(
        line.startswith("addon shaper: changed tcp.window_size_value=3 at link ↑, Flags [.]")
        for line in found.cause.because
    ), found.cause.because
    count = len(bench.events())
    assert f"Addons had a hand in it (lvlip addon list): shaper changed {count} packets at link ↑." in found.sentences
    assert found.first_wrong is not None
    lines = journey_lines(collection, journey(collection, found.first_wrong.id))
    assert any("addon shaper: changed tcp.window_size_value=3 at link ↑" in line for line in lines), lines
    single = packet_story(collection, found.first_wrong.id)
    assert single.cause is not None and single.cause.because == found.cause.because


def test_what_an_addon_dropped_is_a_drop_with_its_place(bench: Bench) -> None:
    """Which segment it was, and whose addon it was; nothing else is guessed."""
    bench.load(DROPS_THIRD, "lossy")
    found = story(bench.transfer())
    (event,) = bench.events()
    assert (event.kind, event.reason) == ("drop", "addon_drop")
    assert event.data["length"] == 1448 and event.data["way"] == "down"
    assert sentence(event).startswith("drop, taken out on purpose (lvlip addon) at link ↓, Flags [.], seq ")
    assert found.cause is not None and found.cause.name == "discarded", story_lines(found)
    assert found.cause.because == [sentence(event)]
    assert "(addon lossy)" in found.cause.because[0]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("packet.edit({'ip.ttl': 9, 'tcp.flags.push': 0})", "changed ip.ttl=9, tcp.flags.push=0 at link ↓"),
        ("packet.remove('tcp.options.timestamp')", "changed without tcp.options.timestamp at link ↓"),
        ("packet.delay(20)", "delayed by 20 ms at link ↓"),
        ("packet.duplicate(2)", "repeated 2 times at link ↓"),
        ("packet.duplicate()", "repeated at link ↓"),
        ("context.inject(packet.copy())", "made at link ↓"),
        ("packet.replace(packet.frame)", "changed all of it at link ↓"),
        ("packet['tcp.payload'] = bytes(packet['tcp.len'])", "changed tcp.payload=" + "00" * 20 + "... at link ↓"),
    ],
)  # fmt: skip
def test_each_deed_has_its_words(bench: Bench, does: str, said: str) -> None:
    """Told with the packet it was done to, as what lvlip fault does is."""
    bench.load(f"""
@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    {does}
""", "busy")  # fmt: skip
    bench.transfer()
    first = bench.events()[0]
    assert sentence(first).startswith(f"addon busy: {said}, Flags ["), sentence(first)
    assert first.conn.endswith(f">10.0.0.2:{PORT}") and first.frame


def test_a_nat_makes_no_connection_of_its_own(bench: Bench) -> None:
    """What is told of a packet with another port outside belongs to the connection that the stack knows."""
    bench.load("""
@addon.frame("tcp", way="down")
def out(packet, context):
    packet["tcp.srcport"] = packet["tcp.srcport"] ^ 1

@addon.frame("tcp", way="up")
def back(packet, context):
    packet["tcp.dstport"] = packet["tcp.dstport"] ^ 1
""", "nat")  # fmt: skip
    collection = bench.transfer()
    (found,) = [connection_story(collection, talk) for talk in collection.conversations.values()]
    (deeds,) = [line for line in found.sentences if "Addons" in line]
    assert "at link ↓" in deeds and "at link ↑" in deeds
    assert found.findings == [], story_lines(found)


DAMAGES = """
def loaded(context):
    context.state.seen = 0

@addon.frame("tcp.len > 0", way="{way}", frames="wire")
def hook(packet, context):
    context.state.seen += 1
    if context.state.seen in (3, 4):
        packet.edit({{"tcp.checksum": 1}}, checksums="keep")
"""


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_change_from_which_something_went_wrong_is_the_cause(bench: Bench, way: str) -> None:
    """No packet with this change came through: it comes before the retransmissions, discards and holes that it made."""
    bench.load(DAMAGES.format(way=way), "damages")
    found = story(bench.transfer(reply=DATA))
    assert found.cause is not None and found.cause.name == "own_change", story_lines(found)
    assert "addon damages changed tcp.checksum" in found.cause.says
    assert found.first_wrong is not None and found.first_wrong.up is (way == "up")
    assert any("addon damages: changed tcp.checksum=1 at link" in line for line in found.cause.because)
    assert [one.name for one in found.findings] == ["own_change"], story_lines(found)
    assert {one.name for one in found.consequences} & {"segment_lost", "bad_checksum", "peer_segment_lost"}


def test_a_change_with_which_others_came_through_is_not_blamed_for_a_loss(bench: Bench) -> None:
    """A NAT changes every packet; the one that was lost was lost by something else."""
    bench.load("""
@addon.frame("tcp", way="down")
def hook(packet, context):
    packet["ip.ttl"] = 40
""", "ttl")  # fmt: skip
    bench.load(DROPS_THIRD, "lossy")
    found = story(bench.transfer())
    assert [one.name for one in found.findings] == ["discarded"], story_lines(found)


def test_a_mss_that_an_addon_of_ours_lowered_is_told_and_no_fault(bench: Bench) -> None:
    """Whether the records are from behind the addon (live) or from before it (a recording)."""
    bench.load("""
@addon.frame("tcp.flags.syn", way="down")
def hook(packet, context):
    packet["tcp.options.mss_val"] = 700
""", "mss")  # fmt: skip
    found = story(bench.transfer(reply=DATA))
    assert found.findings == [], story_lines(found)
    assert any("mss changed 1 packet at link ↓" in line for line in found.sentences)


def test_what_nobody_says_that_he_changed_stays_a_fault(bench: Bench) -> None:
    """The same records without the addon's word for it: a bug, or memory that was overwritten."""
    bench.load("""
@addon.frame("tcp.flags.syn", way="down")
def hook(packet, context):
    packet["tcp.window_size_value"] = 700
""", "window")  # fmt: skip
    bench.transfer()
    assert story(Collection(bench.a.records)).findings == []
    silent = [one for one in bench.a.records if one[KIND] != "e" or event_of(one).kind != "addon"]
    found = story(Collection(silent))
    assert [one.name for one in found.findings] == ["changed_inside"], story_lines(found)


def test_an_addon_that_changes_nothing_is_not_told_of(bench: Bench) -> None:
    """Nor is anything made while nobody listens and nothing is recorded."""
    bench.load("""
@addon.frame("tcp")
def hook(packet, context):
    packet.payload
""", "looks")  # fmt: skip
    bench.load(SHRINKS, "shaper")
    bench.a.tellers["link"].interest = False
    found = story(bench.transfer(seconds=1))
    assert bench.events() == []
    assert not any("Addons" in line for line in found.sentences)


def test_a_change_is_undone_with_the_hook_that_failed(bench: Bench) -> None:
    """What a failing hook had changed is not told of as a change."""
    bench.load("""
@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    packet["ip.ttl"] = 9
    1 / 0
""", "fails")  # fmt: skip
    bench.transfer()
    told: list[Any] = [event.data["what"] for event in bench.events()]
    assert told == ["failed"]
