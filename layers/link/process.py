"""The process of the link layer: opens the device, gives up its privileges, runs the loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layers.link.config import LinkCoreConfig
from layers.link.core import LinkCore
from layers.link.device import DevicePort, DeviceSetup
from layers.link.privileges import drop_privileges
from layers.link.tuntap import HostSide
from layers.link.wire import WirePort
from levelip.addressing import addressing
from levelip.frames.core import ControlError
from levelip.frames.packet import IpToLink
from levelip.ipc.memory import Pool
from levelip.ipc.pipe import Pipe
from levelip.ipc.rundir import RunError
from levelip.ipc.runtime import Runtime
from levelip.ipc.shell import EXIT_FAILED, Parts, run_layer
from levelip.wire.addr import LIMITED_BROADCAST

_TEXT = "Link layer of a Level-IP stack: the tun/tap device (or wire), Ethernet and ARP."


class _Link:
    """What the parts of this shell must know of each other."""

    def __init__(self) -> None:
        self.failed = False
        self.pool: Pool | None = None

    def build(self, runtime: Runtime) -> Parts:
        """Open the device first: what follows runs without privileges. Raises RunError."""
        config = runtime.config
        port = self._wire(runtime) if config.device.kind == "wire" else self._interface(runtime)
        try:
            drop_privileges()
        except (OSError, RuntimeError) as error:
            raise RunError(f"cannot give up privileges: {error}") from None
        ip = Pipe(runtime, "ip", "link-ip", IpToLink, lossless=False)
        port.gate = ip.full
        try:
            where = addressing(config.ip)
        except ValueError as error:
            raise RunError(str(error)) from None
        core_config = LinkCoreConfig(
            epoch=runtime.epoch,
            device=port.state,
            link=config.link,
            mac=config.device.stack_mac(runtime.run.name) if port.state.ethernet else b"",
            addresses=list(where.addresses),
            broadcasts=sorted({LIMITED_BROADCAST, *where.broadcasts}),
        )
        core = LinkCore(core_config, runtime.rng(), runtime.clock.now())
        return Parts(core, core_config, [port, ip], extra=_commands(port))

    def _interface(self, runtime: Runtime) -> DevicePort:
        config, stack = runtime.config, runtime.run.name
        device = config.device
        if device.kind == "wire":
            raise RunError("a wire is no interface")
        pool = Pool(runtime.memory, runtime.run.memory, f"pool-{runtime.epoch:016x}", config.link.pool_slots)
        self.pool = pool
        host_mac = device.host_mac(stack) if device.kind == "tap" else b""
        setup = DeviceSetup(
            device.interface(stack),
            device.kind,
            offload=device.offload,
            attach=device.attach,
            persist=device.persist,
            host=HostSide(device.mtu, host_mac, device.host_address),
        )

        def lost(text: str) -> None:
            runtime.log.error("%s", text)
            self.failed = runtime.stopping = True

        return DevicePort(
            setup,
            memory=runtime.memory,
            pool=pool,
            epoch=runtime.epoch,
            queue=config.link.device_queue,
            count=runtime.count,
            lost=lost,
            log=runtime.log,
        )

    def _wire(self, runtime: Runtime) -> WirePort:
        config = runtime.config
        device = config.device
        return WirePort(
            Path(device.wire_path or runtime.run.path / "wire.sock"),
            peer=device.wire_peer,
            ethernet=device.wire_carries == "ethernet",
            mtu=device.mtu,
            offload=device.offload,
            memory=runtime.memory,
            epoch=runtime.epoch,
            queue=config.link.device_queue,
            count=runtime.count,
            log=runtime.log,
        )


def _commands(port: DevicePort | WirePort) -> Any:
    """Control commands that only this shell knows: "device.persist" {"persist": bool}."""

    def extra(name: str, args: dict[str, Any]) -> dict[str, Any] | None:
        if name != "device.persist":
            return None
        if not isinstance(port, DevicePort):
            raise ControlError("a wire does not persist")
        persist = args["persist"]
        if not isinstance(persist, bool):
            raise ControlError("persist is true or false")
        try:
            port.persist(persist)
        except OSError as error:
            raise ControlError(f"the device: {error.strerror}") from None
        return {"persist": persist}

    return extra


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (0), or until the device is gone for good (1)."""
    link = _Link()
    code = run_layer("layers.link", _TEXT, link.build, argv)
    if link.pool is not None:
        link.pool.close()
    return EXIT_FAILED if link.failed else code
