"""Journeys of datagrams: from ip through udp and the gateway to the client, and down again, by the real cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from levelip.debug.collection import Collection
from levelip.debug.journeys import Journey, Journeys, journey, journey_lines, journeys, paths
from levelip.debug.recorded import _seam as seam_in_recording
from levelip.debug.tap import Record
from levelip.debug.traces import read_trace
from levelip.debug.why import story_lines, why
from levelip.frames.packet import Checksum, FrameIds, Packet, Process
from levelip.frames.seam import ForClient, FromClient, NeighbourDown, NeighbourUp
from levelip.ipc.tap import frame_record
from levelip.rpc.messages import Hello, Reply, Request, SendDatagram, TookDatagrams
from levelip.wire.checksum import internet_checksum
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.udp import UdpHeader
from simulation.host import Host
from tests.unit.debug.test_journeys import write

US, PEER = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 1))
GROUP = bytes((239, 1, 2, 3))
CLIENT = b"client"
PORT = 5000
_SEAMS = {
    ("ip", "link"): "link-ip", ("ip", "udp"): "ip-udp", ("udp", "ip"): "ip-udp", ("udp", "gateway"): "udp-gateway",
    ("gateway", "udp"): "udp-gateway", ("gateway", "client"): "gateway-client",
}  # fmt: skip


class Watched:
    """A host whose taps are told of; each record is 100 ns after the one before."""

    def __init__(self) -> None:
        self.host = Host(address="10.0.0.2/24", gateway="10.0.0.1")
        self.records: list[Record] = []
        self.told: list[Any] = []
        self._mono = 0
        self._ids = FrameIds(Process.LINK, 1)
        self._number = 0
        for process, port in _SEAMS:
            self._watch(process, port)
        self.say(Hello(1, b"", "test"))

    def _watch(self, process: str, port: str) -> None:
        host, seam = self.host, _SEAMS[process, port]
        core = host.cores.get(port)

        def carry(frame: Any, now: int) -> None:
            self.record(process, seam, "out", frame)
            if core is None:
                self.told.append(frame)
                return
            self.record(port, seam, "in", frame)
            core.receive(frame, now)

        host.node.wire(process, port, carry)

    def record(self, process: str, seam: str, direction: str, frame: Any) -> None:
        self._mono += 100
        payload = getattr(getattr(frame, "message", frame), "payload", b"")
        record = frame_record(process, seam, direction, self.host.now, self._mono, frame, bytes(payload[:128]))
        self.records.append(msgspec.msgpack.decode(msgspec.msgpack.encode(record)))

    def settle(self) -> None:
        self.host.flush()
        for process, event in self.host.events():
            self._mono += 1
            plain = msgspec.to_builtins(event, builtin_types=(bytes,))
            self.records.append([0, "e", process, self._mono, plain])

    def say(self, *messages: Any) -> None:
        """Messages of the client, in one round."""
        for message in messages:
            frame = FromClient(CLIENT, 0, 1, message)
            self.record("gateway", "gateway-client", "in", frame)
            self.host.gateway.receive(frame, self.host.now)
        self.settle()

    def call(self, op: str, sock: int = 0, **args: Any) -> Any:
        self._number += 1
        self.say(Request(self._number, op, sock, args))
        said = [frame.message for frame in self.told if isinstance(frame, ForClient)]
        reply = next(message for message in reversed(said) if isinstance(message, Reply))
        assert reply.errno == 0, reply
        return reply.data

    def socket(self, port: int = PORT) -> int:
        sock: int = self.call("socket", family=2, type=2)["sock"]
        self.call("bind", sock, address=bytes(4), port=port)
        return sock

    def arrive(self, data: bytes, *, port: int = PORT, dst: bytes = US) -> int:
        """A datagram from link; its id."""
        body = UdpHeader(53, port, 8 + len(data)).serialize() + data
        head = Ipv4Header.build(PEER, dst, proto=17, payload_length=len(body)).serialize()
        head = head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:]
        packet = Packet(self._ids.next(), [], False, self.host.now, 1, head + body, b"", int(Checksum.UNVERIFIED), 0)
        self.record("link", "link-ip", "out", packet)
        self.record("ip", "link-ip", "in", packet)
        self.host.ip.receive(packet, self.host.now)
        self.settle()
        return packet.id

    def journey(self, id_: int) -> Journey:
        return journey(Collection(self.records), id_)

    def lines(self, id_: int) -> str:
        collection = Collection(self.records)
        return "\n".join(journey_lines(collection, journey(collection, id_)))

    def down(self) -> list[Journey]:
        return [one for one in journeys(self.records) if not one.up]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_one_that_is_under_way_is_waited_for(watched: Watched) -> None:
    """On a slow machine the second half of a datagram's records may come long after the first: it is told of once, and
    whole, and what came after it not before; after 3 s it is told of as far as it came."""
    watched.socket()
    seen = len(watched.records)
    first, second = watched.arrive(b"one"), watched.arrive(b"two")
    records = watched.records[seen:]
    halfway = next(at for at, record in enumerate(records) if record[1] == "f" and record[3] == "ip-udp") + 1
    start, second_of_time = records[0][6], 1_000_000_000

    def told(stream: Journeys, until: int) -> list[tuple[int, str]]:
        return [(one.ids[0], one.path) for one in stream.ready(until)]

    whole = "link ↑ ip ↑ udp ↑ gateway ↑ client"
    stream, late = Journeys(Collection(), whole=True), Journeys(Collection(), whole=True)
    for record in records[:halfway]:
        stream.add(record)
        late.add(record)
    assert told(stream, start + 2 * second_of_time) == []
    assert told(late, start + 4 * second_of_time) == [(first, "link ↑ ip")]
    for record in records[halfway:]:
        stream.add(record)
    assert told(stream, start + 2 * second_of_time) == [(first, whole), (second, whole)]


def test_a_datagram_reaches_the_client(watched: Watched) -> None:
    """With the time in each process and pipe, and the client's word that the application has it."""
    sock = watched.socket()
    first, second = watched.arrive(b"one"), watched.arrive(b"two!")
    upto = [frame.message.upto for frame in watched.told[-2:]]
    watched.say(TookDatagrams(sock, upto[1]))
    for id_ in (first, second):
        one = watched.journey(id_)
        assert one.path == "link ↑ ip ↑ udp ↑ gateway ↑ client"
        assert [hop.stay is not None and hop.stay > 0 for hop in one.hops] == [False, True, True, True, False]
        assert [seam for seam, _ in one.pipes] == ["link-ip", "ip-udp", "udp-gateway", "gateway-client"]
        assert [took for _, took in one.pipes] == [100, 100, 100, None]
        assert one.outcome == "taken" and one.first.id == id_
        assert one.hops[3].gone is not None and one.hops[3].gone.record[12] == (b"one" if id_ == first else b"two!")
        assert one.taken is not None and one.taken.type == "TookDatagrams"  # the later one tells of both
    assert "says that it was read" in watched.lines(first)


