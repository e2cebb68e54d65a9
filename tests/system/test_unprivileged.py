"""An ordinary user has a stack on a tap, in a user namespace; tests that cannot run there say what is lacking."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.system import ordinary_user
from tests.system.harness import ROOT
from tests.system.namespace import Lacking, way

LIMIT_S = 600.0
TESTS = [
    "tests/system/test_transfers.py::test_our_client_downloads_from_the_kernel[tap]",
    "tests/system/test_transfers.py::test_our_server_both_ways_at_once[tap]",
    "tests/system/test_transfers.py::test_our_client_downloads_from_the_kernel[tun]",
    "tests/system/test_restarts.py::test_a_transfer_outlives_a_packet_layer[link-supervised]",
    "tests/system/test_icmp.py::test_lvlip_ping[kernel]",
]
"""Both devices, both directions, a restart of the process that opens the device, and a command."""

pytestmark = [pytest.mark.timeout(LIMIT_S + 20)]


def run_tests(tun_mode: int, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """pytest as an ordinary user, for whom /dev/net/tun has this mode."""
    if missing := ordinary_user.lack():
        pytest.skip(f"not to be had here: {missing}")
    home = Path(tempfile.mkdtemp(prefix="lvt", dir="/tmp"))
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "-c",
               str(ROOT / "pyproject.toml"), *(str(ROOT / test) for test in tests)]  # fmt: skip
    try:
        return ordinary_user.run_as_user(
            home, command, tun_mode=tun_mode, checkout=ROOT, timeout=LIMIT_S,
            variables={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_an_ordinary_user_runs_a_stack() -> None:
    """Tests of this directory pass for a user without any privilege, where the device node is open to all."""
    try:
        way()
    except Lacking as missing:
        pytest.skip(f"not to be had here: {missing}")
    done = run_tests(0o666, TESTS)
    if re.search(r"SKIPPED .*(network|user) namespaces", done.stdout):
        pytest.skip("not to be had here: user namespaces for ordinary users")
    assert done.returncode == 0, done.stdout
    assert f"{len(TESTS)} passed" in done.stdout, done.stdout


def test_what_is_lacking_is_named() -> None:
    """Where the device node is root's alone, the tests are skipped, and the reason names it."""
    done = run_tests(0o600, TESTS[:1])
    assert done.returncode == 0, done.stdout
    assert re.search(r"SKIPPED .*not to be had here: (/dev/net/tun|network namespaces)", done.stdout), done.stdout
