"""Which name servers are asked instead of the host's."""

from __future__ import annotations

import socket
from pathlib import Path

from levelip.run.nameservers import PATIENCE_S, Nameservers


def packed(text: str) -> bytes:
    return socket.inet_aton(text)


def made(tmp_path: Path, text: str | None, *chosen: str, upstream: str = "") -> Nameservers:
    hosts, other = tmp_path / "resolv.conf", tmp_path / "upstream"
    if text is not None:
        hosts.write_text(text)
    other.write_text(upstream)
    return Nameservers(chosen, hosts=hosts, upstream=other)


def where(servers: Nameservers, text: str, port: int = 53) -> str:
    return socket.inet_ntoa(servers.instead((packed(text), port))[0])


STUB = "# systemd\nnameserver 127.0.0.53\noptions edns0\n"


def test_a_stub_resolver_is_replaced(tmp_path: Path) -> None:
    """What goes to port 53 of the host's loopback resolver goes to the server that was chosen; nothing else does."""
    servers = made(tmp_path, STUB, "10.0.0.1")
    assert where(servers, "127.0.0.53") == "10.0.0.1"
    assert where(servers, "127.0.0.53", 80) == "127.0.0.53"
    assert [where(servers, text) for text in ("127.0.0.1", "192.0.2.1")] == ["127.0.0.1", "192.0.2.1"]
    assert not servers.lost((packed("127.0.0.53"), 53))


def test_whom_to_ask_where_nobody_said(tmp_path: Path) -> None:
    """The other servers there, else those that systemd-resolved asks, else nobody, which is told."""
    both = made(tmp_path, "nameserver 127.0.0.1\nnameserver 192.0.2.9\n", upstream="nameserver 192.0.2.7\n")
    assert (where(both, "127.0.0.1"), where(both, "192.0.2.9")) == ("192.0.2.9", "192.0.2.9")
    resolved = made(tmp_path, STUB, upstream="nameserver 127.0.0.1\nnameserver 192.0.2.7")
    assert where(resolved, "127.0.0.53") == "192.0.2.7"
    nobody = made(tmp_path, STUB)
    assert nobody.lost((packed("127.0.0.53"), 53)) and not nobody.lost((packed("127.0.0.53"), 80))
    assert not nobody.lost((packed("10.0.0.1"), 53))
    nobody.configure(["10.0.0.1"])
    assert not nobody.lost((packed("127.0.0.53"), 53)) and where(nobody, "127.0.0.53") == "10.0.0.1"


def test_no_resolv_conf(tmp_path: Path) -> None:
    """Then programs ask 127.0.0.1 (resolv.conf(5))."""
    assert where(made(tmp_path, None, "10.0.0.1"), "127.0.0.1") == "10.0.0.1"
    assert where(made(tmp_path, "nameserver ::1\nsearch x\n", "10.0.0.1"), "127.0.0.1") == "10.0.0.1"


def test_configured_servers_stand_for_all(tmp_path: Path) -> None:
    """Each server of /etc/resolv.conf has its own; those beyond begin anew."""
    servers = made(tmp_path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    assert where(servers, "192.0.2.2") == "192.0.2.2"
    servers.configure([])
    assert where(servers, "192.0.2.2") == "192.0.2.2"
    servers.configure(["10.0.0.1", "10.0.0.2"])
    assert [where(servers, f"192.0.2.{i}") for i in (1, 2, 3)] == ["10.0.0.1", "10.0.0.2", "10.0.0.1"]


def test_a_server_that_is_silent_is_left(tmp_path: Path) -> None:
    """After PATIENCE_S without any answer the next server is asked; an answer keeps the present one."""
    now = 100.0
    hosts = tmp_path / "resolv.conf"
    hosts.write_text(STUB)
    servers = Nameservers(["10.0.0.1", "10.0.0.2"], hosts=hosts, clock=lambda: now)
    assert where(servers, "127.0.0.53") == "10.0.0.1"
    now += PATIENCE_S / 2
    assert where(servers, "127.0.0.53") == "10.0.0.1"
    servers.answered()
    now += PATIENCE_S
    assert where(servers, "127.0.0.53") == "10.0.0.1"
    now += PATIENCE_S
    assert where(servers, "127.0.0.53") == "10.0.0.2"
    now += PATIENCE_S
    assert where(servers, "127.0.0.53") == "10.0.0.1"
