"""Fields of events, and of the connection that an event or a packet is about.

    event           its kind; alone: that it is an event at all
    reason          of a drop, its name in reasons.py
    event.NAME      its data, by the names that the cores give them
    conn            the connection's name, "10.0.0.2:80>10.0.0.1:4711", local side first
    conn.NAME       its addresses and ports, and figures that a look-up gives (`lvlip ss -ti`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from levelip.frames.packet import format_frame_id
from levelip.tracing.events import Event
from levelip.tracing.fieldtypes import Field, Kind
from levelip.tracing.reasons import all_reasons
from levelip.tracing.view import Figures
from levelip.wire.addr import parse_address

EVENTS: dict[str, tuple[str, ...]] = {
    "addon": (
        "addon", "what", "hook", "ms", "times", "error", "traceback", "changes", "ns", "seam", "way", "flags", "seq",
        "ack", "length", "src", "dst",
    ),
    "arp": ("address", "mac", "old", "new"),
    "call": ("op", "sock", "errno", "pid"),
    "claim": ("address", "old", "new"),
    "client": ("what", "pid", "uid"),
    "conflict": ("address", "mac", "defended"),
    "cwnd": ("old", "new", "mss", "ssthresh", "flight", "why"),
    "datagram": ("src", "port", "length"),
    "device": ("name", "up", "mtu", "gso_max"),
    "doubt": ("dst",),
    "drop": (
        "ack", "addon", "at", "beyond", "buffer", "bytes", "client", "code", "dead", "detail", "dst",
        "errno", "error", "flags", "fragments", "gateway", "group",
        "ident", "kind", "known", "left", "length", "limit", "mtu", "name", "next_hop", "offset", "port", "proto",
        "quoted", "rcv_nxt", "recent", "request", "right", "seam", "seq", "size", "snd_nxt", "snd_una", "sock",
        "src", "state", "to", "told", "tsecr", "tsval", "ttl", "type", "uid", "upto", "way", "why", "window",
    ),
    "dsack": ("left", "right"),
    "ecn": ("echo", "packets"),
    "fault": ("what", "seam", "way", "flags", "seq", "ack", "length", "src", "dst", "ns"),
    "fragment": ("dst", "ident", "pieces", "mtu"),
    "gateway": ("gateway", "retry_ms"),
    "hand": ("what", "changes", "ns", "seam", "way", "flags", "seq", "ack", "length", "src", "dst"),
    "icmp": ("name", "src", "dst", "proto", "type", "code", "errno"),
    "igmp": ("name", "src", "dst"),
    "link": ("name", "up", "mtu", "gso_max"),
    "listen": ("sock", "port", "backlog"),
    "loss": ("why", "bytes", "rtt"),
    "mtu_probe": ("size", "low", "high", "lost"),
    "pmtu": ("dst", "why", "old", "new"),
    "probe": ("why", "number", "next"),
    "rcvbuf": ("size", "most", "rtt", "space"),
    "reassembled": ("fragments", "length", "src", "dst", "ident", "proto"),
    "recovery": ("old", "new", "why"),
    "redirect": ("dst", "old", "new"),
    "reneged": ("una",),
    "reordering": ("packets", "first", "why"),
    "reset": ("sent",),
    "retransmit": ("why", "offset", "length", "attempt"),
    "route": ("routes",),
    "rto": ("attempt", "rto", "flight"),
    "rtt": ("rtt", "srtt", "rttvar", "rto"),
    "send": ("errno", "dst", "port"),
    "socket": ("sock", "before", "after"),
    "state": ("old", "new", "input"),
    "syn_cookie": ("port", "half_open"),
    "timer": ("name", "deadline", "window"),
    "undo": ("why", "old", "new", "mss"),
    "urgent": ("upto", "sent"),
    "window": ("old", "new"),
}  # fmt: skip
"""Every kind of event, with the names of its data; a test holds it against what the cores emit, and the shell."""


class EventView:
    """An event, looked at by fields."""

    quoted = None
    direction = ""

    def __init__(self, event: Event, figures: Figures | None = None) -> None:
        self.event = event
        self.figures = figures

    def connection(self) -> str:
        return self.event.conn

    def identity(self) -> int:
        return self.event.frame


def _conn(context: Any) -> str | None:
    return context.connection() or None


def _end(side: int, part: int) -> Callable[[Any], Any]:
    """A part of a connection's name: side 0 local, 1 remote; part 0 address, 2 port."""

    def get(context: Any) -> Any:
        ends = context.connection().split(">")
        if len(ends) != 2:
            return None
        text = ends[side].rpartition(":")[part]
        if part:
            return int(text) if text.isdecimal() else None
        try:
            return parse_address(text.strip("[]"))
        except ValueError:
            return None

    return get


