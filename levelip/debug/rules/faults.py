"""What lvlip fault did to packets of the connection: it is named as the cause, and nothing is guessed instead."""

from __future__ import annotations

from collections.abc import Iterator

from levelip.debug.collection import Collection, Told
from levelip.debug.findings import Finding
from levelip.debug.rules.case import Case, what_fault
from levelip.tracing.formatting import sentence

NAMES = {
    "loss": ("own_loss", "lost"), "corrupt": ("own_corruption", "damaged"), "delay": ("own_delay", "delayed"),
    "reorder": ("own_reordering", "kept back"), "dup": ("own_duplication", "sent twice"),
}  # fmt: skip
"""What a fault does → the finding, and the word for it."""
STRENGTH = {name: number for number, (name, _) in enumerate(NAMES.values())}
"""Finding → its place among those: the earlier explains more."""
HARMLESS = frozenset({"own_delay", "own_reordering", "own_duplication"})
"""Worth telling of only where something followed."""
_EXAMPLES = 4


def own_faults(case: Case) -> Iterator[Finding]:
    """One finding for each thing that was done."""
    found = [*case.faults, *_of_neighbour(case)]
    yield from findings(case.collection, found)


def findings(collection: Collection, found: list[Told]) -> Iterator[Finding]:
    """Of events, what each kind of fault did."""
    for what, (name, word) in NAMES.items():
        if done := [told for told in found if what_fault(told) == what]:
            yield _finding(collection, name, word, done)


def _finding(collection: Collection, name: str, word: str, done: list[Told]) -> Finding:
    ways: dict[str, int] = {}
    for told in done:
        data = told.event.data
        place = f"{data.get('seam', '?')} {'↑' if data.get('way') == 'up' else '↓'}"
        ways[place] = ways.get(place, 0) + 1
    where = ", ".join(f"{count} at {place}" for place, count in ways.items())
    return Finding(
        name,
        f"packets that lvlip fault has {word}: {where}",
        next((fact for told in done if (fact := collection.origin(told.event.frame))), None),  # a capture lacks some
        done[0].mono,
        [sentence(told.event) for told in done[:_EXAMPLES]],
    )


def _of_neighbour(case: Case) -> Iterator[Told]:
    """The same of ARP with the peer, which belongs to no connection."""
    for told in case.collection.once(_of_no_connection):
        data = told.event.data
        if case.conversation.remote in (data.get("src"), data.get("dst")):
            yield told


def _of_no_connection(collection: Collection) -> list[Told]:
    return [told for told in collection.events if what_fault(told) and not told.event.conn]


RULES = (own_faults,)

__all__ = ["HARMLESS", "NAMES", "RULES", "STRENGTH", "findings", "what_fault"]
