"""The ARP cache (RFC 826): which MAC address a neighbour has, how sure that is, and who waits to learn it.

It decides, the core acts: every method answers with the steps to take, in order.

                        packet to send                  answer (any ARP packet of that neighbour)
    (no entry), failed ────────────────▶ incomplete ───────────────────▶ reachable
                        ask all          │  retry_ms: ask again            │  arp_reachable_ms
                                         ▼  after arp_retries              ▼
                                       failed ◀── probe ◀────────────── stale
                                         after      │   packet to send: sent to the old address, and
                                         retries    ▼   the neighbour asked, alone (RFC 1122 2.3.2.1 (2))
                                                 reachable, at its answer

"Stale" is not stored: it is "reachable" whose time is over, so that a neighbour nobody talks to costs no timer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from levelip.config import LinkConfig
from levelip.frames.packet import Packet
from levelip.wire.addr import format_ipv4, format_mac

MS = 1_000_000  # nanoseconds

State = Literal["incomplete", "reachable", "probe", "failed"]


class Neighbour(Struct):
    """One entry. Instants are ns of stack time.

    `mac`: 6 bytes, empty while unknown. `fresh_until`: while this lies ahead, packets go out without
    a thought (0 in every state but reachable). `deadline`: when the next request is due, or the entry fails; 0 in
    reachable and failed. `asked`: requests sent since the last answer.
    """

    address: bytes
    state: State
    mac: bytes = b""
    fresh_until: int = 0
    confirmed: int = 0
    used: int = 0
    deadline: int = 0
    asked: int = 0
    queue: list[Packet] = []


@dataclass(slots=True)
class Ask:
    """Send an ARP request for `address`; to everybody if `mac` is empty."""

    address: bytes
    mac: bytes


@dataclass(slots=True)
class Transmit:
    """Send the packet to that MAC address."""

    packet: Packet
    mac: bytes


@dataclass(slots=True)
class Overflow:
    """The packet fell out of a full queue; or, if `cache`, there was no entry left for its next hop."""

    packet: Packet
    cache: bool = False


@dataclass(slots=True)
class GiveUp:
    """The packet's next hop did not answer."""

    packet: Packet


@dataclass(slots=True)
class Changed:
    """An entry went from one state to another, or its MAC address changed. `old` is "" for a new entry."""

    address: bytes
    mac: bytes
    old: str
    new: str


Step = Ask | Transmit | Overflow | GiveUp | Changed


