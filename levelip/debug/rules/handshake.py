"""What SYN and SYN-ACK said, against what the peer's later segments show: the mark of a middlebox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from levelip.debug.collection import Seg
from levelip.debug.findings import Finding
from levelip.debug.rules import addons
from levelip.debug.rules.case import MS, Case, last_seen, ms

_MUCH = 16
"""A first window so many times larger than the SYN's is no growth; ours grow to 4 times at once."""
_MAX_SHIFT = 14  # RFC 7323 2.3


def window_scale(case: Case) -> Iterator[Finding]:
    """The first window after the handshake must not lie below the one in the SYN (RFC 9293 SHLD-14), nor far above."""
    talk = case.conversation
    syn = talk.theirs.syn
    plain = (seg for seg in talk.theirs.segs if not seg.fact.syn and not seg.fact.rst and seg.edge is not None)
    first = next(plain, None)
    if syn is None or talk.ours.syn is None or first is None or not first.fact.window or not syn.window:
        return
    if syn.options.wscale is None and talk.ours.syn.options.wscale is None:
        return  # who was not offered it does not scale (RFC 7323 2.2)
    granted = next(seg for seg in talk.theirs.segs if seg.fact is syn)
    shift = talk.scale_of(talk.theirs)
    begin = max(granted.ack, 1)
    assert first.edge is not None
    consumed = first.ack - begin
    now, before = first.edge - begin, syn.window
    near = before * 85 // 100
    if consumed > before:
        return
    said = f"scale {syn.options.wscale}" if syn.options.wscale is not None else "no window scale"
    if now < before * 6 // 10:
        fits = next((k for k in range(shift + 1, _MAX_SHIFT + 1) if consumed + (first.fact.window << k) >= near), None)
        if fits is None:
            return
        yield Finding(
            "window_scale_wrong",
            f"the peer's SYN said {said}, so that its next window field {first.fact.window} means "
            f"{first.window} bytes; with scale {fits} or more it is at least the {before} of its SYN",
            syn,
            syn.mono,
            [
                f"{first.fact.name}: window {first.fact.window}, and we take that for {first.window} bytes",
                f"window of the SYN, which is never scaled: {before}",
                "no peer takes back half of its window before it has read a byte (SHLD-14)",
            ],
        )
    elif now > before * _MUCH:
        fits = next((k for k in range(shift) if consumed + (first.fact.window << k) >= near), None)
        if fits is None:
            return
        yield Finding(
            "window_scale_wrong",
            f"the peer's SYN said {said}, so that its next window field {first.fact.window} means "
            f"{first.window} bytes; with scale {fits} it is {first.fact.window << fits}, near the {before} of its SYN",
            syn,
            syn.mono,
            [
                f"{first.fact.name}: window {first.fact.window}, and we take that for {first.window} bytes",
                f"window of the SYN, which is never scaled: {before}",
            ],
            certain=False,
        )


def mss(case: Case) -> Iterator[Finding]:
    """A peer whose packets are larger than the MSS it announced can receive such packets as well."""
    talk = case.conversation
    syn, ours = talk.theirs.syn, talk.ours.syn
    if syn is None:
        return
    said = syn.options.mss
    limit = 536 if said is None else said  # RFC 9293 3.7.1 MUST-15
    largest = max(talk.theirs.segs, key=lambda seg: seg.fact.ip_length - 40, default=None)
    mine = ours.options.mss if ours is not None else None
    if largest is not None and largest.fact.length and largest.fact.ip_length - 40 > limit:
        yield Finding(
            "mss_rewritten",
            f"the peer's SYN said {'no MSS, which means 536' if said is None else f'MSS {said}'}, and the peer itself "
            f"sends packets of {largest.fact.ip_length} bytes, as for an MSS of {largest.fact.ip_length - 40} or more",
            syn,
            syn.mono,
            [f"{largest.fact.name}: {largest.fact.length} bytes of data in a packet of {largest.fact.ip_length}"]
            + ([f"our SYN said MSS {mine}"] if mine else []),
            certain=False,
        )
    sizes = Counter(one.seg.fact.ip_length for one in case.came if one.seg.fact.length and not one.again)
    if mine is None or ours is None or not sizes or addons.changed_field(case.collection, ours, "tcp.options.mss_val"):
        return  # or it was an addon here, which is known
    top = max(sizes)
    if sizes[top] >= 4 and top - 40 < min(mine, limit) - 40 and sizes[top] * 2 > sum(sizes.values()):
        yield Finding(
            "our_mss_rewritten",
            f"our SYN said MSS {mine}, and the peer's full segments are packets of {top} bytes, as for MSS {top - 40}",
            ours,
            ours.mono,
            [f"{sizes[top]} segments of the peer have exactly this size, none is larger",
             f"the peer's own MSS is {limit}"],
            certain=False,
        )


