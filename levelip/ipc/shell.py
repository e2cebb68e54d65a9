"""How a layer's process starts: arguments, configuration, run directory, lock; then the loop."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from levelip.config import Config
from levelip.configfile import ConfigError, load_config
from levelip.frames.core import Core
from levelip.ipc.loop import Extra, Loop
from levelip.ipc.port import Port
from levelip.ipc.rundir import RunDirectory, RunError
from levelip.ipc.runtime import Runtime, start_logging

EXIT_FAILED = 1
EXIT_CONFIG = 2


@dataclass(slots=True)
class Parts:
    """What a layer's shell brings to the loop."""

    core: Core
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
        return EXIT_FAILED
    Loop(runtime, parts.core, parts.ports, extra=parts.extra).run()
    return 0
