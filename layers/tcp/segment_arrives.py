"""SEGMENT ARRIVES, RFC 9293 3.10.7, in its order, with RFC 7323 (timestamps), RFC 5961 (blind attacks), RFC 2018.

`segment_for_connection` is the entry for all states that have a TCB of their own; CLOSED, LISTEN and TIME-WAIT are in
`segment_elsewhere`. The common case in ESTABLISHED is taken by `header_prediction` before it gets here.
"""

from __future__ import annotations

import errno

from layers.tcp.acceptance import (
    AckVerdict,
    ResetVerdict,
    Verdict,
    judge_ack,
    judge_reset,
    judge_sequence,
    judge_timestamp,
)
from layers.tcp.acknowledgment import take_ack, window_update
from layers.tcp.challenges import answer_allowed, challenge_allowed
from layers.tcp.closing import ended, enter_time_wait, gone, wait_for_fin
from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.delayed_acks import hurry, owe_ack
from layers.tcp.marks import take_echo, take_marks
from layers.tcp.opening import admitted, agree, established
from layers.tcp.output import send_ack, send_reset, send_reset_for
from layers.tcp.states import RECEIVING, Input, State
from layers.tcp.timers import DELAYED_ACK, OFF, RETRANSMIT
from layers.tcp.urgent import take_urgent
from levelip.frames.packet import Segment
from levelip.frames.seam import Store
from levelip.rpc.place import Payload, Place, cut
from levelip.tracing import reasons
from levelip.wire.options import TcpOptions, parse_options
from levelip.wire.tcp import ACK, ECE, FIN, RST, SYN, URG

MASK = 0xFFFF_FFFF
AFTER_FIN = (State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK)
HANDSHAKE_ACK_DELAY_MS = 200  # Linux TCP_DELACK_MAX


def segment_for_connection(
    ctx: Context, conn: Connection, segment: Segment, seq: int, ack: int, flags: int, window: int, payload: Payload,
    now: int,
) -> None:  # fmt: skip
    """A segment for a connection in SYN-SENT or beyond; `segment.head` is the TCP header, `window` the raw field."""
    conn.ack_causes = segment.id
    conn.traced = segment.traced
    options = parse_options(segment.head[20:], strict=False)
    if conn.state == State.SYN_SENT:
        _syn_sent(ctx, conn, segment, seq, ack, flags, window, options, payload, now)
        return
    if not _acceptable(ctx, conn, segment, seq, ack, flags, options, len(payload), now):
        return
    rx = conn.rx
    offset = rx.offset_of(seq)

    # second: check the RST bit
    if flags & RST:
        _reset(ctx, conn, segment, offset)
        return
    # fourth: check the SYN bit; in SYN-RECEIVED the SYN-ACK of a simultaneous open passes
    if flags & SYN:
        if not _syn_again(ctx, conn, segment, offset, ack, flags, len(payload), now):
            return
        offset += 1
    # fifth: check the ACK field
    if not flags & ACK:
        ctx.drop(reasons.TCP_NO_ACK, segment.id, conn)
        return
    tx = conn.tx
    if judge_ack(tx.snd_una, tx.snd_nxt, tx.max_wnd, tx.offset_of(ack)) < AckVerdict.ANCIENT:
        _take_timestamp(conn, offset, options, now)  # what RFC 5961 5.2 discards tells nothing: it may be guessed
    ecn, delivered = conn.ecn, tx.delivered
    if flags & ECE and ecn.on:
        take_echo(ctx, conn, conn.tx.offset_of(ack), now)
    go_on = _ack_field(ctx, conn, segment, offset, ack, window, options, len(payload), flags, now)
    if ecn.ece:
        ecn.ece = False
        ecn.delivered += tx.delivered - delivered
    if not go_on:
        return
    if ecn.on:
        take_marks(ctx, conn, segment, flags)
    conn.last_received_at = now
    conn.probes = 0
    # sixth: check the URG bit
    if flags & URG:
        take_urgent(ctx, conn, segment, offset)
    # seventh: process the segment text; eighth: check the FIN bit
    if payload or flags & FIN:
        if conn.state in RECEIVING:
            segment_text(ctx, conn, segment, offset, payload, bool(flags & FIN), now)
        else:
            ctx.drop(reasons.TCP_AFTER_FIN, segment.id, conn)  # "Ignore the segment text", as Linux does
            if offset < rx.rcv_nxt or flags & FIN:  # but what had come before, or a FIN: its sender lacks our ACK
                send_ack(ctx, conn, now)
    ctx.want_output(conn)


