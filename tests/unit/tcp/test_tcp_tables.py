"""What `ss` and TCP_INFO tell: every row whole, in the states of a connection's life, and what a command refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tcp_host import (
    MSS,
    Host,
    close_wait,
    closed,
    connected,
    established,
    far,
    fin_wait_1,
    listening,
    syn_received,
    time_wait,
)

from levelip.config import TcpConfig
from levelip.frames.core import ControlError
from tests.netsim.net import MS

NEVER_LOWERED = 2**31 - 1  # Linux TCP_INFINITE_SSTHRESH


def rows(c: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = c.core.control(1, "ss", {}, c.now)["sockets"]
    return found


def test_a_listener() -> None:
    """recv_q: who waits to be accepted; send_q: the backlog."""
    c = listening()
    row = {
        "sock": 50, "state": "LISTEN", "local": "0.0.0.0", "local_port": 80, "remote": "0.0.0.0", "remote_port": 0,
        "recv_q": 0, "send_q": 16, "half_open": 0, "overflows": 0, "timers": {}, "info": {},
    }  # fmt: skip
    assert rows(c) == [row]
    c.inject("S", seq=0)
    assert rows(c)[0] == {**row, "half_open": 1}
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    assert rows(c)[0] == {**row, "recv_q": 1}


def test_time_wait() -> None:
    """A record: no queues, no figures, and what is left of its time."""
    c = time_wait()
    c.advance(1000)
    assert rows(c)[1:] == [
        {
            "sock": c.sock, "state": "TIME_WAIT", "local": "10.0.0.2", "local_port": 80, "remote": "10.0.0.1",
            "remote_port": 4711, "recv_q": 0, "send_q": 0, "timers": {"time_wait": 59_000 * MS}, "info": {},
        }
    ]  # fmt: skip


def test_a_connection() -> None:
    """RTT 100 ms, 5000 bytes sent, 1448 of them acknowledged after 50 ms along with 5 bytes, then 25 ms of silence.

    SRTT = 100 - 50 / 8, RTTVAR = 50 + (50 - 50) / 4, RTO = SRTT + 200; the loss probe is due 2 SRTT + 2 ms after the
    ACK, but for the least of a timer: 52 ms after 75. One packet was delivered in 50 ms, the application's limit;
    pacing would let twice ten of 1448 bytes go in 93.75 ms.
    """
    c = far()
    c.write(b"x" * 5000)
    c.advance(50)
    c.inject("PA", seq=1, ack=1 + MSS, data=b"hello")
    c.advance(25)
    row = rows(c)[1]
    info = row.pop("info")
    assert row.pop("timers").keys() == {"loss_probe", "retransmit"}
    assert row == {
        "sock": c.sock, "state": "ESTABLISHED", "local": "10.0.0.2", "local_port": 80, "remote": "10.0.0.1",
        "remote_port": 4711, "recv_q": 5, "send_q": 5000 - MSS, "orphan": False, "listener": 50,
        "congestion": "newreno", "cwnd_bytes": 10 * MSS, "iss": 1000, "irs": 5000,
    }  # fmt: skip
    assert info == {
        "state": 1, "ca_state": 0, "retransmits": 0, "probes": 0, "backoff": 0, "options": 1 | 2 | 4,
        "snd_wscale": 7, "rcv_wscale": 1, "rto": 293_750, "ato": 40_000, "snd_mss": MSS, "rcv_mss": 536,
        "unacked": 3, "sacked": 0, "lost": 0, "retrans": 0,
        "last_data_sent": 75, "last_data_recv": 25, "last_ack_recv": 25, "pmtu": 1500,
        "rtt": 93_750, "rttvar": 50_000, "min_rtt": 50_000, "snd_ssthresh": NEVER_LOWERED, "snd_cwnd": 10,
        "advmss": MSS, "reordering": 3, "rcv_rtt": 0, "rcv_space": 65_536, "rcv_ssthresh": 65_535, "total_retrans": 0,
        "bytes_acked": MSS, "bytes_received": 5, "segs_out": 6, "segs_in": 3, "notsent_bytes": 0,
        "data_segs_in": 1, "data_segs_out": 4, "bytes_sent": 5000, "bytes_retrans": 0, "delivered": 2,
        "busy_time": 75_000, "rwnd_limited": 0, "sndbuf_limited": 0, "delivered_ce": 0,
        "total_rto": 0, "total_rto_recoveries": 0, "total_rto_time": 0,
        "dsack_dups": 0, "reord_seen": 0, "rcv_ooopack": 0, "snd_wnd": 65_535 << 7, "rcv_wnd": 65_156,
        "quickack": 1, "window_clamp": 65_536, "sndbuf": 2 * 65_536, "rcvbuf": 2 * 65_536,
        "app_limited": 1, "delivery_rate": 28_960, "pacing_rate": 308_906,
    }  # fmt: skip
    c.consume(3)
    assert rows(c)[1]["recv_q"] == 2


def test_a_connection_in_recovery() -> None:
    """Ten segments of which SACK named three: one is lost and goes again, ssthresh is five, cwnd seven (PRR).

    Linux counts the retransmission as lost_out too while it is under way."""
    c = far()
    c.write(bytes(12 * MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + 4 * MSS)])
    info = rows(c)[1]["info"]
    names = (
        "ca_state", "unacked", "sacked", "lost", "retrans", "snd_ssthresh", "snd_cwnd", "total_retrans",
        "bytes_retrans",
        "bytes_sent", "delivered", "notsent_bytes", "retransmits",
    )  # fmt: skip
    assert {name: info[name] for name in names} == {
        "ca_state": 3, "unacked": 10, "sacked": 3, "lost": 1, "retrans": 1, "snd_ssthresh": 5, "snd_cwnd": 7,
        "total_retrans": 1, "bytes_retrans": MSS, "bytes_sent": 11 * MSS, "delivered": 4, "notsent_bytes": 2 * MSS,
        "retransmits": 0,
    }  # fmt: skip


def test_a_connection_after_timeouts() -> None:
    """Two in a row: backoff, and all that was sent is lost."""
    c = far(tlp=False)
    c.write(bytes(3 * MSS))
    c.advance(1000)
    info = rows(c)[1]["info"]
    assert (info["ca_state"], info["retransmits"], info["backoff"], info["rto"]) == (4, 2, 2, 1_200_000)
    assert (info["unacked"], info["lost"], info["sacked"], info["total_retrans"]) == (3, 3, 0, 2)


def test_the_time_that_timeouts_took() -> None:
    """From the first one of a run on; a run that is over counts until the acknowledgment that ended it (Linux
    tcp_update_rto_time), in whole ms. The RTO is 300 ms."""
    c = far(tlp=False)
    c.write(bytes(MSS))
    c.advance(350)
    assert rows(c)[1]["info"]["total_rto_time"] == 50
    c.now += MS - 1
    c.inject("A", seq=1, ack=1 + MSS)
    assert rows(c)[1]["info"]["total_rto_time"] == 50
    c.advance(1000)
    info = rows(c)[1]["info"]
    assert (info["total_rto"], info["total_rto_recoveries"], info["total_rto_time"]) == (1, 1, 50)


def test_what_is_left_of_timers() -> None:
    """The RTO is 300 ms, of which 50 are over."""
    c = far(tlp=False)
    c.write(bytes(MSS))
    c.advance(50)
    assert rows(c)[1]["timers"] == {"retransmit": 250 * MS}


def test_a_half_open_connection() -> None:
    """What came last is its SYN."""
    c = syn_received()
    c.advance(5)
    info = rows(c)[1]["info"]
    assert (info["last_ack_recv"], info["segs_in"], info["segs_out"]) == (5, 1, 1)


def test_duplicates_without_sack_are_what_is_sacked() -> None:
    """As Linux: each says that one more has left the network."""
    c = far(sack=False)
    c.write(bytes(5 * MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1)
    c.inject("A", seq=1, ack=1)
    info = rows(c)[1]["info"]
    assert (info["sacked"], info["options"], info["delivered"]) == (2, 1 | 4, 1)


def test_options_of_a_connection() -> None:
    """Each by its bit: timestamps 1, SACK 2, scaling 4; without timestamps the MSS is 12 larger."""
    found = {}
    for name, how in {"ts": {"ts": False}, "sack": {"sack": False}, "wscale": {"wscale": None}}.items():
        info = rows(established(**how))[1]["info"]
        found[name] = (info["options"], info["advmss"])
    assert found == {"ts": (6, 1460), "sack": (5, MSS), "wscale": (3, MSS)}


def test_a_fin_is_no_byte() -> None:
    """Neither of theirs nor of ours: queues and bytes count data only."""
    c = close_wait()
    row = rows(c)[1]
    assert (row["recv_q"], row["info"]["bytes_received"], row["state"]) == (0, 0, "CLOSE_WAIT")
    c = fin_wait_1()
    assert rows(c)[1]["send_q"] == 0
    c.inject("A", seq=1, ack=2)
    row = rows(c)[1]
    assert (row["send_q"], row["info"]["bytes_acked"], row["info"]["bytes_sent"]) == (0, 0, 0)


def test_nothing_has_happened_yet() -> None:
    """Instants that never were count as 0, not as the age of the machine."""
    c = connected()
    info = rows(c)[0]["info"]
    assert (info["last_data_sent"], info["last_data_recv"], info["bytes_acked"]) == (0, 0, 0)
    c = Host()
    c.connect()
    info = rows(c)[0]["info"]
    assert (info["last_ack_recv"], info["bytes_received"], info["notsent_bytes"], info["unacked"]) == (0, 0, 0, 1)


# commands and settings


def refused(c: Host, text: str, name: str, **args: Any) -> None:
    with pytest.raises(ControlError, match=f"^{re.escape(text)}$"):
        c.core.control(1, name, args, c.now)


def test_a_whole_connection_by_socket_or_by_name() -> None:
    """The same either way; and words for what is not there."""
    c = established()
    whole = c.core.control(1, "conn", {"sock": c.sock}, c.now)
    assert whole["name"] == "10.0.0.2:80>10.0.0.1:4711"
    assert c.core.control(1, "conn", {"conn": whole["name"]}, c.now) == whole
    assert whole["ss"] == rows(c)[1]
    tcb = whole["tcb"]
    assert (tcb["local"], tcb["remote"], tcb["state"]) == ("10.0.0.2", "10.0.0.1", "ESTABLISHED")
    refused(c, "conn: say which, by sock or by conn", "conn")
    refused(c, "conn: there is no connection 7", "conn", sock=7)
    refused(c, "conn: there is no connection x", "conn", conn="x")
    refused(c, "fly: tcp knows ss, conn and figures", "fly")


def test_limits_of_the_rto_change_on_live_connections() -> None:
    """rto_min_ms and rto_max_ms hold for what is open."""
    c = far()
    for key, name in (("rto_min_ms", "floor"), ("rto_max_ms", "ceiling")):
        c.core.set(key, 4321, c.now)
        assert c.tcb()["rto"][name] == 4321 * MS
    assert c.tcb()["rto"]["floor"] == 4321 * MS


def test_settings_that_cannot_change() -> None:
    """What memory lies by, and what is no setting at all."""
    c = closed()
    for key in ("send_ring", "receive_ring", "connections", "congestion"):
        words = f"tcp.{key} cannot change while connections use it; set it in level-ip.toml and restart"
        with pytest.raises(ControlError, match=f"^{re.escape(words)}$"):
            c.core.set(key, 1, c.now)
    words = f"tcp.colour is no setting; there are {', '.join(TcpConfig.__struct_fields__)}"
    with pytest.raises(ControlError, match=f"^{re.escape(words)}$"):
        c.core.set("colour", 1, c.now)


@pytest.mark.parametrize("key", ["port_first", "port_last"])
def test_another_range_of_ports_begins_anew(key: str) -> None:
    """RFC 6056 3.3.5: the counters of its table are of the old range. Another setting leaves them alone."""
    c = Host()
    c.connect()
    c.core.set("syn_retries", 3, c.now)
    assert any(c.core.snapshot()["ports"]["table"])
    c.core.set(key, 40_000, c.now)
    assert not any(c.core.snapshot()["ports"]["table"])
