"""What a process that is started again does with the addons of the one before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from levelip.frames.core import ControlError
from levelip.ipc import addonkeep
from levelip.ipc.addondesk import AddonDesk
from levelip.ipc.addonkeep import LOOP_S, MOST_STARTS, Keeping
from levelip.ipc.faults import Teller
from levelip.ipc.loop import Loop
from levelip.ipc.runtime import Runtime
from levelip.ipc.seampoints import SeamPoints
from levelip.tracing.events import Event
from tests.unit.ipc.stoppingtools import FakeCore, FakePort
from tests.unit.ipc.test_faults import packet
from tests.unit.replay.replay_bench import recorded

GOOD = 'from levelip import addon\n\n@addon.frame(seam="link-ip")\ndef hook(packet, context):\n    pass\n'
RAISES = GOOD.replace("pass", "raise RuntimeError('as planned')")
DIES = GOOD + "\ndef loaded(context):\n    raise KeyboardInterrupt\n"


class Process:
    """One life of ip, as far as addons go."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        port: Any = SimpleNamespace(name="link", seam="link-ip")
        tap: Any = SimpleNamespace(interest=False, watch=lambda _watcher: None)
        points = SeamPoints("ip", {"link": port}, feed=lambda *_: None, emit=lambda *_: None, now=runtime.clock.now)
        self.points = points.inbound
        self.desk = AddonDesk(runtime, tap, Teller(), points)

    def load(self, path: Path, **options: str) -> Any:
        return self.desk.command("addon.load", {"path": str(path), "options": options})

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.desk.command("addon.list", {})["addons"]
        return rows

    def states(self) -> dict[str, bool]:
        return {row["addon"]: row["running"] for row in self.rows()}

    def inside(self, addon: str) -> None:
        """Code of an addon begins to run, and never comes back."""
        self.desk._world.arm(addon)
        self.desk._world.watchdog.disarm()


@pytest.fixture
def start(runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Process]]:
    """Starts ip; the one before is gone, however it ended."""
    monkeypatch.setattr("levelip.ipc.addondesk.MOST_S", 100.0)  # what an addon may take, on a machine that is busy
    lives: list[Process] = []

    def make() -> Process:
        if lives:
            lives[-1].desk._world.watchdog.remove()
            os.close(lives[-1].runtime.lock)
        lives.append(Process(runtime("ip")))
        lives[-1].desk.restore()
        return lives[-1]

    yield make
    lives[-1].desk._world.watchdog.remove()


def write(directory: Path, text: str = GOOD, name: str = "one") -> Path:
    path = directory / f"{name}.py"
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_the_next_process_has_them_with_their_options_in_their_order(
    start: Callable[[], Process], tmp_path: Path
) -> None:
    """Killed at any instant; the stage stands before the first frame. What was unloaded does not come back."""
    first = start()
    for name in ("b", "a", "c"):
        first.load(write(tmp_path, name=name), key=name)
    first.desk.command("addon.unload", {"addon": "a"})
    second = start()
    assert [(row["addon"], row["running"], row["options"]) for row in second.rows()] == [
        ("b", True, {"key": "b"}), ("c", True, {"key": "c"}),
    ]  # fmt: skip
    assert second.points["link"].get("addon") is not None
    assert second.rows()[0]["log"] == ["loaded after the restart"]
    second.desk.command("addon.unload", {})
    assert not list(second.runtime.run.path.glob("*.addons.*"))
    assert not start().rows()


def test_what_raised_stays_out_until_its_file_changes(start: Callable[[], Process], tmp_path: Path) -> None:
    """It is listed with its traceback, as before the restart."""
    first = start()
    path = write(tmp_path, RAISES)
    first.load(path)
    first.load(write(tmp_path, name="other"))
    frame = packet(b"x")
    assert first.points["link"].push([frame], 0) == [frame]
    assert first.states() == {"one": False, "other": True}
    second = start()
    assert second.states() == {"one": False, "other": True}
    assert "as planned" in second.rows()[0]["error"]
    write(tmp_path)
    assert start().states() == {"one": True, "other": True}


