"""Two stacks connected by a wire, 4 MB from one to the other, compared: does this installation work?

Uses what is installed for this interpreter, needs no privileges and no network, and takes a few seconds.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LVLIP = [sys.executable, "-P", "-m", "levelip.cli"]
SIZE = 4 << 20
TIMEOUT_S = 60

SERVER = """
import hashlib, sys
from levelip.client import socket
listener = socket.create_server(("10.0.0.1", 9000))
print("listening", flush=True)
connection, peer = listener.accept()
digest, size = hashlib.sha256(), 0
while data := connection.recv(65536):
    digest.update(data)
    size += len(data)
connection.sendall(f"{size} {digest.hexdigest()} {peer[0]}".encode())
connection.close()
"""

CLIENT = """
import random
from levelip.client import socket
connection = socket.create_connection(("10.0.0.1", 9000), 20)
connection.sendall(random.Random(1).randbytes(int(__import__("sys").argv[1])))
connection.shutdown(socket.SHUT_WR)
print(connection.makefile().read())
"""


def up(name: str, address: str, wire: Path, peer: Path, environment: dict[str, str]) -> None:
    """Start a stack whose device is a wire."""
    settings = {
        "device.kind": "wire",
        "device.wire_path": wire,
        "device.wire_peer": peer,
        "ip.address": f"{address}/24",
        "ip.gateway": "",
    }
    flags = [f"--set={key}={value}" for key, value in settings.items()]
    subprocess.run([*LVLIP, "--name", name, "up", *flags], env=environment, check=True, timeout=TIMEOUT_S)


def main() -> int:
    """0 if every byte arrived."""
    root = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
    environment = {**os.environ, "LEVELIP_RUN": str(root)}
    started: list[str] = []
    server = None
    try:
        ends = {"a": "10.0.0.1", "b": "10.0.0.2"}
        for name, address in ends.items():
            other = "b" if name == "a" else "a"
            started.append(name)
            up(name, address, root / f"{name}.wire", root / f"{other}.wire", environment)
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER],
            env={**environment, "LEVELIP_NAME": "a"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout
        if server.stdout.readline() != "listening\n":
            raise SystemExit("wire: the server does not listen")
        client = subprocess.run(
            [sys.executable, "-P", "-c", CLIENT, str(SIZE)],
            env={**environment, "LEVELIP_NAME": "b"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        expected = f"{SIZE} {hashlib.sha256(random.Random(1).randbytes(SIZE)).hexdigest()} {ends['b']}"
        if client.stdout.strip() != expected:
            raise SystemExit(f"wire: sent {expected}, but arrived {client.stdout.strip()}")
        print(f"wire: {SIZE} bytes crossed eight processes, sha256 equal")
        return 0
    finally:
        if server is not None:
            server.kill()
            server.wait()
        for name in started:
            subprocess.run([*LVLIP, "--name", name, "down"], env=environment, check=False, timeout=TIMEOUT_S)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
