"""What a connection sends, made at the moment when there is room for it: RFC 9293 3.7.4, 3.8.6; RFC 5681."""

from __future__ import annotations

import struct

from layers.tcp import mtu_probe
from layers.tcp.chronograph import BUSY, RWND, SNDBUF
from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.loss import arm_probe, probe_possible, tell_cwnd
from layers.tcp.recovery.newreno import allowance
from layers.tcp.recovery.state import CaState
from layers.tcp.routes import ip_header
from layers.tcp.send_space import Sent
from layers.tcp.states import State
from layers.tcp.telling import grant_due
from layers.tcp.timers import DELAYED_ACK, LOSS_PROBE, OFF, PERSIST, RETRANSMIT
from layers.tcp.urgent import marked
from levelip.frames.packet import Checksum, Segment
from levelip.rpc.place import Payload, Place
from levelip.tracing import reasons
from levelip.wire.options import TcpOptions, pack_sack, pack_timestamps
from levelip.wire.tcp import ACK, ECE, FIN, PSH, RST, SYN

MASK = 0xFFFF_FFFF
PROTO_TCP = 6
TS_WORD = 0x0101080A  # NOP NOP TS, RFC 7323 appendix A
PARTIAL = int(Checksum.PARTIAL)
TCP_HEADER = 20
MAX_OPTIONS = 40
CORK_MS = 200  # longest that TCP_CORK holds back what is written (tcp(7))

_PLAIN = struct.Struct(">HHIIHHHH")
_STAMPED = struct.Struct(">HHIIHHHHIII")
_WORD_PLAIN = 5 << 12  # data offset of 5 words, in its place beside the flags
_WORD_STAMPED = 8 << 12

SYN_RECEIVED = State.SYN_RECEIVED
CWR, RECOVERY = CaState.CWR, CaState.RECOVERY
NOT_VALIDATED = 300 * 1000 * MS  # ns: RFC 7661 4.4.3, how long a window is kept that is not used
OPENING = (State.SYN_SENT, State.SYN_RECEIVED)
SENDING = (State.ESTABLISHED, State.CLOSE_WAIT)
SILENT = (State.CLOSED, State.TIME_WAIT)


def next_segment(ctx: Context, conn: Connection, now: int) -> Segment | None:
    """The segment that `conn` wants to send most; None if there is nothing, or nothing may go now."""
    tx = conn.tx
    state = conn.state
    if state in OPENING:
        return _opening(ctx, conn, now)
    if state in SILENT:
        return None
    if tx.lost_bytes:
        segment = _lost(ctx, conn, now)
        if segment is not None:
            return segment
    nxt = tx.snd_nxt
    if nxt < tx.snd_end or nxt == tx.fin_at:
        if conn.mtu.enabled and not tx.records and (size := mtu_probe.probe_size(ctx, conn, now)):
            return _mtu_probe(ctx, conn, nxt, nxt + size, now)
        segment = _new(ctx, conn, now)
        if segment is not None:
            return segment
    if conn.probe:
        return _probe(ctx, conn, now)
    if conn.recovery.probe_due:
        segment = _tail_probe(ctx, conn, now)
        if segment is not None:
            return segment
    if conn.ack_now:
        return ack_segment(ctx, conn, now)
    return None


# headers


