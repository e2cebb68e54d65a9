"""What people read: every command line in help texts and documents can be typed, and all help texts are of one make."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from test_cli_json import commands

import simulation.replay.__main__
import simulation.script.__main__
from levelip.cli.main import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PASSED_ON = {"replay": simulation.replay.__main__.cli, "script": simulation.script.__main__.cli}
"""Commands that another program carries out, with options that lvlip itself does not know."""
PLACEHOLDER = re.compile(r"[A-Z]{2,}|\.\.\.|…|\b[A-Z]\b")
"""In such a line words stand for others, so that their values are no values."""


def everything() -> list[tuple[tuple[str, ...], click.Command]]:
    """(words, command) of all commands, each as the program that carries it out knows it."""
    found = [(words, PASSED_ON.get(words[0], command)) for words, command in commands(cli)]
    return [*found, *commands(PASSED_ON["script"], ("script",))]  # type: ignore[arg-type]


ALL = [pytest.param(words, command, id=" ".join(words)) for words, command in everything()]


def shown(text: str) -> Iterator[str]:
    """The command lines of a page: those with a prompt in its code blocks, all of a block without one, and `lvlip ...`
    (with the backticks: it may be a command's name alone)."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```|((?:^    .*\n)+)", text, re.MULTILINE | re.DOTALL)
    for block in (fenced or indented for fenced, indented in blocks):
        lines = [line.strip() for line in block.splitlines()]
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield from (line for line in prompted or lines if re.match(r"(\S+ )*?lvlip ", line))
    yield from re.findall(r"`lvlip [^`\n]+`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def calls(line: str) -> Iterator[list[str]]:
    """The words behind each `lvlip` of a command line, pipes and lists of commands taken apart, without comments."""
    line = re.sub(r" \\\| (?=--)", " ", line.strip("`"))  # one option or the other, in a table
    line = re.sub(r"(\S+?)(\\\|\S+)+", r"\1", line).replace(r" \| ", " | ")
    line = re.sub(r"\s#.*|\s{3,}.*|[\[\]]|\.{3}", "", line)
    line = re.sub(r"\s\d?>\s*\S+(?=$| [&|;])", "", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word.strip("();|&"):
            words.append(word)
            continue
        if "lvlip" in words[:4]:
            yield words[words.index("lvlip") + 1 :]
        words = []


def mistake(words: list[str], *, exact: bool, whole: bool) -> str:
    """What the command says of these words; "" if nothing. Unless `exact`, options and names of commands alone count;
    unless `whole` arguments may be missing."""
    command: click.Command = cli
    while True:
        if words and words[0] in PASSED_ON and command is cli:
            command, words = PASSED_ON[words[0]], words[1:]
        try:
            with command.make_context("lvlip", list(words)) as context:
                if not isinstance(command, click.Group):
                    return ""
                rest = [*context._protected_args, *context.args]
                if not rest:
                    return ""
                _, found, words = command.resolve_command(context, rest)
                assert found is not None
                command = found
        except click.exceptions.Exit:  # --help
            return ""
        except click.NoSuchOption as error:
            return error.format_message()
        except click.exceptions.NoArgsIsHelpError:
            return ""
        except click.UsageError as error:
            if isinstance(error, (click.MissingParameter, click.BadOptionUsage)) and not whole:
                return ""
            told = error.format_message()
            missing = "does not exist" in told or "No such file" in told  # a file of the reader's
            named = "no command" in told or "No such command" in told
            return told if (exact and not missing) or named else ""


def wrong(lines: Iterator[str]) -> list[str]:
    return [
        f"{line}: {told}"
        for line in lines
        for words in calls(line)
        if not words or not (words[0].endswith(":") or "…" in words[0])  # what lvlip says, not what is typed
        if (told := mistake(words, exact=not PLACEHOLDER.search(line), whole=not line.startswith("`")))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_of_a_page_can_be_typed(page: Path) -> None:
    """Its commands and options are there, and its values are allowed."""
    assert wrong(shown(page.read_text(encoding="utf-8"))) == []


def test_the_pages_show_command_lines() -> None:
    """The test above has something to look at."""
    lines = [line for page in PAGES for line in shown(page.read_text(encoding="utf-8"))]
    assert len([words for line in lines for words in calls(line)]) > 300


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("lvlip trace --prot 80", "No such option"),
        ("lvlip tarce | head", "no command"),
        ("lvlip held lst", "No such command"),
        ("lvlip replay DIR --whatif drop", "No such option"),
        ("lvlip stat && lvlip trace --port 0", "0 is not in the range"),
        ("lvlip trace --port PORT | head", ""),
        ("lvlip break add EXPR [--at SEAM \\| --on EVENT] [--once]", ""),
        ("ip netns exec x lvlip held list\\|show\\|edit", ""),
    ],
)
def test_a_mistake_in_a_command_line_is_found(line: str, told: str) -> None:
    """Also behind a pipe, and of what lvlip passes on."""
    found = wrong(iter([line]))
    assert bool(found) == bool(told)
    assert told in "".join(found)


@pytest.mark.parametrize(("words", "command"), ALL)
def test_help_shows_examples_that_can_be_typed(words: tuple[str, ...], command: click.Command) -> None:
    """Of each command that takes words of its own; of one in a group the group's will do."""
    text = command.help or ""
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith("lvlip ")]
    assert wrong(iter(examples)) == []
    above = dict(everything()).get(words[:-1])
    known = [*examples, *(above.help or "").splitlines()] if above is not None else examples
    takes = [one for one in command.params if not {"--name", "--run", "--json"} & set(one.opts)]
    if takes or isinstance(command, click.Group):
        assert any(" ".join(["lvlip", *words]) in line for line in known)


@pytest.mark.parametrize(("words", "command"), ALL)
def test_help_is_of_one_make(words: tuple[str, ...], command: click.Command) -> None:
    """Values have names, options say in the same words that they may be repeated, a group's list is not cut short."""
    text = command.get_help(
        click.Context(command, info_name=" ".join(words), max_content_width=200, terminal_width=200)
    )
    assert not re.search(r"INTEGER|FLOAT|TEXT\b", text), text
    assert "epeatable" not in text
    assert not re.search(r"^  \w+ .*\.\.\.$", text, re.MULTILINE), text
    for option in command.params:
        if isinstance(option, click.Option) and option.multiple and not option.hidden:
            assert "May be repeated" in (option.help or "") or "several" in (option.help or ""), option.opts