def test_the_one_in_whose_code_the_process_ended_is_out(start: Callable[[], Process], tmp_path: Path) -> None:
    """A crash in C code, or the kill of a process that hung in it; the others are not suspected."""
    first = start()
    for name in ("one", "two", "three"):
        first.load(write(tmp_path, name=name))
    first.inside("two")
    second = start()
    assert second.states() == {"one": True, "two": False, "three": True}
    assert "ip ended while code of it ran" in second.rows()[1]["error"]
    assert start().states() == {"one": True, "two": False, "three": True}
    assert start().load(tmp_path / "two.py")["loaded"]


def test_a_process_that_ends_again_and_again_goes_on_without(
    start: Callable[[], Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them made its core fail cannot be told, so all are out; restarts that were asked for do not count."""
    now = [100.0]
    monkeypatch.setattr(addonkeep.time, "monotonic", lambda: now[0])
    start().load(write(tmp_path))
    for _ in range(5):
        asked = start()
        assert asked.states() == {"one": True}
        asked.desk.close()
    for _ in range(MOST_STARTS):
        now[0] += LOOP_S  # long lives
        assert start().states() == {"one": True}
    now[0] += LOOP_S
    for _ in range(MOST_STARTS):
        now[0] += 1
        assert start().states() == {"one": True}
    now[0] += 1
    last = start()
    assert last.states() == {"one": False}
    assert f"ip ended {MOST_STARTS} times within 30 s" in last.rows()[0]["error"]
    assert start().states() == {"one": False}


def test_a_file_that_is_gone_or_broken_is_told_of(start: Callable[[], Process], tmp_path: Path) -> None:
    """It is in the list with what is wrong, and the others run."""
    first = start()
    gone, broken, good = (write(tmp_path, name=name) for name in ("gone", "broken", "good"))
    for path in (gone, broken, good):
        first.load(path)
    gone.unlink()
    write(tmp_path, "def frame(", name="broken")
    second = start()
    assert second.states() == {"gone": False, "broken": False, "good": True}
    assert "No such file" in second.rows()[0]["error"]
    assert "SyntaxError" in second.rows()[1]["error"]


def test_a_list_that_cannot_be_read_is_no_reason_not_to_start(
    start: Callable[[], Process], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, and forgotten."""
    first = start()
    first.load(write(tmp_path))
    Keeping(first.runtime.run.path, "ip").path.write_text("{")
    assert not start().rows()
    assert "the addons of before are lost" in caplog.text


def test_a_first_load_that_fails_leaves_nothing_behind(start: Callable[[], Process], tmp_path: Path) -> None:
    """A file that does not load is an error of the command; one whose `loaded` raises is there, and out."""
    first = start()
    with pytest.raises(ControlError, match="SyntaxError"):
        first.load(write(tmp_path, "def frame(", name="bad"))
    assert not list(first.runtime.run.path.glob("*.addons.json"))
    with pytest.raises(ControlError, match="KeyboardInterrupt"):
        first.load(write(tmp_path, DIES))
    assert start().states() == {"one": False}


def test_what_they_say_at_the_restart_is_recorded(
    start: Callable[[], Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the flight recorder, though nobody listens yet."""
    first = start()
    first.load(write(tmp_path, GOOD + "\ndef loaded(context):\n    context.emit('hello')\n"))
    first.desk._world.watchdog.remove()
    told: list[Event] = []
    core = recorded(FakeCore(other={"up": "tcp", "down": "link"}), {}, process="ip", flight=1 << 20)
    monkeypatch.setattr(core, "faulted", told.extend)
    loop = Loop(first.runtime, core, [FakePort("link", "link-ip"), FakePort("tcp", "ip-tcp")])
    try:
        loop._restore_addons()
        loop.flush(0)
    finally:
        loop._command(0, "addon.unload", {})
        loop._control.close()
        loop.tap.close()
    assert [(event.kind, event.data.get("what")) for event in told] == [
        ("hello", None), ("addon", "loaded after the restart"),
    ]  # fmt: skip
