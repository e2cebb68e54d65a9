"""Ways and times of packets, measured for the page: `lvlip paths`, in a process of its own, which listens for a while.

Both sides of each pipe have to be heard for that, and each record costs some 50 µs: not what the server does beside
serving.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from levelip.debug.programs import environment, python
from levelip.ipc.rundir import RunDirectory
from levelip.web.commands import Refused

MOST_S = 60.0
GRACE_S = 60.0
"""How long what was heard may be worked on, after its time."""
_WORDS = ("host", "port", "proto", "flags")
_SAID_MOST = 2000


def arguments(run: RunDirectory, seconds: float, words: str) -> list[str]:
    """What `lvlip` is told. `words`: "KEY=VALUE ...", as its options of these names. Refused."""
    if not 0.1 <= seconds <= MOST_S:
        raise Refused(f"for 0.1 to {MOST_S:g} seconds")
    made = ["paths", "--name", run.name, "--run", str(run.root), "--json", f"--seconds={seconds:g}"]
    for word in words.split():
        key, equals, value = word.partition("=")
        if key not in _WORDS or not equals or not value:
            raise Refused(f"{word}: write {', '.join(f'{one}=…' for one in _WORDS)}")
        made.append(f"--{key}={value}")
    return made


async def measure(run: RunDirectory, seconds: float, words: str) -> dict[str, Any]:
    """{"paths": as whydata.path_data has them, "notes": what else was said}. Refused says why there is nothing."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *python("levelip.cli", *arguments(run, seconds, words)), stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe, stderr=pipe, env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds + GRACE_S):
            told, said = await process.communicate()
    except TimeoutError:
        raise Refused(f"not done {GRACE_S:g} s after the time; it was ended: choose fewer packets") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    lines = [line.removeprefix("lvlip: ") for line in said.decode(errors="replace")[-_SAID_MOST:].splitlines()]
    if process.returncode:
        raise Refused(next((line for line in reversed(lines) if line.strip()), "lvlip paths has ended"))
    notes = [line for line in lines if not line.startswith("listening to")]
    return {"paths": [msgspec.json.decode(line) for line in told.splitlines()], "notes": notes}
