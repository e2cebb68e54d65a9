"""`python -m simulation.script`, which `lvlip script` starts: run, check and record packet scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from levelip.cli.common import Failure, Number, Seconds, Stack, exit_code
from levelip.wire.addr import parse_ipv4
from simulation.script.answers import COMMANDS, SYSCTLS, World, take_option
from simulation.script.calls import Calls
from simulation.script.language import Option, Script, ScriptError
from simulation.script.parse import parse
from simulation.script.report import as_data, error_text, failure_text, summary_line, trace_text
from simulation.script.run import Result, check, run

FAILED, WRONG = 1, 2
_FILES = click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))


def scripts_of(paths: Sequence[Path]) -> list[Path]:
    """The files named, and of each directory all scripts in it."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*.pkt")) if path.is_dir() else [path]
        if not inside:
            raise click.UsageError(f"there is no .pkt file in {path}")
        found += inside
    return found


def load(path: Path, defines: dict[str, str] | None = None) -> Script:
    """Read and parse. ScriptError if it is not UTF-8 either."""
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScriptError(f"no UTF-8 text: {error}") from None
    return parse(source, str(path), defines)


def pairs(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options as a mapping."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param=parameter)
        found[name] = text
    return found


def address_of(_context: click.Context, parameter: click.Parameter, value: str | None) -> bytes:
    """An IPv4 address, packed; empty: none is given."""
    if value is None:
        return b""
    try:
        return parse_ipv4(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no IPv4 address, as 10.0.0.2", param=parameter) from None


def options_of(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Option]:
    """--option name=value of the command line, checked."""
    found = []
    for value in values:
        name, equals, text = value.removeprefix("--").partition("=")
        option = Option(name, text if equals else None, 0, 0)
        try:
            take_option(World(), option)
        except ScriptError as error:
            raise click.BadParameter(error.message, param=parameter) from None
        found.append(option)
    return found


def _list_commands(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    click.echo("system calls:\n  " + " ".join(Calls.names()))
    click.echo("commands:\n  " + "\n  ".join(COMMANDS))
    click.echo("sysctls:")
    for name, row in sorted(SYSCTLS.items()):
        click.echo(f"  {name}" + (f"  (no effect: {row.note})" if row.note else ""))
    context.exit()


class WithScriptOptions(click.Command):
    """A command that takes the options of a script's head as they are written there, and as packetdrill takes them:
    --mtu=1280 for --option mtu=1280."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Those that are not the command's own become values of --option, unless they are an option's value already."""
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        own = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        with_value = {name for option in options if not option.is_flag for name in option.opts}
        words: list[str] = []
        value = False  # the word before takes this one
        for position, word in enumerate(args):
            if word == "--" and not value:
                words += args[position:]
                break
            theirs = not value and word.startswith("--") and word.partition("=")[0] not in own
            words += ["--option", word] if theirs else [word]
            value = not value and word in with_value
        return super().parse_args(ctx, words)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--list-commands", is_flag=True, is_eager=True, expose_value=False, callback=_list_commands,
              help="List the system calls, commands and sysctls that scripts can use.")  # fmt: skip
def cli() -> None:
    """Run packet scripts: packetdrill's language over the stack's cores, in one process and in virtual time.

    See docs/packet-scripts.md. Code between %{ and }% is Python and runs as you: run scripts that you trust.

    \b
    lvlip script run tests/scripts/linux
    lvlip script check handshake.pkt
    lvlip script record capture.pcapng -o handshake.pkt --port 80
    """


@cli.command("run", cls=WithScriptOptions)
@_FILES
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", callback=pairs,
              help="A setting of the stack, whatever the script says of it. May be repeated.")  # fmt: skip
@click.option("-D", "--define", "defines", multiple=True, metavar="NAME=VALUE", callback=pairs,
              help="A symbol of the script. May be repeated.")  # fmt: skip
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", callback=options_of,
              help="An option as in the script's head, such as mtu=1280; the script's own come after it. --mtu=1280 is "
              "the same. May be repeated.")  # fmt: skip
@click.option("--strict/--lax", default=None,
              help="Whether packets that are left at the end are a failure (default: a warning, as packetdrill does "
              "not look; --strict in the script's head says so too).")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show every packet, call and decision.")
@click.option("--json", "as_json", is_flag=True, help="JSON, one value a script.")
@click.option("--list-commands", is_flag=True, is_eager=True, expose_value=False, callback=_list_commands,
              help="List the system calls, commands and sysctls that scripts can use.")  # fmt: skip
