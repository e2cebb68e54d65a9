"""Makes docs/rfc-compliance.md: each requirement, the source that meets it, the tests that prove it, or why not.

    python -m tests.rfc.compliance            writes the page (`make compliance`)
    python -m tests.rfc.compliance --check    fails if the page is not what would be written, or a row has neither

Requirements are in the .toml files beside this one, in our words. Tests say which clause they prove:
`@pytest.mark.rfc("RFC 9293 MUST-18")`, or for a packet script a line `// rfc: RFC 9293 MUST-18` in its head. A clause
is a requirement's id ("RFC 5681 3.2-3": the third of that section here), or a section ("RFC 5681 3.2"). A section
proves its row where it has one row alone; elsewhere it says where to look, and is listed at the end of the page.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from msgspec import Struct, convert

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "rfc-compliance.md"
MOST = 4
"""Tests named in a row; the others are counted."""

OPEN = "no test is marked with it, and no why_not"

CLAUSE = re.compile(r"RFC (\d{1,5})(?: (\S+))?")
NUMBERED = re.compile(r".+-\d+")
"""A clause that names one requirement, not a section."""


class Requirement(Struct, forbid_unknown_fields=True, kw_only=True):
    """One row. `where`: source files; `why_not`: the reason if it is not met; `same_as`: the row that took its place.

    `section` is left out where the id names it: "RFC 5681 3.2-3".
    """

    id: str
    level: str
    text: str
    section: str = ""
    where: list[str] = []
    why_not: str = ""
    same_as: str = ""

    def __post_init__(self) -> None:
        self.section = self.section or self.name.rpartition("-")[0]

    @property
    def rfc(self) -> str:
        return self.id.split()[1]

    @property
    def name(self) -> str:
        return self.id.split(maxsplit=2)[2]


def requirements() -> list[Requirement]:
    """All rows, in the order of the files' names and of their lines."""
    rows: list[Requirement] = []
    for path in sorted(Path(__file__).parent.glob("*.toml"), key=lambda path: (len(path.stem), path.stem)):
        with path.open("rb") as file:
            rows += convert(tomllib.load(file)["requirement"], list[Requirement])
    return rows


