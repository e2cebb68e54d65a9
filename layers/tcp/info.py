"""The figures of a connection by Linux's names: TCP_INFO, and what `ss -ti` shows."""

from __future__ import annotations

from typing import Any

from layers.tcp.chronograph import RWND, SNDBUF
from layers.tcp.congestion.base import INFINITE_SSTHRESH
from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.rate import UNLIMITED, pacing_rate
from layers.tcp.recovery.state import CaState
from layers.tcp.timers import NAMES
from levelip.wire.addr import format_address

MS = 1_000_000
US = 1_000
OPT_TIMESTAMPS, OPT_SACK, OPT_WSCALE = 1, 2, 4  # TCPI_OPT_* (include/uapi/linux/tcp.h)
OPT_ECN, OPT_ECN_SEEN = 8, 16
NEVER_LOWERED = 0x7FFF_FFFF  # segments: Linux TCP_INFINITE_SSTHRESH


def tcp_info(ctx: Context, conn: Connection, now: int) -> dict[str, Any]:
    """The fields of struct tcp_info; times in µs or ms as there, windows in segments as there."""
    rx, tx, rto, congestion, recovery = conn.rx, conn.tx, conn.rto, conn.congestion, conn.recovery
    rack, chrono = conn.rack, conn.chrono
    mss = tx.mss
    repaired = recovery.state >= CaState.RECOVERY  # then what was sent again is lost_out too, as in Linux
    lost = sum(row.packets for row in tx.queue if row.lost or (repaired and row.times > 1 and not row.sacked))
    packets_out = sum(row.packets for row in tx.queue)
    pacing = pacing_rate(mss, congestion.cwnd, congestion.ssthresh, packets_out, rto.srtt)
    since = conn.established_at  # where no data has been yet, as in Linux
    in_ssthresh = NEVER_LOWERED if congestion.ssthresh >= INFINITE_SSTHRESH else congestion.ssthresh // mss
    return {
        "state": int(conn.state),
        "ca_state": int(recovery.state),
        "retransmits": conn.retransmits,
        "probes": conn.probes,
        "backoff": rto.backoffs,
        "options": OPT_TIMESTAMPS * conn.timestamps
        | OPT_SACK * conn.sack
        | OPT_WSCALE * conn.scaling
        | OPT_ECN * conn.ecn.on
        | OPT_ECN_SEEN * (conn.ecn.marks_in > 0),
        "snd_wscale": tx.shift,
        "rcv_wscale": rx.shift,
        "app_limited": int(tx.rate.app_limited),
        "rto": rto.rto // US,
        "ato": ctx.tcp.delayed_ack_ms * MS // US if conn.last_data_received_at else 0,
        "snd_mss": mss,
        "rcv_mss": rx.mss,
        "unacked": packets_out,
        "sacked": tx.sacked_packets if conn.sack else recovery.duplicates,
        "lost": lost,
        "retrans": sum(row.packets for row in tx.queue if row.times > 1 and not row.lost and not row.sacked),
        "last_data_sent": (now - (conn.last_data_sent_at or since)) // MS if since else 0,
        "last_data_recv": (now - (conn.last_data_received_at or since)) // MS if since else 0,
        "last_ack_recv": (now - conn.last_received_at) // MS if conn.last_received_at else 0,
        "pmtu": conn.pmtu,
        "rcv_ssthresh": rx.capacity(),
        "rtt": rto.srtt // US,
        "rttvar": rto.rttvar // US,
        "snd_ssthresh": in_ssthresh,
        "snd_cwnd": max(congestion.cwnd // mss, 1),
        "advmss": conn.advertised_mss - (12 if conn.timestamps else 0),
        "reordering": rack.reordering,
        "rcv_rtt": rx.rtt // US,
        "rcv_space": rx.space or rx.buffer,
        "total_retrans": tx.retransmits,
        "pacing_rate": UNLIMITED if tx.snd_una < 0 else pacing,
        "bytes_acked": max(tx.snd_una - (1 if 0 <= tx.fin_at < tx.snd_una else 0), 0),
        "bytes_received": max(rx.rcv_nxt - (1 if 0 <= rx.fin_at < rx.rcv_nxt else 0), 0),
        "segs_out": conn.segments_out,
        "segs_in": conn.segments_in,
        "notsent_bytes": max(tx.snd_end - max(tx.snd_nxt, 0), 0),
        "min_rtt": rto.min_rtt // US,
        "data_segs_in": conn.data_segments_in,
        "data_segs_out": conn.data_segments_out,
        "delivery_rate": tx.rate.per_second(mss),
        "busy_time": chrono.busy(now) // US,
        "rwnd_limited": chrono.total(RWND, now) // US,
        "sndbuf_limited": chrono.total(SNDBUF, now) // US,
        "bytes_sent": tx.sent_bytes,
        "bytes_retrans": tx.retransmitted,
        "delivered": tx.delivered,
        "delivered_ce": conn.ecn.delivered,
        "dsack_dups": rack.dsacks,
        "reord_seen": rack.reorders,
        "rcv_ooopack": rx.out_of_order,
        "snd_wnd": tx.snd_wnd,
        "rcv_wnd": rx.window(),
        "total_rto": conn.total_rto,
        "total_rto_recoveries": conn.rto_recoveries,
        "total_rto_time": (conn.rto_time + (now - conn.rto_began_at if conn.rto_began_at >= 0 else 0)) // MS,
        # not in the struct: what other options answer of a live connection
        "quickack": int(not conn.interactive),
        "window_clamp": conn.options.window_clamp or rx.most,
        "sndbuf": 2 * tx.buffer,
        "rcvbuf": 2 * rx.buffer,
    }


def ss_row(ctx: Context, conn: Connection, now: int) -> dict[str, Any]:
    """One socket for `lvlip ss -ti`: addresses, queues, timers, and the figures of TCP_INFO."""
    rx, tx = conn.rx, conn.tx
    received = rx.fin_at if 0 <= rx.fin_at < rx.rcv_nxt else rx.rcv_nxt
    return {
        "sock": conn.id,
        "state": conn.state.name,
        "local": format_address(conn.local),
        "local_port": conn.local_port,
        "remote": format_address(conn.remote),
        "remote_port": conn.remote_port,
        "recv_q": max(received - rx.consumed, 0),
        "send_q": max(tx.snd_end - max(tx.snd_una, 0), 0),
        "orphan": conn.orphan,
        "listener": conn.listener,
        "iss": tx.iss,
        "irs": rx.irs,
        "congestion": conn.congestion.name,
        "cwnd_bytes": conn.congestion.cwnd,
        "timers": {NAMES[kind]: deadline - now for kind, deadline in enumerate(conn.deadlines) if deadline >= 0},
        "info": tcp_info(ctx, conn, now),
    }
