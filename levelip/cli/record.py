"""`lvlip record`: what enters every layer, recorded into a directory, one file a process, for `lvlip replay`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from levelip.cli.common import LAYERS, Failure, Stack, StackCommand, StackGroup, columns


@click.group(cls=StackGroup)
def command() -> None:
    """Record what enters every layer, so that `lvlip replay` can run it again.

    A recording holds a snapshot of each layer and every call since, with secrets and what programs sent and received
    (without --whole the first 128 bytes of each payload): its files have mode 0600. The flight recorder always keeps
    the newest calls in memory (stack.flight_recorder_mib a process); `dump` writes them, and a process that crashes or
    is killed leaves them in RUN/crash.

    \b
    lvlip record start /tmp/rec
    lvlip record status
    lvlip record stop
    lvlip record dump /tmp/before --layer tcp
    lvlip replay /tmp/rec
    """


def _layers(stack: Stack, chosen: tuple[str, ...]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for words in chosen for name in words.split(",")))
    if unknown := [name for name in names if name not in LAYERS]:
        raise click.UsageError(f"there is no layer {unknown[0]!r}; there are {', '.join(LAYERS)}")
    running = stack.need_running()
    if not chosen:
        return running
    if missing := [name for name in names if name not in running]:
        raise Failure(f"not running: {', '.join(missing)}; there runs {', '.join(running)}")
    return names


@contextlib.contextmanager
def _directory(text: str) -> Iterator[Path]:
    """The directory of that name. Where what is to be written there fails, those that it took anew are gone again, as
    long as nothing is in them."""
    path = Path(text).absolute()
    new = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise Failure(f"{path} is no directory") from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    try:
        yield path
    except BaseException:
        with contextlib.suppress(OSError):
            for one in new:
                one.rmdir()
        raise


_layers_option = click.option(
    "--layer", "--layers", "layers", multiple=True, metavar="LAYER",
    help=f"Only this one ({', '.join(LAYERS)}), or several with commas. May be repeated.",
)  # fmt: skip
_force = click.option("--force", is_flag=True, help="Write over recordings that are there.")


@command.command(cls=StackCommand)
@click.argument("directory", metavar="DIR")
@_layers_option
@click.option("--whole", is_flag=True, help="Keep payloads that pass through a layer whole, not their first bytes.")
@click.option("--events/--no-events", default=True,
              help="Hold what the layers decide against the replay too; without, replay makes the events itself and "
              "only frames are compared.  [default: events]")  # fmt: skip
@_force
@click.pass_obj
def start(stack: Stack, directory: str, layers: tuple[str, ...], whole: bool, events: bool, force: bool) -> None:
    """Record from now on into DIR/LAYER.rec, until `lvlip record stop`."""
    names = _layers(stack, layers)
    begun: list[str] = []
    with _directory(directory) as path:
        try:
            for name in names:
                file = str(path / f"{name}.rec")
                stack.ask(name, "record.start", file=file, whole=whole, events=events, overwrite=force)
                begun.append(name)
        except Exception as error:
            for name in begun:
                with contextlib.suppress(Exception):
                    stack.ask(name, "record.stop")
                    (path / f"{name}.rec").unlink()
            raise Failure(f"{error}{'; nothing is recorded' if begun else ''}") from None
    if stack.json:
        stack.emit({"directory": str(path), "layers": names})
        return
    click.echo(f"recording {', '.join(names)} into {path}; end with: lvlip record stop{stack.name_flag()}")


@command.command(cls=StackCommand)
@click.pass_obj
def stop(stack: Stack) -> None:
    """End the recording."""
    statuses, silent = stack.ask_all("record.status", stack.need_running())
    files = [name for name, status in statuses.items() if status["file"]]
    if not files and not silent:
        reasons = [status["ended"] for status in statuses.values() if status["ended"]]
        nothing = f"nothing is recorded; begin with: lvlip record start{stack.name_flag()} DIR"
        raise Failure("; ".join(reasons) or nothing)
    for name in files:
        stack.ask(name, "record.stop")
    _finish(stack, files, silent)


@command.command(cls=StackCommand)
@click.argument("directory", metavar="DIR")
@_layers_option
@_force
@click.pass_obj
def dump(stack: Stack, directory: str, layers: tuple[str, ...], force: bool) -> None:
    """Write what the flight recorder holds, the newest calls of each layer, into DIR/LAYER.rec."""
    names = _layers(stack, layers)
    with _directory(directory) as path:
        there, silent = stack.ask_all("record.status", names)
        for name in there:
            stack.ask(name, "record.dump", file=str(path / f"{name}.rec"), overwrite=force)
        if not there:
            stack.need_answers(silent)
    _finish(stack, list(there), silent)


def _finish(stack: Stack, names: list[str], silent: list[str]) -> None:
    """Wait until all is written; what was. Failure for what could not be, and if there were silent layers."""
    from levelip.debug.flight import written

    failed = []
    for name in names:
        writing = written(stack.ask, name)
        if stack.json:
            stack.emit({"layer": name, **writing})
        elif not writing["error"]:
            click.echo(f"{name}: {_size(writing['bytes'])} in {writing['path']}")
        if writing["error"]:
            failed.append(f"{name}: {writing['error']}")
    if failed:
        raise Failure("; ".join(failed))
    stack.need_answers(silent)


@command.command(cls=StackCommand)
@click.pass_obj
def status(stack: Stack) -> None:
    """Show what is recorded, and what the flight recorders hold."""
    answers, silent = stack.ask_all("record.status", stack.need_running())
    rows = [{"layer": name, **answer} for name, answer in answers.items()]
    if stack.json:
        for row in rows:
            stack.emit(row)
    elif rows:
        _show(rows)
    stack.need_answers(silent)


def _show(rows: list[dict[str, Any]]) -> None:
    """What is recorded, for people."""
    table = []
    for row in rows:
        flight, file = row["flight"], row["file"]
        ring = f"{_size(flight['bytes'])} of {flight['limit'] >> 20} MiB"
        if not flight["on"]:
            ring = flight["failure"] or "off"
        into = f"{file['path']}, {_size(file['bytes'])}" if file else row["ended"] or "-"
        table.append((row["layer"], row["calls"], ring, into))
    click.echo(columns(table, ("layer", "calls", "flight recorder", "file"), right=(1,)))


def _size(size: int) -> str:
    if size >= 1 << 20:
        return f"{size / (1 << 20):.1f} MiB"
    return f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} B"
