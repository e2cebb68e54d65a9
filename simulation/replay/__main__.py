"""`python -m simulation.replay`, which `lvlip replay` starts: recordings held against the cores, and looked into."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from levelip.cli.common import Number, exit_code
from levelip.configfile import ConfigError
from levelip.tracing.expressionparser import ExpressionError
from levelip.tracing.recordedcalls import DamagedFrame
from levelip.tracing.recording import Recording, RecordingError
from simulation.replay.cutting import write_private
from simulation.replay.export import test_name, to_script, to_test
from simulation.replay.made import made_events
from simulation.replay.places import NoSuchPlace, find_place
from simulation.replay.player import Player, Step
from simulation.replay.prompt import prompt
from simulation.replay.report import divergence_data, divergence_text, open_recordings, summary
from simulation.replay.serve import Served
from simulation.replay.session import TROUBLE, Session
from simulation.replay.trust import use_config
from simulation.script.record import RecordError

FAILED, WRONG = 1, 2


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...",
                type=click.Path(exists=True, path_type=Path))  # fmt: skip
@click.option("--layer", type=click.Choice(["link", "ip", "tcp", "udp", "gateway"]),
              help="Of a directory, only this layer's.")  # fmt: skip
@click.option("-i", "--interactive", is_flag=True, help="A prompt: next, back, goto, state, diff, whatif, help.")
@click.option("--goto", "place", metavar="PLACE",
              help="Go there first: #123 (a call), 1.5 or 20ms (a time), tcp-3fa21-77 (a frame), start, end, or an "
              "expression, as 'event retransmit and conn.cwnd < 10'.")  # fmt: skip
@click.option("-e", "--execute", "commands", multiple=True, metavar="COMMAND",
              help="Carry out a command of the prompt. May be repeated.")  # fmt: skip
@click.option("-x", "--commands", "script", type=click.File("r"), metavar="FILE",
              help="Carry out the commands of a file, one a line; # begins a comment, - is stdin.")  # fmt: skip
@click.option("--what-if", "whatif", metavar="CHANGE",
              help="What the stack (or, alone, the layer) would have done had the next packet been lost (drop) or "
              "another (edit FIELD=VALUE ...); then silence or then recorded, for TIME.")  # fmt: skip
@click.option("--to-script", "script_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write a packet script of a connection (of a recording of ip or tcp).")  # fmt: skip
@click.option("--port", metavar="PORT", type=Number(1, 65_535), default=None,
              help="Which connection, for --to-script.")  # fmt: skip
@click.option("--to-test", "test_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write a pytest file that runs the calls again.")  # fmt: skip
@click.option("--from", "begin", metavar="PLACE", help="Where the test begins.  [default: --goto, or the start]")
@click.option("--to", "stop", metavar="PLACE", help="Where it ends.  [default: the end]")
@click.option("--to-events", "events_file", type=click.File("wb"), metavar="FILE",
              help="Write the events that the replay makes, msgpack, - is standard output; lvlip why --flight reads "
              "them.")  # fmt: skip
@click.option("--serve", is_flag=True,
              help="Answer another program: requests on standard input, a line of JSON each.")  # fmt: skip
@click.option("--config", "config", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Your configuration: a congestion control of one's own is imported only if it names it.  [default: "
              "LEVELIP_CONFIG]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON, one value a line.")
def cli(
    paths: tuple[Path, ...], layer: str | None, interactive: bool, place: str | None, commands: tuple[str, ...],
    script: Iterable[str] | None, whatif: str | None, script_file: Path | None, port: int | None,
    test_file: Path | None, begin: str | None, stop: str | None, events_file: BinaryIO | None, serve: bool,
    config: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Run recordings again, in virtual time and without the stack, and hold every frame and event against them.

    Without further options all of it is run. Exit status 0: all was the same; 1: the first difference is shown; 2: a
    file or a command cannot be used; of several files the others are run. `lvlip record` makes recordings, and so
    does a crash.

    \b
    lvlip replay DIR                                  is it the same again?
    lvlip replay DIR -i                               look around
    lvlip replay DIR --goto 'event retransmit' -e diff -e 'state cwnd'
    lvlip replay DIR --goto 1.2 --what-if 'edit tcp.window_size_value=0 then silence for 5s'
    """
    if config is not None:
        use_config(config)
    without: list[str] = []
    recordings = open_recordings(list(paths), layer=layer, without=without)
    for text in without:
        click.echo(f"lvlip replay: left out: {text}", err=True)
    left_out = WRONG if without else 0
    if serve:
        Served(recordings).run(sys.stdin.buffer, sys.stdout.buffer)
        return
    if script_file is not None:
        text, notes = to_script(_one(recordings, "tcp"), port=port or 0)
        script_file.write_text(text, encoding="utf-8")
        for note in notes:
            click.echo(f"lvlip replay: {note}", err=True)
        click.echo(f"{script_file}: run it with: lvlip script run {script_file}", err=True)
    if test_file is not None:
        _write_test(_one(recordings, "tcp"), test_file, begin or place, stop)
    if events_file is not None:
        events_file.write(made_events(recordings))
        return
    lines = [f"goto {place}"] if place else []
    try:
        lines += [*commands, *(script or ())]
    except UnicodeDecodeError:
        raise click.BadParameter("it is no text.", param_hint="-x") from None
    lines += [f"whatif {whatif}"] if whatif else []  # from where the others led
    if lines or interactive:
        sys.exit(max(left_out, _look_around(recordings, lines, interactive, as_json)))
    if script_file is None and test_file is None:
        sys.exit(max([left_out, *(check(recording, as_json) for recording in recordings)]))
    sys.exit(left_out)


