"""Session memory: the file that the gateway will check, and rings that lie inside it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from levelip.client.memory import SessionMemory


def test_the_file_is_as_the_gateway_wants_it(tmp_path: Path) -> None:
    """32 hex digits, a regular sparse file of the size asked for, readable and writable for the layers' user."""
    memory = SessionMemory(str(tmp_path), 1 << 24)
    path = tmp_path / memory.name
    found = path.lstat()
    assert re.fullmatch(r"[0-9a-f]{32}", memory.name)
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o666
    assert found.st_size == 1 << 24
    assert found.st_uid == os.getuid()
    assert found.st_blocks * 512 < 1 << 20, "sparse"


def test_rings_are_shared_with_whoever_maps_the_file(tmp_path: Path) -> None:
    """What is written into a ring is in the file at the ring's base, and the mapping outlives the name."""
    memory = SessionMemory(str(tmp_path), 1 << 16)
    ring = memory.ring(4096, 8192)
    ring[:3] = b"abc"
    assert (tmp_path / memory.name).read_bytes()[4096:4099] == b"abc"
    memory.unlink()
    memory.unlink()
    assert list(tmp_path.iterdir()) == []
    assert bytes(memory.ring(4096, 3)) == b"abc"


@pytest.mark.parametrize(("base", "size"), [(-1, 10), (0, 0), (0, 65_537), (65_536, 1)])
def test_a_ring_outside_is_refused(tmp_path: Path, base: int, size: int) -> None:
    """The gateway's word is checked against the file's size."""
    with pytest.raises(ValueError, match="outside"):
        SessionMemory(str(tmp_path), 1 << 16).ring(base, size)


def test_no_directory_no_memory(tmp_path: Path) -> None:
    """OSError, and no file left behind."""
    with pytest.raises(FileNotFoundError):
        SessionMemory(str(tmp_path / "none"), 4096)
