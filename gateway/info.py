"""struct tcp_info, byte for byte as Linux 6.18's getsockopt(TCP_INFO) gives it (include/uapi/linux/tcp.h).

tcp answers GetInfo with figures under Linux's names; here they become the struct. A field that tcp does not know is 0:
of plb and of Accurate ECN, which are not there. `app_limited` is the byte of two bit fields, of which the second,
tcpi_fastopen_client_fail, is 0 as well.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

TCP_CLOSE: Final = 7  # enum of net/tcp_states.h
TCP_LISTEN: Final = 10

# name and type; "snd_wscale:rcv_wscale" are two bit fields of one byte, low nibble first
FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("state", "B"), ("ca_state", "B"), ("retransmits", "B"), ("probes", "B"), ("backoff", "B"), ("options", "B"),
    ("wscale", "B"), ("app_limited", "B"),
    ("rto", "I"), ("ato", "I"), ("snd_mss", "I"), ("rcv_mss", "I"),
    ("unacked", "I"), ("sacked", "I"), ("lost", "I"), ("retrans", "I"), ("fackets", "I"),
    ("last_data_sent", "I"), ("last_ack_sent", "I"), ("last_data_recv", "I"), ("last_ack_recv", "I"),
    ("pmtu", "I"), ("rcv_ssthresh", "I"), ("rtt", "I"), ("rttvar", "I"), ("snd_ssthresh", "I"), ("snd_cwnd", "I"),
    ("advmss", "I"), ("reordering", "I"), ("rcv_rtt", "I"), ("rcv_space", "I"), ("total_retrans", "I"),
    ("pacing_rate", "Q"), ("max_pacing_rate", "Q"), ("bytes_acked", "Q"), ("bytes_received", "Q"),
    ("segs_out", "I"), ("segs_in", "I"), ("notsent_bytes", "I"), ("min_rtt", "I"),
    ("data_segs_in", "I"), ("data_segs_out", "I"), ("delivery_rate", "Q"),
    ("busy_time", "Q"), ("rwnd_limited", "Q"), ("sndbuf_limited", "Q"),
    ("delivered", "I"), ("delivered_ce", "I"), ("bytes_sent", "Q"), ("bytes_retrans", "Q"),
    ("dsack_dups", "I"), ("reord_seen", "I"), ("rcv_ooopack", "I"), ("snd_wnd", "I"), ("rcv_wnd", "I"), ("rehash", "I"),
    ("total_rto", "H"), ("total_rto_recoveries", "H"), ("total_rto_time", "I"), ("received_ce", "I"),
    ("delivered_e1_bytes", "I"), ("delivered_e0_bytes", "I"), ("delivered_ce_bytes", "I"),
    ("received_e1_bytes", "I"), ("received_e0_bytes", "I"), ("received_ce_bytes", "I"),
    ("accecn_fail_mode", "H"), ("accecn_opt_seen", "H"),
)  # fmt: skip

_LAYOUT = struct.Struct("=" + "".join(code for _, code in FIELDS))
_LARGEST = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFF_FFFF, "Q": 0xFFFF_FFFF_FFFF_FFFF}
SIZE: Final = _LAYOUT.size
UNLIMITED: Final = _LARGEST["Q"]  # tcpi_max_pacing_rate where SO_MAX_PACING_RATE was never set
STATES: Final = {
    "ESTABLISHED": 1, "SYN_SENT": 2, "SYN_RECEIVED": 3, "SYN_RECV": 3, "FIN_WAIT_1": 4, "FIN_WAIT1": 4,
    "FIN_WAIT_2": 5, "FIN_WAIT2": 5, "TIME_WAIT": 6, "CLOSED": 7, "CLOSE": 7, "CLOSE_WAIT": 8, "LAST_ACK": 9,
    "LISTEN": 10, "CLOSING": 11,
}  # fmt: skip


def figure(data: Mapping[str, Any], name: str) -> int:
    """One figure of tcp's answer, under its name with or without "tcpi_"; 0 if it is not there."""
    value = data.get(f"tcpi_{name}", data.get(name, 0))
    if name == "state" and isinstance(value, str):
        return STATES.get(value.upper().replace("-", "_"), TCP_CLOSE)
    return int(value) if isinstance(value, int | float) else 0


def pack(data: Mapping[str, Any]) -> bytes:
    """The struct from tcp's figures; what does not fit is cut to the largest value of its field."""
    values = []
    for name, code in FIELDS:
        value = figure(data, name)
        if name == "wscale":
            value = figure(data, "snd_wscale") & 15 | (figure(data, "rcv_wscale") & 15) << 4
        elif name == "max_pacing_rate":
            value = UNLIMITED
        values.append(min(max(value, 0), _LARGEST[code]))
    return _LAYOUT.pack(*values)


def unpack(value: bytes) -> dict[str, int]:
    """The figures of a struct tcp_info of at least our length (Linux has made it longer over time)."""
    figures: dict[str, int] = dict(zip((name for name, _ in FIELDS), _LAYOUT.unpack_from(value), strict=True))
    wscale = figures.pop("wscale")
    return {**figures, "snd_wscale": wscale & 15, "rcv_wscale": wscale >> 4}
