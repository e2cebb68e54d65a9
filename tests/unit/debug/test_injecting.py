"""What is said of packets that are put into a running stack."""

from __future__ import annotations

from typing import Any, cast

import pytest

from levelip.debug.debugger import Debugger
from levelip.debug.injecting import inject
from levelip.frames.core import ControlError

CONNECTION = "10.0.0.2:80>10.0.0.1:4711"


class Stack:
    """Stands for a debugger whose tcp knows the connection."""

    def __init__(self, *, timestamps: bool = True) -> None:
        self.timestamps = timestamps
        self.frames: list[Any] = []

    def ask(self, process: str, request: str, **args: Any) -> dict[str, Any]:
        if args["conn"] != CONNECTION:
            raise ControlError("no such connection")
        assert (process, request) == ("tcp", "conn")
        return {"tcb": {"tx": {"iss": 5}, "rx": {"irs": 9}, "timestamps": self.timestamps, "ts_recent": 77}}

    def inject(self, frame: Any, seam: str, way: str) -> str:
        self.frames.append((frame, seam, way))
        return ""


def note(line: str, *, where: str = "ip-tcp:up", connection: str = CONNECTION, timestamps: bool = True) -> str:
    stack = Stack(timestamps=timestamps)
    (done,) = inject(cast(Debugger, stack), where, line=line, connection=connection)
    assert len(stack.frames) == 1
    return str(done["note"])


def test_a_segment_without_the_timestamp_that_was_agreed_on() -> None:
    """It passes, and tcp will discard it (RFC 7323 3.2): that is said, and what to write behind the line."""
    said = note(". 1:1(0) ack 1 win 0")
    assert "tcp_no_timestamp" in said
    option = said[said.index("<") : said.index(">") + 1]
    assert option == "<nop,nop,TS val 77 ecr 0>"
    assert note(f". 1:1(0) ack 1 win 0 {option}") == ""


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("R 1:1(0)", {}),
        ("S 0:0(0)", {}),
        (". 1:1(0) ack 1", {"timestamps": False}),
        (". 1:1(0) ack 1", {"where": "ip-tcp:down"}),
        (". 1:1(0) ack 1", {"connection": "10.0.0.2:80>10.0.0.1:4712"}),
    ],
)
def test_nothing_is_said_where_none_is_needed(line: str, more: dict[str, Any]) -> None:
    assert note(line, **more) == ""
