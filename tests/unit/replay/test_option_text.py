"""Socket options as tcp hears of them become calls for which it hears of them again."""

from __future__ import annotations

import pytest

from gateway.options import OPTIONS, Kind, Option, all_for_tcp, for_tcp
from simulation.replay.optiontext import option_call
from simulation.script.parse import parse
from simulation.script.run import Result, Runner, prepare

TOLD = [option for option in OPTIONS.values() if option.tcp]
VALUES = {
    Kind.FLAG: (0, 1), Kind.INT: (1, 3), Kind.BUFFER: (4000, 100_000), Kind.TOS: (0x10, 0xB8), Kind.TTL: (3, 64),
    Kind.MAXSEG: (600, 1400), Kind.QUICKACK: (0, 1, 2), Kind.DEFER: (1, 4), Kind.LINGER2: (-1, 5),
    Kind.CLAMP: (2000, 50_000), Kind.NAME: (1, 2), Kind.PORTS: (),
}  # fmt: skip


@pytest.mark.parametrize("option", TOLD, ids=[option.name for option in TOLD])
def test_tcp_hears_the_same(option: Option) -> None:
    """Every option that tcp acts on but those of choosing a port, which a script does by itself."""
    for kept in VALUES[option.kind]:
        value = kept if option.kind is Kind.BUFFER else for_tcp(option, kept)
        call = option_call(3, option.tcp, value)
        if option.tcp in ("reuse_address", "reuse_port"):
            assert call == ""
            continue
        script = parse(f"0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 {call}")
        runner = Runner(script, prepare(script, {}, ()), Result(script))
        runner.run()
        (row,) = runner.host.gateway.snapshot()["state"]["sockets"].values()
        assert all_for_tcp(row["options"])[option.tcp] == value, call


def test_what_no_call_says() -> None:
    """Another's name, or a value between those that can be set."""
    assert option_call(3, "nonsense", 1) is None
    assert option_call(3, "keepidle_ms", 1500) is None
    assert option_call(3, "congestion", 0) is None
