"""What a run is told as: one line if all went well; else the script's line, both sides, and the trace up to there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulation.script.internet import Row
from simulation.script.language import Script, ScriptError
from simulation.script.run import Result, TraceLine, seconds

TRACE_LINES = 40  # of a failure's trace, the last ones, unless all are asked for
_SIGNS = {"in": "<", "out": ">", "call": "$", "event": ".", "note": "#", "print": "|"}


def error_text(path: str, script: Script | None, error: ScriptError, source: str = "") -> str:
    """path:line:column: message, the line, and a caret under the place."""
    lines = (script.source if script is not None else source).splitlines()
    where = f"{path}:{error.line}:{error.column}" if error.line else path
    text = f"{where}: {error.message}"
    if 0 < error.line <= len(lines):
        line = lines[error.line - 1]
        before = "".join("\t" if letter == "\t" else " " for letter in line[: max(error.column - 1, 0)])
        text += f"\n    {line}\n    {before}^"
    return text


def table(rows: Sequence[Row]) -> str:
    """Expected and got side by side; a * before what differs."""
    cells = [("", "", "expected", "got")]
    cells += [("*" if row.differs else "", row.name, row.expected, row.got) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = []
    for sign, name, expected, got in cells:
        line = f"  {sign:1} {name:<{widths[1]}}  {expected:<{widths[2]}}  {got}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def trace_text(trace: Sequence[TraceLine], *, most: int = 0) -> str:
    """Packets (< in, > out), calls ($) and decisions (.), with the script's time."""
    left_out = len(trace) - most if most and len(trace) > most else 0
    lines = [f"  ({left_out} lines before; --verbose shows all)"] if left_out else []
    lines += [f"  {seconds(line.at)} {_SIGNS[line.kind]} {line.text}" for line in trace[left_out:]]
    return "\n".join(lines)


def failure_text(result: Result, *, verbose: bool = False) -> str:
    """A failure in full."""
    failure = result.failure
    assert failure is not None
    script = result.script
    text = [f"{script.path}:{failure.line}: {failure.message}"]
    if failure.event is not None:
        text += [f"    {line}" for line in failure.event.text.splitlines()]
    if failure.rows:
        text += ["", table(failure.rows)]
    trace = sorted(result.trace, key=lambda line: line.at)
    if trace:
        text += ["", "what happened up to there:", trace_text(trace, most=0 if verbose else TRACE_LINES)]
    return "\n".join(text)


def summary_line(result: Result) -> str:
    """ "ok      tests/scripts/x.pkt  20.1 s simulated in 12 ms"."""
    word = "REFUSED" if result.refused else {0: "ok", 1: "FAILED", 2: "ERROR"}[result.status]
    times = f"{result.simulated_ns / 1e9:.3f} s simulated in {result.wall_s * 1000:.0f} ms"
    return f"{word:7} {result.script.path}  {times}"


def as_data(result: Result, *, verbose: bool = False) -> dict[str, Any]:
    """For --json."""
    data: dict[str, Any] = {
        "script": result.script.path,
        "status": "refused" if result.refused else {0: "passed", 1: "failed", 2: "error"}[result.status],
        "clauses": list(result.script.clauses),
        "simulated_s": result.simulated_ns / 1e9,
        "wall_s": round(result.wall_s, 6),
        "warnings": result.warnings,
    }
    failure, error = result.failure, result.error
    if failure is not None:
        data["line"] = failure.line
        data["message"] = failure.message
        data["text"] = failure.event.text if failure.event is not None else ""
        data["fields"] = [
            {"name": row.name, "expected": row.expected, "got": row.got, "differs": row.differs} for row in failure.rows
        ]
    if error is not None:
        data |= {"line": error.line, "column": error.column, "message": error.message}
    if verbose or failure is not None:
        data["trace"] = [{"at_s": line.at / 1e9, "kind": line.kind, "text": line.text} for line in result.trace]
    return data