def _one(recordings: list[Recording], process: str) -> Recording:
    """The one that is meant: the only one, or that of a process."""
    if len(recordings) == 1:
        return recordings[0]
    found = [one for one in recordings if one.head.process == process]
    if len(found) != 1:
        raise RecordingError(f"there are {len(recordings)} recordings; say which, with --layer")
    return found[0]


def _write_test(recording: Recording, path: Path, begin: str | None, stop: str | None) -> None:
    player = Player(recording)
    first = find_place(player, begin) if begin else recording.first
    player.seek(first)
    last = find_place(player, stop) if stop else recording.stop
    write_private(path, to_test(recording, first, last, name=test_name(path)).encode())
    click.echo(f"{path}: run it with: pytest {path}", err=True)


def _look_around(recordings: list[Recording], lines: list[str], interactive: bool, as_json: bool) -> int:
    """Commands, then the prompt; the exit status: 1 if the replay diverged, 2 if a command of a script was wrong."""
    session = Session(recordings)
    wrong = False
    for line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        answer = session.run(line)
        if as_json:
            click.echo(json.dumps(answer.data, ensure_ascii=False))
        else:
            click.echo("\n".join(answer.lines), err=answer.failed and not session.diverged)
        if answer.failed:
            wrong = not session.diverged
            break
    if interactive and not wrong:
        prompt(session, as_json)
    return WRONG if wrong else FAILED if session.diverged else 0


def check(recording: Recording, as_json: bool) -> int:
    """Run one to its end; the exit status. What stops it in between, as damage in the file, is told with the rest."""
    counts = {"calls": 0, "frames": 0, "in_part": 0, "by_length": 0, "events": 0, "raised": 0}

    def count(step: Step) -> None:
        counts["calls"] += 1
        counts["frames"] += len(step.out)
        counts["in_part"] += step.parts
        counts["by_length"] += step.lengths
        counts["events"] += len(step.events)
        counts["raised"] += step.error is not None

    began = time.perf_counter()
    try:
        player = Player(recording)
        found = player.check(told=count)
    except TROUBLE as error:
        _unreadable(recording, counts, str(error), as_json)
        return WRONG
    seconds = time.perf_counter() - began
    if as_json:
        facts = {"layer": player.process, "file": str(player.recording.path), **counts, "same": found is None}
        facts["torn"] = player.recording.torn
        if found is not None:
            facts["divergence"] = divergence_data(player, found)
        click.echo(json.dumps(facts, ensure_ascii=False))
    elif found is None:
        click.echo(summary(player, counts, seconds))
    else:
        click.echo(divergence_text(player, found))
    return FAILED if found is not None else 0


def _unreadable(recording: Recording, counts: dict[str, int], error: str, as_json: bool) -> None:
    """Say that a replay could not go on, and how far it came."""
    if as_json:
        facts = {"layer": recording.head.process, "file": str(recording.path), **counts, "same": False, "error": error}
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    calls = counts["calls"]
    were = f"{calls} calls before were" if calls > 1 else "call before was"
    before = f"; the {were} the same" if calls else ""
    click.echo(f"lvlip replay: {recording.head.process}: {error}{before}", err=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    return exit_code(lambda: _main(argv), name="lvlip replay", failed=WRONG)


def _main(argv: Sequence[str] | None) -> None:
    try:
        cli.main(argv, prog_name="lvlip replay", standalone_mode=False)
    except (RecordingError, RecordError, NoSuchPlace, ExpressionError, DamagedFrame, ConfigError) as error:
        click.echo(f"lvlip replay: {error}", err=True)
        sys.exit(WRONG)


if __name__ == "__main__":
    sys.exit(main())