def options(case: Case) -> Iterator[Finding]:
    """An option that later segments carry was agreed on by the peer: its SYN had it when it left."""
    talk = case.conversation
    syn, ours = talk.theirs.syn, talk.ours.syn
    if syn is None or ours is None:
        return
    later = [seg for seg in talk.theirs.segs if not seg.fact.syn]
    missing: list[tuple[str, Seg]] = []
    stamped = next((seg for seg in later if seg.fact.options.timestamps), None)
    if stamped is not None and ours.options.timestamps and not syn.options.timestamps:
        missing.append(("timestamps (RFC 7323 3.2)", stamped))
    sacking = next((seg for seg in later if seg.fact.options.sack), None)
    if sacking is not None and ours.options.sack_permitted and not syn.options.sack_permitted:
        missing.append(("SACK-permitted (RFC 2018 2)", sacking))
    if not missing and ours.options.timestamps and not syn.options.timestamps and not later:
        repeats = [one for one in case.sent if one.again and not one.seg.fact.syn]
        if len(repeats) >= 2:
            yield Finding(
                "options_stripped",
                "the SYN-ACK came without timestamps, though our SYN offered them, and since then nothing that we send "
                "without them is answered: a peer that believes them agreed on discards it",
                syn,
                syn.mono,
                [f"our SYN offered [{ours.options}], what came back was [{syn.options}]",
                 f"{len(repeats)} segments were sent again, and nothing has come since {syn.name}"],
                certain=False,
            )  # fmt: skip
    if missing:
        yield Finding(
            "options_stripped",
            f"the peer's SYN came without {' and '.join(name for name, _ in missing)}, and yet the peer uses it",
            syn,
            syn.mono,
            [f"{seg.fact.name} carries [{seg.fact.options}]" for _, seg in missing]
            + [f"our SYN offered [{ours.options}], what came back was [{syn.options}]"],
        )
    if case.agreed_timestamps:
        bare = [seg for seg in later if not seg.fact.options.timestamps and not seg.fact.rst]
        if bare:
            yield Finding(
                "timestamps_missing",
                f"both SYNs had timestamps, but {len(bare)} of the peer's {len(later)} segments had none",
                bare[0].fact,
                bare[0].mono,
                ["once agreed on, each segment but a RST must carry one; we discard it (reason tcp_no_timestamp)"],
            )
    if case.agreed_sack:
        yield from _sack_missing(case)


def _sack_missing(case: Case) -> Iterator[Finding]:
    """Three ACKs in a row that repeat while something of ours is beyond, none with a block (RFC 2018 4)."""
    repeats: list[Seg] = []
    last: Seg | None = None
    high = 0
    for seg in case.conversation.segs():
        if not seg.fact.up:
            high = max(high, seg.end)
            continue
        if seg.fact.options.sack:
            return
        same = last is not None and seg.ack == last.ack and seg.window == last.window and not seg.fact.room
        if same and high > seg.ack:
            repeats.append(seg)
            if len(repeats) >= 3:
                yield Finding(
                    "sack_missing",
                    f"the peer repeats its ACK, ack {seg.ack}, and never says what lies beyond",
                    repeats[0].fact,
                    repeats[0].mono,
                    [f"{', '.join(one.fact.name for one in repeats)}: duplicate ACKs without a block"],
                )
                return
        else:
            repeats = []
        last = seg


def opening(case: Case) -> Iterator[Finding]:
    """SYNs that nobody answers, late, or with a reset."""
    talk = case.conversation
    syns = [one for one in case.sent if one.seg.fact.syn]
    if not syns:
        return
    first = syns[0].seg
    answers = [seg for seg in talk.theirs.segs if seg.mono > first.mono]
    if not answers:
        waited = case.collection.once(last_seen) - first.mono
        if len(syns) > 1 or waited > 500 * MS:
            yield Finding(
                "syn_unanswered",
                f"{len(syns)} SYN{'s' * (len(syns) > 1)} in {ms(syns[-1].mono - first.mono)}, and nothing has come "
                f"from {talk.remote}",
                first.fact,
                first.mono,
                [f"{one.seg.fact.name}" for one in syns[:6]],
                certain=False,
            )
    elif answers[0].fact.rst:
        yield Finding(
            "refused",
            f"{answers[0].fact.name} is a RST, {ms(answers[0].mono - first.mono)} after our SYN",
            answers[0].fact,
            answers[0].mono,
        )
    elif len(syns) > 1 and not first.fact.has_ack and syns[1].mono < answers[0].mono and not any(half_open(case)):
        yield Finding(
            "syn_lost",
            f"our SYN was sent {len(syns)} times before an answer came, {ms(answers[0].mono - first.mono)} after the "
            "first",
            first.fact,
            first.mono,
            certain=False,
        )


def half_open(case: Case) -> Iterator[Finding]:
    """The peer answers our SYN for an older connection, whose numbers its ACK has (a challenge ACK, RFC 5961 4.2)."""
    talk = case.conversation
    syn, answer = talk.ours.syn, talk.theirs.syn
    if syn is None or syn.has_ack:
        return
    until = answer.mono if answer is not None else last_seen(case.collection)
    came = [*talk.theirs.older, *(seg.fact for seg in talk.theirs.segs)]
    olds = [
        fact for fact in came
        if syn.mono <= fact.mono <= until and fact.has_ack and not (fact.syn or fact.rst)
        and fact.ack != syn.seq + 1 & 0xFFFF_FFFF
    ]  # fmt: skip
    if not olds:
        return
    old = olds[0]
    ours = [seg.fact for seg in talk.ours.segs if old.mono <= seg.mono <= until]
    again = next((fact for fact in ours if fact.syn), None)
    reset = next((fact for fact in ours if fact.rst and fact.seq == old.ack), None)
    if again is None and (reset is None or answer is not None):
        return  # it did no harm
    yield Finding(
        "half_open",
        f"{old.name} answers our SYN with ack {old.ack}, which had to be {syn.seq + 1 & 0xFFFF_FFFF}: the peer speaks "
        "of an older connection"
        + (f"; we answered with a RST, {reset.name}" if reset is not None else "")
        + (f"; the SYN was sent again {ms(again.mono - syn.mono)} after the first" if again is not None else ""),
        old,
        old.mono,
        [f"{fact.name}: once more, ack {fact.ack}" for fact in olds[1:4]],
    )


RULES = (window_scale, mss, options, half_open, opening)
