"""The udp process: pipes to ip and to the gateway around the core."""

from __future__ import annotations

from collections.abc import Sequence

from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from levelip.frames.packet import IpToTransport
from levelip.frames.seam import GatewayToUdp
from levelip.ipc.pipe import Pipe
from levelip.ipc.runtime import Runtime
from levelip.ipc.shell import Parts, run_layer


def build(runtime: Runtime) -> Parts:
    """The core and its ports."""
    config = UdpCoreConfig(udp=runtime.config.udp, epoch=runtime.epoch)
    core = UdpCore(config, runtime.rng(), runtime.clock.now())
    ports = [
        Pipe(runtime, "ip", "ip-udp", IpToTransport, lossless=False),
        Pipe(runtime, "gateway", "udp-gateway", GatewayToUdp, lossless=True),
    ]
    return Parts(core, config, ports)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m layers.udp`."""
    return run_layer("layers.udp", "UDP: datagrams between ip and gateway.", build, argv)