def test_a_datagram_of_the_application_leaves(watched: Watched) -> None:
    """Each with the message that it was, though several of one round look alike but for their bytes' number."""
    sock = watched.socket()
    watched.say(*(SendDatagram(sock, PEER, 53, b"x" * size) for size in (3, 5, 3)))
    found = watched.down()
    assert [one.path for one in found] == ["client ↓ gateway ↓ udp ↓ ip"] * 3
    assert [one.start.length for one in found] == [3, 5, 3]
    assert len({one.start.mono for one in found}) == 3
    assert all(one.start.type == "SendDatagram" and one.began == "sendto() of the application" for one in found)
    assert all(one.first.seam == "ip-udp" and one.first.dport == 53 for one in found)
    (group,) = paths(iter(found))
    assert (group.what, group.count) == ("UDP", 3)
    assert {"gateway", "udp", "udp-gateway", "ip-udp"} <= set(group.parts)


def test_those_that_the_gateway_refuses_shift_nobody(watched: Watched) -> None:
    """While udp is away nothing goes on; what is sent then is not taken for what is sent later."""
    sock = watched.socket()
    watched.host.gateway.receive(NeighbourDown("udp"), watched.host.now)
    watched.say(SendDatagram(sock, PEER, 53, b"lost"))
    watched.host.gateway.receive(NeighbourUp("udp", 1), watched.host.now)
    watched.settle()
    since = len(watched.records)
    watched.say(SendDatagram(sock, PEER, 53, b"sent"))
    (one,) = watched.down()
    assert one.start.mono == watched.records[since][6]
    assert one.hops[1].stay is not None and one.hops[1].stay < 1000


