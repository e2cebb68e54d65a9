"""Resets and SYNs that do not belong: RFC 5961, and what gives a forger away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from levelip.debug.collection import Seg, Told
from levelip.debug.facts import Fact
from levelip.debug.findings import Finding
from levelip.debug.rules import addons
from levelip.debug.rules.case import Case, ms
from levelip.tracing.reasons import lookup


def resets(case: Case) -> Iterator[Finding]:
    """A RST that ended the connection: of the peer, or of somebody else?"""
    talk, ignored = case.conversation, case.discarded
    own = _own_reset(case)
    if own is not None:
        yield own
        return
    opened = any(not seg.fact.rst and not seg.fact.syn for seg in talk.theirs.segs)
    rst = next((seg for seg in talk.theirs.segs if seg.fact.rst and seg.fact.id not in ignored), None)
    if rst is not None and (opened or any(seg.fact.syn for seg in talk.theirs.segs)):
        signs = _forged(rst, talk.theirs.segs)
        yield Finding(
            "reset_forged" if signs else "reset_by_peer",
            f"{rst.fact.name} is a RST" + (", and the peer goes on as if it knew nothing of it" if signs else ""),
            rst.fact,
            rst.mono,
            signs,
            certain=len(signs) > 1 or not signs,
        )
    told = next((told for told in talk.kinds("reset") if told.event.data.get("sent")), None)
    if told is not None and rst is None:
        sent = next((seg for seg in talk.ours.segs if seg.fact.rst), None)
        cause = case.collection.origin(told.event.frame)
        yield Finding(
            "reset_by_us",
            "we sent a RST" + (f", because of {cause.name}" if cause is not None else ""),
            cause if cause is not None else sent.fact if sent is not None else None,
            told.mono,
        )


def _own_reset(case: Case) -> Finding | None:
    """A RST that came to tcp because a debugger or an addon made it, or made it of another packet."""
    collection = case.collection
    told = next((told for told in case.conversation.kinds("reset") if not told.event.data.get("sent")), None)
    rst = None if told is None else collection.origin(told.event.frame)
    if told is None or rst is None:
        return None
    deeds = [one for one in addons.deeds_on(collection, rst) if addons.deed(one) in addons.MAKE_OTHERS]
    if not deeds or not any(addons.deed(one) == "made" or _made_reset(one) for one in deeds):
        return None
    who = addons.doer(deeds[0])
    return Finding("own_change", f"{who} made {rst.name}, a RST, which ended the connection", rst, rst.mono)


def _made_reset(told: Told) -> bool:
    changed = {str(one).partition("=")[0] for one in told.event.data.get("changes", ())}
    return not changed.isdisjoint(("tcp.flags", "tcp.flags.reset"))


def _forged(rst: Seg, segs: list[Seg]) -> list[str]:
    """What speaks against the peer as its sender."""
    signs = []
    after = [seg for seg in segs if seg.mono > rst.mono and not seg.fact.rst]
    if after:
        signs.append(
            f"{len(after)} more segments of the peer came after it, the first {after[0].fact.name}, "
            f"{ms(after[0].mono - rst.mono)} later: who sends a RST has forgotten the connection"
        )
    others = [seg for seg in segs if seg is not rst and not seg.fact.rst]
    ttls = Counter(seg.fact.ttl for seg in others if seg.fact.ttl)
    if ttls and rst.fact.ttl and rst.fact.ttl not in ttls:
        signs.append(f"its TTL is {rst.fact.ttl}, that of all other packets of the peer {ttls.most_common(1)[0][0]}")
    return signs


def strays(case: Case) -> Iterator[Finding]:
    """Those that we ignored."""
    outside = [(told, fact) for told, fact in case.drops("tcp_rst_outside", "tcp_rst_guessed")]
    if outside:
        told, fact = outside[0]
        yield Finding(
            "stray_reset",
            f"{len(outside)} RST{'s' * (len(outside) > 1)} that did not fit ({told.event.reason})",
            fact,
            told.mono,
            certain=True,
        )
    yield from _late_syns(case)


def _late_syns(case: Case) -> Iterator[Finding]:
    """SYNs of the peer after segments of it that only an open connection has."""
    talk = case.conversation
    opened = next((seg for seg in talk.theirs.segs if not seg.fact.syn and not seg.fact.rst), None)
    late = [seg.fact for seg in talk.theirs.segs if seg.fact.syn and opened is not None and seg.mono > opened.mono]
    if not late:
        return
    fact = late[0]
    became = [
        told.event.reason
        for told in case.conversation.kinds("drop")
        if (origin := case.collection.origin(told.event.frame)) is not None and origin.id == fact.id
    ]
    yield Finding("syn_on_open", _syn(case, fact), fact, fact.mono, [
        *([f"{len(late)} in all"] if len(late) > 1 else []),
        *(f"discarded: {lookup(reason) or reason}" for reason in became),
    ])  # fmt: skip


def _syn(case: Case, fact: Fact) -> str:
    first = case.conversation.theirs.syn
    if first is None:
        return f"{fact.name} is a SYN on the open connection"
    if fact.seq == first.seq:
        return (
            f"{fact.name} is the peer's SYN once more (number {fact.seq}), {ms(fact.mono - first.mono)} after the "
            "first: an old duplicate"
        )
    return (
        f"{fact.name} is a SYN with number {fact.seq}, the peer's had {first.seq}: the peer has started anew, or "
        "somebody forged it"
    )


RULES = (resets, strays)
