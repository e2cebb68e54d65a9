"""`python -m simulation.replay`, which `lvlip replay` starts: hold recordings against the cores, look around in them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from levelip.tracing.recording import RecordingError
from simulation.replay.player import Player, Step
from simulation.replay.report import divergence_data, divergence_text, open_recordings, summary

FAILED, WRONG = 1, 2


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...",
                type=click.Path(exists=True, path_type=Path))  # fmt: skip
@click.option("--layer", metavar="LAYER", help="Only this layer's recording: link, ip, tcp, gateway.")
@click.option("--json", "as_json", is_flag=True, help="JSON, one value a line.")
def cli(paths: tuple[Path, ...], layer: str | None, as_json: bool) -> None:
    """Run recordings again, in virtual time and without the stack, and hold every frame and event against them.

    Exit status 0: all was the same; 1: the first difference is shown; 2: a file cannot be used.
    """
    recordings = [one for one in open_recordings(list(paths)) if layer in (None, one.head.process)]
    if not recordings:
        raise RecordingError(f"there is no recording of {layer} in {', '.join(map(str, paths))}")
    sys.exit(max(check(Player(recording), as_json) for recording in recordings))


def check(player: Player, as_json: bool) -> int:
    """Run one to its end; the exit status."""
    counts = {"calls": 0, "frames": 0, "events": 0, "raised": 0}

    def count(step: Step) -> None:
        counts["calls"] += 1
        counts["frames"] += len(step.out)
        counts["events"] += len(step.events)
        counts["raised"] += step.error is not None

    began = time.perf_counter()
    found = player.check(told=count)
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


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    try:
        cli.main(argv, prog_name="lvlip replay", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RecordingError as error:
        click.echo(f"lvlip replay: {error}", err=True)
        return WRONG
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:
        return int(error.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
