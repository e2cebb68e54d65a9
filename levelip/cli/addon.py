"""`lvlip addon`: Python files with hooks on frames and events, in the running stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from levelip.cli.common import LAYERS, Failure, LayerName, Stack, StackCommand, StackGroup, columns, elsewhere
from levelip.ipc.patience import ADDON_S


@click.group(cls=StackGroup)
def command() -> None:
    """Load Python files with hooks on frames and events into the running stack.

    A hook sees, changes, drops, delays, repeats or adds frames; docs/addons.md says how, examples/addons has some. A
    file is loaded again when it changes. One that raises is taken out and told of here; the stack goes on.

    \b
    lvlip addon load examples/addons/drop_acks.py every=10
    lvlip addon list
    lvlip addon unload drop_acks
    """


@command.command(cls=StackCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--layer", "layers", multiple=True, type=LayerName(),
    help="Only into this process. May be repeated.  [default: where its hooks have something to do]",
)  # fmt: skip
@click.pass_obj
def load(stack: Stack, file: Path, words: tuple[str, ...], layers: tuple[str, ...]) -> None:
    """Load FILE, or load it again; KEY=VALUE are its options (context.options).

    The file must belong to you or to root, and nobody else may be able to write it.

    \b
    lvlip addon load examples/addons/drop_acks.py every=10
    """
    from levelip.ipc.control import NotRunning

    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{word}: options are written KEY=VALUE")
        options[key] = value
    running = stack.need_running()
    for layer in layers:
        if layer not in running:
            raise Failure(f"{layer} is not running; see: lvlip status{stack.name_flag()}")
    path = str(file.absolute())
    loaded: dict[str, Any] = {}
    silent: list[str] = []
    for layer in LAYERS:
        if layer in (layers or running):
            try:
                answer = stack.ask(layer, "addon.load", timeout=ADDON_S, path=path, options=options)
            except NotRunning:
                silent.append(layer)
                continue
            if answer["loaded"]:
                loaded[layer] = answer["hooks"]
    if not loaded and not silent:
        raise Failure(
            f"{file} has no hook that has a place in {', '.join(layers or running)}: each names a seam (default link)"
        )
    for layer, hooks in loaded.items():
        if stack.json:
            stack.emit({"process": layer, "addon": file.stem, "hooks": hooks})
        for hook in hooks if not stack.json else ():
            click.echo(f"{file.stem} in {layer}: {hook['hook']}, {_where(hook)}")
    stack.need_answers(silent)


@command.command("list", cls=StackCommand)
@click.pass_obj
def list_(stack: Stack) -> None:
    """Show the addons that are loaded, what their hooks did, and what went wrong."""
    answers, silent = stack.ask_all("addon.list", stack.need_running())
    rows = [{"process": layer, **addon} for layer, answer in answers.items() for addon in answer["addons"]]
    if stack.json:
        for row in rows:
            stack.emit(row)
    elif rows:
        _show(rows)
    elif answers:
        click.echo(f"no addons are loaded{elsewhere(silent)}")
    stack.need_answers(silent)


def _show(rows: list[dict[str, Any]]) -> None:
    """Addons for people: a table of their hooks, what they said last, what went wrong."""
    table = []
    for row in rows:
        state = "running" if row["running"] else "out"
        if row["running"] and row["error"]:
            state = "running, as before"
        table += [
            (row["process"], row["addon"], state, hook["hook"], _where(hook), hook["calls"], _ms(hook["worst_ns"]))
            for hook in row["hooks"]
        ] or [(row["process"], row["addon"], state, "", "", "", "")]
    click.echo(columns(table, ("process", "addon", "state", "hook", "sees", "calls", "longest"), right=(5, 6)))
    for row in rows:
        for line in row["log"][-5:]:
            click.echo(f"{row['addon']} in {row['process']}: {line}")
        if row["error"]:
            doing = "runs as before, its file does not load" if row["running"] else "was taken out"
            click.echo(f"\n{row['addon']} in {row['process']} {doing}; change {row['path']} and it is tried again:")
            click.echo("\n".join(f"    {line}" for line in row["error"].splitlines()))


@command.command(cls=StackCommand)
@click.argument("names", nargs=-1, metavar="ADDON...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.pass_obj
def unload(stack: Stack, names: tuple[str, ...], every: bool) -> None:
    """Take ADDON (its name, as in `lvlip addon list`, or its file) out of the stack."""
    if bool(names) == every:
        raise click.UsageError("name the addons, or say --all")
    wanted = [Path(name).stem if name.endswith(".py") else name for name in names]
    gone: dict[str, list[str]] = {}
    answers, silent = stack.ask_all("addon.list", stack.need_running())
    for layer, answer in answers.items():
        for name in [addon["addon"] for addon in answer["addons"]]:
            if every or name in wanted:
                said = stack.ask(layer, "addon.unload", timeout=ADDON_S, addon=name)["log"][name]
                gone.setdefault(name, []).append(layer)
                for line in said if not stack.json else ():
                    click.echo(f"{name} in {layer}: {line}")
    missing = [name for name in wanted if name not in gone]
    if missing and not silent:
        raise Failure(f"no addon {', '.join(missing)} is loaded; see: lvlip addon list{stack.name_flag()}")
    if stack.json:
        for name, layers in gone.items():
            stack.emit({"addon": name, "unloaded": layers})
    else:
        for name, layers in gone.items():
            click.echo(f"{name} unloaded from {', '.join(layers)}")
        if missing:
            click.echo(f"not loaded{elsewhere(silent)}: {', '.join(missing)}")
        elif not gone and answers:
            click.echo(f"no addons were loaded{elsewhere(silent)}")
    stack.need_answers(silent)


def _where(hook: dict[str, Any]) -> str:
    expression = f": {hook['expression']}" if hook["expression"] else ""
    return f"{hook['where'].removesuffix(' both')}{expression}"


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.2f} ms" if ns else ""
