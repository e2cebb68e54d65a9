"""The tcp process: pipes to ip and to gateway, and a file for the rings of clients without shared memory."""

from __future__ import annotations

from collections.abc import Sequence

from layers.tcp.config import TcpCoreConfig
from layers.tcp.congestion import NoStrategy, find
from layers.tcp.core import TcpCore
from levelip.frames.packet import IpToTransport
from levelip.frames.seam import GatewayToTcp
from levelip.ipc.pipe import Pipe
from levelip.ipc.rundir import RunError
from levelip.ipc.runtime import Runtime
from levelip.ipc.shell import Parts, run_layer


def build(runtime: Runtime) -> Parts:
    """The core and its ports."""
    tcp = runtime.config.tcp
    try:
        find(tcp.congestion)
    except NoStrategy as error:
        raise RunError(f"tcp.congestion: {error}") from None
    region = f"own-{runtime.epoch & 0xFFFFFFFF:08x}"
    runtime.memory.create_own(region, (tcp.send_ring + tcp.receive_ring) * tcp.connections)
    runtime.memory.remove_stale("own", keep=region)
    config = TcpCoreConfig(
        tcp=tcp,
        epoch=runtime.epoch,
        isn_secret=runtime.run.secret("isn"),
        port_secret=runtime.run.secret("port"),
        own_region=region,
    )
    core = TcpCore(config, runtime.rng(), runtime.clock.now())
    ports = [
        Pipe(runtime, "ip", "ip-tcp", IpToTransport, lossless=False),
        Pipe(runtime, "gateway", "tcp-gateway", GatewayToTcp, lossless=True),
    ]
    return Parts(core, config, ports)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process."""
    return run_layer("layers.tcp", "TCP: connections between ip and gateway.", build, argv)
