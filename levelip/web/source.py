"""What a page can look at: the running stack, or a file. Each has rows, connections and a time to count from."""

from __future__ import annotations

import re
from typing import Any

from levelip.web.packets import KEEP, Packets

MAX_CONNECTIONS = 500
"""Connections sent to a page at once; it is told how many there are, and search and order act on all."""
_SPLIT = re.compile(r"\s+")


class Source:
    """`kind` is "live" or "capture"; `title` what the page calls it."""

    def __init__(self, name: str, kind: str, title: str, *, keep: int = KEEP) -> None:
        self.name = name
        self.kind = kind
        self.title = title
        self.packets = Packets(keep)
        self.origin = 0  # ns: what the page counts seconds from
        self.wall = 0  # added to a time of the rows: ns since 1970

    def connections(self) -> list[dict[str, Any]]:
        """Every connection, each with at least name, state, local, remote."""
        raise NotImplementedError

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


def choose(rows: list[dict[str, Any]], search: str, sort: str, descending: bool) -> dict[str, Any]:
    """Connections for a page: those in which every word of `search` occurs, in order, and how many there are."""
    words = [word for word in _SPLIT.split(search.lower()) if word]
    found = [row for row in rows if all(word in _searched(row) for word in words)] if words else list(rows)
    if found and sort in found[0]:
        found.sort(key=lambda row: _order(row.get(sort)), reverse=descending)
    return {"rows": found[:MAX_CONNECTIONS], "found": len(found), "all": len(rows)}


def _searched(row: dict[str, Any]) -> str:
    return f"{row['state']} {row['local']} {row['remote']} {row.get('congestion', '')}".lower()


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, texts with the numbers in them by size ("10.0.0.9" before "10.0.0.10")."""
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    if value is None:
        return (0, 0.0, "")
    return (2, 0.0, re.sub(r"\d+", lambda match: match.group().zfill(10), str(value)))
