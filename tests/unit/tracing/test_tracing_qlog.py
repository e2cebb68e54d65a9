"""qlog files hold to draft-ietf-quic-qlog-main-schema-14, field by field, and say what the model says.

Twice: by the functions here, and by a JSON schema (docs/qlog-tcp.schema.json) that a library reads."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from levelip.tracing.flow import Flow
from levelip.tracing.qlog import SCHEMA, QlogWriter
from levelip.wire.tcp import ACK, RST
from tests.netsim.net import MS
from tests.unit.tracing.test_tracing_flow import Wire, transferred

START = 1_700_000_000_000_000_000
RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
VANTAGE_POINTS = {"client", "server", "network", "unknown"}
TYPES = {
    "tcp": {"connection_started", "parameters_set", "packet_sent", "packet_received", "packet_dropped", "packet_lost",
            "connection_state_updated", "connection_closed", "recovery_metrics_updated", "congestion_state_updated",
            "timer_updated", "marked_for_retransmit", "mtu_updated"},
    "loglevel": {"error", "warning", "info", "debug", "verbose"},  # section 9.1
}  # fmt: skip


ROOT = Path(__file__).parents[3]
JSON_SCHEMA = json.loads((ROOT / "docs" / "qlog-tcp.schema.json").read_text("utf-8"))
holds: Callable[[Any], Any] = fastjsonschema.compile(JSON_SCHEMA)
"""Raises for what is no file, head of a sequence, or event of ours."""


def has(value: Any, required: dict[str, Any], optional: dict[str, Any], *, more: bool = False) -> None:
    """A CDDL map: its required members, the optional ones, and no others (unless `more`: `* text => any`)."""
    assert isinstance(value, dict)
    for name, kind in required.items():
        assert name in value, name
        assert isinstance(value[name], kind), (name, value[name])
    for name, kind in optional.items():
        assert name not in value or isinstance(value[name], kind), (name, value[name])
    if not more:
        assert set(value) <= set(required) | set(optional), set(value) - set(required) - set(optional)


def check_log_file(head: Any, schema: str, media_type: str, own: dict[str, Any]) -> None:
    """LogFile, section 3."""
    has(head, {"file_schema": str, "serialization_format": str, **own}, {"title": str, "description": str})
    assert (head["file_schema"], head["serialization_format"]) == (schema, media_type)


def check_trace(trace: Any, own: dict[str, Any]) -> None:
    """Trace and TraceSeq (4.2, 5.1), CommonFields (7.5), ReferenceTime (7.1), VantagePoint (6)."""
    has(trace, {"event_schemas": list, **own}, {"title": str, "description": str, "common_fields": dict,
                                                "vantage_point": dict})  # fmt: skip
    assert trace["event_schemas"]
    for uri in trace["event_schemas"]:
        assert re.match(r"[a-z][a-z0-9+.-]*:.", uri), "an absolute URI"
    private = [uri for uri in trace["event_schemas"] if not uri.startswith("urn:ietf:params:qlog:events:")]
    assert private == [SCHEMA] and SCHEMA.endswith("tcp"), "8.1: private schemas must not use the registry's URNs"
    common = trace["common_fields"]
    has(common, {}, {"tuple": str, "time_format": str, "reference_time": dict, "group_id": str}, more=True)
    assert common["time_format"] in ("relative_to_epoch", "relative_to_previous_event")
    reference = common["reference_time"]
    has(reference, {"clock_type": str, "epoch": str}, {"wall_clock_time": str})
    if reference["clock_type"] == "monotonic":
        assert reference["epoch"] == "unknown"
    assert re.fullmatch(RFC3339, reference["wall_clock_time"])
    point = trace["vantage_point"]
    has(point, {"type": str}, {"name": str, "flow": str})
    assert point["type"] in VANTAGE_POINTS and point.get("flow", "client") in VANTAGE_POINTS
    assert ("flow" in point) == (point["type"] == "network"), "section 6: needed for network, and only there"


def check_events(events: list[Any]) -> None:
    """Event, section 7: members, names of namespace and type, ascending times."""
    before = 0.0
    for event in events:
        has(event, {"time": float, "name": str, "data": dict},
            {"tuple": str, "time_format": str, "group_id": str, "system_info": dict})  # fmt: skip
        assert event["time"] >= before
        before = event["time"]
        namespace, _, kind = event["name"].partition(":")
        assert kind in TYPES[namespace], event["name"]
        for name, value in event["data"].items():
            assert value is not None, (event, name)
        if namespace == "loglevel":
            has(event["data"], {"message": str}, {"code": int})


def contained(flow: Flow, **how: Any) -> tuple[Any, list[Any]]:
    """The trace and the events of a checked QlogFile."""
    out = io.BytesIO()
    writer = QlogWriter(flow, **{"start": START, "source": "stack t", "capture": False, **how})
    written = writer.write(out, sequential=False)
    data = out.getvalue()
    assert b"file_schema" in data[:256] and b"serialization_format" in data[:256], "section 3"
    file = json.loads(data)
    holds(file)
    check_log_file(file, "urn:ietf:params:qlog:file:contained", "application/qlog+json", {"traces": list})
    (trace,) = file["traces"]
    check_trace(trace, {"events": list})
    check_events(trace["events"])
    assert written == len(trace["events"])
    return trace, trace["events"]


def sequential(flow: Flow) -> tuple[Any, list[Any]]:
    """The trace and the events of a checked QlogFileSeq: RFC 7464 records."""
    out = io.BytesIO()
    QlogWriter(flow, start=START, source="stack t", capture=False).write(out, sequential=True)
    data = out.getvalue()
    assert data[:1] == b"\x1e"
    texts = data.split(b"\x1e")[1:]
    assert all(text.endswith(b"\n") and b"\n" not in text[:-1] for text in texts), "RFC 7464 2.2"
    head, *events = map(json.loads, texts)
    check_log_file(head, "urn:ietf:params:qlog:file:sequential", "application/qlog+json-seq", {"trace": dict})
    check_trace(head["trace"], {})
    check_events(events)
    for record in (head, *events):
        holds(record)
    return head["trace"], events


@pytest.fixture(scope="module")
def lossy() -> Flow:
    model, _, _, _ = transferred(2)
    (flow,) = model.flows.values()
    return flow


def test_both_schemas_hold_and_say_the_same(lossy: Flow) -> None:
    trace, events = contained(lossy)
    sequence, same = sequential(lossy)
    assert events == same
    assert {name: trace[name] for name in sequence} == sequence
    assert trace["vantage_point"] == {"name": "stack t", "type": "client"}
    assert trace["common_fields"]["reference_time"]["wall_clock_time"] == "2023-11-14T22:13:20.000Z"


WRONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("no schema of the file", lambda file: file.pop("file_schema")),
    ("another media type", lambda file: file.update(serialization_format="application/json")),
    ("no events' schemas", lambda file: file["traces"][0].update(event_schemas=[])),
    ("ours is not named", lambda file: file["traces"][0].update(event_schemas=["urn:ietf:params:qlog:events:quic"])),
    ("a trace without events", lambda file: file["traces"][0].pop("events")),
    ("a vantage point that is none", lambda file: file["traces"][0]["vantage_point"].update(type="middle")),
    ("network without flow", lambda file: file["traces"][0]["vantage_point"].update(type="network")),
    ("flow at an end", lambda file: file["traces"][0]["vantage_point"].update(flow="client")),
    ("monotonic with an epoch", lambda file: file["traces"][0]["common_fields"]["reference_time"].update(
        epoch="1970-01-01T00:00:00.000Z")),
    ("a date that is none", lambda file: file["traces"][0]["common_fields"]["reference_time"].update(
        wall_clock_time="yesterday")),
    ("an old time format", lambda file: file["traces"][0]["common_fields"].update(time_format="relative")),
    ("a member that is none", lambda file: file["traces"][0].update(qlog_version="0.4")),
]  # fmt: skip


@pytest.mark.parametrize("change", [change for _, change in WRONG], ids=[name for name, _ in WRONG])
def test_the_schema_refuses_a_file_of_something_else(lossy: Flow, change: Callable[[Any], Any]) -> None:
    """What the draft says must be there, or must not, is what the schema holds files to."""
    file = copy.deepcopy(one_file(lossy))
    holds(file)
    change(file)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        holds(file)


def one_file(flow: Flow) -> Any:
    out = io.BytesIO()
    QlogWriter(flow, start=START, source="stack t", capture=False).write(out, sequential=False)
    return json.loads(out.getvalue())


def test_the_schema_holds_each_event_to_its_data(lossy: Flow) -> None:
    """Of every type that occurs: a member less that it needs, one that it does not know, and a name that is none."""
    seen: dict[str, Any] = {}
    for event in one_file(lossy)["traces"][0]["events"]:
        seen.setdefault(event["name"], event)
    assert len(seen) >= 9
    for name, event in seen.items():
        namespace, _, kind = name.partition(":")
        needed = JSON_SCHEMA["definitions"][kind].get("required", []) if namespace == "tcp" else ["message"]
        for wrong in [
            *({**event, "data": {k: v for k, v in event["data"].items() if k != member}} for member in needed),
            {**event, "data": {**event["data"], "colour": "red"}},
            {**event, "data": {**event["data"], needed[0]: []}},
            {**event, "name": name.replace(kind, kind.title())},
            {**event, "time": "0.0"},
        ]:
            with pytest.raises(fastjsonschema.JsonSchemaException):
                holds(wrong)


def test_the_schema_and_the_page_name_the_same_events() -> None:
    """docs/exports.md lists each with its data."""
    page = (ROOT / "docs" / "exports.md").read_text("utf-8")
    listed = {name for row in re.findall(r"^\| (`tcp:.*?) \|", page, re.M) for name in re.findall(r"`tcp:(\w+)`", row)}
    names = JSON_SCHEMA["definitions"]["event"]["properties"]["name"]["enum"]
    assert listed == TYPES["tcp"] == {name[4:] for name in names if name.startswith("tcp:")}
    for row in re.findall(r"^\| `tcp:.*$", page, re.M):
        name, data = re.findall(r"`tcp:(\w+)`", row)[0], row.split("|")[2]
        for member in JSON_SCHEMA["definitions"][name]["properties"]:
            assert f"`{member}" in data, (name, member)


def of_type(events: list[Any], name: str) -> list[Any]:
    return [event["data"] for event in events if event["name"] == name]


def test_every_segment_and_decision_of_the_model_is_there(lossy: Flow) -> None:
    _, events = contained(lossy)
    rows = lossy.segments.rows
    sent = of_type(events, "tcp:packet_sent")
    assert [one["header"]["seq"] for one in sent] == [row.seq for row in rows if row.way == "out"]
    assert len(of_type(events, "tcp:packet_received")) == sum(row.way == "in" for row in rows)
    assert sum(one.get("retransmitted", 0) for one in sent) == lossy.out.repeated > 0
    assert of_type(events, "tcp:packet_received")[0]["header"]["flags"] == ["syn", "ack"]
    metrics = of_type(events, "tcp:recovery_metrics_updated")
    windows = [one["congestion_window"] for one in metrics if "congestion_window" in one]
    assert windows[-1] == lossy.windows.rows[-1].cwnd
    assert next(one["smoothed_rtt"] for one in metrics if "smoothed_rtt" in one) == pytest.approx(20.0, abs=0.1)
    resent = of_type(events, "tcp:marked_for_retransmit")
    assert len(resent) == sum(row.kind == "retransmit" for row in lossy.decisions.rows)
    again = {(row.seq, row.len) for row in rows if row.way == "out" and row.again}
    assert {(one["seq"], one["length"]) for one in resent} == again
    states = [one["new"] for one in of_type(events, "tcp:connection_state_updated")]
    assert states == [row.new.lower() for row in lossy.states.rows]
    assert {"recovery", "open"} <= {one["new"] for one in of_type(events, "tcp:congestion_state_updated")}
    assert of_type(events, "tcp:packet_lost")
    assert [one["owner"] for one in of_type(events, "tcp:parameters_set")] == ["local", "remote"]
    assert of_type(events, "tcp:parameters_set")[0]["max_segment_size"] == 1460


def test_drops_carry_their_reason_and_rule_and_everything_else_its_sentence() -> None:
    wire = Wire()
    flow = wire.open()
    wire.event("drop", reason="tcp_rst_outside")
    wire.event("probe", why="keepalive", number=1, next=75 * MS)
    wire.event("pmtu", old=1500, new=1400, why="icmp")
    wire.event("rto", rto=400 * MS, attempt=1, flight=10)
    wire.into(RST | ACK, 1, 1)
    wire.event("state", old="ESTABLISHED", new="CLOSED", input="ABORT")
    trace, events = contained(flow)
    assert trace["vantage_point"]["type"] == "server"
    (dropped,) = of_type(events, "tcp:packet_dropped")
    assert (dropped["trigger"], dropped["details"]["rule"]) == ("tcp_rst_outside", "RFC 9293 3.10.7.4, second step")
    assert of_type(events, "loglevel:info") == [{"message": "keep-alive 1, next in 75 ms"}]
    assert of_type(events, "tcp:mtu_updated") == [{"old": 1500, "new": 1400}]
    (timer,) = of_type(events, "tcp:timer_updated")
    assert timer == {"timer_type": "rto", "event_type": "expired", "delta": 400.0}
    assert of_type(events, "tcp:connection_closed") == [{"trigger": "abort"}]


def test_a_capture_is_seen_from_the_network_and_follows_the_side_that_opened() -> None:
    wire = Wire(infer=True)
    flow = wire.open()
    trace, _ = contained(flow, capture=True, source="x.pcapng")
    assert trace["vantage_point"] == {"name": "x.pcapng", "type": "network", "flow": "server"}


def test_ipv6_ends_are_named_as_such() -> None:
    from levelip.tracing.flow import FlowModel
    from levelip.wire.tcp import SYN, pack_tcp

    model = FlowModel(infer=True)
    flow = model.segment(1, bytes(15) + b"\1", bytes(15) + b"\2", pack_tcp(1, 2, seq=1, ack=0, flags=SYN, window=1), 20)
    assert flow is not None
    _, events = contained(flow)
    assert of_type(events, "tcp:connection_started")[0]["local"] == {"ip_v6": "::1", "port_v6": 1}
