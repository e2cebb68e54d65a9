"""A link core as the tests meet it: 10.0.0.2 on a tap in virtual time, with neighbours that speak ARP."""

from __future__ import annotations

import random
from typing import Any

from layers.link.config import LinkCoreConfig
from layers.link.core import LinkCore
from levelip.config import LinkConfig
from levelip.frames.packet import Checksum, DeviceFrame, DeviceState, LinkState, Packet, Unreachable
from levelip.frames.seam import NeighbourUp
from levelip.rpc.place import Payload
from levelip.tracing.reasons import Reason
from levelip.wire.addr import LIMITED_BROADCAST, MAC_BROADCAST
from levelip.wire.arp import REPLY, ArpPacket
from levelip.wire.ethernet import EthernetHeader, EtherType
from levelip.wire.ipv4 import Ipv4Header, Proto
from levelip.wire.tcp import ACK, pack_tcp

MS = 1_000_000
SECOND = 1000 * MS
START = 1_000 * SECOND

US = bytes((10, 0, 0, 2))
A = bytes((10, 0, 0, 1))
B = bytes((10, 0, 0, 3))
NET_BROADCAST = bytes((10, 0, 0, 255))
OUR_MAC = bytes.fromhex("020000000002")
A_MAC = bytes.fromhex("020000000001")
B_MAC = bytes.fromhex("020000000003")

TAP = DeviceState("lvl0", "tap", True, True, 1500, True, 65535)
TUN = DeviceState("lvl0", "tun", False, True, 1500, True, 65535)


def config(device: DeviceState = TAP, **link: int) -> LinkCoreConfig:
    return LinkCoreConfig(
        epoch=7,
        device=device,
        link=LinkConfig(**link),
        mac=OUR_MAC if device.ethernet else b"",
        addresses=[US],
        broadcasts=[LIMITED_BROADCAST, NET_BROADCAST],
    )


def segment(
    src: bytes, dst: bytes, payload: bytes = b"", *, flags: int = ACK, length: int | None = None, ident: int = 1
) -> bytes:
    """An IPv4 TCP packet, TCP checksum 0; `length` of payload in the header if not that of `payload`."""
    tcp = pack_tcp(1000, 2000, seq=1, ack=1, flags=flags, window=1000)
    size = len(tcp) + (len(payload) if length is None else length)
    return (
        Ipv4Header.build(src, dst, proto=Proto.TCP, payload_length=size, ident=ident).serialize(fill_checksum=True)
        + tcp
        + payload
    )


def whole(frame: Packet | DeviceFrame) -> bytes:
    """The bytes of a frame that has none in shared memory."""
    assert isinstance(frame.payload, bytes)
    return frame.head + frame.payload


class Host:
    """The core under test; `now` is its clock, `rng` its random numbers."""

    def __init__(self, device: DeviceState = TAP, *, announced: bool = True, **link: int) -> None:
        self.config = config(device, **link)
        self.now = START
        self.rng = random.Random(1)
        self.core = LinkCore(self.config, self.rng, self.now)
        self.core.interest = True
        self.ids = 100
        if announced:
            self.pass_time(10 * SECOND)
            self.out()
            self.core.events()

    # in

    def frame(self, data: bytes, payload: Payload = b"", *, vnet: bytes = b"", traced: bool = False) -> int:
        """A frame from the device; its id."""
        self.ids += 1
        self.core.receive(DeviceFrame(self.ids, [], data, payload, vnet, traced), self.now)
        return self.ids

    def ethernet(self, data: bytes, *, dst: bytes = OUR_MAC, src: bytes = A_MAC, kind: int = EtherType.IPV4) -> int:
        return self.frame(EthernetHeader(dst, src, kind).serialize() + data)

    def arp(self, packet: ArpPacket, *, dst: bytes = MAC_BROADCAST) -> int:
        return self.ethernet(packet.serialize(), dst=dst, src=packet.sha, kind=EtherType.ARP)

    def send(
        self, head: bytes, payload: Payload = b"", *, hop: bytes = A, checksum: int = Checksum.NONE, gso_size: int = 0
    ) -> int:
        """A packet from ip; its id."""
        self.ids += 1
        self.core.receive(
            Packet(self.ids, [], False, self.now, 1, head, payload, int(checksum), gso_size, hop), self.now
        )
        return self.ids

    def ip_up(self) -> None:
        self.core.receive(NeighbourUp("ip", 5), self.now)

    def learn(self, address: bytes = A, mac: bytes = A_MAC) -> None:
        """The neighbour asks for us, and so is known, but not trusted."""
        self.arp(ArpPacket.request(sha=mac, spa=address, tpa=US))
        self.out()
        self.core.events()

    def confirm(self, address: bytes = A, mac: bytes = A_MAC) -> None:
        """We ask for the neighbour, and it answers: it is reachable."""
        self.send(segment(US, address), hop=address)
        self.arp(ArpPacket(REPLY, mac, address, OUR_MAC, US), dst=OUR_MAC)
        self.out()
        self.core.events()
        assert self.state(address) == "reachable"

    # time

    def pass_time(self, ns: int) -> None:
        """Let time pass, timers firing when they are due."""
        end = self.now + ns
        while (due := self.core.next_timer()) is not None and due <= end:
            assert due >= self.now, "a timer in the past"
            self.now = due
            self.core.handle_timer(due)
        self.now = end

    # out

    def out(self, **room: int) -> list[Any]:
        return [frame for _, frame in self.core.outgoing(room)]

    def up(self) -> list[Packet]:
        """Packets for ip; nothing else may have come."""
        frames = self.core.outgoing({})
        assert all(port == "ip" and type(frame) is Packet for port, frame in frames), frames
        return [frame for _, frame in frames]

    def down(self) -> list[bytes]:
        """Frames for the device, whole; nothing else may have come."""
        frames = self.core.outgoing({})
        assert all(port == "device" for port, _ in frames), frames
        return [whole(frame) for _, frame in frames]

    def arp_out(self) -> list[tuple[bytes, ArpPacket]]:
        """(destination MAC, packet) of what goes out, all of it ARP."""
        frames = self.down()
        assert all(frame[12:14] == b"\x08\x06" and frame[6:12] == OUR_MAC for frame in frames), frames
        return [(frame[:6], ArpPacket.parse(frame, 14)) for frame in frames]

    def told(self) -> list[LinkState | Unreachable]:
        """News for ip that is no packet."""
        return [frame for frame in self.out() if isinstance(frame, LinkState | Unreachable)]

    def drops(self) -> list[tuple[str, int]]:
        """(reason, frame id) of the drop events since the last look, which the counters must bear out."""
        return [(event.reason, event.frame) for event in self.core.events() if event.kind == "drop"]

    def assert_dropped(self, reason: Reason, frame: int) -> None:
        """Exactly that frame was dropped, for that reason, once, and nothing went anywhere."""
        assert self.drops() == [(reason.name, frame)]
        assert self.core.counters[reason.counter] == 1
        assert self.out() == []

    def state(self, address: bytes = A) -> str:
        """How `lvlip neigh` shows a neighbour."""
        rows = self.core.control(1, "neigh", {}, self.now)["neighbours"]
        found = [row["state"] for row in rows if row["address"] == ".".join(map(str, address))]
        return found[0] if found else ""
