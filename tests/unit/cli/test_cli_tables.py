"""ss, neigh, route, stat, explain: what layers answer, as the lines that Linux's tools would print."""

# ruff: noqa: E501 - expected lines stand as they are printed
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cli_layer import FakeLayer
from click.testing import Result

from levelip.cli import ss

INFO = {
    "state": 1, "retransmits": 0, "backoff": 0, "options": 7, "snd_wscale": 7, "rcv_wscale": 7, "rto": 204_000,
    "ato": 0, "snd_mss": 1448, "rcv_mss": 1448, "advmss": 1448, "pmtu": 1500, "unacked": 3, "lost": 0, "sacked": 0,
    "retrans": 1, "total_retrans": 2, "rtt": 412, "rttvar": 100, "snd_ssthresh": 1 << 30, "snd_cwnd": 10,
    "bytes_sent": 5000, "bytes_acked": 4000, "bytes_received": 10, "segs_out": 7, "segs_in": 6, "data_segs_out": 5,
    "data_segs_in": 1, "last_data_sent": 4, "last_data_recv": 0, "last_ack_recv": 0, "rcv_space": 65_535,
    "rcv_ssthresh": 65_535, "notsent_bytes": 0, "min_rtt": 300, "snd_wnd": 64_240, "rcv_ooopack": 0,
    "pacing_rate": 70_291_262, "delivery_rate": 24_133, "delivered": 4, "app_limited": 1,
}  # fmt: skip


def socket(state: str, port: int, remote: str = "10.0.0.1", remote_port: int = 4711, **more: Any) -> dict[str, Any]:
    return {
        "sock": port, "state": state, "local": "10.0.0.2", "local_port": port, "remote": remote,
        "remote_port": remote_port, "recv_q": 0, "send_q": 0, "timers": {}, "info": {}, **more,
    }  # fmt: skip


SOCKETS = {
    "sockets": [
        socket("LISTEN", 80, "0.0.0.0", 0, local="0.0.0.0", send_q=128),
        socket("ESTABLISHED", 80, send_q=1000, congestion="newreno", info=INFO,
               timers={"retransmit": 204_400_000, "keepalive": 7_200_000_000_000}),
        socket("TIME_WAIT", 81, timers={"time_wait": 59_000_000_000}),
    ]
}  # fmt: skip


