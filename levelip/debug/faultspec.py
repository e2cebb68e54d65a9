"""Faults as people write them, "loss=5% delay=20ms±5ms rate=10mbit", to what a process is told."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from levelip.frames.core import LONGEST_DELAY_NS

WAYS = ("up", "down", "both")
FRAMES = ("wire", "whole")
_KEYS = ("loss", "dup", "reorder", "corrupt", "delay", "rate", "seed", "dir", "frames")
_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_BITS = {
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "bps": 8,
    "kbps": 8 * 10**3,
    "mbps": 8 * 10**6,
    "gbps": 8 * 10**9,
}
"""As tc reads them (man tc, RATES): bit are bits a second, bps bytes a second."""
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
_SEED = re.compile(r"[0-9]{1,19}")
_TIME = re.compile(rf"{_NUMBER}\s*(ns|us|µs|ms|s)")
_RATE = re.compile(rf"{_NUMBER}\s*([a-z]+)")
_PERCENT = re.compile(rf"{_NUMBER}\s*(%?)")


class BadFault(ValueError):
    """A fault that cannot be read; the text says which part, and what is allowed."""


def parse(words: Iterable[str]) -> dict[str, Any]:
    """The arguments of the control command "fault.set", without its seam. BadFault for the first mistake."""
    found: dict[str, Any] = {"direction": "both"}
    seen: set[str] = set()
    for word in words:
        key, equals, text = word.partition("=")
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(_KEYS)}"
            raise BadFault(f"{key!r} is no fault{hint}")
        if not equals or not text:
            raise BadFault(f"{key}: give a value, as {_EXAMPLES[key]}")
        if key in seen:
            raise BadFault(f"{key} is given twice")
        seen.add(key)
        found.update(_one(key, text.strip()))
    if not seen - {"seed", "dir", "frames"}:
        raise BadFault("give at least one of loss, dup, reorder, corrupt, delay, rate")
    return found


_EXAMPLES = {
    "loss": "loss=5%",
    "dup": "dup=1%",
    "reorder": "reorder=3%",
    "corrupt": "corrupt=0.1%",
    "delay": "delay=20ms or delay=20ms±5ms",
    "rate": "rate=10mbit",
    "seed": "seed=7",
    "dir": "dir=up, dir=down or dir=both",
    "frames": "frames=wire or frames=whole",
}


def _one(key: str, text: str) -> dict[str, Any]:
    if key in ("loss", "dup", "reorder", "corrupt"):
        return {key: _probability(key, text)}
    if key == "delay":
        return _delay(text)
    if key == "rate":
        return {"rate_bps": _rate(text)}
    if key == "seed":
        if not _SEED.fullmatch(text) or int(text) >= 1 << 63:
            raise BadFault(f"seed={text}: must be an integer from 0 to {(1 << 63) - 1}")
        return {"seed": int(text)}
    if key == "dir":
        if text not in WAYS:
            raise BadFault(f"dir={text}: must be up (toward the applications), down or both")
        return {"direction": text}
    if text not in FRAMES:
        raise BadFault(f"frames={text}: must be wire (cut super-segments first) or whole")
    return {"frames": text}


def _probability(key: str, text: str) -> float:
    match = _PERCENT.fullmatch(text)
    if match is None or (not match[2] and float(match[1]) not in (0.0,)):
        raise BadFault(f"{key}={text}: must be a percentage from 0% to 100%, as {_EXAMPLES[key]}")
    value = float(match[1])
    if value > 100:
        raise BadFault(f"{key}={text}: must be a percentage from 0% to 100%, as {_EXAMPLES[key]}")
    return value / 100


def _delay(text: str) -> dict[str, int]:
    delay, sign, jitter = text.replace("+-", "±").partition("±")
    found = {"delay_ns": _time("delay", delay, text)}
    if sign:
        found["jitter_ns"] = _time("delay", jitter, text)
        if found["jitter_ns"] > found["delay_ns"]:
            raise BadFault(f"delay={text}: the jitter must not exceed the delay")
    return found


def _time(key: str, text: str, whole: str) -> int:
    match = _TIME.fullmatch(text.strip())
    value = round(float(match[1]) * _NS[match[2]]) if match else -1
    if not 0 <= value <= LONGEST_DELAY_NS:
        raise BadFault(f"{key}={whole}: must be a time up to 3600s, as {_EXAMPLES[key]}")
    return value


def _rate(text: str) -> int:
    match = _RATE.fullmatch(text.lower())
    if match is None or match[2] not in _BITS:
        raise BadFault(f"rate={text}: must be a number with one of {', '.join(_BITS)}, as {_EXAMPLES['rate']}")
    value = round(float(match[1]) * _BITS[match[2]])
    if value < 1:
        raise BadFault(f"rate={text}: must be at least 1bit")
    return value


def describe(fault: dict[str, Any]) -> str:
    """A fault as `parse` reads it: "loss=5% delay=20ms±5ms seed=7"."""
    parts = [f"{name}={fault[name] * 100:g}%" for name in ("loss", "dup", "reorder", "corrupt") if fault.get(name)]
    if fault.get("delay_ns"):
        jitter = f"±{_short_time(fault['jitter_ns'])}" if fault.get("jitter_ns") else ""
        parts.append(f"delay={_short_time(fault['delay_ns'])}{jitter}")
    if fault.get("rate_bps"):
        parts.append(f"rate={_short_rate(fault['rate_bps'])}")
    parts.append(f"seed={fault.get('seed', 1)}")
    if fault.get("frames", "wire") != "wire":
        parts.append(f"frames={fault['frames']}")
    return " ".join(parts)


def _short_time(ns: int) -> str:
    for unit in ("s", "ms", "us"):
        if ns % _NS[unit] == 0:
            return f"{ns // _NS[unit]}{unit}"
    return f"{ns}ns"


def _short_rate(bits: int) -> str:
    for unit in ("gbit", "mbit", "kbit"):
        if bits % _BITS[unit] == 0:
            return f"{bits // _BITS[unit]}{unit}"
    return f"{bits}bit"


def parse_time(text: str) -> int:
    """ "20ms" or "1.5 s" in ns; BadFault for anything else."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise BadFault(f"{text!r} is no time: a number with ns, us, ms or s, as 20ms")
    return int(float(match[1]) * _NS[match[2]])
