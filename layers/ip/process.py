"""The ip process: pipes to link and to the transports around the core."""

from __future__ import annotations

from collections.abc import Sequence

from layers.ip.config import IpCoreConfig
from layers.ip.core import Core
from levelip.frames.packet import LinkToIp, TransportToIp
from levelip.ipc.pipe import Pipe
from levelip.ipc.runtime import Runtime
from levelip.ipc.shell import Parts, run_layer

TRANSPORTS = {6: "tcp", 17: "udp"}
"""Protocol number (IANA) → the process that speaks it."""


def build(runtime: Runtime) -> Parts:
    """Core and ports; the core takes the device's MTU from the configuration until link tells it."""
    layers = runtime.config.stack.layers
    transports = {number: name for number, name in TRANSPORTS.items() if name == "tcp" or name in layers}
    config = IpCoreConfig(
        ip=runtime.config.ip, epoch=runtime.epoch, mtu=runtime.config.device.mtu, transports=transports
    )
    core = Core(config, runtime.rng(), runtime.clock.now())
    ports = [Pipe(runtime, "link", "link-ip", LinkToIp, lossless=False)]
    for name in sorted(set(config.transports.values())):
        ports.append(Pipe(runtime, name, f"ip-{name}", TransportToIp, lossless=False))
    return Parts(core, config, ports)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m layers.ip`."""
    return run_layer("layers.ip", "IPv4 and ICMP between link and the transports.", build, argv)