def _header(conn: Connection, seq: int, flags: int, now: int) -> bytes:
    """The header of a segment with ACK; what it acknowledges is no longer owed."""
    rx = conn.rx
    window = rx.window_field()
    nxt = rx.rcv_nxt
    rx.last_ack_sent = nxt
    conn.ack_now = False
    conn.deadlines[DELAYED_ACK] = OFF
    if conn.ecn.echo:
        flags |= ECE
    if not rx.ranges and conn.timestamps:
        return _STAMPED.pack(
            conn.local_port, conn.remote_port, seq, (rx.irs + 1 + nxt) & MASK, _WORD_STAMPED | flags, window, 0, 0,
            TS_WORD, (now // MS + conn.ts_offset) & MASK, conn.ts_recent,
        )  # fmt: skip
    options = usual_options(conn, now)
    return (
        _PLAIN.pack(
            conn.local_port, conn.remote_port, seq, (rx.irs + 1 + nxt) & MASK,
            (TCP_HEADER + len(options)) << 10 | flags, window, 0, 0,
        )
        + options
    )  # fmt: skip


def usual_options(conn: Connection, now: int, twice: tuple[int, int] | None = None) -> bytes:
    """Timestamps (RFC 7323 3.2) and SACK blocks (RFC 2018 3) of a segment in a synchronized state.

    `twice`: the offsets of what came once more than needed are a D-SACK block in front of the others, the first of
    which holds the same bytes if they lie beyond RCV.NXT (RFC 2883 4).
    """
    rx = conn.rx
    options = pack_timestamps(conn.ts_now(now), conn.ts_recent) if conn.timestamps else b""
    if conn.sack and (rx.ranges or twice is not None) and (most := _blocks(conn, options)):
        if twice is None:
            options += pack_sack(rx.sack_blocks(most))
        else:
            options += pack_sack([(rx.seq(twice[0]), rx.seq(twice[1])), *rx.sack_blocks(most - 1)])
    return options


def _blocks(conn: Connection, options: bytes) -> int:
    """How many SACK blocks fit behind these options: in the header, and in a packet of the path, for an ACK that is too
    large for a small MTU would never arrive (at 68 bytes one block fits beside timestamps)."""
    room = conn.pmtu - fixed_headers(conn) - len(conn.options.ip_options)
    return max((min(MAX_OPTIONS, room) - len(options) - 4) // 8, 0)


def _segment(ctx: Context, conn: Connection, head: bytes, payload: Payload, gso_size: int, now: int) -> Segment:
    packets = -(-len(payload) // gso_size) if gso_size else 1
    conn.segments_out += packets
    conn.last_sent_at = now
    ctx.counters["segments_out"] += packets
    cause = conn.ack_causes
    return Segment(
        ctx.ids.next(), [cause] if cause else [], conn.traced, now, 0, conn.local, conn.remote, PROTO_TCP,
        conn.options.ttl, conn.options.tos, head, payload, PARTIAL, gso_size, conn.dont_fragment, 0, b"",
        conn.options.ip_options,
    )  # fmt: skip


def ack_segment(ctx: Context, conn: Connection, now: int, twice: tuple[int, int] | None = None) -> Segment:
    """A segment with an acknowledgment and nothing else. `twice`: the offsets of what came once more than needed."""
    tx = conn.tx
    offset = tx.snd_nxt
    if offset > tx.snd_una + tx.snd_wnd:
        offset = tx.acceptable()  # else the peer, who shrank its window, would not look at what we acknowledge
    head = _header(conn, (tx.iss + 1 + offset) & MASK, ACK, now)
    if twice is not None and conn.sack:
        head = _with_dsack(conn, head, twice, now)
        ctx.counters["dsacks_out"] += 1
    return _segment(ctx, conn, head, b"", 0, now)


def _with_dsack(conn: Connection, head: bytes, twice: tuple[int, int], now: int) -> bytes:
    """The header with a D-SACK block, as `usual_options` puts it."""
    options = usual_options(conn, now, twice)
    flags = int.from_bytes(head[12:14], "big") & 0x0FFF
    return head[:12] + ((TCP_HEADER + len(options)) << 10 | flags).to_bytes(2, "big") + head[14:TCP_HEADER] + options


def send_ack(ctx: Context, conn: Connection, now: int, twice: tuple[int, int] | None = None) -> None:
    """Queue an ACK as things stand now: duplicates and challenges are not coalesced. `twice`: see `ack_segment`."""
    if len(ctx.to_ip) < TO_IP_MOST:
        ctx.to_ip.append(ack_segment(ctx, conn, now, twice))
    else:
        ctx.drop(reasons.TCP_QUEUE_FULL, 0, conn)


# opening


def _opening(ctx: Context, conn: Connection, now: int) -> Segment | None:
    """SYN or SYN-ACK, first or again. (An ACK of what is not acceptable in SYN-RECEIVED is queued: `send_ack`.)"""
    tx = conn.tx
    if tx.snd_nxt < 0:
        tx.record(0, now, tx.mss)
    elif tx.lost_bytes:
        tx.resend(0, now, tx.mss)
        _note_retransmission(ctx, conn, tx.queue[0], now)
    else:
        return None
    if conn.state == SYN_RECEIVED:
        flags = SYN | ACK | conn.ecn.syn_ack_flags()
    else:
        flags = SYN | conn.ecn.syn_flags(again=tx.queue[0].times > 1, fallback=ctx.tcp.ecn_fallback)
    rx = conn.rx
    answering = flags & ACK
    window = rx.syn_window_field(conn.advertised_mss - (12 if answering and conn.timestamps else 0))
    options = TcpOptions(
        mss=conn.advertised_mss,
        wscale=rx.shift if conn.scaling else None,
        sack_permitted=conn.sack,
        timestamps=(conn.ts_now(now), conn.ts_recent if answering else 0) if conn.timestamps else None,
    ).serialize()
    ack = 0
    if answering:
        ack = rx.seq(rx.rcv_nxt)
        rx.last_ack_sent = rx.rcv_nxt
        conn.ack_now = False
    head = _PLAIN.pack(
        conn.local_port, conn.remote_port, tx.iss, ack, (TCP_HEADER + len(options)) << 10 | flags, window, 0, 0
    )
    if conn.deadlines[RETRANSMIT] < 0:
        ctx.timers.arm(conn, RETRANSMIT, now + conn.rto.rto)
    return _segment(ctx, conn, head + options, b"", 0, now)


# data


def _used(ctx: Context, conn: Connection, limited: bool, now: int) -> None:
    """What of cwnd is used: whether it was full in the window that is under way, and if not, the most in flight (Linux
    tcp_cwnd_validate). ACKs that come together are all judged by it, though nothing is sent between them."""
    tx, congestion = conn.tx, conn.congestion
    used = tx.snd_nxt - tx.snd_una
    if limited or tx.snd_una >= conn.usage_end or (not conn.cwnd_limited and used > conn.usage):
        conn.cwnd_limited = limited
        conn.usage = used
        conn.usage_end = tx.snd_nxt
    if not ctx.tcp.slow_start_after_idle:
        return
    if conn.cwnd_limited or (congestion.cwnd < congestion.ssthresh and congestion.cwnd < 2 * conn.usage):
        conn.cwnd_full_at = now
        conn.cwnd_used = 0
        return
    conn.cwnd_used = max(conn.cwnd_used, used)
    if now - conn.cwnd_full_at >= conn.rto.rto:
        _validate(ctx, conn, now)


def _validate(ctx: Context, conn: Connection, now: int) -> None:
    """The application did not use all of cwnd for an RTO: what was not used is known no more to have room on the path.
    By the measure and the steps of Linux (tcp_cwnd_validate, RFC 2861 3.2), in place of RFC 7661's."""
    congestion = conn.congestion
    old = congestion.cwnd
    if conn.recovery.state:
        conn.cwnd_full_at = now
        return
    congestion.unused(conn.cwnd_used, now)
    if ctx.interest and congestion.cwnd != old:
        tell_cwnd(ctx, conn, old, "not used")
    conn.cwnd_full_at = now
    conn.cwnd_used = 0


def _expire(ctx: Context, conn: Connection, now: int) -> None:
    """Before new data goes: half of a window that was not validated for five minutes is left, and half of that for each
    five minutes more, of which some may have been idle (RFC 7661 4.4.3, 4.5.2)."""
    if conn.recovery.state:
        return
    congestion, validation = conn.congestion, conn.validation
    old, since = congestion.cwnd, validation.valid_at
    validation.validated(old, conn.rto.srtt, now)
    if now - since > NOT_VALIDATED:
        congestion.idle(now - since, NOT_VALIDATED, now)
        validation.valid_at = now
        if ctx.interest and congestion.cwnd != old:
            tell_cwnd(ctx, conn, old, "not used")


def _lost(ctx: Context, conn: Connection, now: int) -> Segment | None:
    """What is lost goes before what is new; but F-RTO lets new data go first to see what arrives (RFC 5682 3.1 step
    2b), and where none can go, recovers as ever."""
    recovery, tx = conn.recovery, conn.tx
    if recovery.frto_new:
        segment = _new(ctx, conn, now) if tx.unsent() else None
        if segment is not None or tx.snd_nxt > recovery.recover:
            return segment
        recovery.frto = recovery.frto_new = False
    return _again(ctx, conn, now)


def _again(ctx: Context, conn: Connection, now: int) -> Segment | None:
    """The first lost segment, or as much of it as cwnd allows. Without SACK the first unacknowledged one goes in any
    case (RFC 5681 3.2 step 3, RFC 6582 3.2 step 3): whoever marked it lost has paid for it. With SACK PRR made room."""
    tx, recovery = conn.tx, conn.recovery
    index = tx.next_lost()
    row = tx.queue[index]
    flight = tx.in_flight()
    allowed = conn.congestion.cwnd - flight
    size = row.end - row.start
    room = tx.snd_una + tx.snd_wnd - row.start
    if room < size:
        # The peer shrank its window: only what lies within is sent again (RFC 9293 3.8.6 MUST-34, SHLD-16). Linux since
        # 6.17 drops a segment that ends beyond, with its ACK (TcpExtBeyondWindow). If closed, the first goes whole.
        if room > 0:
            tx.split(index, row.start + room)
            row = tx.queue[index]
            size = room
        elif index:
            return None
    mss = _packet_size(conn, now)
    if allowed < size and allowed < mss:
        if flight and (index or conn.sack):
            return None
        allowed = mss
    most = tx.most - tx.most % mss if mss != tx.mss else tx.most
    if size > allowed or size > most + (row.end - 1 == tx.fin_at):  # a FIN takes no room in the packet
        tx.split(index, row.start + min(allowed - allowed % mss, most))
        row = tx.queue[index]
    tx.resend(index, now, mss)
    _note_retransmission(ctx, conn, row, now)
    if conn.validation.used >= 0:
        conn.validation.again(row.start, row.end)
    if not index and conn.sack and recovery.state == RECOVERY:
        # the timer counts from the head's repeat: Linux tcp_xmit_retransmit_queue
        ctx.timers.arm(conn, RETRANSMIT, now + conn.rto.rto)
    if recovery.state in (CWR, RECOVERY):
        recovery.prr.out += row.end - row.start
    return _data(ctx, conn, row.start, row.end, now, mss)


def _packet_size(conn: Connection, now: int) -> int:
    """The payload of a full packet sent now: SACK blocks take room in it (RFC 6691 3)."""
    if conn.rx.ranges and conn.sack:
        return conn.tx.mss - len(usual_options(conn, now)) + (12 if conn.timestamps else 0)
    return conn.tx.mss


def _note_retransmission(ctx: Context, conn: Connection, row: Sent, now: int) -> None:
    recovery = conn.recovery
    size, again = row.end - row.start, row.times - 1
    recovery.sent_again(size, now // MS)
    ctx.counters["retransmissions"] += row.packets
    if ctx.interest:
        if recovery.probe_due:
            why = "tlp"
        elif recovery.state == RECOVERY:
            why = "partial" if recovery.partials else "fast"
        else:
            why = "rto"
        ctx.emit("retransmit", conn, frame=conn.ack_causes, why=why, offset=row.start, length=size, attempt=again)


def _new(ctx: Context, conn: Connection, now: int) -> Segment | None:
    """Data that was never sent, or the FIN."""
    tx = conn.tx
    nxt = tx.snd_nxt
    stop = tx.snd_end
    if tx.records:
        stop = _record_end(conn)
    waiting = stop - nxt
    flight = nxt - tx.snd_una - tx.lost_bytes - tx.sacked_bytes
    open_ = tx.snd_una + tx.snd_wnd - nxt  # what the peer's window takes
    congestion = conn.congestion
    mss = tx.mss
    if conn.rx.ranges and conn.sack:
        mss = _packet_size(conn, now)
    if not ctx.tcp.slow_start_after_idle:
        _expire(ctx, conn, now)
    elif not flight and nxt == tx.snd_una and conn.last_data_sent_at and now - conn.last_data_sent_at > conn.rto.rto:
        old = congestion.cwnd
        congestion.idle(now - conn.last_data_sent_at, conn.rto.rto, now)
        if ctx.interest and congestion.cwnd != old:
            tell_cwnd(ctx, conn, old, "idle")
        conn.cwnd_full_at = conn.last_data_sent_at = now
        conn.cwnd_used = 0
    size = waiting
    if waiting:
        allowed = congestion.cwnd - flight
        if conn.recovery.duplicates:
            allowed += allowance(conn.recovery, mss)
        room = open_ if open_ < allowed else allowed
        if room < waiting:
            if allowed <= open_:
                _used(ctx, conn, True, now)
            size = room
        most = tx.most if tx.most <= mss or mss == tx.mss else mss * (tx.most // tx.mss)
        if size > most:
            size = most
        elif size < waiting:  # a window holds us back
            if size <= 0:
                if open_ <= 0:
                    _wait_for_window(ctx, conn, now)
                _held_back(conn, open_ <= allowed, now)
                return None
            if size >= mss:
                size -= size % mss
            third = min(tx.snd_wnd, congestion.cwnd) // 3
            if flight and size < most and size < third and tx.fin_at < 0 and not conn.recovery.state:
                # wait for a larger piece, as Linux tcp_tso_should_defer: ACKs are on their way. But not for more than a
                # millisecond's worth (tcp_tso_autosize): on a long path a third of the window is a burst and a gap
                if size * conn.rto.srtt < congestion.cwnd * MS:
                    return None
        whole = size == waiting and stop < tx.snd_end  # a record's end, and more behind it: it waits for nothing
        if size < mss and not whole and not _small_allowed(ctx, conn, size, waiting, flight, allowed < open_, now):
            _held_back(conn, size < waiting and open_ <= allowed, now)
            return None
        if size > mss and size == waiting and size % mss and not (whole or conn.override or _tail_allowed(conn)):
            size -= size % mss
    elif open_ <= 0:  # the FIN alone
        _wait_for_window(ctx, conn, now)
        return None
    end = nxt + size
    if end == tx.fin_at and open_ > size:
        end += 1
    elif not size:
        return None
    if size % mss and size:
        tx.small_end = end
    tx.record(end, now, mss)
    conn.override = False
    conn.last_data_sent_at = now
    if tx.lowat and not conn.orphan and grant_due(conn):
        ctx.mark_dirty(conn)
    if conn.chrono.kind == RWND:
        conn.chrono.turn(BUSY, now)
    if size == waiting:
        full = end - tx.snd_una >= congestion.cwnd
        _used(ctx, conn, full, now)
        if end >= tx.limit and not full and conn.state in SENDING:
            conn.chrono.turn(SNDBUF, now)
    if conn.told_data and now - conn.last_data_received_at < ctx.tcp.delayed_ack_ms * MS:
        conn.interactive = True
    segment = _data(ctx, conn, nxt, end, now, mss)
    if conn.recovery.state:
        conn.recovery.prr.out += end - nxt
    elif conn.sack and conn.deadlines[LOSS_PROBE] < 0:
        arm_probe(ctx, conn)
    return conn.ecn.new_data(segment) if conn.ecn.on and size else segment


def _record_end(conn: Connection) -> int:
    """Where the next segment has to end at the latest: MSG_EOR ends it, as Linux tcp_skb_can_collapse_to."""
    tx = conn.tx
    while tx.records and tx.records[0] <= tx.snd_nxt:
        del tx.records[0]
    return tx.records[0] if tx.records else tx.snd_end


def _held_back(conn: Connection, by_window: bool, now: int) -> None:
    """Data waits: for the peer's window, or for what else."""
    chrono = conn.chrono
    if by_window is not (chrono.kind == RWND):
        chrono.turn(RWND if by_window else BUSY, now)


def _mtu_probe(ctx: Context, conn: Connection, start: int, end: int, now: int) -> Segment:
    """One packet larger than the others: does it arrive? RFC 4821 7.2."""
    conn.tx.record(end, now, end - start)
    conn.last_data_sent_at = now
    mtu_probe.sent(ctx, conn, start, end)
    return _data(ctx, conn, start, end, now, end - start)


def _small_allowed(
    ctx: Context, conn: Connection, size: int, waiting: int, flight: int, by_cwnd: bool, now: int
) -> bool:
    """May a segment below MSS go? SWS avoidance, RFC 9293 3.8.6.2.1, and Nagle, 3.7.4."""
    tx = conn.tx
    if conn.override:
        return True
    outstanding = tx.snd_nxt > tx.snd_una
    if size == waiting:
        if conn.options.cork:
            return _tail_allowed(conn) or (not outstanding and _cork_over(ctx, conn, now))
        return not outstanding or _tail_allowed(conn)
    if by_cwnd:
        return not flight
    if size * 2 >= tx.max_wnd:  # rule (3), Fs = 1/2
        return True
    if not outstanding:
        _wait_for_window(ctx, conn, now)
    return False


def _cork_over(ctx: Context, conn: Connection, now: int) -> bool:
    """TCP_CORK holds the last piece back, and no ACK is to come: for CORK_MS at most, whatever else comes meanwhile.

    Linux has this from its probe timer (tcp_check_probe_timer), which fires after an RTO, 200 ms at least.
    """
    if conn.cork_nxt != conn.tx.snd_nxt:
        conn.cork_nxt = conn.tx.snd_nxt
        conn.cork_until = now + CORK_MS * MS
    if now >= conn.cork_until:
        return True
    ctx.timers.arm(conn, PERSIST, conn.cork_until)
    return False


def _tail_allowed(conn: Connection) -> bool:
    """Nagle in Minshall's form, as Linux: only one segment below MSS may be unacknowledged. With TCP_CORK none goes
    (Linux tcp_nagle_check). Urgent data waits for neither (tcp_nagle_test)."""
    tx = conn.tx
    if conn.snd_up > tx.snd_una:
        return True
    if conn.options.cork and tx.fin_at < 0:
        return False
    return bool(conn.options.nodelay) or tx.small_end <= tx.snd_una or tx.fin_at >= 0


def _wait_for_window(ctx: Context, conn: Connection, now: int) -> None:
    """The peer's window holds us back and nothing is under way that would bring news: RFC 9293 3.8.6.1."""
    tx = conn.tx
    if tx.snd_nxt > tx.snd_una or conn.deadlines[PERSIST] >= 0:
        return
    conn.probe_interval = conn.rto.rto
    ctx.timers.arm(conn, PERSIST, now + conn.probe_interval)
    if ctx.interest:
        ctx.emit("timer", conn, name="persist", deadline=now + conn.probe_interval, window=tx.snd_wnd)


def _data(ctx: Context, conn: Connection, start: int, end: int, now: int, mss: int) -> Segment:
    """The segment of the offsets [start, end) in packets of `mss` bytes; the FIN if they hold it."""
    tx = conn.tx
    flags = ACK
    stop = end
    if end > tx.fin_at >= 0:
        flags |= FIN
        stop = end - 1
    length = stop - start
    if stop == tx.snd_end or length > mss or (tx.records and stop == tx.records[0]):
        # also on a super-segment's last packet, as Linux (__tcp_transmit_skb): no more comes until ACKs do, so an odd
        # packet's is not to be delayed; and the receiver's GRO need not wait for more
        flags |= PSH
    rings = conn.rings
    if length > 0:
        payload: Payload = Place(rings.region, rings.send_base, rings.send_size, start, length)
        tx.sent_bytes += length
        pieces = -(-length // mss)
        conn.data_segments_out += pieces
        ctx.counters["data_segments_out"] += pieces
        ctx.counters["bytes_out"] += length
    else:
        payload = b""
        flags &= ~PSH
    if conn.deadlines[RETRANSMIT] < 0:
        ctx.timers.arm(conn, RETRANSMIT, now + conn.rto.rto)
    head = _header(conn, (tx.iss + 1 + start) & MASK, flags, now)
    if conn.snd_up >= 0:
        head = marked(conn, head, start)
    return _segment(ctx, conn, head, payload, mss if length > mss else 0, now)


def _tail_probe(ctx: Context, conn: Connection, now: int) -> Segment | None:
    """TLP_send_probe, RFC 8985 7.3: a packet of new data, even beyond cwnd; if there is none, the last packet again."""
    recovery, tx = conn.recovery, conn.tx
    segment = None
    if probe_possible(conn):
        mss = _packet_size(conn, now)
        nxt = tx.snd_nxt
        size = min(_record_end(conn) - nxt, mss)
        if tx.unsent() and tx.snd_una + tx.snd_wnd - nxt >= max(size, 1):
            end = nxt + size
            if end == tx.fin_at and tx.snd_una + tx.snd_wnd > end:
                end += 1
            tx.record(end, now, mss)
            conn.last_data_sent_at = now
            recovery.probe_again = False
            ctx.counters["loss_probes"] += 1
            segment = _data(ctx, conn, nxt, end, now, mss)
        else:
            row = tx.queue[-1]
            if row.packets > 1:
                tx.split(len(tx.queue) - 1, row.start + (row.packets - 1) * row.size)
                row = tx.queue[-1]
            tx.resend(len(tx.queue) - 1, now, mss)
            recovery.probe_again = True
            ctx.counters["loss_probes"] += 1
            _note_retransmission(ctx, conn, row, now)
            segment = _data(ctx, conn, row.start, row.end, now, mss)
        recovery.probe_end = tx.snd_nxt
        recovery.probe_samples = conn.rto.samples
    recovery.probe_due = False
    return segment


def _probe(ctx: Context, conn: Connection, now: int) -> Segment:
    """A window probe or keep-alive: an empty segment just below SND.UNA, which the peer must acknowledge.

    RFC 9293 3.8.4 keep-alive; as zero-window probe Linux (tcp_xmit_probe_skb) sends the same instead of 3.8.6.1's
    new octet, so that a probe never takes part of the stream into a window that is closed.
    """
    tx = conn.tx
    if conn.urgent_due:
        # at SND.UNA, so that it is acceptable though the window is closed (RFC 9293 MUST-66; Linux tcp_write_wakeup)
        conn.urgent_due = False
        head = marked(conn, _header(conn, (tx.iss + 1 + tx.snd_una) & MASK, ACK, now), tx.snd_una)
        return _segment(ctx, conn, head, b"", 0, now)
    conn.probe = False
    ctx.counters["probes_out"] += 1
    head = _header(conn, (tx.iss + tx.snd_una) & MASK, ACK, now)
    return _segment(ctx, conn, head, b"", 0, now)


# resets


def send_reset(ctx: Context, conn: Connection, now: int) -> None:
    """RST for a connection of ours that is given up: RFC 9293 3.10.5, <SEQ=SND.NXT><CTL=RST>, with ACK as Linux. None
    in SYN-SENT, where nothing has come that it could acknowledge. Callers know that it is not CLOSED."""
    if conn.state == State.SYN_SENT:
        return
    tx = conn.tx
    head = _header(conn, tx.seq(tx.acceptable()), RST | ACK, now)
    ctx.counters["resets_out"] += 1
    if ctx.interest:
        ctx.emit("reset", conn, frame=conn.ack_causes, sent=True)
    ctx.to_ip.append(_segment(ctx, conn, head, b"", 0, now))


def send_reset_for(ctx: Context, segment: Segment, seq: int, ack: int, flags: int, length: int) -> None:
    """RST in answer to a segment that belongs nowhere, RFC 9293 3.10.7.1; `length` counts SYN and FIN."""
    source, destination = struct.unpack_from(">HH", segment.head)
    if flags & ACK:
        head = _PLAIN.pack(destination, source, ack, 0, _WORD_PLAIN | RST, 0, 0, 0)
    else:
        head = _PLAIN.pack(destination, source, 0, (seq + length) & MASK, _WORD_PLAIN | RST | ACK, 0, 0, 0)
    ctx.counters["resets_out"] += 1
    ctx.counters["segments_out"] += 1
    if len(ctx.to_ip) >= TO_IP_MOST:
        ctx.drop(reasons.TCP_QUEUE_FULL, segment.id)
        return
    ctx.to_ip.append(
        Segment(
            ctx.ids.next(), [segment.id], segment.traced, ctx.now, 0, segment.dst, segment.src, PROTO_TCP, 0, 0,
            head, b"", PARTIAL, 0,
        )
    )  # fmt: skip


def fixed_headers(conn: Connection) -> int:
    """Bytes of IP and TCP headers without options."""
    return ip_header(conn.remote) + TCP_HEADER


TO_IP_MOST = 8192  # ACKs and RSTs that wait for room toward ip; beyond, they are lost as a queue loses them
