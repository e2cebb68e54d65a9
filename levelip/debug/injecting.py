"""Packets that nobody sent, put into a running stack; what stands around them: MAC addresses, sequence numbers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from levelip.debug.debugger import Debugger
from levelip.debug.model import Misused
from levelip.debug.points import seam_and_way
from levelip.frames.packet import FrameIds, Process, format_frame_id
from levelip.ipc.control import ControlError
from levelip.tracing.build import (
    Connection,
    Target,
    build_capture,
    build_fields,
    build_line,
    parse_connection,
)
from levelip.tracing.edit import parse_changes
from levelip.tracing.expression import compile_expression
from levelip.wire.addr import MAC_BROADCAST, format_address, parse_mac

IFACE = 1
"""The one interface that link has (layers/link/config.py)."""
_BARE = "tcp and not (tcp.flags.syn or tcp.flags.reset or tcp.options.timestamp)"


def inject(
    debugger: Debugger, where: str, *, line: str | None = None, words: Sequence[str] = (), path: Path | None = None,
    numbers: Sequence[int] = (), connection: str = "", absolute: bool = False, keep_checksums: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Make packets of a packetdrill line, of fields (FIELD=VALUE), or of a capture, and put them in at "SEAM:WAY"; what
    became of each: {"seam", "way", "id", "held", "text", "note"}; the note says why tcp will discard it, where that is
    easily overlooked. ControlError, BuildError, EditError, ScriptError, CaptureError.
    """
    target = make_target(debugger, where, connection, absolute=absolute)
    if line:
        frames = [build_line(line, target)]
    elif words:
        frames = [build_fields(parse_changes(words), target, checksums="keep" if keep_checksums else "mend")]
    else:
        assert path is not None
        frames = list(build_capture(path, target, numbers=tuple(numbers) or None))
    done = []
    for frame in frames:
        held = debugger.inject(frame, target.seam, target.direction)
        number = format_frame_id(frame.id)
        text = f"{number} at {target.seam}:{target.direction}" + (f", held as {held}" if held else ", passed on")
        note = _overlooked(debugger, target, frame)
        done.append({
            "seam": target.seam, "way": target.direction, "id": frame.id, "held": held, "text": text, "note": note,
        })  # fmt: skip
    return done


def _overlooked(debugger: Debugger, target: Target, frame: Any) -> str:
    """That a packet has no timestamp though its connection agreed on them (RFC 7323 3.2), and how to give it one."""
    if target.connection is None or target.direction != "up":
        return ""
    if not compile_expression(_BARE).matches_frame(frame, target.seam, target.direction):
        return ""
    try:
        tcb = debugger.ask("tcp", "conn", conn=target.connection.name)["tcb"]
    except ControlError:
        return ""
    if not tcb["timestamps"]:
        return ""
    return (
        "its connection has timestamps and it has none, so tcp discards it (lvlip explain tcp_no_timestamp); with one: "
        f"<nop,nop,TS val {tcb['ts_recent']} ecr 0> at the end of LINE"
    )


def make_target(debugger: Debugger, where: str, connection: str = "", *, absolute: bool = False) -> Target:
    """Where packets are to go: "SEAM:up" or "SEAM:down", and whose they are ("10.0.0.2:80>10.0.0.1:4711", ours first).

    Numbers in a packetdrill line count from the connection's own, as in a packet script, if tcp knows it; `absolute`:
    they stand as on the wire. DebugError, ControlError or BuildError say what is wrong.
    """
    seam, way = seam_and_way(where)
    if not way:
        raise Misused(f"say which way it goes: {seam}:up is toward the applications, {seam}:down toward the network")
    one = parse_connection(connection) if connection else None
    if one is not None and not absolute:
        one = _with_isns(debugger, one)
    target = Target(seam, way, one, iface=IFACE, ids=FrameIds(Process.TOOL, secrets.randbits(20)))
    if seam == "link":
        device = debugger.ask("link", "device")
        target.ethernet = bool(device["ethernet"])
        if target.ethernet:
            target.mac = parse_mac(device["mac"])
            target.peer_mac = _peer_mac(debugger, one)
    return target


def _with_isns(debugger: Debugger, one: Connection) -> Connection:
    """The connection with its initial sequence numbers; as it is where tcp does not know it."""
    try:
        tcb = debugger.ask("tcp", "conn", conn=one.name)["tcb"]
    except ControlError:
        return one
    return Connection(
        one.local, one.local_port, one.remote, one.remote_port, int(tcb["tx"]["iss"]), int(tcb["rx"]["irs"])
    )


def _peer_mac(debugger: Debugger, one: Connection | None) -> bytes:
    """The MAC address of the connection's other end, or of any neighbour (a router); broadcast if link knows none."""
    rows = [row for row in debugger.ask("link", "neigh")["neighbours"] if row["mac"]]
    remote = format_address(one.remote) if one is not None else ""
    rows.sort(key=lambda row: row["address"] != remote)
    return parse_mac(rows[0]["mac"]) if rows else MAC_BROADCAST