def test_ss_shows_what_is_connected(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    layer("tcp", ss=SOCKETS)
    assert lvlip("ss", "-t").stdout == (
        "State  Recv-Q  Send-Q  Local Address:Port  Peer Address:Port\n"
        "ESTAB       0    1000  10.0.0.2:80         10.0.0.1:4711\n"
    )


def test_ss_shows_listening_and_all(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    layer("tcp", ss=SOCKETS)
    assert lvlip("ss", "-l").stdout == (
        "State   Recv-Q  Send-Q  Local Address:Port  Peer Address:Port\n"
        "LISTEN       0     128  *:80                *:*\n"
    )
    assert [line.split()[0] for line in lvlip("ss", "-a").stdout.splitlines()[1:]] == ["LISTEN", "ESTAB", "TIME-WAIT"]
    assert [line.split()[0] for line in lvlip("ss", "-a", "--port", "81").stdout.splitlines()[1:]] == ["TIME-WAIT"]


def test_ss_shows_inner_figures_by_the_names_of_ss(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    layer("tcp", ss=SOCKETS)
    assert lvlip("ss", "-tio").stdout.splitlines()[1:] == [
        "ESTAB       0    1000  10.0.0.2:80         10.0.0.1:4711      timer:(on,204ms,0)",
        "\t ts sack newreno wscale:7,7 rto:204 rtt:0.412/0.1 mss:1448 pmtu:1500 rcvmss:1448 advmss:1448 cwnd:10 "
        "bytes_sent:5000 bytes_acked:4000 bytes_received:10 segs_out:7 segs_in:6 data_segs_out:5 data_segs_in:1 "
        "lastsnd:4 pacing_rate 562Mbps delivery_rate 193Kbps delivered:4 app_limited unacked:3 retrans:1/2 rcv_space:65535 rcv_ssthresh:65535 minrtt:0.3 snd_wnd:64240",
    ]


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(1, "8bps"), (124, "992bps"), (125, "1Kbps"), (124_937, "999Kbps"), (124_938, "1Mbps"), (9_972_677, "79.8Mbps"),
     (19_874_999_999, "159Gbps"), (25 * 10**10, "2Tbps")],
)  # fmt: skip
def test_bandwidth(rate: int, shown: str) -> None:
    """Bits a second, three digits: what iproute2 6.1 prints."""
    assert ss._bandwidth(rate) == shown


def test_ss_as_json_gives_what_tcp_said(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    layer("tcp", ss=SOCKETS)
    rows = [json.loads(line) for line in lvlip("ss", "-a", "--json").stdout.splitlines()]
    assert rows == SOCKETS["sockets"]


def test_neigh(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    known = {"address": "10.0.0.1", "mac": "02:00:00:00:00:01", "state": "reachable", "confirmed_ms": 1200, "used_ms": 5,
             "updated_ms": 61_000, "asked": 0, "queued": 0}  # fmt: skip
    asked = {"address": "10.0.0.9", "mac": "", "state": "incomplete", "confirmed_ms": -1, "used_ms": 5, "asked": 2,
             "updated_ms": -1, "queued": 3}  # fmt: skip
    layer("link", neigh={"neighbours": [known, asked]}, device={"name": "lvl0"}, neigh_flush={"flushed": 2})
    assert lvlip("neigh").stdout == (
        "10.0.0.1 dev lvl0 lladdr 02:00:00:00:00:01 REACHABLE\n10.0.0.9 dev lvl0 INCOMPLETE\n"
    )
    assert lvlip("neigh", "-s").stdout == (
        "10.0.0.1 dev lvl0 lladdr 02:00:00:00:00:01 used 0/1/61 probes 0 REACHABLE\n"
        "10.0.0.9 dev lvl0 used 0/-/- probes 2 INCOMPLETE (3 packets wait)\n"
    )
    assert json.loads(lvlip("neigh", "--json").stdout.splitlines()[1])["queued"] == 3
    assert lvlip("neigh", "--address", "10.0.0.9").stdout == "10.0.0.9 dev lvl0 INCOMPLETE\n"
    assert lvlip("neigh", "--address", "10.0.0.7").stdout == ""
    assert lvlip("neigh", "--address", "x").exit_code == 2
    assert lvlip("neigh", "--flush").stdout == "2 entries forgotten\n"


def test_route_changes(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    """`route add` and `del` hand the route's words to ip; `cache` and `flush` are about single destinations."""
    cached = {"cache": [{"dst": "192.0.2.7", "mtu": 1280, "mtu_expires_ms": 5999},
                        {"dst": "192.0.2.8", "via": "10.0.0.9", "redirect_expires_ms": 1000}]}  # fmt: skip
    asked: list[tuple[str, object]] = []

    def note(name: str) -> Callable[[dict[str, object]], dict[str, object]]:
        return lambda args: asked.append((name, args.get("route"))) or {"flushed": 2}  # type: ignore[func-returns-value]

    layer("ip", route_add=note("add"), route_del=note("del"), route_flush=note("flush"), route_cache=cached)
    assert lvlip("route", "add", "10.9.0.0/16", "via", "10.0.0.9", "metric", "5").exit_code == 0
    assert lvlip("route", "del", "10.9.0.0/16").exit_code == 0
    assert lvlip("route", "flush").stdout == "2 entries forgotten\n"
    assert asked == [("add", "10.9.0.0/16 via 10.0.0.9 metric 5"), ("del", "10.9.0.0/16"), ("flush", None)]
    assert lvlip("route", "cache").stdout == (
        "192.0.2.7 mtu 1280 expires 5 s\n192.0.2.8 via 10.0.0.9 redirected expires 1 s\n"
    )
    assert lvlip("route", "add").exit_code == 2 and lvlip("route", "10.0.0.1", "10.0.0.2").exit_code == 2


def test_addresses_and_groups(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    """One line an address, one a group."""
    row = {"address": "10.0.0.2", "prefix": 24, "broadcast": "10.0.0.255", "device": "lvl0", "mtu": 1500, "up": True}
    layer(
        "ip",
        addresses={"addresses": [row, {**row, "broadcast": "", "device": "", "up": False}]},
        address_add=lambda args: {"added": args["address"]},
        groups={"groups": [{"group": "224.0.0.1", "users": ["always"]}], "version": 3},
        group_join=lambda args: {"joined": args["group"]},
    )
    assert lvlip("address").stdout == "10.0.0.2/24 brd 10.0.0.255 dev lvl0 mtu 1500\n10.0.0.2/24 mtu 1500 down\n"
    assert lvlip("address", "add", "192.0.2.2/24", "--json").stdout == '{"added": "192.0.2.2/24"}\n'
    assert lvlip("address", "add").exit_code == 2
    assert lvlip("group").stdout == "224.0.0.1 by every host (RFC 1112 7.2)\n"
    assert lvlip("group", "join", "239.1.2.3", "--json").stdout == '{"joined": "239.1.2.3"}\n'
    assert lvlip("group", "leave").exit_code == 2


def test_route(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    def row(prefix: str, kind: str, via: str = "", device: str = "lvl0", up: bool = True) -> dict[str, Any]:
        return {
            "prefix": prefix,
            "kind": kind,
            "via": via,
            "source": "10.0.0.2",
            "device": device,
            "mtu": 1500,
            "up": up,
        }

    def get(args: dict[str, Any]) -> dict[str, Any]:
        if args["dst"] == "8.8.8.8":
            return {**row("default", "unicast", "10.0.0.1"), "dst": "8.8.8.8", "next_hop": "10.0.0.1", "group": False}
        return {"dst": args["dst"], "error": "Network is unreachable"}

    rows = [row("10.0.0.2/32", "local", device="lo"), row("10.0.0.255/32", "broadcast"),
            row("10.0.0.0/24", "unicast"), row("default", "unicast", "10.0.0.1", up=False)]  # fmt: skip
    layer("ip", route={"routes": rows}, route_get=get)
    assert lvlip("route").stdout == (
        "10.0.0.0/24 dev lvl0 src 10.0.0.2 mtu 1500\ndefault via 10.0.0.1 dev lvl0 src 10.0.0.2 mtu 1500 down\n"
    )
    assert lvlip("route", "-a").stdout.startswith(
        "local 10.0.0.2/32 dev lo src 10.0.0.2 mtu 1500\nbroadcast 10.0.0.255/32 dev lvl0 src 10.0.0.2 mtu 1500\n"
    )
    assert lvlip("route", "8.8.8.8").stdout == "8.8.8.8 via 10.0.0.1 dev lvl0 src 10.0.0.2 mtu 1500, by default\n"
    missing = lvlip("route", "1.1.1.1")
    assert (missing.exit_code, missing.stderr) == (1, "lvlip: 1.1.1.1: Network is unreachable\n")


def test_stat_tells_what_discards_mean(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    layer("link", counters={"counters": {"rx_frames": 5, "drop.runt": 2, "tx_frames": 0}})
    assert lvlip("stat").stdout == (
        "layer  value  counter    means\n"
        "link       2  drop.runt  frame shorter than its link header, IEEE 802.3 3.2\n"
        "link       5  rx_frames\n"
    )
    assert "tx_frames" in lvlip("stat", "-z").stdout
    assert "rx_frames" not in lvlip("stat", "--drops").stdout
    assert json.loads(lvlip("stat", "--drops", "--json").stdout) == {
        "layer": "link", "counter": "drop.runt", "value": 2, "means": "frame shorter than its link header, IEEE 802.3 3.2",
    }  # fmt: skip


def test_stat_says_what_there_is_nothing_of(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    """Instead of a header alone; and a layer that was asked for and does not run is named, after the others."""
    layer("link", counters={"counters": {"rx_frames": 0, "drop.runt": 0}})
    assert lvlip("stat").stdout == "nothing was counted; with -z zeros are shown\n"
    assert lvlip("stat", "--drops", "-d", "0.01").stdout == "nothing was discarded in 0.01 s; with -z zeros are shown\n"
    assert lvlip("stat", "--json").stdout == ""
    result = lvlip("stat", "--layer", "link", "--layer", "tcp", "-z")
    assert result.exit_code == 1
    assert "rx_frames" in result.stdout
    assert result.stderr == "lvlip: not running: tcp; see: lvlip status --name t\n"


def test_stat_of_an_interval_shows_what_was_added(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    calls = iter([{"a": 5, "b": 1}, {"a": 7, "b": 1, "c": 1}])
    layer("link", counters=lambda _: {"counters": next(calls)})
    assert lvlip("stat", "-d", "0.01").stdout == "layer  value  counter  means\nlink       2  a\nlink       1  c\n"


def test_explain(lvlip: Callable[..., Result]) -> None:
    assert lvlip("explain", "drop.martian_source").stdout == (
        "ip: a source that no host may use on a network\n"
        "rule      RFC 1122 3.2.1.3\n"
        "severity  error\n"
        "counter   drop.martian_source\n"
        "do        A misconfigured host, or a forged packet. "
        "lvlip trace --filter 'reason == martian_source' shows whence.\n"
    )
    assert lvlip("explain", "mss_rewritten").stdout.startswith(
        "finding: the MSS in the SYN is not what the peer's own segments show\nrule      RFC 9293 3.7.1, MUST-16\ndo "
    )
    assert lvlip("explain", "rto").stdout.startswith("event: the retransmission timer ran out\nrule      RFC 6298 5.4")
    unknown = lvlip("explain", "martian")
    assert unknown.exit_code == 2
    assert unknown.stderr.splitlines()[-1] == "Error: there is no reason 'martian'; did you mean martian_source?"
    assert lvlip("explain", "paws").stdout == lvlip("explain", "tcp_paws").stdout
    everything = [json.loads(line) for line in lvlip("explain", "--json").stdout.splitlines()]
    assert len(everything) > 20
    assert not any("Lvlip" in row["advice"] for row in everything), "a command is written as it is typed"
