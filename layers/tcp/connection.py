"""The TCB: all that is known of one connection, and the small things that one asks of it.

What happens to it is decided elsewhere: `segment_arrives` and `acknowledgment` (what comes from the peer), `calls`
(from the application), `timeouts` (from the clock), `output` (what it sends).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from layers.tcp.chronograph import Chronograph
from layers.tcp.congestion.base import Strategy
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.ecn import Ecn
from layers.tcp.receive_space import ReceiveSpace
from layers.tcp.recovery.rack import Rack
from layers.tcp.recovery.state import Recovery
from layers.tcp.rto import Rto
from layers.tcp.send_space import SendSpace
from layers.tcp.states import State
from layers.tcp.timers import KINDS, OFF
from layers.tcp.validation import Validation
from levelip.config import CONGESTIONS
from levelip.rpc.place import Rings
from levelip.wire.addr import format_address

MASK = 0xFFFF_FFFF
QUICK_ACKS = 16  # Linux TCP_MAX_QUICKACKS: ACKs without delay at the start, so that the peer's slow start is not slowed

PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE = 1, 2, 3  # of IP_MTU_DISCOVER (include/uapi/linux/in.h)
PROGRESS_EVERY = 5_000_000_000  # ns: a third of the shortest time for which a neighbour is believed (RFC 4861 10)


def _off() -> list[int]:
    return [OFF] * KINDS


@dataclass(slots=True)
class Options:
    """What the application can set on a socket; times in ms, -1: not set, the configuration's value holds."""

    nodelay: int = -1
    keepalive: int = 0
    keepidle_ms: int = -1
    keepintvl_ms: int = -1
    keepcnt: int = -1
    maxseg: int = 0
    sndbuf: int = -1
    rcvbuf: int = -1
    ttl: int = 0
    tos: int = 0
    syncnt: int = -1
    user_timeout_ms: int = 0
    quickack: int = -1
    reuse_address: int = 0
    reuse_port: int = 0
    cork: int = 0
    defer_accept: int = 0  # SYN-ACKs that are sent before a connection without data is handed out
    linger2_ms: int = 0  # FIN-WAIT-2 of an orphan; 0: not set, -1: none
    window_clamp: int = 0  # 0: none
    rcvlowat: int = 1
    mtu_discover: int = 1  # IP_PMTUDISC_*
    notsent_lowat: int = 0  # 0: none
    port_range: int = 0  # IP_LOCAL_PORT_RANGE: first in the low half, last in the high one; 0: the configured
    congestion: int = 0  # place in CONGESTIONS plus one; 0: the configured strategy
    ip_options: bytes = b""  # of each segment's IP header, in whole words


OPTION_RANGES: dict[str, tuple[int, int]] = {
    "nodelay": (0, 1),
    "keepalive": (0, 1),
    "keepidle_ms": (1, 32_767_000),
    "keepintvl_ms": (1, 32_767_000),
    "keepcnt": (1, 127),
    "maxseg": (0, 65_535),
    "sndbuf": (0, 1 << 31),
    "rcvbuf": (0, 1 << 31),
    "ttl": (0, 255),
    "tos": (0, 255),
    "syncnt": (1, 127),
    "user_timeout_ms": (0, 1 << 31),
    "quickack": (-1, 2),
    "reuse_address": (0, 1),
    "reuse_port": (0, 1),
    "cork": (0, 1),
    "defer_accept": (0, 255),
    "linger2_ms": (-1, 120_000),
    "window_clamp": (0, 1 << 31),
    "rcvlowat": (1, 1 << 31),
    "mtu_discover": (0, 5),
    "notsent_lowat": (0, 1 << 31),
    "port_range": (0, 0xFFFF_FFFF),
    "congestion": (0, len(CONGESTIONS)),
}
"""Smallest and largest value of each option (Linux include/net/tcp.h: MAX_TCP_KEEPIDLE and so on)."""


@dataclass(slots=True)
class MtuSearch:
    """RFC 4821: IP packets of `low` bytes arrive, of more than `high` do not; the rest is in `mtu_probe`.

    The probe under way is the offsets [probe_start, probe_end), -1: none, a packet of `probe_size` bytes.
    """

    enabled: bool = False
    low: int = 0
    high: int = 0
    probe_start: int = -1
    probe_end: int = -1
    probe_size: int = 0
    begun_at: int = 0