def run_(
    files: tuple[Path, ...], settings: dict[str, str], defines: dict[str, str], options: list[Option],
    strict: bool | None, verbose: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run scripts; of a directory, all .pkt files in it.

    Exit status 0: all passed; 1: an expectation was not met; 2: a script has an error.
    """
    began = time.perf_counter()
    results = []
    paths = scripts_of(files)
    for path in paths:
        result = _run_one(path, defines, settings=settings, options=options, strict=strict)
        results.append(result)
        _show(result, verbose=verbose, as_json=as_json)
    if len(paths) > 1 and not as_json:
        counts = [sum(result.status == status for result in results) for status in (0, FAILED, WRONG)]
        refused = sum(result.refused for result in results)
        counts[-1:] = [refused, counts[-1] - refused]
        words = zip(counts, ("passed", "failed", "refused", "in error"), strict=True)
        parts = [f"{count} {word}" for count, word in words if count]
        simulated = sum(result.simulated_ns for result in results) / 1e9
        took = time.perf_counter() - began
        click.echo(f"{len(results)} scripts: {', '.join(parts)}; {simulated:.1f} s simulated in {took:.2f} s")
    sys.exit(max(result.status for result in results))


def _run_one(path: Path, defines: dict[str, str], **how: Any) -> Result:
    try:
        script = load(path, defines)
    except ScriptError as error:
        source = path.read_text(encoding="utf-8", errors="replace")
        return Result(Script(str(path), source, (), ()), error=error)
    return run(script, **how)


def _show(result: Result, *, verbose: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(as_data(result, verbose=verbose), ensure_ascii=False))
        return
    click.echo(summary_line(result))
    for warning in result.warnings:
        click.echo(f"        {warning}")
    if result.error is not None:
        click.echo(error_text(result.script.path, result.script, result.error), err=True)
    elif result.failure is not None:
        click.echo(failure_text(result, verbose=verbose))
    elif verbose:
        click.echo(trace_text(sorted(result.trace, key=lambda line: line.at)))


@cli.command("check")
@_FILES
@click.option("-D", "--define", "defines", multiple=True, metavar="NAME=VALUE", callback=pairs,
              help="A symbol of the script. May be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON, one value a script.")
def check_(files: tuple[Path, ...], defines: dict[str, str], as_json: bool) -> None:
    """Parse scripts and run nothing.

    Exit status 0, or 2 with the place of the first error of each.
    """
    wrong = False
    for path in scripts_of(files):
        script: Script | None = None
        error: ScriptError | None = None
        try:
            script = load(path, defines)
            for option in script.options:
                take_option(World(), option)
            for event in script.events:
                check(event)
        except ScriptError as found:
            error = found
        wrong = wrong or error is not None
        if as_json:
            data: dict[str, Any] = {"script": str(path), "status": "error" if error else "ok"}
            if script is not None:
                data |= {"events": len(script.events), "clauses": list(script.clauses)}
            if error is not None:
                data |= {"line": error.line, "column": error.column, "message": error.message}
            click.echo(json.dumps(data, ensure_ascii=False))
        elif error is not None:
            source = path.read_text(encoding="utf-8", errors="replace")
            click.echo(error_text(str(path), script, error, source), err=True)
        else:
            assert script is not None
            click.echo(f"ok      {path}  {len(script.events)} events")
    sys.exit(WRONG if wrong else 0)


@cli.command("record")
@click.argument("capture", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.pkt",
              help="Where to write the script (default: standard output).")  # fmt: skip
@click.option("--name", metavar="NAME", help="The running stack to listen to (default level-ip).")
@click.option("--run", "root", metavar="DIR", help="Directory that holds run directories (LEVELIP_RUN).")
@click.option("--port", metavar="PORT", type=Number(1, 65_535), default=None,
              help="The connection with this port.")  # fmt: skip
@click.option("--seconds", metavar="S", type=Seconds(min=0.1), default=30.0, show_default=True,
              help="Listen so long at most.")  # fmt: skip
@click.option("--local", metavar="ADDRESS", callback=address_of,
              help="The stack's address, where a capture has no directions.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", callback=pairs,
              help="A setting that the stack had. May be repeated.")  # fmt: skip
def record_(
    capture: Path | None, output: Path | None, name: str | None, root: str | None, port: int | None, seconds: float,
    local: bytes, settings: dict[str, str],
) -> None:  # fmt: skip
    """Turn a connection into a script.

    It is one of CAPTURE (pcapng or pcap, as `lvlip capture -w FILE` writes it), or else of the running stack. A live
    recording begins at once and ends with the connection, or after --seconds. The script is run when it is written;
    exit status 1 says that it does not pass as it is (the calls are inferred from the packets). Its tolerance is as
    large as it has to be, up to half a second: a stack on a busy machine is late.
    """
    from levelip.frames.core import ControlError
    from levelip.ipc.rundir import RunError
    from simulation.script.record import (
        PACES,
        RecordError,
        finished,
        live_packets,
        live_settings,
        make_script,
        packets_of_capture,
    )

    said = [f"{key}={value}" for key, value in settings.items()]
    try:
        if capture is not None:
            packets, source = packets_of_capture(capture), capture.name
        else:
            stack = Stack(name, root)
            stack.need_running()
            run_directory = stack.run
            said = [*live_settings(run_directory), *said]
            packets = live_packets(
                run_directory, port=port or 0, seconds=seconds, stop=finished,
                ready=lambda: click.echo("listening; the recording ends with the connection", err=True),
            )  # fmt: skip
            source = "a running stack"
        makes = partial(make_script, packets, local=local, port=port or 0, settings=said, source=source)
        text = makes()
    except (RecordError, ControlError, RunError, ValueError) as error:
        raise Failure(str(error)) from None

    def attempt(text: str) -> Result:
        return run(parse(text, str(output or "the recording")))

    result = attempt(text)
    if result.status:
        slower = ((text, attempt(text)) for text in (makes(pace=pace) for pace in PACES[1:]))
        text, result = next((one for one in slower if not one[1].status), (text, result))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
    if result.status:
        _show(result, verbose=False, as_json=False)
        sys.exit(FAILED)
    click.echo(summary_line(result), err=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    return exit_code(lambda: cli.main(argv, prog_name="lvlip script", standalone_mode=False), name="lvlip script")


if __name__ == "__main__":
    sys.exit(main())
