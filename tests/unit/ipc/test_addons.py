"""Addons of a process: what hooks see and may do, what becomes of those that fail, who may write the file."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest

from levelip.frames.packet import Checksum, DeviceFrame, LinkState, Packet
from levelip.ipc import addons as engine
from levelip.ipc import addonstage
from levelip.ipc.addonfile import AddonError
from levelip.ipc.addons import Addons
from levelip.ipc.seampoint import SeamPoint
from levelip.ipc.watchdog import Watchdog
from levelip.rpc.place import Place
from levelip.tracing.events import Event
from levelip.tracing.fields import fields
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import ACK, pack_tcp
from tests.addonworld import AddonWorld

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
MS = 1_000_000
HEAD = "from levelip import addon\n"


class Bytes:
    def __init__(self) -> None:
        self.freed: list[Place] = []

    def read(self, place: Place) -> bytes:
        return b"p" * place.length

    def free(self, place: Place) -> None:
        self.freed.append(place)


class BarksOnce(Watchdog):
    """The second time might come before it is silenced, on a machine that is busy."""

    def _bark(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        super()._bark(number, frame)


class Bench:
    """The addons of ip, and its point at link-ip upward."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.memory = Bytes()
        self.world = AddonWorld("ip", self.memory)
        self.addons = Addons(self.world, [("link-ip", "up"), ("ip-tcp", "down")], slow_ms=60_000)
        self.point = SeamPoint("link-ip", "up")
        self.point.put("addon", self.addons.stage("link-ip", "up"))
        self.addons.stage("ip-tcp", "down")
        self.now = 1000 * MS

    def write(self, text: str, name: str = "one") -> str:
        path = self.directory / f"{name}.py"
        path.write_text(HEAD + text)
        path.chmod(0o644)
        return str(path)

    def load(self, text: str, name: str = "one", **options: str) -> Any:
        return self.addons.load(self.write(text, name), options, self.now)

    def push(self, *frames: Any) -> list[Any]:
        return self.point.push(list(frames), self.now)

    def row(self, name: str = "one") -> dict[str, Any]:
        return next(row for row in self.addons.show() if row["addon"] == name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def packet(number: int, payload: Any = b"hello", *, seq: int = 1, gso: int = 0) -> Packet:
    tcp = pack_tcp(4711, 80, seq=seq, ack=5, flags=ACK, window=502)
    ip = Ipv4Header.build(A, B, proto=6, payload_length=len(tcp) + len(payload)).serialize()
    return Packet(1 << 60 | number, [], False, 0, 1, ip + tcp, payload, int(Checksum.VERIFIED), gso)


HOOK = '@addon.frame({0!r}, seam="link-ip")\ndef hook(packet, context):\n    {1}\n'


def test_a_hook_reads_changes_and_drops_what_its_expression_says(bench: Bench) -> None:
    """Fields go by Wireshark's names; what does not match passes untouched, and so does what is no packet."""
    bench.load(HOOK.format("tcp.seq == 2", "packet['ip.ttl'] = packet['tcp.seq'] + 5"))
    bench.load(HOOK.format("tcp.seq == 3", "packet.drop()"), "two")
    state = LinkState(1, "tap0", "tap", True, 1500, 0, True)
    first = packet(1)
    passed = bench.push(first, packet(2, seq=2), packet(3, seq=3), state)
    assert passed[0] is first
    assert passed[2] is state
    assert fields(passed[1])["ip.ttl"] == 7
    assert fields(passed[1])["ip.checksum.status"] == "good"
    assert len(passed) == 3
    assert bench.world.counters == {"drop.addon_drop": 1}
    assert [(event.kind, event.reason, event.data["addon"]) for event in bench.world.events] == [
        ("addon", "", "one"), ("drop", "addon_drop", "two"),
    ]  # fmt: skip
    assert bench.world.events[0].data["changes"] == ["ip.ttl=7"]


def test_what_is_dropped_on_its_way_out_is_told_by_the_frame_that_led_to_it(tmp_path: Path) -> None:
    """The tap shows what passes the device behind the addons, so nobody knows the dropped frame's own id."""
    bench = Bench(tmp_path)
    bench.addons = Addons(bench.world, [("link", "up"), ("link", "down")], slow_ms=60_000)
    point = SeamPoint("link", "down")
    point.put("addon", bench.addons.stage("link", "down"))
    bench.addons.stage("link", "up")
    bench.load("def frame(packet, context):\n    packet.drop()\n")
    whole = packet(1)
    assert point.push([DeviceFrame(1 << 60 | 9, [1 << 60 | 1], whole.head, b"hello")], bench.now) == []
    assert [(event.reason, event.frame) for event in bench.world.events] == [("addon_drop", 1 << 60 | 1)]


def test_delay_duplicate_and_inject(bench: Bench) -> None:
    """A delayed packet comes when its time is up; a copy has an id of its own and names the first as its cause."""
    bench.load(HOOK.format("tcp.seq == 1", "packet.delay(20)"))
    bench.load(HOOK.format("tcp.seq == 2", "packet.duplicate(2, ms=5)"), "two")
    bench.load(HOOK.format("tcp.seq == 3", "context.inject(packet.copy())"), "three")
    assert bench.push(packet(1)) == []
    two = bench.push(packet(2, seq=2))
    assert [frame.id for frame in two] == [packet(2).id]
    three = bench.push(packet(3, seq=3))
    assert three[1].causes == [three[0].id]
    assert three[1].id >> 60 == 7
    assert bench.point.next_timer() == bench.now + 5 * MS
    assert [frame.causes for frame in bench.point.due(bench.now + 10 * MS)] == [[two[0].id]] * 2
    assert [frame.id for frame in bench.point.due(bench.now + 20 * MS)] == [packet(1).id]
    assert bench.point.next_timer() is None


def test_an_injected_frame_goes_to_the_seam_that_it_fits(bench: Bench) -> None:
    """A frame of another kind than the seam carries, or a seam that is not here: the addon is taken out."""
    bench.load(HOOK.format("", "context.inject(packet.copy(), seam='ip-tcp', way='down')"))
    bench.push(packet(1))
    assert "ip-tcp carries a Segment, not a Packet" in bench.row()["error"]
    bench.load(HOOK.format("", "context.inject(packet.copy(), seam='link', way='up')"), "two")
    bench.push(packet(1))
    assert "nothing can be injected at link up in ip" in bench.row("two")["error"]


def test_a_payload_in_shared_memory_is_read_only_where_it_must_be(bench: Bench) -> None:
    """Looking leaves the slot alone; a change takes the payload inline and gives the slot back; so does a drop."""
    place = Place("pool-1", 4096, 65_536, 0, 3000, 1)
    bench.load(HOOK.format("tcp.seq == 1", "packet['tcp.len']"))
    (same,) = bench.push(packet(1, place))
    assert same.payload is place
    assert not bench.memory.freed
    bench.load(HOOK.format("tcp.seq == 1", "packet['ip.ttl'] = 3"), "two")
    (changed,) = bench.push(packet(2, place))
    assert not isinstance(changed.payload, Place)
    assert changed.head + changed.payload
    assert bench.memory.freed == [place]
    bench.load(HOOK.format("tcp.seq == 2", "packet.drop()"), "three")
    assert bench.push(packet(3, place, seq=2)) == []
    assert bench.memory.freed == [place, place]


def test_super_segments_are_cut_for_who_wants_packets(bench: Bench) -> None:
    """frames="wire": the hook sees pieces of wire size."""
    bench.load(
        '@addon.frame(seam="link-ip", frames="wire")\ndef hook(packet, context):\n'
        "    context.log(packet['tcp.len'])\n    packet.drop() if packet['tcp.seq'] == 1001 else None\n"
    )
    passed = bench.push(packet(1, b"x" * 2500, gso=1000))
    assert [fields(one)["tcp.len"] for one in passed] == [1000, 500]
    assert bench.row()["log"] == ["1000", "1000", "500"]


@pytest.mark.parametrize("error", ["1 / 0", "raise SystemExit(3)", "packet['tcp.sequence']", "packet['ip.ttl'] = 'x'"])
def test_an_addon_that_fails_is_taken_out_and_the_packet_passes_as_it_was(bench: Bench, error: str) -> None:
    """The traceback begins in the file; it is told of in the log, as an event, and in the list; others run on."""
    bench.load(HOOK.format("", f"packet.delay(5); packet['ip.ttl'] = 9; {error}"))
    bench.load(HOOK.format("", "context.state.n = getattr(context.state, 'n', 0) + 1"), "two")
    frame = packet(1)
    (passed,) = bench.push(frame)
    assert passed == frame
    (passed,) = bench.push(frame)
    assert passed is frame
    row = bench.row()
    assert not row["running"]
    assert row["error"].startswith('Traceback (most recent call last):\n  File "' + row["path"])
    assert "in hook" in row["error"]
    told = [event for event in bench.world.events if event.kind == "addon"]
    assert [(event.data["what"], event.data["hook"]) for event in told] == [("failed", "hook")]
    assert "Traceback" in bench.world.lines[-1]
    assert bench.row("two")["hooks"][0]["calls"] == 2


def test_a_failing_hook_leaves_a_shared_payload_readable(bench: Bench) -> None:
    """Its payload was taken out of the slot before the hook failed: the packet passes with its bytes inline."""
    place = Place("pool-1", 4096, 65_536, 0, 3000, 1)
    bench.load(HOOK.format("", "packet['ip.ttl'] = 9; 1 / 0"))
    (passed,) = bench.push(packet(1, place))
    assert passed.payload == b"p" * 3000
    assert fields(passed)["ip.ttl"] == 64


def test_a_changed_file_is_loaded_again_and_keeps_its_state(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure, too; a file that is torn leaves what runs alone, and is told of."""
    monkeypatch.setattr(engine, "_CHECK_NS", 0)
    bench.load(HOOK.format("", "context.state.n = 7; 1 / 0"))
    bench.push(packet(1))
    assert not bench.row()["running"]
    path = bench.write(HOOK.format("", "context.log(context.state.n)"))
    os.utime(path, ns=(1, 1))
    bench.point.due(bench.now)
    bench.push(packet(1))
    assert bench.row()["running"]
    assert bench.row()["log"][-2:] == ["loaded again", "7"]
    os.utime(bench.write("def frame(:\n"), ns=(2, 2))
    bench.point.due(bench.now)
    assert bench.row()["running"]
    assert "SyntaxError" in bench.row()["error"]
    bench.push(packet(1))
    assert bench.row()["log"][-1] == "7"
    bench.addons.unload("one", bench.now)
    assert bench.addons.show() == []


def test_what_an_addon_says_at_its_end_is_handed_over(bench: Bench) -> None:
    """It is the answer to whoever unloads it."""
    bench.load(HOOK.format("", "context.log('x')") + "def unloaded(context):\n    context.log('bye')\n")
    bench.push(packet(1))
    assert list(bench.addons.unload("one", bench.now).lines) == ["bye"]


def test_a_slow_hook_is_told_of(bench: Bench) -> None:
    """At its 1st, 2nd, 4th ... time, with the milliseconds that it took."""
    bench.addons.slow_ns = 0
    bench.load(HOOK.format("", "pass"))
    for number in range(5):
        bench.push(packet(number))
    told = [event.data for event in bench.world.events]
    assert [(one["what"], one["hook"], one["times"]) for one in told] == [
        ("slow", "hook", 1), ("slow", "hook", 2), ("slow", "hook", 4)
    ]  # fmt: skip
    assert bench.row()["hooks"][0]["slow"] == 5


def test_an_endless_loop_is_ended(bench: Bench) -> None:
    """A hook that does not come back is interrupted, even if it catches every Exception, and its addon taken out."""
    dog = BarksOnce(0.3)
    dog.install()
    bench.world.arm = lambda _addon: dog.arm()  # type: ignore[method-assign]
    bench.world.disarm = dog.disarm  # type: ignore[method-assign]
    try:
        loop = "while True:\n        try:\n            x = 1\n        except Exception:\n            pass"
        bench.load(HOOK.format("", loop))
        assert len(bench.push(packet(1))) == 1
        assert "TookTooLong" in bench.row()["error"]
        assert "in hook" in bench.row()["error"]
        with pytest.raises(AddonError, match="TookTooLong"):
            bench.load("while True: pass\n", "two")
    finally:
        dog.remove()


def test_hooks_on_events_and_events_of_hooks(bench: Bench) -> None:
    """The process's events are asked for while a hook wants them; what a hook emits is shown and meets no hook."""
    assert not bench.world.listening
    bench.load("@addon.event('event retransmit')\ndef hook(event, context):\n"
               "    context.emit('mine', conn=event.conn, why=event.data['why'])\n"
               "def event(event, context):\n    context.log(event.kind)\n")  # fmt: skip
    assert bench.world.listening
    bench.addons.event(Event(5, "retransmit", conn="a>b", data={"why": "rto"}))
    bench.addons.event(Event(6, "rtt"))
    (mine,) = bench.world.events
    assert (mine.kind, mine.conn, mine.at, mine.data) == ("mine", "a>b", 5, {"why": "rto", "addon": "one"})
    assert bench.row()["log"] == ["retransmit", "rtt"]
    bench.addons.unload("one", bench.now)
    assert not bench.world.listening


def test_options_and_the_hooks_at_the_beginning(bench: Bench) -> None:
    """KEY=VALUE are there when `loaded` is called; what fails there refuses the addon."""
    bench.load("def loaded(context):\n    context.log(context.options['x'])\ndef event(event, context): ...\n", x="3")
    assert bench.row()["log"] == ["3"]
    with pytest.raises(AddonError, match="KeyError"):
        bench.load("def loaded(context):\n    context.options['y']\ndef event(event, context): ...\n", "two")


def test_an_addon_whose_hooks_have_no_place_here_is_not_kept(bench: Bench) -> None:
    """A hook at the device is link's affair."""
    assert bench.load("def frame(packet, context): ...\n") is None
    assert bench.addons.show() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", "has no hooks"),
        ("def frame(packet", "SyntaxError"),
        ("import nothing_of_this_name\ndef frame(p, c): ...", "ModuleNotFoundError"),
        ("@addon.frame('tcp.seq = ')\ndef f(p, c): ...", r"\^"),
        ("@addon.frame(way='left')\ndef f(p, c): ...", "way 'left'"),
        ("@addon.frame(frames='half')\ndef f(p, c): ...", "frames 'half'"),
        ("raise SystemExit('no')", "SystemExit"),
    ],
)
def test_files_that_cannot_be_loaded(bench: Bench, text: str, reason: str) -> None:
    with pytest.raises(AddonError, match=reason):
        bench.load(text)


