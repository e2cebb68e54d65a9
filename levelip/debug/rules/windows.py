"""Windows that shrink, close, or are overrun (RFC 9293 3.8.6). What we discarded told us of none."""

from __future__ import annotations

from collections.abc import Iterator

from levelip.debug.collection import Seg
from levelip.debug.findings import Finding
from levelip.debug.rules.case import MS, Case, ms

STALL = 200 * MS
"""A window that is closed for so long is told of: shorter ones are a reader's breath."""


def shrunk(case: Case) -> Iterator[Finding]:
    """The right edge of the peer's window moves left. One unit of the scale is rounding (RFC 7323 2.4)."""
    talk = case.conversation
    if talk.ours.syn is None or talk.theirs.syn is None:
        return
    unit = 1 << talk.scale_of(talk.theirs)
    best: Seg | None = None
    newest = (-1, -1)
    for seg in talk.theirs.segs:
        if seg.fact.id in case.discarded:
            continue
        if seg.edge is None or seg.fact.rst or (seg.fact.syn and unit > 1):  # a SYN's window is not scaled
            continue
        if (seg.ack, seg.seq) < newest:  # overtaken: what it says is old (RFC 9293 3.10.7.4, SND.WL1 and WL2)
            continue
        newest = (seg.ack, seg.seq)
        if best is not None and best.edge is not None and seg.edge < best.edge - unit:
            yield Finding(
                "window_shrunk",
                f"{seg.fact.name} ends the window at seq {seg.edge}; {best.fact.name} had granted up to "
                f"{best.edge}: {best.edge - seg.edge} bytes were taken back",
                seg.fact,
                seg.mono,
                [f"window {best.window} → {seg.window} while {seg.ack - best.ack} bytes were acknowledged"],
            )
            return
        if best is None or best.edge is None or seg.edge > best.edge:
            best = seg


def zero(case: Case) -> Iterator[Finding]:
    """Closed for long, on either side."""
    talk = case.conversation
    for name, side, who in (("zero_window", talk.theirs, "peer"), ("our_zero_window", talk.ours, "stack")):
        closed: Seg | None = None
        for seg in side.segs:
            if seg.edge is None or seg.fact.syn or seg.fact.rst or seg.fact.id in case.discarded:
                continue
            if seg.window == 0 and closed is None:
                closed = seg
            elif seg.window and closed is not None:
                if seg.mono - closed.mono >= STALL:
                    yield _closed(name, who, closed, seg)
                    closed = None
                    break
                closed = None
        if closed is not None and side.segs[-1].mono - closed.mono >= STALL:
            yield _closed(name, who, closed, None)


def _closed(name: str, who: str, closed: Seg, opened: Seg | None) -> Finding:
    until = "it stays so" if opened is None else f"{opened.fact.name} opens it {ms(opened.mono - closed.mono)} later"
    says = f"{closed.fact.name} closes the {who}'s window at seq {closed.ack}; {until}"
    return Finding(name, says, closed.fact, closed.mono)


def overrun(case: Case) -> Iterator[Finding]:
    """The peer's data beyond what we granted."""
    if case.conversation.ours.syn is None or case.conversation.theirs.syn is None:
        return  # how windows are scaled is unknown
    edge, scale = None, case.conversation.scale_of(case.conversation.ours)
    for seg in case.conversation.segs():
        if not seg.fact.up:
            if seg.edge is not None:
                edge = max(edge or 0, seg.edge)
        elif edge is not None and seg.fact.length and seg.end - seg.fact.fin > edge:
            yield Finding(
                "beyond_window",
                f"{seg.fact.name} reaches seq {seg.end}, {seg.end - edge} beyond what we granted",
                seg.fact,
                seg.mono,
                [f"the window scale in our SYN is {scale}"],
            )
            return


RULES = (shrunk, zero, overrun)
