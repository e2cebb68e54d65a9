"""The table at the end, and the JSON file. `python -m benchmarks.report FILE` prints that as Markdown."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.cases import Results
from benchmarks.figures import Figure, scaled
from tests.system.harness import ROOT

_VERDICTS = {True: "[green]holds[/]", False: "[red]missed[/]", None: ""}
_HOLDS = {True: "yes", False: "**no**", None: ""}


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "revision": revision.stdout.strip(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "pyzmq": zmq.pyzmq_version(),
        "msgspec": msgspec.__version__,
    }


def plain(results: Results, facts: dict[str, Any], failures: dict[str, str]) -> dict[str, Any]:
    """Every figure with its raw samples."""
    return {
        "machine": facts,
        "figures": [figure.plain() for figure in results.figures if figure.samples],
        "bulk_runs": {name: [one.plain() for one in runs] for name, runs in results.bulk.items()},
        "cpu": {name: measure.cpu_table(runs) for name, runs in results.bulk.items() if runs},
        "notes": results.notes,
        "failures": failures,
    }


def write_json(path: Path, data: dict[str, Any]) -> None:
    """One JSON object. OSError if it cannot be written."""
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _row(figure: Figure) -> list[str]:
    baseline = scaled(figure.median / figure.ratio, figure.unit) if figure.ratio else ""
    ratio = f"{figure.ratio:.3f}" if figure.ratio else ""
    sign = "≥" if figure.higher_is_better else "<"
    target = f"{sign} {figure.target:g}" if figure.target is not None else ""
    return [
        figure.name,
        scaled(figure.median, figure.unit),
        f"±{50 * figure.spread:.0f} %",
        baseline,
        ratio,
        target,
        _VERDICTS[figure.holds],
        figure.note,
    ]


def show(console: Console, results: Results, facts: dict[str, Any], failures: dict[str, str]) -> None:
    """Tables of figures and of CPU time."""
    done = [figure for figure in results.figures if figure.samples]
    title = f"medians of {results.runs} runs, {facts['cpus']} CPUs, {facts['revision']}, {facts['date']}"
    table = Table(title=title, title_justify="left")
    for heading in ("figure", "stack", "range", "kernel, veth", "ratio", "target", "", "note"):
        table.add_column(heading, justify="right" if heading in ("stack", "range", "kernel, veth", "ratio") else "left")
    for figure in done:
        table.add_row(*_row(figure))
    if done:
        console.print(table)
    for name, runs in results.bulk.items():
        if runs:
            console.print(_cpu(name, runs))
    for note in results.notes:
        console.print(f"note: {note}")
    for name, text in failures.items():
        console.print(f"[red]{name} failed:[/] {text}", markup=True)


def _cpu(name: str, runs: list[measure.Bulk]) -> Table:
    table = Table(title=f"CPU, {name}", title_justify="left")
    for heading in ("process", "of a CPU", "s/GB", "switches/MB"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    rows = measure.cpu_table(runs)
    for process, row in rows.items():
        shares = (f"{row['percent_of_a_cpu']:.0f} %", f"{row['cpu_s_per_gb']:.2f}", f"{row['switches_per_mb']:.0f}")
        table.add_row(process, *shares)
    total = sum(row["cpu_s_per_gb"] for row in rows.values())
    table.add_row("all", f"{sum(row['percent_of_a_cpu'] for row in rows.values()):.0f} %", f"{total:.2f}", "")
    return table


def markdown(data: dict[str, Any]) -> str:
    """The tables for docs/performance.md, from what write_json wrote."""
    lines = ["| figure | stack | kernel, veth | ratio | target | holds |", "|---|---:|---:|---:|---:|---|"]
    for row in data["figures"]:
        base = scaled(row["baseline_median"], row["unit"]) if row["baseline_median"] else ""
        ratio = f"{row['ratio']:.3f}" if row["ratio"] else ""
        sign = "≥" if row["higher_is_better"] else "<"
        target = f"{sign} {row['target']:g}" if row["target"] is not None else ""
        figure = scaled(row["median"], row["unit"])
        lines.append(f"| {row['name']} | {figure} | {base} | {ratio} | {target} | {_HOLDS[row['holds']]} |")
    ours = {name: rows for name, rows in data["cpu"].items() if "kernel alone" not in name}
    if ours:
        processes = list(next(iter(ours.values())))
        lines += ["", f"| CPU seconds per GB | {' | '.join(processes)} | all |", "|---" * (len(processes) + 2) + "|"]
        for name, rows in ours.items():
            cells = [f"{rows[process]['cpu_s_per_gb']:.2f}" if process in rows else "" for process in processes]
            total = sum(row["cpu_s_per_gb"] for row in rows.values())
            lines.append(f"| {name} | {' | '.join(cells)} | {total:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
