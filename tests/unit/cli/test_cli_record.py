"""`lvlip record`: which layers are recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_layer import FakeLayer
from click.testing import Result


@pytest.mark.parametrize(
    "words",
    [("--layer", "ip", "--layer", "tcp"), ("--layer", "ip,tcp"), ("--layers", "ip,tcp"), ("--layer", "ip, tcp,ip")],
)
def test_layers_are_named_one_by_one_or_with_commas(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path, words: tuple[str, ...]
) -> None:
    """As for trace, stat and addon load: --layer, as often as there are layers."""
    for name in ("link", "ip", "tcp"):
        layer(name, record_start={})
    result = lvlip("record", "start", str(tmp_path / "rec"), *words)
    assert result.stdout.startswith(f"recording ip, tcp into {tmp_path}/rec;")


def test_a_layer_that_does_not_run_is_named(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path
) -> None:
    """With those that do; and nothing is recorded."""
    ip = layer("ip", record_start={})
    result = lvlip("record", "start", str(tmp_path / "rec"), "--layer", "ip", "--layer", "tpc")
    assert (result.exit_code, result.stderr) == (1, "lvlip: tpc is not running; there are ip\n")
    assert "record.start" not in [request for request, _ in ip.asked]
