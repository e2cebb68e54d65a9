"""The fuzz target of the gateway's door: connections that send what they like, in whatever pieces, and come and go."""

from __future__ import annotations

from typing import Any

from gateway.door import HELD_MAX, PAUSE, SLICE
from gateway.zmtp import COMMAND_MAX, Busy, Overlong, Parser, Violation
from levelip.frames.seam import ForClient, ForgetClient, FromClient, Probe
from levelip.rpc.messages import VERSION, Hello, Reply, Request
from levelip.rpc.stream import Consumed, Data, Eof, Reset, Send
from tests.fuzz.reader import Reader
from tests.unit.gateway.door_bench import EPOCH, GREETING, OURS, READY, App, DoorBench, envelope, message

OPERATIONS = 60
CONNECTIONS = 4
ANSWER_MOST = 300_000  # bytes that one answer adds at most to what a client has yet to read
BOUNDS = {"max_part": 300, "max_parts": 4, "max_bytes": 600, "max_skipped": 3000}
PING = b"\x04\x07\x04PING\x00\x00"
MORE = (b"", b"x", b"x" * 300, b"x" * 70_000)


def door(data: bytes) -> None:
    """Greetings, commands, parts, envelopes, right and wrong; answers that are read or not; ends at any byte."""
    _parsed_alike(data)
    reader = Reader(data)
    with DoorBench() as bench:
        peers: list[bytes] = []
        apps: list[App | None] = [None] * CONNECTIONS
        for _ in range(OPERATIONS):
            if not reader:
                break
            index = reader.below(CONNECTIONS)
            app = apps[index]
            if app is None:
                apps[index] = bench.client(greet=bool(reader.below(4)))
            elif reader.below(16) == 0:
                app.socket.close()
                apps[index] = None
            elif reader.below(4) == 0:
                app.read()
            else:
                app.write(_wire(reader))
            frames = bench.frames(SLICE)
            peers += [frame.peer for frame in frames if type(frame) is FromClient]
            if peers and reader.below(4) == 0:
                bench.door.send([_answer(reader, peers[-1 - reader.below(min(len(peers), 4))])], 0)
            assert bench.door.held <= HELD_MAX
            assert bench.door.unread <= CONNECTIONS * (PAUSE + ANSWER_MOST)
        for app in apps:
            if app is not None:
                app.socket.close()
        for _ in range(200):
            bench.frames()
        assert bench.door.held == bench.door.unread == 0, "something of clients that are gone stays"
        assert not bench.door.connections


def _wire(reader: Reader) -> bytes:
    """What a client sends next."""
    match reader.below(9):
        case 0:
            return reader.piece()
        case 1:
            return bytes((reader.below(8),)) + reader.bytes(1 + 7 * reader.below(2)) + reader.piece()
        case 2:
            return message(*[reader.piece(40) for _ in range(1 + reader.below(4))])
        case 3:
            return PING * (1 + reader.number())
        case 4:
            part = MORE[reader.below(len(MORE))]
            return (b"\x03" + len(part).to_bytes(8, "big") + part) * (1 + reader.number() * (len(part) < 1000))
        case 5:
            return (GREETING, READY, GREETING + READY, envelope())[reader.below(4)]
        case 6:
            memory = "" if reader.below(2) else "f" * reader.below(40)
            return envelope(Hello(VERSION + (not reader.below(8)), "fuzz", reader.piece(16), memory), to=0)
        case 7:
            sent = [_message(reader) for _ in range(reader.below(8))]
            return envelope(*sent, epoch=OURS + reader.below(2), to=EPOCH + (not reader.below(8)))
        case _:
            whole = envelope(*[_message(reader)] * (1 + reader.number(2) % 5000))
            return whole[: len(whole) - reader.below(3)]


def _message(reader: Reader) -> Any:
    sock = EPOCH << 32 | reader.below(4)
    match reader.below(4):
        case 0:
            return Request(reader.number(), "socket", sock, {"value": reader.piece(20), "option": reader.number(4)})
        case 1:
            return Send(sock, reader.number(2), reader.number(), bytes(reader.number() << 4))
        case 2:
            return Consumed(sock, reader.number(2))
        case _:
            return (Eof, Reset)[reader.below(2)](sock, reader.number())


def _answer(reader: Reader, peer: bytes) -> Any:
    match reader.below(4):
        case 0:
            return Probe(peer)
        case 1:
            return ForgetClient(peer)
        case 2:
            return ForClient(peer, Data(1, 0, bytes(reader.number(2))))
        case _:
            return ForClient(peer, Reply(reader.number(), 0))


def _parsed_alike(data: bytes) -> None:
    """The same bytes give the same messages, or the same refusal, whole and byte by byte; what is kept is bounded."""
    found = []
    most = BOUNDS["max_bytes"] + 64 * BOUNDS["max_parts"] + COMMAND_MAX + 9
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        parser = Parser(**BOUNDS)
        items: list[Any] = []
        try:
            for piece in (GREETING + READY, *pieces):
                parser.feed(piece)
                while (item := parser.take(budget=3)) is not None:
                    if type(item) is not Busy:
                        items.append((type(item), None if type(item) is Overlong else item))
                assert parser.held <= len(piece) + most
        except Violation as error:
            items.append((Violation, str(error)))
        found.append(items)
    assert found[0] == found[1]
