"""Runs a process of the stack with tracing, or recording, cut out of its source: what their being off is compared with.

python -m benchmarks.cut tracing layers.tcp [ARGUMENTS]: as `python -m layers.tcp`, but each `if` of our modules whose
test asks whether somebody listens (`interest`, `tap.frames`) is removed together with what it guards; with `recording`
in its place each that asks whether calls are recorded (`recording`).
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

PACKAGES = ("layers", "gateway", "levelip")
TRACING, RECORDING = "tracing", "recording"


def asks(test: ast.expr, what: str = TRACING) -> bool:
    """Whether an `if` with this test asks if somebody listens (`x.interest` or `x.tap.frames`) or, for RECORDING, if
    calls are recorded (`x.recording`), alone or with `and`."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(asks(value, what) for value in test.values)
    if not isinstance(test, ast.Attribute):
        return False
    if what == RECORDING:
        return test.attr == "recording"
    if test.attr == "interest":
        return True
    return test.attr == "frames" and isinstance(test.value, ast.Attribute) and test.value.attr == "tap"


class Cutter(ast.NodeTransformer):
    """Removes the guarded statements; `count` is how many."""

    def __init__(self, what: str = TRACING) -> None:
        self.count = 0
        self._what = what

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if not asks(node.test, self._what):
            return node
        self.count += 1
        return node.orelse or ast.copy_location(ast.Pass(), node)


class _Loader(importlib.machinery.SourceFileLoader):
    what = TRACING

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        cutter = Cutter(self.what)
        tree = ast.fix_missing_locations(cutter.visit(ast.parse(data, path)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname: str) -> Any:  # past the cache of compiled files
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder:
    """Loads our packages through _Loader."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def main() -> None:
    """Run the module that is named."""
    _Loader.what, module = sys.argv[1:3]
    sys.argv[:] = sys.argv[2:]
    sys.meta_path.insert(0, _Finder)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