def test_who_refused_it_and_why(watched: Watched) -> None:
    """A closed port: dropped in udp with its reason, and the ICMP error that it led to, by way of Refused."""
    id_ = watched.arrive(b"nobody", port=9)
    one = watched.journey(id_)
    assert one.path == "link ↑ ip ↑ udp"
    assert one.outcome == "dropped in udp: udp_no_port"
    assert [fact.icmp.name for how, fact in one.led_to if how == "answer" and fact.icmp] == ["port unreachable"]


def test_what_udp_refuses_is_no_packet(watched: Watched) -> None:
    """sendto() to a broadcast address without SO_BROADCAST: nothing travels, `why` of the call's frame says what."""
    sock = watched.socket()
    watched.say(SendDatagram(sock, b"\xff" * 4, 9, b"not allowed"))
    assert not watched.down()
    call = next(record for record in watched.records if record[9:10] == ["SendTo"])
    one = watched.journey(call[7])
    assert one.path == "client ↓ gateway ↓ udp" and one.outcome == "last seen in udp"
    assert "a datagram to 255.255.255.255:9 is refused: EACCES" in watched.lines(call[7])


def test_one_datagram_for_two_sockets(watched: Watched) -> None:
    """Of a group: the way of the first, and that there was another."""
    for _ in range(2):
        sock = watched.call("socket", family=2, type=2)["sock"]
        watched.call("setsockopt", sock, level=1, option=2, value=1)  # SO_REUSEADDR
        watched.call("bind", sock, address=bytes(4), port=PORT)
        watched.call("setsockopt", sock, level=0, option=35, value=GROUP + bytes(4))  # IP_ADD_MEMBERSHIP
    id_ = watched.arrive(b"all", dst=GROUP)
    assert watched.journey(id_).path == "link ↑ ip ↑ udp ↑ gateway ↑ client"
    assert "and to 1 more socket\n" in watched.lines(id_)


def test_a_trace_read_back_tells_the_same(watched: Watched, tmp_path: Path) -> None:
    """`lvlip trace --json` keeps what binds datagrams to messages."""
    sock = watched.socket()
    watched.arrive(b"question")
    watched.say(SendDatagram(sock, PEER, 53, b"answer"))
    back = list(journeys(read_trace(write(tmp_path / "t.jsonl", watched.records))))
    assert [one.path for one in back] == [one.path for one in journeys(watched.records)]
    assert {one.path for one in back} == {"link ↑ ip ↑ udp ↑ gateway ↑ client", "client ↓ gateway ↓ udp ↓ ip"}


def test_why_of_a_datagram_is_its_journey(watched: Watched) -> None:
    """By the id of any of its frames."""
    watched.socket()
    id_ = watched.arrive(b"one")
    (story,) = why(Collection(watched.records), watched.journey(id_).hops[2].gone.name)  # type: ignore[union-attr]
    assert any("Datagram" in line or "udp-gateway" in line for line in story_lines(story))


def test_recordings_tell_of_udp_at_its_own_seams(watched: Watched) -> None:
    """The seam that a recording gives each frame is the one at which it passed."""
    sock = watched.socket()
    seen = set()

    def look(process: str, seam: str, direction: str, frame: Any) -> None:
        kind = type(frame).__name__
        if kind in ("Packet", "Segment", "Datagram", "SendTo", "FromClient", "ForClient"):
            assert seam_in_recording(process, frame, messages=True) == seam, (process, kind)
            seen.add((process, direction, kind))

    watched.record = look  # type: ignore[method-assign]
    watched.arrive(b"question")
    watched.say(SendDatagram(sock, PEER, 53, b"answer"))
    assert ("udp", "in", "SendTo") in seen and ("gateway", "in", "Datagram") in seen and ("ip", "in", "Segment") in seen
