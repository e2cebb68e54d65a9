"""What every `lvlip` command shares: which stack is meant, --json, and how failures are told.

A command module `levelip/cli/VERB.py` holds a click command named `command`, made with `StackCommand` (or
`StackGroup`), and takes a `Stack` by `@click.pass_obj`. Heavy imports belong inside functions: `lvlip --help` is fast.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from levelip.ipc.patience import ANSWER_S

if TYPE_CHECKING:
    from levelip.ipc.control import ControlClient
    from levelip.ipc.rundir import RunDirectory

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
LAYERS = ("link", "ip", "tcp", "udp", "gateway")
Asked = tuple[dict[str, dict[str, Any]], list[str]]
"""Layers' answers, and the layers that did not answer."""
_WHOLE = 1000
"""Characters: more than any first sentence of a help has."""


class Failure(click.ClickException):
    """One clear line: what failed and what to do. Exit code 1."""

    exit_code = EXIT_FAILED

    def show(self, file: Any = None) -> None:
        click.echo(f"lvlip: {self.format_message()}", file=file or sys.stderr)


class Number(click.IntRange):
    """An integer within limits; click says of what is none that it is "not a valid integer range"."""

    name = "integer"


class Seconds(click.FloatRange):
    """A number of seconds within limits. click takes `nan`, which is beyond no limit and after which nothing ever ends,
    and `inf`."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return number


@dataclass
class Stack:
    """Which stack a command is for, and how to print."""

    name: str | None = None
    root: str | None = None
    json: bool = False
    tool: str = ""  # how a debugger calls itself that runs several commands; empty: each by its own name
    alone: bool = False  # this process is the command's alone: another program may take its place
    _run: RunDirectory | None = field(default=None, repr=False)

    @property
    def run(self) -> RunDirectory:
        """Its run directory, which need not exist."""
        if self._run is None:
            from levelip.ipc.rundir import RunDirectory

            try:
                self._run = RunDirectory(self.name, self.root)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
        return self._run

    def running(self) -> list[str]:
        """The layers that run now, from the lowest."""
        return [layer for layer in LAYERS if self.run.holder(layer) is not None]

    def need_running(self) -> list[str]:
        """As `running`; Failure if there are none."""
        layers = self.running()
        if not layers and self.run.path.exists() and not os.access(self.run.path, os.R_OK | os.X_OK):
            raise Failure(f"{self.run.path} may not be read: stack {self.run.name!r} is another user's")
        if not layers:
            raise Failure(f"stack {self.run.name!r} is not running; start it with: lvlip up{self.name_flag()}")
        return layers

    def client(self, layer: str, *, timeout: float | None = None) -> ControlClient:
        """The control socket of a layer that runs; Failure at once if it does not."""
        from levelip.ipc.control import ControlClient

        if self.run.holder(layer) is None:
            self.need_running()
            raise Failure(f"{layer} of stack {self.run.name!r} is not running; see: lvlip status{self.name_flag()}")
        return ControlClient(self.run, layer, timeout=ANSWER_S if timeout is None else timeout)

    def ask(self, layer: str, request: str, *, timeout: float | None = None, **args: Any) -> dict[str, Any]:
        """One request to a layer, and its answer."""
        client = self.client(layer, timeout=timeout)
        try:
            return client.request(request, **args)
        finally:
            client.close()

    def ask_all(self, request: str, layers: Iterable[str], **args: Any) -> Asked:
        """One request to several layers that run, at once: (their answers, from the lowest; those that are silent)."""
        from levelip.ipc.control import ControlClient, ask_all

        clients = {layer: ControlClient(self.run, layer) for layer in layers}
        try:
            return ask_all(clients, request, lambda _: ANSWER_S, **args)
        finally:
            for client in clients.values():
                client.close()

    def need_answers(self, silent: Iterable[str]) -> None:
        """Failure, which names them, if there are layers that were silent: at the end, once the others are shown."""
        from levelip.debug.tap import silent_text

        if names := [layer for layer in LAYERS if layer in set(silent)]:
            raise Failure(f"{silent_text(names)}{self.name_flag()}")

    @contextlib.contextmanager
    def answers_needed(self, silent: Sequence[str]) -> Iterator[None]:
        """The same at the end of a block, also of one that Ctrl-C ends; `silent` is filled meanwhile."""
        try:
            yield
        except KeyboardInterrupt:
            self.need_answers(silent)
            raise
        self.need_answers(silent)

    def name_flag(self) -> str:
        """What to add to a command that we tell people to type."""
        default = os.environ.get("LEVELIP_NAME") or "level-ip"
        return f" --name {self.run.name}" if self.run.name != default else ""

    def emit(self, data: Any) -> None:
        """One JSON value on a line."""
        click.echo(json.dumps(plain(data), ensure_ascii=False))

    def tell(self, text: str) -> None:
        """A line for the person who waits; nothing with --json."""
        if not self.json:
            click.echo(text, err=True)


@contextlib.contextmanager
def means_something(*refusals: type[Exception]) -> Iterator[None]:
    """Words of the command line are read here: one of these exceptions says that they mean nothing, whatever the stack
    does, which is wrong usage."""
    try:
        yield
    except refusals as error:
        raise click.UsageError(str(error)) from None


def until_text(seconds: float | None) -> str:
    """How long is listened."""
    return f"for {seconds:g} s" if seconds is not None else "end with Ctrl-C"


def elsewhere(silent: Sequence[str]) -> str:
    """What to say behind "there are none" where not all layers answered."""
    return " in the other layers" if silent else ""


def plain(data: Any) -> Any:
    """As JSON can say it: bytes become hex."""
    if isinstance(data, (bytes, bytearray)):
        return data.hex()
    if isinstance(data, dict):
        return {str(name): plain(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    return data


def _option(name: str) -> Any:
    def store(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        stack = context.ensure_object(Stack)
        if value is not None and value is not False:
            setattr(stack, name, value)

    return store


def stack_options() -> list[click.Option]:
    """--name, --run and --json, which every command takes; a later one wins."""
    return [
        click.Option(
            ["--name"], metavar="NAME", expose_value=False, callback=_option("name"),
            help="The stack's name (LEVELIP_NAME; default level-ip).",
        ),
        click.Option(
            ["--run"], metavar="DIR", expose_value=False, callback=_option("root"),
            help="Directory that holds run directories (LEVELIP_RUN).",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_option("json"), help="JSON, one value a line."
        ),
    ]  # fmt: skip


class _InWhole:
    """A command whose group shows the first sentence of its help in whole; click cuts it to one line."""

    def get_short_help_str(self, limit: int = 45) -> str:
        del limit
        return super().get_short_help_str(_WHOLE)  # type: ignore[misc, no-any-return]


class StackCommand(_InWhole, click.Command):
    """A command that takes --name, --run and --json."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(stack_options())

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; settings that are wrong on the command line alone are wrong usage."""
        from levelip.configfile import FLAG, ConfigError

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            if any(problem.source != FLAG for problem in error.problems):
                raise
            raise click.UsageError(str(error), ctx) from None


class StackGroup(_InWhole, click.Group):
    """A group of commands that take --name, --run and --json, as it does itself."""

    command_class = StackCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(stack_options())


class LayerName(click.Choice[str]):
    """A layer's name; comma-separated where several are meant."""

    def __init__(self) -> None:
        super().__init__(LAYERS)


