"""Packet scripts are tests: each .pkt file below this directory is one, and its `// rfc:` lines are its marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.script.language import Script, ScriptError
from simulation.script.parse import parse
from simulation.script.report import error_text, failure_text
from simulation.script.run import Result, run


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    """One item a script."""
    if file_path.suffix == ".pkt":
        collected: pytest.Collector = PacketScript.from_parent(parent, path=file_path)
        return collected
    return None


class PacketScript(pytest.File):
    """A .pkt file."""

    def collect(self) -> Iterator[pytest.Item]:
        source = self.path.read_text(encoding="utf-8")
        name = str(self.path.relative_to(self.config.rootpath))
        try:
            script = parse(source, name)
        except ScriptError as error:
            raise self.CollectError(error_text(name, None, error, source)) from None
        item: PacketItem = PacketItem.from_parent(self, name=self.path.stem, script=script)
        for clause in script.clauses:
            item.add_marker(pytest.mark.rfc(clause))
            item.user_properties.append(("rfc", clause))
        yield item


class PacketItem(pytest.Item):
    """One script. Packets that it does not expect are a failure, also at its end."""

    def __init__(self, *, script: Script, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.script = script

    def runtest(self) -> None:
        result = run(self.script, strict=True)
        if result.status:
            raise ScriptFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        error = excinfo.value
        return error.text() if isinstance(error, ScriptFailed) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


class ScriptFailed(Exception):
    """A script that did not pass."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.script.path)
        self.result = result

    def text(self) -> str:
        """What `lvlip script run` would show."""
        if self.result.error is not None:
            return error_text(self.result.script.path, self.result.script, self.result.error)
        return failure_text(self.result)
