"""What a run found: counts by module, docs/mutants.md, and the survivors that have no reason yet.

reasons.toml says why a mutant may live: `equivalent: …` (no test can tell it from the original), or what it is that
nobody promises (`event text: …`, `speed only: …`). A reason names mutants by fingerprint; one whose mutant is gone, or
was killed, is reported, so that the file cannot go stale. Rules (`where`, `line`, `change`: regular expressions) are
for what occurs often.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from tests.mutants.make import Mutant

GOAL = 80.0
"""Per cent that must be killed."""
REASONS = Path(__file__).with_name("reasons.toml")
NO_TEST_YET = "no test yet"


@dataclass(slots=True)
class Module:
    """What is known of one module's mutants."""

    name: str
    made: int
    counts: Counter[str] = field(default_factory=Counter)
    lived: list[tuple[Mutant, str]] = field(default_factory=list)
    """Those that were not killed, with what became of them."""
    untried: set[str] = field(default_factory=set)

    @property
    def tried(self) -> int:
        return sum(self.counts.values())

    @property
    def killed(self) -> int:
        """With those that a test's time limit ended: the mutant hung, which a test saw."""
        return self.counts["killed"] + self.counts["timeout"]


def load(work: Path, wanted: list[str]) -> list[Module]:
    """All modules of the last run that these patterns name (none: all)."""
    from tests.mutants.worker import function_digest, results

    done = results(work)
    modules = []
    for file in sorted((work / "made").glob("*.json")):
        name = file.stem
        if wanted and not any(fnmatch(name, pattern) for pattern in wanted):
            continue
        data = json.loads(file.read_text(encoding="utf-8"))
        if not data["mutants"]:
            continue
        module = Module(name, len(data["mutants"]))
        bodies = {function: function_digest(source) for function, source in data["sources"].items()}
        for fields in data["mutants"]:
            mutant = Mutant(**{**fields, "reach": tuple(fields["reach"])})
            result = done.get(mutant.fingerprint)
            if result is None or result["body"] != bodies[mutant.function]:
                module.untried.add(mutant.fingerprint)
                continue
            status = result["status"]
            module.counts[status] += 1
            if status not in ("killed", "timeout", "unfit"):
                module.lived.append((mutant, status))
        module.counts.pop("unfit", None)
        module.lived.sort(key=lambda entry: (entry[0].line, entry[0].fingerprint))
        modules.append(module)
    return modules


class Rule(NamedTuple):
    """Patterns of the function's name, of the line as it stands, and of all that is changed in it."""

    where: re.Pattern[str]
    line: re.Pattern[str]
    change: re.Pattern[str]
    reason: str


class Reasons:
    """reasons.toml: [[survivor]] by fingerprint; [[rule]] by what is changed where, for what occurs often."""

    def __init__(self) -> None:
        data = tomllib.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
        self.named: dict[str, str] = {
            fingerprint: entry["reason"] for entry in data.get("survivor", []) for fingerprint in entry["mutants"]
        }
        self.rules = [
            Rule(
                re.compile(rule.get("where", "")), re.compile(rule.get("line", "")), re.compile(rule["change"]),
                rule["reason"],
            )
            for rule in data.get("rule", [])
        ]  # fmt: skip

    def of(self, mutant: Mutant) -> str:
        """Why it may live; empty if nobody said so."""
        if reason := self.named.get(mutant.fingerprint):
            return reason
        where, line = f"{mutant.module}:{mutant.function}", " ".join(text.strip() for text in mutant.original)
        changed = " → ".join(change(mutant))
        for rule in self.rules:
            if rule.where.search(where) and rule.line.search(line) and rule.change.fullmatch(changed):
                return rule.reason
        return ""


def stale(modules: list[Module], known: Reasons) -> list[str]:
    """Fingerprints in reasons.toml of mutants that do not live, as far as they were tried."""
    alive = {mutant.fingerprint for module in modules for mutant, _ in module.lived}
    return sorted(set(known.named) - alive - {one for module in modules for one in module.untried})


