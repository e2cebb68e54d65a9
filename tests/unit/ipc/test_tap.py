"""The tap bus: nothing while nobody listens, filters in the publisher, numbered messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zmq

from levelip.frames.core import ControlError
from levelip.frames.packet import Segment
from levelip.frames.seam import ForClient
from levelip.ipc.rundir import RunDirectory
from levelip.ipc.runtime import Runtime
from levelip.ipc.tap import Tap
from levelip.rpc.stream import Data
from levelip.tracing.events import Event
from levelip.wire.tcp import TcpHeader
from tests.waiting import until

A, B, C = b"\x0a\0\0\1", b"\x0a\0\0\2", b"\x0a\0\0\3"
SYN, ACK = 2, 16


def segment(src: bytes = A, sport: int = 1000, flags: int = ACK, payload: bytes = b"") -> Segment:
    head = TcpHeader(src_port=sport, dst_port=80, seq=1, ack=2, flags=flags, window=3).serialize()
    return Segment(9, [8], False, 7, 1, src, B, 6, 64, 0, head, payload, 2, 0)


class _Tool:
    """Subscribes as lvlip does."""

    def __init__(self, tap: Tap, context: zmq.Context[Any], **wants: Any) -> None:
        facts = tap.listen(wants)
        self._tap = tap
        self._socket = context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.connect(facts["endpoint"])
        self._socket.subscribe(facts["topic"])
        until(lambda: tap.confirm({"topic": facts["topic"]})["listening"], "the subscription is there")

    def take(self, count: int) -> list[list[Any]]:
        self._tap.flush()
        out: list[list[Any]] = []
        while len(out) < count and self._socket.poll(60_000):
            out += msgspec.msgpack.decode(self._socket.recv_multipart()[1])
        assert not self._socket.poll(30)
        return out

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def tap(runtime: Callable[..., Runtime], run: RunDirectory) -> Iterator[Tap]:
    made_by = runtime("tcp")
    made = Tap(made_by.context, f"ipc://{run.tap('tcp')}", "tcp", made_by.memory)
    yield made
    made.close()


@pytest.fixture
def tool(tap: Tap) -> Iterator[Callable[..., _Tool]]:
    context = zmq.Context()
    made: list[_Tool] = []

    def make(**wants: Any) -> _Tool:
        made.append(_Tool(tap, context, **wants))
        return made[-1]

    yield make
    for one in made:
        one.close()
    context.term()


def test_nobody_listens_until_a_subscription_is_confirmed(tap: Tap, tool: Callable[..., _Tool]) -> None:
    """`frames` and `interest` follow who listens, and go off when the last tool leaves."""
    tap.listen({})
    assert not tap.frames
    assert not tap.interest
    events_only = tool(frames=False)
    assert tap.interest
    assert not tap.frames
    events_only.close()
    until(lambda: (tap.subscriptions(), not tap.interest)[1], "its subscription is gone")


def test_a_frame_and_an_event_arrive_as_documented(tap: Tap, tool: Callable[..., _Tool]) -> None:
    """[number, "f", process, seam, direction, stack ns, monotonic ns, id, causes, type, fields, head, payload, ...]."""
    listener = tool(detail="first128")
    frame = segment(payload=b"p" * 200)
    tap.publish_frames("ip-tcp", "in", [frame], 123)
    tap.publish_events([Event(5, "drop", "garbage", 9, "c", {"x": 1})])
    first, second = listener.take(2)
    assert first[:6] == [1, "f", "tcp", "ip-tcp", "in", 123]
    assert first[7:10] == [9, [8], "Segment"]
    assert first[10]["src"] == A
    assert first[11:] == [frame.head, b"p" * 128, 200, 2, 0]
    assert second[:3] == [2, "e", "tcp"]
    assert second[4] == [5, "drop", "garbage", 9, "c", {"x": 1}]


@pytest.mark.parametrize(
    ("wants", "count"),
    [({}, 4), ({"host": A}, 3), ({"host": C}, 1), ({"host": B}, 4), ({"port": 80}, 4), ({"port": 2000}, 1),
     ({"proto": 6}, 4), ({"proto": 17}, 0), ({"flags": "S"}, 2), ({"flags": "S."}, 1), ({"host": A, "flags": "F"}, 0)],
)  # fmt: skip
def test_filters(tap: Tap, tool: Callable[..., _Tool], wants: dict[str, Any], count: int) -> None:
    """Host, port, protocol and flags, all of which must fit."""
    listener = tool(filter=wants)
    frames = [segment(), segment(src=C), segment(sport=2000, flags=SYN), segment(flags=SYN | ACK)]
    tap.publish_frames("ip-tcp", "in", frames, 0)
    assert len(listener.take(count)) == count


def test_messages_pass_a_filter_if_they_are_wanted(tap: Tap, tool: Callable[..., _Tool]) -> None:
    """Those between tcp, gateway and client have no address or port to look at: all or none."""
    without, with_them = tool(filter={"port": 80}), tool(filter={"port": 2000, "messages": True})
    tap.publish_frames("ip-tcp", "in", [segment()], 0)
    tap.publish_frames("tcp-gateway", "out", [Data(5, 0, b"abc")], 0)
    assert [record[9] for record in without.take(1)] == ["Segment"]
    assert [record[9] for record in with_them.take(1)] == ["Data"]


def test_only_the_seams_that_were_asked_for(tap: Tap, tool: Callable[..., _Tool]) -> None:
    """A listener of one seam hears nothing of the others."""
    listener = tool(seams=["ip-tcp"])
    tap.publish_frames("tcp-gateway", "in", [segment()], 0)
    tap.publish_frames("ip-tcp", "out", [segment()], 0)
    assert [record[3:5] for record in listener.take(1)] == [["ip-tcp", "out"]]


def test_a_message_for_a_client_shows_what_it_holds(tap: Tap, tool: Callable[..., _Tool]) -> None:
    """The wrapped message's kind and fields, and the peer."""
    listener = tool(detail="full")
    tap.publish_frames("gateway-client", "out", [ForClient(b"peer", Data(3, 10, b"abc"))], 0)
    (record,) = listener.take(1)
    assert record[9] == "Data"
    assert record[10] == {"sock": 3, "offset": 10, "peer": b"peer"}
    assert record[12] == b"abc"


@pytest.mark.parametrize("args", [{"detail": "all"}, {"nonsense": 1}, {"filter": {"host": 5}}])
def test_wrong_wishes_are_refused(tap: Tap, args: dict[str, Any]) -> None:
    """A misspelt or mistyped wish is an error, not silence."""
    with pytest.raises(ControlError, match=r"tap\.listen"):
        tap.listen(args)
    with pytest.raises(ControlError, match="no such topic"):
        tap.confirm({"topic": b"t99/"})