def _figure(name: str) -> Callable[[Any], Any]:
    def get(context: Any) -> Any:
        if context.figures is None:
            return None
        conn = context.connection()
        return context.figures(conn).get(name) if conn else None

    return get


def _frame_id(context: Any) -> str | None:
    number = context.identity()
    return format_frame_id(number) if number else None


def connection_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by the names that `conn.NAME` has, from a row of tcp's `ss` (layers/tcp/info.py)."""
    info = dict(row.get("info", {}))
    info.update({name: value for name, value in row.items() if name != "info"})
    info["cwnd"] = info.get("snd_cwnd")
    info["ssthresh"] = info.get("snd_ssthresh")
    info["flight"] = info.get("unacked")
    return {name: value for name, value in info.items() if name in FIGURES and value is not None}


_US, _MS, _SEGMENTS, _BYTES = "µs", "ms", "segments", "bytes"
FIGURES: dict[str, tuple[Kind, str]] = {
    "state": (Kind.TEXT, "state by RFC 9293, as ESTABLISHED"),
    "congestion": (Kind.TEXT, "congestion control"),
    "sock": (Kind.NUMBER, "number of the socket"),
    "cwnd": (Kind.NUMBER, f"congestion window, {_SEGMENTS}"),
    "cwnd_bytes": (Kind.NUMBER, f"congestion window, {_BYTES}"),
    "ssthresh": (Kind.NUMBER, f"slow start threshold, {_SEGMENTS}"),
    "flight": (Kind.NUMBER, f"unacknowledged {_SEGMENTS}"),
    "ca_state": (Kind.NUMBER, "loss recovery: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss"),
    "retransmits": (Kind.NUMBER, "timeouts in a row"),
    "total_retrans": (Kind.NUMBER, f"retransmitted {_SEGMENTS}, ever"),
    "backoff": (Kind.NUMBER, "doublings of the RTO"),
    "probes": (Kind.NUMBER, "probes unanswered"),
    "rto": (Kind.NUMBER, f"retransmission timeout, {_US}"),
    "rtt": (Kind.NUMBER, f"smoothed round trip time, {_US}"),
    "rttvar": (Kind.NUMBER, f"its variation, {_US}"),
    "min_rtt": (Kind.NUMBER, f"least round trip time, {_US}"),
    "rcv_rtt": (Kind.NUMBER, f"round trip time as the receiver sees it, {_US}"),
    "snd_mss": (Kind.NUMBER, f"payload {_BYTES} of a segment"),
    "rcv_mss": (Kind.NUMBER, f"payload {_BYTES} of the peer's segments"),
    "advmss": (Kind.NUMBER, "MSS that we announced"),
    "pmtu": (Kind.NUMBER, "path MTU"),
    "unacked": (Kind.NUMBER, f"{_SEGMENTS} in the retransmission queue"),
    "sacked": (Kind.NUMBER, f"{_SEGMENTS} of them that SACK names"),
    "lost": (Kind.NUMBER, f"{_SEGMENTS} of them that count as lost"),
    "retrans": (Kind.NUMBER, f"{_SEGMENTS} of them that were sent again"),
    "snd_wnd": (Kind.NUMBER, f"the peer's window, {_BYTES}"),
    "rcv_wnd": (Kind.NUMBER, f"our window, {_BYTES}"),
    "snd_wscale": (Kind.NUMBER, "the peer's window scale"),
    "rcv_wscale": (Kind.NUMBER, "ours"),
    "recv_q": (Kind.NUMBER, f"{_BYTES} that the application has not taken"),
    "send_q": (Kind.NUMBER, f"{_BYTES} not acknowledged"),
    "notsent_bytes": (Kind.NUMBER, f"{_BYTES} not sent"),
    "bytes_sent": (Kind.NUMBER, f"{_BYTES} sent, repeated ones too"),
    "bytes_retrans": (Kind.NUMBER, f"{_BYTES} sent again"),
    "bytes_acked": (Kind.NUMBER, f"{_BYTES} acknowledged"),
    "bytes_received": (Kind.NUMBER, f"{_BYTES} received"),
    "segs_out": (Kind.NUMBER, f"{_SEGMENTS} sent"),
    "segs_in": (Kind.NUMBER, f"{_SEGMENTS} received"),
    "data_segs_out": (Kind.NUMBER, f"{_SEGMENTS} with data sent"),
    "data_segs_in": (Kind.NUMBER, f"{_SEGMENTS} with data received"),
    "delivered": (Kind.NUMBER, f"{_SEGMENTS} that arrived"),
    "reordering": (Kind.NUMBER, f"{_SEGMENTS} by which the path reorders"),
    "reord_seen": (Kind.NUMBER, "times that reordering was seen"),
    "dsack_dups": (Kind.NUMBER, "D-SACKs received"),
    "rcv_ooopack": (Kind.NUMBER, "segments received out of order"),
    "last_data_sent": (Kind.NUMBER, f"since data was sent, {_MS}"),
    "last_data_recv": (Kind.NUMBER, f"since data came, {_MS}"),
    "last_ack_recv": (Kind.NUMBER, f"since an ACK came, {_MS}"),
    "orphan": (Kind.FLAG, "nobody owns it any more"),
}
"""What `conn.NAME` knows besides addresses and ports."""

