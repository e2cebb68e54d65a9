"""What the rules look at: one connection, everything recorded around it, and what became of each transmission."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from levelip.debug.collection import Collection, Conversation, Seg, Told
from levelip.debug.facts import Fact
from levelip.debug.sending import Transmission, round_trip, transmissions

MS = 1_000_000


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

    @cached_property
    def wire(self) -> list[Fact]:
        """Every frame of the outermost seam, of all connections, ARP and ICMP."""
        return list(self.collection.on_wire())

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
        """ "bytes 1449:2897" of a segment, as events count them (from 0), or what else it is."""
        if seg.fact.syn:
            return "the SYN"
        if not seg.fact.length:
            return "the FIN" if seg.fact.fin else f"an ACK of byte {seg.ack - 1}"
        return f"bytes {seg.seq - 1}:{seg.seq - 1 + seg.fact.length}" + (" and the FIN" if seg.fact.fin else "")


def ms(ns: int) -> str:
    """ "12.3 ms"."""
    from levelip.tracing.formatting import ms as text

    return text(ns)
