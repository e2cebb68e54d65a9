"""Coverage-guided fuzzing of every core: `make fuzz SECONDS=60`, `make fuzz-night`.

    python -m tests.fuzz.run [TARGET ...] [--seconds N] [--keep]

Each target runs in a process of its own under atheris (libFuzzer), from the inputs in tests/fuzz/corpus/TARGET.txt, a
line of hex each. What raises is shown as such a line: put it into tests/fuzz/corpus/TARGET.txt, where `make test` runs
it from then on. --keep adds inputs that reach new code.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 1024
KEEP_MOST = 40
"""Inputs that --keep adds to a target's corpus at once."""
GRACE_S = 900
"""Beyond its time a target may take this long to load and to finish its last input, on a machine that is busy."""
INPUT_S = 120
"""So long one input may take, which is some milliseconds' work: what is over that hangs."""


def names() -> list[str]:
    """The targets, without importing the cores (which must be instrumented as they are imported)."""
    return sorted(path.stem for path in CORPUS.glob("*.txt"))


def read(name: str) -> list[bytes]:
    """A target's corpus."""
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [bytes.fromhex(line) for line in lines if line and not line.startswith("#")]


def fuzz_here(name: str, seconds: int, directory: str) -> None:
    """Run one target in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=["layers", "gateway", "levelip", "tests.fuzz"]):
        from tests.fuzz.targets import TARGETS
    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-timeout={INPUT_S}",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={directory}/crash-", "-print_final_stats=1", f"{directory}/corpus",
    ]  # fmt: skip
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


def spread(inputs: list[bytes]) -> list[bytes]:
    """Some of them, short and long."""
    return inputs[:: max(1, len(inputs) // KEEP_MOST)][:KEEP_MOST]


def fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Run one target; whether nothing was found."""
    with tempfile.TemporaryDirectory(prefix="lvfuzz") as directory:
        corpus = Path(directory) / "corpus"
        corpus.mkdir()
        known = read(name)
        for number, data in enumerate(known):
            (corpus / f"known-{number}").write_bytes(data)
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(seconds), "--here", directory]
        start = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds + GRACE_S, check=False)
            status, output = done.returncode, (done.stdout + done.stderr).decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            status, output = -1, (error.stderr or b"").decode(errors="replace")
        match = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
        runs = match[1] if match else "?"
        found = sorted(Path(directory).glob("crash-*"))
        new = sorted((path.read_bytes() for path in corpus.iterdir() if not path.name.startswith("known-")), key=len)
        took = time.monotonic() - start
        print(f"{name:10} {runs:>9} inputs in {took:.0f} s, {len(known)} known, {len(new)} new", flush=True)
        if keep and new:
            with (CORPUS / f"{name}.txt").open("a", encoding="ascii") as file:
                file.writelines(data.hex() + "\n" for data in spread(new))
        if status == 0 and not found:
            return True
        print(output[-4000:])
        for path in found:
            print(f"{name}: add this line to tests/fuzz/corpus/{name}.txt\n{path.read_bytes().hex()}")
        return False


def main(argv: list[str]) -> int:
    """0 if no input made a core raise."""
    parser = argparse.ArgumentParser(prog="fuzz", description="coverage-guided fuzzing of the cores")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names()) + "; all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (60)")
    parser.add_argument("--keep", action="store_true", help="add inputs that reach new code to the corpus")
    parser.add_argument("--here", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.targets) - set(names()):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    if arguments.here:
        fuzz_here(arguments.targets[0], arguments.seconds, arguments.here)
        return 0
    chosen = arguments.targets or names()
    share = max(1, arguments.seconds // len(chosen))
    try:
        results = [fuzz(name, share, keep=arguments.keep) for name in chosen]
    except KeyboardInterrupt:
        print("fuzz: interrupted", file=sys.stderr)
        return 130
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
