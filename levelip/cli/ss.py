"""`lvlip ss`: sockets, in the habit of ss; -i shows TCP's inner figures under each."""

from __future__ import annotations

from typing import Any

import click

from levelip.cli.common import Number, Stack, StackCommand, columns

_STATES = {
    "ESTABLISHED": "ESTAB",
    "SYN_SENT": "SYN-SENT",
    "SYN_RECEIVED": "SYN-RECV",
    "FIN_WAIT_1": "FIN-WAIT-1",
    "FIN_WAIT_2": "FIN-WAIT-2",
    "TIME_WAIT": "TIME-WAIT",
    "CLOSE_WAIT": "CLOSE-WAIT",
    "LAST_ACK": "LAST-ACK",
}
"""As ss abbreviates them; the others are their own."""
_QUIET = ("LISTEN", "TIME_WAIT", "SYN_RECEIVED", "CLOSED")
"""What ss leaves out without -a (misc/ss.c, SS_ALL without SS_LISTEN, SS_CLOSE, SS_TIME_WAIT, SS_SYN_RECV)."""
_OPT_TIMESTAMPS, _OPT_SACK, _OPT_WSCALE = 1, 2, 4  # TCPI_OPT_* (include/uapi/linux/tcp.h)
_INFINITE = 1 << 28
"""Segments: an ssthresh from here on was never lowered (Linux TCP_INFINITE_SSTHRESH is 0x7fffffff)."""
_UNLIMITED = (1 << 64) - 1
"""Bytes a second: a pacing rate that nothing has set."""
_TIMERS = {"retransmit": "on", "keepalive": "keepalive", "time_wait": "timewait", "persist": "persist"}


@click.command(cls=StackCommand)
@click.option("-t", "--tcp", is_flag=True, help="TCP sockets: the default.")
@click.option("-u", "--udp", is_flag=True, help="UDP sockets; with -t both kinds.")
@click.option("-i", "--info", is_flag=True, help="TCP's inner figures under each socket.")
@click.option("-o", "--options", "timers", is_flag=True, help="Timers: which runs, how long, how often it was doubled.")
@click.option("-l", "--listening", is_flag=True, help="Only listening sockets.")
@click.option("-a", "--all", "everything", is_flag=True, help="Listening ones and those in TIME-WAIT too.")
@click.option("-n", "--numeric", is_flag=True, help="Taken for the habit of it: ports are always numbers.")
@click.option(
    "--port", metavar="PORT", type=Number(1, 65_535), help="Only sockets with this local or remote port."
)
@click.pass_obj
def command(
    stack: Stack,
    tcp: bool,
    udp: bool,
    info: bool,
    timers: bool,
    listening: bool,
    everything: bool,
    numeric: bool,
    port: int | None,
) -> None:
    """Show sockets and TCP's inner figures, as ss does.

    Without -a or -l neither listening sockets nor those in TIME-WAIT are shown.

    \b
    lvlip ss -ti
    lvlip ss -tua
    lvlip ss -ti --port 80
    """
    del numeric
    netid = tcp and udp
    silent: list[str] = []
    if netid:
        for layer in ("tcp", "udp"):
            stack.client(layer).close()  # each has to run
        answers, silent = stack.ask_all("ss", ("tcp", "udp"))
    else:
        layer = "udp" if udp else "tcp"
        answers = {layer: stack.ask(layer, "ss")}
    rows = []
    for layer, answer in answers.items():
        shown = _shown_udp if layer == "udp" else _shown
        rows += [
            row for row in answer["sockets"] if shown(row, listening=listening, everything=everything, port=port)
        ]
    if stack.json:
        for row in rows:
            stack.emit(row)
    elif answers:
        _show(rows, netid=netid, info=info, timers=timers)
    stack.need_answers(silent)


def _show(rows: list[dict[str, Any]], *, netid: bool, info: bool, timers: bool) -> None:
    """Sockets for people."""
    lines = columns(
        [
            (
                *((row.get("netid", "tcp"),) if netid else ()),
                _STATES.get(row["state"], row["state"]),
                row.get("recv_q", 0),
                row.get("send_q", 0),
                f"{_any(row['local'])}:{row['local_port']}",
                f"{_any(row['remote'])}:{row['remote_port'] or '*'}",
                timer_text(row) if timers else "",
            )
            for row in rows
        ],
        (*(("Netid",) if netid else ()), "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port", ""),
        right={1 + netid, 2 + netid},
    ).splitlines()
    click.echo(lines[0])
    for line, row in zip(lines[1:], rows, strict=True):
        click.echo(line)
        if info and row.get("info"):
            click.echo(f"\t {info_text(row)}")


def _shown(row: dict[str, Any], *, listening: bool, everything: bool, port: int | None) -> bool:
    if port is not None and port not in (row["local_port"], row["remote_port"]):
        return False
    if listening:
        return bool(row["state"] == "LISTEN")
    return everything or row["state"] not in _QUIET