def columns(rows: Sequence[Sequence[Any]], header: Sequence[str], *, right: Iterable[int] = ()) -> str:
    """Rows under a header in aligned columns, as ss and ip print them; `right`: columns aligned to the right."""
    right = set(right)
    table = [list(header), *[["" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def colourless() -> bool:
    """Whether escapes are not wanted though the output is a terminal (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def exit_code(run: Callable[[], Any], *, name: str = "lvlip", failed: int = EXIT_FAILED) -> int:
    """Run a click program, which was told not to be standalone; its exit code, which may be what it returned.

    Ctrl-C is 130 and a closed pipe 141, both in silence; an error of the system is one line behind `name`, and the code
    `failed`.
    """
    out = sys.stdout
    try:
        result = run()
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except OSError as error:
        click.echo(f"{name}: {error.filename or ''}{': ' if error.filename else ''}{error.strerror or error}", err=True)
        return failed
    except SystemExit as error:
        if sys.stdout is not out:  # click puts another there, and exits with 1, where a pipe is closed
            return _closed_pipe()
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return result if isinstance(result, int) else 0


def _closed_pipe() -> int:
    """What is still in the buffer goes nowhere: `lvlip explain | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that it cleans up and writes what it holds; and so does SIGINT where
    the command is a background job of a script, which begins with it ignored."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are noted, for a loop that asks whether to end, so that none breaks in on what it has to do
    with what it has taken; a second one ends the command at once."""
    noted: list[int] = []

    def note(number: int, _frame: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended_by_interrupts() -> Iterator[Callable[[], bool]]:
    """As noted_interrupts, of a command that only they end: after the block one that was noted is KeyboardInterrupt, so
    that the exit code says so."""
    with noted_interrupts() as over:
        yield over
        if over():
            raise KeyboardInterrupt


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done: what is written there is written whole, and once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def alive(pid: int) -> bool:
    """Whether a process of that id exists (it may be a zombie of another's)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - a hot wait loop
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
