"""Faults as people write them: what each means, every mistake told, and where they are sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cli_layer import FakeLayer
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from levelip.debug.faultspec import BadFault, describe, parse
from levelip.ipc.faults import FaultSettings


def test_all_of_it() -> None:
    words = "loss=5% dup=1% reorder=3% delay=20ms±5ms corrupt=0.1% rate=10mbit seed=7 dir=up frames=whole"
    assert parse(words.split()) == {
        "loss": 0.05,
        "dup": 0.01,
        "reorder": 0.03,
        "corrupt": 0.001,
        "delay_ns": 20_000_000,
        "jitter_ns": 5_000_000,
        "rate_bps": 10_000_000,
        "seed": 7,
        "direction": "up",
        "frames": "whole",
    }


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("loss=0", {"loss": 0.0}),
        ("loss=100%", {"loss": 1.0}),
        ("delay=1.5ms", {"delay_ns": 1_500_000}),
        ("delay=20ms+-5us", {"delay_ns": 20_000_000, "jitter_ns": 5_000}),
        ("delay=1s", {"delay_ns": 1_000_000_000}),
        ("rate=1.5Mbit", {"rate_bps": 1_500_000}),
        ("rate=100kbps", {"rate_bps": 800_000}),
    ],
)
def test_units(word: str, fields: dict[str, Any]) -> None:
    assert parse([word]) == {"direction": "both", **fields}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("loss=5", "loss=5: must be a percentage from 0% to 100%, as loss=5%"),
        ("loss=101%", "loss=101%: must be a percentage from 0% to 100%, as loss=5%"),
        ("loss=-1%", "loss=-1%: must be a percentage from 0% to 100%, as loss=5%"),
        ("lost=5%", "'lost' is no fault; did you mean loss?"),
        ("x=5%", "'x' is no fault; known are loss, dup, reorder, corrupt, delay, rate, seed, dir, frames"),
        ("loss", "loss: give a value, as loss=5%"),
        ("loss=", "loss: give a value, as loss=5%"),
        ("loss=1% loss=2%", "loss is given twice"),
        ("delay=20", "delay=20: must be a time up to 3600s, as delay=20ms or delay=20ms±5ms"),
        ("delay=20ms±30ms", "delay=20ms±30ms: the jitter must not exceed the delay"),
        ("delay=20ms±", "delay=20ms±: must be a time up to 3600s, as delay=20ms or delay=20ms±5ms"),
        ("delay=3601s", "delay=3601s: must be a time up to 3600s, as delay=20ms or delay=20ms±5ms"),
        (
            "rate=10",
            "rate=10: must be a number with one of bit, kbit, mbit, gbit, bps, kbps, mbps, gbps, as rate=10mbit",
        ),
        ("rate=0.1bit", "rate=0.1bit: must be at least 1bit"),
        ("loss=1% seed=-1", "seed=-1: must be an integer from 0 to 9223372036854775807"),
        ("loss=1% dir=left", "dir=left: must be up (toward the applications), down or both"),
        ("loss=1% frames=half", "frames=half: must be wire (cut super-segments first) or whole"),
        ("seed=7", "give at least one of loss, dup, reorder, corrupt, delay, rate"),
    ],
)
def test_every_mistake_is_told(words: str, message: str) -> None:
    with pytest.raises(BadFault) as caught:
        parse(words.split())
    assert str(caught.value) == message


@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        parse(words)
    except BadFault as error:
        assert str(error)


@given(st.integers(1, 100), st.integers(1, 10**9), st.integers(0, 10**6), st.integers(1, 10**10), st.integers(0, 2**62))
def test_what_is_shown_can_be_typed_again(loss: int, delay: int, jitter: int, rate: int, seed: int) -> None:
    fault = {
        "loss": loss / 100, "delay_ns": delay, "jitter_ns": min(jitter, delay), "rate_bps": rate, "seed": seed,
        "direction": "both",
    }  # fmt: skip
    again = parse(describe(fault).split())
    assert {**again, "jitter_ns": again.get("jitter_ns", 0)} == fault


def test_what_is_sent_is_what_the_gates_take() -> None:
    words = "loss=5% dup=1% reorder=3% delay=20ms±5ms corrupt=0.1% rate=10mbit seed=7 dir=up frames=whole"
    assert set(parse(words.split())) <= set(FaultSettings.__struct_fields__)


def test_a_fault_goes_to_both_processes_that_share_the_seam(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    ip = layer("ip", fault_set={"sides": ["tcp down"]})
    tcp = layer("tcp", fault_set={"sides": ["ip up"]})
    result = lvlip("fault", "set", "ip-tcp", "loss=5%", "seed=7")
    assert (result.exit_code, result.stdout) == (0, "ip-tcp both: loss=5% seed=7\n")
    sent = {"seam": "ip-tcp", "direction": "both", "loss": 0.05, "seed": 7}
    assert ip.asked == tcp.asked == [("fault.set", sent)]


def test_a_seam_of_which_one_side_is_missing_is_refused(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    layer("ip")
    result = lvlip("fault", "set", "ip-tcp", "loss=5%")
    assert result.stderr == "lvlip: tcp must run for a fault on ip-tcp; see: lvlip status --name t\n"


def test_show_and_clear(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    fault = {
        "seam": "link", "direction": "up", "loss": 0.05, "dup": 0.0, "reorder": 0.0, "corrupt": 0.0, "delay_ns": 0,
        "jitter_ns": 0, "rate_bps": 0, "seed": 7, "frames": "wire", "packets": 100, "lost": 4, "duplicated": 0,
        "reordered": 0, "corrupted": 0, "overflowed": 0,
    }  # fmt: skip
    link = layer("link", fault_show={"faults": [fault]}, fault_clear={"cleared": ["link", "link"]})
    assert lvlip("fault", "show").stdout == (
        "seam  way  packets  lost  duplicated  reordered  corrupted  overflowed  fault\n"
        "link  up       100     4           0          0          0           0  loss=5% seed=7\n"
    )
    assert json.loads(lvlip("fault", "show", "--json").stdout)["lost"] == 4
    assert lvlip("fault", "clear", "link").stdout == "cleared: link\n"
    assert link.asked[-1] == ("fault.clear", {"seam": "link"})
