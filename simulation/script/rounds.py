"""When the cores of a script's host run: at once, or in rounds as a process's loop has them.

    at once      each packet and call is answered before the next; timers fire when they are due
    in rounds    (--rounds) tcp takes all that the lines of one instant bring, then its timers that are due run, then
                 it is asked what there is to send, once: the order of levelip/ipc/loop.py. A timer may be told to be
                 late, as it is in a loop that was busy, or slept by the millisecond

A recording of tcp is a sequence of rounds (docs/replay.md): a script in rounds gives tcp the calls that it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from simulation.net import SECOND, Net, NeverAtRest, Node

LATEST: Final = 3_600 * SECOND  # ns: a timer that is later than that is a mistake
_STEPS: Final = 400_000  # without an event of the script in between
_WAITING: Final = frozenset({"tcp"})


class AtOnce:
    """Whatever happens is answered at once."""

    in_rounds = False

    def __init__(self, net: Net, node: Node, after: Callable[[], None]) -> None:
        """`after` is called when something may have come of a step."""
        self._net = net
        self._node = node
        self._after = after

    def advance(self, to: int) -> None:
        """Let time pass, up to an instant, whatever is due then included. NeverAtRest."""
        self._net.advance(to, self._after)

    def step(self, until: int) -> bool:
        """Do what is due next; False if nothing is by the instant `until`."""
        at = self._net.next_event()
        if at is None or at > until:
            return False
        self._net.step(max(self._net.now, at))
        self._after()
        return True

    def took(self) -> None:
        """Something was given to the cores."""

    def settle(self) -> None:
        """End what goes on at this instant."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Whatever is asked within this is answered at once."""
        yield


class InRounds(AtOnce):
    """tcp is asked what it has to say at the end of a round: as soon as time goes on, or somebody wants to know."""

    in_rounds = True

    def __init__(self, net: Net, node: Node, after: Callable[[], None]) -> None:
        super().__init__(net, node, after)
        self.most: int | None = None  # steps that are done yet without an event of the script; None: no matter how many
        self._late_until = 0
        self._open = False  # something may have been taken since the last round
        node.waiting = _WAITING

    def delay(self, late: int) -> None:
        """The timers that are due now, and what else is due until then, run `late` ns from now."""
        self._late_until = self._net.now + late

    def _due(self) -> int | None:
        at = self._net.next_event()
        return None if at is None else max(at, self._late_until, self._net.now)

    def advance(self, to: int) -> None:
        """Up to an instant, what is due then not included: it belongs to the round that begins."""
        net = self._net
        if to <= net.now:
            return
        self.settle()
        for _ in range(_STEPS):
            at = self._due()
            if at is None or at >= to:
                net.now = to
                return
            net.now = at
            self._spend()
            self.settle()
        raise NeverAtRest(f"after {_STEPS} steps something is still due")

    def step(self, until: int) -> bool:
        """End the round, or else do what is due next; False if nothing is by the instant `until`."""
        if self._open:
            self.settle()
            return True
        at = self._due()
        if at is None or at > until:
            return False
        self._net.now = at
        self._spend()
        self.settle()
        return True

    def _spend(self) -> None:
        if self.most is None:
            return
        if self.most <= 0:
            raise NeverAtRest("more timers have run than any stack would have had")
        self.most -= 1

    def took(self) -> None:
        """Something was given to the cores: a round is open."""
        self._open = True

    def settle(self) -> None:
        """End the round: timers that are due, then what there is to send."""
        net = self._net
        self._open = False
        with self._asked():
            if net.now >= self._late_until:
                net.step(net.now)
            else:
                self._node.flush(net.now)
        self._after()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        self._node.waiting = frozenset()
        try:
            yield
        finally:
            self._node.waiting = _WAITING

    @contextmanager
    def paused(self) -> Iterator[None]:
        """End the round; what is asked within this is answered at once."""
        self.settle()
        with self._asked():
            yield