def table(modules: list[Module]) -> list[str]:
    """Markdown: a row a module, and the sum."""
    known = Reasons()
    rows = [
        "| module | mutants | tried | killed | timeout | survived | no tests | suspicious | with reason | killed % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    total = Module("**all**", sum(module.made for module in modules))
    for module in modules:
        total.counts.update(module.counts)
        total.lived += module.lived
        rows.append(_row(module, known))
    rows.append(_row(total, known))
    return rows


def _row(module: Module, known: Reasons) -> str:
    counts = module.counts
    explained = sum(bool(known.of(mutant)) for mutant, _ in module.lived)
    share = f"{100 * module.killed / module.tried:.1f}" if module.tried else "–"
    cells = [
        module.name, module.made, module.tried, counts["killed"], counts["timeout"], counts["survived"],
        counts["no tests"], counts["suspicious"], explained, share,
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def score(modules: list[Module]) -> float:
    """Per cent killed of all that were tried."""
    tried = sum(module.tried for module in modules)
    return 100 * sum(module.killed for module in modules) / tried if tried else 0.0


def change(mutant: Mutant) -> tuple[str, str]:
    """What was replaced and by what: the part of the lines that differs, in whole words."""
    old = " ".join(line.strip() for line in mutant.original)
    new = " ".join(line.strip() for line in mutant.added)
    words = [re.findall(r"\w+|\s+|[^\w\s]", text) for text in (old, new)]
    matcher = difflib.SequenceMatcher(None, words[0], words[1], autojunk=False)
    changed = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    if not changed:
        return old, new
    a = "".join(words[0][changed[0][1] : changed[-1][2]])
    b = "".join(words[1][changed[0][3] : changed[-1][4]])
    return a.strip(), b.strip()


def survivors(work: Path, wanted: list[str]) -> int:
    """Print those without a reason, as reasons.toml wants them, with their difference as a comment."""
    known = Reasons()
    for module in load(work, wanted):
        for mutant, status in module.lived:
            if known.of(mutant):
                continue
            print(f"# {status}: {module.name}:{mutant.line} {mutant.function} {mutant.fingerprint}")
            print(mutant.diff())
    return 0


def conclude(work: Path, root: Path, wanted: list[str], *, docs: bool) -> int:
    """Print the table; write the page if the run was about everything; 0 if the goal is reached."""
    modules = load(work, wanted)
    print("\n".join(_aligned(table(modules))))
    reached = score(modules)
    tried, made = sum(module.tried for module in modules), sum(module.made for module in modules)
    print(f"mutants: {reached:.1f} % of {tried} tried killed (goal: {GOAL:.0f} %), {made - tried} of {made} not tried")
    if not wanted:
        for fingerprint in stale(modules, Reasons()):
            print(f"mutants: reasons.toml names {fingerprint}, which no longer lives or exists")
        if docs:
            page = root / "docs" / "mutants.md"
            page.write_text(_page(modules), encoding="utf-8")
            print(f"mutants: wrote {page.relative_to(root)}")
    return 0 if reached >= GOAL else 1


def _aligned(rows: list[str]) -> list[str]:
    cells = [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in rows if "--:" not in row]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for first, *others in cells:
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]))
    return lines


def _page(modules: list[Module]) -> str:
    known = Reasons()
    by_reason: Counter[str] = Counter()
    for module in modules:
        by_reason.update((known.of(mutant) or NO_TEST_YET).partition(":")[0] for mutant, _ in module.lived)
    tried, made = sum(module.tried for module in modules), sum(module.made for module in modules)
    text = REASONS.with_name("page.md").read_text(encoding="utf-8")
    extent = (
        "All mutants were tried."
        if tried == made
        else (
            f"{tried} of {made} mutants were tried; of each module the first ones in the order of their fingerprints, "
            "which is as good as a random sample. `make mutants` goes on with the others."
        )
    )
    parts = [
        text.rstrip(), "", "## Result", "",
        f"{score(modules):.1f} % killed (goal: {GOAL:.0f} %). {extent}", "",
        *table(modules), "", "What lived:", "",
        *[f"- {count} {reason}" for reason, count in by_reason.most_common()], "",
        "## Survivors", "",
        "By module and function: the line as it stands, then what was changed in it and no test noticed (∅: left out).",
        "",
    ]  # fmt: skip
    for module in modules:
        if module.lived:
            parts += [f"### {module.name}", "", *_listed(module, known), ""]
    return "\n".join(parts)


def _listed(module: Module, known: Reasons) -> list[str]:
    groups: dict[tuple[str, int, str], list[Mutant]] = defaultdict(list)
    for mutant, _ in module.lived:
        line = " ".join(line.strip() for line in mutant.original)
        groups[mutant.function, mutant.line, line].append(mutant)
    lines = []
    for (function, number, line), mutants in groups.items():
        by_reason: dict[str, list[str]] = defaultdict(list)
        for mutant in mutants:
            old, new = change(mutant)
            by_reason[known.of(mutant) or NO_TEST_YET].append(f"{_code(old)} → {_code(new)}")
        said = "; ".join(f"{', '.join(changes)}: {reason}" for reason, changes in by_reason.items())
        lines.append(f"- {number} `{function}` {_code(_cut(line))}: {said}")
    return lines


def _cut(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _code(text: str) -> str:
    """As code in Markdown, also with backticks in it."""
    if not text:
        return "∅"
    text = _cut(text)
    return f"`` {text} ``" if "`" in text else f"`{text}`"
