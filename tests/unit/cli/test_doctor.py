"""`lvlip doctor` finds what is missing and names the cure; each check is fed what it would find."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from levelip.cli import doctor
from levelip.cli.common import Stack
from levelip.cli.doctor import MISSING, OK, PACKAGES, PYTHON, WARNING, Check
from tests.waiting import until

ROOT = Path(__file__).parents[3]


def test_versions_are_those_of_pyproject() -> None:
    """The doctor asks for what the package declares, no more and no less."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(line.split(";")[0].strip().split(">=") for line in declared["dependencies"])
    wanted.pop("setuptools", None)  # only where supervisor still needs it
    assert wanted == PACKAGES
    assert declared["requires-python"] == f">={PYTHON[0]}.{PYTHON[1]}"


@pytest.mark.parametrize(("version", "state"), [((3, 10), MISSING), ((3, 11), OK), ((3, 14), OK), ((4, 0), OK)])
def test_python(version: tuple[int, int], state: str) -> None:
    """Python 3.11 or later."""
    check = doctor.python(version)
    assert check.state == state
    assert ("python3.11" in check.cure) == (state == MISSING)


@pytest.mark.parametrize(
    ("installed", "state"), [(None, MISSING), ("25.1.2", MISSING), ("26.2", OK), ("26.10.0", OK), ("27.0.0b1", OK)]
)
def test_packages(installed: str | None, state: str) -> None:
    """A package must be there and new enough; the cure is pip of this very Python."""
    check = doctor.package("pyzmq", "26.2", installed)
    assert check.state == state
    if state == MISSING:
        assert "-m pip install 'pyzmq>=26.2'" in check.cure


def test_programs() -> None:
    """A program that is not there is a warning with the command that installs it."""
    assert doctor.found_program("curl", "curl", "the demo", lambda name: f"/usr/bin/{name}").state == OK
    check = doctor.found_program("ip", "iproute2", "the demo", lambda name: None)
    assert check.state == WARNING and "iproute2" in check.cure


def test_tun_device(tmp_path: Path) -> None:
    """/dev/net/tun missing, closed to us, or no such device at all."""
    missing = doctor.tun(tmp_path / "net" / "tun")
    assert missing.state == MISSING and "modprobe tun" in missing.cure and "mknod" in missing.cure
    good = tmp_path / "tun"
    good.write_bytes(b"")
    assert doctor.tun(good).state == OK
    closed = tmp_path / "closed"
    with socket.socket(socket.AF_UNIX) as sock:  # open() of a socket fails for everybody, root too
        sock.bind(str(closed))
        assert doctor.tun(closed).state == MISSING


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_tun_device_closed_to_us(tmp_path: Path) -> None:
    """A node of mode 0600 of root, as some distributions have it."""
    path = tmp_path / "tun"
    path.write_bytes(b"")
    path.chmod(0)
    assert "chmod 666" in doctor.tun(path).cure


def test_rights() -> None:
    """A capability, or user namespaces; else something to do."""
    assert doctor.rights(True, lambda: False).state == OK
    assert doctor.rights(False, lambda: True).state == OK
    check = doctor.rights(False, lambda: False)
    assert check.state == MISSING and check.cure


@pytest.mark.parametrize(("result", "state"), [(0, OK), (1, WARNING), (2, WARNING), (255, WARNING)])
def test_offload(result: int, state: str) -> None:
    """Without segmentation offload everything works, slower."""
    assert doctor.offload(result).state == state


def test_offload_is_really_tried() -> None:
    """The attempt has one of three results and leaves no device behind; another program's may be there for a moment."""
    before = set(Path("/sys/class/net").iterdir())
    assert doctor._try_offload() in (0, 1, 2)
    until(lambda: set(Path("/sys/class/net").iterdir()) <= before, "no device is left")


def test_run_directory(tmp_path: Path) -> None:
    """A path whose sockets would not fit into sun_path is told before anything starts."""
    assert doctor.run_path(Stack(root="/tmp/x")).state == OK
    long = doctor.run_path(Stack(root="/tmp/" + "x" * 100))
    assert long.state == MISSING and "107" in long.found and "--run" in long.cure


def test_shared_memory(tmp_path: Path) -> None:
    """No tmpfs is a warning."""
    assert doctor.shared_memory(tmp_path / "nowhere").state == WARNING


@pytest.mark.parametrize(("stack", "device"), [("level-ip", "lvl0"), ("two", "lvl-two")])
def test_old_iptables_are_opened_for_the_stacks_own_device(stack: str, device: str) -> None:
    """The cure names the device of the stack that is meant; without a filter table there is nothing to cure."""
    (check,) = doctor.iptables("nat\nfilter\n", stack)
    assert check.state == WARNING
    assert f"-I FORWARD -i {device} -j" in check.cure and f"-I FORWARD -o {device} -j" in check.cure
    assert list(doctor.iptables("nat\n", stack)) == []


def test_every_finding_that_is_not_ok_has_a_cure(lvlip: Callable[..., Result]) -> None:
    """On this machine, whatever it lacks: each warning says what to do, and the exit code tells."""
    result = lvlip("doctor", "--json")
    checks = [Check(**json.loads(line)) for line in result.stdout.splitlines()]
    assert {check.name for check in checks} >= {"python", "pyzmq", "/dev/net/tun", "privileges", "run directory"}
    for check in checks:
        assert check.state in (OK, MISSING, WARNING)
        assert check.cure or check.state == OK
    assert result.exit_code == int(any(check.state == MISSING for check in checks))


def test_in_words(lvlip: Callable[..., Result]) -> None:
    """For people: one line a finding, the cure below it, a verdict at the end."""
    lines = lvlip("doctor").stdout.splitlines()
    assert lines[0].startswith("ok       python")
    assert lines[-1] in ("this machine can run Level-IP", "something is missing; see above")
