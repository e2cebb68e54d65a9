"""Reassembly: fragments in any order become the datagram that was cut up (RFC 791 3.2, RFC 815, RFC 1122 3.3.2).

What is kept is bounded in three ways: bytes in all (`fragment_memory`, the oldest datagram goes first), fragments a
datagram (`fragments_per_datagram`), and time (`fragment_time_ms`, from the first fragment on). Overlap makes a
datagram worthless, what follows of it included (RFC 5722): nobody honest sends such, and what it reassembles to differs
from system to system.

A list of the fragments that are there, sorted and without overlap, does what RFC 815's list of holes does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from msgspec import Struct

from levelip.frames.packet import Packet
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, IPV4_MAX_TOTAL_LENGTH, Ipv4Header

DATAGRAM_COST = 1024
"""Bytes that a datagram costs beside its fragments' data: what CPython takes for it, rounded up."""
FRAGMENT_COST = 256
"""Bytes that each fragment costs beside its data."""

# ECN fields seen in a datagram's fragments, as bits 1 << codepoint (RFC 3168 5.3).
_NOT_ECT, _CE = 1 << 0, 1 << 3

Key = tuple[bytes, bytes, int, int]  # source, destination, protocol, ident (RFC 791 3.2)


class Piece(Struct, array_like=True):
    """One fragment's data: bytes `start` to `stop` of the datagram's payload."""

    start: int
    stop: int
    data: bytes


class Partial(Struct):
    """A datagram of which some fragments have come. `dead`: refused; what still comes of it is refused, too."""

    key: Key
    deadline: int
    frames: list[int]
    traced: bool
    ingress: int
    iface: int
    pieces: list[Piece] = []
    have: int = 0
    """Bytes in `pieces`."""
    end: int = -1
    """Length of the whole payload, known once the last fragment has come."""
    ecn: int = 0
    dont_fragment: bool = True
    first: bytes = b""
    """The header of fragment zero; empty until it has come."""
    cost: int = DATAGRAM_COST
    dead: bool = False


class Whole(Struct):
    """A datagram put together: as if it had come in one piece."""

    header: Ipv4Header
    data: bytes
    partial: Partial


