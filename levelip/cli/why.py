"""`lvlip why`: what happened to a packet or connection, and what went wrong first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from levelip.cli.common import Failure, Stack, StackCommand, interruptible
from levelip.cli.sources import flight, records, source_options

_ANEW_S = 1.0
"""How often --follow looks at what has come."""


@click.command(cls=StackCommand)
@click.argument("subject")
@source_options
@click.option("--flight", "after", is_flag=True,
              help="What has happened until now, as far back as the flight recorders of the stack reach.")  # fmt: skip
@click.option("--follow", is_flag=True, help="Tell what is found as soon as it is, and the whole story at the end.")
@click.pass_obj
def command(stack: Stack, subject: str, file: Path | None, seconds: float | None, after: bool, follow: bool) -> None:
    """Tell the story of a packet or connection, in sentences, with what went wrong first and by which rule.

    SUBJECT is a connection ("10.0.0.2:80>10.0.0.1:4711"), one end of it, an address or a port; or a frame's id, as in
    lvlip trace -v ("tcp-3fa21-77"). What is told rests on what is seen from now on, or on a trace. Exit code 0 if
    nothing is wrong, 1 if something is, or a layer did not answer.

    \b
    lvlip why 80 --seconds 10
    lvlip why 10.0.0.1:4711 --follow
    lvlip why 80 --flight                          it has happened already
    lvlip trace --json > t.jsonl   and later   lvlip why tcp-3fa21-77 --from t.jsonl
    lvlip record start DIR         and later   lvlip why 80 --from DIR
    """
    from levelip.debug.collection import Collection
    from levelip.debug.why import Unknown, is_subject, story_lines, why
    from levelip.debug.whydata import story_data

    if after and (file is not None or seconds is not None or follow):
        raise click.UsageError("--flight looks back: it goes without --from, --seconds and --follow")
    if not is_subject(subject):
        raise click.UsageError(
            f"{subject!r} is none of: a connection (10.0.0.2:80>10.0.0.1:4711), an end of it, an address, a port, the "
            "id of a frame (tcp-3fa21-77)"
        )
    collection = Collection()
    told: set[tuple[str, str, int]] = set()
    silent: list[str] = []
    looked = time.monotonic()
    with interruptible():
        for record in flight(stack, silent) if after else records(stack, file, seconds, silent=silent):
            collection.add(record)
            if follow and file is None and time.monotonic() - looked > _ANEW_S:
                _tell_new(stack, collection, subject, told)
                looked = time.monotonic()
    try:
        stories = why(collection, subject)
    except Unknown as error:
        raise Failure(str(error)) from None
    wrong = False
    for number, story in enumerate(stories):
        wrong = wrong or bool(story.findings)
        if stack.json:
            stack.emit(story_data(story))
            continue
        if number:
            click.echo("")
        for line in story_lines(story):
            click.echo(line)
    stack.need_answers(silent)
    if wrong:
        raise click.exceptions.Exit(1)


def _tell_new(stack: Stack, collection: Any, subject: str, told: set[tuple[str, str, int]]) -> None:
    from levelip.debug.why import Unknown, why
    from levelip.debug.whydata import finding_data

    try:
        stories = why(collection, subject)
    except Unknown:
        return
    for story in stories:
        for finding in story.findings:
            key = (story.subject, finding.name, finding.packet.id if finding.packet is not None else 0)
            if key in told:
                continue
            told.add(key)
            if stack.json:
                stack.emit({"subject": story.subject, **finding_data(finding)})
            else:
                where = f", first wrong packet {finding.packet.name}" if finding.packet is not None else ""
                click.echo(f"{story.subject}: {finding.kind.title}: {finding.says}{where}")