def _shown_udp(row: dict[str, Any], *, listening: bool, everything: bool, port: int | None) -> bool:
    """As ss: without -a those that are connected, with -l those that are not."""
    if port is not None and port not in (row["local_port"], row["remote_port"]):
        return False
    return everything or (row["state"] == "UNCONN") == listening


def _any(address: str) -> str:
    return address if address and address != "0.0.0.0" else "*"


def timer_text(row: dict[str, Any]) -> str:
    """ "timer:(on,204ms,0)" as ss -o: kind, time left, retransmissions."""
    left = row.get("timers") or {}
    if not left:
        return ""
    name = min(left, key=left.__getitem__)
    retransmits = (row.get("info") or {}).get("retransmits", 0)
    return f"timer:({_TIMERS.get(name, name)},{_left(left[name])},{retransmits})"


def _left(ns: int) -> str:
    milliseconds = max(0, ns) // 1_000_000
    if milliseconds < 10_000:
        return f"{milliseconds}ms"
    seconds = milliseconds // 1000
    return f"{seconds}sec" if seconds < 60 else f"{seconds // 60}min{seconds % 60}sec"


def _bandwidth(rate: int) -> str:
    """Bytes a second as ss says them: in bits, to three digits, "79.8Mbps" (misc/ss.c, sprint_bw)."""
    bits, letter = float(f"{rate * 8:.3g}"), ""
    for larger in "KMGT":
        if bits < 1000:
            break
        bits /= 1000
        letter = larger
    return f"{bits:.3g}{letter}bps"


def info_text(row: dict[str, Any]) -> str:
    """The figures by ss's names and in its order (misc/ss.c, tcp_stats_print); zeros are left out, as there."""
    info = row["info"]
    parts: list[str] = []
    options = info.get("options", 0)
    parts += [name for bit, name in ((_OPT_TIMESTAMPS, "ts"), (_OPT_SACK, "sack")) if options & bit]
    parts.append(row.get("congestion", ""))
    if options & _OPT_WSCALE:
        parts.append(f"wscale:{info.get('snd_wscale', 0)},{info.get('rcv_wscale', 0)}")
    if info.get("rto"):
        parts.append(f"rto:{info['rto'] / 1000:g}")
    if info.get("backoff"):
        parts.append(f"backoff:{info['backoff']}")
    if info.get("rtt"):
        parts.append(f"rtt:{info['rtt'] / 1000:g}/{info.get('rttvar', 0) / 1000:g}")
    for name, shown in (
        ("ato", "ato"),
        ("snd_mss", "mss"),
        ("pmtu", "pmtu"),
        ("rcv_mss", "rcvmss"),
        ("advmss", "advmss"),
    ):
        if info.get(name):
            parts.append(f"{shown}:{info[name]}")
    if info.get("snd_cwnd"):
        parts.append(f"cwnd:{info['snd_cwnd']}")
    if 0 < info.get("snd_ssthresh", 0) < _INFINITE:
        parts.append(f"ssthresh:{info['snd_ssthresh']}")
    for name in ("bytes_sent", "bytes_retrans", "bytes_acked", "bytes_received"):
        if info.get(name):
            parts.append(f"{name}:{info[name]}")
    for name in ("segs_out", "segs_in", "data_segs_out", "data_segs_in"):
        if info.get(name):
            parts.append(f"{name}:{info[name]}")
    for name, shown in (("last_data_sent", "lastsnd"), ("last_data_recv", "lastrcv"), ("last_ack_recv", "lastack")):
        if info.get(name):
            parts.append(f"{shown}:{info[name]}")
    if 0 < info.get("pacing_rate", 0) < _UNLIMITED:
        parts.append(f"pacing_rate {_bandwidth(info['pacing_rate'])}")
    if info.get("delivery_rate"):
        parts.append(f"delivery_rate {_bandwidth(info['delivery_rate'])}")
    for name in ("delivered", "delivered_ce"):
        if info.get(name):
            parts.append(f"{name}:{info[name]}")
    if info.get("app_limited"):
        parts.append("app_limited")
    for name, shown in (("unacked", "unacked"), ("lost", "lost"), ("sacked", "sacked")):
        if info.get(name):
            parts.append(f"{shown}:{info[name]}")
    if info.get("retrans") or info.get("total_retrans"):
        parts.append(f"retrans:{info.get('retrans', 0)}/{info.get('total_retrans', 0)}")
    if info.get("rcv_ooopack"):
        parts.append(f"rcv_ooopack:{info['rcv_ooopack']}")
    for name, shown in (("rcv_space", "rcv_space"), ("rcv_ssthresh", "rcv_ssthresh"), ("notsent_bytes", "notsent")):
        if info.get(name):
            parts.append(f"{shown}:{info[name]}")
    if info.get("min_rtt"):
        parts.append(f"minrtt:{info['min_rtt'] / 1000:g}")
    if info.get("snd_wnd"):
        parts.append(f"snd_wnd:{info['snd_wnd']}")
    return " ".join(part for part in parts if part)
