"""What `lvlip run` and `lvlip shell` share: find the stack, watch beside the program, start it, end as it did."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import click

from levelip.cli.common import Failure, Stack
from levelip.debug.programs import environment, python
from levelip.host.usage import usage
from levelip.rpc.paths import door_endpoint

TRACE = click.option(
    "--trace", "trace", metavar="FILE", type=click.Path(path_type=Path), help="Gets lvlip trace's lines."
)
CAPTURE = click.option(
    "--capture", "capture", metavar="FILE", type=click.Path(path_type=Path), help="Its packets, as pcapng."
)
NAMESERVERS = click.option(
    "--nameserver", "nameservers", metavar="ADDRESS", multiple=True, help="Ask it for names. May be repeated."
)
ALL_OPENS = click.option(
    "--all-opens",
    is_flag=True,
    help="Let /proc/net tell of the stack also to who says O_CLOEXEC (Python, Go, Rust), at 30 to 60 µs an open.",
)
LISTENS_S = 60.0  # how long a watcher may take to say that it listens
IDLE_S = 4.0
"""How long a watcher that was told to end may do nothing, not even use the CPU, before it counts as one that hangs."""
ENDS_S = 60.0  # how long it may take to end while it works
_POLL_S = 0.1
LAST_WORDS_S = 0.3  # after the program's end: what its connections still say


def run_program(
    stack: Stack,
    argv: Sequence[str],
    *,
    trace: Path | None,
    capture: Path | None,
    pid_file: Path | None,
    nameservers: Sequence[str] = (),
    all_opens: bool = False,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Run it and return its exit code, or end by its signal."""
    from levelip.run.launcher import NotStarted, launch, mirror

    for text in nameservers:
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            raise click.UsageError(f"--nameserver {text}: must be an address, as 10.0.0.1") from None
    try:
        endpoint = door_endpoint(stack.name, stack.root)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    door = Path(endpoint.removeprefix("ipc://"))
    if not door.exists():
        raise Failure(f"no Level-IP stack at {door}; start one with: lvlip up{stack.name_flag()}")
    if pid_file is not None:
        try:
            pid_file.touch()
        except OSError as error:
            raise Failure(f"--pid-file {pid_file}: {error.strerror}") from None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with contextlib.ExitStack() as watchers:
        if trace is not None:
            watchers.enter_context(_watching(stack, ["trace"], trace))
        if capture is not None:
            watchers.enter_context(_watching(stack, ["capture", "--write", str(capture)], None))
        try:
            environment = {**os.environ, **(variables or {})}
            status = launch(
                argv, endpoint, pid_file=pid_file, environment=environment, nameservers=nameservers, all_opens=all_opens
            )
        except NotStarted as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise Failure(f"{argv[0]}: {error}") from None
        if trace is not None or capture is not None:
            time.sleep(LAST_WORDS_S)
    return mirror(status)


@contextlib.contextmanager
def _watching(stack: Stack, words: list[str], output: Path | None) -> Iterator[None]:
    """`lvlip WORDS` beside the program, from when it listens; its standard output goes to a file."""
    flags = [flag for name, value in (("--name", stack.name), ("--run", stack.root)) if value for flag in (name, value)]
    command = python("levelip.cli", *words, *flags)
    with contextlib.ExitStack() as files:
        try:
            to = files.enter_context(output.open("wb")) if output is not None else subprocess.DEVNULL
        except OSError as error:
            raise Failure(f"{output}: {error.strerror}") from None
        # a session of its own: Ctrl-C is for the program
        watcher = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=to,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
    assert watcher.stderr is not None
    try:
        _wait_until_it_listens(watcher.stderr, words[0])
    except BaseException:  # Ctrl-C, too: it has a session of its own
        watcher.kill()
        watcher.wait()
        watcher.stderr.close()
        raise
    try:
        yield
    finally:
        watcher.send_signal(signal.SIGINT)
        if not _ends(watcher):
            watcher.kill()
            watcher.wait()
            text = f"lvlip {words[0]} (pid {watcher.pid}) did not end and was killed; what it wrote may lack its end"
            click.echo(text, err=True)
        watcher.stderr.close()


def _ends(watcher: subprocess.Popen[bytes]) -> bool:
    """Whether it ends, or rather hangs, as one that was stopped."""
    begun = worked = time.monotonic()
    work = -1.0
    while (now := time.monotonic()) - begun < ENDS_S and now - worked < IDLE_S:
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(_POLL_S)
            return True
        used = usage(watcher.pid)
        if used is not None and used[0] != work:
            work, worked = used[0], now
    return False


def _wait_until_it_listens(said_by: IO[bytes], verb: str) -> None:
    """Failure, with what it said, if a watcher ends instead, or takes too long."""
    said = b""
    deadline = time.monotonic() + LISTENS_S
    while b"end with Ctrl-C" not in said:
        ready, _, _ = select.select([said_by], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(said_by.fileno(), 4096) if ready else b""
        if not part:
            raise Failure(f"lvlip {verb} did not begin: {said.decode(errors='replace').strip()}")
        said += part
