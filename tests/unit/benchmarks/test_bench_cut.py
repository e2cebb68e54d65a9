"""What "tracing cut out of the source" removes, and that it leaves the rest."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from benchmarks.cut import Cutter
from benchmarks.profiles import read
from tests.system.harness import ROOT


def cut(source: str) -> tuple[str, int]:
    cutter = Cutter()
    return ast.unparse(cutter.visit(ast.parse(source))), cutter.count


def test_what_asks_whether_somebody_listens_is_removed_with_what_it_guards() -> None:
    """Alone, within `and`, as the only statement of a body; an `else` stays."""
    source = """
def f(self, x):
    if self.interest:
        self.emit(x)
    if self.tap.frames:
        publish(x)
    if x and ctx.interest:
        emit(x)
    else:
        other(x)
    if x.frames:
        keep(x)
def g(self):
    if self._work.interest:
        emit()
"""
    text, count = cut(source)
    assert count == 4
    for gone in ("interest", "emit", "publish"):
        assert gone not in text
    for kept in ("other(x)", "keep(x)", "def g(self):\n    pass"):
        assert kept in text


@pytest.mark.parametrize(
    "path", ["levelip/ipc/loop.py", "layers/ip/context.py", "layers/link/context.py", "layers/tcp/output.py"]
)
def test_there_is_something_to_cut_in_the_stack(path: str) -> None:
    """If the stack asked in another way, the comparison would compare it with itself."""
    _, count = cut((ROOT / path).read_text(encoding="utf-8"))
    assert count >= 1


def test_recording_is_cut_by_its_own_question() -> None:
    """What asks whether calls are recorded goes, what asks whether somebody listens stays."""
    cutter = Cutter("recording")
    source = (ROOT / "levelip/ipc/loop.py").read_text(encoding="utf-8")
    text = ast.unparse(cutter.visit(ast.parse(source)))
    assert cutter.count >= 1
    assert "receive_all" in source and "receive_all" not in text
    assert "if self.tap.interest" in text


def test_a_profile_counts_own_and_inherited_time_once_a_sample(tmp_path: Path) -> None:
    """Recursion does not count twice; samples of the start are left out; paths are shown below the checkout."""
    loop, core = f"{ROOT}/levelip/ipc/loop.py:Loop.run:70", f"{ROOT}/layers/tcp/core.py:Core.receive:12"
    samples = [
        [[core, core, loop], 3],
        [[loop], 1],
        [["<frozen importlib._bootstrap>:_find_and_load:1", loop], 9],
    ]
    path = tmp_path / "1.json"
    path.write_text(json.dumps({"command": ["python", "-P", "-m", "layers.tcp", "--set", "x=1"], "samples": samples}))
    profile = read(path)
    assert (profile.process, profile.total) == ("tcp", 4)
    assert profile.own["layers/tcp/core.py Core.receive"] == 3
    assert profile.below["layers/tcp/core.py Core.receive"] == 3
    assert profile.below["levelip/ipc/loop.py Loop.run"] == 4
    assert profile.lines["layers/tcp/core.py:12 Core.receive"] == 3
