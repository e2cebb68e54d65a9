"""Where a measurement takes place: the stack against the kernel behind its tap, or two kernels on a veth pair.

Both give a `client` agent, on the measured side, and a `peer` agent, on the kernel's, and are entered with `with`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks import probes
from benchmarks.agent import Agent
from levelip.ipc.control import ControlClient
from tests.system.harness import MODULES, ROOT, Stack
from tests.system.namespace import Namespace

LAYERS = ("link", "ip", "tcp", "udp", "gateway")
SAMPLER = Path(__file__).with_name("sampling")
_VARIABLES = {"PYTHONPATH": str(ROOT)}
_MALLOC = {  # as supervisord.conf sets them
    "MALLOC_TOP_PAD_": "16777216",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}


class MeasuredStack(Stack):
    """A stack with the environment that supervisord.conf gives its processes; `cut` runs it without "tracing", or
    "recording", in its source.

    `profile`: a directory in which every process leaves where its time went.
    """

    def __init__(self, namespace: Namespace, *, cut: str = "", profile: Path | None = None, **options: Any) -> None:
        super().__init__(namespace, name="bench", **options)
        self._cut = cut
        self.variables = {**_MALLOC, **_VARIABLES}
        if profile is not None:
            self.variables["BENCH_PROFILE"] = str(profile)
            self.variables["PYTHONPATH"] = f"{SAMPLER}:{ROOT}"

    def start_program(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """A program on the stack's sockets, with the same environment as the processes."""
        return self.popen(argv, env=self.variables, **options)

    def _spawn(self, log: str, argv: Sequence[str]) -> subprocess.Popen[Any]:
        if self._cut:
            argv = ["-m", "benchmarks.cut", self._cut, *argv[1:]]
        assert self.namespace is not None
        with (self.directory / f"{log}.log").open("ab") as output:
            return self.namespace.popen(
                [sys.executable, "-P", *argv],
                env={**self.env, **self.variables},
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class StackWorld:
    """A stack on a tap in a namespace of its own; the kernel's side is 10.0.0.1 there, MTU 1500."""

    kind = "stack"

    def __init__(
        self,
        *,
        seed: int,
        offload: bool = True,
        affinity: bool = False,
        cut: str = "",
        profile: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        layers: Sequence[str] = LAYERS,
    ) -> None:
        self.layers = tuple(layers)
        self._undo = contextlib.ExitStack()
        self._seed = seed
        self._affinity = affinity
        settings = {"device.mtu": 1500, **(settings or {})}
        if affinity:  # DESIGN 4
            settings["ipc.affinity"] = {"link": [0], "ip": [0], "tcp": [1], "udp": [1], "gateway": [1]}
        try:
            namespace = self._undo.enter_context(Namespace())
            self.stack = MeasuredStack(
                namespace, offload=offload, cut=cut, profile=profile, settings=settings, layers=layers
            )
            self._undo.enter_context(self.stack)
            self.peer = Agent(popen_in(namespace), "peer", self.stack.address, seed)
            self._undo.callback(self.peer.close)
            self.client = self.new_client()
            self._controls = {layer: ControlClient(self.stack.run_directory, layer, timeout=10.0) for layer in layers}
            for control in self._controls.values():
                self._undo.callback(control.close)
        except BaseException:
            self._undo.close()
            raise

    @property
    def address(self) -> str:
        """The stack's address, as the kernel's side reaches it."""
        return self.stack.address

    def new_client(self) -> Agent:
        """A further program on the stack's sockets, with a helper of its own."""
        client = Agent(self.stack.start_program, "stack", self.stack.host, self._seed)
        self._undo.callback(client.close)
        if self._affinity:
            client.call("run_on", cpus=[1])  # its helper too, which inherits it
        return client

    def processes(self) -> dict[str, int]:
        """Name → pid of everything that a byte passes on this side."""
        found = {layer: self.stack.pid(layer) for layer in self.layers}
        helper = probes.helper_pid(self.client.pid)
        if helper is not None:
            found["helper"] = helper
        return {**found, "client": self.client.pid, "peer": self.peer.pid}

    def counters(self) -> dict[str, dict[str, int]]:
        """Each layer's counters."""
        return {layer: control.request("counters")["counters"] for layer, control in self._controls.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


class VethWorld:
    """Two namespaces, a veth pair of MTU 1500 between them, and the same programs on the kernel's own sockets."""

    kind = "kernel"

    def __init__(self, *, seed: int, offload: bool = True) -> None:
        self._undo = contextlib.ExitStack()
        try:
            ours = self.ours = self._undo.enter_context(Namespace())
            theirs = self.theirs = self._undo.enter_context(Namespace())
            ours.connect(theirs, ("veth0", "10.0.0.2/24"), ("veth0", "10.0.0.1/24"))
            if not offload:
                for namespace in (ours, theirs):
                    argv = [sys.executable, "-m", "benchmarks.offload", "veth0"]
                    namespace.run(argv, env=_VARIABLES)
            self.peer = Agent(popen_in(theirs), "peer", "10.0.0.2", seed)
            self._undo.callback(self.peer.close)
            self.client = Agent(popen_in(ours), "kernel", "10.0.0.1", seed)
            self._undo.callback(self.client.close)
        except BaseException:
            self._undo.close()
            raise

    address = "10.0.0.2"

    def processes(self) -> dict[str, int]:
        """As StackWorld's."""
        return {"client": self.client.pid, "peer": self.peer.pid}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def popen_in(namespace: Namespace) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts programs of ours in a namespace, on the kernel's sockets, with the arguments behind the interpreter's."""

    def popen(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return namespace.popen([sys.executable, *argv], env=_VARIABLES, cwd=ROOT, **options)

    return popen


assert set(MODULES) == set(LAYERS)
