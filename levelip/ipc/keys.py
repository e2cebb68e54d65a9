"""CURVE key files, as `lvlip keygen` writes them: Z85 text, "public" and "secret" lines, mode 0600."""

from __future__ import annotations

import os
import re
from pathlib import Path

import zmq

from levelip.ipc.rundir import RunError

_KEY = re.compile(r"^\s*(public|secret)\s*=\s*\"?([0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40})\"?\s*$", re.MULTILINE)


def write_key_pair(path: Path) -> str:
    """Make a key pair, write it to `path` (which must not exist), and return the public key."""
    public, secret = zmq.curve_keypair()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"# CURVE keys of one host of a Level-IP stack. Give others only the public one.\n")
        file.write(b'public = "' + public + b'"\nsecret = "' + secret + b'"\n')
    return public.decode("ascii")


def read_key_pair(name: str) -> tuple[bytes, bytes]:
    """(public, secret). RunError if the file is missing, readable by others, or holds no keys."""
    if not name:
        raise RunError(
            "ipc.secret_key_file is empty, but a tcp:// endpoint needs CURVE keys; make them with lvlip keygen"
        )
    path = Path(name)
    try:
        if path.stat().st_mode & 0o077:
            raise RunError(f"{path} can be read by others; chmod 600 {path}")
        found = dict(_KEY.findall(path.read_text("ascii", "replace")))
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; make keys with lvlip keygen") from None
    if set(found) != {"public", "secret"}:
        raise RunError(f"{path}: needs a public and a secret key; make them with lvlip keygen")
    return found["public"].encode("ascii"), found["secret"].encode("ascii")
