"""The upper end of a journey: from tcp to the client and back, by socket and offset, as messages have no frame ids.

A segment's last byte is looked for: in the first Data that brought it to the gateway and to the client, or in the Send
that brought it to tcp. SYNs, FINs and resets have their own messages. Datagrams have ids as far as the gateway: there
the message to or from the client is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from levelip.debug.collection import Collection, Told
from levelip.debug.facts import Fact
from levelip.debug.streams import Leg, Life, Streams
from levelip.tracing.reasons import FAULT_LOSS

_UP = (("tcp", "out", "tcp-gateway"), ("gateway", "in", "tcp-gateway"), ("gateway", "out", "gateway-client"))
_DOWN = (("tcp", "in", "tcp-gateway"), ("gateway", "out", "tcp-gateway"), ("gateway", "in", "gateway-client"))
_ROUND = 5_000_000
"""Other processes' clocks may be so much behind, in a recording: they are read once a round."""
Place = tuple[str, str, str]


@dataclass
class End:
    """What a packet became above tcp, or came from: the messages in the order of its way. `taken`: the client's word
    that the application has its last byte."""

    messages: list[Fact]
    taken: Fact | None = None


def upward(collection: Collection, one: Fact) -> End | None:
    """What a segment that went into tcp became. None if it brought nothing new, or nothing above tcp was recorded."""
    streams = collection.streams
    life = streams.life(one.conn, one.mono)
    if life is None or any(_is_drop(told) for told in collection.told.get(one.id, ())):
        return None
    if one.rst:
        return _made(_each(streams, _UP, ("Reset",), life.sock, since=one.mono))
    near = streams.leg(_UP[0], "Data", life.sock).until(one.mono)
    first = life.offset(one.seq + one.syn & 0xFFFF_FFFF, near.end if near is not None else 0, ours=False)
    last = first + one.length - 1 if first is not None else -1
    if one.length and last >= 0:
        return _data(streams, life, one, last)
    if one.fin and first is not None:
        found = streams.leg(_UP[0], "Eof", life.sock).since(one.mono)
        if found is not None and found.offset == first:
            return _made(_each(streams, _UP, ("Eof",), life.sock, since=one.mono))
        return None
    if life.opened is None or life.opened.mono < one.mono or not _opens(collection, one):
        return None
    return _made(_each(streams, _UP, ("Connected", "Incoming", "Reply"), life.sock, since=one.mono))


def _is_drop(told: Told) -> bool:
    """Whether it was discarded; what lvlip fault lost is a piece of it, since it came."""
    return told.event.kind == "drop" and told.event.reason != FAULT_LOSS.name


def _data(streams: Streams, life: Life, one: Fact, last: int) -> End | None:
    messages = [streams.leg(place, "Data", life.sock).with_byte(last) for place in _UP]
    found = [message for message in messages if message is not None]
    if not found or found[0].mono < one.mono:  # it had come before
        return None
    return End(found, streams.leg(_DOWN[2], "Consumed", life.sock).with_byte(last))


def _opens(collection: Collection, one: Fact) -> bool:
    """Whether this segment made the connection ESTABLISHED."""
    told = [told.event.data.get("new") for told in collection.told.get(one.id, ()) if told.event.kind == "state"]
    return "ESTABLISHED" in told or (one.syn and one.has_ack)


def downward(collection: Collection, one: Fact) -> End | None:
    """What a segment of tcp came from. None if it holds nothing that is new: an ACK, a repetition."""
    streams = collection.streams
    if one.id in streams.again:
        return None
    if one.syn and not one.has_ack:
        asked = streams.connect(one)
        return _made(_back(streams, ("Connect", "connect"), asked.sock, asked.mono)) if asked is not None else None
    life = streams.life(one.conn, one.mono)
    if life is None or one.syn:
        return None
    near = streams.leg(_DOWN[0], "Send", life.sock).until(one.mono)
    first = life.offset(one.seq, near.end if near is not None else 0, ours=True)
    if one.length and first is not None:
        last = first + one.length - 1
        found = [streams.leg(place, "Send", life.sock).with_byte(last) for place in reversed(_DOWN)]
        if found[-1] is None or found[-1].mono > one.mono:
            return None
        return _made(message for message in found if message is not None)
    if one.fin or (one.rst and not one.causes):
        kinds = ("Eof", "Close", "shutdown", "close") if one.fin else ("Reset", "Close", "close")
        return _made(_back(streams, kinds, life.sock, one.mono))
    return None


def datagram(collection: Collection, one: Fact) -> End | None:
    """What a Datagram or Failed that came to the gateway became, or what a SendTo that left it was."""
    streams = collection.streams
    if one.type == "SendTo":
        return _made([before] if (before := streams.sent.get(one.id)) is not None else [])
    found = streams.told(one)
    return End([found], streams.taken(found) if found.type == "DatagramIn" else None) if found is not None else None


def _made(messages: Iterable[Fact]) -> End | None:
    found = list(messages)
    return End(found) if found else None


def _each(streams: Streams, places: Sequence[Place], kinds: Sequence[str], sock: int, *, since: int) -> Iterator[Fact]:
    """At each place the first of these kinds since what came before."""
    for place in places:
        legs = (streams.leg(place, kind, sock) for kind in kinds)
        found = min((one for leg in legs if (one := leg.since(since)) is not None), key=_mono, default=None)
        if found is not None:
            since = found.mono - _ROUND
            yield found


def _back(streams: Streams, kinds: Sequence[str], sock: int, until: int) -> Iterator[Fact]:
    """The last of these kinds at each place before what came after it, in the order of the way."""
    found: list[Fact] = []
    for place in _DOWN:
        legs: list[Leg] = [streams.leg(place, kind, sock) for kind in kinds]
        newest = max((one for leg in legs if (one := leg.until(until)) is not None), key=_mono, default=None)
        if newest is not None:
            until = newest.mono + _ROUND
            found.insert(0, newest)
    yield from found


def _mono(one: Fact) -> int:
    return one.mono
