"""Commands that a core cannot make sense of: whoever asked is told, and the process lives on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from levelip.frames.core import ControlError
from levelip.ipc import commandlog
from levelip.ipc.runtime import Runtime
from tests.unit.ipc.stoppingtools import Layer


def asks(value: Any) -> dict[str, Any]:
    """As commands take their arguments apart."""
    host, _, port = value["conn"].rpartition(":")
    return {"host": host, "port": int(port).to_bytes(2, "big")}


@pytest.mark.parametrize(
    "args",
    [{}, {"conn": 5}, {"conn": None}, {"conn": "10.0.0.1"}, {"conn": "10.0.0.1:70000"}, {"conn": []}],
    ids=["missing", "number", "nothing", "no port", "too large", "list"],
)
def test_arguments_of_another_kind(
    runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch, args: dict[str, Any]
) -> None:
    """Missing, of another type, or too large: "bad arguments", and the next command is carried out."""
    one = Layer(runtime)
    monkeypatch.setattr(one.core, "control", lambda _token, _name, given, _now: asks(given))
    try:
        with pytest.raises(ControlError, match="figures: bad arguments"):
            one.ask("figures", **args)
        assert one.ask("figures", conn="10.0.0.1:80") == {"host": "10.0.0.1", "port": b"\0\x50"}
    finally:
        one.close()


def test_values_that_do_not_convert(runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch) -> None:
    """msgspec's refusals likewise."""
    one = Layer(runtime)
    monkeypatch.setattr(one.core, "control", lambda *_: msgspec.convert({"value": "x"}, dict[str, int]))
    try:
        with pytest.raises(ControlError, match=r"conn: bad arguments: .*Expected `int`"):
            one.ask("conn")
    finally:
        one.close()


def test_the_log_says_where(
    runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be a fault of ours: a traceback, of each place once a minute, however often it is asked."""
    one = Layer(runtime)
    monkeypatch.setattr(one.core, "control", lambda _token, _name, given, _now: asks(given))
    clock = time.monotonic()
    monkeypatch.setattr(commandlog.time, "monotonic", lambda: clock)

    def logged() -> list[str]:
        for args in ({}, {"conn": 5}, {"conn": "10.0.0.1:70000"}) * 3:
            with pytest.raises(ControlError, match="figures: bad arguments"):
                one.ask("figures", **args)
        found = [record.exc_text or "" for record in caplog.records if "bad arguments" in record.message]
        caplog.clear()
        return found

    try:
        missing, other, large = logged()
        assert "KeyError: 'conn'" in missing and "in asks" in missing
        assert "AttributeError" in other and "OverflowError" in large
        assert logged() == []
        clock += commandlog.AGAIN_S
        assert len(logged()) == 3
    finally:
        one.close()
