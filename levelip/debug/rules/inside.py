"""What happened within the stack: packets that differ from seam to seam, and discards that nothing else explains."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from levelip.debug.collection import Collection, Told
from levelip.debug.facts import Fact
from levelip.debug.findings import Finding
from levelip.debug.rules import addons
from levelip.debug.rules.case import MS, Case, last_seen
from levelip.tracing.reasons import Severity, lookup
from levelip.wire.tcp import CWR, FIN, PSH

_SPLIT = CWR | FIN | PSH  # flags that a piece of a super-segment may lack
_SETTLED = 50 * MS
"""A frame that went in so long before the end of the records should have come out."""


def changed(case: Case) -> Iterator[Finding]:
    """A frame and the one that it became at the next seam on its way, where nobody says that he changed it."""
    found = case.collection.once(_first_changes).get(case.conversation.name)
    if found is not None:
        was, one, differences = found
        said = f"{one.name} is not what {was.name} was"
        if one.id == was.id:  # both ends of a pipe
            said = f"{one.name} came to {one.process} otherwise than it had left {was.process}"
        yield Finding(
            "changed_inside",
            f"{said}: " + ", ".join(differences),
            one,
            one.mono,
            [f"{was.process}, {was.seam} {was.direction}: {was.text()}",
             f"{one.process}, {one.seam} {one.direction}: {one.text()}"],
        )  # fmt: skip


def _first_changes(collection: Collection) -> dict[str, tuple[Fact, Fact, list[str]]]:
    """Of each connection the first packet that is not what it was at the seam before, though no addon and no debugger
    says that he changed it: (that, this, what differs)."""
    found: dict[str, tuple[Fact, Fact, list[str]]] = {}
    for one in collection.facts:
        if not one.is_tcp:
            continue
        before = [fact for fact in _before(collection, one) if fact.is_tcp and fact.up == one.up]
        if len(before) != 1 or not (differences := _differ(before[0], one)):  # of several, it may be a piece of any
            continue
        if not addons.claimed(collection, before[0], one):
            for name in {one.conn, before[0].conn}:
                found.setdefault(name, (before[0], one, differences))
    return found


def _before(collection: Collection, one: Fact) -> list[Fact]:
    """What it was at the seam before: the frame that led to it, or itself at the other end of a pipe."""
    by_id = collection.by_id
    if one.direction == "in":
        here = [fact for fact in by_id[one.id] if fact.process != one.process and fact.direction == "out"]
        if here:
            return here
    return list({(fact.seam, fact.seq): fact for cause in one.causes[:1] for fact in by_id.get(cause, ())}.values())


def _differ(before: Fact, after: Fact) -> list[str]:
    pairs = [
        ("source", f"{before.src}:{before.sport}", f"{after.src}:{after.sport}"),
        ("destination", f"{before.dst}:{before.dport}", f"{after.dst}:{after.dport}"),
        ("ack", before.ack, after.ack),
        ("window", before.window, after.window),
        ("options", str(before.options), str(after.options)),
    ]
    if before.length == after.length:
        pairs.append(("seq", before.seq, after.seq))
    if before.flags & ~_SPLIT != after.flags & ~_SPLIT:
        pairs.append(("flags", before.letters, after.letters))
    return [f"{name} {old} → {new}" for name, old, new in pairs if old != new]


def vanished(case: Case) -> Iterator[Finding]:
    """On its way down it was seen to go into a process whose lower side is watched too, and nothing came out."""
    collection = case.collection
    end, watched = collection.once(last_seen) - _SETTLED, collection.once(_watched)
    missing: list[Fact] = []
    for one in _of(case):
        if one.mono > end or one.direction != "in" or not one.is_tcp:
            continue
        beyond = _beyond(one)
        if beyond is None or beyond not in watched or one.id in collection.told:
            continue
        if not any(
            fact.up == one.up for child in collection.caused.get(one.id, ()) for fact in collection.by_id.get(child, ())
        ):
            missing.append(one)
    if missing:
        one = missing[0]
        yield Finding(
            "vanished_inside",
            f"{one.name} went into {one.process} and nothing came out"
            + (f"; so did {len(missing) - 1} more" if len(missing) > 1 else ""),
            one,
            one.mono,
            certain=False,
        )


def never_left(case: Case) -> Iterator[Finding]:
    """What is sent again was never seen on the wire before: the first of it was lost between tcp and the device."""
    upper = _upper(case, up=False)
    if not upper or case.collection.wire == "ip-tcp":
        return
    lost = [one for one in case.sent if one.again and one.first is None and one.seg.fact.length]
    for one in lost:
        made = [fact for fact in upper if _covers(fact, one.seg.fact.seq) and fact.mono < one.mono]
        if len(made) < 2 or _discarded(case, made[0]):  # this transmission itself is one
            continue
        yield Finding(
            "vanished_inside",
            f"{case.numbers(one.seg)} left tcp as part of {made[0].name} and were never seen at "
            f"{case.collection.wire}; they were sent again as {one.seg.fact.name}"
            + (f"; so were parts of {len(lost) - 1} more" if len(lost) > 1 else ""),
            made[0],
            made[0].mono,
        )
        return


def _discarded(case: Case, one: Fact) -> bool:
    """Whether a reason was given for it, or for what it led to."""
    told = case.collection.told
    return any(each.event.kind == "drop" for id_ in _became(case, one) for each in told.get(id_, ()))


def _came_to_tcp(case: Case, one: Fact) -> bool:
    """Whether what it became was seen to go into tcp."""
    by_id = case.collection.by_id
    return any(
        (fact.process, fact.direction) == ("tcp", "in") for id_ in _became(case, one) for fact in by_id.get(id_, ())
    )


def _became(case: Case, one: Fact) -> Iterator[int]:
    """Its id, and those of all that it led to."""
    ids, seen = [one.id], {one.id}
    while ids:
        here = ids.pop()
        yield here
        ids += [child for child in case.collection.caused.get(here, ()) if child not in seen]
        seen.update(ids)


def never_arrived(case: Case) -> Iterator[Finding]:
    """Bytes that came from the network and did not reach tcp, without a reason given."""
    upper = _upper(case, up=True)
    if not upper or case.collection.wire == "ip-tcp":
        return
    end = case.collection.facts[-1].mono - _SETTLED
    starts = sorted((fact.seq, fact.seq + fact.length, fact.mono) for fact in upper)
    missing = []
    for one in case.came:
        fact = one.seg.fact
        if not fact.length or fact.mono > end or fact.seq + fact.length > 1 << 32:
            continue
        if _discarded(case, fact) or _came_to_tcp(case, fact):
            continue
        until = one.repeated.mono if one.repeated is not None else 1 << 63
        index = bisect_right(starts, (fact.seq, 1 << 33, 0))
        near = starts[max(0, index - 64) : index]
        if not any(low <= fact.seq < high and fact.mono <= mono < until for low, high, mono in near):
            missing.append(one)
    if missing:
        fact = missing[0].seg.fact
        yield Finding(
            "vanished_inside",
            f"{case.numbers(missing[0].seg)} came as {fact.name} and did not reach tcp"
            + (f"; nor did {len(missing) - 1} more segments" if len(missing) > 1 else ""),
            fact,
            fact.mono,
        )


def _upper(case: Case, *, up: bool) -> list[Fact]:
    """Data segments of the connection as tcp sees them."""
    return [
        fact
        for fact in _of(case)
        if fact.process == "tcp" and fact.seam == "ip-tcp" and fact.up == up and fact.length
    ]  # fmt: skip


def _of(case: Case) -> list[Fact]:
    """All records of the connection's frames, in their order."""
    return case.collection.once(_by_connection).get(case.conversation.name, [])


