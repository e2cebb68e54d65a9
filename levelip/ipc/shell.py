"""How a layer's process starts: arguments, configuration, run directory, lock; then the loop."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import zmq

from levelip.config import Config
from levelip.configfile import ConfigError, load_config
from levelip.frames.core import Core
from levelip.ipc.clock import StackClock
from levelip.ipc.loop import Extra, Loop
from levelip.ipc.port import Port
from levelip.ipc.recorder import Recorded, head_of
from levelip.ipc.recordleft import LeftBehind
from levelip.ipc.rundir import RunDirectory, RunError
from levelip.ipc.runtime import Runtime, start_logging

EXIT_FAILED = 1
EXIT_CONFIG = 2
CRASHES_KEPT = 4
"""Flight recordings of crashes of one process that are kept in RUN/crash."""


LEFT_WAIT_S = 3.0
"""So long the end of a process waits for what it writes of the one before; less than `lvlip down` waits."""


@dataclass(slots=True)
class Parts:
    """What a layer's shell brings to the loop."""

    core: Core
    config: Any  # what the core was made with: a recording's snapshots hold it
    ports: Sequence[Port]
    extra: Extra | None = None


def run_layer(name: str, text: str, build: Callable[[Runtime], Parts], argv: Sequence[str] | None = None) -> int:
    """The main program of one layer: 0 after SIGTERM or SIGINT, 2 for a wrong configuration, 1 for other failures."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=text)
    parser.add_argument("--name", help="the stack's name (LEVELIP_NAME; default level-ip)")
    parser.add_argument("--run", metavar="DIR", help="directory of run directories (LEVELIP_RUN)")
    parser.add_argument("--config", metavar="FILE", help="configuration, TOML (LEVELIP_CONFIG)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    options = parser.parse_args(argv)
    process = name.rpartition(".")[2]
    try:
        config: Config = load_config(options.config or os.environ.get("LEVELIP_CONFIG"), options.set)
        run = RunDirectory(options.name, options.run)
    except (ConfigError, ValueError) as error:
        print(f"{process}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    start_logging(config.stack.log_level)
    log = logging.getLogger(process)
    try:
        runtime = Runtime(process, config, run)
        parts = build(runtime)
    except (RunError, OSError, zmq.ZMQError) as error:
        log.error("cannot start: %s", error)
        run.leave()
        return EXIT_FAILED
    return _run(runtime, parts)


class _Aborted(BaseException):
    """SIGABRT: somebody wants to know what the process was at."""


def _run(runtime: Runtime, parts: Parts) -> int:
    """The loop around the recorded core. What ends the process leaves its flight recording behind."""
    head = head_of(
        runtime.name,
        stack=runtime.run.name,
        epoch=runtime.epoch,
        config=runtime.config,
    )
    clock = StackClock(runtime.run.clock)  # the runtime's is closed when a crash is written
    crashes = runtime.run.path / "crash"
    left = LeftBehind(
        runtime.run.memory, crashes, runtime.name, keep=CRASHES_KEPT, log=runtime.log, wall_offset=clock.wall_offset
    )
    flight = runtime.config.stack.flight_recorder_mib << 20
    recorded = Recorded(
        parts.core, parts.config, head, flight=flight, log=runtime.log, now=clock.now(), wall_offset=clock.wall_offset,
        held_ns=clock.held_ns, peek=runtime.memory.peek,
        memory=runtime.run.memory if runtime.run.in_memory else None,
    )  # fmt: skip
    aborted = False
    signal.signal(signal.SIGABRT, _abort)
    try:
        Loop(runtime, recorded, parts.ports, extra=parts.extra).run()
    except (Exception, _Aborted) as error:
        aborted = isinstance(error, _Aborted)
        path = recorded.crash(error, crashes, CRASHES_KEPT)
        if path is not None:
            runtime.log.error("what led to this: lvlip replay %s", path)
        if not aborted:
            raise
    finally:
        recorded.close()
        recorded.forget()
        left.wait(LEFT_WAIT_S)
        clock.close()
        runtime.run.leave()
    if aborted:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.abort()
    return 0


def _abort(_number: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    raise _Aborted("SIGABRT")
