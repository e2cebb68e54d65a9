"""Every name that `why` uses can be explained, with a rule and what to do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from levelip.cli.explain import explanations, names
from levelip.debug.advice import EVENTS, REASONS, advice
from levelip.debug.findings import KINDS
from levelip.debug.rules import faults
from levelip.tracing.eventfields import EVENTS as KNOWN_EVENTS
from levelip.tracing.reasons import all_reasons, lookup

ROOT = Path(__file__).parents[3]


def test_every_name_has_a_rule_and_advice() -> None:
    """Findings, reasons and events, each by `lvlip explain NAME`."""
    for name in names():
        for row in explanations(name):
            assert row["sentence"], name
            assert row["advice"], name
            assert row["rule"] or row["kind"] == "reason", name


def test_rules_name_findings_that_are_in_the_list_and_all_of_them() -> None:
    """What the rules yield is what can be explained; nothing is in the list that no rule finds."""
    used: set[str] = set()
    for path in (ROOT / "levelip" / "debug" / "rules").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                used |= {one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)}
    used |= {"zero_window", "our_zero_window"}  # by a variable, in windows.py
    used |= {name for name, _ in faults.NAMES.values()}
    assert used == set(KINDS)


def test_consequences_and_reasons_exist() -> None:
    for kind in KINDS.values():
        assert set(kind.explains) <= set(KINDS), kind.name
    assert set(REASONS) <= {row.name for row in all_reasons()}
    assert set(EVENTS) <= set(KNOWN_EVENTS)


def test_findings_have_rules_of_rfcs_or_a_command_of_ours() -> None:
    for kind in KINDS.values():
        assert re.search(r"RFC \d+|lvlip", kind.rule), kind.name


def test_settings_that_advice_names_exist() -> None:
    """tcp.connections and the like are keys of the configuration."""
    from levelip.configfile import keys

    texts = [*REASONS.values(), *(kind.advice for kind in KINDS.values())]
    for text in texts:
        for name in re.findall(r"\b(?:tcp|ip|link|gateway|ipc)\.[a-z_]+\b", text):
            assert name in keys(), f"{name} in {text!r}"


def test_a_reason_without_a_line_of_its_own_gets_the_usual_advice() -> None:
    for name in ("ip_torn", "tcp_trimmed", "tcp_deferred"):
        reason = lookup(name)
        assert reason is not None
        assert f"reason == {name}" in advice(reason)