STATES = ("ESTABLISHED", "SYN_SENT", "SYN_RECEIVED", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSED", "CLOSE_WAIT",
          "LAST_ACK", "LISTEN", "CLOSING")  # fmt: skip
"""RFC 9293 3.3.2."""


def _states() -> tuple[str, ...]:
    return STATES


CONTEXT_FIELDS: dict[str, Field] = {
    one.name: one
    for one in [
        Field("frame.id", Kind.TEXT, "of a packet its id, of an event that of the frame it is about", _frame_id,
              of="both"),
        Field("conn", Kind.TEXT, 'the connection, "10.0.0.2:80>10.0.0.1:4711", local side first', _conn, of="both"),
        Field("conn.local", Kind.IPV4, "our address", _end(0, 0), of="both"),
        Field("conn.local_port", Kind.NUMBER, "our port", _end(0, 2), bits=16, of="both"),
        Field("conn.remote", Kind.IPV4, "the peer's address", _end(1, 0), of="both"),
        Field("conn.remote_port", Kind.NUMBER, "the peer's port", _end(1, 2), bits=16, of="both"),
        *(
            Field(f"conn.{name}", kind, title, _figure(name), of="both", words=_states if name == "state" else None)
            for name, (kind, title) in FIGURES.items()
        ),
    ]
}  # fmt: skip


def _datum(name: str) -> Callable[[Any], Any]:
    def get(context: EventView) -> Any:
        return context.event.data.get(name)

    return get


EVENT_FIELDS: dict[str, Field] = {
    one.name: one
    for one in [
        Field("event", Kind.TEXT, "kind of the event", lambda context: context.event.kind, of="event",
              words=lambda: tuple(EVENTS)),
        Field("reason", Kind.TEXT, "why something was discarded", lambda context: context.event.reason or None,
              of="event", words=lambda: tuple(row.name for row in all_reasons())),
        *(
            Field(f"event.{name}", Kind.ANY, "data of the event", _datum(name), of="event")
            for name in sorted({name for names in EVENTS.values() for name in names})
        ),
    ]
}  # fmt: skip