class Collector:
    """A pytest plugin that notes the clauses of every test; nothing runs."""

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = defaultdict(set)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Called with all tests, before any are left out."""
        for item in items:
            name = item.nodeid.partition("[")[0].removeprefix("tests/")
            for marker in item.iter_markers("rfc"):
                for clause in marker.args:
                    self.tests[clause].add(name)


def collect() -> dict[str, set[str]]:
    """Clause → names of the tests that prove it."""
    collector = Collector()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        arguments = ["--collect-only", "-q", "--all", "-p", "no:cacheprovider", str(ROOT / "tests")]
        status = pytest.main(arguments, plugins=[collector])
    if status != 0:
        print(said.getvalue()[-3000:], file=sys.stderr)
        raise SystemExit(f"compliance: pytest could not collect the tests (status {int(status)}); try make test")
    return dict(collector.tests)


def resolved(rows: list[Requirement], tests: dict[str, set[str]]) -> dict[str, set[str]]:
    """Clauses with their tests once more, and those of a section that has one row alone with that row as well."""
    by_section: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_section[f"RFC {row.rfc} {row.section}"].append(row.id)
    found: dict[str, set[str]] = defaultdict(set)
    for clause, names in tests.items():
        of_section = by_section.get(clause, [])
        found[of_section[0] if len(of_section) == 1 else clause] |= names
    return dict(found)


def final(row: Requirement, by_id: dict[str, Requirement]) -> Requirement:
    """The row itself, or the one that replaces it."""
    return by_id.get(row.same_as, row)


def mistakes(rows: list[Requirement], tests: dict[str, set[str]]) -> list[str]:
    """What is wrong with rows and marks, a sentence each."""
    found = []
    ids = [row.id for row in rows]
    by_id = {row.id: row for row in rows}
    tests = resolved(rows, tests)
    found += [f"{name} has two rows" for name in sorted({name for name in ids if ids.count(name) > 1})]
    numbered = {row.rfc for row in rows}
    for row in rows:
        if row.same_as:
            if row.same_as not in by_id or by_id[row.same_as].same_as:
                found.append(f"{row.id}: same_as names no row, or one that names another: {row.same_as}")
            continue
        if not row.why_not and not tests.get(row.id):
            found.append(f"{row.id}: {OPEN} ({row.text})")
        if row.why_not and tests.get(row.id):
            found.append(f"{row.id}: not met, says its row, but {min(tests[row.id])} is marked with it")
        if not row.why_not and not row.where:
            found.append(f"{row.id}: `where` names no source ({row.text})")
        found += [f"{row.id}: {path} is no file" for path in row.where if not (ROOT / path).is_file()]
    for clause in sorted(set(tests) - set(ids)):
        match = CLAUSE.fullmatch(clause)
        if match is None:
            found.append(f'{clause!r} is no clause ("RFC NUMBER SECTION"): {min(tests[clause])}')
        elif match[1] in numbered and match[2] and NUMBERED.fullmatch(match[2]):
            found.append(f"{clause}: no such row: {min(tests[clause])}")
    return found


def page(rows: list[Requirement], tests: dict[str, set[str]]) -> str:
    """The page in Markdown."""
    tests = resolved(rows, tests)
    by_id = {row.id: row for row in rows}
    by_rfc: dict[str, list[Requirement]] = defaultdict(list)
    for row in rows:
        by_rfc[row.rfc].append(row)
    out = [
        "# RFC compliance",
        "",
        "Made by `make compliance` from the requirements in `tests/rfc/` and the marks of the tests; CI fails when it "
        "is stale. A row has the source that meets the requirement and the tests that prove it, or the reason why not, "
        "or the row of a newer RFC that took its place. `3.2-1` is the first requirement of section 3.2.",
        "",
        "| RFC | met | not met, with the reason | open |",
        "|---|---:|---:|---:|",
    ]
    total = [0, 0, 0]
    for rfc, group in by_rfc.items():
        counts = count([final(row, by_id) for row in group], tests)
        total = [before + more for before, more in zip(total, counts, strict=True)]
        out.append(f"| [{rfc}](#rfc-{rfc}) | {counts[0]} | {counts[1]} | {counts[2]} |")
    out.append(f"| all | {total[0]} | {total[1]} | {total[2]} |")
    for rfc, group in by_rfc.items():
        out += ["", f"## RFC {rfc}", "", "| | § | | requirement | source | tests |", "|---|---|---|---|---|---|"]
        for row in group:
            where = ", ".join(f"`{path}`" for path in row.where)
            last = proof(row, by_id, tests)
            out.append(f"| {row.name} | {row.section} | {row.level} | {row.text} | {where} | {last} |")
    ids = set(by_id)
    others = sorted((clause for clause in tests if clause not in ids), key=order)
    if others:
        out += ["", "## Sections that tests name", "", "| clause | tests |", "|---|---|"]
        out += [f"| {clause} | {named(tests[clause])} |" for clause in others]
    return "\n".join(out) + "\n"


def count(group: list[Requirement], tests: dict[str, set[str]]) -> tuple[int, int, int]:
    """Rows that are met, that are not, and that are open."""
    declined = sum(bool(row.why_not) for row in group)
    met = sum(bool(tests.get(row.id)) and not row.why_not for row in group)
    return met, declined, len(group) - met - declined


def proof(row: Requirement, by_id: dict[str, Requirement], tests: dict[str, set[str]]) -> str:
    """The last column."""
    if row.same_as:
        replaced = final(row, by_id)
        met, declined, _ = count([replaced], tests)
        state = "" if met else " (*not met*)" if declined else " (**open**)"
        return f"as {replaced.id}{state}"
    return f"*not met:* {row.why_not}" if row.why_not else named(tests.get(row.id, set())) or "**none**"


def named(tests: set[str]) -> str:
    """Some of the tests by name, the shortest first."""
    names = sorted(tests, key=lambda name: (len(name), name))
    shown = ", ".join(f"`{name}`" for name in names[:MOST])
    return f"{shown} and {len(names) - MOST} more" if len(names) > MOST else shown


def order(clause: str) -> list[tuple[int, int, str]]:
    """Numbers in a clause sort as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[^\d\s.]+", clause)]


def main(argv: list[str]) -> int:
    """0; with --check 1 if something is missing or stale."""
    parser = argparse.ArgumentParser(prog="compliance", description="makes docs/rfc-compliance.md")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale or a row is open")
    parser.add_argument("--allow-open", action="store_true", help="with --check: rows without a test are no failure")
    arguments = parser.parse_args(argv)
    check: bool = arguments.check
    rows, tests = requirements(), collect()
    found = mistakes(rows, tests)
    if arguments.allow_open:
        found = [line for line in found if OPEN not in line]
    text = page(rows, tests)
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            found.append(f"{PAGE.relative_to(ROOT)} is stale: run make compliance")
    else:
        PAGE.write_text(text, encoding="utf-8")
        print(f"compliance: {PAGE.relative_to(ROOT)}: {len(rows)} requirements, {len(tests)} clauses with tests")
    for line in found:
        print(f"compliance: {line}", file=sys.stderr)
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
