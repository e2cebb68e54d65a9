"""What happened on each connection, for graphs, ladders and other tools: built record by record, bounded in memory.

`FlowModel.add(record)` takes what the tap bus sends (docs/tracing.md: frames at ip-tcp, events), `segment(...)` a
packet of a capture. `flows` has a `Flow` a connection, whose rings hold rows of plain data (flowrows.py). To follow
one:

    news = flow.since(n)      # {"next": 131, "left_out": {...}, "segments": [...], "windows": [...], ...}
    n = news["next"]

Nothing here reads a clock, a file or a socket.
"""

from __future__ import annotations

import struct
from typing import Any

from levelip.frames.packet import format_frame_id
from levelip.tracing.events import Event
from levelip.tracing.flowrows import (
    SERIES,
    DecisionRow,
    Ring,
    RttRow,
    SegmentRow,
    StateRow,
    WindowRow,
)
from levelip.tracing.flowside import Side
from levelip.tracing.formatting import sentence
from levelip.tracing.reasons import lookup
from levelip.wire.addr import format_address, parse_address
from levelip.wire.options import TIMESTAMPS_LEN, TcpOptions, parse_options
from levelip.wire.tcp import ACK, FIN, RST, SYN, flags_text

SEAM = "ip-tcp"
"""Where segments are looked at. Listen there at tcp, both ways, and to tcp's events: then all is in tcp's own order."""
ROWS = 100_000
"""Rows of a kind, a connection."""
FLOWS = 2_000
TOTAL = 1_000_000
"""Rows in all. Beyond either, the connection that was silent for longest is left out, and counted."""
_REMEMBERED = 4096
"""Frames whose process is known, so that one that both ip and tcp tell of counts once."""
_INFINITE = 1 << 30
"""An ssthresh from here on was never lowered (RFC 5681 3.1)."""
_MOST_SHIFT = 14  # RFC 7323 2.3
_PROTO_TCP = 6
_TCP = struct.Struct(">HHIIHHHH")
INFERRED = "inferred"
"""Where a state has no other reason than what an onlooker makes of the segments; gone once the stack tells its own."""
_ENDED = ("CLOSED", "TIME_WAIT")


