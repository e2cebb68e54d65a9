"""The door's bounds: whatever a client sends, what is kept of it is little, and the others have their turn."""

from __future__ import annotations

import errno

import msgspec
import pytest

from gateway.door import HELD_MAX, PAUSE
from levelip.frames.seam import FromClient
from levelip.rpc.codec import MAX_MESSAGES
from levelip.rpc.messages import VERSION, Hello, Request, TookDatagrams
from tests.unit.gateway.door_bench import EPOCH, OURS, DoorBench, envelope, message

PING = b"\x04\x07\x04PING\x00\x00"


@pytest.mark.parametrize("wire", [PING, message(b"garbage"), envelope(to=EPOCH)], ids=["ping", "garbage", "probe"])
def test_floods_are_taken_in_turns(wire: bytes) -> None:
    """A flood of what makes no message of the core has its slice, and then it is another client's turn."""
    with DoorBench() as bench:
        flood, app = bench.client(), bench.client()
        for _ in range(3):
            bench.frames()
        flood.read()
        flood.write(wire * 2000 + envelope(Hello(VERSION, "flood")))
        app.write(envelope(Hello(VERSION, "app")))
        assert [frame.message.software for frame in bench.frames()] == ["app", "flood"]


@pytest.mark.parametrize("wire", [PING, message(b"garbage")], ids=["ping", "garbage"])
def test_answers_that_nobody_reads(wire: bytes) -> None:
    """Who asks and does not read is not read either: its questions wait in its own process."""
    with DoorBench() as bench:
        flood = bench.client()
        sent = idle = 0
        while idle < 3:
            went = flood.write(wire * 2000)
            sent += went
            idle = 0 if went else idle + 1
            for _ in range(100):
                bench.frames()
            assert bench.door.unread < PAUSE + 1000
            assert sent < 20 << 20
        assert not flood.is_cut()  # it reads now
        for _ in range(500):
            flood.read()
            bench.frames()
        assert bench.door.unread == 0
        flood.write(envelope(Hello(VERSION, "late")))
        assert [type(frame.message) for frame in bench.frames()] == [Hello]


def test_arguments_are_flat() -> None:
    """Lists and maps in a request are refused as they are decoded: a part of 1 MiB would make 70 MB of empty ones."""
    with DoorBench() as bench:
        app = bench.client()
        for _ in range(2):
            bench.frames()
        app.read()
        for value in ([], {}, [[]] * 1000):
            app.write(message(msgspec.msgpack.encode([1, OURS, 0, [[23, 1, "bind", 0, {"address": value}]]])))
            assert bench.frames() == []
            assert _refusals(app.read()) == [errno.EBADMSG]
        many = {str(number): 0 for number in range(17)}
        app.write(message(msgspec.msgpack.encode([1, OURS, 0, [[23, 1, "bind", 0, many]]])))
        assert bench.frames() == [] and _refusals(app.read()) == [errno.EBADMSG]
        assert bench.runtime.counters["drop.bad_message"] == 4


@pytest.mark.parametrize(
    "place",
    [
        ["0" * 32, 0, 1 << 20, 0, 5000],
        ["own-1", 0, 1 << 20, 0, 5000],
        ["0" * 32, 0, (1 << 64) - 1, 0, (1 << 64) - 1],
    ],
    ids=["a session's", "tcp's", "longer than Python counts"],
)
def test_a_client_names_no_memory(place: list[object]) -> None:
    """What a client says lies in its message: a place in a file that it names, which every reader of its messages would
    have to open, is refused at the door, and the session goes on."""
    with DoorBench() as bench:
        app = bench.client()
        for _ in range(2):
            bench.frames()
        app.read()
        for said in ([1, 1, 0, 5000, place], [26, 1, b"\n\0\0\1", 9, place]):
            app.write(message(msgspec.msgpack.encode([1, OURS, 0, [said]])))
            assert bench.frames() == []
            assert _refusals(app.read()) == [errno.EBADMSG]
        assert bench.runtime.counters["drop.bad_place"] == 2
        app.write(envelope(Hello(VERSION, "app")))
        assert [frame.message.software for frame in bench.frames()] == ["app"]


def _refusals(wire: bytes) -> list[int]:
    """The errnos of short Refused, one an envelope."""
    found = []
    while wire:
        assert not wire[0], wire  # one short part
        envelope_, wire = wire[2 : 2 + wire[1]], wire[2 + wire[1] :]
        found += [number for kind, number, _ in msgspec.msgpack.decode(envelope_)[3] if kind == 22]
    return found


def test_messages_that_wait_have_a_price() -> None:
    """Envelopes of 4,096 tiny messages from many at once: what they become is counted, and whoever has most is cut."""
    flood = envelope(*[TookDatagrams(1, 0)] * MAX_MESSAGES)
    with DoorBench() as bench:
        apps = [bench.client() for _ in range(120)]
        for _ in range(3):
            bench.frames(limit=0)
            bench.frames()
        for app in apps:
            app.write(envelope(Hello(VERSION, "flood")) + flood)
        for _ in range(12):
            frames = bench.frames()
            assert all(type(frame) is FromClient for frame in frames)
            assert bench.door.held <= HELD_MAX
        cut = sum(app.is_cut() for app in apps)
        assert 20 < cut < 80  # 120 times 1.07 MB is twice what all may have at once; some of it is handed on meanwhile
        assert bench.runtime.counters["drop.garbage"] == cut


def test_a_long_value_waits_in_few_bytes() -> None:
    """What a client may have waiting is bounded by the message, not by what decoding makes of it."""
    with DoorBench() as bench:
        app = bench.client()
        app.write(envelope(Hello(VERSION, "app"), Request(1, "x" * 60_000, 0, {"value": b"y" * 60_000})))
        frames = [frame for _ in range(5) for frame in bench.frames()]
        assert [type(frame.message) for frame in frames] == [Hello, Request]
        assert bench.door.held == 0
