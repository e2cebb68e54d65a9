"""A run directory of the test's own, layers in it, and `lvlip` called in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from levelip.cli.main import cli
from levelip.ipc.rundir import RunDirectory

sys.path.insert(0, str(Path(__file__).parent))
from cli_layer import FakeLayer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, patient: None) -> None:
    """No settings of the one who runs the tests, and a directory without a level-ip.toml."""
    import os

    for name in list(os.environ):
        if name.startswith("LEVELIP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def layer(run: RunDirectory) -> Iterator[Callable[..., FakeLayer]]:
    """Starts a layer that answers as told; all are stopped at the end."""
    made: list[FakeLayer] = []

    def start(name: str, **answers: Any) -> FakeLayer:
        made.append(FakeLayer(run, name, {key.replace("_", "."): value for key, value in answers.items()}).start())
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def lvlip(run: RunDirectory) -> Callable[..., Result]:
    """Calls `lvlip` for the stack in `run`."""

    def call(*args: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--name", run.name, "--run", str(run.root), *args], input=input)

    return call
