"""What a page can look at: the running stack, or a file. Each has rows, connections and a time to count from."""

from __future__ import annotations

import re
from typing import Any

from levelip.tracing.flow import Flow, FlowModel
from levelip.web.packets import KEEP, Packets

MAX_CONNECTIONS = 500
"""Connections sent to a page at once; it is told how many there are, and search and order act on all."""
FLOW_ROWS = 100_000
FLOW_TOTAL = 400_000
"""Rows of the flow model, of a kind and connection, and in all: some 400 bytes each."""
_SPLIT = re.compile(r"\s+")


class Source:
    """`kind` is "live", "capture" or "recording"; `title` what the page calls it; `damage` what ended reading early."""

    damage = ""

    def __init__(self, name: str, kind: str, title: str, *, keep: int = KEEP) -> None:
        self.name = name
        self.kind = kind
        self.title = title
        self.packets = Packets(keep)
        self.flows = FlowModel(infer=kind != "live", rows=FLOW_ROWS, total=FLOW_TOTAL)
        self.origin = 0  # ns: what the page counts seconds from
        self.wall = 0  # added to a time of the rows: ns since 1970

    def connections(self) -> list[dict[str, Any]]:
        """Every connection that was seen, newest first."""
        return [flow_row(flow.summary(), self.shift) for flow in reversed(list(self.flows.flows.values()))]

    def flow(self, name: str) -> Flow | None:
        """A connection's series by its key; of several with the same ports, a name means the newest."""
        exact = self.flows.flows.get(name)
        return exact if exact is not None else next(iter(reversed(self.flows.find(name))), None)

    @property
    def shift(self) -> int:
        """ns from `origin` to the flow model's start."""
        return (self.flows.start or 0) - self.origin

    async def close(self) -> None:
        """Nobody looks at it any more."""

    def about(self) -> dict[str, Any]:
        """Facts for the list of sources."""
        packets = self.packets
        first = packets.times[0] if packets.times else self.origin
        last = packets.times[-1] if packets.times else self.origin
        return {
            "name": self.name, "kind": self.kind, "title": self.title, "rows": packets.end - packets.first,
            "from": (first - self.origin) / 1e9, "to": (last - self.origin) / 1e9,
            "wall": (self.origin + self.wall) / 1e9,
        }  # fmt: skip


def flow_row(summary: dict[str, Any], shift: int) -> dict[str, Any]:
    """A connection of which only its packets are known, in the columns of those that the stack tells of."""
    rtt, rto = summary["srtt"] or summary["rtt"], summary["rto"]
    return {
        "name": summary["key"],
        "proto": "tcp",
        "state": summary["state"] or "?",
        "local": f"{summary['local']}:{summary['local_port']}",
        "remote": f"{summary['remote']}:{summary['remote_port']}",
        "seen": True,
        "received": summary["in"]["delivered"],
        "acked": summary["out"]["delivered"],
        "rtt": rtt / 1e6 if rtt else 0,
        "rto": rto / 1e6 if rto else 0,
        "cwnd": None,
        "cwnd_bytes": summary["cwnd"],
        "retrans": None,
        "retrans_bytes": summary["out"]["retransmitted"],
        "first": ((summary["first"] or 0) + shift) / 1e9,
        "last": (summary["last"] + shift) / 1e9,
    }


def choose(rows: list[dict[str, Any]], search: str, sort: str, descending: bool) -> dict[str, Any]:
    """Connections for a page: those in which every word of `search` occurs, in order, and how many there are."""
    words = [word for word in _SPLIT.split(search.lower()) if word]
    found = [row for row in rows if all(word in _searched(row) for word in words)] if words else list(rows)
    if any(sort in row for row in found):
        found.sort(key=lambda row: _order(row.get(sort)), reverse=descending)
    return {"rows": found[:MAX_CONNECTIONS], "found": len(found), "all": len(rows), "search": search}


def _searched(row: dict[str, Any]) -> str:
    words = (row["proto"], row["state"], row["local"], row["remote"], row.get("congestion", ""), *row.get("groups", ()))
    return " ".join(words).lower()


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, texts with the numbers in them by size ("10.0.0.9" before "10.0.0.10")."""
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    if value is None:
        return (0, 0.0, "")
    return (2, 0.0, re.sub(r"\d+", lambda match: match.group().zfill(10), str(value)))
