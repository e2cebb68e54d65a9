"""Events: what a core decided and why, as plain data. Text is made late, by whoever shows it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Event(Struct, array_like=True):
    """One decision.

    `kind` is a short name: "drop", "state", "retransmit", "rto", "cwnd", "timer", "arp", "route", "fault", ...
    `reason` is the name of a row in reasons.py for kind "drop", else empty. `frame` is the id of the frame that led to
    it (0: a timer or a call). `conn` names the connection as "10.0.0.2:80>10.0.0.1:4711" (local first) or is empty.
    `data` holds plain values that the kind's sentence needs (formatting.py).
    """

    at: int
    kind: str
    reason: str = ""
    frame: int = 0
    conn: str = ""
    data: dict[str, Any] = {}
