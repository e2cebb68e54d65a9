"""What every shell needs besides its core: who it is, where it lives, its clock, memory and log."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import signal
import sys
from collections.abc import Iterator

import zmq
from zmq.auth.thread import ThreadAuthenticator

from levelip.config import Config
from levelip.ipc.clock import StackClock
from levelip.ipc.memory import Memory
from levelip.ipc.rundir import RunDirectory
from levelip.tracing import reasons

_STRANGERS_TOLD = 100
"""Unknown keys that are logged; all are counted."""


class Runtime:
    """One process of a stack. `epoch` is new at each start (62 random bits, odd, so never 0)."""

    def __init__(self, name: str, config: Config, run: RunDirectory) -> None:
        self.name = name
        self.config = config
        self.run = run
        self.epoch = secrets.randbits(62) | 1
        self.counters: dict[str, int] = {}
        self.log = logging.getLogger(name)
        self.stopping = False
        run.enter()
        self.lock = run.lock(name)
        self.clock = StackClock(run.clock)
        self.memory = Memory(run.memory, run.sessions)
        self.context = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        cpus = config.ipc.affinity.get(name)
        if cpus:
            try:
                os.sched_setaffinity(0, cpus)
            except OSError as error:
                self.log.warning("ipc.affinity %s: %s", cpus, error.strerror)

    def count(self, name: str, n: int = 1) -> None:
        """Add to one of the shell's counters."""
        self.counters[name] = self.counters.get(name, 0) + n

    def rng(self) -> random.Random:
        """The core's random numbers: from stack.seed where one is set, else from the system."""
        seed = self.config.stack.seed
        return random.Random(f"{seed}/{self.name}" if seed else secrets.randbits(128))

    def authenticate(self) -> None:
        """Admit only the CURVE keys of ipc.allowed_keys on our tcp:// endpoints (CURVE alone admits any key)."""
        if self._authenticator is not None:
            return
        self._authenticator = ThreadAuthenticator(self.context, log=logging.getLogger("zap"))
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", _AllowedKeys(self))

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the loop."""

        def stop(_number: int, _frame: object) -> None:
            self.stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Give up everything but the lock, which the end of the process releases."""
        if self._authenticator is not None:
            self._authenticator.stop()
        self.context.destroy(linger=100)
        self.memory.close()
        self.clock.close()


class _AllowedKeys:
    """ZAP's question for each connection: is this public key (Z85) one of ipc.allowed_keys? Asked in a thread of its
    own; of each stranger the first attempt is logged."""

    def __init__(self, runtime: Runtime) -> None:
        self._keys = {key.encode("ascii") for key in runtime.config.ipc.allowed_keys}
        self._runtime = runtime
        self._told: set[bytes] = set()
        runtime.counters.setdefault(reasons.UNKNOWN_KEY.counter, 0)  # so that counting adds no key while others read

    def callback(self, _domain: str, key: bytes) -> bool:
        if key in self._keys:
            return True
        self._runtime.count(reasons.UNKNOWN_KEY.counter)
        if key not in self._told and len(self._told) < _STRANGERS_TOLD:
            self._told.add(key)
            self._runtime.log.warning("a connection with the unknown public key %s was refused", key.decode("ascii"))
        return False


def start_logging(level: str) -> None:
    """Log to stderr, which supervisord writes to the process's own file."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
        force=True,
    )
