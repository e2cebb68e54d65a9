"""Congestion control: strategies by the names that `tcp.congestion` and TCP_CONGESTION know them by.

A name with a colon is where a class is to be found, "package.module:Class": one that somebody wrote and named in the
configuration. An application cannot name such a one, but get the configured one by default.
"""

from __future__ import annotations

from importlib import import_module

from layers.tcp.congestion.base import Strategy
from layers.tcp.congestion.cubic import Cubic
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.congestion.window import Window
from levelip.config import CONGESTIONS, TcpConfig

STRATEGIES: dict[str, type[Strategy]] = {Cubic.name: Cubic, NewReno.name: NewReno}


class NoStrategy(ValueError):
    """A name that leads to no strategy; the text says why."""


def find(name: str) -> type[Strategy]:
    """The class for a name of STRATEGIES or "package.module:Class". NoStrategy."""
    known = STRATEGIES.get(name)
    if known is not None:
        return known
    module, colon, attribute = name.partition(":")
    if not colon:
        raise NoStrategy(f"no congestion control {name!r}; there is {', '.join(STRATEGIES)}")
    what = f"congestion control {name!r}"
    try:
        place = import_module(module)
    except (Exception, SystemExit) as error:  # somebody's own code may raise anything
        raise NoStrategy(f"{what}: {module} cannot be imported: {_said(error)}") from error
    kind = getattr(place, attribute, None)
    if kind is None:
        raise NoStrategy(f"{what}: {module} has no {attribute}")
    if not isinstance(kind, type):
        raise NoStrategy(f"{what}: {attribute} in {module} is no class")
    try:
        one = kind()
    except Exception as error:
        raise NoStrategy(f"{what}: {attribute}() fails: {_said(error)}") from error
    if lacks := [part for part in _parts() if not hasattr(one, part)]:
        raise NoStrategy(f"{what} lacks {', '.join(lacks)} of layers.tcp.congestion.base.Strategy")
    found: type[Strategy] = kind
    return found


def _said(error: BaseException) -> str:
    """On one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _parts() -> list[str]:
    """What a strategy has: attributes, then methods."""
    return [*Strategy.__annotations__, *(name for name in vars(Strategy) if not name.startswith("_"))]


def make(name: str) -> Strategy:
    """A fresh strategy. NoStrategy."""
    return find(name)()


def label(strategy: Strategy) -> str:
    """What `find` finds its class by."""
    kind = type(strategy)
    return strategy.name if STRATEGIES.get(strategy.name) is kind else f"{kind.__module__}:{kind.__qualname__}"


def chosen(tcp: TcpConfig, place: int) -> Strategy:
    """A fresh strategy: that of the socket option (place in CONGESTIONS plus one), or with 0 the configured one."""
    strategy = make(CONGESTIONS[place - 1] if place else tcp.congestion)
    if isinstance(strategy, Window):
        strategy.hystart.enabled = tcp.hystart
    return strategy


def replaced(old: Strategy, tcp: TcpConfig, place: int, now: int) -> Strategy:
    """Another strategy in place of `old` in mid-connection: it goes on with the same windows (Linux likewise)."""
    new = chosen(tcp, place)
    new.start(old.mss, max(old.cwnd // max(old.mss, 1), 1), now)
    new.set_window(old.cwnd)
    new.ssthresh = old.ssthresh
    return new
