"""What documents refer to is there: files, headings of other pages, paths in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"`((?:benchmarks|docs|examples|gateway|layers|levelip|scripts|simulation|tests)/[\w./-]+)`")
PATTERNS = {"tests/scripts/RFC/SECTION-WHAT.pkt"}
"""Paths whose parts stand for others."""


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"\]\([^)]*\)|[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.strip().replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_refers_to_is_there(page: Path) -> None:
    """Links to files and to headings, and paths between backticks."""
    text = page.read_text(encoding="utf-8")
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        if "://" not in link and (not target.exists() or (heading and heading not in anchors(target))):
            missing.append(link)
    missing += [path for path in NAMED.findall(text) if path not in PATTERNS and not (ROOT / path).exists()]
    assert missing == []
