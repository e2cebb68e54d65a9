"""A whole stack for a system test: five processes, their device in a namespace, and programs that use it.

    with Namespace() as namespace, Stack(namespace) as stack:
        server = namespace.socket()                  # a kernel socket at 10.0.0.1, used by the test itself
        server.bind((stack.host, 8000))
        server.listen()
        download = stack.submit(fetch, stack.host, 8000)   # `fetch`, a function of the test module, in a process
        ...                                                # of its own that finds the stack by its environment
        assert download.result(60) == digest

Everything a stack writes lies in a short directory below /tmp that `stop` removes. Every wait is bounded, and what
went wrong is told with the layers' status, counters and logs (`report`, which pytest shows with a failed test).
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from levelip.ipc.control import ControlClient, ControlError
from levelip.ipc.rundir import LAYERS, RunDirectory
from tests.system.namespace import Namespace, end, environment

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"link": "layers.link", "ip": "layers.ip", "tcp": "layers.tcp", "udp": "layers.udp", "gateway": "gateway"}
READY_S = 60.0
"""How long five Python processes may take to start and find each other, on a busy machine."""
_POLL_S = 0.02
_TAIL = 25  # lines of a log in a report


class NotReady(AssertionError):
    """The layers did not get ready in time; the text is the stack's report."""