# first: check sequence number, with PAWS before


def _acceptable(
    ctx: Context, conn: Connection, segment: Segment, seq: int, ack: int, flags: int, options: TcpOptions, length: int,
    now: int,
) -> bool:  # fmt: skip
    rx = conn.rx
    if conn.timestamps and not flags & RST:
        if options.timestamps is None:
            if not flags & SYN:
                ctx.drop(reasons.TCP_NO_TIMESTAMP, segment.id, conn)  # RFC 7323 3.2
                return False
        elif not judge_timestamp(conn.ts_recent, conn.ts_recent_at, options.timestamps[0], now):
            ctx.drop(reasons.TCP_PAWS, segment.id, conn, tsval=options.timestamps[0], recent=conn.ts_recent)
            _acknowledge_unacceptable(ctx, conn, rx.offset_of(seq), length, flags, now)
            return False
    offset = rx.offset_of(seq)
    size = length + (1 if flags & SYN else 0) + (1 if flags & FIN else 0)
    verdict = judge_sequence(rx.rcv_nxt, rx.window(), offset, size)
    if verdict == Verdict.ACCEPTABLE:
        return True
    if conn.state == State.SYN_RECEIVED and flags & SYN and offset == -1:
        return True  # the peer's SYN again, or the SYN-ACK of a simultaneous open: fourth step
    if flags & RST:
        if conn.state in AFTER_FIN and offset == rx.rcv_nxt - 1:
            return True  # second step: judge_reset
        ctx.drop(reasons.TCP_RST_OUTSIDE, segment.id, conn)
        return False
    if verdict == Verdict.BELOW_WINDOW:
        reason = reasons.TCP_BELOW_WINDOW
    elif verdict == Verdict.ZERO_WINDOW:
        reason = reasons.TCP_ZERO_WINDOW
    else:
        reason = reasons.TCP_BEYOND_WINDOW
    ctx.drop(reason, segment.id, conn, offset=offset, length=size, rcv_nxt=rx.rcv_nxt, window=rx.window())
    if verdict == Verdict.ZERO_WINDOW and flags & ACK and not flags & SYN:
        # "If the RCV.WND is zero ... special allowance should be made to accept valid ACKs"
        raw = int.from_bytes(segment.head[14:16], "big")
        _ack_field(ctx, conn, segment, rx.rcv_nxt, ack, raw, options, length, flags, now)
        if conn.state == State.CLOSED:
            return False
        ctx.want_output(conn)  # what it acknowledges, or the window it opens, may let data go
    _acknowledge_unacceptable(ctx, conn, offset, length, flags, now)
    return False


def _acknowledge_unacceptable(ctx: Context, conn: Connection, offset: int, length: int, flags: int, now: int) -> None:
    """ "If an incoming segment is not acceptable, an acknowledgment should be sent in reply": at once for data, whose
    sender lacks our ACK; within the limit of a socket for the rest, lest two ends answer each other for ever."""
    if length:
        hurry(conn)
    if length or (flags & (FIN | SYN) == FIN) or answer_allowed(ctx, conn):
        again = length and not flags & SYN and offset < conn.rx.rcv_nxt
        send_ack(ctx, conn, now, conn.rx.repeated(offset, offset + length) if again else None)


def _challenge(ctx: Context, conn: Connection, now: int) -> None:
    """A challenge ACK, RFC 5961 3.2, 4.2, 5.2, within the limits of 7."""
    if challenge_allowed(ctx, conn):
        conn.challenge_acks += 1
        ctx.counters["challenge_acks"] += 1
        send_ack(ctx, conn, now)


# second and fourth


