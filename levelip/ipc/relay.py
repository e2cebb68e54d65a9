"""Words between processes beside the frames: a debugger's commands to layers on another host (docs/two-hosts.md).

A tool has sockets of its own host's processes alone. What it wants of a layer elsewhere it gives to one of those
(`relay.ask`), and they hand it on over their pipes, which are encrypted and authenticated between hosts, to the layer
that it is for; the answer takes the same way back. Only what a debugger needs goes this way: who may hand over packets
in a layer's name may stop and look into a stack, but not load code into it or write files for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from levelip.frames.core import DEFERRED, ControlError
from levelip.ipc.pipe import Pipe, PipeWord

ALLOWED: Final = ("status", "debug.", "host.")
"""Commands that may come from another process, by how they begin."""
LINKS: Final[dict[str, tuple[str, ...]]] = {
    "link": ("ip",), "ip": ("link", "tcp", "udp"), "tcp": ("ip", "gateway"), "udp": ("ip", "gateway"),
    "gateway": ("tcp", "udp"),
}  # fmt: skip
"""Which processes have a pipe to each other."""
_HOPS: Final = 8
_PENDING: Final = 256  # questions whose answers are awaited; the oldest is forgotten for one more


def next_hop(here: str, to: str, up: Iterable[str]) -> str:
    """The neighbour, of those that are up, from which it is the least far; empty if there is none."""
    paths = [(one, one) for one in LINKS.get(here, ()) if one in set(up)]
    seen = {here, *(one for one, _ in paths)}
    while paths:
        following = []
        for first, last in paths:
            if last == to:
                return first
            following += [(first, one) for one in LINKS[last] if one not in seen]
            seen |= {one for _, one in following}
        paths = following
    return ""


class Relay:
    """One process's part. `command` carries out a request of its own, `answer` gives a tool its answer."""

    def __init__(
        self, name: str, pipes: Mapping[str, Pipe], command: Callable[[str, dict[str, Any]], dict[str, Any]],
        answer: Callable[[int, dict[str, Any]], None],
    ) -> None:  # fmt: skip
        self._name = name
        self._pipes = pipes
        self._command = command
        self._answer = answer
        self._count = 0
        self._pending: OrderedDict[int, tuple[str, int]] = OrderedDict()  # number → (pipe or "", its number or token)

    def ask(self, token: int, args: dict[str, Any]) -> dict[str, Any]:
        """The control command relay.ask {layer, command, arguments} → {ok, data}; `data` is a text if not ok."""
        word = PipeWord(0, str(args["layer"]), "ask", str(args["command"]), dict(args["arguments"]), _HOPS)
        if not self._pass_on(word, "", token):
            raise ControlError(f"there is no way to {word.process} from {self._name} now")
        return DEFERRED

    def tell(self, neighbour: str, name: str, args: dict[str, Any]) -> None:
        """A command to a neighbour whose answer does not matter."""
        self._pipes[neighbour].say(PipeWord(0, neighbour, "ask", name, args, _HOPS))

    def hear(self, pipe: Pipe) -> None:
        """What has come over a pipe."""
        words, pipe.words = pipe.words, []
        for word in words:
            if word.what != "ask":
                self._give_back(word)
            elif word.process == self._name:
                self._carry_out(pipe, word)
            elif word.hops <= 1 or not self._pass_on(word, pipe.name, word.number):
                self._refuse(pipe, word, f"{self._name} has no way to {word.process} now")

    def _pass_on(self, word: PipeWord, whence: str, number: int) -> bool:
        up = [name for name, pipe in self._pipes.items() if pipe.up is not None and name != whence]
        hop = next_hop(self._name, word.process, up)
        if not hop:
            return False
        self._count += 1
        self._pending[self._count] = whence, number
        if len(self._pending) > _PENDING:
            self._pending.popitem(last=False)
        return self._pipes[hop].say(PipeWord(self._count, word.process, "ask", word.name, word.args, word.hops - 1))

    def _carry_out(self, pipe: Pipe, word: PipeWord) -> None:
        if not word.name.startswith(ALLOWED):
            self._refuse(pipe, word, f"{word.name} cannot be asked for from another process")
            return
        try:
            data = self._command(word.name, word.args)
        except ControlError as error:
            self._refuse(pipe, word, str(error))
            return
        pipe.say(PipeWord(word.number, "", "answer", "", data))

    def _refuse(self, pipe: Pipe, word: PipeWord, text: str) -> None:
        pipe.say(PipeWord(word.number, "", "error", text, {}))

    def _give_back(self, word: PipeWord) -> None:
        whence, number = self._pending.pop(word.number, ("", 0))
        if whence:
            if whence in self._pipes:
                self._pipes[whence].say(PipeWord(number, "", word.what, word.name, word.args))
        elif number:
            ok = word.what == "answer"
            self._answer(number, {"ok": ok, "data": word.args if ok else word.name})
