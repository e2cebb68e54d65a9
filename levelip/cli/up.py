"""`lvlip up`: a checked configuration, a run directory without leftovers, a supervisor, layers that are ready."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import click

from levelip.cli import supervise
from levelip.cli.common import Failure, Seconds, Stack, StackCommand, interruptible
from levelip.cli.strategies import check_strategy
from levelip.cli.teardown import DEVICE_FILE, bring_down, read_note
from levelip.config import Config
from levelip.configfile import CONFIG_VARIABLE, FILE_NAME, load, to_toml
from levelip.ipc.addonkeep import PATTERNS as ADDON_PATTERNS
from levelip.ipc.breakpoints import BREAKPOINTS
from levelip.ipc.control import ControlClient, ControlError
from levelip.ipc.patience import ANSWER_S

POLL_S = 0.05
ASK_S = 0.5
LOG_LINES = 10
REFUSALS = 3
"""So often a layer says that it cannot start, each time for the same reason, before `up` believes it."""
SYSTEM_FILE = Path("/etc") / FILE_NAME


@click.command(cls=StackCommand)
@click.option("--config", "config_file", metavar="FILE",
              help="Configuration (LEVELIP_CONFIG; else ./level-ip.toml, else /etc/level-ip.toml).")  # fmt: skip
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Override one setting. May be repeated.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground and stop the stack on Ctrl-C.")
@click.option("--timeout", metavar="SECONDS", type=Seconds(min=0.1), default=30.0, show_default=True,
              help="How long the layers may take to get ready.")  # fmt: skip
@click.pass_obj
def command(stack: Stack, config_file: str | None, settings: tuple[str, ...], foreground: bool, timeout: float) -> None:
    """Start a stack and wait until all its layers are ready.

    The configuration is checked first; nothing starts if it has a mistake. If a layer does not get ready in time,
    its log is shown, the stack is stopped again, and the exit code is 1.

    \b
    lvlip up
    lvlip up --config lab.toml --set tcp.congestion=newreno
    lvlip up --name two --set ip.address=10.0.1.2/24 --set ip.gateway=10.0.1.1 --set device.host_address=10.0.1.1/24
    """
    path = choose_file(config_file)
    config = load(path, settings=settings)
    run = stack.run
    running = supervise.find(run)
    if running is not None:
        raise Failure(f"stack {run.name!r} is running already (supervisord pid {running[1]}); stop it with: "
                      f"lvlip down{stack.name_flag()}")  # fmt: skip
    supervise.check_socket(run)
    check_strategy(config)
    run.create(memory=False)
    layers = ordered(config.stack.layers)
    _clear_leftovers(stack, layers)
    paths = supervise.Paths.of(run)
    paths.config.write_text(to_toml(config, comments=False), encoding="utf-8")
    paths.conf.write_text(supervise.conf_text(run, layers), encoding="utf-8")
    _note_device(stack, config)
    _warn_of_others(stack, config)
    logs = {layer: _size(run.logs / f"{layer}.log") for layer in layers}
    child = None
    with interruptible():
        try:
            child = supervise.spawn(run, foreground=foreground)
            _wait_ready(stack, layers, timeout, logs, child)
            if child is not None:
                _say_ready(stack, layers, config, path)
                code = child.wait()
                raise Failure(f"supervisord ended with code {code}; see {paths.log}")
        except BaseException:
            _stop_again(stack, child)
            raise
    _say_ready(stack, layers, config, path)


def choose_file(given: str | None) -> Path | None:
    """--config, LEVELIP_CONFIG, ./level-ip.toml, /etc/level-ip.toml; None: the defaults alone."""
    named = given or os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named).absolute()
    for path in (Path.cwd() / FILE_NAME, SYSTEM_FILE):
        if path.is_file():
            return path
    return None


def ordered(layers: Sequence[str]) -> list[str]:
    """From the lowest up."""
    return [layer for layer in supervise.MODULES if layer in layers]


def _clear_leftovers(stack: Stack, layers: Sequence[str]) -> None:
    """End what a crashed supervisor left, and remove its files."""
    run = stack.run
    orphans = supervise.orphans(run, layers)
    if (silent := supervise.silent(run)) is not None:
        stack.tell(f"supervisord (pid {silent}) does not answer; ending it")
        supervise.end({"supervisord": silent}, stack.tell)
    for layer, pid in orphans.items():
        stack.tell(f"{layer} (pid {pid}) is left from a supervisord that crashed; ending it")
    supervise.end(orphans, stack.tell)
    paths = supervise.Paths.of(run)
    for path in (paths.settings, paths.socket, paths.pidfile):
        path.unlink(missing_ok=True)
    if not stack.running():  # a hold ends with the stack that it held, and so do its breakpoints and addons
        addons = [path for pattern in ADDON_PATTERNS for path in run.path.glob(pattern)]
        for path in (run.clock, run.path / BREAKPOINTS, *addons):
            path.unlink(missing_ok=True)


def _note_device(stack: Stack, config: Config) -> None:
    """Write down whether link will make the device or finds it: `down` removes only what was made. A note of an
    earlier start that ended without `down` still holds."""
    path = stack.run.path / DEVICE_FILE
    device = config.device
    if "link" not in config.stack.layers or device.kind == "wire":
        path.unlink(missing_ok=True)
        return
    name = device.interface(stack.run.name)
    earlier = read_note(path)
    ours = earlier.get("name") == name and bool(earlier.get("created"))
    path.write_text(json.dumps({"name": name, "created": not device.attach and (ours or not _exists(name))}), "utf-8")


def _warn_of_others(stack: Stack, config: Config) -> None:
    """Say which interfaces of the host are in the stack's network already: another stack's, or a real one."""
    from levelip.host.interface import InterfaceError, addresses

    device = config.device
    if "link" not in config.stack.layers or device.kind == "wire" or not device.host_address:
        return
    try:
        there = addresses()
    except InterfaceError:
        return
    for name, address in in_network(device.host_address, there):
        if name != device.interface(stack.run.name):
            stack.tell(
                f"beware: {name} has {address}, so packets to this stack may go there; another network: "
                "--set ip.address=... --set ip.gateway=... --set device.host_address=..."
            )


def in_network(host_address: str, there: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those (interface, address with prefix length) whose network, if it is one of several addresses, overlaps that of
    this address with prefix length."""
    network = ip_interface(host_address).network
    found = ((name, address, ip_interface(address).network) for name, address in there)
    return [(name, address) for name, address, other in found if other.num_addresses > 1 and other.overlaps(network)]


