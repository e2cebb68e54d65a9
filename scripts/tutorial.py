"""Write docs/tutorial anew from runs of the lessons: `make tutorial`, or scripts/tutorial.py [NUMBER]...

A page whose new outputs differ from the old ones in nothing but what varies (page.py) is left as it is. With --check
nothing is written, and the exit status says whether something would be.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from levelip.lessons.page import index, normal
from levelip.lessons.source import lessons

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorial"
LIMIT_S = 240


def page(number: int, *arguments: str) -> str:
    """The page of a run. SystemExit if it fails."""
    command = [sys.executable, "-P", "-m", "levelip.cli", "lesson", str(number), "--markdown", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        raise SystemExit(f"lesson {number}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """The exit status."""
    check = "--check" in arguments
    numbers = [int(word) for word in arguments if word.isdigit()]
    TUTORIAL.mkdir(exist_ok=True)
    changed = []
    readme = TUTORIAL / "README.md"
    if not readme.exists() or readme.read_text(encoding="utf-8") != index():
        changed.append(readme.name)
        if not check:
            readme.write_text(index(), encoding="utf-8")
    for number, lesson in lessons().items():
        if numbers and number not in numbers:
            continue
        path = TUTORIAL / lesson.file
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = page(number)
        if normal(lesson, old) != normal(lesson, new):
            changed.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
        print(f"lesson {number}: {'changed' if path.name in changed else 'the same'}", flush=True)
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
