"""`lvlip explain`: what a drop reason, a finding of `lvlip why` or a kind of event means, by which rule, what to do."""

from __future__ import annotations

import difflib
from typing import Any

import click

from levelip.cli.common import Stack, StackCommand, columns
from levelip.debug.advice import EVENTS, advice
from levelip.debug.findings import KINDS
from levelip.tracing.reasons import all_reasons, lookup


@click.command(cls=StackCommand)
@click.argument("reason", required=False)
@click.pass_obj
def command(stack: Stack, reason: str | None) -> None:
    """Explain a drop reason, a finding of lvlip why, or a kind of event: what it means, the rule, what to do.

    REASON is a name as in `lvlip stat` ("drop.tcp_paws" or "tcp_paws"), in the brackets of `lvlip why`
    ("window_scale_wrong"), or an event's ("retransmit"); the layer's name before a reason may be left out ("paws").
    Without one all are listed.

    \b
    lvlip explain tcp_paws
    lvlip explain retransmit
    """
    if reason is None:
        _list(stack)
        return
    rows = explanations(reason.removeprefix("drop."))
    if not rows:
        near = difflib.get_close_matches(reason, names(), n=1, cutoff=0.5)
        raise click.UsageError(
            f"there is no reason {reason!r}" + (f"; did you mean {near[0]}?" if near else "; lvlip explain lists all")
        )
    for row in rows:
        if stack.json:
            stack.emit(row)
            continue
        click.echo(f"{row['layer'] or row['kind']}: {row['sentence']}")
        click.echo(f"rule      {row['rule'] or 'ours'}")
        if row["severity"]:
            click.echo(f"severity  {row['severity']}")
            click.echo(f"counter   {row['counter']}")
        if row["advice"]:
            click.echo(f"do        {row['advice']}")


def names() -> list[str]:
    """Everything that can be explained."""
    return [*(row.name for row in all_reasons()), *KINDS, *EVENTS]


def explanations(name: str) -> list[dict[str, Any]]:
    """What a name means: one row for each list that has it."""
    rows: list[dict[str, Any]] = []
    reason = lookup(name)
    if reason is None and name not in KINDS and name not in EVENTS:
        ends = [one for one in all_reasons() if one.name.partition("_")[2] == name]
        reason = ends[0] if len(ends) == 1 else None
    if reason is not None:
        rows.append(
            {
                "kind": "reason",
                "reason": reason.name,
                "layer": reason.layer,
                "severity": reason.severity.value,
                "sentence": reason.sentence,
                "rule": reason.rule,
                "counter": reason.counter,
                "advice": advice(reason),
            }
        )
    if name in KINDS:
        found = KINDS[name]
        rows.append(_row("finding", name, found.title, found.rule, found.advice))
    if name in EVENTS:
        rows.append(_row("event", name, *EVENTS[name], f"lvlip trace --filter 'event {name}' shows each."))
    return rows


def _row(kind: str, name: str, sentence: str, rule: str, what: str) -> dict[str, Any]:
    return {
        "kind": kind, "reason": name, "layer": "", "severity": "", "sentence": sentence, "rule": rule, "counter": "",
        "advice": what,
    }  # fmt: skip


def _list(stack: Stack) -> None:
    rows = [row for name in dict.fromkeys(names()) for row in explanations(name)]
    if stack.json:
        for row in rows:
            stack.emit(row)
        return
    columns_ = ("reason", "severity", "sentence", "rule")
    table = [(row["layer"] or row["kind"], *(row[name] for name in columns_)) for row in rows]
    click.echo(columns(table, ("layer", "reason", "severity", "means", "rule")))