class Stack:
    """One stack. `settings` are configuration keys ("tcp.delayed_ack_ms": 0); the rest is shorthand for the usual ones.

    `namespace` None starts the layers where the test runs, which only the wire device allows. `supervised` has
    `lvlip up` start them, under supervisord, so that a killed layer comes back by itself; else a killed layer stays
    away until `start_layer`. `layers`: those that run here. `variables` go into every environment. Not safe for use
    by several threads at once.
    """

    def __init__(
        self,
        namespace: Namespace | None = None,
        *,
        name: str = "t",
        device: str = "tap",
        offload: bool = True,
        address: str = "10.0.0.2/24",
        host: str = "10.0.0.1/24",
        settings: Mapping[str, Any] | None = None,
        layers: Sequence[str] = LAYERS,
        supervised: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        if namespace is None and device != "wire":
            raise ValueError(f"a {device} device needs a namespace")
        self.namespace = namespace
        self.name = name
        self.layers = tuple(layers)
        self.supervised = supervised
        self.address = address.partition("/")[0]
        self.host = host.partition("/")[0]
        self.directory = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
        self.env = {"LEVELIP_RUN": str(self.directory), "LEVELIP_NAME": name, **(variables or {})}
        self.run_directory = RunDirectory(name, self.directory)
        self.settings: dict[str, Any] = {
            "stack.layers": list(layers),
            "device.kind": device,
            "device.offload": offload,
            "device.host_address": host,
            "ip.address": address,
            "ip.gateway": self.host,
            **(settings or {}),
        }
        self._processes: dict[str, subprocess.Popen[Any]] = {}
        self._supervisor: subprocess.Popen[Any] | None = None
        self._clients: dict[str, ControlClient] = {}
        self._programs: list[subprocess.Popen[Any]] = []
        self._pool: ProcessPoolExecutor | None = None

    # start and end

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def start(self) -> Self:
        """Start all layers and wait until they are ready."""
        if self.supervised:
            flags = [flag for setting in self._flags() for flag in ("--set", setting)]
            patience = ["--timeout", f"{READY_S:g}"]
            self._supervisor = self._spawn("up", ["-m", "levelip.cli", "up", "--foreground", *patience, *flags])
        else:
            for layer in self.layers:
                self.start_layer(layer)
        self.wait_ready()
        if self.supervised:  # `lvlip up` ends the stack again if a layer is killed before it has seen all of them
            self.wait_until(lambda: "is up: " in self._up_log(), "lvlip up is done", timeout=READY_S)
        return self

    def _up_log(self) -> str:
        return (self.directory / "up.log").read_text(errors="replace")

    def start_layer(self, layer: str) -> None:
        """Start one layer by hand; AssertionError if the last one that was started so still runs."""
        assert not self.supervised, "supervisord starts the layers"
        last = self._processes.get(layer)
        assert last is None or last.poll() is not None, f"{layer} runs"
        flags = [flag for setting in self._flags() for flag in ("--set", setting)]
        self._processes[layer] = self._spawn(layer, ["-m", MODULES[layer], *flags])

    def _flags(self) -> list[str]:
        return [f"{key}={value if isinstance(value, str) else _toml(value)}" for key, value in self.settings.items()]

    def _spawn(self, log: str, argv: Sequence[str]) -> subprocess.Popen[Any]:
        command = [sys.executable, "-P", *argv]
        variables = {**self.env, "PYTHONPATH": str(ROOT)}
        with (self.directory / f"{log}.log").open("ab") as output:
            options: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
            if self.namespace is not None:
                return self.namespace.popen(command, env=variables, cwd=self.directory, **options)
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
            return subprocess.Popen(command, env=environment(variables), cwd=self.directory, **options)

    def wait_ready(self, *layers: str, timeout: float = READY_S) -> None:
        """Until these layers (all) run and wait for nobody that runs here. NotReady tells why not."""
        missing = list(layers or self.layers)
        deadline = time.monotonic() + timeout
        while missing:
            missing = [layer for layer in missing if not self._is_ready(layer)]
            ended = [child.poll() for child in self._starters() if child.poll() is not None]
            if missing and (ended or time.monotonic() > deadline):
                what = f"ended with {ended[0]}" if ended else f"not ready after {timeout:g} s"
                raise NotReady(f"{', '.join(missing)}: {what}\n{self.report()}")
            time.sleep(_POLL_S)

    def _starters(self) -> list[subprocess.Popen[Any]]:
        return [self._supervisor] if self._supervisor is not None else list(self._processes.values())

    def _is_ready(self, layer: str) -> bool:
        try:
            status = self.ask(layer, "status", timeout=5.0)
        except ControlError:
            return False
        return not set(status["waiting_for"]) & set(self.layers)

    def stop(self) -> None:
        """End programs, layers and supervisor; remove what they wrote."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        for program in self._programs:
            end(program, signal.SIGKILL)
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        children = [*reversed(self._processes.values()), *([self._supervisor] if self._supervisor else [])]
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            end(child, signal.SIGTERM, wait=60.0 if child is self._supervisor else 5.0)
        for layer in self.layers:  # only what a supervisor left behind: its children are not ours
            if pid := self.run_directory.holder(layer):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        memory = self.run_directory.memory  # of a user namespace's root, where the stack runs in one
        for path in memory.parent.glob(f"level-ip-*-{memory.name.rpartition('-')[2]}"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    # layers

    def pid(self, layer: str) -> int:
        """The process of a layer; AssertionError if it does not run."""
        pid = self.run_directory.holder(layer)
        assert pid, f"{layer} does not run"
        return pid

    def kill(self, layer: str, number: int = signal.SIGKILL) -> int:
        """Signal a layer's process (SIGKILL), and with SIGKILL wait for its end; the pid that it had."""
        pid = self.pid(layer)
        self._forget(layer)
        os.kill(pid, number)
        if number == signal.SIGKILL:
            if layer in self._processes:
                self._processes[layer].wait(60)
            deadline = time.monotonic() + 60
            while self.run_directory.holder(layer) == pid:
                assert time.monotonic() < deadline, f"{layer} (pid {pid}) survives SIGKILL"
                time.sleep(_POLL_S / 10)
        return pid

    def restart(self, layer: str, number: int = signal.SIGKILL) -> int:
        """Kill a layer, have it started again and wait until it is ready; its new pid."""
        old = self.kill(layer, number)
        if layer in self._processes:
            self._processes[layer].wait(60)
        if not self.supervised:
            self.start_layer(layer)
        deadline = time.monotonic() + READY_S
        while self.run_directory.holder(layer) in (None, 0, old):
            if time.monotonic() > deadline:
                raise NotReady(f"{layer} did not come back\n{self.report()}")
            time.sleep(_POLL_S)
        self.wait_ready(layer)
        return self.pid(layer)

    def ask(self, layer: str, request: str, *, timeout: float = 30.0, **args: Any) -> dict[str, Any]:
        """One request to a layer's control socket, and its answer. ControlError if refused or not running."""
        client = self._clients.get(layer)
        if client is None:
            client = self._clients[layer] = ControlClient(self.run_directory, layer, timeout=timeout)
        return client.request(request, timeout=timeout, **args)

    def _forget(self, layer: str) -> None:
        if layer in self._clients:
            self._clients.pop(layer).close()

    def counters(self, layer: str) -> dict[str, int]:
        """A layer's counters; one that never counted is missing."""
        counters: dict[str, int] = self.ask(layer, "counters")["counters"]
        return counters

    def snapshot(self, layer: str) -> dict[str, Any]:
        """A core's whole state."""
        snapshot: dict[str, Any] = self.ask(layer, "snapshot")["snapshot"]
        return snapshot

    def set(self, key: str, value: Any) -> None:
        """Change a setting while the layer runs ("tcp.delayed_ack_ms", 0)."""
        section, _, name = key.partition(".")
        self.ask(section, "set", section=section, key=name, value=value)

    def log(self, layer: str) -> str:
        """Everything that a layer has logged."""
        path = self.run_directory.logs if self.supervised else self.directory
        with contextlib.suppress(OSError):
            return (path / f"{layer}.log").read_text(errors="replace")
        return ""

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout: float = 60.0) -> None:
        """Until `condition()`, asked every 20 ms; AssertionError with `what` and the report if it stays false."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}\n{self.report()}"
            time.sleep(_POLL_S)

    def wait_listening(self, port: int) -> None:
        """Until a program of the stack listens there."""
        self.wait_until(
            lambda: any(
                row["state"] == "LISTEN" and row["local_port"] == port for row in self.ask("tcp", "ss")["sockets"]
            ),
            f"somebody listens at port {port}",
        )

    def wait_ended(self, port: int) -> None:
        """Until all of the connections with this port, ours or the peer's, that was to be sent has come: each is gone,
        or in TIME-WAIT. A program that has closed its socket is done long before."""
        self.wait_until(
            lambda: all(
                row["state"] in ("LISTEN", "TIME_WAIT")
                for row in self.ask("tcp", "ss")["sockets"]
                if port in (row.get("local_port"), row.get("remote_port"))
            ),
            f"the connections of port {port} end",
        )

    def remember(self) -> None:
        """Let the kernel on the other side of a tap, which knows our MAC address by now, keep it: no ARP request of its
        own, which it sends at some time to make sure, stands in a test's way."""
        assert self.namespace is not None
        shown = self.namespace.run(["ip", "-json", "neigh", "show", "to", self.address]).stdout
        (row,) = json.loads(shown)
        command = ["ip", "neigh", "replace", self.address, "lladdr", row["lladdr"], "dev", row["dev"]]
        self.namespace.run([*command, "nud", "permanent"])

    def report(self) -> str:
        """Status, drops and the end of the log of each layer."""
        parts = []
        for layer in self.layers:
            try:
                status = self.ask(layer, "status", timeout=1.0)
                waits = f", waits for {', '.join(status['waiting_for'])}" if status["waiting_for"] else ""
                parts.append(f"== {layer}: pid {status['pid']}, up {status['uptime_ns'] / 1e9:.1f} s{waits}")
                counters = self.counters(layer)
                parts += [f"   {name} {value}" for name, value in sorted(counters.items()) if name.startswith("drop.")]
            except ControlError as error:
                parts.append(f"== {layer}: {error}")
            parts += [f"   | {line}" for line in self.log(layer).splitlines()[-_TAIL:]]
        if self._supervisor is not None:
            parts += ["== lvlip up", *(f"   | {line}" for line in self._up_log().splitlines()[-_TAIL:])]
        return "\n".join(parts)

    # programs

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """Start `python ARGV` ("-c", "..." or a path, ...) as an application of this stack; killed at `stop`."""
        variables = {**self.env, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        options.setdefault("stdin", subprocess.DEVNULL)
        command = [sys.executable, *[os.fspath(word) for word in argv]]
        program = subprocess.Popen(command, env=environment(variables), **options)
        self._programs.append(program)
        return program

    def python(self, *argv: str | os.PathLike[str], check: bool = True, timeout: float = 60.0) -> str:
        """Run `python ARGV` as an application of this stack; what it printed. Its errors go to pytest's output."""
        program = self.popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = program.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            program.kill()
            raise AssertionError(f"{argv[0]}: not done within {timeout:g} s\n{self.report()}") from None
        if check and program.returncode:
            raise AssertionError(f"{argv[0]}: exit {program.returncode}\n{output}\n{self.report()}")
        return str(output)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Call a function of a test module in a process that is an application of this stack.

        Up to 8 run at once; each process serves later calls too. Ask the future's result with a time limit.
        """
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(8, mp_context=spawn, initializer=_become, initargs=(self.env,))
        return self._pool.submit(function, *args)

    def lvlip(self, *argv: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the `lvlip` command for this stack (in its namespace, as its owner would)."""
        command = [sys.executable, "-m", "levelip.cli", *argv]
        variables = {**self.env, "PYTHONPATH": str(ROOT)}
        if self.namespace is not None:
            return self.namespace.run(command, check=check, timeout=timeout, env=variables)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment(variables),
        )
        if check and done.returncode:
            raise AssertionError(f"lvlip {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done


def _become(variables: Mapping[str, str]) -> None:
    """Make this process an application of the stack that the variables name."""
    os.environ.update(variables)


def _toml(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(name)} = {_toml(item)}' for name, item in value.items())} }}"
    return msgspec.json.encode(value).decode()
