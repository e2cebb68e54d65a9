"""docs/congestion-control.md is true: its example runs as it stands there, its pictures are there and small."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.plots import SCENARIOS, simulate
from layers.tcp.congestion import find, label, make
from layers.tcp.core import TcpCore
from levelip.configfile import load
from tests.netsim.bottleneck import Path as NetworkPath
from tests.netsim.bottleneck import roomy

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "congestion-control.md").read_text(encoding="utf-8")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example in a file that Python finds, and the configuration that names it."""
    source = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class Aimd" in block)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "aimd.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings = re.search(r"```toml\n(.*?)```", TEXT, re.S)
    assert settings is not None
    (tmp_path / "level-ip.toml").write_text(settings[1], encoding="utf-8")
    yield load(tmp_path / "level-ip.toml", environ={}).tcp.congestion
    for name in ("lab", "lab.aimd"):
        sys.modules.pop(name, None)


def test_the_example_runs(lab: str) -> None:
    """A flow of it over 10 Mbit/s × 40 ms (33 packets) with as much queue: it fills the line, a loss takes an eighth of
    the window, and the restored core has it too."""
    assert label(make(lab)) == lab == "lab.aimd:Aimd"
    path = NetworkPath([roomy(congestion=lab)], rate=10_000_000, rtt_ms=40, queue=50_000)
    path.begin(0, 20_000_000)
    path.run(6)
    flow = path.flows[0]
    host = flow.host
    row = host.core.control(1, "ss", {}, path.net.now)["sockets"][0]
    assert row["congestion"] == "aimd"
    assert path.bottleneck.dropped and flow.acked[-1] * 8 >= 0.8 * 6 * 10_000_000
    assert not host.core.counters["rto_timeouts"]
    lowest, highest = min(flow.cwnd[300:]), max(flow.cwnd[300:])
    assert 0.8 * highest <= lowest < 0.9 * highest
    again = TcpCore.restore(host.config, host.core.snapshot())
    assert again.snapshot() == host.core.snapshot()


def test_the_example_is_a_page() -> None:
    """Forty lines are promised."""
    source = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class Aimd" in block)
    assert len(source.splitlines()) <= 40
    with pytest.raises(ValueError, match="lab"):
        find("lab.aimd:Aimd")


def test_the_pictures_are_there_and_small() -> None:
    """One for each scenario, each shown, none above 60 KB."""
    shown = set(re.findall(r"\(plots/([\w-]+)\.svg\)", TEXT))
    assert shown == set(SCENARIOS) == {path.stem for path in (DOCS / "plots").glob("*.svg")}
    assert all(path.stat().st_size < 60_000 for path in (DOCS / "plots").glob("*.svg"))


def test_the_pictures_are_of_this_code() -> None:
    """The title of a picture is about what its scenario comes to now: else `make plots` was forgotten."""
    for name in ("cubic", "cubic-ecn"):
        result = simulate(SCENARIOS[name])
        svg = (DOCS / "plots" / f"{name}.svg").read_text(encoding="utf-8")
        title = re.search(r"([\d.]+) Mbit/s, (\d+) lost", svg)
        assert title is not None
        assert float(title[1]) == pytest.approx(result.goodput, rel=0.03)
        assert int(title[2]) == pytest.approx(result.dropped, rel=0.5)