class Reassembly:
    """All datagrams that are incomplete, oldest first. Asks nobody: the core carries out what is returned."""

    def __init__(self, *, memory: int, count: int, time_ns: int, partials: list[Partial] | None = None) -> None:
        self.memory = memory
        self.count = count
        self.time_ns = time_ns
        self._partials: dict[Key, Partial] = {partial.key: partial for partial in partials or []}
        self.used = sum(partial.cost for partial in self._partials.values())

    def __len__(self) -> int:
        return len(self._partials)

    def partials(self) -> list[Partial]:
        """For snapshots and `lvlip`, oldest first."""
        return list(self._partials.values())

    def add(self, header: Ipv4Header, data: bytes, packet: Packet, now: int) -> Whole | Reason | None:
        """Take a fragment: None while others lack, the datagram, or why the fragment is of no use.

        After `datagram_refused` reasons the whole datagram is refused. The caller then asks `excess` whether others
        must go.
        """
        start = header.frag_offset * 8
        stop = start + len(data)
        more = header.flags & FLAG_MF
        if start == stop or (more and stop & 7):
            return reasons.FRAGMENT_LENGTH  # RFC 791 3.2: all but the last are whole units of 8 bytes
        if stop + header.ihl * 4 > IPV4_MAX_TOTAL_LENGTH:
            return reasons.FRAGMENT_BEYOND  # "ping of death": no total length could hold it
        key = (header.src, header.dst, header.proto, header.ident)
        partial = self._partials.get(key)
        if partial is None:
            partial = Partial(key, now + self.time_ns, [], False, packet.ingress, packet.iface)
            self._partials[key] = partial
            self.used += DATAGRAM_COST
        elif partial.dead:
            return reasons.FRAGMENT_OF_REFUSED  # RFC 5722 4: "including those not yet received"

        pieces = partial.pieces
        at = bisect_left(pieces, start, key=_start)
        if at < len(pieces) and pieces[at].start == start and pieces[at].stop == stop:
            if pieces[at].data == data:
                return reasons.FRAGMENT_DUPLICATE  # the network may repeat a packet (RFC 791 3.2); as Linux
            return self._refuse(partial, reasons.FRAGMENT_OVERLAP)
        if (at < len(pieces) and pieces[at].start < stop) or (at and pieces[at - 1].stop > start):
            return self._refuse(partial, reasons.FRAGMENT_OVERLAP)
        if not more:
            if partial.end >= 0 or (pieces and pieces[-1].stop > stop):
                return self._refuse(partial, reasons.FRAGMENT_END)
            partial.end = stop
        elif 0 <= partial.end < stop:
            return self._refuse(partial, reasons.FRAGMENT_END)
        if len(pieces) >= self.count:
            return self._refuse(partial, reasons.FRAGMENT_COUNT)

        pieces.insert(at, Piece(start, stop, data))
        cost = FRAGMENT_COST + len(data)
        partial.have += len(data)
        partial.cost += cost
        self.used += cost
        partial.frames.append(packet.id)
        partial.traced |= packet.traced
        partial.ecn |= 1 << header.ecn
        partial.dont_fragment &= bool(header.flags & FLAG_DF)
        if start == 0:
            partial.first = header.serialize()
        if partial.have != partial.end or not partial.first:
            return None
        return self._finish(partial)

    def _finish(self, partial: Partial) -> Whole | Reason:
        """All has come: the header of fragment zero, the data of all (RFC 791 3.2), ECN as RFC 3168 5.3 says."""
        self._forget(partial)
        first = Ipv4Header.parse(partial.first)
        ecn = first.ecn
        if partial.ecn & _CE:
            if partial.ecn & _NOT_ECT:
                return reasons.FRAGMENT_ECN  # marked, and by somebody who cannot have asked for it: as Linux
            ecn = 3
        total = first.ihl * 4 + partial.end
        if total > IPV4_MAX_TOTAL_LENGTH:
            return reasons.FRAGMENT_BEYOND  # fragment zero's options are what is too much
        header = Ipv4Header(
            ihl=first.ihl, dscp=first.dscp, ecn=ecn, total_length=total, ident=first.ident,
            flags=FLAG_DF if partial.dont_fragment else 0, ttl=first.ttl, proto=first.proto,
            src=first.src, dst=first.dst, options=first.options,
        )  # fmt: skip
        return Whole(header, b"".join([piece.data for piece in partial.pieces]), partial)

    def _refuse(self, partial: Partial, reason: Reason) -> Reason:
        """Throw away the whole datagram, and remember until its time is over that it is refused."""
        self.used += DATAGRAM_COST - partial.cost
        partial.cost = DATAGRAM_COST
        partial.pieces = []
        partial.have = 0
        partial.first = b""
        partial.frames = []
        partial.dead = True
        return reason

    def _forget(self, partial: Partial) -> None:
        del self._partials[partial.key]
        self.used -= partial.cost

    def excess(self) -> Iterator[Partial]:
        """The oldest datagrams, forgotten one by one, until the memory limit is kept."""
        while self.used > self.memory and self._partials:
            oldest = next(iter(self._partials.values()))
            self._forget(oldest)
            yield oldest

    def next_timer(self) -> int | None:
        """When the oldest is given up. (After a change of the time limit those begun earlier keep theirs.)"""
        for partial in self._partials.values():
            return partial.deadline
        return None

    def expire(self, now: int) -> list[Partial]:
        """Those whose time is over, forgotten."""
        due = []
        for partial in self._partials.values():
            if partial.deadline > now:
                break
            due.append(partial)
        for partial in due:
            self._forget(partial)
        return due


def _start(piece: Piece) -> int:
    return piece.start
