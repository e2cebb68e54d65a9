"""The comments of our captures read back: sentences of formatting.py, with the data that rules ask for.

The sentence itself stays in the event's data as "text", and formatting says it again as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from levelip.tracing.flowfile import event_of_text
from levelip.tracing.formatting import FAULT_WORDS, RETRANSMIT_WORDS
from levelip.tracing.reasons import all_reasons

_COMMENT = re.compile(r"(\d\d:\d\d:\d\d\.\d+ )?(link|ip|tcp|gateway|udp): (.*?)(?: \[(\S+) > (\S+)\])?$", re.DOTALL)
_RETRANSMIT = re.compile(r"retransmit(?:, (.+?))?(?:, (bytes|seq) (\d+):(\d+)|, (the SYN))?(?:, attempt (\d+))?$")
"""Older captures have "bytes", which count from 0."""
_FAULT = re.compile(r"lvlip fault: (sent twice|a bit flipped|delayed|kept back)")
_DEED = re.compile(r"(?:addon (\S+)|by hand): (changed|delayed|repeated|made)(?: (.+?))? at \S+ [↑↓]")
_DROPPED_BY = re.compile(r" \(addon (\S+)\)$")
_PLACE = re.compile(
    r" at (\S+) ([↑↓])(?:, Flags \[([^\]]*)\])?(?:, seq (\d+))?(?:, ack (\d+))?(?:, length (\d+))?(?: \(|$)"
)
_STATE = re.compile(r"([A-Z][A-Z_0-9]+) → ([A-Z][A-Z_0-9]+)(?:, (.*))?$")
_UNDO = re.compile(r"reduction undone, (.*?)(?:, RFC \d+)?, cwnd ")
_RESET = re.compile(r"reset (sent|received)")
_PMTU = re.compile(r"path MTU (?:\S+ → )?(\d+), (.*)$")
_KINDS = [
    (re.compile(begin), kind)
    for begin, kind in (
        (r"the transports know ", "route"), (r"device .* is (?:up|down)", "device"),
        (r"the peer has (?:bytes|seq) ", "dsack"),
        (r"the peer no longer has ", "reneged"), (r"reordering seen", "reordering"), (r"cut into ", "fragment"),
        (r"\d+ bytes from .* put together", "reassembled"), (r"\d+ bytes from ", "datagram"),
        (r"receive buffer grows", "rcvbuf"), (r"(?:zero-window probe|keep-alive|probe) \d", "probe"),
        (r"MTU probe ", "mtu_probe"), (r"SYN cookie sent", "syn_cookie"), (r"urgent up to ", "urgent"),
        (r"\S+ timer armed", "timer"), (r"listening on port ", "listen"), (r"\S+ claims our address", "conflict"),
        (r"nothing comes back from ", "doubt"), (r"\S+ does not answer: passed over", "gateway"),
        (r"to \S+ by way of ", "redirect"), (r"a datagram to ", "send"), (r"congestion mark on |CWR on ", "ecn"),
        (r"client pid ", "client"), (r"[a-z_]+\(.*\) of pid ", "call"),
    )
]  # fmt: skip
"""Sentences that do not begin with their kind."""
_REASONS = sorted(((str(one), one.name) for one in all_reasons()), reverse=True)  # a longer one before its beginning


@dataclass(frozen=True, slots=True)
class Comment:
    """`loose`: it was noted on a packet that it is not about, a timer's on the next."""

    process: str
    said: str
    conn: str
    kind: str
    reason: str
    data: dict[str, Any]
    loose: bool


def read_comment(text: str) -> Comment | None:
    """None for a comment that lvlip capture does not write."""
    found = _COMMENT.fullmatch(text)
    if found is None:
        return None
    at, process, said, local, remote = found.groups()
    kind, reason, data = _read(said)
    conn = f"{local}>{remote}" if local and remote else ""
    return Comment(process, said, conn, kind, reason, {**data, "text": said}, bool(at))


def _read(said: str) -> tuple[str, str, dict[str, Any]]:
    """(kind, reason, data)."""
    if said.startswith("drop, "):
        rest = said.removeprefix("drop, ")
        who = _DROPPED_BY.search(said)
        data = {**_place(said), **({"addon": who[1]} if who else {})}
        return "drop", next((name for words, name in _REASONS if rest.startswith(words)), ""), data
    if found := _DEED.match(said):
        data = {"what": found[2], **_place(said), **({"addon": found[1]} if found[1] else {})}
        if found[2] == "changed" and found[3]:
            data["changes"] = found[3].split(", ")
        return "addon" if found[1] else "hand", "", data
    if found := _FAULT.match(said):
        what = next(name for name, words in FAULT_WORDS.items() if words == found[1])
        return "fault", "", {"what": what, **_place(said)}
    if found := _RETRANSMIT.match(said):
        return "retransmit", "", _retransmit(found)
    if found := _STATE.fullmatch(said):
        cause = (found[3] or "").upper().replace(" ", "_")
        return "state", "", {"old": found[1], "new": found[2], "input": cause}
    if found := _UNDO.match(said):
        return "undo", "", {"why": found[1]}
    if found := _RESET.match(said):
        return "reset", "", {"sent": found[1] == "sent"}
    if found := _PMTU.match(said):
        return "pmtu", "", {"new": int(found[1]), "why": found[2].removesuffix(", RFC 4821")}
    for pattern, kind in _KINDS:
        if pattern.match(said):
            return kind, "", {}
    return event_of_text(said, 0).kind.lower(), "", {}


def _place(said: str) -> dict[str, Any]:
    found = _PLACE.search(said)
    if found is None:
        return {}
    data: dict[str, Any] = {"seam": found[1], "way": "up" if found[2] == "↑" else "down"}
    if found[3] is not None:
        data["flags"] = found[3]
    numbers = zip(("seq", "ack", "length"), found.groups()[3:6], strict=True)
    return data | {name: int(value) for name, value in numbers if value}


def _retransmit(found: re.Match[str]) -> dict[str, Any]:
    words, counted, start, end, syn, attempt = found.groups()
    data: dict[str, Any] = {}
    if words:
        data["why"] = next((name for name, text in RETRANSMIT_WORDS.items() if text == words), words)
    if start:
        data |= {"offset": int(start) - (counted == "seq"), "length": int(end) - int(start)}
    if syn:
        data |= {"offset": -1, "length": 1}
    if attempt:
        data["attempt"] = int(attempt)
    return data
