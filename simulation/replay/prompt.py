"""The prompt of `lvlip replay -i`: a line, an answer; an empty line repeats the last command, as in gdb."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click

from simulation.replay.session import Session

HISTORY = 1000  # lines


def _history() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "level-ip" / "replay_history"


def prompt(session: Session, as_json: bool) -> None:
    """Until `quit` or the end of input."""
    with _line_editing(session):
        click.echo(f"{session.run('where').lines[0]}; help lists the commands")
        last = ""
        while True:
            try:
                line = input(session.prompt()).strip()
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                continue
            line = line or last
            if line in ("quit", "q", "exit"):
                return
            last = line
            try:
                answer = session.run(line)
            except KeyboardInterrupt:
                click.echo("interrupted; where: " + session.prompt())
                continue
            if as_json:
                click.echo(json.dumps(answer.data, ensure_ascii=False))
            elif answer.lines:
                click.echo("\n".join(answer.lines))


@contextlib.contextmanager
def _line_editing(session: Session) -> Iterator[None]:
    """History and completion, where this Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = _history()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)

    def complete(text: str, state: int) -> str | None:
        found = [f"{name} " for name in (*session.names, "quit") if name.startswith(text)]
        return found[state] if state < len(found) and readline.get_begidx() == 0 else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_history_length(HISTORY)
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(path)
            path.chmod(0o600)
