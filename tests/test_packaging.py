"""What a person who installs the wheel gets: everything that runs, nothing that does not belong, no checkout needed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ["layers.link", "layers.ip", "layers.tcp", "layers.udp", "gateway", "levelip.cli"]
"""What `python -m` runs."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built as `pip install .` would, without network."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(target)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("level_ip-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel installed in it; the packages that it needs are those of this environment."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def names(wheel: Path) -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def run(installed: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run python with the installed wheel before everything else, far from the checkout."""
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=installed.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def test_wheel_holds_every_module(wheel: Path) -> None:
    """Each Python file of the packages is in the wheel."""
    here = {
        str(path.relative_to(ROOT))
        for package in ("layers", "gateway", "levelip", "simulation")
        for path in (ROOT / package).rglob("*.py")
    }
    assert here - names(wheel) == set()


def test_wheel_holds_what_is_no_module(wheel: Path) -> None:
    """The typing marker, supervisord.conf as levelip/etc/supervisord.conf, and the command."""
    held = names(wheel)
    assert "levelip/py.typed" in held
    assert "levelip/etc/supervisord.conf" in held
    assert "simulation/script/grammar.lark" in held
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "levelip/web/static").iterdir()}
    assert "levelip/web/static/index.html" in page and page <= held
    (points,) = [name for name in held if name.endswith(".dist-info/entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        assert b"lvlip = levelip.cli.__main__:main" in archive.read(points)
        assert archive.read("levelip/etc/supervisord.conf") == (ROOT / "supervisord.conf").read_bytes()


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    """No tests, examples, logs or caches, and no top-level name but the packages."""
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"layers", "gateway", "levelip", "simulation"}
    assert not [name for name in names(wheel) if "__pycache__" in name or name.endswith((".log", ".sock"))]


def test_wheel_says_what_it_needs(wheel: Path) -> None:
    """The metadata name the Python version, each library that is imported, and no tool of development."""
    (path,) = [name for name in names(wheel) if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(path).decode())
    assert metadata["Requires-Python"] == ">=3.11"
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    for library in ("pyzmq", "msgspec", "pyroute2", "supervisor", "click", "rich"):
        assert any(line.startswith(library) for line in needed), library
    assert not any(line.startswith(("pytest", "ruff", "mypy")) for line in needed)


def test_imports_come_from_the_wheel(installed: Path) -> None:
    """The tests below really try the wheel, and not the checkout."""
    program = "import gateway, layers, levelip; print(levelip.__file__, layers.__file__, gateway.__file__)"
    for path in run(installed, "-c", program).stdout.split():
        assert Path(path).is_relative_to(installed)


def test_the_lessons_are_in_the_wheel(installed: Path) -> None:
    """The guided tour needs no checkout."""
    said = run(installed, "-m", "levelip.cli", "lesson").stdout
    assert [line.split()[0] for line in said.splitlines()[:-1]] == [str(number) for number in range(1, 11)]


@pytest.mark.parametrize("module", PROGRAMS)
def test_programs_run(installed: Path, module: str) -> None:
    """Each program of the stack starts from the wheel and explains itself."""
    assert "--name" in run(installed, "-m", module, "--help").stdout


def test_command_knows_its_version(installed: Path) -> None:
    """`lvlip --version` says the version that the wheel's name has."""
    version = run(installed, "-c", "import levelip; print(levelip.__version__)").stdout.strip()
    assert run(installed, "-m", "levelip.cli", "--version").stdout.strip() == f"level-ip {version}"
    assert list(installed.glob(f"level_ip-{version}.dist-info"))


def test_every_command_can_be_imported(installed: Path) -> None:
    """Each command that `lvlip --help` lists has a module in the wheel, with help of its own."""
    program = "from levelip.cli.main import COMMANDS; print(*[verb for part in COMMANDS.values() for verb in part])"
    verbs = run(installed, "-c", program).stdout.split()
    assert "up" in verbs and "trace" in verbs
    for verb in verbs:
        assert run(installed, "-m", "levelip.cli", verb, "--help").stdout.startswith("Usage: "), verb


def test_wrong_settings_are_refused_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """A mistake on the command line is told by its key before anything starts, with status 2."""
    done = run(installed, "-m", "layers.ip", "--run", str(tmp_path), "--set", "ip.ttl=300", check=False)
    assert done.returncode == 2
    assert "ip.ttl" in done.stderr and "from 1 to 255" in done.stderr
    assert not list(tmp_path.iterdir())


def test_applications_need_no_stack_to_import(installed: Path) -> None:
    """Importing levelip.client starts nothing, and a socket without a stack fails with ENETDOWN and says what to do."""
    program = (
        "import errno\n"
        "from levelip.client import socket\n"
        "try: socket.socket()\n"
        "except OSError as error: print(errno.errorcode[error.errno], error)\n"
    )
    environment = {"LEVELIP_RUN": str(installed / "nowhere"), "LEVELIP_NAME": "nobody"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.startswith("ENETDOWN") and "lvlip up" in done.stdout
