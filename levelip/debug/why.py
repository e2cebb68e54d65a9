"""`lvlip why`: the story of a packet or connection in sentences, with what went wrong first and by which rule.

Records come from any source (a live tap, a trace, later a recording); nothing here asks the stack.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field

from levelip.debug.collection import Collection, Conversation, Told
from levelip.debug.facts import Fact
from levelip.debug.findings import Finding
from levelip.debug.journeys import journey, journey_lines
from levelip.debug.rules import addons, delivery, faults, handshake, inside, intruders, neighbours, windows
from levelip.debug.rules.case import Case, ms
from levelip.debug.traces import frame_ids
from levelip.frames.packet import format_frame_id
from levelip.tracing.formatting import sentence
from levelip.wire.addr import parse_address

_PARTS = (faults, handshake, neighbours, delivery, windows, intruders, inside)
RULES = tuple(rule for part in _PARTS for rule in part.RULES)


_NOTICES = 3
_LAST_PORT = 65_535
_GAPS = ("left out", "forgotten", "no further", "torn")
"""What notices say that tell of records which are missing."""


class Unknown(ValueError):
    """What was asked about does not occur in the records; the text says what does."""


@dataclass
class Story:
    """What `why` has to tell. `findings`: the first is the cause; `consequences`: what follows from those."""

    subject: str
    sentences: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    consequences: list[Finding] = field(default_factory=list)

    @property
    def cause(self) -> Finding | None:
        """The finding to begin with."""
        return self.findings[0] if self.findings else None

    @property
    def first_wrong(self) -> Fact | None:
        """The first wrong packet."""
        return self.findings[0].packet if self.findings else None


def investigate(collection: Collection, conversation: Conversation) -> tuple[list[Finding], list[Finding]]:
    """(findings, what merely follows from them), the likeliest cause first: the certain before the likely, then the
    earlier before the later."""
    case = Case(collection, conversation)
    found = [finding for rule in RULES for finding in rule(case)]
    explained = {id(other) for finding in found for other in found if _explains(finding, other)}
    found += addons.own_changes(case, [one for one in found if id(one) not in explained])
    explaining = {id(finding) for finding in found for other in found if _explains(finding, other)}
    explained = {id(other) for finding in found for other in found if _explains(finding, other)}
    found = [one for one in found if one.name not in faults.HARMLESS or id(one) in explaining]
    for finding in found:
        finding.because += [sentence(told.event) for told in addons.deeds_on(collection, finding.packet)]
    causes = _ordered([one for one in found if id(one) not in explained])
    return causes, sorted((one for one in found if id(one) in explained), key=lambda one: one.at)


def _explains(finding: Finding, other: Finding) -> bool:
    if other.fault and finding.name == faults.NAMES[other.fault][0]:
        return True
    if other is finding or other.name not in finding.kind.explains:
        return False
    if finding.name == "half_open" and other.name == "discarded":
        return other.packet is not None and other.packet is finding.packet
    if finding.name == "own_change":
        return any(one is other for one in finding.led_to)
    if finding.name != "vanished_inside" or finding.packet is None or other.packet is None:
        return True
    return finding.packet.up == other.packet.up  # what is lost on the way out explains no hole in what comes


_MINOR = frozenset(
    {"segment_lost", "peer_segment_lost", "spurious_retransmission", "discarded", "reset_by_us", "our_zero_window"}
)
"""What is so often a consequence of something else that it comes after what is not."""


def _ordered(found: list[Finding]) -> list[Finding]:
    """The likeliest cause first. What lvlip fault did stands together, at the time of the first of it, and what was
    lost before what was merely delayed."""
    own_at = min((one.at for one in found if one.name in faults.STRENGTH), default=0)

    def rank(finding: Finding) -> tuple[bool, bool, int, int]:
        strength = faults.STRENGTH.get(finding.name, -1)
        return finding.name in _MINOR, not finding.certain, own_at if strength >= 0 else finding.at, strength

    return sorted(found, key=rank)


def why(collection: Collection, subject: str) -> list[Story]:
    """The stories about a subject: a frame id, a connection ("10.0.0.2:80>10.0.0.1:4711"), an address with port, or a
    port. Unknown if the records know nothing of it."""
    id_ = frame_ids(subject)
    if id_ is not None:
        return [packet_story(collection, id_)]
    chosen = [talk for talk in collection.conversations.values() if matches(talk.name, subject)]
    if not chosen:
        raise Unknown(_unknown(collection, subject))
    return [connection_story(collection, talk) for talk in chosen]


def is_subject(text: str) -> bool:
    """Whether something can be asked about: by its looks a frame id, connection, end, address or port."""
    if frame_ids(text) is not None:
        return True
    ends = text.replace(" ", "").split(">")
    if len(ends) > 1:
        return len(ends) == 2 and all(_is_end(one) for one in ends)
    return _is_port(text.strip().removeprefix(":")) or _is_address(ends[0]) or _is_end(ends[0])


def _is_end(text: str) -> bool:
    address, _, port = text.rpartition(":")
    return _is_address(address) and _is_port(port)


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= len("65535") and int(text) <= _LAST_PORT


def matches(name: str, subject: str) -> bool:
    """Whether a connection is what was asked for."""
    wanted = subject.replace(" ", "").removeprefix(":")  # as ss takes a port
    ends = name.split(">")
    if ">" in wanted:
        return wanted == name or ">".join(reversed(wanted.split(">"))) == name
    if ":" in wanted:
        return wanted in ends
    if wanted.isdigit():
        return any(end.rpartition(":")[2] == wanted for end in ends)
    return any(end.rpartition(":")[0] == wanted for end in ends)


def _unknown(collection: Collection, subject: str) -> str:
    names = list(collection.conversations)
    told = "".join(f"\n  {notice.text}" for notice in collection.notices[:_NOTICES])  # as that a recording is torn
    if not names:
        return f"nothing of {subject} was recorded: there were no connections in {len(collection.facts)} frames{told}"
    near = difflib.get_close_matches(subject, names, n=3, cutoff=0.3) or names[:3]
    there = f"are {len(names)} connections, such as" if len(names) > 1 else "is one connection,"
    return f"nothing of {subject} was recorded; there {there} {', '.join(near)}{told}"


# a connection


def connection_story(collection: Collection, talk: Conversation) -> Story:
    """From SYN to the end."""
    story = Story(talk.name)
    story.findings, story.consequences = investigate(collection, talk)
    story.sentences = list(_sentences(collection, talk))
    return story


def _sentences(collection: Collection, talk: Conversation) -> Iterator[str]:
    segs = talk.segs()
    if not segs:
        yield f"No packet of {talk.name} was seen at {collection.wire}, only {len(talk.events)} events."
    else:
        yield from _opened(talk)
        yield from _moved(talk)
    yield from _hands(talk)
    yield from _ended(talk)
    lost = [notice.text for notice in collection.notices if any(word in notice.text for word in _GAPS)]
    if lost:
        yield f"Beware: the records have gaps ({'; '.join(lost[:3])}), so that what was not seen may have been there."


def _opened(talk: Conversation) -> Iterator[str]:
    ours, theirs = talk.ours.syn, talk.theirs.syn
    if ours is None and theirs is None:
        yield f"The records begin in the midst of {talk.name}: its SYNs were not seen, so that windows are not scaled."
        return
    passive = theirs is not None and not theirs.has_ack
    opener, answer = (theirs, ours) if passive else (ours, theirs)
    if opener is None:
        yield f"{talk.name}: only the answer to its SYN was seen."
        return
    who = "The peer" if passive else "We"
    if answer is None:
        yield f"{who} opened {talk.name} with {opener.name}; no SYN-ACK was seen (RFC 9293 3.5)."
        return
    yield (
        f"{who} opened {talk.name} with {opener.name}; the answer, {answer.name}, came {ms(answer.mono - opener.mono)} "
        "later (RFC 9293 3.5)."
    )
    agreed, refused = [], []
    if ours is not None and theirs is not None:
        mine, yours = ours.options, theirs.options
        agreed.append(f"MSS {mine.mss or 536} (ours) and {yours.mss or 536} (RFC 9293 3.7.1)")
        for name, a, b, rfc in (
            ("window scale", mine.wscale, yours.wscale, "RFC 7323 2"),
            ("SACK", mine.sack_permitted or None, yours.sack_permitted or None, "RFC 2018"),
            ("timestamps", mine.timestamps, yours.timestamps, "RFC 7323 3"),
        ):
            if a is not None and b is not None:
                agreed.append(f"window scale {a} and {b} ({rfc})" if name == "window scale" else f"{name} ({rfc})")
            elif a is not None or b is not None:
                refused.append(f"{name} was offered by {'us' if a is not None else 'the peer'} alone ({rfc})")
        yield f"Agreed on: {', '.join(agreed)}." + (f" But {'; '.join(refused)}." if refused else "")


def _moved(talk: Conversation) -> Iterator[str]:
    for who, side, other in (("We", talk.ours, talk.theirs), ("The peer", talk.theirs, talk.ours)):
        data = [seg for seg in side.segs if seg.fact.length]
        if not data:
            continue
        high = max(seg.end - seg.fact.fin for seg in data) - 1
        took = data[-1].mono - data[0].mono
        acked = max((seg.ack for seg in other.segs), default=0) - 1
        yield (
            f"{who} sent {high} bytes in {len(data)} segment"
            + (f"s within {ms(took)}" if len(data) > 1 else "")
            + (f", of which {min(high, max(acked, 0))} are acknowledged" if acked < high else "")
            + "."
        )
    again = list(talk.kinds("retransmit"))
    if again:
        why_ = dict.fromkeys(str(told.event.data.get("why")) for told in again)
        timeouts = sum(1 for _ in talk.kinds("rto"))
        yield (
            f"We sent {len(again)} segment{'s' * (len(again) > 1)} again ({', '.join(why_)})"
            + (f", after {timeouts} retransmission timeout{'s' * (timeouts > 1)} (RFC 6298 5)" if timeouts else "")
            + "."
        )


def _hands(talk: Conversation) -> Iterator[str]:
    if deeds := addons.deeds_text(talk):
        yield f"Addons had a hand in it (lvlip addon list): {deeds}."
    if deeds := addons.deeds_text(talk, by_hand=True):
        yield f"A debugger had a hand in it (lvlip held, inject): {deeds}."


def _ended(talk: Conversation) -> Iterator[str]:
    states = list(talk.kinds("state"))
    if states:
        way = [str(states[0].event.data.get("old")), *(str(told.event.data.get("new")) for told in states)]
        yield f"States: {' → '.join(way)} (RFC 9293 3.3.2)."


# a packet


def packet_story(collection: Collection, id_: int) -> Story:
    """One packet: its way, what was decided on it, what it caused, and whether it is the first wrong one of a fault."""
    known = collection.by_id.get(id_)
    if not known and id_ not in collection.told:
        raise Unknown(f"no frame {format_frame_id(id_)} was recorded, among {len(collection.facts)}")
    story = Story(format_frame_id(id_))
    if known:
        story.sentences += journey_lines(collection, journey(collection, id_))
    else:
        story.sentences += [f"{told.process}: {sentence(told.event)}" for told in collection.told[id_]]
    talk = collection.conversations.get(collection.conn_of(id_))
    kin = {id_, *collection.ancestors(id_), *_descendants(collection, id_)}
    if talk is None or not talk.segs():  # ARP, ICMP, UDP: what was done to this packet is all that can be wrong
        told = [one for frame in kin for one in collection.told.get(frame, ())]
        story.findings += faults.findings(collection, told)
        drops = [one for one in told if one.event.kind == "drop" and not faults.what_fault(one)]
        story.findings += [inside.discard(collection, one) for one in drops]
        story.findings = _ordered(story.findings)
    else:
        found, follow = investigate(collection, talk)
        story.findings = [one for one in found if one.packet is not None and one.packet.id in kin]
        story.consequences = [one for one in follow if one.packet is not None and one.packet.id in kin]
        if not story.findings and found:
            story.sentences.append(
                f"Nothing is wrong with it by itself; of its connection {talk.name}: {found[0].kind.title}"
                + (f" (first wrong packet {found[0].packet.name})" if found[0].packet is not None else "")
                + "."
            )
    return story


def _descendants(collection: Collection, id_: int, *, most: int = 64) -> list[int]:
    found: list[int] = []
    todo = [id_]
    while todo and len(found) < most:
        for child in collection.caused.get(todo.pop(), ()):
            if child not in found:
                found.append(child)
                todo.append(child)
    return found


def story_lines(story: Story) -> list[str]:
    """The story as text."""
    lines = [*story.sentences]
    if not story.findings:
        lines.append("Nothing is wrong, as far as these records go.")
    for number, finding in enumerate(story.findings):
        kind = finding.kind
        lines.append("")
        sure = "" if finding.certain else "likely: "
        lines.append(f"{'CAUSE' if not number else 'ALSO'}  {sure}{kind.title}  [{finding.name}]")
        lines.append(f"    {finding.says}.")
        if finding.packet is not None:
            fact = finding.packet
            lines.append(f"    first wrong packet: {fact.name}, {fact.seam} {'↑' if fact.up else '↓'} {fact.text()}")
        lines += [f"    - {reason}" for reason in finding.because]
        lines.append(f"    rule: {finding.rule}")
        lines.append(f"    do: {finding.advice}")
    if story.consequences:
        lines.append("")
        lines += [f"    so followed: {one.kind.title}: {one.says}" for one in story.consequences]
    return lines


__all__ = ["Story", "Told", "Unknown", "connection_story", "investigate", "packet_story", "story_lines", "why"]
