"""The gateway process: a pipe to tcp, and the applications' door."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Sequence
from pathlib import Path

from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from gateway.door import MEMORY_NAME, Door
from levelip.frames.seam import TcpToGateway, UdpToGateway
from levelip.ipc.pipe import Pipe
from levelip.ipc.runtime import Runtime
from levelip.ipc.shell import Parts, run_layer


def build(runtime: Runtime) -> Parts:
    """The core and its ports."""
    _allow_descriptors()
    tcp = runtime.config.tcp
    directory = runtime.run.sessions
    _remove_stale_memory(directory)
    config = GatewayCoreConfig(
        gateway=runtime.config.gateway,
        tcp=tcp,
        udp=runtime.config.udp,
        ttl=runtime.config.ip.ttl,
        epoch=runtime.epoch,
        owner=os.geteuid(),
        device=runtime.config.device.interface(runtime.run.name),
        memory_dir=str(directory),
    )
    core = GatewayCore(config, runtime.rng(), runtime.clock.now())
    door = Door(runtime, f"ipc://{runtime.run.door}/gateway", directory, config.memory_slot * tcp.connections)
    pipes = [Pipe(runtime, "tcp", "tcp-gateway", TcpToGateway, lossless=True)]
    if "udp" in runtime.config.stack.layers:
        pipes.append(Pipe(runtime, "udp", "udp-gateway", UdpToGateway, lossless=True))
    return Parts(core, config, [*pipes, door])


def _allow_descriptors() -> None:
    """A client costs two descriptors, its connection and its pidfd; the usual soft limit is 1,024 in all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _remove_stale_memory(directory: Path) -> None:
    """Files of an earlier gateway's sessions: tcp resets their connections, and clients make new ones."""
    for path in directory.iterdir():
        if MEMORY_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process."""
    return run_layer("gateway", "Gateway: sockets for applications.", build, argv)
