"""What addons did to packets, as far as their processes told: it stands beside what is found, as no rule can judge it.

An addon may be a middlebox on trial or a person's experiment; whether what it does is wrong shows in what follows.
"""

from __future__ import annotations

from collections import Counter

from levelip.debug.collection import Collection, Conversation, Told
from levelip.debug.facts import Fact
from levelip.tracing import reasons

_DROPPED = "dropped"
_MOST = 3  # of what was done to one packet


def deed(told: Told) -> str:
    """What an event says that an addon did to a packet: "dropped", "changed", "delayed", "repeated", "made"; empty: it
    is another."""
    event = told.event
    if event.kind == "drop":
        return _DROPPED if event.reason == reasons.ADDON_DROP.name else ""
    return str(event.data.get("what", "")) if event.kind == "addon" and "seam" in event.data else ""


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


def deeds_text(talk: Conversation) -> str:
    """ "shaper changed 7 packets at link ↑, lossy dropped 1 at link ↓"; empty: none did anything."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for told in talk.events:
        if what := deed(told):
            data = told.event.data
            place = f"{data.get('seam', '?')} {'↑' if data.get('way') == 'up' else '↓'}"
            counts[str(data.get("addon", "one")), what, place] += 1
    said: list[str] = []
    for (addon, what, place), count in counts.items():
        packets = "" if said else " packet" + "s" * (count > 1)
        said.append(f"{addon} {what} {count}{packets} at {place}")
    return ", ".join(said)