class ArpCache:
    """All neighbours. `config` is the core's and may change at run time."""

    def __init__(self, config: LinkConfig, entries: list[Neighbour] | None = None) -> None:
        self._config = config
        self._entries: dict[bytes, Neighbour] = {entry.address: entry for entry in entries or ()}
        self._waiting: dict[bytes, Neighbour] = {a: e for a, e in self._entries.items() if e.deadline}
        self.find = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Neighbour]:
        """All entries, oldest first."""
        return list(self._entries.values())

    # a packet wants to go out

    def send(self, packet: Packet, now: int) -> list[Step]:
        """What becomes of a packet whose next hop has no fresh entry (the core checks `fresh_until` itself)."""
        address = packet.next_hop
        entry = self._entries.get(address)
        if entry is None:
            if not self._make_room():
                return [Overflow(packet, cache=True)]
            entry = self._entries[address] = Neighbour(address, "incomplete", used=now, queue=[packet])
            return [Changed(address, b"", "", "incomplete"), self._ask(entry, now)]
        entry.used = now
        if entry.state == "reachable":
            if now < entry.fresh_until:
                return [Transmit(packet, entry.mac)]
            entry.state, entry.fresh_until, entry.asked = "probe", 0, 0
            return [
                Transmit(packet, entry.mac),
                Changed(address, entry.mac, "stale", "probe"),
                self._ask(entry, now),
            ]
        if entry.state == "probe":
            return [Transmit(packet, entry.mac)]
        if entry.state == "failed":
            # At least arp_retry_ms have passed since the last request, so no flood (RFC 1122 2.3.2.1).
            entry.state, entry.asked = "incomplete", 0
            entry.queue.append(packet)
            return [Changed(address, b"", "failed", "incomplete"), self._ask(entry, now)]
        entry.queue.append(packet)
        if len(entry.queue) > self._config.arp_queue:
            # RFC 1122 2.3.2.2 asks to keep at least the latest; Linux drops the oldest too (__neigh_event_send).
            return [Overflow(entry.queue.pop(0))]
        return []

    def _ask(self, entry: Neighbour, now: int) -> Ask:
        entry.asked += 1
        entry.deadline = now + self._config.arp_retry_ms * MS
        self._waiting[entry.address] = entry
        return Ask(entry.address, entry.mac if entry.state == "probe" else b"")

    def _make_room(self) -> bool:
        """Forget the entries longest unused until one more fits; False if all are questions under way."""
        while len(self._entries) >= self._config.arp_entries:
            idle = [entry for entry in self._entries.values() if not entry.deadline]
            if not idle:
                return False
            del self._entries[min(idle, key=lambda entry: (entry.used, entry.address)).address]
        return True

    # an ARP packet came in

    def merge(self, address: bytes, mac: bytes, now: int) -> list[Step] | None:
        """RFC 826's merge: update the entry of that neighbour; None if there is none (Merge_flag stays false)."""
        entry = self._entries.get(address)
        if entry is None:
            return None
        old = self._shown(entry, now)
        changed = old != "reachable" or entry.mac != mac
        waiting, entry.queue = entry.queue, []
        entry.state, entry.mac, entry.confirmed = "reachable", mac, now
        entry.fresh_until = now + self._config.arp_reachable_ms * MS
        entry.deadline = entry.asked = 0
        self._waiting.pop(address, None)
        steps: list[Step] = [Changed(address, mac, old, "reachable")] if changed else []
        steps += [Transmit(packet, mac) for packet in waiting]
        return steps

    def add(self, address: bytes, mac: bytes, now: int) -> list[Step]:
        """A neighbour that asked for us, and so will want an answer soon (RFC 826: "add the triplet")."""
        if not self._make_room():
            return []
        fresh_until = now + self._config.arp_reachable_ms * MS
        self._entries[address] = Neighbour(address, "reachable", mac, fresh_until, now, now)
        return [Changed(address, mac, "", "reachable")]

    # time passes

    def next_timer(self) -> int | None:
        """The earliest deadline."""
        return min([entry.deadline for entry in self._waiting.values()]) if self._waiting else None

    def handle_timer(self, now: int) -> list[Step]:
        """Ask again, or give up."""
        due = sorted((e.deadline, e.address) for e in self._waiting.values() if e.deadline <= now)
        steps: list[Step] = []
        for _, address in due:
            entry = self._entries[address]
            if entry.asked < self._config.arp_retries:
                steps.append(self._ask(entry, now))
                continue
            steps.append(Changed(address, entry.mac, entry.state, "failed"))
            steps += [GiveUp(packet) for packet in entry.queue]
            entry.state, entry.mac, entry.queue, entry.deadline = "failed", b"", [], 0
            del self._waiting[address]
        return steps

    # looking and forgetting

    def expire(self) -> None:
        """Trust nothing without asking again: the cable may lead elsewhere now."""
        for entry in self._entries.values():
            entry.fresh_until = 0

    def flush(self, address: bytes | None = None) -> list[Step]:
        """Forget all answers, or that of one neighbour. Questions under way go on: they have no answer to forget."""
        steps: list[Step] = []
        for entry in self.entries:
            if entry.state == "incomplete" or (address is not None and entry.address != address):
                continue
            del self._entries[entry.address]
            self._waiting.pop(entry.address, None)
            steps.append(Changed(entry.address, entry.mac, entry.state, ""))
        return steps

    def _shown(self, entry: Neighbour, now: int) -> str:
        return "stale" if entry.state == "reachable" and now >= entry.fresh_until else entry.state

    def show(self, now: int) -> list[dict[str, str | int]]:
        """The entries for `lvlip neigh`: ages in ms of stack time, -1 where there was never an answer."""
        return [
            {
                "address": format_ipv4(entry.address),
                "mac": format_mac(entry.mac) if entry.mac else "",
                "state": self._shown(entry, now),
                "confirmed_ms": (now - entry.confirmed) // MS if entry.mac else -1,
                "used_ms": (now - entry.used) // MS,
                "asked": entry.asked,
                "queued": len(entry.queue),
            }
            for entry in self._entries.values()
        ]
