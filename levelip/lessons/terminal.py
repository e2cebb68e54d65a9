"""A lesson at a terminal: text, commands and what they say, with pauses at which the reader may type commands."""

from __future__ import annotations

import sys
from typing import Final

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax

from levelip.lessons.runner import perform
from levelip.lessons.source import PROMPTS
from levelip.lessons.ways import WorldError
from levelip.lessons.world import World

HINT: Final = "Enter goes on; a command ($ lvlip ..., ours>>> ..., peer>>> ...) is carried out"


class Terminal:
    """A `Show` for a reader. `pause`: wait for Enter before commands; `step`: before each of them."""

    def __init__(self, world: World, *, pause: bool, step: bool) -> None:
        self._world = world
        self._pause = pause or step
        self._step = step
        self._told = False
        self._console = Console(highlight=False, soft_wrap=True)

    def prose(self, text: str) -> None:
        if self._console.is_terminal:
            Console(highlight=False, width=min(self._console.width, 110)).print(Markdown(text))
            self._console.print()
        else:
            self._plain(f"{text}\n")

    def file(self, name: str, text: str) -> None:
        self._console.print(f"[bold]{name}[/]:")
        if self._console.is_terminal:
            self._console.print(Syntax(text.rstrip("\n"), "python", background_color="default"))
        else:
            self._plain("".join(f"    {line}\n" for line in text.splitlines()).rstrip("\n"))
        self._console.print()

    def question(self, text: str, answer: str) -> None:
        self.prose(f"**What do you expect?** {text}")
        if self._pause:
            click.prompt("your guess", default="", show_default=False, prompt_suffix=": ")
        self.prose(f"**Answer.** {answer}")

    def begin_session(self, *, extra: bool) -> None:
        if not extra and not self._step:
            self.wait()

    def command(self, line: str) -> None:
        if self._step:
            self.wait()
        prompt = next(prompt for prompt in PROMPTS if line.startswith(prompt))
        self._console.print(f"[green]{prompt}[/][bold]{_escape(line.removeprefix(prompt))}[/]")

    def output(self, text: str) -> None:
        if text.strip():
            self._plain(text.rstrip("\n"))

    def end_session(self, *, extra: bool) -> None:
        self._console.print()
        if extra:
            self.wait(end=True)

    def wait(self, *, end: bool = False) -> None:
        """For Enter; what is typed instead is carried out. The end of the input goes on, too."""
        while self._pause:
            if not self._told or end:
                self._console.print(f"[dim]{HINT.replace('goes on', 'ends the lesson') if end else HINT}[/]")
                self._told = True
            try:
                typed = input("  ⏎ ").strip()
            except EOFError:
                self._pause = self._step = False
                return
            if not typed:
                return
            try:
                self.output(perform(self._world, typed))
            except WorldError as error:
                self._console.print(f"[red]{_escape(str(error))}[/]")

    def _plain(self, text: str) -> None:
        """As it is: rich would wrap and colour it."""
        self._console.file.flush()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _escape(text: str) -> str:
    """For rich, that takes brackets for markup."""
    return text.replace("[", "\\[")
