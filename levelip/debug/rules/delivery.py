"""What was lost, what only seemed to be, and what could never pass."""

from __future__ import annotations

from collections.abc import Iterator

from levelip.debug.facts import Fact
from levelip.debug.findings import Finding
from levelip.debug.rules.case import Case, ms
from levelip.debug.sending import Transmission
from levelip.wire import icmp

_NEEDS = 4  # code of "fragmentation needed", RFC 1191 4


def late_acks(case: Case) -> Iterator[Finding]:
    """Sent again by the timer, and then the original was acknowledged: its ACK was late (RFC 3522, by timestamps; or
    because it came sooner after the repetition than any round trip)."""
    late: list[tuple[Transmission, int]] = []
    for one in case.sent:
        again, ack = one.repeated, one.acked_by
        if again is None or ack is None or one.again or ack.mono <= again.mono or ack.fact.rst:
            continue
        if not case.retransmitted(again, "rto"):
            continue
        echoed = ack.fact.options.timestamps
        stamp, stamp_again = one.seg.fact.options.timestamps, again.seg.fact.options.timestamps
        if echoed is not None and stamp is not None and stamp_again is not None:
            if stamp_again[0] == stamp[0] or (echoed[1] - stamp_again[0]) & 0x8000_0000 == 0:
                continue  # the echo is of the repetition
            late.append((one, ack.mono - one.mono))
        elif case.rtt and ack.mono - again.mono < case.rtt // 2:
            late.append((one, ack.mono - one.mono))
    if not late:
        return
    one, took = late[0]
    assert one.acked_by is not None and one.repeated is not None
    because = [
        f"sent {one.seg.fact.name}, again {ms(one.repeated.mono - one.mono)} later as {one.repeated.seg.fact.name}, "
        f"acknowledged by {one.acked_by.fact.name}",
        f"the shortest round trip is {ms(case.rtt)}",
    ]
    if one.acked_by.fact.options.timestamps and one.seg.fact.options.timestamps:
        because.append(
            f"the ACK echoes timestamp {one.acked_by.fact.options.timestamps[1]}: that of the first, "
            f"{one.seg.fact.options.timestamps[0]}, not that of the repetition"
        )
    because += [
        f"the stack found it, too: reduction undone ({told.event.data.get('why')})"
        for told in case.conversation.kinds("undo")
    ][:1]
    yield Finding(
        "late_ack",
        f"the ACK of {case.numbers(one.seg)} took {ms(took)}, longer than the retransmission timeout of "
        f"{ms(one.repeated.mono - one.mono)}" + (f"; so did {len(late) - 1} more" if len(late) > 1 else ""),
        one.acked_by.fact,
        one.acked_by.mono,
        because,
        certain=bool(one.acked_by.fact.options.timestamps),
    )


def twice(case: Case) -> Iterator[Finding]:
    """The peer says by a D-SACK block, the first one and below its ACK, that it has something twice (RFC 2883 4)."""
    for seg in case.conversation.theirs.segs:
        blocks = seg.fact.options.sack
        if not blocks or not seg.fact.has_ack or 0 < (blocks[0][1] - seg.fact.ack) & 0xFFFF_FFFF < 1 << 31:
            continue  # the block lies beyond the ACK: what RFC 2018 says
        number = case.conversation.ours.number
        low = number(blocks[0][0])
        again = [one for one in case.sent if one.again and one.mono < seg.mono and one.seg.seq <= low < one.seg.end]
        if not again:
            continue
        one = again[-1]
        yield Finding(
            "spurious_retransmission",
            f"{case.numbers(one.seg)} were sent again as {one.seg.fact.name}; {seg.fact.name} says they came twice",
            one.seg.fact,
            one.mono,
            ["a D-SACK block: the first transmission arrived, only later than others or than its ACK was waited for"],
        )
        return


def losses(case: Case) -> Iterator[Finding]:
    """Ours that were sent again and acknowledged by the repetition alone."""
    lost = [one for one in case.sent if not one.again and one.repeated is not None and not _echoes_first(one)]
    lost = [one for one in lost if not one.seg.fact.syn and not (one.seg.fact.fin and not one.seg.fact.length)]
    by_fault: dict[str, list[Transmission]] = {}
    for one in lost:
        by_fault.setdefault(case.fault_on(one), []).append(one)
    for fault, some in by_fault.items():
        yield _lost(case, some, fault)


