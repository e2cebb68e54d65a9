"""The prompt of `lvlip debug`: lvlip's own commands, gdb's short forms of them, completion, history, scripts.

A line is carried out by the same click commands as at the shell, so that options, help and output are the same; their
completion is click's. The line editor is readline: gdb's habit, where `continue` waits at the terminal until the stack
stops or Ctrl-C holds it, needs no more of a library.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from levelip.cli.common import Failure, Seconds, Stack
from levelip.ipc.control import ControlError

try:
    import readline
except ImportError:  # a Python without it: the prompt works, without editing and completion
    readline = None  # type: ignore[assignment]

PROMPT = "(lvlip) "
HISTORY = "debug_history"
_HISTORY_LINES = 2000
_WAIT_S = 3600.0
_DEEPEST = 16  # files that carry out each other

ALIASES: dict[str, tuple[str, ...]] = {
    "s": ("step",),
    "tb": ("tbreak",),
    "b": ("break",),
    "c": ("continue",),
    "d": ("break", "remove"),
    "delete": ("break", "remove"),
    "enable": ("break", "enable"),
    "disable": ("break", "disable"),
    "l": ("held", "list"),
    "list": ("held", "list"),
    "p": ("held", "show"),
    "print": ("held", "show"),
    "show": ("held", "show"),
    "edit": ("held", "edit"),
    "drop": ("held", "drop"),
    "dup": ("held", "dup"),
    "delay": ("held", "delay"),
    "move": ("held", "move"),
    "release": ("held", "release"),
    "q": ("quit",),
    "exit": ("quit",),
}
INFO: dict[str, tuple[str, ...]] = {
    "breakpoints": ("break", "list"),
    "held": ("held", "list"),
    "frames": ("held", "list"),
    "sockets": ("ss",),
    "status": ("status",),
    "faults": ("fault", "show"),
}
OWN = ("break", "tbreak", "continue", "help", "info", "quit", "source")
_BREAK_VERBS = ("add", "list", "remove", "enable", "disable")
_BREAK_OPTION = re.compile(r"(?:^|\s)--(?:(once)|(at|on|after)(?:\s+|=)(\S+))(?=\s|$)")
_HELP = """\
stop      hold [LAYER|SEAM]   continue, c [SECONDS | &]   step, s [N|FRAME|--timer|--at SEAM]   Ctrl-C holds
at        break, b [EXPR] [--at SEAM] [--on EVENT] [--once] [--after N]   tbreak, tb EXPR   info breakpoints
          delete, d NUMBER   enable NUMBER   disable NUMBER
held      list, l [LAYER|SEAM]   print, p FRAME   edit FRAME FIELD=VALUE...   drop, dup, release FRAME
          delay FRAME TIME   move FRAME first|last|PLACE