def _by_connection(collection: Collection) -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = {}
    for fact in collection.facts:
        if fact.conn:
            found.setdefault(fact.conn, []).append(fact)
    return found


def _watched(collection: Collection) -> set[tuple[str, str, str]]:
    """Where frames were seen: (process, seam, direction)."""
    return {(fact.process, fact.seam, fact.direction) for fact in collection.facts}


def _covers(fact: Fact, seq: int) -> bool:
    return (seq - fact.seq) & 0xFFFF_FFFF < fact.length


def _beyond(one: Fact) -> tuple[str, str, str] | None:
    """Where what a process takes in at a packet seam comes out again."""
    return {
        ("link", "link"): ("link", "link-ip", "out"),
        ("ip", "link-ip"): ("ip", "ip-tcp", "out"),
        ("ip", "ip-tcp"): ("ip", "link-ip", "out"),
        ("link", "link-ip"): ("link", "link", "out"),
    }.get((one.process, one.seam))


_TOLD = frozenset(
    {"tcp_checksum", "ip_bad_checksum", "tcp_rst_outside", "tcp_rst_guessed", "tcp_syn_inside", "arp_unanswered",
     "tcp_no_timestamp", "fault_loss"}
)  # fmt: skip
"""Reasons that other rules tell of."""


def discards(case: Case) -> Iterator[Finding]:
    """Whatever else was dropped and is more than the daily round."""
    done: set[str] = set()
    for told in case.conversation.events:
        event = told.event
        if event.kind != "drop" or event.reason in done or (event.reason in _TOLD and _told_of(case, event.reason)):
            continue
        reason = lookup(event.reason)
        if reason is not None and reason.severity is Severity.NORMAL and reason.layer != "ipc":
            continue
        done.add(event.reason)
        count = sum(other.event.reason == event.reason for other in case.conversation.events)
        yield discard(case.collection, told, count)


def _told_of(case: Case, reason: str) -> bool:
    """Whether the rule that tells of it has what it needs: of options that were agreed on, the SYNs."""
    return reason != "tcp_no_timestamp" or case.agreed_timestamps


def discard(collection: Collection, told: Told, count: int = 1) -> Finding:
    """The finding about a drop."""
    event = told.event
    fact = collection.origin(event.frame)
    return Finding(
        "discarded",
        f"{told.process} discarded {fact.name if fact is not None else 'a packet'}: "
        f"{lookup(event.reason) or event.reason}" + (f"; {count} times in all" if count > 1 else ""),
        fact,
        told.mono,
        reason=event.reason,
    )


RULES = (changed, vanished, never_left, never_arrived, discards)