def _lost(case: Case, lost: list[Transmission], fault: str) -> Finding:
    first = lost[0]
    assert first.repeated is not None
    return Finding(
        "segment_lost",
        f"{case.numbers(first.repeated.seg)} of {first.seg.fact.name} were sent again "
        f"{ms(first.repeated.mono - first.mono)} later, as {first.repeated.seg.fact.name}"
        + (f"; so were parts of {len(lost) - 1} more" if len(lost) > 1 else ""),
        first.seg.fact,
        first.mono,
        [f"{one.seg.fact.name}, again as {one.repeated.seg.fact.name}" for one in lost[1:5] if one.repeated],
        certain=False,
        fault=fault,
    )


def _echoes_first(one: Transmission) -> bool:
    """Whether the ACK shows that the first transmission arrived."""
    ack, again = one.acked_by, one.repeated
    if ack is None or again is None:
        return False
    if ack.mono < again.mono:
        return True
    echoed, stamp = ack.fact.options.timestamps, again.seg.fact.options.timestamps
    first = one.seg.fact.options.timestamps
    if echoed is None or stamp is None or first is None or stamp[0] == first[0]:
        return False
    return (echoed[1] - stamp[0]) & 0x8000_0000 != 0


def peer_losses(case: Case) -> Iterator[Finding]:
    """A hole in what came, filled later: the first, and the first that a fault of ours made."""
    expected = 0
    told_of: set[bool] = set()
    started = False
    for one in case.came:
        seg = one.seg
        if not started:
            started, expected = True, seg.end
            continue
        base, hole = seg.fact.seq - (seg.seq - expected) & 0xFFFF_FFFF, seg.seq - expected
        fault = case.fault_in(base, hole, seg.fact) if hole > 0 and seg.fact.length else ""
        if hole > 0 and seg.fact.length and bool(fault) not in told_of:
            told_of.add(bool(fault))
            later = (two.seg for two in case.came if two.seg.mono > seg.mono)
            filler = next((two for two in later if two.seq <= expected < two.end), None)
            after = ms(filler.mono - seg.mono) if filler is not None else ""
            yield Finding(
                "peer_segment_lost",
                f"seq {expected}:{seg.seq} did not come before {seg.fact.name}"
                + (f"; they came {after} later, as {filler.fact.name}" if filler is not None else ", nor later"),
                seg.fact,
                seg.mono,
                ["they were lost on the way, or overtaken"] if not fault else [],
                certain=False,
                fault=fault,
            )
        expected = max(expected, seg.end)


def fins(case: Case) -> Iterator[Finding]:
    """FINs that had to be repeated, or that never came: the peer's next numbers tell."""
    talk = case.conversation
    fin = next((one for one in case.sent if one.seg.fact.fin and not one.again), None)
    if fin is not None and fin.repeated is not None and not _echoes_first(fin):
        yield Finding(
            "fin_lost",
            f"our FIN was sent again {ms(fin.repeated.mono - fin.mono)} later"
            + ("" if fin.acked_by is not None else ", and has not been acknowledged yet"),
            fin.seg.fact,
            fin.mono,
            [f"{fin.seg.fact.name}, again as {fin.repeated.seg.fact.name}"],
            certain=False,
        )
    expected, started = 0, False
    for seg in talk.theirs.segs:
        if seg.fact.rst:
            continue
        if not started:
            started, expected = True, seg.end
            continue
        late_fin = seg.fact.fin and seg.seq < expected and seg.end <= expected
        if seg.seq == expected + 1 and not seg.fact.room and not late_fin:
            again = next((one for one in talk.theirs.segs if one.fact.fin and one.mono > seg.mono), None)
            came = f"came {ms(again.mono - seg.mono)} later, as {again.fact.name}" if again else "has not come yet"
            yield Finding(
                "peer_fin_lost",
                f"{seg.fact.name} is an ACK without data whose number lies one beyond what has come: a FIN takes one, "
                f"and it {came}",
                seg.fact,
                seg.mono,
                [
                    f"expected number {expected}, it says {seg.seq}; all data before came",
                    "the FIN itself was never seen here, so that this ACK is the first packet that shows it",
                ],
            )
            return
        if seg.seq <= expected:
            expected = max(expected, seg.end)