def test_who_may_write_the_file(bench: Bench) -> None:
    """Others may not, and neither a directory nor a pipe is a file."""
    path = bench.write("def frame(packet, context): ...\n")
    Path(path).chmod(0o664)
    with pytest.raises(AddonError, match="others may write"):
        bench.addons.load(path, {}, 0)
    with pytest.raises(AddonError, match="not a regular file"):
        bench.addons.load(str(bench.directory), {}, 0)
    os.mkfifo(bench.directory / "pipe.py")
    with pytest.raises(AddonError, match="not a regular file"):
        bench.addons.load(str(bench.directory / "pipe.py"), {}, 0)
    if os.getuid() == 0:
        Path(path).chmod(0o644)
        os.chown(path, 12345, 12345)
        with pytest.raises(AddonError, match="belongs to uid 12345"):
            bench.addons.load(path, {}, 0)


def test_two_addons_of_one_name(bench: Bench, tmp_path: Path) -> None:
    """The name is the file's; another file of the same name has to wait until the first is unloaded."""
    bench.load(HOOK.format("", "pass"))
    other = tmp_path / "other"
    other.mkdir()
    path = other / "one.py"
    path.write_text(HEAD + HOOK.format("", "pass"))
    path.chmod(0o644)
    with pytest.raises(AddonError, match="loaded already"):
        bench.addons.load(str(path), {}, 0)


