"""The run directory of one stack: sockets, locks, clock page, logs, secrets.

ROOT/NAME/         0700: pipes, control and tap sockets, locks, the clock page, logs, secrets
ROOT/NAME.door/    0711: the gateway's door, which applications of other users may enter
MEMORY/            0711: shared memory (below /dev/shm): device pools and flight recorders (0600), and
MEMORY/sessions/   1733: the sessions' files under unguessable names; nobody can list it

Whoever of the layers ends last removes MEMORY; each has it locked (flock, shared) as long as it lives, however it ends.
A killed one's flight recorder stays there for its successor.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from pathlib import Path

from levelip.rpc.paths import MAX_SOCKET_PATH, run_root, stack_name

LAYERS = ("link", "ip", "tcp", "udp", "gateway")
_SHM = Path("/dev/shm")
_SECRET_BYTES = 32


class RunError(Exception):
    """The run directory cannot be used; the text says why and what to do."""


class Locked(RunError):
    """Another process of this layer is running."""

    def __init__(self, layer: str, pid: int) -> None:
        holder = f"pid {pid}" if pid else "a process that left no pid"
        super().__init__(f"{layer} is running already ({holder}); stop it first, or use another --name")
        self.pid = pid


class RunDirectory:
    """Paths of one stack. Nothing is created before `create()`."""

    def __init__(self, name: str | None = None, root: str | os.PathLike[str] | None = None) -> None:
        self.name = stack_name(name)
        self.root = run_root(root)
        self.path = self.root / self.name
        self.door = self.root / f"{self.name}.door"
        digest = hashlib.sha256(str(self.path).encode()).hexdigest()[:12]
        self.in_memory = _SHM.is_dir() and os.access(_SHM, os.W_OK)
        """Whether what lies in `memory` never goes to a disk."""
        base = _SHM if self.in_memory else self.door
        self.memory = base / f"level-ip-{os.geteuid()}-{digest}"
        self.sessions = self.memory / "sessions"
        self.logs = self.path / "log"
        self.clock = self.path / "clock"
        self._present = -1  # a descriptor of `memory`, locked while we use it

    def create(self, *, memory: bool = True) -> None:
        """Make what is missing; RunError where a path is too long, foreign, or open to others. Without `memory` only
        what notes are kept in: nobody but a stack's end takes the other away (`enter`)."""
        longest = max(len(os.fsencode(str(path))) for path in self._socket_paths())
        if longest > MAX_SOCKET_PATH:
            raise RunError(
                f"{self.path}: socket paths below it would have {longest} bytes, {MAX_SOCKET_PATH} are allowed; "
                "choose a shorter directory (--run or LEVELIP_RUN) or --name"
            )
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            for path, mode in (
                (self.path, 0o700), (self.door, 0o711), (self.logs, 0o700),
                *(((self.memory, 0o711), (self.sessions, 0o1733)) if memory else ()),
            ):  # fmt: skip
                _own_directory(path, mode)
        except OSError as error:
            raise RunError(f"{error.filename or self.path}: {error.strerror}; choose another --run directory") from None

    def enter(self) -> None:
        """`create`, and use `memory` until `leave`: nobody removes it meanwhile. RunError, as `create`."""
        self.create(memory=False)
        while self._present < 0:
            try:
                _own_directory(self.memory, 0o711)
                fd = os.open(self.memory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:  # the last one of before leaves
                continue
            except OSError as error:
                raise RunError(f"{self.memory}: {error.strerror}; choose another --run directory") from None
            fcntl.flock(fd, fcntl.LOCK_SH)
            if self._is_memory(fd):
                self._present = fd
            else:
                os.close(fd)
        self.create()

    def leave(self) -> None:
        """Use `memory` no longer. Who leaves last removes it, but for what the dead have left to their successors."""
        fd, self._present = self._present, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_memory(fd):
                for path in (*self.memory.glob("own-*"), *self.memory.glob("pool-*"), *self.sessions.iterdir()):
                    path.unlink(missing_ok=True)
                self.sessions.rmdir()
                self.memory.rmdir()
        os.close(fd)

    def _is_memory(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.memory.stat())
        except FileNotFoundError:
            return False

    def _socket_paths(self) -> list[Path]:
        pipes = [self.path / f"{a}-{b}" for a in LAYERS for b in LAYERS]
        return [
            *pipes,
            *(self.control(layer) for layer in LAYERS),
            self.door / "gateway",
            self.path / "supervisor.sock",
        ]

    def pipe(self, sender: str, receiver: str) -> Path:
        """The socket on which `receiver` takes what `sender` sends."""
        return self.path / f"{sender}-{receiver}"

    def control(self, layer: str) -> Path:
        """The control socket of a layer."""
        return self.path / f"{layer}.ctl"

    def tap(self, layer: str) -> Path:
        """The tap bus of a layer."""
        return self.path / f"{layer}.tap"

    def lock(self, layer: str) -> int:
        """Take the layer's lock and write our pid into it; the descriptor must stay open. Raises Locked."""
        fd = os.open(self.path / f"{layer}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise Locked(layer, int(text) if text.isdigit() else 0) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def holder(self, layer: str) -> int | None:
        """The pid of the running process of a layer, or None."""
        try:
            fd = os.open(self.path / f"{layer}.lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except OSError:
            text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            return int(text) if text.isdigit() else 0
        finally:
            os.close(fd)

    def secret(self, name: str) -> bytes:
        """A random secret of 32 bytes that lives as long as the run directory (RFC 6528, 6056 want one)."""
        path = self.path / f"{name}.secret"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            data = path.read_bytes()
            if len(data) == _SECRET_BYTES:
                return data
            path.unlink()
            return self.secret(name)
        data = secrets.token_bytes(_SECRET_BYTES)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        return data


def _own_directory(path: Path, mode: int) -> None:
    """Make a directory that is ours, with exactly this mode."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            raise RunError(
                f"{path} exists and is not a directory of this user; choose another --run directory"
            ) from None
    path.chmod(mode)
