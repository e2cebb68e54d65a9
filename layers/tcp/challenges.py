"""How often we answer what nobody honest may have sent: challenge ACKs (RFC 5961 7) and ACKs for what is out of window.

Two limits, as Linux has them (tcp_send_challenge_ack, tcp_oow_rate_limited): one a socket, so that two ends that have
fallen out of step, or an attacker, do not make one connection answer for ever; and one for all. The second is drawn
anew each second: with a fixed one, an attacker who counts the challenge ACKs that are left learns which four-tuples
and sequence numbers are in use (CVE-2016-5696).
"""

from __future__ import annotations

from typing import Protocol

from layers.tcp.context import MS, SECOND, Context


class Answering(Protocol):
    """A connection or a TIME-WAIT record. `invalid_answered_at`: ns, when it last answered one; -1: never."""

    invalid_answered_at: int


def answer_allowed(ctx: Context, owner: Answering) -> bool:
    """May `owner` answer one more segment that is out of window? Linux tcp_invalid_ratelimit."""
    last = owner.invalid_answered_at
    if last >= 0 and ctx.now - last < ctx.tcp.invalid_ratelimit_ms * MS:
        ctx.counters["answers_withheld"] += 1
        return False
    owner.invalid_answered_at = ctx.now
    return True


def challenge_allowed(ctx: Context, owner: Answering) -> bool:
    """One more challenge ACK, of `owner`, in this second? RFC 5961 7."""
    return answer_allowed(ctx, owner) and _budget_left(ctx)


def _budget_left(ctx: Context) -> bool:
    """Between half and one and a half of the limit a second, drawn anew each second (Linux tcp_challenge_ack_limit)."""
    second = ctx.now // SECOND
    limit = ctx.tcp.challenge_acks_per_s
    if second != ctx.challenge_second:
        ctx.challenge_second = second
        ctx.challenge_budget = (limit + 1) // 2 + (ctx.rng.randrange(limit) if limit else 0)
    if ctx.challenge_budget <= 0:
        ctx.counters["challenges_withheld"] += 1
        return False
    ctx.challenge_budget -= 1
    return True
