"""`lvlip script`: another process with the same arguments, output and exit status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from levelip.debug.programs import python

GOOD = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 close(3) = 0\n"


def lvlip(*arguments: str, where: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as people do."""
    return subprocess.run(
        python("levelip.cli", *arguments), capture_output=True, text=True, timeout=240, check=False, cwd=where,
    )  # fmt: skip


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (GOOD.replace("= 0", "= 1"), 1), (GOOD + "+0 nonsense\n", 2)])
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
    assert "Turn a connection into a script" in lvlip("script", "--record", "--help").stdout


@pytest.mark.parametrize("words", ["replay", "replay --json", "script", "script --json", "record", "break", "up now",
                                   "script record --local nowhere"])  # fmt: skip
def test_an_incomplete_command_is_wrong_usage(words: str) -> None:
    """Also one that another program carries out: exit status 2, and a line of usage on standard error."""
    done = lvlip(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Usage: lvlip {words.split(maxsplit=1)[0]} " in done.stderr


def test_files_of_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    """A reader's own socket.py or click.py is none of the modules that Level-IP means."""
    for name in ("click", "random", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    for arguments in (("script", "--list-commands"), ("replay", "--help")):
        done = lvlip(*arguments, where=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["explain --json", "config", "script --list-commands", "replay --help"])
def test_a_closed_pipe_ends_it_in_silence(words: str) -> None:
    """As `| head` closes it: exit code 141, nothing on standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            python("levelip.cli", *words.split()), stdout=writing, stderr=subprocess.PIPE, timeout=240, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("words", ["explain", "script --list-commands"])
def test_a_full_disk_is_one_line(words: str) -> None:
    """No traceback."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            python("levelip.cli", *words.split()),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=240,
            check=False,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr in ("lvlip: No space left on device\n", "lvlip script: No space left on device\n")


@pytest.mark.parametrize(
    ("setting", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_are_for_terminals_that_want_them(setting: dict[str, str], coloured: bool) -> None:
    """https://no-color.org, and TERM=dumb."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        done = subprocess.run(
            python("levelip.cli", "doctor"), stdout=theirs, timeout=240, check=False,
            env={**kept, "TERM": "xterm", **setting},
        )  # fmt: skip
        said = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode in (0, 1)
    assert (b"\x1b[" in said) == coloured


def test_it_is_one_process(tmp_path: Path) -> None:
    """So that a signal to the command's process reaches what runs the scripts; the exit code is that of Ctrl-C."""
    long = tmp_path / "long.pkt"
    long.write_text("0 %{ import os, time; os.write(1, b'runs'); time.sleep(100) }%\n")
    process = subprocess.Popen(python("levelip.cli", "script", "run", str(long)), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read(4) == b"runs"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_record_says_what_is_missing(tmp_path: Path) -> None:
    """As other commands do: one line behind "lvlip:", with what to type."""
    done = lvlip("script", "record", "--name", "none", "--run", str(tmp_path))
    said = "lvlip: stack 'none' is not running; start it with: lvlip up --name none\n"
    assert (done.returncode, done.stderr) == (1, said)
    other = tmp_path / "x.pcapng"
    other.write_text("no capture")
    assert lvlip("script", "record", str(other)).stderr.startswith(f"lvlip: {other} is no capture")


def test_an_interrupt_ends_a_background_job_of_a_script_too(tmp_path: Path) -> None:
    """A shell without job control starts such with SIGINT ignored: `lvlip trace & ...; kill -INT $!`."""
    command = " ".join(python("levelip.cli", "metrics", "--port", "0", "--run", str(tmp_path)))
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"{command} & echo $!; wait $!; echo ended $?"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        job = int(process.stdout.readline())
        try:
            assert process.stderr.readline().startswith("serving http://127.0.0.1:")
            os.kill(job, signal.SIGINT)
            assert process.stdout.readline() == "ended 130\n"
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(job, signal.SIGKILL)
            raise
        finally:
            process.kill()
            process.wait(10)
