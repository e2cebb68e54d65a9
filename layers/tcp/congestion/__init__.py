"""Congestion control: strategies by the names that `tcp.congestion` and TCP_CONGESTION know them by."""

from __future__ import annotations

from layers.tcp.congestion.base import Strategy
from layers.tcp.congestion.newreno import NewReno

STRATEGIES: dict[str, type[Strategy]] = {NewReno.name: NewReno}


def make(name: str) -> Strategy:
    """A fresh strategy; KeyError for a name that is not in `STRATEGIES`."""
    return STRATEGIES[name]()