@dataclass(slots=True, eq=False)
class Connection:
    """One TCB. `id` is the socket id that gateway and client know it by; times are ns of stack time."""

    id: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    rings: Rings
    rx: ReceiveSpace
    tx: SendSpace
    rto: Rto
    options: Options
    state: State = State.CLOSED
    congestion: Strategy = field(default_factory=NewReno)
    recovery: Recovery = field(default_factory=Recovery)
    rack: Rack = field(default_factory=Rack)
    ecn: Ecn = field(default_factory=Ecn)
    chrono: Chronograph = field(default_factory=Chronograph)
    validation: Validation = field(default_factory=Validation)
    opened_at: int = 0
    established_at: int = 0
    listener: int = 0  # id of the listener it came by; 0: active open
    untaken: bool = False  # counts in its listener's backlog
    orphan: bool = False  # the application has closed it: nothing is told any more but Released
    rings_held: bool = True  # its slot is its own
    released: bool = False  # Released was told
    # what both sides agreed on
    pmtu: int = 1500
    mtu: MtuSearch = field(default_factory=MtuSearch)
    dont_fragment: bool = True  # by IP_MTU_DISCOVER
    gso_max: int = 0
    advertised_mss: int = 536
    peer_mss: int = 536
    scaling: bool = False
    timestamps: bool = False
    sack: bool = False
    # timestamps, RFC 7323
    ts_offset: int = 0
    ts_recent: int = 0
    ts_recent_at: int = 0
    # timers by kind
    deadlines: list[int] = field(default_factory=_off)
    scheduled: list[int] = field(default_factory=_off)
    # what is to be sent
    queued: bool = False  # it stands in the work queue
    ack_now: bool = False
    ack_causes: int = 0  # id of the last segment that came: what our next segment answers
    probe: bool = False  # a window probe or keep-alive is due
    override: bool = False  # SWS avoidance is off for one segment (RFC 9293 3.8.6.2.1, rule 4)
    cork_nxt: int = -1  # TCP_CORK holds back what stands at this SND.NXT
    cork_until: int = 0  # until this instant
    cwnd_limited: bool = False  # cwnd was full in the window that ends at usage_end
    usage: int = 0  # bytes: if it was not, the most in flight in that window
    usage_end: int = 0
    cwnd_used: int = 0  # bytes: the most in flight since cwnd_full_at
    cwnd_full_at: int = 0  # when cwnd was what held us back last, or was validated
    quick_acks: int = QUICK_ACKS
    deferred: bool = False  # TCP_DEFER_ACCEPT: the ACK of our SYN-ACK came, without data
    interactive: bool = False  # data goes to and fro: ACKs ride on answers (Linux pingpong)
    pushed: int = 0  # segments for which an ACK waits and that were short or had PSH: see `delayed_acks`
    traced: bool = False
    # what the gateway was told
    dirty: bool = False  # something is to be told at the next flush
    told_data: int = 0
    told_eof: bool = False
    # trouble
    soft_error: int = 0
    retransmits: int = 0  # timeouts in a row without an acknowledgment
    first_timeout_at: int = OFF  # when what is oldest was sent, once its first timeout came
    probes: int = 0  # window probes or keep-alives in a row without an answer
    probe_interval: int = 0
    snd_up: int = -1  # see `urgent`
    rcv_up: int = -1
    urgent_due: bool = False  # the next window probe is to be preceded by our mark
    # figures
    last_sent_at: int = 0
    last_data_sent_at: int = 0
    last_received_at: int = 0
    progress_at: int = 0  # when an acknowledgment is to be told to ip next
    last_data_received_at: int = 0
    segments_in: int = 0
    segments_out: int = 0
    data_segments_in: int = 0
    data_segments_out: int = 0
    challenge_acks: int = 0
    invalid_answered_at: int = OFF  # when a segment out of window was answered last
    duplicate_acks_in: int = 0
    total_rto: int = 0  # timeouts of the retransmission timer, of the SYN's too
    rto_recoveries: int = 0  # runs of them
    rto_time: int = 0  # ns that the runs which are over took
    rto_began_at: int = OFF  # of the run that is under way

    @property
    def key(self) -> bytes:
        """How segments find it: local and remote address, remote and local port, as they stand in a segment."""
        return connection_key(self.local, self.remote, self.remote_port, self.local_port)

    @property
    def name(self) -> str:
        """As people read it, local side first."""
        return connection_name(self.local, self.local_port, self.remote, self.remote_port)

    def timeouts_over(self, now: int) -> None:
        """A run of timeouts ends (Linux tcp_update_rto_time)."""
        if self.rto_began_at >= 0:
            self.rto_time += now - self.rto_began_at
            self.rto_began_at = OFF

    def ts_now(self, now: int) -> int:
        """TSval of a segment sent at `now`."""
        return (now // 1_000_000 + self.ts_offset) & MASK

    def set_mtu_discover(self, mode: int) -> None:
        """IP_MTU_DISCOVER: DF is set for IP_PMTUDISC_WANT, _DO and _PROBE (Linux ip_dont_fragment)."""
        self.dont_fragment = mode in (PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE)

    def set_mss(self, fixed: int) -> None:
        """Work out the sizes of segments from the peer's MSS and the path's MTU; `fixed`: headers without options.

        RFC 9293 3.7.1: Eff.snd.MSS = min(SendMSS, MMS_S) less the options of TCP and IP (RFC 6691 2).
        """
        tx = self.tx
        mss = min(self.peer_mss, (min(self.pmtu, self.mtu.low) if self.mtu.enabled else self.pmtu) - fixed)
        tx.mss = max(mss - (12 if self.timestamps else 0) - len(self.options.ip_options), 8)
        tx.most = tx.mss
        largest = min(self.gso_max, MAX_SUPER) - MAX_HEADERS - len(self.options.ip_options)
        if largest > tx.mss and self.snd_up < 0:
            tx.most = tx.mss * min(largest // tx.mss, MAX_PIECES)
        self.congestion.set_mss(tx.mss)


MAX_SUPER = 65_535  # bytes: the IP packet that a super-segment is (RFC 791 total length)
MAX_HEADERS = 40 + 60  # bytes: an IPv6 header (or IPv4's without options) and a full TCP header
MAX_PIECES = 44  # MTU-sized pieces: what the application side hands over at once too


def connection_key(local: bytes, remote: bytes, remote_port: int, local_port: int) -> bytes:
    """The key of the table of connections."""
    return local + remote + remote_port.to_bytes(2, "big") + local_port.to_bytes(2, "big")


def connection_name(local: bytes, local_port: int, remote: bytes, remote_port: int) -> str:
    """As events name a connection: "10.0.0.2:80>10.0.0.1:4711"."""
    return f"{format_address(local)}:{local_port}>{format_address(remote)}:{remote_port}"
