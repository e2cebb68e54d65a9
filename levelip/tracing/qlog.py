"""Connections as qlog: draft-ietf-quic-qlog-main-schema-14, its sequential schema (JSON-SEQ) or the contained (JSON).

The main schema defines files, traces and events, and the namespace `loglevel`; QUIC has a schema of its own
(draft-ietf-quic-qlog-quic-events), TCP has none. So this is a private one, `SCHEMA`: namespace `tcp`, whose event types
have QUIC's names and fields wherever QUIC logs the same thing, and which are (docs/exports.md lists the fields)

    connection_started  parameters_set  packet_sent  packet_received  packet_dropped  packet_lost
    connection_state_updated  connection_closed  recovery_metrics_updated  congestion_state_updated
    timer_updated  marked_for_retransmit  mtu_updated

Every other decision is a `loglevel:info` (a discard that worries: `loglevel:warning`) with its sentence. Times are ms,
counted from the first thing known of the connection.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from levelip import __version__
from levelip.tracing.flow import Flow
from levelip.tracing.flowrows import DecisionRow, RttRow, SegmentRow, StateRow, WindowRow
from levelip.tracing.reasons import Severity, lookup
from levelip.wire.addr import format_address

FILE_CONTAINED: Final = "urn:ietf:params:qlog:file:contained"
FILE_SEQUENTIAL: Final = "urn:ietf:params:qlog:file:sequential"
SCHEMA: Final = "urn:x-level-ip:qlog:events:tcp"
"""Private, so none of the registry's form (main schema, section 8.1); the namespace's name is in it, as it must be."""
SCHEMA_LOGLEVEL: Final = "urn:ietf:params:qlog:events:loglevel"
_SEPARATOR = b"\x1e"  # RFC 7464 2.2
_FLAGS = {"S": "syn", "F": "fin", "R": "rst", "P": "psh", ".": "ack", "U": "urg", "E": "ece", "W": "cwr", "e": "ae"}
_CLOSED = ("CLOSED", "TIME_WAIT")

Json = dict[str, Any]


_LOST = {"dupack": "reordering_threshold", "rack": "time_threshold", "rack_timer": "time_threshold",
         "rto": "rto_expired", "tlp": "loss_probe"}  # fmt: skip


class QlogWriter:
    """One trace of one connection. `start`: the wall clock, ns since 1970, of the model's start. `capture`: seen on the
    way by somebody else; the draft calls that vantage point network, and names whose flow it follows."""

    def __init__(self, flow: Flow, *, start: int, source: str, capture: bool) -> None:
        self._flow = flow
        self._offset = flow.first or 0
        self._start = start + self._offset
        self._source = source
        self._capture = capture

    def write(self, stream: BinaryIO, *, sequential: bool) -> int:
        """The whole file; how many events it has."""
        count = 0
        if sequential:
            head = self._file(FILE_SEQUENTIAL, "application/qlog+json-seq")
            _record(stream, {**head, "trace": self._trace()})
            for event in self.events():
                _record(stream, event)
                count += 1
            return count
        events = list(self.events())
        head = self._file(FILE_CONTAINED, "application/qlog+json")
        stream.write(_json({**head, "traces": [{**self._trace(), "events": events}]}) + b"\n")
        return len(events)

    def _file(self, schema: str, media_type: str) -> Json:
        return {
            "file_schema": schema,
            "serialization_format": media_type,
            "title": self._flow.key,
            "description": f"lvlip {__version__}, from {self._source}",
        }

    def _trace(self) -> Json:
        flow = self._flow
        role = "client" if not flow.segments.rows or _opened_by_local(flow) else "server"
        vantage: Json = {"name": self._source, "type": role}
        if self._capture:
            vantage.update(type="network", flow=role)
        when = datetime.datetime.fromtimestamp(self._start / 1e9, datetime.UTC)
        return {
            "title": flow.key,
            "common_fields": {
                "group_id": flow.key,
                "time_format": "relative_to_epoch",
                "reference_time": {
                    "clock_type": "monotonic",
                    "epoch": "unknown",
                    "wall_clock_time": when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
                },
            },
            "vantage_point": vantage,
            "event_schemas": [SCHEMA, SCHEMA_LOGLEVEL],
        }

    def events(self) -> Iterator[Json]:
        """All events, in the order of their times."""
        flow = self._flow
        yield self._event(
            self._offset, "tcp:connection_started",
            {"local": _end(*flow.local), "remote": _end(*flow.remote)},
        )  # fmt: skip
        rows: list[Any] = [
            *flow.segments.rows, *flow.windows.rows, *flow.rtts.rows, *flow.states.rows,
            *(row for row in flow.decisions.rows if row.kind not in _TOLD_ELSEWHERE),
        ]  # fmt: skip
        rows.sort(key=lambda row: (row.t, row.n))
        state = _State(own_flight=any(row.pipe is not None for row in flow.windows.rows))
        for row in rows:
            for name, data in _translate(row, state):
                yield self._event(row.t, name, data)
            if isinstance(row, SegmentRow) and "S" in row.flags and row.way not in state.offered:
                state.offered.add(row.way)
                yield self._event(row.t, "tcp:parameters_set", parameters(flow, row.way))

    def _event(self, t: int, name: str, data: Json) -> Json:
        return {"time": round(max(t - self._offset, 0) / 1e6, 6), "name": name, "data": data}


_TOLD_ELSEWHERE = frozenset({"state", "cwnd", "undo", "rtt", "rto"})
"""Decisions that have rows of their own."""


class _State:
    """What earlier events said, for "only what changed" and "old"."""

    def __init__(self, *, own_flight: bool) -> None:
        self.metrics: Json = {}
        self.closed = False
        self.offered: set[str] = set()  # ways whose SYN was told of
        self.own_flight = own_flight  # the sender says what is in flight; else an onlooker's account is used

    def changed(self, metrics: Json) -> Json:
        """Those that differ from what was told last."""
        new = {name: value for name, value in metrics.items() if value is not None and self.metrics.get(name) != value}
        self.metrics.update(new)
        return new


def _translate(row: Any, state: _State) -> Iterator[tuple[str, Json]]:
    if isinstance(row, SegmentRow):
        yield from _segment(row, state)
    elif isinstance(row, WindowRow):
        metrics = {"congestion_window": row.cwnd, "ssthresh": row.ssthresh, "bytes_in_flight": row.pipe}
        if new := state.changed(metrics):
            yield "tcp:recovery_metrics_updated", {**new, "trigger": row.why}
    elif isinstance(row, RttRow):
        if row.why == "rto":
            yield "tcp:timer_updated", {"timer_type": "rto", "event_type": "expired", "delta": _ms(row.rto)}
        new = state.changed(
            {"smoothed_rtt": _ms(row.srtt), "rtt_variance": _ms(row.rttvar), "retransmission_timeout": _ms(row.rto)}
        )
        if row.rtt is not None and row.way == "out":
            new["latest_rtt"] = _ms(row.rtt)
        if new:
            yield "tcp:recovery_metrics_updated", {**new, "trigger": "acks_seen" if row.why == "ack" else row.why}
    elif isinstance(row, StateRow):
        data: Json = {"old": row.old.lower(), "new": row.new.lower(), "trigger": row.input.lower()}
        yield "tcp:connection_state_updated", data
        if row.new in _CLOSED and not state.closed:
            state.closed = True
            yield "tcp:connection_closed", {"trigger": row.input.lower()}
    else:
        yield _decision(row)


def _segment(row: SegmentRow, state: _State) -> Iterator[tuple[str, Json]]:
    flags = [_FLAGS[flag] for flag in row.flags if flag in _FLAGS]
    header: Json = {"packet_type": "syn" if "syn" in flags else "data" if row.len else "ack", "seq": row.seq,
                    "flags": flags, "window": row.win}  # fmt: skip
    if row.ack is not None:
        header["ack"] = row.ack
    if row.sack:
        header["sack"] = row.sack
    if row.dsack:
        header["dsack"] = row.dsack
    data: Json = {"header": header, "raw": {"payload_length": row.len}}
    if row.gso:
        data["segments"] = {"count": -(-row.len // row.gso), "size": row.gso}
    if row.id:
        data["frame_id"] = row.id
    if row.again:
        data["retransmitted"] = row.again
    if row.notes:
        data["notes"] = row.notes
    yield ("tcp:packet_sent" if row.way == "out" else "tcp:packet_received"), data
    if not state.own_flight and (new := state.changed({"bytes_in_flight": row.out_flight})):
        yield "tcp:recovery_metrics_updated", {**new, "trigger": "sent" if row.way == "out" else "acknowledged"}


def _decision(row: DecisionRow) -> tuple[str, Json]:
    values = row.data
    if row.kind == "drop":
        reason = lookup(row.reason)
        if reason is not None:
            details: Json = {**values, "message": row.text, "rule": row.rule, "severity": reason.severity.value}
            data: Json = {"trigger": row.reason, "details": details}
            return "tcp:packet_dropped", {**data, "frame_id": row.id} if row.id else data
    if row.kind == "loss" and "bytes" in values:
        why = str(values.get("why", ""))
        return "tcp:packet_lost", {"length": values["bytes"], "trigger": _LOST.get(why, why)}
    if row.kind == "pmtu" and "new" in values:
        return "tcp:mtu_updated", {name: values[name] for name in ("old", "new") if values.get(name) is not None}
    if row.kind == "retransmit" and "offset" in values:
        return "tcp:marked_for_retransmit", {
            "seq": values["offset"] + 1, "length": values.get("length", 0), "trigger": str(values.get("why", "")),
        }  # fmt: skip
    if row.kind == "recovery" and "new" in values:
        old, new = str(values.get("old", "")), str(values["new"])
        return "tcp:congestion_state_updated", {
            "old": old.lower(), "new": new.lower(), "trigger": str(values.get("why", "")).lower(),
        }  # fmt: skip
    if row.kind == "timer" and "name" in values:
        return "tcp:timer_updated", {"timer_type": str(values["name"]), "event_type": "set"}
    reason = lookup(row.reason) if row.reason else None
    level = "warning" if reason is not None and reason.severity is Severity.ERROR else "info"
    return f"loglevel:{level}", {"message": row.text}


def parameters(flow: Flow, way: str) -> Json:
    """What a side offered in its SYN, as data of `parameters_set`."""
    side = flow.out if way == "out" else flow.into
    told: Json = {"owner": "local" if way == "out" else "remote", "initial_sequence": side.base,
                  "max_segment_size": side.mss, "window_scale": side.shift, "sack_permitted": side.sack_permitted,
                  "timestamps": side.stamps}  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def _opened_by_local(flow: Flow) -> bool:
    """Whether the local side sent the first SYN; the one with the higher port, if none was seen."""
    for row in flow.segments.rows:
        if "S" in row.flags:
            return (row.way == "out") != ("." in row.flags)
    return flow.local[1] > flow.remote[1]


def _end(address: bytes, port: int) -> Json:
    name = "ip_v4" if len(address) == 4 else "ip_v6"
    return {name: format_address(address), f"port_{name[3:]}": port}


def _ms(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 6)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _record(stream: BinaryIO, value: Json) -> None:
    stream.write(_SEPARATOR + _json(value) + b"\n")
