"""What addons, and persons with a debugger, did to packets: it is always told, beside what is found.

An addon may be a middlebox on trial or a person's experiment: what it does is a cause only where something went wrong
that follows from it, which is where the packets that it changed so were all lost or refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from levelip.debug.collection import Collection, Conversation, Told
from levelip.debug.facts import Fact
from levelip.debug.findings import KINDS, Finding
from levelip.debug.rules.case import Case, overlap
from levelip.tracing import reasons

_DROPPED = "dropped"
_DEBUGGER = "a debugger"
MAKE_OTHERS = ("changed", "made")
_AT_THE_DESTINATION = ("refused", "reset_by_peer")
"""What an answer says to a packet that came to somebody: of changes, those of where it goes lead to it."""
_DESTINATION = ("ip.dst", "tcp.dstport", "tcp.port", "ip.addr")
_MOST = 3  # of what was done to one packet


def deed(told: Told) -> str:
    """What an event says that an addon did to a packet: "dropped", "changed", "delayed", "repeated", "made"; empty: it
    is another. A debugger's deeds are told alike."""
    event = told.event
    if event.kind == "drop":
        return _DROPPED if event.reason in (reasons.ADDON_DROP.name, reasons.DEBUG_DROP.name) else ""
    return str(event.data.get("what", "")) if event.kind in ("addon", "hand") and "seam" in event.data else ""


def claimed(collection: Collection, *packets: Fact) -> bool:
    """Whether somebody says that he changed or made one of these."""
    ids = {packet.id for packet in packets}
    return any(deed(told) in MAKE_OTHERS for id_ in ids for told in collection.told.get(id_, ()))


def deeds_on(collection: Collection, packet: Fact | None) -> list[Told]:
    """What was done to a packet on its way through the stack, if not too often to be told."""
    if packet is None:
        return []
    found = [told for id_ in _kin(collection, packet) for told in collection.told.get(id_, ()) if deed(told)]
    return sorted(found, key=lambda told: told.mono)[:_MOST]


def _kin(collection: Collection, packet: Fact) -> list[int]:
    """Its id, those of what it came of and of what it became, on the one way."""

    def same_way(id_: int) -> bool:
        return any(fact.up == packet.up for fact in collection.by_id.get(id_, ()))

    found = [packet.id]
    for id_ in found:  # which grows meanwhile
        found += [child for child in collection.caused.get(id_, ()) if child not in found and same_way(child)]
    return found + [id_ for id_ in collection.ancestors(packet.id) if id_ not in found and same_way(id_)]


def changed_field(collection: Collection, packet: Fact, field: str) -> bool:
    """Whether somebody says that he changed this field of a packet."""
    return any(field in _signature(told)[2] for told in deeds_on(collection, packet))


def own_changes(case: Case, found: Iterable[Finding]) -> Iterator[Finding]:
    """Changes that led to some of these findings, which nothing else explains: their packet was changed, and no packet
    that was changed so came through."""
    blamed: dict[Signature, tuple[Told, list[Finding]]] = {}
    for other in sorted(found, key=lambda one: one.at):
        if other.packet is None or other.name not in KINDS["own_change"].explains or other.fault:
            continue
        for told in _suspects(case, other):
            sign = _signature(told)
            if sign in blamed or not _came_through(case, sign):
                blamed.setdefault(sign, (told, []))[1].append(other)
    for (who, way, fields), (told, others) in blamed.items():
        yield Finding(
            "own_change",
            f"{who} changed {', '.join(fields) or 'it'} in packets {'that came' if way == 'up' else 'that we sent'}, "
            "and none that it changed so came through",
            next(iter(case.collection.by_id.get(told.event.frame, ())), others[0].packet),
            told.mono,
            certain=False,
            led_to=others,
        )


Signature = tuple[str, str, tuple[str, ...]]
"""Who changed packets, which way, and of what they are others: the names of fields."""


def _suspects(case: Case, other: Finding) -> list[Told]:
    """Changes of the packet that a finding is about; of an answer, changes of where what it answers went."""
    assert other.packet is not None
    if other.name not in _AT_THE_DESTINATION:
        return [told for told in deeds_on(case.collection, other.packet) if deed(told) == "changed"]
    return [
        told for told in case.conversation.events
        if deed(told) == "changed" and told.event.data.get("way") == "down" and told.mono < other.packet.mono
        and set(_signature(told)[2]) & set(_DESTINATION)
    ]  # fmt: skip


def _signature(told: Told) -> Signature:
    data = told.event.data
    fields = tuple(dict.fromkeys(str(one).partition("=")[0] for one in data.get("changes", ())))
    return doer(told), str(data.get("way", "")), fields


def _came_through(case: Case, sign: Signature) -> bool:
    """Whether a packet that was changed so was acknowledged before it was sent again."""
    changed: dict[int, list[dict[str, Any]]] = {}
    for told in case.conversation.events:
        if deed(told) == "changed" and _signature(told) == sign:
            changed.setdefault(told.event.frame, []).append(told.event.data)
    for one in case.sent if sign[1] == "down" else case.came:
        if not one.delivered:
            continue
        fact = one.seg.fact
        for id_ in _kin(case.collection, fact):
            for data in changed.get(id_, ()):  # pieces of a super-segment share an id
                if "seq" not in data or overlap(data["seq"], data.get("length", 0), fact.seq, fact.room):
                    return True
    return False


def doer(told: Told) -> str:
    """ "addon shaper", or "a debugger"."""
    data = told.event.data
    return f"addon {data['addon']}" if "addon" in data else _DEBUGGER


def deeds_text(talk: Conversation, *, by_hand: bool = False) -> str:
    """ "shaper changed 7 packets at link ↑, lossy dropped 1 at link ↓"; empty: none did anything. `by_hand`: what
    debuggers did, instead of addons."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for told in talk.events:
        if (what := deed(told)) and by_hand is (doer(told) == _DEBUGGER):
            data = told.event.data
            place = f"{data.get('seam', '?')} {'↑' if data.get('way') == 'up' else '↓'}"
            counts["" if by_hand else str(data.get("addon", "one")), what, place] += 1
    said: list[str] = []
    for (addon, what, place), count in counts.items():
        packets = "" if said else " packet" + "s" * (count > 1)
        said.append(f"{addon} {what} {count}{packets} at {place}".lstrip())
    return ", ".join(said)
