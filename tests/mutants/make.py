"""The mutants of a module: mutmut changes one node of a function, here each gets a name that outlives other edits.

A mutant's **fingerprint** is a hash of its module, its function and its own diff without line numbers and indentation
(and a count, where one function has the same diff twice). Moving or renumbering code keeps it; changing the mutated
line makes a new mutant.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.file_mutation import create_mutations, deep_replace
from mutmut.utils.file_utils import walk_mutatable_files


@dataclass(slots=True)
class Mutant:
    """One change of one function. Lines are of the file; `start` and `removed` are lines of the function's source."""

    fingerprint: str
    module: str
    function: str
    """`Class.method`, or the function's name."""
    line: int
    """Where the change is."""
    reach: tuple[int, int]
    """First and last line of the statement that was changed: a test that runs none of them cannot tell."""
    start: int
    removed: int
    added: list[str]
    """Instead of `removed` lines from `start` on stand these."""
    original: list[str]
    """What they replace."""

    def diff(self) -> str:
        """As in `diff -U0`, without indentation."""
        old, new = textwrap.dedent("\n".join(self.original)), textwrap.dedent("\n".join(self.added))
        return "\n".join([f"- {line}" for line in old.splitlines()] + [f"+ {line}" for line in new.splitlines()])


@dataclass(slots=True)
class Made:
    """All of a module: the source of its functions (unindented), and the mutants."""

    module: str
    sources: dict[str, str]
    mutants: list[Mutant]


def modules() -> Iterator[tuple[str, Path]]:
    """What [tool.mutmut] of pyproject.toml names: module and file."""
    for path in sorted(walk_mutatable_files()):
        parts = path.with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def make(module: str, path: Path) -> Made:
    """The mutants that mutmut makes of a module."""
    tree, mutations, _, _ = create_mutations(str(path), path.read_text(encoding="utf-8"))
    wrapper = MetadataWrapper(tree, unsafe_skip_copy=True)
    positions = wrapper.resolve(PositionProvider)
    parents = wrapper.resolve(ParentNodeProvider)
    made = Made(module, {}, [])
    seen: Counter[str] = Counter()
    for mutation in mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, cst.FunctionDef):
            continue  # a statement of a module or class: it ran when the tests were imported
        name = _qualified(function, parents)
        if name not in made.sources:
            made.sources[name] = _source(function)
        changed = deep_replace(function, mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, cst.FunctionDef)
        old, new = made.sources[name].split("\n"), _source(changed).split("\n")
        if old == new:
            continue
        start, removed, added = _hunk(old, new)
        original = old[start : start + removed]
        change = "\n".join(["-", *map(str.strip, original), "+", *map(str.strip, added)])
        key = f"{module}:{name}\n{change}"
        seen[key] += 1
        digest = hashlib.sha256(f"{key}\n{seen[key]}".encode()).hexdigest()[:10]
        first = positions[function.name].start.line
        line = first + start - _lines_above(function)
        reach = _reach(mutation.original_node, function, positions, parents)
        made.mutants.append(Mutant(digest, module, name, line, reach, start, removed, added, original))
    return made


def mutated_source(made: Made, mutant: Mutant) -> str:
    """The source of the mutant's function."""
    lines = made.sources[mutant.function].split("\n")
    lines[mutant.start : mutant.start + mutant.removed] = mutant.added
    return "\n".join(lines)


def _source(function: cst.FunctionDef) -> str:
    return cst.Module([function.with_changes(leading_lines=())]).code


def _lines_above(function: cst.FunctionDef) -> int:
    """Lines of decorators before `def`."""
    return len(function.decorators)


def _qualified(function: cst.FunctionDef, parents: object) -> str:
    names = [function.name.value]
    node: cst.CSTNode | None = function
    while (node := parents.get(node)) is not None:  # type: ignore[attr-defined]
        if isinstance(node, cst.ClassDef):
            names.append(node.name.value)
    return ".".join(reversed(names))


def _hunk(old: list[str], new: list[str]) -> tuple[int, int, list[str]]:
    """From which line on how many are replaced, and by what."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return start, len(old) - start - end, new[start : len(new) - end]


def _reach(node: cst.CSTNode, function: cst.FunctionDef, positions: object, parents: object) -> tuple[int, int]:
    """The lines of the innermost statement around a node; of a parameter's default, the whole function."""
    where: CodeRange = positions[node] if node in positions else positions[function]  # type: ignore[index,operator]
    at: cst.CSTNode | None = node
    while at is not None and at is not function:
        if isinstance(at, cst.SimpleStatementLine):
            return positions[at].start.line, positions[at].end.line  # type: ignore[index]
        if isinstance(at, cst.Match):
            return (positions[at].start.line,) * 2  # type: ignore[index]
        if isinstance(at, cst.BaseCompoundStatement):
            return positions[at].start.line, where.end.line  # type: ignore[index]
        at = parents.get(at)  # type: ignore[attr-defined]
    body: CodeRange = positions[function.body]  # type: ignore[index]
    return body.start.line, body.end.line
