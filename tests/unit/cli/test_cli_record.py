"""`lvlip record`: which layers are recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_layer import FakeLayer
from click.testing import Result

from levelip.frames.core import ControlError


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
    result = lvlip("record", "start", str(tmp_path / "rec"), "--layer", "ip", "--layer", "tcp")
    assert (result.exit_code, result.stderr) == (1, "lvlip: not running: tcp; there runs ip\n")
    assert "record.start" not in [request for request, _ in ip.asked]


@pytest.mark.parametrize("verb", ["start", "dump"])
@pytest.mark.parametrize("words", ["tpc", "ip,tpc", ","])
def test_a_layer_that_there_is_not_is_wrong_usage(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path, verb: str, words: str
) -> None:
    """With those that there are, whether they run or not."""
    ip = layer("ip")
    result = lvlip("record", verb, str(tmp_path / "rec"), "--layer", words)
    name = words.rpartition(",")[2]
    assert result.exit_code == 2
    assert f"there is no layer {name!r}; there are link, ip, tcp, udp, gateway" in result.stderr
    assert ip.asked == [] and not (tmp_path / "rec").exists()


@pytest.mark.parametrize("verb", ["start", "dump"])
def test_what_is_refused_leaves_no_directory(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path, verb: str
) -> None:
    """Nor those above it that were made for it; what was there before stays, and so does what is in it."""

    def refuse(_args: dict[str, object]) -> dict[str, object]:
        raise ControlError("it is recorded already, into /x/tcp.rec; end that with: lvlip record stop")

    layer("tcp", **{f"record_{verb}": refuse}, record_status={"writing": None})
    result = lvlip("record", verb, str(tmp_path / "a" / "b"))
    assert result.exit_code == 1 and "recorded already" in result.stderr
    assert not (tmp_path / "a").exists()
    there = tmp_path / "there"
    there.mkdir()
    assert lvlip("record", verb, str(there)).exit_code == 1
    assert there.is_dir()


def test_what_one_layer_refuses_ends_the_recordings_of_the_others(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path
) -> None:
    """And their files are gone."""

    def begin(args: dict[str, str]) -> dict[str, object]:
        Path(args["file"]).touch()
        return {}

    def refuse(_args: dict[str, object]) -> dict[str, object]:
        raise ControlError("no space")

    ip = layer("ip", record_start=begin, record_stop={})
    layer("tcp", record_start=refuse)
    result = lvlip("record", "start", str(tmp_path / "rec"))
    assert result.stderr == "lvlip: no space; nothing is recorded\n"
    assert "record.stop" in [request for request, _ in ip.asked]
    assert not (tmp_path / "rec").exists()
