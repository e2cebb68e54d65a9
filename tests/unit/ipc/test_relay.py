"""Words between processes: which way they take, and what may be asked for so."""

from __future__ import annotations

from typing import Any

import pytest

from levelip.frames.core import DEFERRED, ControlError
from levelip.ipc.pipe import PipeWord
from levelip.ipc.relay import LINKS, Relay, next_hop


@pytest.mark.parametrize(
    ("here", "to", "up", "hop"),
    [
        ("gateway", "link", ("tcp", "udp"), "tcp"),
        ("gateway", "link", ("udp",), "udp"),
        ("tcp", "link", ("ip", "gateway"), "ip"),
        ("tcp", "udp", ("ip", "gateway"), "ip"),
        ("tcp", "link", ("gateway",), "gateway"),
        ("ip", "gateway", ("link", "udp"), "udp"),
        ("link", "gateway", (), ""),
        ("ip", "nobody", ("link", "tcp"), ""),
    ],
)
def test_the_shortest_way_over_neighbours_that_are_up(here: str, to: str, up: tuple[str, ...], hop: str) -> None:
    """udp beside tcp is a way round; where nobody is up, or nobody is meant, there is none."""
    assert next_hop(here, to, up) == hop


class Line:
    """Two ends of a pipe, as far as a relay sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up: int | None = 1
        self.words: list[PipeWord] = []
        self.other: Line

    def say(self, word: PipeWord) -> bool:
        if self.up is not None:
            self.other.words.append(word)
        return self.up is not None


class Net:
    """The five processes, each with its relay; every command is answered with who carried it out, and how."""

    def __init__(self) -> None:
        self.lines = {one: {other: Line(other) for other in others} for one, others in LINKS.items()}
        for one, lines in self.lines.items():
            for other, line in lines.items():
                line.other = self.lines[other][one]
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.relays = {name: self._relay(name) for name in LINKS}

    def _relay(self, name: str) -> Relay:
        def command(request: str, args: dict[str, Any]) -> dict[str, Any]:
            if request == "debug.fail":
                raise ControlError("no")
            return {"by": name, "request": request, **args}

        return Relay(name, self.lines[name], command, lambda *answer: self.answers.append(answer))  # type: ignore[arg-type]

    def run(self) -> None:
        for _ in range(20):
            for name, lines in self.lines.items():
                for line in lines.values():
                    if line.words:
                        self.relays[name].hear(line)  # type: ignore[arg-type]


def test_a_question_finds_its_layer_and_the_answer_its_asker() -> None:
    """From gateway to link over tcp and ip, and back; several at once."""
    net = Net()
    for token, process in ((5, "link"), (6, "ip"), (7, "udp")):
        args = {"layer": process, "command": "debug.state", "arguments": {"x": token}}
        assert net.relays["gateway"].ask(token, args) is DEFERRED
    net.run()
    assert sorted(net.answers, key=lambda one: one[0]) == [
        (token, {"ok": True, "data": {"by": process, "request": "debug.state", "x": token}})
        for token, process in ((5, "link"), (6, "ip"), (7, "udp"))
    ]


@pytest.mark.parametrize("name", ["addon.load", "record.start", "set", "fault.set", "relay.ask", "tap.listen"])
def test_nothing_but_what_a_debugger_needs_goes_this_way(name: str) -> None:
    """No code is loaded and no file written for another host; an error of a command comes back as its text."""
    net = Net()
    net.relays["tcp"].ask(1, {"layer": "ip", "command": name, "arguments": {}})
    net.relays["tcp"].ask(2, {"layer": "ip", "command": "debug.fail", "arguments": {}})
    net.run()
    assert net.answers == [
        (1, {"ok": False, "data": f"{name} cannot be asked for from another process"}),
        (2, {"ok": False, "data": "no"}),
    ]


def test_where_there_is_no_way_it_is_said_at_once() -> None:
    """Here, or by the process at which the way ends."""
    net = Net()
    net.lines["ip"]["link"].up = None
    net.lines["gateway"]["tcp"].up = net.lines["gateway"]["udp"].up = None
    with pytest.raises(ControlError, match="no way to link from gateway now"):
        net.relays["gateway"].ask(1, {"layer": "link", "command": "status", "arguments": {}})
    net.relays["tcp"].ask(2, {"layer": "link", "command": "status", "arguments": {}})
    net.run()
    ((token, answer),) = net.answers
    assert token == 2 and not answer["ok"] and "no way to link now" in answer["data"]


def test_answers_to_nobody_and_endless_questions_do_no_harm() -> None:
    """An answer that nobody waits for is dropped; what goes in circles ends; what is never answered is forgotten."""
    net = Net()
    net.lines["ip"]["tcp"].words.append(PipeWord(99, "", "answer", "", {"x": 1}))
    net.lines["link"]["ip"].words.append(PipeWord(7, "nobody", "ask", "status", {}, 8))
    net.run()
    assert net.answers == []
    net.lines["tcp"]["ip"].other.words.clear()
    for token in range(1, 1001):
        net.relays["tcp"].ask(token, {"layer": "ip", "command": "status", "arguments": {}})
    assert len(net.relays["tcp"]._pending) == 256