def test_no_more_than_so_many_frames_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An addon that delays without end fills no memory: what is too much is counted, and told to
    all but addons, whose hooks on events might cause as much again."""
    monkeypatch.setattr(addonstage, "KEPT", 3)
    bench.load(HOOK.format("", "packet.delay(1000)"))
    assert bench.push(*(packet(number) for number in range(5))) == []
    assert bench.world.counters == {"drop.addon_queue": 2}
    told = [event for event in bench.world.events if event.kind == "drop"]
    assert [(event.frame & 0xFF, event.reason, event.data["limit"]) for event in told] == [
        (3, "addon_queue", 3), (4, "addon_queue", 3),
    ]  # fmt: skip
    assert told[0].conn == "10.0.0.2:80>10.0.0.1:4711"
    assert (told[0].data["seam"], told[0].data["way"]) == ("link-ip", "up")
    bench.load("@addon.event()\ndef event(event, context):\n    context.log(event.reason)\n", "two")
    bench.addons.event(told[0])
    assert bench.row("two")["log"] == []
    assert len(bench.point.take("addon", bench.now)) == 3


@pytest.mark.parametrize(
    "deed",
    [
        "context.emit('mine', what=object())", "context.emit('mine', what=1 << 70)", "context.emit(5)",
        "context.emit('mine', conn=7)", "packet.delay(3_600_001)", "packet.delay(float('inf'))",
        "packet.delay(float('nan'))", "packet.duplicate(2, ms=3_600_000)",
        "context.inject(packet.copy(), ms=1e15)",
    ],
)  # fmt: skip
def test_what_no_message_can_hold_is_the_addons_fault(bench: Bench, deed: str) -> None:
    """It fails in its hook, and nothing of it comes to whoever writes events down; a process would end by that."""
    bench.load(HOOK.format("", deed))
    frame = packet(1)
    assert bench.push(frame) == [frame] and not bench.row()["running"]
    assert [event.data["what"] for event in bench.world.events] == ["failed"]
    assert len(bench.point.take("addon", bench.now)) == 0


def test_an_event_is_what_it_was_when_it_was_told(bench: Bench) -> None:
    """What the addon does to its data later changes nothing of it."""
    bench.load(HOOK.format("", "seen = [1]; context.emit('mine', seen=seen); seen.append(2)"))
    bench.push(packet(1))
    assert bench.world.events[0].data == {"addon": "one", "seen": [1]}


@pytest.mark.parametrize("deed", ["context.log({})", "raise ValueError({})"])
def test_text_that_is_no_unicode_can_be_listed(bench: Bench, deed: str) -> None:
    """As an addon gets it that decodes bytes with surrogateescape."""
    bench.load(HOOK.format("", deed.format("b'caf\\xe9'.decode(errors='surrogateescape')")))
    bench.push(packet(1))
    assert b"caf\\\\udce9" in msgspec.json.encode([bench.row(), bench.world.events])
