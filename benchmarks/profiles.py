"""One profile a process during bulk: which functions and lines its CPU time goes to (benchmarks/sampling).

A function's own time includes the C code that its lines call; "below" includes the Python functions it calls too.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.harness import ROOT

_SHOWN = 14


@dataclass
class Profile:
    """Samples of one process: by function and by line its own, by function what it and its callees took."""

    process: str
    total: int = 0
    own: Counter[str] = field(default_factory=Counter)
    below: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)

    def text(self, shown: int = _SHOWN) -> str:
        """As people read it, in percent of the process's CPU time."""
        if not self.total:
            return f"{self.process}: no samples"
        out = [f"{self.process}: {self.total} samples", "   own  below  function"]
        for name, count in self.own.most_common(shown):
            out.append(f"{100 * count / self.total:5.1f}% {100 * self.below[name] / self.total:5.1f}%  {name}")
        out.append("   own         line")
        out += [f"{100 * count / self.total:5.1f}%         {name}" for name, count in self.lines.most_common(shown)]
        return "\n".join(out)


def read(path: Path) -> Profile:
    """What the sampler left there. ValueError or KeyError if it is something else."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    profile = Profile(_process(facts["command"]))
    for stack, count in facts["samples"]:
        if any(entry.startswith("<frozen importlib") for entry in stack):
            continue  # its start
        profile.total += count
        profile.lines[_short(stack[0], line=True)] += count
        profile.own[_short(stack[0], line=False)] += count
        for name in {_short(entry, line=False) for entry in stack}:
            profile.below[name] += count
    return profile


def read_all(directory: Path) -> list[Profile]:
    """All processes that left one, the busiest first."""
    return sorted((read(path) for path in directory.glob("*.json")), key=lambda one: -one.total)


def _process(command: list[str]) -> str:
    """A name for a command line: "tcp", "helper", "agent stack"."""
    if "-m" not in command:
        return Path(command[0]).name
    at = command.index("-m")
    module = command[at + 1].rpartition(".")[2]
    return f"{module} {command[at + 2]}" if module == "agent" and len(command) > at + 2 else module


def _short(entry: str, *, line: bool) -> str:
    path, function, number = entry.rsplit(":", 2)
    path = path.removeprefix(f"{ROOT}/")
    if path.startswith("/"):
        path = "/".join(path.split("/")[-2:])
    return f"{path}:{number} {function}" if line else f"{path} {function}"
