"""`lvlip keygen`: CURVE keys for a stack whose layers run on two hosts."""

from __future__ import annotations

from pathlib import Path

import click

from levelip.cli.common import Failure, Stack, StackCommand


@click.command(cls=StackCommand)
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(stack: Stack, file: str) -> None:
    """Make a CURVE key pair and write it to FILE (mode 0600), which must not exist.

    Name the file in ipc.secret_key_file of this host. The public key goes into ipc.allowed_keys of the other host, and
    into its ipc.server_keys for each pipe that this host binds. See docs/two-hosts.md.

    \b
    lvlip keygen /etc/level-ip.key
    """
    from levelip.ipc.keys import write_key_pair

    path = Path(file)
    try:
        public = write_key_pair(path)
    except FileExistsError:
        raise Failure(f"{path} exists already; a key in use must not be overwritten, so choose another name") from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if stack.json:
        stack.emit({"file": str(path), "public": public})
        return
    click.echo(f"{path} written; keep it secret. Its public key:", err=True)
    click.echo(public)
