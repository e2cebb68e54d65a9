"""`make mutants`: mutation testing of layers/tcp and layers/ip. See docs/mutants.md.

    make mutants                                  all, or what is left of it; then docs/mutants.md is written
    make mutants MODULES=layers.tcp.rto           one module (patterns: 'layers.tcp.recovery.*')
    make mutants ARGS='--sample 50'               the first 50 of each module, always the same
    make mutants ARGS='--again'                   those that lived once more: after new tests
    make mutants ARGS='--with tests/unit/x.py'    those that lived against new tests alone: seconds
    make mutants ARGS='--survivors'               no run: show what lived and has no reason
    make mutants ARGS='--report'                  no run: the table again, and docs/mutants.md

Exit status 1 if fewer than 80 % of what was tried was killed.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("mutmut", "coverage")
"""What `make mutants` installs, and nothing else needs."""
COPIED = (
    "levelip", "gateway", "layers", "simulation", "tests", "benchmarks", "examples", "docs", "scripts", "level-ip.toml",
    "supervisord.conf", "pyproject.toml", "Makefile", "README.md",
)  # fmt: skip
"""What the tests read."""


def copy_tree(target: Path) -> None:
    """Make the copy what the tree is; unchanged files keep their time."""
    wanted: dict[Path, Path] = {}
    for name in COPIED:
        source = ROOT / name
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        wanted |= {path.relative_to(ROOT): path for path in files if "__pycache__" not in path.parts}
    for path in list(target.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.relative_to(target) not in wanted:
            path.unlink()
    for relative, source in wanted.items():
        copy = target / relative
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("modules", nargs="*", help="names or patterns; none: all")
    add("--work", type=Path, default=ROOT / ".mutants", help="where the copy and the results lie (.mutants)")
    add("--sample", type=int, default=0, metavar="N", help="only the first N of each module")
    add("--max-children", type=int, default=os.cpu_count() or 2, metavar="N", help="at the same time")
    add("--nice", type=int, default=10, metavar="N")
    add("--budget", type=float, default=5.0, metavar="SECONDS", help="CPU of tests a mutant, quick tests first (5)")
    add("--again", action="store_true", help="try those that lived once more")
    add("--with", dest="tests", action="append", default=[], metavar="TEST", help="try those that lived with this only")
    add("--survivors", action="store_true", help="show those without a reason, run nothing")
    add("--report", action="store_true", help="run nothing: the table, and docs/mutants.md")
    add("--no-docs", action="store_true", help="do not write docs/mutants.md")
    return made


def main(argv: list[str]) -> int:
    """0 if at least 80 % were killed."""
    arguments = parser().parse_args(argv)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        lacking = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed in {sys.prefix}"
        sys.exit(f"tests.mutants.run: {lacking}; start it as `make mutants`, which installs what it needs")
    from tests.mutants import report

    work: Path = arguments.work.resolve()
    if arguments.survivors:
        return report.survivors(work, arguments.modules)
    if arguments.report:
        return report.conclude(work, ROOT, arguments.modules, docs=not arguments.no_docs)
    beside = "-with" if arguments.tests else ""  # beside a run of all
    tree = work / f"tree{beside}"
    tree.mkdir(parents=True, exist_ok=True)
    with (work / f"lock{beside}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"make mutants: another run uses {work}")
        copy_tree(tree)
        command = [
            sys.executable, "-m", "tests.mutants.worker", f"--work={work}", f"--sample={arguments.sample}",
            f"--max-children={arguments.max_children}", f"--budget={arguments.budget}",
            *(["--again"] if arguments.again else []), *[f"--with={test}" for test in arguments.tests],
            *arguments.modules,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.nice(arguments.nice)
        try:
            status = subprocess.run(command, cwd=tree, env=environment, check=False).returncode
        except KeyboardInterrupt:
            status = 130
    if status not in (0, 130):
        return 2
    docs = not (arguments.no_docs or arguments.tests)
    return report.conclude(work, ROOT, arguments.modules, docs=docs) or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