class Flow:
    """One connection. `local` is the stack's side, or in a capture the one that opened it (or was seen first)."""

    def __init__(self, key: str, local: tuple[bytes, int], remote: tuple[bytes, int], rows: int) -> None:
        self.key = key
        self.local = local
        self.remote = remote
        self.out = Side()
        self.into = Side()
        self.state: str | None = None  # None: not told yet
        self.count = 0  # the number of the newest row
        self.first: int | None = None
        self.last = 0
        self.segments: Ring[SegmentRow] = Ring(rows)
        self.windows: Ring[WindowRow] = Ring(rows)
        self.rtts: Ring[RttRow] = Ring(rows)
        self.states: Ring[StateRow] = Ring(rows)
        self.decisions: Ring[DecisionRow] = Ring(rows)
        self.told = False  # events say what its states are
        self.largest = 0  # bytes of data in the largest packet that the local side sent
        self._handshake = 0  # ns: the first round trip

    @property
    def held(self) -> int:
        """Rows that are kept."""
        return (
            len(self.segments.rows) + len(self.windows.rows) + len(self.rtts.rows) + len(self.states.rows)
            + len(self.decisions.rows)
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.state in _ENDED

    def since(self, n: int = 0) -> dict[str, Any]:
        """What is new after row `n`: rows by series, `next` to ask with, and how many older ones each has left out."""
        news: dict[str, Any] = {name: getattr(self, name).since(n) for name in SERIES}
        news["next"] = self.count
        news["left_out"] = {name: ring.left_out for name in SERIES if (ring := getattr(self, name)).left_out}
        return news

    def summary(self) -> dict[str, Any]:
        """One line about it, as plain data; what is not known is None."""
        windows, rtts = self.windows.rows, self.rtts.rows
        window = windows[-1] if windows else None
        rtt = next((row for row in reversed(rtts) if row.why == "rtt"), rtts[-1] if rtts else None)
        return {
            "key": self.key,
            "local": format_address(self.local[0]),
            "local_port": self.local[1],
            "remote": format_address(self.remote[0]),
            "remote_port": self.remote[1],
            "state": self.state,
            "first": self.first,
            "last": self.last,
            "rows": self.count,
            "left_out": sum(getattr(self, name).left_out for name in SERIES),
            "cwnd": window.cwnd if window else None,
            "ssthresh": window.ssthresh if window else None,
            "rtt": rtt.rtt if rtt else None,
            "srtt": rtt.srtt if rtt else None,
            "rto": rtts[-1].rto if rtts else None,
            "out": self.out.summary(),
            "in": self.into.summary(),
        }

    # taking in

    def _next(self, t: int) -> int:
        if self.first is None:
            self.first = t
        self.last = max(self.last, t)
        self.count += 1
        return self.count

    def segment(
        self, t: int, outward: bool, head: bytes, length: int, gso: int, id_: str, *, infer: bool = False
    ) -> None:
        """A segment: its TCP header with options, and how many bytes follow."""
        _, _, seq, acknowledgment, word, window, _, _ = _TCP.unpack_from(head)
        flags = word & 0x1FF
        side, other = (self.out, self.into) if outward else (self.into, self.out)
        options = _options(head, flags)
        notes: list[str] = []
        if flags & SYN:
            if side.base is None or (not side.syn and not side.segments):
                side.begin(seq)
            side.mss = options.mss if options else None
            side.shift = options.wscale if options else None
            side.sack_permitted = bool(options and options.sack_permitted)
            side.stamps = bool(options and options.timestamps)
        pieces = -(-length // gso) if gso and length > gso else 1
        if outward:
            self.largest = max(self.largest, gso if pieces > 1 else length)
        side.segments += 1
        side.packets += pieces
        side.bytes += length
        start = side.relative(seq)
        end = start + length + bool(flags & SYN) + bool(flags & FIN)
        again = 0
        strange = side.known and side.far(start)
        rtt = None
        ack: int | None = None
        sack: list[list[int]] = []
        dsack: list[int] | None = None
        wide = window
        if not flags & SYN and side.shift is not None and other.shift is not None:
            wide = window << min(side.shift, _MOST_SHIFT)
        if strange:
            notes.append("beyond_window")
        else:
            probe = length <= 1 and start == side.nxt - 1 and not flags & (SYN | FIN | RST) and side.nxt > 1
            if probe:
                notes.append("zero_window_probe" if other.win == 0 else "keep_alive")
            elif not flags & RST:
                again, found = side.sent(start, end, t, self._handshake)
                notes += found
            if flags & FIN:
                side.fin = end - 1
            if flags & ACK:
                ack, rtt = self._acknowledgment(
                    side, other, acknowledgment, wide, options, flags, end > start, probe, t, notes, sack
                )
                if sack and (sack[0][0] < ack or (len(sack) > 1 and _inside(sack[0], sack[1]))):
                    dsack = sack.pop(0)
                    notes.append("dsack")
        self.segments.append(
            SegmentRow(
                self._next(t), t, "out" if outward else "in", start, length, flags_text(flags), ack, wide,
                gso if pieces > 1 else 0, sack, dsack, again, notes, self.out.flight(), self.into.flight(), id_,
            )
        )  # fmt: skip
        if rtt is not None:
            self._handshake = self._handshake or rtt
            way = "in" if outward else "out"
            self.rtts.append(RttRow(self._next(t), t, way, rtt, None, None, None, "ack"))
        if infer and not self.told and not strange:
            self._infer(t, outward, flags, id_)

    def _acknowledgment(
        self, side: Side, other: Side, number: int, window: int, options: TcpOptions | None, flags: int, holds: bool,
        probe: bool, t: int, notes: list[str], sack: list[list[int]],
    ) -> tuple[int, int | None]:  # fmt: skip
        """What `side` says of the other's data; fills `notes` and `sack`."""
        ack = other.relative(number)
        if options and options.sack:
            sack += [[other.relative(left), other.relative(right)] for left, right in options.sack]
        if not holds and not probe and not flags & RST and ack == side.ack:
            if other.nxt > other.una and (sack or window == side.win):
                notes.append("duplicate_ack")
            elif window != side.win:
                notes.append("window_update")
        if not window and not flags & RST:
            notes.append("zero_window")
        rtt = None if flags & RST else other.acknowledged(ack, window, [one for one in sack if one[0] >= ack], t)
        side.ack, side.win = ack, window
        return ack, rtt

    def event(self, t: int, process: str, event: Event) -> None:
        """An event about it."""
        id_ = format_frame_id(event.frame) if event.frame else ""
        self.figures(t, event, id_)
        reason = lookup(event.reason) if event.reason else None
        rule = reason.rule if reason is not None else ""
        text, data = sentence(event), _plain(event.data)
        self.decisions.append(DecisionRow(self._next(t), t, process, event.kind, event.reason, rule, text, id_, data))

    def figures(self, t: int, event: Event, id_: str) -> None:
        """What an event says of states, windows and round trips."""
        kind, data = event.kind, event.data
        if kind == "state" and "new" in data:
            if not self.told:
                self.told = True
                self.states.rows = [row for row in self.states.rows if row.input != INFERRED]
            self.state = str(data["new"])
            row = StateRow(self._next(t), t, str(data.get("old", "")), self.state, str(data.get("input", "")), id_)
            self.states.append(row)
        elif kind in ("cwnd", "undo") and "new" in data:
            ssthresh = data.get("ssthresh")
            if ssthresh is None and kind == "undo" and self.windows.rows:
                ssthresh = self.windows.rows[-1].ssthresh
            if ssthresh is not None and ssthresh >= _INFINITE:
                ssthresh = None
            why = f"undo {data.get('why', '')}" if kind == "undo" else str(data.get("why", ""))
            self.windows.append(
                WindowRow(self._next(t), t, data["new"], ssthresh, data.get("flight"), why)
            )
        elif kind == "rtt" and "rtt" in data:
            srtt, rttvar, rto = (data.get(name) for name in ("srtt", "rttvar", "rto"))
            self.rtts.append(RttRow(self._next(t), t, "out", data["rtt"], srtt, rttvar, rto, "rtt"))
        elif kind == "rto" and "rto" in data:
            self.rtts.append(RttRow(self._next(t), t, "out", None, None, None, data["rto"], "rto"))

    def comment(self, t: int, process: str, event: Event, text: str, id_: str) -> None:
        """A decision of which the text is known, and what `event` has of it."""
        self.figures(t, event, id_)
        data = _plain(event.data)
        self.decisions.append(DecisionRow(self._next(t), t, process, event.kind, "", "", text, id_, data))

    def out_mss(self) -> int:
        """Bytes of data in a full packet of the local side, as far as is known: what both MSS leave beside timestamps
        (RFC 6691 2), or the most that was seen."""
        if not self.out.mss or not self.into.mss:
            return self.largest or 1448
        return min(self.out.mss, self.into.mss) - (TIMESTAMPS_LEN if self.out.stamps and self.into.stamps else 0)

    def _infer(self, t: int, outward: bool, flags: int, id_: str) -> None:
        """The local side's state, from what a capture shows: RFC 9293 3.3.2's table as an onlooker can follow it."""
        old, new = self.state or "CLOSED", None
        ours, theirs = self.out, self.into
        if flags & RST:
            new = "CLOSED"
        elif flags & SYN:
            if old == "CLOSED" and self.state is None:
                new = ("SYN_RECEIVED" if theirs.syn else "SYN_SENT") if outward else "SYN_RECEIVED"
            elif old == "SYN_SENT" and not outward and not flags & ACK:
                new = "SYN_RECEIVED"
        elif self.state is None:
            new = "ESTABLISHED"  # it began before the capture
        elif old in ("SYN_SENT", "SYN_RECEIVED"):
            if ours.una > 0 and theirs.una > 0:
                new = "ESTABLISHED"
        if new is None and not flags & RST and old not in ("CLOSED", "SYN_SENT", "SYN_RECEIVED", "TIME_WAIT"):
            we, they = ours.fin >= 0, 0 <= theirs.fin < theirs.nxt
            acked = we and ours.una > ours.fin
            if they and not we:
                new = "CLOSE_WAIT"
            elif we and not they:
                new = "FIN_WAIT_2" if acked else "FIN_WAIT_1"
            elif we and they:
                if old in ("CLOSE_WAIT", "LAST_ACK"):
                    new = "CLOSED" if acked else "LAST_ACK"
                else:
                    new = "TIME_WAIT" if acked else "CLOSING"
        if new is None or new == old:
            return
        self.state = new
        self.states.append(StateRow(self._next(t), t, old, new, INFERRED, id_))


def _options(head: bytes, flags: int) -> TcpOptions | None:
    """Those that say something here; None for the timestamps alone, as nearly always."""
    size = (head[12] >> 2 & 0x3C) - 20
    if size <= 0 or (size == TIMESTAMPS_LEN and not flags & SYN and head[20:24] == b"\x01\x01\x08\x0a"):
        return None
    return parse_options(head[20 : 20 + size], strict=False)


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """As JSON can say it: bytes become hex."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in data.items()}


def _inside(block: list[int], outer: list[int]) -> bool:
    return outer[0] <= block[0] and block[1] <= outer[1]


class FlowModel:
    """All connections. `infer`: states from the segments, for captures; the stack tells them itself.

    `start` is the instant of the first thing taken in, from which every `t` counts; `flows` by key, the connection's
    name, with "#2" and so on where the same ports served again; `left_out` counts connections that were forgotten,
    `lost` records that never came.
    """

    def __init__(
        self, *, infer: bool = False, rows: int = ROWS, flows: int = FLOWS, total: int = TOTAL
    ) -> None:
        self.start: int | None = None
        self.flows: dict[str, Flow] = {}
        self.left_out = 0
        self.lost = 0
        self.others: Ring[DecisionRow] = Ring(rows)  # events about no connection
        self._other_count = 0
        self._infer = infer
        self._rows = rows
        self._most = flows
        self._total = total
        self._held = 0
        self._current: dict[tuple[bytes, int, bytes, int], Flow] = {}
        self._by_name: dict[str, Flow] = {}
        self._times: dict[str, int] = {}  # name → how often it was used
        self._seen: dict[int, str] = {}  # frame id → the process that told of it

    def add(self, record: list[Any]) -> Flow | None:
        """A record of the tap bus; the connection that it is about, if any. One that does not fit is passed over."""
        if record[1] == "e":
            at, kind, reason, frame, conn, data = record[4]
            return self.event(record[2], Event(at, kind, reason, frame, conn, data))
        _, _, process, seam, direction, stack, _, id_, _, kind, fields, head, payload, length, _, gso = record
        if seam != SEAM or kind != "Segment" or fields.get("proto") != _PROTO_TCP:
            return None
        told = self._seen.get(id_)
        if told is not None and told != process:
            return None
        if told is None:
            self._seen[id_] = process
            if len(self._seen) > _REMEMBERED:
                self._seen = dict(list(self._seen.items())[_REMEMBERED // 2 :])
        outward = (direction == "out") == (process == "tcp")
        return self.segment(
            stack, fields["src"], fields["dst"], head + payload[:60] if len(head) < 60 else head, len(head) + length,
            gso=gso, id_=format_frame_id(id_), outward=outward,
        )  # fmt: skip

    def segment(
        self, when: int, src: bytes, dst: bytes, head: bytes, length: int, *, gso: int = 0, id_: str = "",
        outward: bool | None = None,
    ) -> Flow | None:  # fmt: skip
        """A TCP segment of `length` bytes that starts with `head`, at instant `when`; None if its header is not whole.

        `outward`: sent by the local side; None: not known, and the first one seen of a connection decides.
        """
        if len(head) < 20:
            return None
        size = head[12] >> 2 & 0x3C
        if size < 20 or size > min(len(head), length):
            return None
        found = self.between(src, dst, head)
        flow = None
        if found is not None:
            flow, outward = found
        flags = head[13]
        if flow is None or (flags & SYN and self._anew(flow, flow.out if outward else flow.into, head)):
            if outward is None:
                outward = not (flags & SYN and flags & ACK)  # who answers a SYN did not open it
            sport, dport = head[0] << 8 | head[1], head[2] << 8 | head[3]
            flow = self._open((src, sport, dst, dport) if outward else (dst, dport, src, sport))
        else:
            self._touch(flow)
        self._held -= flow.held
        flow.segment(self._since(when), bool(outward), head, length - size, gso, id_, infer=self._infer)
        self._hold(flow)
        return flow

    def between(self, src: bytes, dst: bytes, head: bytes) -> tuple[Flow, bool] | None:
        """The connection of a segment that starts with `head`, and whether its local side sent it."""
        sport, dport = head[0] << 8 | head[1], head[2] << 8 | head[3]
        flow = self._current.get((src, sport, dst, dport))
        if flow is not None:
            return flow, True
        flow = self._current.get((dst, dport, src, sport))
        return (flow, False) if flow is not None else None

    def event(self, process: str, event: Event) -> Flow | None:
        """A decision of a process."""
        t = self._since(event.at)
        flow = self._by_name.get(event.conn) if event.conn else None
        begins = event.kind == "state" and event.data.get("old") in ("CLOSED", "LISTEN")
        if event.conn and (flow is None or (begins and flow.ended)):
            key = _parse_name(event.conn)
            flow = self._open(key) if key is not None else None
        if flow is None:
            reason = lookup(event.reason) if event.reason else None
            id_ = format_frame_id(event.frame) if event.frame else ""
            self._other_count += 1
            self.others.append(
                DecisionRow(
                    self._other_count, t, process, event.kind, event.reason, reason.rule if reason else "",
                    sentence(event), id_, _plain(event.data),
                )
            )  # fmt: skip
            return None
        self._touch(flow)
        self._held -= flow.held
        flow.event(t, process, event)
        self._hold(flow)
        return flow

    def know(self, name: str, *, out_wscale: int | None, in_wscale: int | None, state: str | None = None) -> None:
        """What the stack says of a connection whose SYNs were not seen: else its windows are shown unscaled."""
        flow = self._by_name.get(name)
        if flow is None:
            key = _parse_name(name)
            if key is None:
                return
            flow = self._open(key)
        if not flow.out.syn and not flow.into.syn:
            flow.out.shift, flow.into.shift = out_wscale, in_wscale
        flow.state = flow.state or state

    def named(self, name: str) -> Flow | None:
        """The newest connection of that name, "10.0.0.2:80>10.0.0.1:4711"."""
        return self._by_name.get(name)

    def said(self, flow: Flow, when: int, process: str, event: Event, text: str, id_: str) -> None:
        """A decision about `flow` of which the sentence is known, and as much as `event` has of it."""
        self._held -= flow.held
        flow.comment(self._since(when), process, event, text, id_)
        self._hold(flow)

    def find(self, text: str) -> list[Flow]:
        """Connections that `text` means: a key, or a part of it that others may share ("80", "10.0.0.1:4711")."""
        text = text.replace(" ", "")
        exact = self.flows.get(text)
        if exact is not None:
            return [exact]
        return [flow for flow in self.flows.values() if _means(text, flow)]

    # keeping

    def _since(self, when: int) -> int:
        if self.start is None:
            self.start = when
        return when - self.start

    def _anew(self, flow: Flow, side: Side, head: bytes) -> bool:
        """Whether a SYN begins another connection between the same ports; or this one again, after the reset of an
        older one that was half-open there (RFC 9293 3.5.1)."""
        seq = int.from_bytes(head[4:8], "big")
        if side.base is None:
            return False
        if side.syn and seq == side.base:
            rows = flow.segments.rows
            return not head[13] & ACK and (flow.ended or bool(rows and "R" in rows[-1].flags))
        return flow.ended or (self._infer and side.syn and not head[13] & ACK)

    def _open(self, key: tuple[bytes, int, bytes, int]) -> Flow:
        local, lport, remote, rport = key
        name = f"{format_address(local)}:{lport}>{format_address(remote)}:{rport}"
        times = self._times[name] = self._times.get(name, 0) + 1
        flow = Flow(name if times == 1 else f"{name}#{times}", (local, lport), (remote, rport), self._rows)
        self._current.pop((remote, rport, local, lport), None)
        self._current[key] = flow
        self._by_name[name] = flow
        self.flows[flow.key] = flow
        if len(self.flows) > self._most:
            self._forget()
        return flow

    def _touch(self, flow: Flow) -> None:
        """Move it to the end, of those that are forgotten last."""
        if next(reversed(self.flows)) != flow.key:
            del self.flows[flow.key]
            self.flows[flow.key] = flow

    def _hold(self, flow: Flow) -> None:
        self._held += flow.held
        while self._held > self._total and len(self.flows) > 1:
            self._forget()

    def _forget(self) -> None:
        """Leave out the connection that was silent for longest."""
        key = next(iter(self.flows))
        flow = self.flows.pop(key)
        self._held -= flow.held
        self.left_out += 1
        name = key.partition("#")[0]
        if self._by_name.get(name) is flow:
            del self._by_name[name]
            self._current.pop((*flow.local, *flow.remote), None)
            if len(self._times) > 10 * self._most:
                self._times = {one: times for one, times in self._times.items() if one in self._by_name}


def _means(text: str, flow: Flow) -> bool:
    local, _, remote = flow.key.partition("#")[0].partition(">")
    if text in (local, remote, f"{remote}>{local}"):
        return True
    hosts_and_ports = [*local.rpartition(":")[::2], *remote.rpartition(":")[::2]]
    return text in hosts_and_ports or text.removeprefix(":") in hosts_and_ports


def _parse_name(name: str) -> tuple[bytes, int, bytes, int] | None:
    """(local, port, remote, port) of "10.0.0.2:80>10.0.0.1:4711"; None if it is something else."""
    try:
        (local, lport), (remote, rport) = (end.rsplit(":", 1) for end in name.split(">"))
        return parse_address(local.strip("[]")), int(lport), parse_address(remote.strip("[]")), int(rport)
    except ValueError:
        return None
