"""`lvlip hold`: stop a stack's time."""

from __future__ import annotations

import click

from levelip.cli.common import EXIT_FAILED, Stack, StackCommand
from levelip.cli.debugcomplete import place_names


@click.command(cls=StackCommand)
@click.argument("where", required=False, metavar="[LAYER|SEAM]", shell_complete=place_names)
@click.option("--force", is_flag=True, help="Take over a stack that another debugger holds.")
@click.pass_obj
def command(stack: Stack, where: str | None, force: bool) -> None:
    """Hold the stack: its clock stands, and frames wait before the layers.

    Without an argument all frames are held. With LAYER (link, ip, tcp, udp, gateway) only what enters that layer is,
    with SEAM (device, link-ip, ip-tcp, ip-udp, tcp-gateway, udp-gateway, gateway-client; also as ip-tcp:up) only what
    passes there; elsewhere frames go on, at the one instant at which the clock stands. A second hold holds more.

    It stays held until `lvlip continue`, whatever becomes of this terminal. Layers on another host are held, too; the
    exit code is 1 if a layer could not be reached, which is named.

    \b
    lvlip hold && lvlip held list
    lvlip hold ip-tcp
    """
    from levelip.cli.debugtext import PEERS, debugging, queues_text, say, state_lines
    from levelip.debug.holding import behind_text, elsewhere_text

    with debugging(stack, tool="lvlip hold", force=force) as debugger:
        before = debugger.state()
        state = debugger.hold(where)
    if before.held:
        lines = ["it was held already", *state_lines(state, stack.run.name)]
    else:
        where_text = f", at {', '.join(state.at)}" if state.at else ""
        lines = [
            f"held{where_text} after {state.took_ns / 1e6:.1f} ms: the clock stands, no timer of the stack fires",
            PEERS,
            *([behind_text(state.behind)] if state.behind else []),
            *([elsewhere_text(state.elsewhere)] if state.elsewhere else []),
            *([f"{', '.join(state.silent)} did not answer"] if state.silent else []),
            queues_text(state),
            f"look with lvlip held list, go on with lvlip step or lvlip continue{stack.name_flag()}",
        ]
    say(stack, lines, state)
    if state.elsewhere or state.silent:
        raise click.exceptions.Exit(EXIT_FAILED)
