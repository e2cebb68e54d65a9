"""The `lvlip` command: a group whose commands are imported only when they are called, so that it starts fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from levelip import __version__
from levelip.cli.common import Failure, Stack, StackGroup, colourless, exit_code

# fmt: off
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Stack": {
        "up":      ("up", "Start a stack and wait until it is ready."),
        "down":    ("down", "Stop a stack and clean up behind it."),
        "status":  ("status", "Show which layers run and for whom they wait."),
        "restart": ("restart", "Restart one layer, or all."),
        "list":    ("list", "List the stacks of this user."),
        "logs":    ("logs", "Show the log of a layer."),
        "config":  ("config", "Print the configuration, every key explained."),
        "get":     ("get", "Show settings of a running stack."),
        "set":     ("set", "Change settings of a running stack."),
    },
    "Watch": {
        "trace":   ("trace", "Watch packets cross the layers, and why each decision was made."),
        "capture": ("capture", "Capture packets and events into a pcapng file."),
        "ss":      ("ss", "Show sockets and TCP's inner figures."),
        "neigh":   ("neigh", "Show the ARP cache."),
        "route":   ("route", "Show the routing table, add and delete routes."),
        "address": ("address", "Show the stack's addresses, add and delete them."),
        "group":   ("group", "Show multicast groups, join and leave them."),
        "stat":    ("stat", "Show counters, and what each means."),
        "paths":   ("paths", "Group packets by the way they took through the layers, with times."),
        "why":     ("why", "Tell the story of a packet or connection, and what went wrong first."),
        "explain": ("explain", "Explain a reason or a finding: rule, and what to do."),
        "web":     ("web", "Show it all in a browser: live, a capture, a recording."),
        "record":  ("record", "Record what enters every layer, or write what the flight recorder holds."),
        "replay":  ("replay", "Run a recording again, call by call, and look around in it."),
    },
    "Stop": {
        "hold":    ("hold", "Stop the stack's clock; frames wait before the layers."),
        "step":    ("step", "Hand held frames on, one by one; run the next timer."),
        "continue": ("continue_", "Let a held stack go on."),
        "break":   ("break_", "Stop the stack at a packet or event."),
        "held":    ("held", "List, show, edit, drop, repeat, delay held packets."),
        "inject":  ("inject", "Put packets into the stack, at any seam."),
        "debug":   ("debug", "All of this at a prompt, or from a file."),
    },
    "Export": {
        "graph":   ("graph", "Draw a connection: sequence numbers, windows, round trips, ladder."),
        "qlog":    ("qlog", "Write a connection as qlog."),
        "metrics": ("metrics", "Serve counters and gauges to Prometheus."),
    },
    "Try": {
        "lesson":  ("lesson", "The guided tour: ten lessons, each in a world of its own."),
        "ping":    ("ping", "Send ICMP echo requests from the stack."),
        "resolve": ("resolve", "Look up a name over the stack; show who was asked and what came."),
        "addon":   ("addon", "Load Python files with hooks on frames and events."),
        "fault":   ("fault", "Lose, delay, repeat or corrupt packets on purpose."),
        "run":     ("run", "Run a program on the stack, as it is."),
        "shell":   ("shell", "A shell in which everything runs over the stack."),
        "script":  ("script", "Run packet scripts against the stack's cores, in virtual time."),
    },
    "Host": {
        "net":     ("net", "Connect the stack's network to the host's."),
        "doctor":  ("doctor", "Say what this machine lacks, and how to cure it."),
        "keygen":  ("keygen", "Make CURVE keys for a stack on two hosts."),
    },
}
# fmt: on


class Lvlip(StackGroup):
    """The group; turns known errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if cmd_name in section:
                module = section[cmd_name][0]
                try:
                    command: click.Command = importlib.import_module(f"levelip.cli.{module}").command
                except ModuleNotFoundError as error:
                    if error.name != f"levelip.cli.{module}":
                        raise
                    raise Failure(f"{cmd_name} is not part of this installation") from None
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See: lvlip --help"
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()], col_max=12)

    def invoke(self, ctx: click.Context) -> Any:
        from levelip.configfile import ConfigError
        from levelip.frames.core import ControlError
        from levelip.ipc.rundir import RunError

        try:
            return super().invoke(ctx)
        except (ConfigError, ControlError, RunError) as error:
            raise Failure(str(error)) from None
        except PermissionError as error:
            raise Failure(f"{error.filename or 'permission'}: {error.strerror}; are you the stack's owner?") from None

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but Ctrl-C is 130 and a closed pipe 141, both in silence."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        run = super().main
        sys.exit(exit_code(lambda: run(args, prog_name or "lvlip", standalone_mode=False, **extra)))


@click.group(cls=Lvlip, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="level-ip %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """A TCP/IP stack in user space that a person can take apart while it runs.

    `lvlip COMMAND --help` explains a command, with examples. Every command takes --name (which stack), --run and
    --json. Exit code: 0; 1 if something failed or was found wrong; 2 for wrong usage; 130 after Ctrl-C. Commands
    that differ say so.

    \b
    lvlip doctor      what this machine lacks
    lvlip up          a stack: the kernel is 10.0.0.1, ours 10.0.0.2
    lvlip lesson 1    the guided tour, with a stack of its own
    """
    context.ensure_object(Stack)
    if colourless():
        context.color = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lvlip`; the exit code: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C, 141 for a closed pipe."""
    return exit_code(lambda: cli.main(argv, "lvlip", standalone_mode=False, obj=Stack(alone=True)))
