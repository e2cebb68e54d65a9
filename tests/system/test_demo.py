"""`make demo`'s program: right in each of its three surroundings, clean when interrupted, honest when it fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelip.ipc.rundir import LAYERS, RunDirectory
from tests.system import ordinary_user
from tests.system.harness import ROOT
from tests.system.namespace import environment, lack

DEMO = ROOT / "examples" / "demo.py"
LIMIT_S = 270
"""The demo takes less than a minute once all is installed, on a machine that does nothing else."""
SMALL = ["--size", "20000000"]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (ROOT / "supervisord.conf").exists(), reason="not a checkout: there is no supervisord.conf"),
]


def start(*arguments: str, program: Path = DEMO) -> subprocess.Popen[str]:
    """The demo, in a session of its own as a terminal gives it."""
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
    )


def started() -> tuple[subprocess.Popen[str], set[int]]:
    """A demo that has come to its first part, and its processes."""
    demo = start()
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("1 "):
            break
    return demo, descendants(demo.pid)


def finish(demo: subprocess.Popen[str], seconds: float = LIMIT_S) -> str:
    """Everything that it says until its end; killed with all that it started if that takes too long."""
    try:
        return demo.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        demo.send_signal(signal.SIGTERM)
        raise


def descendants(pid: int) -> set[int]:
    """The process and everything below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = set(), [pid]
    while ahead:
        found.add(one := ahead.pop())
        ahead += parents.get(one, [])
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                running.add(pid)
    return running


def assert_gone(pids: set[int], seconds: float = 60) -> None:
    """None of them runs any more, at once or soon."""
    deadline = time.monotonic() + seconds
    while left := alive(pids):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


def assert_shown(said: str, programs: tuple[str, ...]) -> None:
    """All four parts were shown, and ended well."""
    assert said.count("is the one of what was sent") == 3, said
    for program in programs:
        assert program in said, said
    for seam in ("ip-tcp", "link-ip"):
        for arrow, flags in (("↓", "[S]"), ("↑", "[S.]"), ("↓", "[.]")):
            lines = [line for line in said.splitlines() if f" {seam} " in line and arrow in line]
            assert any(f"Flags {flags}" in line for line in lines), f"{seam} {arrow} {flags}\n{said}"
    assert "SYN_SENT → ESTABLISHED" in said, said
    assert "SIGKILL" in said and "supervisord started ip again" in said, said


@pytest.fixture
def checkout() -> Iterator[Path]:
    """Another checkout, whose path is too long for sockets and holds a space: links to this one, files of its own."""
    top = Path(tempfile.mkdtemp(prefix="lvt", dir="/tmp"))
    place = top / f"a checkout with a {'long ' * 20}path"
    place.mkdir()
    for name in ("layers", "gateway", "levelip", "examples", ".venv"):
        if (ROOT / name).exists():
            (place / name).symlink_to(ROOT / name)
    for name in ("supervisord.conf", "level-ip.toml"):
        shutil.copy(ROOT / name, place / name)
    (place / "run").mkdir()
    (place / "examples").unlink()
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    yield place
    shutil.rmtree(top)


def test_two_checkouts_show_it_side_by_side(checkout: Path) -> None:
    """Both demos show all four parts and leave nothing running, however long the second's path is."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    demos = [start(), start(program=checkout / "examples" / "demo.py")]
    pids: set[int] = set()
    deadline = time.monotonic() + LIMIT_S
    while any(demo.poll() is None for demo in demos) and time.monotonic() < deadline:
        pids |= descendants(demos[0].pid) | descendants(demos[1].pid)
        time.sleep(0.2)
    for demo in demos:
        said = finish(demo, 60)
        assert demo.returncode == 0, said
        assert_shown(said, ("curl" if shutil.which("curl") else "urllib", "in a network namespace of its own"))
    assert len(pids) > 12
    assert_gone(pids)


def test_ordinary_user_gets_a_namespace_too() -> None:
    """Without root, with a tun device that all may open: the same demo in a user namespace."""
    if missing := ordinary_user.lack() or lack():
        pytest.skip(f"not to be had here: {missing}")
    said = as_user(0o666)
    assert_shown(said, ("without root (a user namespace)",))


def test_ordinary_user_without_tun_gets_the_wire() -> None:
    """Without root and with a tun device for root alone: two stacks joined by a wire, and it says why."""
    if missing := ordinary_user.lack():
        pytest.skip(f"not to be had here: {missing}")
    said = as_user(0o600)
    assert_shown(said, ("two stacks joined by a wire", "/dev/net/tun: Permission denied", "the second stack's TCP"))


def as_user(tun_mode: int) -> str:
    """What the demo says to an ordinary user, having ended well."""
    home = Path(tempfile.mkdtemp(prefix="lvt", dir="/tmp"))
    try:
        done = ordinary_user.run_as_user(
            home, [sys.executable, str(DEMO), *SMALL], tun_mode=tun_mode, checkout=ROOT, timeout=300
        )
        assert done.returncode == 0, done.stdout
        return done.stdout
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_everything(number: signal.Signals) -> None:
    """Ctrl-C in the middle: status 130, and none of its processes is left, so neither is the namespace."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    demo, pids = started()
    assert len(pids) >= 7, "the demo, supervisord and five processes"
    os.kill(demo.pid, number)
    said = finish(demo, 60)
    assert demo.returncode == 130, said
    assert "stopping everything" in said
    assert "Traceback" not in said
    assert_gone(pids)


def test_killed_it_takes_all_with_it() -> None:
    """Even SIGKILL leaves no process behind: supervisord is told when the demo dies."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    demo, pids = started()
    demo.kill()
    finish(demo, 60)
    assert_gone(pids)
    run = RunDirectory("level-ip", ROOT / "run")
    if not any(run.holder(layer) for layer in LAYERS):  # else a stack of this checkout's runs, and it had another place
        shutil.rmtree(run.memory, ignore_errors=True)


def test_failure_shows_the_log_that_matters(checkout: Path) -> None:
    """A stack that cannot start: status 1, and the line of the log that says why."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    conf = checkout / "level-ip.toml"
    conf.write_text(conf.read_text().replace("mtu = 1500", "mtu = 5"))
    demo = start(program=checkout / "examples" / "demo.py")
    said = finish(demo)
    assert demo.returncode == 1, said
    assert "The demo failed" in said
    assert "device.mtu" in said and "from 68" in said, said


def test_help_says_what_it_does() -> None:
    """--help needs nothing and explains the options."""
    done = subprocess.run([sys.executable, DEMO, "--help"], capture_output=True, text=True, timeout=60, check=True)
    for word in ("--way", "--size", "--keep", "namespace"):
        assert word in done.stdout
