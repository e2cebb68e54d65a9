"""The link layer as a calculator: frames of the device to IP packets and back, ARP between.

In:  port "device": DeviceFrame, DeviceState; port "ip": Packet, Local, Confirmed, NeighbourUp, NeighbourDown.
Out: ("device", DeviceFrame), ("ip", Packet | LinkState | Unreachable).

Upward the link header goes, and padding behind the IP packet with it; whether the packet is any good is for ip to
judge. Downward the transport checksum and the cutting of super-packets are always left to the device by a virtio
header; a device that cannot do it is helped by its port (offload.py). Payloads in shared memory are passed on unread.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec

from layers.link.arp import ArpCache, Ask, Changed, GiveUp, Neighbour, Overflow, Step, Transmit
from layers.link.claim import Claim
from layers.link.config import TUNABLES, LinkCoreConfig
from layers.link.offload import Unfit, pieces, prepare, received
from levelip.config import LinkConfig
from levelip.frames.core import ControlError, Output, Room, load_rng, save_rng
from levelip.frames.packet import (
    BROADCAST,
    Checksum,
    Confirmed,
    DeviceFrame,
    DeviceState,
    FrameIds,
    LinkState,
    Local,
    Packet,
    Process,
    Unreachable,
)
from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.rpc.place import Payload, cut
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.wire.addr import (
    LIMITED_BROADCAST,
    MAC_BROADCAST,
    MAC_ZERO,
    format_ipv4,
    format_mac,
    is_loopback,
    is_multicast,
    is_multicast_mac,
    is_unspecified,
    parse_ipv4,
)
from levelip.wire.arp import REPLY, REQUEST, ArpPacket
from levelip.wire.errors import Malformed
from levelip.wire.ethernet import EthernetHeader, EtherType, ethertype_name

SNAPSHOT_VERSION = 3
UNLIMITED = 1 << 62

_ETHERNET_LEN = 14
_IP_LEN = 20
_TYPE_IPV4 = EtherType.IPV4.to_bytes(2, "big")
_TYPE_ARP = EtherType.ARP.to_bytes(2, "big")
_TYPES_VLAN = (EtherType.VLAN.to_bytes(2, "big"), EtherType.QINQ.to_bytes(2, "big"))
_MULTICAST_PREFIX = b"\x01\x00\x5e"  # RFC 1112 6.4
_VERIFIED, _UNVERIFIED, _PARTIAL = int(Checksum.VERIFIED), int(Checksum.UNVERIFIED), int(Checksum.PARTIAL)
_QUOTE = 8  # bytes of the transport header that an ICMP error names (RFC 792)


class _Saved(msgspec.Struct):
    """Everything that changes in a core, as a snapshot holds it."""

    version: int
    now: int
    link: LinkConfig
    device: DeviceState
    ids: FrameIds
    neighbours: list[Neighbour]
    ip_up: bool
    claim: Claim
    added: dict[bytes, Claim]
    up: list[Packet | LinkState | Unreachable]
    down: list[DeviceFrame]
    counters: dict[str, int]
    rng: list[Any]
    addresses: list[bytes]
    broadcasts: list[bytes]
    groups: list[bytes] | None


class LinkCore:
    """See the module's text; the verbs are those of levelip.frames.core.Core."""

    def __init__(self, config: LinkCoreConfig, rng: random.Random, now: int) -> None:
        if config.device.ethernet and len(config.mac) != 6:
            raise ValueError("an Ethernet device needs a MAC address of 6 bytes")
        self.interest = False
        self.counters: dict[str, int] = defaultdict(int)
        self._config = config
        self._rng = rng
        self._now = now
        self._link = msgspec.structs.replace(config.link)
        self._ids = FrameIds(Process.LINK, config.epoch)
        self._device = config.device
        self._mac = config.mac
        self._addresses = set(config.addresses)
        self._broadcasts = {LIMITED_BROADCAST, *config.broadcasts}
        self._groups: list[bytes] | None = None  # joined; None: ip has not told, so all pass
        self._group_macs: set[bytes] = set()
        self._ethernet = config.device.ethernet
        self._link_len = _ETHERNET_LEN if self._ethernet else 0
        self._from_ipv4 = config.mac + _TYPE_IPV4  # the rest of an Ethernet header, behind the destination
        self._arp = ArpCache(self._link, rng)
        self._ip_up = False
        self._claim = Claim()
        self._added: dict[bytes, Claim] = {}  # addresses that came while the device was up, until all is said of them
        self._unclaimed: frozenset[bytes] = frozenset()  # those of them that are not ours yet
        self._usable = False  # the device is up, and our addresses are ours
        self._up: Output = []
        self._down: Output = []
        self._events: list[Event] = []
        self._handlers: dict[type, Any] = {
            DeviceFrame: self._from_ethernet if self._ethernet else self._from_raw,
            Packet: self._from_ip,
            Local: self._local,
            Confirmed: self._confirmed,
            DeviceState: self._device_state,
            NeighbourUp: self._neighbour_up,
            NeighbourDown: self._neighbour_down,
        }
        if self._device.up:
            self._start_claim(now)

    # the verbs

    def receive(self, frame: Any, now: int) -> None:
        """Take one frame of either port."""
        self._now = now
        handler = self._handlers.get(type(frame))
        if handler is None:
            raise TypeError(f"{type(frame).__name__} is no frame for link")
        handler(frame, now)

    def handle_timer(self, now: int) -> None:
        """Announce, ask again, give up."""
        self._now = now
        due = self._claim.next_timer()
        if due is not None and due <= now:
            self._claim_step(now)
        for address, claim in sorted(self._added.items()):
            due = claim.next_timer()
            if due is not None and due <= now:
                self._added_step(address, claim, now)
        self._do(self._arp.handle_timer(now), now)

    def next_timer(self) -> int | None:
        """The earliest of the claims' and the cache's deadlines, ns of stack time."""
        deadline, claim = self._arp.next_timer(), self._claim.next_timer()
        if self._added:
            dues = [due for added in self._added.values() if (due := added.next_timer()) is not None]
            claim = min([*dues, *([] if claim is None else [claim])], default=None)
        if claim is None or deadline is None:
            return claim if deadline is None else deadline
        return min(deadline, claim)

    def outgoing(self, room: Room) -> Output:
        """Take what fits. Packets that ip has no room for are dropped: their slots in the pool cannot wait."""
        if not self._up and not self._down:
            return []
        out = self._take_up(room.get("ip", UNLIMITED)) if self._up else []
        if down := self._down:
            limit = room.get("device", UNLIMITED)
            if len(down) <= limit:
                out += down
                self._down = []
            else:
                out += down[:limit]
                rest = down[limit:]
                keep = self._link.device_queue
                for _, frame in rest[keep:]:  # the newest go, as from Linux's pfifo
                    self._drop(reasons.DEVICE_QUEUE, frame.id)
                self._down = rest[:keep]
        return out

    def _take_up(self, limit: int) -> Output:
        up, self._up = self._up, []
        if len(up) <= limit:
            return up
        out, late = up[:limit], up[limit:]
        news: Output = []
        for item in late:
            if type(item[1]) is Packet:
                self._drop(reasons.PIPE_FULL, item[1].id)
            else:
                news.append(item)
        self._up = news[-self._link.device_queue :]
        return out

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        events, self._events = self._events, []
        return events

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data. Events are not part of it: they tell of the past."""
        saved = _Saved(
            SNAPSHOT_VERSION,
            self._now,
            self._link,
            self._device,
            self._ids,
            self._arp.entries,
            self._ip_up,
            self._claim,
            self._added,
            [frame for _, frame in self._up],
            [frame for _, frame in self._down],
            dict(sorted(self.counters.items())),
            save_rng(self._rng),
            sorted(self._addresses),
            sorted(self._broadcasts),
            self._groups,
        )
        plain: dict[str, Any] = msgspec.to_builtins(saved, builtin_types=(bytes,))
        return plain

    @classmethod
    def restore(cls, config: LinkCoreConfig, data: dict[str, Any]) -> LinkCore:
        """The core that `snapshot` was taken of. ValueError for data of another version."""
        saved = msgspec.convert(data, _Saved)
        if saved.version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot of version {saved.version}, not {SNAPSHOT_VERSION}")
        rng = random.Random()
        core = cls(config, rng, saved.now)
        load_rng(rng, saved.rng)  # after the start, which draws from it
        core._link = saved.link
        core._device = saved.device
        core._ids = saved.ids
        core._arp = ArpCache(saved.link, rng, saved.neighbours)
        core._ip_up = saved.ip_up
        core._claim = saved.claim
        core._added = saved.added
        core._see_usable()
        core._up = [("ip", frame) for frame in saved.up]
        core._down = [("device", frame) for frame in saved.down]
        core.counters = defaultdict(int, saved.counters)
        core._addresses, core._broadcasts = set(saved.addresses), set(saved.broadcasts)
        if saved.groups is not None:
            core._use_groups(saved.groups)
        return core

    # from the device

    def _from_ethernet(self, frame: DeviceFrame, now: int) -> None:
        """One Ethernet frame (RFC 894)."""
        head = frame.head
        payload = frame.payload
        if payload and type(payload) is bytes:
            head, payload = head + payload, b""
        counters = self.counters
        counters["rx_frames"] += 1
        if len(head) < _ETHERNET_LEN:
            self._drop(reasons.RUNT, frame.id, detail=f"{len(head)} bytes")
            return
        flags = 0
        if head[:6] != self._mac:
            if not head[0] & 1:
                self._drop(reasons.WRONG_MAC, frame.id, detail=format_mac(head[:6]))
                return
            flags = BROADCAST
        kind = head[12:14]
        if kind == _TYPE_IPV4:
            if flags and self._groups is not None and head[:6] != MAC_BROADCAST and head[:6] not in self._group_macs:
                self._drop(reasons.FOREIGN_GROUP, frame.id, detail=format_mac(head[:6]))  # RFC 1112 7.3
                return
            self._up_ipv4(frame, head[14:], payload, flags, now)
        elif kind == _TYPE_ARP:
            self._from_arp(frame, head, now)
        elif kind in _TYPES_VLAN:
            self._drop(reasons.VLAN_TAG, frame.id)
        else:
            self._drop(reasons.FOREIGN_TYPE, frame.id, detail=ethertype_name(int.from_bytes(kind, "big")))

    def _from_raw(self, frame: DeviceFrame, now: int) -> None:
        """One IP packet of a device without Ethernet."""
        head = frame.head
        payload = frame.payload
        if payload and type(payload) is bytes:
            head, payload = head + payload, b""
        self.counters["rx_frames"] += 1
        if not head:
            self._drop(reasons.RUNT, frame.id, detail="0 bytes")
        elif head[0] >> 4 != 4:
            self._drop(reasons.FOREIGN_TYPE, frame.id, detail=f"IP version {head[0] >> 4}")
        else:
            self._up_ipv4(frame, head, payload, 0, now)

    def _up_ipv4(self, frame: DeviceFrame, head: bytes, payload: Payload, flags: int, now: int) -> None:
        """Hand an IPv4 packet up, without what lies behind it."""
        try:
            known_good, gso_size = received(frame.vnet)
        except Unfit as error:
            self._drop(reasons.BAD_VNET, frame.id, detail=str(error))
            return
        size = len(head) + len(payload)
        if len(head) < _IP_LEN:  # a payload that is not in `head` by now lies in shared memory, behind all headers
            self._drop(reasons.TORN_FRAME, frame.id, detail=f"{len(head)} bytes")
            return
        total = head[2] << 8 | head[3]
        if size != total and head[0] >> 4 == 4:
            if size < total:
                self._drop(reasons.TORN_FRAME, frame.id, detail=f"{size} of {total} bytes")
                return
            if total >= _IP_LEN:  # else nonsense, which ip names
                if payload and total >= len(head):
                    payload = cut(payload, 0, total - len(head))
                else:
                    head, payload = head[:total], b""
                size = total
        counters = self.counters
        counters["rx_bytes"] += size
        counters["rx_packets"] += pieces(head, payload, gso_size) if gso_size else 1
        self._up.append(
            (
                "ip",
                Packet(
                    self._ids.next(),
                    [frame.id],
                    frame.traced,
                    now,
                    self._config.iface,
                    head,
                    payload,
                    _VERIFIED if known_good else _UNVERIFIED,
                    gso_size,
                    b"",
                    flags,
                ),
            )
        )

    # ARP (RFC 826), "Packet Reception", in its order

    def _from_arp(self, frame: DeviceFrame, head: bytes, now: int) -> None:
        self.counters["arp_received"] += 1
        try:
            arp = ArpPacket.parse(head, _ETHERNET_LEN)
        except Malformed as error:
            self._drop(reasons.ARP_MALFORMED, frame.id, detail=error.reason)
            return
        if arp.oper not in (REQUEST, REPLY):  # RFC 826 looks at it last; Linux and we never learn from others
            self._drop(reasons.ARP_BAD_OP, frame.id, detail=str(arp.oper))
            return
        sender, mac = arp.spa, arp.sha
        if mac == self._mac:
            self._drop(reasons.ARP_OWN, frame.id)
            return
        if sender in self._addresses:
            self._conflict(arp, sender, frame.id, now)
            return
        probe = is_unspecified(sender)  # RFC 5227 2.1.1: "may I have it?"; there is nothing to learn from it
        if (
            is_multicast_mac(mac)
            or mac == MAC_ZERO
            or is_multicast(sender)
            or is_loopback(sender)
            or sender in self._broadcasts
            or (probe and arp.oper == REPLY)
        ):
            self._drop(reasons.ARP_BAD_SENDER, frame.id, detail=f"{format_ipv4(sender)} at {format_mac(mac)}")
            return
        ours = arp.tpa in self._addresses
        if not self._usable or arp.tpa in self._unclaimed:
            # nothing is ours yet, or not this address: we neither answer nor learn (RFC 5227 2.1)
            if probe and ours and arp.oper == REQUEST:  # RFC 5227 2.1.1: another host wants the address as well
                self._conflict(arp, arp.tpa, frame.id, now)
            else:
                self._drop(reasons.ARP_NOT_FOR_US, frame.id)
            return
        answer = arp.oper == REPLY and ours and head[:6] == self._mac
        merged = None if probe else self._arp.merge(sender, mac, now, answer=answer)
        if merged is not None:
            self._do(merged, now)
            neighbour = self._arp.find(sender)
            if neighbour is not None and neighbour.mac != mac:
                self._drop(reasons.ARP_CONTRADICTS, frame.id, detail=f"{format_ipv4(sender)} at {format_mac(mac)}")
        elif not ours:
            self._drop(reasons.ARP_NOT_FOR_US, frame.id)
            return
        elif arp.oper == REPLY:
            self._drop(reasons.ARP_UNSOLICITED, frame.id, detail=f"{format_ipv4(sender)} at {format_mac(mac)}")
            return
        elif not probe:
            self._do(self._arp.add(sender, mac, now), now)
        if ours and arp.oper == REQUEST:
            self.counters["arp_replies_sent"] += 1
            self._send_arp(ArpPacket.reply_to(arp, sha=self._mac), mac, [frame.id])

    def _conflict(self, arp: ArpPacket, address: bytes, frame: int, now: int) -> None:
        """Another host has our address (RFC 5227 2.4), or wants it while we only probe for it (2.1.1)."""
        self._drop(reasons.ARP_CONFLICT, frame, detail=f"{format_ipv4(address)} at {format_mac(arp.sha)}")
        claim = self._added.get(address, self._claim)
        old = claim.phase
        defend = claim.contested(self._link, address, now)
        if self.interest:
            data = {"address": format_ipv4(address), "mac": format_mac(arp.sha), "defended": defend}
            self._events.append(Event(now, "conflict", frame=frame, data=data))
        if claim is self._claim:
            self._tell_claim(old, now)
        else:
            self._added_changed(address, claim, old, now)
        if defend:
            self._announce(address, [frame])

    def _start_claim(self, now: int) -> None:
        """The device is up: find out whether our addresses are free, if so configured, and announce them."""
        old = self._claim.phase
        self._added.clear()  # this is for all
        if self._ethernet and self._addresses:
            self._claim.start(self._link, self._rng, now)
        else:
            self._claim.phase = "owned"
        self._see_usable()
        self._claim_event(old, now)

    def _claim_step(self, now: int) -> None:
        old = self._claim.phase
        send = self._claim.step(self._link, self._rng, now)
        for address in sorted(self._addresses - self._added.keys()) if send else ():
            if send == "announce":
                self._announce(address, [])
            else:
                self._probe_for(address)
        self._tell_claim(old, now)

    def _added_step(self, address: bytes, claim: Claim, now: int) -> None:
        """Probe for an address that was added, or announce it (RFC 5227 2.1, 2.3); the others go on meanwhile."""
        old = claim.phase
        send = claim.step(self._link, self._rng, now)
        if send == "announce":
            self._announce(address, [])
        elif send:
            self._probe_for(address)
        self._added_changed(address, claim, old, now)

    def _added_changed(self, address: bytes, claim: Claim, old: str, now: int) -> None:
        if claim.owned and not claim.left:
            del self._added[address]  # all is said: the interface's claim stands for it from here on
        self._see_usable()
        if self.interest and claim.phase != old:
            data = {"old": old, "new": claim.phase, "address": format_ipv4(address)}
            self._events.append(Event(now, "claim", data=data))

    def _probe_for(self, address: bytes) -> None:
        self.counters["arp_probes_sent"] += 1
        self._send_arp(ArpPacket.probe(sha=self._mac, tpa=address), MAC_BROADCAST, [])

    def _tell_claim(self, old: str, now: int) -> None:
        """Tell ip if our addresses became ours or no longer are, and whoever listens if the phase is not `old`."""
        was = self._usable
        self._see_usable()
        self._claim_event(old, now)
        if was != self._usable:
            self._tell_ip()

    def _claim_event(self, old: str, now: int) -> None:
        if self.interest and self._claim.phase != old:
            self._events.append(Event(now, "claim", data={"old": old, "new": self._claim.phase}))

    def _see_usable(self) -> None:
        self._usable = self._device.up and self._claim.owned
        self._unclaimed = frozenset(address for address, claim in self._added.items() if not claim.owned)

    def _announce(self, address: bytes, causes: list[int]) -> None:
        self.counters["arp_announcements_sent"] += 1
        self._send_arp(ArpPacket.announcement(sha=self._mac, spa=address), MAC_BROADCAST, causes)

    def _ask(self, ask: Ask) -> None:
        self.counters["arp_requests_sent"] += 1
        sender = self._config.addresses[0] if self._config.addresses else bytes(4)
        request = ArpPacket.request(sha=self._mac, spa=sender, tpa=ask.address)
        self._send_arp(request, ask.mac or MAC_BROADCAST, [])

    def _send_arp(self, arp: ArpPacket, dst: bytes, causes: list[int]) -> None:
        header = EthernetHeader(dst, self._mac, EtherType.ARP)
        self._to_device(DeviceFrame(self._ids.next(), causes, header.serialize() + arp.serialize(), b""))

    def _do(self, steps: list[Step], now: int) -> None:
        """Carry out what the ARP cache decided."""
        for step in steps:
            match step:
                case Transmit(packet, mac):
                    self._transmit(packet, mac + self._from_ipv4)
                case Ask():
                    self._ask(step)
                case Changed():
                    if self.interest:
                        data = {"address": format_ipv4(step.address), "mac": format_mac(step.mac)}
                        self._events.append(Event(now, "arp", data=data | {"old": step.old, "new": step.new}))
                case Overflow(packet, cache):
                    self._drop(reasons.ARP_CACHE_FULL if cache else reasons.ARP_QUEUE_FULL, packet.id)
                case GiveUp(packet):
                    self._drop(reasons.ARP_UNANSWERED, packet.id, detail=format_ipv4(packet.next_hop))
                    self._unreachable(packet)

    def _unreachable(self, packet: Packet) -> None:
        """Tell ip of a packet given up (RFC 1122 2.4): the transport learns "host unreachable"."""
        quote = _quote(packet)
        self._up.append(("ip", Unreachable(self._config.iface, packet.next_hop, quote, [packet.id])))

    # from ip

    def _from_ip(self, packet: Packet, now: int) -> None:
        if not self._ethernet:
            self._transmit(packet, b"")
            return
        hop = packet.next_hop
        neighbour = self._arp.find(hop)
        if neighbour is not None and neighbour.fresh_until > now:
            neighbour.used = now
            self._transmit(packet, neighbour.mac + self._from_ipv4)
        elif hop in self._broadcasts:
            self._transmit(packet, MAC_BROADCAST + self._from_ipv4)
        elif len(hop) != 4 or is_unspecified(hop):
            self._drop(reasons.NO_NEXT_HOP, packet.id)
        elif is_multicast(hop):
            self._transmit(packet, _group_mac(hop) + self._from_ipv4)
        elif not self._usable:
            self._drop(reasons.DEVICE_DOWN if not self._device.up else reasons.ARP_UNCLAIMED, packet.id)
        else:
            self._do(self._arp.send(packet, now), now)

    def _transmit(self, packet: Packet, link_head: bytes) -> None:
        """Put the link header before a packet and leave to the device what is the device's."""
        head: bytes = packet.head
        payload = packet.payload
        gso_size = packet.gso_size
        size = len(head) + len(payload)
        vnet = b""
        checksum = packet.checksum
        if gso_size or checksum in (_PARTIAL, _VERIFIED):
            # Also of a verified one: the device may have vouched for a checksum that was never computed.
            try:
                head, payload, vnet = prepare(head, payload, gso_size, len(link_head))
            except Unfit as error:
                if gso_size or checksum == _PARTIAL:
                    self._drop(reasons.BAD_OFFLOAD, packet.id, detail=str(error))
                    return
        if size > self._device.mtu and not (gso_size and self._pieces_fit(head, gso_size)):
            self._drop(reasons.OVER_DEVICE_MTU, packet.id, detail=f"{size} bytes")
            return
        if not self._usable or (self._unclaimed and head[12:16] in self._unclaimed):
            self._drop(reasons.DEVICE_DOWN if not self._device.up else reasons.ARP_UNCLAIMED, packet.id)
            return
        frame = DeviceFrame(self._ids.next(), [packet.id], link_head + head, payload, vnet, packet.traced)
        counters = self.counters
        counters["tx_bytes"] += size
        counters["tx_packets"] += pieces(packet.head, packet.payload, gso_size) if gso_size else 1
        counters["tx_frames"] += 1
        self._down.append(("device", frame))

    def _pieces_fit(self, head: bytes, gso_size: int) -> bool:
        """Whether each piece of a super-packet, headers and all, fits into the MTU."""
        ip_len = (head[0] & 15) * 4
        return ip_len + (head[ip_len + 12] >> 2 & 0x3C) + gso_size <= self._device.mtu

    def _to_device(self, frame: DeviceFrame) -> None:
        """Send a frame of our own making."""
        if not self._device.up:
            self._drop(reasons.DEVICE_DOWN, frame.id)
            return
        self.counters["tx_frames"] += 1
        self._down.append(("device", frame))

    # news of the device and of ip

    def _local(self, local: Local, now: int) -> None:
        """ip tells what is its own: addresses that ARP answers for, broadcasts, groups that pass the filter."""
        new = [address for address in local.addresses if address not in self._addresses]
        self._addresses = set(local.addresses)
        for gone in self._added.keys() - self._addresses:
            del self._added[gone]
        if self._ethernet and self._device.up and self._claim.phase != "down":
            for address in new:  # RFC 5227 2.1: each is probed for, if so configured, and announced
                claim = self._added[address] = Claim()
                claim.start(self._link, self._rng, now)
                self._see_usable()
                if claim.owned and claim.left and self._usable:
                    self._added_step(address, claim, now)
        self._see_usable()
        self._broadcasts = {LIMITED_BROADCAST, *local.broadcasts}
        self._use_groups(local.groups)

    def _confirmed(self, confirmed: Confirmed, now: int) -> None:
        """A transport knows that what goes by this neighbour arrives (RFC 4861 7.3.1)."""
        self._do(self._arp.confirm(confirmed.next_hop, now), now)

    def _use_groups(self, groups: list[bytes]) -> None:
        self._groups = groups
        self._group_macs = {_group_mac(group) for group in groups if len(group) == 4}

    def _device_state(self, state: DeviceState, now: int) -> None:
        if state.ethernet != self._ethernet:
            raise ValueError("a device does not change its kind")
        was_up, self._device = self._device.up, state
        if self.interest:
            data = {"name": state.name, "up": state.up, "mtu": state.mtu, "gso_max": state.gso_max}
            self._events.append(Event(now, "device", data=data))
        if state.up and not was_up:
            self._arp.expire()
            self._start_claim(now)
        elif was_up and not state.up:
            self._claim.stop()
            self._added.clear()
            self._see_usable()
            for _, frame in self._down:
                self._drop(reasons.DEVICE_DOWN, frame.id)
            self._down = []
        self._tell_ip()

    def _neighbour_up(self, up: NeighbourUp, _now: int) -> None:
        if up.name == "ip":
            self._ip_up = True
            self._tell_ip()

    def _neighbour_down(self, down: NeighbourDown, _now: int) -> None:
        if down.name == "ip":
            self._ip_up = False

    def _tell_ip(self) -> None:
        if not self._ip_up:
            return
        device = self._device
        self._up.append(
            (
                "ip",
                LinkState(
                    self._config.iface,
                    device.name,
                    device.kind,
                    self._usable,
                    device.mtu,
                    device.gso_max,
                    device.checksum_offload,
                    self._mac,
                ),
            )
        )

    # control

    def control(self, _token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """ "neigh" → {"neighbours": [...]}; "neigh.flush" (address) → {"flushed": n}; "device" → its facts."""
        match name:
            case "neigh":
                return {"neighbours": self._arp.show(now)}
            case "neigh.flush":
                steps = self._arp.flush(self._address_argument(args))
                self._do(steps, now)
                return {"flushed": len(steps)}
            case "device":
                return self._device_facts()
        raise ControlError(f"link has no command {name!r}; it has neigh, neigh.flush, device")

    def _address_argument(self, args: dict[str, Any]) -> bytes | None:
        text = args.get("address")
        if text is None:
            return None
        try:
            return parse_ipv4(text)
        except (ValueError, TypeError):
            raise ControlError(f"address: {text!r} is no IPv4 address") from None

    def _device_facts(self) -> dict[str, Any]:
        device = self._device
        return {
            "name": device.name,
            "kind": device.kind,
            "ethernet": device.ethernet,
            "up": device.up,
            "mtu": device.mtu,
            "mac": format_mac(self._mac) if self._ethernet else "",
            "addresses": [format_ipv4(address) for address in self._config.addresses],
            "checksum_offload": device.checksum_offload,
            "gso_max": device.gso_max,
            "waiting": len(self._down),
            "claim": self._claim.phase,
            "conflicts": self._claim.conflicts + sum(claim.conflicts for claim in self._added.values()),
            **({"claims": self._added_phases()} if self._added else {}),
        }

    def _added_phases(self) -> dict[str, str]:
        """Addresses that were added lately and of which not all is said yet."""
        return {format_ipv4(address): claim.phase for address, claim in sorted(self._added.items())}

    def set(self, key: str, value: Any, now: int) -> None:
        """Change a tunable of [link]; what is trusted or asked already keeps its deadline."""
        if key not in TUNABLES:
            raise ControlError(f"link.{key} cannot be changed while link runs; these can: {', '.join(TUNABLES)}")
        self._now = now
        setattr(self._link, key, value)

    # discards

    def _drop(self, reason: Reason, frame: int, *, detail: str = "") -> None:
        self.counters[reason.counter] += 1
        if self.interest:
            data = {"detail": detail} if detail else {}
            self._events.append(Event(self._now, "drop", reason.name, frame, data=data))


def _group_mac(group: bytes) -> bytes:
    """The Ethernet address of a multicast group: its low 23 bits (RFC 1112 6.4)."""
    return _MULTICAST_PREFIX + bytes((group[1] & 0x7F, group[2], group[3]))


def _quote(packet: Packet) -> bytes:
    """The IP header and 8 bytes of a packet, as far as they can be read."""
    head: bytes = packet.head
    if type(packet.payload) is bytes and len(head) < 60 + _QUOTE:
        head += packet.payload[: 60 + _QUOTE - len(head)]
    return head[: (head[0] & 15) * 4 + _QUOTE] if head else b""
