"""What is around the addons of a process (levelip.ipc.addons.World), in virtual time; it writes down what it hears."""

from __future__ import annotations

from levelip.addon import Bytes
from levelip.tracing.events import Event


class AddonWorld:
    """`listening`: whether an addon wants events. Nothing bounds how long its code runs."""

    def __init__(self, process: str, memory: Bytes) -> None:
        self.process = process
        self.memory = memory
        self.counters: dict[str, int] = {}
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.listening = False

    @property
    def interest(self) -> bool:
        """Whether somebody listens."""
        return True

    def count(self, name: str, n: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + n

    def log(self, text: str) -> None:
        self.lines.append(text)

    def publish(self, event: Event) -> None:
        self.events.append(event)

    def listen(self, on: bool) -> None:
        self.listening = on

    def changed(self) -> None: ...

    def arm(self, addon: str) -> None: ...

    def disarm(self) -> None: ...