def _reset(ctx: Context, conn: Connection, segment: Segment, offset: int) -> None:
    """RFC 9293 3.10.7.4 second step, RFC 5961 3.2."""
    ranges = conn.rx.ranges
    edge = ranges[-1].end if ranges and conn.sack else -1
    after_fin = conn.state in AFTER_FIN
    if judge_reset(conn.rx.rcv_nxt, offset, after_fin=after_fin, sack_edge=edge) == ResetVerdict.CHALLENGE:
        ctx.drop(reasons.TCP_RST_GUESSED, segment.id, conn, offset=offset, rcv_nxt=conn.rx.rcv_nxt)
        _challenge(ctx, conn, ctx.now)
        return
    ctx.counters["resets_in"] += 1
    if ctx.interest:
        ctx.emit("reset", conn, frame=segment.id, sent=False)
    if conn.state == State.SYN_RECEIVED:
        error = errno.ECONNREFUSED
    elif conn.state == State.CLOSE_WAIT:
        error = errno.EPIPE  # Linux tcp_reset
    else:
        error = errno.ECONNRESET
    gone(ctx, conn, error, segment.id)


def _syn_again(
    ctx: Context, conn: Connection, segment: Segment, offset: int, ack: int, flags: int, length: int, now: int
) -> bool:
    """A SYN where there should be none; True if what follows it may be looked at."""
    if conn.state == State.SYN_RECEIVED and offset == -1:
        if flags & ACK and conn.tx.offset_of(ack) == conn.tx.snd_nxt and not length:
            return True  # simultaneous open, RFC 9293 3.5 figure 7
        if not flags & ACK:
            conn.tx.lose_all()  # the peer did not get our SYN-ACK: send it again (Linux tcp_check_req)
            ctx.drop(reasons.TCP_SYN_AGAIN, segment.id, conn)
            ctx.want_output(conn)
            return False
    ctx.drop(reasons.TCP_SYN_INSIDE, segment.id, conn, offset=offset)  # RFC 5961 4.2
    _challenge(ctx, conn, now)
    return False


# fifth


def _take_timestamp(conn: Connection, offset: int, options: TcpOptions, now: int) -> None:
    """TS.Recent, RFC 7323 5.3 R3: if SEG.SEQ =< Last.ACK.sent. R1 has seen to SEG.TSval >= TS.Recent, or TS.Recent
    is so old that it says nothing and must be replaced (5.5)."""
    if conn.timestamps and options.timestamps is not None and offset <= conn.rx.last_ack_sent:
        conn.ts_recent = options.timestamps[0]
        conn.ts_recent_at = now


def _ack_field(
    ctx: Context, conn: Connection, segment: Segment, offset: int, ack_number: int, raw_window: int,
    options: TcpOptions, length: int, flags: int, now: int,
) -> bool:  # fmt: skip
    """RFC 9293 3.10.7.4 fifth step. Returns False if the rest of the segment is not to be looked at."""
    tx = conn.tx
    ack = tx.offset_of(ack_number)
    window = raw_window << tx.shift
    if conn.state == State.SYN_RECEIVED:
        if not tx.snd_una < ack <= tx.snd_nxt:
            ctx.drop(reasons.TCP_ACK_BAD, segment.id, conn, ack=ack)
            send_reset_for(ctx, segment, 0, ack_number, ACK, 0)  # <SEQ=SEG.ACK><CTL=RST>
            return False
        if not length and not flags & FIN and conn.retransmits < conn.options.defer_accept and conn.listener:
            conn.deferred = True
            ctx.drop(reasons.TCP_DEFERRED, segment.id, conn)  # TCP_DEFER_ACCEPT, Linux tcp_check_req
            return False
        if not admitted(ctx, conn, segment.id, now):
            return False
        window_update(ctx, conn, offset, ack, window)
        established(ctx, conn, Input.SYN_ACKED, segment.id, options, now)
    verdict = judge_ack(tx.snd_una, tx.snd_nxt, tx.max_wnd, ack)
    if verdict == AckVerdict.UNSENT:
        ctx.drop(reasons.TCP_ACK_UNSENT, segment.id, conn, ack=ack, snd_nxt=tx.snd_nxt)
        _challenge(ctx, conn, now)  # RFC 5961 5.2
        return False
    if verdict == AckVerdict.ANCIENT:
        ctx.drop(reasons.TCP_ACK_ANCIENT, segment.id, conn, ack=ack, snd_una=tx.snd_una)
        _challenge(ctx, conn, now)
        return False
    if verdict == AckVerdict.OLD:
        return True
    changed = window_update(ctx, conn, offset, ack, window)
    echo = options.timestamps[1] if conn.timestamps and options.timestamps is not None else -1
    # a duplicate by RFC 5681 2; with SACK blocks whatever its window says, RFC 6675 2
    duplicate = (
        verdict == AckVerdict.DUPLICATE
        and tx.snd_nxt > tx.snd_una
        and not length
        and not flags & (SYN | FIN)
        and (not changed or (conn.sack and bool(options.sack)))
    )
    take_ack(ctx, conn, ack, echo, options.sack, segment.id, now, duplicate=duplicate)
    if verdict == AckVerdict.NEW and tx.fin_at >= 0 and ack > tx.fin_at:
        return _fin_acked(ctx, conn, segment, now)
    return True


