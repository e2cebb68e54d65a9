"""A wrong configuration is refused before anything starts; the message names file, key, value and what is allowed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import MODULES, ROOT
from tests.system.namespace import environment

LIMIT_S = 60.0

MISTAKES = {
    "unknown-section": ("[tpc]\n", 1, ["[tpc]", "no such section", "link, stack, tcp"]),
    "unknown-key": ("[tcp]\ndelayed_ack = 5\n", 2, ["tcp.delayed_ack", "did you mean tcp.delayed_ack_ms"]),
    "type": ('[tcp]\nnagle = "no"\n', 2, ["tcp.nagle", '"no"', "true or false"]),
    "range": ("[tcp]\ndelayed_ack_ms = 501\n", 2, ["tcp.delayed_ack_ms", "501", "from 0 to 500"]),
    "choice": ('\n[device]\nkind = "tab"\n', 3, ["device.kind", '"tab"', "one of tap, tun, wire"]),
    "address": ('[ip]\naddress = "10.0.0.300/24"\n', 2, ["ip.address", '"10.0.0.300/24"', "as 10.0.0.2/24"]),
    "prefix": ('[ip]\naddress = "10.0.0.2"\n', 2, ["ip.address", '"10.0.0.2"', "prefix length"]),
    "mac": ('[device]\nmac = "00:11:22"\n', 2, ["device.mac", '"00:11:22"', "as 02:00:00:00:00:02"]),
    "route": ('[ip]\nroutes = ["192.0.2.0/24"]\n', 2, ["ip.routes", "192.0.2.0/24", "PREFIX via GATEWAY"]),
    "together": ('[ip]\ngateway = "192.0.2.1"\n', 2, ["ip.gateway", '"192.0.2.1"', "10.0.0.0/24"]),
    "same-address": ('[ip]\naddress = "10.0.0.1/24"\n', 2, ["ip.address", '"10.0.0.1/24"', "device.host_address"]),
    "buffer": ("[tcp]\nsend_buffer = 8000000\n", 2, ["tcp.send_buffer", "8000000", "tcp.send_ring (4194304)"]),
    "pipe": ('[ipc]\nendpoints = { "tcp-app" = "ipc:///x" }\n', 2,
             ["ipc.endpoints", '"tcp-app" is no pipe', "gateway-tcp"]),
    "layer": ('[stack]\nlayers = ["link", "sctp"]\n', 2, ["stack.layers", "'sctp'", "link, ip, tcp, udp, gateway"]),
    "no-keys": ('[ipc]\nendpoints = { "ip-tcp" = "tcp://127.0.0.1:7001" }\n', None,
                ["ipc.secret_key_file", "lvlip keygen", "ip-tcp"]),
    "toml": ("[tcp\n", None, ["is no TOML", "line 1"]),
}  # fmt: skip
"""Kind → the file, the line of the mistake (None: none is named), what the message must hold."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lv", dir="/tmp") as name:
        yield Path(name)


def run(directory: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that uses the file, which must refuse it and start nothing."""
    env = environment({"LEVELIP_RUN": str(directory / "run"), "PYTHONPATH": str(ROOT), **variables})
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=env,
        cwd=directory,
        check=False,
    )
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    assert not list((directory / "run").rglob("*.lock")), "something was started"
    return done


@pytest.mark.parametrize("kind", MISTAKES)
def test_lvlip_up_refuses(directory: Path, kind: str) -> None:
    """Each kind of mistake in the file: `lvlip up` ends with an error that leads straight to it."""
    text, line, parts = MISTAKES[kind]
    file = directory / "level-ip.toml"
    file.write_text(text)
    done = run(directory, "levelip.cli", "up")
    where = f"{file}:{line}: " if line else str(file) if kind == "toml" else ""
    for part in (where, *parts):
        assert part in done.stderr, (part, done.stderr)


@pytest.mark.parametrize("layer", MODULES)
def test_a_layer_refuses(directory: Path, layer: str) -> None:
    """Started by hand, each process refuses it in the same words, with exit code 2."""
    file = directory / "c.toml"
    file.write_text("[tcp]\ndelayed_ack_ms = 501\n")
    done = run(directory, MODULES[layer], "--config", str(file))
    assert done.returncode == 2
    assert f"{file}:2: tcp.delayed_ack_ms = 501: must be an integer from 0 to 500" in done.stderr


def test_every_mistake_is_named_at_once(directory: Path) -> None:
    """File, environment and flag together: three mistakes, three lines, each with its source."""
    file = directory / "c.toml"
    file.write_text("[link]\narp_retries = 0\n")
    done = run(directory, "levelip.cli", "up", "--config", str(file), "--set", "ip.ttl=0", LEVELIP_TCP_NAGLE="maybe")
    assert f"{file}:2: link.arp_retries = 0: must be an integer from 1 to 100" in done.stderr
    assert 'LEVELIP_TCP_NAGLE: tcp.nagle = "maybe": must be true or false' in done.stderr
    assert '--set: ip.ttl = "0": must be an integer from 1 to 255' in done.stderr


def test_a_file_that_is_not_there(directory: Path) -> None:
    """A file that was named must exist."""
    done = run(directory, "levelip.cli", "up", "--config", str(directory / "nothing.toml"))
    assert f"{directory / 'nothing.toml'}: cannot be read: No such file" in done.stderr
