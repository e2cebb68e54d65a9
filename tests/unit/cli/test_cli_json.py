"""Every command takes --json, and one that needs no stack writes one value a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import Result

from levelip.cli.main import cli


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """(words, command) of all commands, those within groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


def test_every_command_takes_json() -> None:
    without = [
        " ".join(words) for words, command in commands(cli)
        if not any("--json" in parameter.opts for parameter in command.params)
    ]  # fmt: skip
    assert without == []


@pytest.mark.parametrize(
    "words", ["config", "explain", "explain tcp_rst_outside", "doctor", "status", "list", "lesson"]
)
def test_one_value_a_line(lvlip: Callable[..., Result], words: str) -> None:
    lines = lvlip(*words.split(), "--json").stdout.splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert lines or words == "list"
