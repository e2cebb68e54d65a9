"""What the processes say of themselves, asked once a second: state, rates, queues, restarts, drops, faults, sockets.

Everything here waits for answers, so it runs in one thread of its own. Rates are differences of counters; a process
that came back starts from nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from levelip.debug.faultspec import describe, parse
from levelip.debug.tap import PROCESSES
from levelip.frames.core import ControlError
from levelip.host.usage import usage
from levelip.ipc.control import ControlClient, NotRunning
from levelip.ipc.patience import ADDON_S, PAGE_S, QUIET_S
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.reasons import lookup

FAULT_SIDES = {"link": ("link",), "link-ip": ("link", "ip"), "ip-tcp": ("ip", "tcp"), "ip-udp": ("ip", "udp")}
"""Which processes see a seam: each applies the faults to what it takes in."""
_SS_SHARE = 0.02
"""At most this share of the time goes into asking for sockets: with thousands of them, ask more rarely."""
_WSCALE = 4  # TCPI_OPT_WSCALE (include/uapi/linux/tcp.h)

SEAM_COUNTERS: dict[str, dict[str, tuple[str, str]]] = {
    "link": {
        "up_packets": ("link", "rx_packets"), "up_bytes": ("link", "rx_bytes"),
        "down_packets": ("link", "tx_packets"), "down_bytes": ("link", "tx_bytes"),
    },
    "link-ip": {
        "up_packets": ("ip", "in.packets"), "up_bytes": ("ip", "in.bytes"),
        "down_packets": ("ip", "out.packets"), "down_bytes": ("ip", "out.bytes"),
    },
    "ip-tcp": {
        "up_packets": ("tcp", "segments_in"), "up_bytes": ("tcp", "bytes_in"),
        "down_packets": ("tcp", "segments_out"), "down_bytes": ("tcp", "bytes_out"),
    },
    "tcp-gateway": {
        "up_bytes": ("gateway", "stream_bytes_in"), "down_bytes": ("gateway", "stream_bytes_out"),
    },
    "ip-udp": {"up_packets": ("udp", "datagrams_in"), "down_packets": ("udp", "datagrams_out")},
    "udp-gateway": {"up_packets": ("udp", "datagrams_delivered"), "down_packets": ("udp", "datagrams_out")},
    "gateway-client": {"calls": ("gateway", "calls")},
}  # fmt: skip
"""Which counters tell what crossed a seam: (process, counter). ip-tcp counts payload bytes."""


class Layers:
    """All processes of a stack. Not safe for several threads: use one."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._clients: dict[str, ControlClient] = {}
        self._counters: dict[str, dict[str, int]] = {}
        self._when: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._restarts = dict.fromkeys(PROCESSES, 0)
        self._cpu: dict[int, tuple[float, float]] = {}
        self._sockets: dict[Any, tuple[float, int, int]] = {}
        self._ask_sockets_at = 0.0
        self._last_sockets: list[dict[str, Any]] = []
        self.silent: set[str] = set()
        """The processes that run and did not answer the last time."""
        self.rows: dict[str, dict[str, Any]] = {}  # a connection's name → its row as tcp told it

    def ask(self, process: str, request: str, **args: Any) -> dict[str, Any]:
        """One request. ControlError if refused, NotRunning if there is nobody."""
        if self.run.holder(process) is None:
            raise NotRunning(f"{process} of stack {self.run.name!r} is not running")
        client = self._clients.get(process)
        if client is None:
            client = self._clients[process] = ControlClient(self.run, process)
        try:
            answer = client.request(request, timeout=QUIET_S if process in self.silent else PAGE_S, **args)
        except NotRunning:
            self.silent.add(process)
            raise
        self.silent.discard(process)
        return answer

    def close(self) -> None:
        """Close the sockets."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # the stack

    def poll(self) -> dict[str, Any]:
        """State, rates, drops and faults of every process, and the traffic of every seam, a second."""
        layers = [self._layer(process) for process in PROCESSES]
        rates = {one["name"]: one["rates"] for one in layers}
        seams = {
            seam: {name: rates[process].get(counter, 0.0) for name, (process, counter) in what.items()}
            for seam, what in SEAM_COUNTERS.items()
        }
        return {
            "time": time.time(),
            "name": self.run.name,
            "running": any(one["pid"] for one in layers),
            "held": any(one["held"] for one in layers),
            "layers": layers,
            "seams": seams,
            "faults": self.faults(),
        }

    def _layer(self, process: str) -> dict[str, Any]:
        pid = self.run.holder(process)
        data: dict[str, Any] = {
            "name": process, "pid": pid, "state": "stopped", "uptime": None, "waiting_for": [], "held": False,
            "queues": {}, "restarts": self._restarts[process], "rates": {}, "counters": {}, "drops": [],
            "cpu": None, "memory": None,
        }  # fmt: skip
        if pid is None:
            self.silent.discard(process)
            return data
        try:
            status = self.ask(process, "status")
            counters: dict[str, int] = self.ask(process, "counters")["counters"]
        except ControlError:
            data["state"] = "silent"
            return data
        now = time.monotonic()
        epoch = status["epoch"]
        if self._epochs.get(process, epoch) != epoch:
            self._restarts[process] += 1
            self._counters.pop(process, None)
        self._epochs[process] = epoch
        before, since = self._counters.get(process, {}), now - self._when.get(process, now)
        rates = {}
        if process in self._counters and since > 0:
            rates = {name: (value - before.get(name, 0)) / since for name, value in counters.items()}
        self._counters[process], self._when[process] = counters, now
        cpu, memory = self._usage(pid, now)
        data.update(
            state="waits" if status["waiting_for"] else "ready",
            uptime=status["uptime_ns"] / 1e9,
            waiting_for=status["waiting_for"],
            held=status["held"],
            queues={name: one.get("waiting", 0) for name, one in status["neighbours"].items()},
            restarts=self._restarts[process],
            rates={name: rate for name, rate in rates.items() if rate},
            counters=counters,
            drops=_drops(counters, rates),
            cpu=cpu,
            memory=memory,
        )
        return data

    def _usage(self, pid: int, now: float) -> tuple[float | None, int | None]:
        """(share of a core since the last call, resident bytes) of a process."""
        found = usage(pid)
        if found is None:
            return None, None
        used, memory = found
        before = self._cpu.get(pid)
        self._cpu[pid] = now, used
        share = (used - before[1]) / (now - before[0]) if before and now > before[0] else None
        return share, memory

    # connections

    def sockets(self) -> list[dict[str, Any]]:
        """TCP's sockets with their figures and rates; an older answer while asking again would cost too much."""
        now = time.monotonic()
        if now < self._ask_sockets_at:
            return self._last_sockets
        try:
            answer = self.ask("tcp", "ss")
        except ControlError:
            self._last_sockets, self._sockets = [], {}
            return []
        rows: list[dict[str, Any]] = answer["sockets"]
        told_at: float = answer.get("now", now * 1e9) / 1e9  # by tcp: when the answer is late, so are its figures
        took = time.monotonic() - now
        self._ask_sockets_at = now + min(10.0, took / _SS_SHARE if took > 0.02 else 0.0)
        self.rows = {connection_name_of(row): row for row in rows}
        before, self._sockets = self._sockets, {}
        self._last_sockets = [self._socket(row, before, told_at) for row in rows] + self._datagram_sockets()
        return self._last_sockets

    def _datagram_sockets(self) -> list[dict[str, Any]]:
        """udp's, in the same columns as far as they have them."""
        try:
            rows: list[dict[str, Any]] = self.ask("udp", "ss")["sockets"]
        except ControlError:
            return []
        return [
            {
                "name": f"udp#{row['sock']}", "proto": "udp", "state": row["state"],
                "local": _end(row["local"], row["local_port"]), "remote": _end(row["remote"], row["remote_port"]),
                "recv_q": row["recv_q"], "drops": row["drops"], "groups": row["groups"], "port": row["local_port"],
                "up": None, "down": None, "received": None, "acked": None, "rtt": None, "cwnd": None,
            }
            for row in rows
        ]  # fmt: skip

    def _socket(self, row: dict[str, Any], before: dict[Any, tuple[float, int, int]], now: float) -> dict[str, Any]:
        info = row.get("info") or {}
        received, acked = info.get("bytes_received", 0), info.get("bytes_acked", 0)
        sock = row["sock"]
        self._sockets[sock] = now, received, acked
        up = down = 0.0
        if sock in before and now > before[sock][0]:
            then, old_received, old_acked = before[sock]
            # a TIME-WAIT record has no totals any more
            up = max(0, received - old_received) / (now - then)
            down = max(0, acked - old_acked) / (now - then)
        listening = row["state"] == "LISTEN"
        remote = "*" if listening else f"{row['remote']}:{row['remote_port']}"
        timers = row.get("timers") or {}
        timer = min(timers, key=timers.__getitem__) if timers else ""
        return {
            "name": connection_name_of(row),
            "proto": "tcp",
            "state": row["state"],
            "local": f"{row['local']}:{row['local_port']}",
            "remote": remote,
            "recv_q": row.get("recv_q", 0),
            "send_q": row.get("send_q", 0),
            "up": up,
            "down": down,
            "received": received,
            "acked": acked,
            "rtt": info.get("rtt", 0) / 1000,
            "rto": info.get("rto", 0) / 1000,
            "cwnd": info.get("snd_cwnd", 0),
            "ssthresh": info.get("snd_ssthresh", 0) if info.get("snd_ssthresh", 0) < 1 << 28 else None,
            "unacked": info.get("unacked", 0),
            "lost": info.get("lost", 0),
            "retrans": info.get("total_retrans", 0),
            "snd_wscale": info.get("snd_wscale", 0) if info.get("options", 0) & _WSCALE else None,
            "rcv_wscale": info.get("rcv_wscale", 0) if info.get("options", 0) & _WSCALE else None,
            "mss": info.get("snd_mss", 0),
            "snd_wnd": info.get("snd_wnd", 0),
            "rcv_wnd": info.get("rcv_wnd", 0),
            "congestion": row.get("congestion", ""),
            "timer": f"{timer} {max(0, timers[timer]) / 1e6:.0f} ms" if timer else "",
        }

    # addons

    def addons(self) -> list[dict[str, Any]]:
        """What is loaded where, what its hooks did, and what went wrong."""
        rows: list[dict[str, Any]] = []
        for process in PROCESSES:
            with contextlib.suppress(ControlError):
                rows += [{"process": process, **addon} for addon in self.ask(process, "addon.list")["addons"]]
        return rows

    def load_addon(self, path: str, options: dict[str, str]) -> list[str]:
        """As `lvlip addon load FILE KEY=VALUE ...`: the processes in which it has something to do. ControlError."""
        running = self._running()
        loaded = [
            process
            for process in running
            if self.ask_patiently(process, "addon.load", path=str(Path(path).absolute()), options=options)["loaded"]
        ]
        if not loaded:
            raise ControlError(f"{path} has no hook that has a place in {', '.join(running)}")
        return loaded

    def unload_addon(self, name: str) -> list[str]:
        """The processes from which it is gone."""
        gone = []
        for process in self._running():
            if name in [addon["addon"] for addon in self.ask(process, "addon.list")["addons"]]:
                self.ask_patiently(process, "addon.unload", addon=name)
                gone.append(process)
        return gone

    def _running(self) -> list[str]:
        running = [process for process in PROCESSES if self.run.holder(process) is not None]
        if not running:
            raise NotRunning(f"stack {self.run.name!r} is not running")
        return running

    def ask_patiently(self, process: str, request: str, **args: Any) -> dict[str, Any]:
        """As `ask`, of what takes its time; from any thread."""
        client = ControlClient(self.run, process, timeout=ADDON_S)
        try:
            return client.request(request, **args)
        finally:
            client.close()

    # faults

    def faults(self) -> list[dict[str, Any]]:
        """What is set, and what it has done, as `lvlip fault show`."""
        rows: list[dict[str, Any]] = []
        for process in PROCESSES[:3]:
            with contextlib.suppress(ControlError):
                for fault in self.ask(process, "fault.show")["faults"]:
                    rows.append({"process": process, **fault, "text": describe(fault)})
        return rows

    def set_fault(self, seam: str, words: Iterable[str]) -> dict[str, Any]:
        """As `lvlip fault set SEAM WORDS`; BadFault or ControlError say what is wrong."""
        if seam not in FAULT_SIDES:
            raise ControlError(f"faults act on {', '.join(FAULT_SIDES)}, not on {seam}")
        fault = parse(words)
        missing = [one for one in FAULT_SIDES[seam] if self.run.holder(one) is None]
        if missing:
            raise ControlError(f"{' and '.join(missing)} must run for a fault on {seam}")
        sides: list[str] = []
        for process in FAULT_SIDES[seam]:
            sides += self.ask(process, "fault.set", seam=seam, **fault)["sides"]
        return {"seam": seam, "sides": sides, "text": describe(fault)}

    def clear_fault(self, seam: str) -> dict[str, Any]:
        """As `lvlip fault clear SEAM`."""
        if seam not in FAULT_SIDES:
            raise ControlError(f"faults act on {', '.join(FAULT_SIDES)}, not on {seam}")
        cleared: list[str] = []
        for process in FAULT_SIDES[seam]:
            cleared += self.ask(process, "fault.clear", seam=seam)["cleared"]
        return {"cleared": cleared}


def connection_name_of(row: dict[str, Any]) -> str:
    """As events name it."""
    return f"{row['local']}:{row['local_port']}>{row['remote']}:{row['remote_port']}"


def _end(address: str, port: int) -> str:
    """One end of a UDP socket; what may be any is a star."""
    return f"{address if address != '0.0.0.0' else '*'}:{port or '*'}"


def _drops(counters: dict[str, int], rates: dict[str, float]) -> list[dict[str, Any]]:
    """What was discarded, the most first, with its reason."""
    rows = []
    for counter, value in counters.items():
        if not counter.startswith("drop.") or not value:
            continue
        name = counter.removeprefix("drop.")
        reason = lookup(name)
        rows.append(
            {
                "name": name,
                "count": value,
                "rate": rates.get(counter, 0.0),
                "text": str(reason) if reason else "",
                "severity": reason.severity.value if reason else "",
            }
        )
    return sorted(rows, key=lambda row: -int(row["count"]))
