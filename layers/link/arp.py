"""The ARP cache (RFC 826): which MAC address a neighbour has, how sure that is, and who waits to learn it.

Its states are those of neighbour unreachability detection (RFC 4861 7.3.2), as in Linux (net/core/neighbour.c), with
ARP requests for solicitations. It decides, the core acts: every method answers with the steps to take, in order.

                     packet to send
     (no entry) ───────────────────────▶ incomplete ◀──────────────── failed
         │             asks everybody    │   │   │    packet to send    ▲
         │ request      answer to us     │   │   │    asks everybody    │
         │ for us  ┌─────────────────────┘   │   └──────────────────────┤
         │         │         request, or     │       arp_retries asked  │
         ▼         ▼         answer to all   │                          │
       stale    reachable ◀──────────────┐   │                          │
         │         │                     │   │                          │
         │         │ over, and a packet  │   │                          │
         │         ▼ to send             │   │                          │
         └───────▶ delay ◀───────────────┼───┘                          │
     packet to     │                     │ answer to us from            │
     send          │ arp_delay_ms        │ the MAC that was asked       │
                   ▼                     │                              │
                 probe ──────────────────┴──────────────────────────────┘
                 asks the neighbour alone      arp_retries asked (RFC 1122 2.3.2.1 (2))

- Only an answer to a question of ours makes "reachable" (RFC 4861 7.2.5, 7.3.1: solicited). What a neighbour says
  unasked makes "stale": used at once, and confirmed before it is trusted. An unasked answer makes no entry at all.
- *Contradiction*: another MAC for an address that we use. RFC 826 would take it, and so would Linux after its locktime;
  anybody on the cable could cut a connection so. We ask the one we know, alone, and at once (through "delay", that is,
  where that was done less than arp_locktime_ms ago). If it answers, it stays; if not, the entry fails and everybody is
  asked. A neighbour that really moved is found after arp_retries × arp_retry_ms. RFC 4861 7.2.5 does the same with
  an advertisement whose override flag is clear; an ARP packet has no such flag.
- *Bounds*: the table holds arp_entries; questions without an answer (incomplete, failed) are at most a quarter of it,
  and strangers, who asked for us and whom we never had a packet for, at most half; of each the oldest goes first, in
  favour of its kind. Neighbours that we used within the last minute (IN_USE_NS) never make room for anybody.

"Stale" is stored only where it never was "reachable"; else it is "reachable" whose time is over, so that a neighbour
nobody talks to costs no timer. TCP's progress confirms a neighbour (RFC 4861 7.3.1), told at most each 5 s a
connection: while data is acknowledged nobody is asked.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from levelip.config import LinkConfig
from levelip.frames.packet import Packet
from levelip.wire.addr import format_ipv4, format_mac

MS = 1_000_000  # nanoseconds
IN_USE_NS = 60_000 * MS  # Linux gc_stale_time
NEVER = -1

State = Literal["incomplete", "reachable", "stale", "delay", "probe", "failed"]


class Neighbour(Struct):
    """One entry. Instants are ns of stack time, NEVER if there was none.

    `mac`: 6 bytes, empty while unknown. `fresh_until`: while this lies ahead, packets go out without a thought (0 in
    incomplete, stale and failed). `confirmed`: its last answer to us, or word from above. `updated`: the last word that
    counted.
    `used`: a packet was sent, or wanted to be. `deadline`: when the next request is due, or the entry fails; 0 in
    reachable, stale and failed. `asked`: requests sent since the last answer.
    """

    address: bytes
    state: State
    mac: bytes = b""
    fresh_until: int = 0
    confirmed: int = NEVER
    updated: int = NEVER
    used: int = NEVER
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
    """All neighbours. `config` and `rng` are the core's; the first may change at run time."""

    def __init__(self, config: LinkConfig, rng: random.Random, entries: list[Neighbour] | None = None) -> None:
        self._config = config
        self._rng = rng
        self._entries: dict[bytes, Neighbour] = {}
        self._waiting: dict[bytes, Neighbour] = {}  # those with a deadline
        # Kinds that make room for their own kind, each oldest first. An entry moves to the end when its kind changes.
        self._incomplete: dict[bytes, Neighbour] = {}
        self._failed: dict[bytes, Neighbour] = {}
        self._strangers: dict[bytes, Neighbour] = {}
        self.find = self._entries.get
        for entry in entries or ():
            self._file(entry)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Neighbour]:
        """All entries, oldest first."""
        return list(self._entries.values())

    # entries and their kinds

    def _kind(self, entry: Neighbour) -> dict[bytes, Neighbour] | None:
        if entry.state == "incomplete":
            return self._incomplete
        if entry.state == "failed":
            return self._failed
        return self._strangers if entry.used == NEVER else None

    def _file(self, entry: Neighbour) -> Neighbour:
        """Enter it at the end."""
        self._entries[entry.address] = entry
        kind = self._kind(entry)
        if kind is not None:
            kind[entry.address] = entry
        if entry.deadline:
            self._waiting[entry.address] = entry
        return entry

    def _remove(self, entry: Neighbour) -> None:
        for table in (self._entries, self._waiting, self._incomplete, self._failed, self._strangers):
            table.pop(entry.address, None)

    def _turn(self, entry: Neighbour, state: State, now: int, mac: bytes = b"") -> Changed:
        """Change the state, and all that hangs on it; `mac` if it becomes another one."""
        old = self._shown(entry, now)
        self._remove(entry)
        entry.state, entry.fresh_until, entry.deadline = state, 0, 0
        entry.mac = mac or entry.mac
        match state:
            case "failed":
                entry.mac = b""
            case "reachable":
                entry.asked = 0
                entry.fresh_until = now + self._reachable_ns()
            case "delay":
                entry.asked = 0
                entry.deadline = entry.fresh_until = now + self._config.arp_delay_ms * MS
            case "incomplete" | "probe":
                entry.asked = 0
        self._file(entry)
        return Changed(entry.address, entry.mac, old, state)

    def _reachable_ns(self) -> int:
        """Half to one and a half of arp_reachable_ms, so that neighbours do not ask in step (RFC 4861 6.3.4)."""
        base = self._config.arp_reachable_ms * MS
        return base // 2 + self._rng.randrange(base + 1)

    def _ask(self, entry: Neighbour, now: int) -> Ask:
        entry.asked += 1
        entry.deadline = now + self._config.arp_retry_ms * MS
        if entry.state == "probe":
            entry.fresh_until = entry.deadline
        self._waiting[entry.address] = entry
        return Ask(entry.address, entry.mac if entry.state == "probe" else b"")

    # room

    def _room_to_ask(self, now: int) -> tuple[bool, list[Step]]:
        """Whether one question more fits, after forgetting the oldest if need be."""
        steps: list[Step] = []
        most = max(1, self._config.arp_entries // 4)
        while len(self._incomplete) + len(self._failed) >= most:
            self._forget_question(steps)
        while len(self._entries) >= self._config.arp_entries:
            if self._strangers:
                self._remove(next(iter(self._strangers.values())))
            elif self._failed or self._incomplete:
                self._forget_question(steps)
            elif not self._forget_idle(now):
                return False, steps
        return True, steps

    def _forget_question(self, steps: list[Step]) -> None:
        """Forget the oldest that failed, or the oldest question with all that waits for it."""
        entry = next(iter((self._failed or self._incomplete).values()))
        self._remove(entry)
        steps += [Overflow(packet, cache=True) for packet in entry.queue]
        steps.append(Changed(entry.address, entry.mac, entry.state, ""))

    def _forget_idle(self, now: int) -> bool:
        """Forget the neighbour that is unused for the longest time; False if all are in use."""
        idle = [e for e in self._entries.values() if not e.deadline and now - e.used >= IN_USE_NS]
        if idle:
            self._remove(min(idle, key=lambda entry: (entry.used, entry.address)))
        return bool(idle)

    # a packet wants to go out

    def send(self, packet: Packet, now: int) -> list[Step]:
        """What becomes of a packet whose next hop has no fresh entry (the core checks `fresh_until` itself)."""
        address = packet.next_hop
        entry = self._entries.get(address)
        if entry is None:
            fits, steps = self._room_to_ask(now)
            if not fits:
                return [*steps, Overflow(packet, cache=True)]
            entry = self._file(Neighbour(address, "incomplete", used=now, queue=[packet]))
            return [*steps, Changed(address, b"", "", "incomplete"), self._ask(entry, now)]
        match entry.state:
            case "incomplete":
                entry.used = now
                entry.queue.append(packet)
                if len(entry.queue) > self._config.arp_queue:
                    # RFC 1122 2.3.2.2: keep at least the latest; Linux drops the oldest too (__neigh_event_send).
                    return [Overflow(entry.queue.pop(0))]
                return []
            case "failed":
                # At least arp_retry_ms have passed since the last request, so no flood (RFC 1122 2.3.2.1).
                entry.used = now
                changed = self._turn(entry, "incomplete", now)
                entry.queue.append(packet)
                return [changed, self._ask(entry, now)]
            case "delay" | "probe":
                entry.used = now
                return [Transmit(packet, entry.mac)]
        entry.used = now
        return [Transmit(packet, entry.mac), self._turn(entry, "delay", now)]

    # an ARP packet came in

    def merge(self, address: bytes, mac: bytes, now: int, *, answer: bool = False) -> list[Step] | None:
        """RFC 826's merge, with the second thoughts above; None if there is no such entry (Merge_flag stays false).

        `answer`: it is a reply, and to us alone. An entry that has another MAC afterwards was contradicted.
        """
        entry = self._entries.get(address)
        if entry is None:
            return None
        if entry.state in ("incomplete", "failed"):
            return self._learn(entry, mac, now, answered=answer and entry.state == "incomplete")
        if mac == entry.mac:
            if not (answer and entry.state == "probe"):
                return []  # RFC 4861 7.2.5: unsolicited and nothing new
            entry.confirmed = entry.updated = now
            return [self._turn(entry, "reachable", now)]
        if entry.used == NEVER:  # nothing to lose
            if now - entry.updated < self._config.arp_locktime_ms * MS:
                return []
            entry.updated = now
            return [self._turn(entry, "stale", now, mac)]
        return self._contradicted(entry, now)

    def _learn(self, entry: Neighbour, mac: bytes, now: int, *, answered: bool) -> list[Step]:
        """The first MAC of an entry that had none; what waited for it can go."""
        waiting, entry.queue = entry.queue, []
        entry.updated = now
        if answered:
            entry.confirmed = now
        changed = self._turn(entry, "reachable" if answered else "delay" if waiting else "stale", now, mac)
        return [changed, *(Transmit(packet, mac) for packet in waiting)]

    def _contradicted(self, entry: Neighbour, now: int) -> list[Step]:
        """Ask the one we know, soon: at most once in arp_locktime_ms, whatever others say (Linux locktime)."""
        if entry.state == "probe":
            return []  # being asked
        ask_at = entry.updated + self._config.arp_locktime_ms * MS
        if ask_at <= now:
            return [self._turn(entry, "probe", now), self._ask(entry, now)]
        if entry.state == "delay":
            steps: list[Step] = []
        else:
            steps = [self._turn(entry, "delay", now)]
        entry.deadline = entry.fresh_until = min(entry.deadline, ask_at)
        return steps

    def confirm(self, address: bytes, now: int) -> list[Step]:
        """What goes by this neighbour arrives, a transport says (RFC 4861 7.3.1, 7.3.3): as good as an answer to a
        question, where there is a MAC address that we do send to. It settles a contradiction, too: who answers up there
        is behind the one that we know."""
        entry = self._entries.get(address)
        if entry is None or entry.state not in ("reachable", "delay", "probe"):
            return []
        entry.confirmed = now
        if entry.state == "reachable" and entry.fresh_until > now:
            entry.fresh_until = now + self._reachable_ns()
            return []
        return [self._turn(entry, "reachable", now)]

    def add(self, address: bytes, mac: bytes, now: int) -> list[Step]:
        """A neighbour that asked for us, and so will want an answer soon (RFC 826: "add the triplet")."""
        most = max(1, self._config.arp_entries // 2)
        while self._strangers and (
            len(self._strangers) >= most or len(self._entries) >= self._config.arp_entries
        ):
            self._remove(next(iter(self._strangers.values())))
        if len(self._entries) >= self._config.arp_entries:
            return []
        self._file(Neighbour(address, "stale", mac, updated=now))
        return [Changed(address, mac, "", "stale")]

    # time passes

    def next_timer(self) -> int | None:
        """The earliest deadline."""
        return min([entry.deadline for entry in self._waiting.values()]) if self._waiting else None

    def handle_timer(self, now: int) -> list[Step]:
        """Ask, ask again, or give up."""
        due = sorted((e.deadline, e.address) for e in self._waiting.values() if e.deadline <= now)
        steps: list[Step] = []
        for _, address in due:
            entry = self._entries[address]
            if entry.state == "delay":
                steps += [self._turn(entry, "probe", now), self._ask(entry, now)]
            elif entry.asked < self._config.arp_retries:
                steps.append(self._ask(entry, now))
            else:
                steps.append(Changed(address, entry.mac, entry.state, "failed"))
                steps += [GiveUp(packet) for packet in entry.queue]
                entry.queue = []
                self._turn(entry, "failed", now)
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
            self._remove(entry)
            steps.append(Changed(entry.address, entry.mac, entry.state, ""))
        return steps

    def _shown(self, entry: Neighbour, now: int) -> str:
        return "stale" if entry.state == "reachable" and now >= entry.fresh_until else entry.state

    def show(self, now: int) -> list[dict[str, str | int]]:
        """The entries for `lvlip neigh`: ages in ms of stack time, -1 where there is none."""
        return [
            {
                "address": format_ipv4(entry.address),
                "mac": format_mac(entry.mac) if entry.mac else "",
                "state": self._shown(entry, now),
                "confirmed_ms": (now - entry.confirmed) // MS if entry.mac and entry.confirmed != NEVER else -1,
                "updated_ms": (now - entry.updated) // MS if entry.updated != NEVER else -1,
                "used_ms": (now - entry.used) // MS if entry.used != NEVER else -1,
                "asked": entry.asked,
                "queued": len(entry.queue),
            }
            for entry in self._entries.values()
        ]