def _exists(device: str) -> bool:
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True


def layer_status(stack: Stack, layer: str, *, timeout: float = ANSWER_S) -> dict[str, Any] | None:
    """A layer's own account of itself, or None if it does not answer within `timeout` seconds."""
    if stack.run.holder(layer) is None:
        return None
    client = ControlClient(stack.run, layer, timeout=timeout)
    try:
        return client.request("status")
    except ControlError:
        return None
    finally:
        client.close()


def _wait_ready(
    stack: Stack, layers: Sequence[str], timeout: float, logs: dict[str, int], child: subprocess.Popen[bytes] | None
) -> None:
    """Show the layers as they get ready; `logs`: bytes of their logs before. Failure says who is not, why, and what its
    log ends with; at once where a layer says itself that it cannot start."""
    here = set(layers)
    elsewhere = set(supervise.MODULES) - here
    deadline = time.monotonic() + timeout
    ready: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any] | None] = {}
    shown: set[str] = set()
    with _Progress(stack) as progress:
        while len(ready) < len(layers):
            for layer in layers:
                if layer in ready:
                    continue
                status = layer_status(stack, layer, timeout=ASK_S)
                if status is not None or stack.run.holder(layer) is None:
                    last[layer] = status  # a busy one is not silent: what it said last holds
                if status is not None and not set(status["waiting_for"]) - elsewhere:
                    ready[layer] = status
            for layer in [name for name in layers if name in ready and name not in shown]:
                shown.add(layer)
                progress.ready(layer, ready[layer])
            progress.waiting({layer: last.get(layer) for layer in layers if layer not in ready})
            if len(ready) == len(layers):
                break
            if child is not None and child.poll() is not None:
                raise Failure(
                    f"supervisord ended with code {child.returncode}; see {supervise.Paths.of(stack.run).log}"
                )
            for layer in [name for name in layers if name not in ready]:
                if why := refusal(stack.run.logs / f"{layer}.log", logs[layer]):
                    raise Failure(f"stack {stack.run.name!r} cannot start: {layer}: {why}")
            if time.monotonic() > deadline:
                raise Failure(
                    _why_not(stack, {layer: last.get(layer) for layer in layers if layer not in ready}, timeout)
                )
            time.sleep(POLL_S)


