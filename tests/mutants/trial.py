"""One mutant against the tests that reach it, in a child of this process.

Everything is imported and collected once, by pytest, unmutated. A child then gives the function the mutant's code
(`__code__` and defaults, so that whoever holds the function has the mutant), and runs the tests until one fails.
mutmut's own way, a copy of each function beside the original and a switch in front of it, costs a switch a call and
a collection a mutant: here a killed mutant takes some 50 ms.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import resource
import signal
import sys
import textwrap
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.make import Made, Mutant, mutated_source

KILLED, SURVIVED, UNFIT = 1, 0, 4
"""Exit statuses of a child."""
TIMES = 8
"""A test that takes this many times its own time hangs, but for the first"""
SECONDS = 1.5
"""seconds of CPU."""
IDLE_SECONDS = 60.0
"""So long a single test may sleep: that uses no CPU. Waiting for a CPU that others have is not sleeping."""
MEMORY = 3 << 30
"""Bytes of address space of a child."""


def live_function(module: str, name: str) -> types.FunctionType:
    """The function object that the tests use."""
    holder: Any = importlib.import_module(module)
    *classes, last = name.split(".")
    for cls in classes:
        holder = getattr(holder, cls)
    found = holder.__dict__[last]
    function = getattr(found, "__func__", found)
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{module}.{name} is no function of Python")
    return function


def compiled(source: str, name: str, function: types.FunctionType) -> types.FunctionType:
    """A function made from the source of one, as a member of its class and module."""
    *classes, last = name.split(".")
    for cls in reversed(classes):
        source = f"class {cls}:\n" + textwrap.indent(source, "    ")
    # the compiler calls an attribute of a name that the module imported in another way than one of a variable
    names = imported(function.__code__.co_filename)
    known = f"if 0:\n    import {', '.join(names)}\n" if names else ""
    space = dict(function.__globals__)
    exec(compile(f"from __future__ import annotations\n{known}{source}", function.__code__.co_filename, "exec"), space)
    found: Any = space[(classes or [last])[0]]
    for part in [*classes[1:], last] if classes else []:
        found = found.__dict__[part]
    made = getattr(found, "__func__", found)
    assert isinstance(made, types.FunctionType)
    return made


@functools.cache
def imported(path: str) -> tuple[str, ...]:
    """The names that a module imports."""
    statements = ast.parse(Path(path).read_text(encoding="utf-8")).body
    found = [alias for each in statements if isinstance(each, ast.Import | ast.ImportFrom) for alias in each.names]
    return tuple(sorted({(alias.asname or alias.name).partition(".")[0] for alias in found} - {"annotations"}))


def check(made: Made) -> list[str]:
    """Functions whose source, compiled alone, is not the code that runs: they cannot be mutated so."""
    unfit = []
    for name, source in made.sources.items():
        try:
            function = live_function(made.module, name)
            if compiled(source, name, function).__code__.co_code != function.__code__.co_code:
                unfit.append(name)
        except (KeyError, TypeError, AttributeError, SyntaxError):
            unfit.append(name)
    return unfit


def put_in(made: Made, mutant: Mutant) -> None:
    """From now on the function does what the mutant does."""
    function = live_function(made.module, mutant.function)
    new = compiled(mutated_source(made, mutant), mutant.function, function)
    function.__code__ = new.__code__
    function.__defaults__ = new.__defaults__
    function.__kwdefaults__ = new.__kwdefaults__


class EndAtFailure:
    """In a child: the first test that fails ends it, before anybody writes a report about it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """A failure, in setup, call or teardown."""
        if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
            return
        if item.get_closest_marker("xfail") is None:
            os._exit(KILLED)


class SleepLimit:
    """Ends this process if it sleeps `IDLE_SECONDS` in one test, however busy the machine is with other work."""

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, self._look)

    def begin(self) -> None:
        """A test begins."""
        self.since = time.monotonic() - self._ready()
        signal.setitimer(signal.ITIMER_REAL, IDLE_SECONDS)

    def _look(self, _number: int, _frame: object) -> None:
        left = IDLE_SECONDS - (time.monotonic() - self._ready() - self.since)
        if left <= 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, max(left, 1.0))

    @staticmethod
    def _ready() -> float:
        """Seconds in which this process ran, or could have run (/proc/PID/schedstat: running and waiting, in ns)."""
        running, waiting, _ = Path("/proc/self/schedstat").read_text(encoding="ascii").split()
        return (int(running) + int(waiting)) / 1e9


def start(made: Made, mutant: Mutant, items: Sequence[pytest.Item], seconds: Sequence[float]) -> int:
    """Run a mutant against tests, in this order; `seconds` of CPU that each takes unmutated. The child's pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        quiet = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(quiet, fd)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGPROF, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        sleep = SleepLimit()
        try:
            put_in(made, mutant)
        except BaseException:
            os._exit(UNFIT)
        items[0].config.pluginmanager.register(EndAtFailure(), "end-at-failure")
        for index, item in enumerate(items):
            signal.setitimer(signal.ITIMER_PROF, max(SECONDS, TIMES * seconds[index]))
            sleep.begin()
            runtestprotocol(item, nextitem=items[index + 1] if index + 1 < len(items) else None, log=False)
        os._exit(SURVIVED)
    except BaseException:
        os._exit(KILLED)
    raise AssertionError("not reached")


def status_of(wait_status: int) -> str:
    """killed, survived, timeout, unfit (it does not compile), or suspicious: its end is no test's doing."""
    if os.WIFSIGNALED(wait_status):
        return "timeout" if os.WTERMSIG(wait_status) in (signal.SIGPROF, signal.SIGALRM) else "suspicious"
    code = os.WEXITSTATUS(wait_status)
    return {KILLED: "killed", SURVIVED: "survived", UNFIT: "unfit"}.get(code, "suspicious")
