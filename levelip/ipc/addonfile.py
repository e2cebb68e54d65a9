"""An addon's file: who may have written it, its module, its hooks.

The module has a private name and its imports see the path of the process alone: a file beside it is not found by its
name. It is read once, from the descriptor whose owner was checked.
"""

from __future__ import annotations

import os
import stat
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from levelip import addon as face
from levelip.addon import HOOK, EventHook, FrameHook
from levelip.ipc.watchdog import TookTooLong
from levelip.tracing.expression import Expression, ExpressionError, compile_expression

MOST_BYTES = 1 << 20

Stamp = tuple[int, int, int]  # inode, size, mtime in ns: changes when the file does


class AddonError(Exception):
    """A file that cannot be loaded; the text says why, with the traceback where its own code failed."""


@dataclass(slots=True)
class Hook:
    """One function and what it is called for."""

    name: str
    call: Callable[..., Any]
    wants: FrameHook | EventHook
    expression: Expression | None
    calls: int = 0
    slow: int = 0
    worst_ns: int = 0


@dataclass(slots=True)
class AddonFile:
    """What was found in a file."""

    module: types.ModuleType
    stamp: Stamp
    doc: str
    hooks: list[Hook] = field(default_factory=list)
    loaded: Callable[..., Any] | None = None
    unloaded: Callable[..., Any] | None = None


def stamp_of(path: str) -> Stamp | None:
    """What tells that a file was changed; None if there is none."""
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def read_source(path: str) -> tuple[bytes, Stamp]:
    """The file's bytes. AddonError unless it is a regular file of root or of the user whose stack this is, and nobody
    else may write it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise AddonError(f"{path}: {error.strerror}") from None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise AddonError(f"{path} is not a regular file")
        if facts.st_uid not in (0, os.getuid()):
            who = f"uid {facts.st_uid}, and the stack runs as uid {os.getuid()}"
            raise AddonError(f"{path} belongs to {who}: an addon must be the stack owner's or root's")
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise AddonError(f"others may write {path}: chmod go-w it first")
        if facts.st_size > MOST_BYTES:
            raise AddonError(f"{path} has {facts.st_size} bytes; an addon has {MOST_BYTES} at most")
        return os.pread(fd, MOST_BYTES, 0), (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    finally:
        os.close(fd)


def load_file(path: str, name: str) -> AddonFile:
    """Run a file and find its hooks. AddonError for a file that must not or cannot be run."""
    source, stamp = read_source(path)
    module = types.ModuleType(f"_levelip_addon_{name}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    try:
        exec(compile(source, path, "exec"), module.__dict__)  # an addon is code of the stack's owner
    except (Exception, SystemExit, KeyboardInterrupt, TookTooLong) as error:
        raise AddonError(f"{path} does not load:\n{trace(error, path)}") from None
    found = AddonFile(module, stamp, (module.__doc__ or "").strip().partition("\n")[0])
    try:
        found.hooks = find_hooks(module)
    except ExpressionError as error:
        raise AddonError(f"{path}: {error}") from None
    found.loaded, found.unloaded = (_function(module, one) for one in ("loaded", "unloaded"))
    if not found.hooks:
        raise AddonError(f"{path} has no hooks: no function named frame or event, none decorated with levelip.addon")
    return found


def find_hooks(module: types.ModuleType) -> list[Hook]:
    """The functions of a module that want frames or events, in the order of the file."""
    hooks: list[Hook] = []
    for name, value in vars(module).items():
        if not callable(value):
            continue
        wants = getattr(value, HOOK, None)
        if wants is None and value is not getattr(face, name, None):
            wants = {"frame": [FrameHook()], "event": [EventHook()]}.get(name)
        for one in wants or ():
            expression = compile_expression(one.expression) if one.expression else None
            hooks.append(Hook(name, value, one, expression))
    return hooks


def _function(module: types.ModuleType, name: str) -> Callable[..., Any] | None:
    value = getattr(module, name, None)
    return value if callable(value) else None


def trace(error: BaseException, path: str) -> str:
    """The traceback from the addon's own lines on, as Python prints it."""
    import traceback

    rows = traceback.extract_tb(error.__traceback__)
    first = next((number for number, row in enumerate(rows) if row.filename == path), len(rows))
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(rows[first:])] if rows[first:] else []
    return sayable("".join([*lines, *traceback.format_exception_only(type(error), error)]).rstrip())


def sayable(text: str) -> str:
    """An addon's text as messages can hold it: halves of surrogate pairs, as surrogateescape makes them, escaped."""
    return text.encode(errors="backslashreplace").decode()
