"""What the rules look at: one connection, everything recorded around it, and what became of each transmission."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from levelip.debug.collection import Collection, Conversation, Seg, Told
from levelip.debug.facts import Fact
from levelip.debug.sending import Transmission, round_trip, transmissions
from levelip.tracing import reasons

MS = 1_000_000
_MASK = 0xFFFF_FFFF
_ROUND = 50 * MS  # a fault is told of at the end of the round in which it was done, on a busy machine later


def _before(told: Told, fact: Fact, slack: int = 0) -> bool:
    """Whether something was done before a packet passed: by when it was told, give or take `slack` ns, or, as that may
    be much later, by when it was done."""
    return told.mono <= fact.mono + slack or told.event.at <= fact.stack


class Case:
    """One connection."""

    def __init__(self, collection: Collection, conversation: Conversation) -> None:
        self.collection = collection
        self.conversation = conversation

    @cached_property
    def sent(self) -> list[Transmission]:
        """Ours."""
        return transmissions(self.conversation.ours, self.conversation.theirs)

    @cached_property
    def came(self) -> list[Transmission]:
        """The peer's, as they came."""
        return transmissions(self.conversation.theirs, self.conversation.ours)

    @cached_property
    def rtt(self) -> int:
        """The shortest round trip, ns; 0: none was seen."""
        return round_trip(self.conversation, self.sent)

    @property
    def wire(self) -> list[Fact]:
        """Every frame of the outermost seam, of all connections, ARP and ICMP."""
        return self.collection.on_wire

    @cached_property
    def faults(self) -> list[Told]:
        """What lvlip fault did to its packets."""
        return [told for told in self.conversation.events if what_fault(told)]

    @cached_property
    def discarded(self) -> set[int]:
        """The ids of packets that were dropped, as they stood on the wire."""
        dropped = (told for told in self.conversation.kinds("drop") if told.event.frame)
        return {fact.id for told in dropped if (fact := self.collection.origin(told.event.frame)) is not None}

    def fault_on(self, one: Transmission) -> str:
        """What lvlip fault did, to it or to an ACK of it, that made it be sent again; empty: nothing that is known."""
        fact, since = one.seg.fact, one.mono - _ROUND
        again = one.repeated.seg.fact if one.repeated is not None else None
        for told in self.faults:
            data = told.event.data
            if told.mono < since or (again is not None and not _before(told, again)) or "seq" not in data:
                continue
            if data["way"] == ("up" if fact.up else "down"):
                if overlap(data["seq"], data.get("length", 0), fact.seq, fact.room):
                    return what_fault(told)
            elif "." in data["flags"] and 0 < data["ack"] - fact.seq & _MASK < 1 << 31:
                return what_fault(told)
        return ""

    def fault_in(self, seq: int, length: int, until: Fact) -> str:
        """What lvlip fault did to bytes of the peer before a packet came; empty: nothing that is known."""
        for told in self.faults:
            data = told.event.data
            if not _before(told, until, _ROUND) or data.get("way") != "up" or "seq" not in data:
                continue
            if overlap(data["seq"], data.get("length", 0), seq, length):
                return what_fault(told)
        return ""

    @property
    def agreed_timestamps(self) -> bool:
        ours, theirs = self.conversation.ours.syn, self.conversation.theirs.syn
        return ours is not None and theirs is not None and bool(ours.options.timestamps and theirs.options.timestamps)

    @property
    def agreed_sack(self) -> bool:
        ours, theirs = self.conversation.ours.syn, self.conversation.theirs.syn
        return ours is not None and theirs is not None and ours.options.sack_permitted and theirs.options.sack_permitted

    def drops(self, *reasons: str) -> Iterator[tuple[Told, Fact | None]]:
        """Its drops for these reasons, with the packet as it came."""
        for told in self.conversation.events:
            if told.event.kind == "drop" and told.event.reason in reasons:
                yield told, self.collection.origin(told.event.frame)

    def retransmitted(self, one: Transmission, *why: str) -> bool:
        """Whether the stack said that it sent this again for one of these reasons; nothing said: True."""
        offset = one.seg.seq - 1
        said = [
            told.event.data.get("why")
            for told in self.conversation.kinds("retransmit")
            if abs(told.mono - one.mono) < 50 * MS
            and told.event.data.get("offset", -1) <= offset < told.event.data.get("offset", 0) + max(
                1, told.event.data.get("length", 0)
            )
        ]
        return not said or any(reason in why for reason in said)

    def numbers(self, seg: Seg) -> str:
        """ "seq 1449:2897" of a segment, counted from its SYN, or what else it is."""
        if seg.fact.syn:
            return "the SYN"
        if not seg.fact.length:
            return "the FIN" if seg.fact.fin else f"an ACK, ack {seg.ack}"
        return f"seq {seg.seq}:{seg.seq + seg.fact.length}" + (" and the FIN" if seg.fact.fin else "")


def last_seen(collection: Collection) -> int:
    """When the last frame was."""
    return max((fact.mono for fact in collection.facts), default=0)


def what_fault(told: Told) -> str:
    """What an event says that lvlip fault did: "loss", "dup", "corrupt", "delay", "reorder"; empty: it is another."""
    event = told.event
    if event.kind == "fault":
        return str(event.data.get("what", ""))
    return "loss" if event.kind == "drop" and event.reason == reasons.FAULT_LOSS.name else ""


def overlap(seq: int, length: int, other: int, other_length: int) -> bool:
    """Whether two ranges of sequence numbers have one in common; one that is empty counts as its first."""
    return seq - other & _MASK < max(1, other_length) or other - seq & _MASK < max(1, length)


def ms(ns: int) -> str:
    """ "12.3 ms"."""
    from levelip.tracing.formatting import ms as text

    return text(ns)