def black_hole(case: Case) -> Iterator[Finding]:
    """Large packets are never acknowledged as they were sent, smaller ones are, and no ICMP error came."""
    data = [one for one in case.sent if one.seg.fact.ip_length and not one.seg.fact.rst]
    passed = max((one.seg.fact.ip_length for one in data if one.delivered), default=0)
    large = [one for one in data if one.seg.fact.ip_length > max(passed, 68) and not one.delivered]
    found = next(
        (told for told in case.conversation.kinds("pmtu") if told.event.data.get("why") == "black hole"), None
    )
    if not large or any(fact.icmp is not None and fact.icmp.type == icmp.DEST_UNREACH and fact.icmp.code == _NEEDS
                        for fact in case.conversation.icmp):  # fmt: skip
        return
    first = large[0]
    tries = sum(one.again and one.seg.seq <= first.seg.seq < one.seg.end for one in large)
    if found is None and tries < 2:
        return
    if found is None and not _alive(case, large):  # silence, no black hole
        return
    if not first.seg.fact.dont_fragment:
        return
    because = [
        f"packets of up to {passed} bytes are acknowledged; of {len(large)} larger ones none was",
        f"{first.seg.fact.name} has {first.seg.fact.ip_length} bytes and must not be fragmented (DF); "
        f"it was repeated {tries} times",
        "no ICMP error (type 3 code 4) has come",
    ]
    if found is not None:
        change = found.event.data
        because.append(f"the stack found it, too: path MTU {change.get('old')} → {change.get('new')}")
    yield Finding(
        "path_mtu_blackhole",
        f"packets above {passed} bytes vanish on the way to {case.conversation.remote}, and no router says so",
        first.seg.fact,
        first.mono,
        because,
        certain=found is not None,
    )


def _alive(case: Case, large: list[Transmission]) -> bool:
    """Whether the peer answered anything but a SYN, before the large packets or since."""
    small = any(one.delivered and not one.seg.fact.syn for one in case.sent)
    since = any(seg.mono > large[-1].mono and not seg.fact.syn for seg in case.conversation.theirs.segs)
    return small or since


def silence(case: Case) -> Iterator[Finding]:
    """Something of ours was repeated twice and more, and nothing at all has come since it was sent."""
    for one in case.sent:
        if one.again or one.acked_by is not None or one.seg.fact.syn:
            continue
        repeats = [two for two in case.sent if two.again and two.seg.seq <= one.seg.seq < two.seg.end]
        heard = [seg for seg in case.conversation.theirs.segs if seg.mono > one.mono]
        if len(repeats) < 2 or heard:
            return
        yield Finding(
            "peer_silent",
            f"{case.numbers(one.seg)} were sent {len(repeats) + 1} times in {ms(repeats[-1].mono - one.mono)}, and "
            f"nothing has come from {case.conversation.remote} since",
            one.seg.fact,
            one.mono,
            [two.seg.fact.name for two in repeats[:6]],
            certain=False,
        )
        return


_CHECKSUMS = ("tcp_checksum", "ip_bad_checksum", "icmp_bad_checksum")


def checksums(case: Case) -> Iterator[Finding]:
    """Segments that were discarded for their checksum."""
    bad: list[tuple[int, str, Fact | None]] = [
        (told.mono, told.event.reason, fact) for told, fact in case.drops(*_CHECKSUMS)
    ]
    if not bad:
        return
    mono, reason, fact = bad[0]
    yield Finding(
        "bad_checksum",
        f"{len(bad)} packet{'s' * (len(bad) > 1)} of the peer came damaged ({reason})",
        fact,
        mono,
        [one.name for _, _, one in bad[:4] if one is not None],
    )


def icmp_errors(case: Case) -> Iterator[Finding]:
    """What routers and the peer's host said."""
    for fact in case.conversation.icmp[:1]:
        if fact.icmp is not None:
            yield Finding(
                "unreachable",
                f"{fact.src} says: {fact.icmp.name}"
                + (f" ({len(case.conversation.icmp)} times)" if len(case.conversation.icmp) > 1 else ""),
                fact,
                fact.mono,
            )


RULES = (black_hole, silence, late_acks, twice, fins, checksums, icmp_errors, losses, peer_losses)