def refusal(log: Path, start: int) -> str:
    """Why a layer that is started again and again cannot start, by its log from byte `start` on; "" if it may yet."""
    if _size(log) <= start:
        return ""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    reasons = [line.partition(" cannot start: ")[2] for line in lines if " cannot start: " in line][-REFUSALS:]
    return reasons[0] if len(reasons) == REFUSALS and len(set(reasons)) == 1 else ""


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


class _Progress:
    """A spinner with words on a terminal, one line a layer else."""

    def __init__(self, stack: Stack) -> None:
        self._quiet = stack.json
        self._spinner: Any = None

    def __enter__(self) -> _Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console

            self._spinner = Console(stderr=True).status("starting")
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def ready(self, layer: str, status: dict[str, Any]) -> None:
        line = f"{layer:<8} ready, pid {status['pid']}"
        if self._spinner is not None:
            self._spinner.console.print(line, highlight=False, markup=False)  # above the spinner
        elif not self._quiet:
            click.echo(line, err=True)

    def waiting(self, left: dict[str, dict[str, Any] | None]) -> None:
        if self._spinner is not None and left:
            self._spinner.update(progress(left))


def progress(left: dict[str, dict[str, Any] | None]) -> str:
    """What a person waits for, on one line of a terminal: layers that start, and for whom the others wait."""
    starting = [layer for layer, status in left.items() if status is None]
    parts = [f"{', '.join(starting)} {'are' if len(starting) > 1 else 'is'} starting"] if starting else []
    return "; ".join([*parts, *(_waits(layer, status) for layer, status in left.items() if status is not None)])


def _waits(layer: str, status: dict[str, Any] | None) -> str:
    if status is None:
        return f"{layer} is starting"
    return f"{layer} waits for {' and '.join(status['waiting_for'])}"


def _why_not(stack: Stack, left: dict[str, dict[str, Any] | None], timeout: float) -> str:
    """Which layers are not ready, for whom they wait, and the logs of those that do not answer at all."""
    silent = [layer for layer, status in left.items() if status is None]
    parts = [f"stack {stack.run.name!r} is not ready after {timeout:g} s"]
    parts += [
        f"  {layer} does not answer" if status is None else f"  {_waits(layer, status)}"
        for layer, status in left.items()
    ]
    for layer in silent or list(left):
        log = stack.run.logs / f"{layer}.log"
        lines = supervise.tail(log, LOG_LINES)
        parts.append(f"the end of {log}:" if lines else f"{log} is empty")
        parts += [f"  {line}" for line in lines]
    return "\n".join(parts)


def _stop_again(stack: Stack, child: subprocess.Popen[bytes] | None) -> None:
    """Leave nothing behind of a stack half started, or of one in the foreground; a second Ctrl-C comes too late."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        if child is not None and supervise.find(stack.run) is None:  # it is on its way up: nobody hears what it is told
            child.terminate()
            if supervise.wait_for_end({"supervisord": child.pid}, supervise.STOP_WAIT_S * 3, stack.tell):
                child.kill()  # its layers are ended below
        for line in bring_down(stack):
            stack.tell(line)
    except Failure as failure:
        stack.tell(f"and could not be stopped: {failure.format_message()}")
    if child is not None:
        child.wait(timeout=supervise.STOP_WAIT_S * 3)


def _say_ready(stack: Stack, layers: Sequence[str], config: Config, path: Path | None) -> None:
    if stack.json:
        running = supervise.find(stack.run)
        stack.emit(
            {
                "name": stack.run.name,
                "run": str(stack.run.path),
                "layers": list(layers),
                "config": str(path) if path else None,
                "supervisor": running[1] if running else None,
            }
        )
        return
    source = f"from {path}" if path else "defaults"
    click.echo(f"stack {stack.run.name!r} is up: {config.ip.address} ({source}), run directory {stack.run.path}")