def _fin_acked(ctx: Context, conn: Connection, segment: Segment, now: int) -> bool:
    """Our FIN is acknowledged. Returns whether there may be more to the segment."""
    if conn.state == State.FIN_WAIT_1:
        ctx.change_state(conn, Input.FIN_ACKED, segment.id)
        return not conn.orphan or wait_for_fin(ctx, conn, now, closing=False)
    if conn.state == State.CLOSING:
        ctx.change_state(conn, Input.FIN_ACKED, segment.id)
        enter_time_wait(ctx, conn, now)
        return False
    if conn.state == State.LAST_ACK:
        ctx.change_state(conn, Input.FIN_ACKED, segment.id)
        ended(ctx, conn)
        return False
    return True


# seventh and eighth


def segment_text(
    ctx: Context, conn: Connection, segment: Segment, offset: int, payload: Payload, fin: bool, now: int
) -> None:
    """Take what lies in the window; tell the holes; take the FIN once all before it has come."""
    rx = conn.rx
    start, end = offset, offset + len(payload)
    if conn.orphan and end > rx.rcv_nxt:
        # RFC 9293 3.10.4, RFC 2525 2.17: nobody will read this
        ctx.drop(reasons.TCP_DATA_AFTER_CLOSE, segment.id, conn)
        send_reset(ctx, conn, now)
        gone(ctx, conn, errno.ECONNRESET, segment.id)
        return
    limit = max(rx.rcv_acc, rx.rcv_nxt)
    if end > limit or (0 <= rx.fin_at < end):
        limit = min(limit, rx.fin_at) if rx.fin_at >= 0 else limit
        ctx.drop(reasons.TCP_TRIMMED, segment.id, conn, beyond=end - limit)
        end = limit
        fin = False
        conn.ack_now = True
    if fin and rx.fin_at < 0:
        rx.fin_at = end
    twice = rx.repeated(start, end) if start < rx.rcv_nxt and end > start else None
    start = max(start, rx.rcv_nxt)
    if end > start:
        stored = cut(payload, start - offset, end - offset) if end - start != len(payload) else payload
        _keep(ctx, conn, segment, start, end, stored, twice, now)
    elif payload:
        ctx.counters["duplicate_segments_in"] += 1
        hurry(conn)
        if rx.rcv_nxt != rx.fin_at:  # else the FIN's ACK says it all; there is no more to come that D-SACK could spare
            send_ack(ctx, conn, now, twice)
    if rx.fin_at >= 0:
        if rx.rcv_nxt == rx.fin_at:
            _fin(ctx, conn, segment, now)
        elif fin:
            send_ack(ctx, conn, now)
    if conn.ack_now:
        ctx.want_output(conn)