packets   inject SEAM:WAY LINE --conn LOCAL:PORT>REMOTE:PORT
look      info breakpoints|held|sockets|status|faults   and every command of lvlip: ss -ti, stat, fault, explain, ...
prompt    source FILE   help COMMAND   quit, q      an empty line does the last one again; words may be shortened"""


class Prompt:
    """One session. `over` after `quit`."""

    def __init__(self, stack: Stack) -> None:
        from levelip.cli.main import COMMANDS

        self._stack = stack
        self._verbs = [name for section in COMMANDS.values() for name in section if name != "debug"]
        self._last = ""
        self._found: list[str] = []
        self._depth = 0
        self.over = False

    # input

    def talk(self) -> bool:
        """Ask until `quit` or the end of input; False if input that comes from no terminal had a command that failed.
        """
        terminal = sys.stdin.isatty()
        if not terminal:
            return self._lines(sys.stdin)
        self._say_state()
        with self._editing():
            while not self.over:
                try:
                    line = input(PROMPT)
                except EOFError:
                    click.echo()
                    self._quit()
                    break
                except KeyboardInterrupt:
                    click.echo()
                    self.carry_out("hold")
                    continue
                self.carry_out(line or self._last)
        return True

    def source(self, path: Path) -> bool:
        """Carry out a file's commands, up to the first that fails; whether none did."""
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "is no text"
            click.echo(f"lvlip: {path}: {what}", err=True)
            return False
        if self._depth == _DEEPEST:
            raise Failure(f"{path}: {_DEEPEST} files carry out each other already")
        self._depth += 1
        try:
            return self._lines(lines)
        finally:
            self._depth -= 1

    def _lines(self, lines: Iterable[str]) -> bool:
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            if not self.carry_out(text, echo=True):
                return False
            if self.over:
                break
        return True

    def close(self) -> None:
        """Say that the stack stays held, if it does."""
        from levelip.cli.debugtext import debugging

        with contextlib.suppress(Exception), debugging(self._stack, tool="lvlip debug") as debugger:
            if debugger.state().mine:
                flag = self._stack.name_flag()
                click.echo(f"the stack stays held; let it go on with: lvlip continue{flag}", err=True)

    # commands

    def carry_out(self, line: str, *, echo: bool = False) -> bool:
        """Carry out one line; whether it succeeded. Errors are told, and end nothing."""
        line = line.strip()
        if not line:
            return True
        if echo and not self._stack.json:
            click.echo(f"{PROMPT}{line}")
        self._last = line
        try:
            return self._run(line)
        except click.exceptions.Exit as error:
            return error.exit_code == 0
        except click.ClickException as error:
            error.show()
        except ControlError as error:
            Failure(str(error)).show()
        except KeyboardInterrupt:
            click.echo()
        except click.Abort:
            pass
        except OSError as error:
            click.echo(f"lvlip: {error.filename or ''} {error.strerror or error}", err=True)
        return False

    def _run(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        words = self.expand(word)
        if words[0] in ("break", "tbreak") and len(words) == 1 and rest.split(" ")[0] not in _BREAK_VERBS:
            return self._break(rest, once=words[0] == "tbreak")
        if words == ("continue",):
            return self._continue(rest)
        if words == ("help",):
            return self._help(rest)
        if words == ("quit",):
            self._quit()
            return True
        if words == ("source",):
            return self.source(Path(rest).expanduser())
        if words == ("info",):
            topic = self._one_of(rest.split(" ")[0], list(INFO), "info")
            return self._click([*INFO[topic], *self._split(rest)[1:]])
        return self._click([*words, *self._split(rest)])

    def expand(self, word: str) -> tuple[str, ...]:
        """A word as it is meant: an alias, a command, or the beginning of one only."""
        if word in ALIASES:
            return ALIASES[word]
        if word in OWN or word in self._verbs:
            return (word,)
        found = self._one_of(word, [*ALIASES, *OWN, *self._verbs], "")
        return ALIASES.get(found, (found,))

    def _one_of(self, word: str, names: list[str], what: str) -> str:
        if word in names:
            return word
        found = sorted({name for name in names if name.startswith(word) and len(name) > 2}) if word else []
        if len(found) == 1:
            return found[0]
        if found:
            raise Failure(f"{word!r} may be {', '.join(found)}")
        if what:
            raise Failure(f"{what} knows {', '.join(names)}")
        raise Failure(f"there is no command {word!r}; see: help")

    @staticmethod
    def _split(text: str) -> list[str]:
        try:
            return shlex.split(text)
        except ValueError as error:
            raise Failure(f"{text}: {error}") from None

    def _click(self, words: list[str]) -> bool:
        """As `lvlip WORDS` for this stack, in this process."""
        from levelip.cli.main import cli

        obj = Stack(self._stack.name, self._stack.root, self._stack.json, "lvlip debug")
        result = cli.main(words, "", standalone_mode=False, obj=obj)
        return not isinstance(result, int) or isinstance(result, bool) or result == 0

    def _break(self, text: str, *, once: bool) -> bool:
        """The expression as it is typed, quotes and all; options may stand before or after it."""
        return self._click(["break", "add", *(["--once"] if once else []), *break_words(text)])

    def _continue(self, rest: str) -> bool:
        """Go on, and wait until the stack stops; Ctrl-C holds it. `&`: do not wait; a number: so many seconds."""
        from levelip.cli.debugtext import as_json, debugging, state_lines

        seconds = _WAIT_S
        if rest == "&" or rest.startswith("-"):
            return self._click(["continue", *([] if rest == "&" else self._split(rest))])
        if rest:
            try:
                seconds = Seconds(min=0).convert(rest, None, None)
            except click.BadParameter:
                raise Failure(f"continue takes a number of seconds, or &, not {rest!r}") from None
        with debugging(self._stack, tool="lvlip debug") as debugger:
            try:  # Ctrl-C may come as soon as the stack goes on
                if debugger.state().held:
                    debugger.resume()
                state = debugger.wait_for_stop(seconds)
            except KeyboardInterrupt:
                click.echo()
                state = debugger.hold()
            if state is None:
                raise Failure(f"nothing stopped the stack within {seconds:g} s; it runs")
            if self._stack.json:
                self._stack.emit(as_json(state))
            else:
                click.echo("\n".join(state_lines(state, self._stack.run.name)))
        return True

    def _help(self, rest: str) -> bool:
        if not rest:
            click.echo(_HELP)
            return True
        words = [*self.expand(rest.split(" ", maxsplit=1)[0]), *rest.split(" ")[1:]]
        if words[0] == "tbreak":
            words = ["break", "add"]
        if words[0] in ("help", "info", "quit", "source"):
            click.echo(_HELP)
            return True
        return self._click([*words, "--help"])

    def _quit(self) -> None:
        """Ask at a terminal what is to become of a held stack."""
        from levelip.cli.debugtext import debugging

        self.over = True
        if not sys.stdin.isatty():
            return
        if readline is not None:
            readline.set_auto_history(False)  # the answer is no command
        with contextlib.suppress(Exception), debugging(self._stack, tool="lvlip debug") as debugger:
            if debugger.state().mine and click.confirm("The stack is held. Let it go on?", default=True):
                debugger.resume()

    def _say_state(self) -> None:
        from levelip.cli.debugtext import debugging, state_lines

        with debugging(self._stack, tool="lvlip debug") as debugger:
            click.echo("\n".join(state_lines(debugger.state(), self._stack.run.name)))
        click.echo("Ctrl-C holds it; help lists the commands")

    # the line editor

    @contextlib.contextmanager
    def _editing(self) -> Iterator[None]:
        """Completion and history while the prompt is open."""
        if readline is None:
            yield
            return
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(home) / "level-ip" / HISTORY
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        readline.set_history_length(_HISTORY_LINES)
        readline.set_completer(self.complete)
        readline.set_completer_delims(" \t\n")
        readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                readline.write_history_file(path)
                path.chmod(0o600)

    def complete(self, text: str, state: int) -> str | None:
        """readline's question: the `state`th completion of the word that is being typed."""
        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            try:
                self._found = self.completions(line[: len(line) - len(text)], text)
            except Exception:  # a completion must not spoil the line
                self._found = []
        return self._found[state] if state < len(self._found) else None

    def completions(self, before: str, text: str) -> list[str]:
        """What the word `text` behind `before` may become."""
        from click.shell_completion import ShellComplete

        from levelip.cli.main import cli

        words = before.split()
        if not words:
            names = sorted({*ALIASES, *OWN, *self._verbs})
            return [f"{name} " for name in names if name.startswith(text) and len(name) > 2]
        expanded = self.expand(words[0])
        if expanded == ("info",):
            return [name for name in INFO if name.startswith(text)]
        rest = words[1:]
        if expanded[0] in ("break", "tbreak") and len(expanded) == 1 and (not rest or rest[0] not in _BREAK_VERBS):
            expanded = ("break", "add")
            if not rest or not rest[-1].startswith("--"):  # words of the expression
                rest = [word for word in rest if word.startswith("--")]
        obj = {"obj": Stack(self._stack.name, self._stack.root)}
        found = ShellComplete(cli, obj, "lvlip", "_LVLIP_COMPLETE").get_completions([*expanded, *rest], text)
        names = [item.value for item in found]
        return [name if name.endswith("=") else f"{name} " for name in names]


def break_words(text: str) -> list[str]:
    """The arguments of `break add` in an expression that is typed without quotes, with options around it."""
    words: list[str] = []
    for match in _BREAK_OPTION.finditer(text):
        words += ["--once"] if match[1] else [f"--{match[2]}", match[3]]
    expression = _BREAK_OPTION.sub("", text).strip()
    if len(expression) > 1 and expression[0] == expression[-1] == "'":
        expression = expression[1:-1]
    return [*words, *(["--", expression] if expression else [])]
