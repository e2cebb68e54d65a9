"""`lvlip script`: another process with the same arguments, output and exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 close(3) = 0\n"


def lvlip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as people do."""
    program = "import sys; from levelip.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status"), [(GOOD, 0), (GOOD.replace("= 0", "= 1"), 1), (GOOD + "+0 nonsense\n", 2)]
)
def test_exit_status(tmp_path: Path, text: str, status: int) -> None:
    """0 passed, 1 failed, 2 the script has an error."""
    path = tmp_path / "x.pkt"
    path.write_text(text)
    done = lvlip("script", "run", str(path))
    assert done.returncode == status, done.stderr
    assert str(path) in done.stdout + done.stderr


def test_options_reach_it(tmp_path: Path) -> None:
    """--json before or behind, and the options of the program itself."""
    path = tmp_path / "x.pkt"
    path.write_text(GOOD)
    for arguments in (["--json", "script", "run", str(path)], ["script", "run", "--json", str(path)]):
        assert json.loads(lvlip(*arguments).stdout)["status"] == "passed"
    assert "accept" in lvlip("script", "--list-commands").stdout
    assert "Run packet scripts" in lvlip("script", "--help").stdout
    assert "Run packet scripts" in lvlip("script").stdout
    assert "Turn a connection into a script" in lvlip("script", "--record", "--help").stdout