def _keep(
    ctx: Context, conn: Connection, segment: Segment, start: int, end: int, payload: Payload,
    twice: tuple[int, int] | None, now: int,
) -> None:  # fmt: skip
    """Offsets [start, end) at or beyond RCV.NXT go to the receive ring. `twice`: what had come before, below it."""
    rx, rings = conn.rx, conn.rings
    size = end - start
    in_order = start == rx.rcv_nxt
    holes = bool(rx.ranges)
    if holes and twice is None:
        twice = rx.repeated(start, end)
    if not in_order:
        new = rx.insert(start, end)
        if new < 0:
            ctx.drop(reasons.TCP_TOO_MANY_HOLES, segment.id, conn)
            send_ack(ctx, conn, now)
            return
        rx.out_of_order += 1
        ctx.counters["out_of_order_in"] += 1
    piece = segment.gso_size or size
    rx.mss = max(rx.mss, piece)
    pieces = -(-size // piece)
    conn.data_segments_in += pieces
    ctx.counters["data_segments_in"] += pieces
    ctx.stores.append(Store(Place(rings.region, rings.receive_base, rings.receive_size, start, size), payload))
    if not in_order:
        conn.last_data_received_at = now
        hurry(conn)
        send_ack(ctx, conn, now, twice)  # RFC 5681 4.2: an immediate duplicate ACK for each
        return
    before = rx.rcv_nxt
    rx.advance(end)
    ctx.counters["bytes_in"] += rx.rcv_nxt - before
    ctx.mark_dirty(conn)
    if twice is not None:
        send_ack(ctx, conn, now, twice)  # RFC 2883 4: told of once, by the ACK of the packet that had it
    elif holes:
        conn.ack_now = True  # RFC 5681 4.2: at once when a hole is filled, whole or in part
    else:
        owe_ack(ctx, conn, segment, now)
    conn.last_data_received_at = now


def _fin(ctx: Context, conn: Connection, segment: Segment, now: int) -> None:
    """All before the peer's FIN has come: RFC 9293 3.10.7.4 eighth step."""
    rx = conn.rx
    rx.rcv_nxt = rx.fin_at + 1
    rx.ranges.clear()
    conn.ack_now = True
    ctx.mark_dirty(conn)
    ctx.change_state(conn, Input.FIN, segment.id)
    if conn.state == State.TIME_WAIT:
        send_ack(ctx, conn, now)
        enter_time_wait(ctx, conn, now)


# SYN-SENT


def _echo_plausible(conn: Connection, options: TcpOptions, now: int) -> bool:
    """TSecr of what answers our SYN is a TSval that our SYN had: from its first transmission until now.

    Linux tcp_rcv_synsent_state_process (PAWSActiveRejected); RFC 7323 5.2 allows it for RST too.
    """
    if not conn.timestamps or options.timestamps is None or not options.timestamps[1]:
        return True
    age = (conn.ts_now(now) - options.timestamps[1]) & MASK
    return age <= (now - conn.opened_at) // MS + 1


def _syn_sent(
    ctx: Context, conn: Connection, segment: Segment, seq: int, ack_number: int, flags: int, window: int,
    options: TcpOptions, payload: Payload, now: int,
) -> None:  # fmt: skip
    """RFC 9293 3.10.7.3."""
    tx, rx = conn.tx, conn.rx
    ack = tx.offset_of(ack_number)
    # first: check the ACK bit
    if flags & ACK and not tx.snd_una < ack <= tx.snd_nxt:
        ctx.drop(reasons.TCP_ACK_BAD, segment.id, conn, ack=ack)
        if not flags & RST:
            send_reset_for(ctx, segment, seq, ack_number, ACK, 0)
        return
    if flags & ACK and not _echo_plausible(conn, options, now):
        ctx.drop(reasons.TCP_PAWS_ECHO, segment.id, conn, tsecr=options.timestamps[1] if options.timestamps else 0)
        if not flags & RST:
            send_reset_for(ctx, segment, seq, ack_number, ACK, 0)
        return
    # second: check the RST bit
    if flags & RST:
        if flags & ACK:
            ctx.counters["resets_in"] += 1
            if ctx.interest:
                ctx.emit("reset", conn, frame=segment.id, sent=False)
            gone(ctx, conn, errno.ECONNREFUSED, segment.id)
        else:
            ctx.drop(reasons.TCP_RST_OUTSIDE, segment.id, conn)
        return
    # fourth: check the SYN bit
    if not flags & SYN:
        ctx.drop(reasons.TCP_NO_SYN, segment.id, conn)
        return
    if payload:
        ctx.drop(reasons.TCP_SYN_PAYLOAD, segment.id, conn)
    rx.start(seq)
    agree(conn, options, now)
    conn.ecn.answered(flags)
    conn.last_received_at = now
    tx.update_window(-1, ack if flags & ACK else -1, window)  # unscaled, RFC 7323 2.2
    if flags & ACK:
        established(ctx, conn, Input.SYN_ACK, segment.id, options, now)
        if conn.options.defer_accept or conn.interactive:  # our data is soon to come and carries it (Linux)
            ctx.timers.arm(conn, DELAYED_ACK, now + HANDSHAKE_ACK_DELAY_MS * MS)
        else:
            conn.ack_now = True
    else:  # simultaneous open, RFC 9293 3.5
        ctx.change_state(conn, Input.SYN, segment.id)
        tx.lose_all()
        conn.deadlines[RETRANSMIT] = OFF
    ctx.want_output(conn)
