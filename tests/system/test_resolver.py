"""Names over the stack: dnsmasq in the namespace is asked by programs on the stack, and by glibc beside it.

Both read the same resolv.conf and hosts, which lie over the host's own in mount namespaces, and must say the same.
"""

from __future__ import annotations

import json
import shutil
import socket as std
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace, end, environment, way

SERVER, OTHER = "10.0.0.1", "10.0.0.3"
PROGRAM = ROOT / "tests" / "system" / "programs" / "names.py"
DNSMASQ = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
KNOWN = """\
198.51.100.1 www.example.org
198.51.100.2 www.example.org
2001:db8::1  www.example.org
198.51.100.4 four.example.org
2001:db8::6  six.example.org
"""
MANY = 200
FILES = {
    "resolv.conf": f"nameserver {SERVER}\nsearch example.net example.org\noptions timeout:30\n",
    "hosts": "127.0.0.1 localhost\n198.51.100.9 Printer.example.org printer\n198.51.100.10 printer\n",
    "nsswitch.conf": "hosts: files dns\nservices: files\nprotocols: files\n",
    "host.conf": "multi on\n",
}
SOON = "timeout:2 attempts:5"
"""Where one does not answer and another does: after two seconds, and again and again on a busy machine."""
pytestmark = pytest.mark.skipif(DNSMASQ is None, reason="needs the program dnsmasq (package dnsmasq-base)")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that programs find in /etc."""
    directory = tmp_path_factory.mktemp("etc")
    for name, text in FILES.items():
        (directory / name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def resolving(_shared: Stack, directory: Path) -> Iterator[Stack]:
    """The stack, beside it a host that resolves names at one address and is silent at another."""
    stack = _shared
    assert stack.namespace is not None and DNSMASQ is not None
    host = stack.namespace
    (directory / "known").write_text(KNOWN + "".join(f"198.18.0.{n} many.example.org\n" for n in range(1, MANY + 1)))
    host.run(["ip", "address", "add", f"{OTHER}/24", "dev", "lvl-t"])
    host.run(["ip", "route", "add", "default", "via", stack.address])  # glibc puts what has no route last, as we do
    server = host.popen(
        [
            DNSMASQ, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=",
            "--no-round-robin",
            "--pid-file=", f"--addn-hosts={directory / 'known'}", f"--listen-address={SERVER}", "--bind-interfaces",
            "--cname=alias.example.org,www.example.org", "--local=/org/", "--local=/net/", "--local=//",
            "--local=/in-addr.arpa/", "--log-facility=-",
        ],
        stdout=(directory / "dnsmasq.log").open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    with host.socket(kind=std.SOCK_DGRAM) as silent:
        silent.bind((OTHER, 53))
        stack.wait_until(lambda: "started" in (directory / "dnsmasq.log").read_text(), "dnsmasq listens")
        yield stack
    end(server)


@pytest.fixture
def names(resolving: Stack) -> Iterator[Stack]:
    """The same; what a test sets is as before after it."""
    yield resolving
    for key in ("gateway.dns_servers", "gateway.dns_options"):
        resolving.set(key, [])


def with_files(directory: Path, argv: list[str], *, entered: bool) -> list[str]:
    """The command that runs `argv` where `directory` lies over /etc. `entered`: we may mount there already."""
    user = [] if entered or way() == "root" else ["--user", "--map-root-user"]
    there = [name for name in FILES if Path("/etc", name).exists()]
    mounts = "".join(f"mount --bind '{directory}/{name}' /etc/{name} && " for name in there)
    return ["unshare", *user, "--mount", "--", "sh", "-c", f'{mounts} exec "$@"', "sh", *argv]


def by_stack(stack: Stack, directory: Path, *calls: str) -> dict[str, Any]:
    """What the calls answer over the stack."""
    command = with_files(directory, [sys.executable, str(PROGRAM), "stack", *calls], entered=False)
    variables = environment({**stack.env, "PYTHONPATH": str(ROOT)})
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=variables)
    assert done.returncode == 0, done.stderr + stack.report()
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def by_kernel(host: Namespace, directory: Path, *calls: str) -> dict[str, Any]:
    """What they answer with glibc and the kernel's sockets, in the namespace."""
    command = with_files(directory, [sys.executable, str(PROGRAM), "std", *calls], entered=True)
    answers: dict[str, Any] = json.loads(host.run(command, timeout=60).stdout)
    return answers


CALLS = (
    "getaddrinfo www.example.org 80",
    "getaddrinfo www.example.org http 2 1 0 2",
    "getaddrinfo alias.example.org 80 2 1 0 2",
    "getaddrinfo many.example.org 80 2 1",
    "getaddrinfo four.example.org 80 10",
    "getaddrinfo four.example.org 80 10 1 0 8",
    "getaddrinfo six.example.org 80",
    "getaddrinfo six.example.org 80 2",
    "getaddrinfo www 80 2 1 0 2",
    "getaddrinfo nobody.example.org 80",
    "getaddrinfo nobody 80",
    "getaddrinfo www.example.org nope",
    "getaddrinfo printer 80 2 1 0 2",
    "getaddrinfo 127.1 80",
    "getaddrinfo localhost 80 2",
    "gethostbyname www.example.org",
    "gethostbyname_ex alias.example.org",
    "gethostbyname_ex printer",
    "gethostbyname nobody.example.org",
    "gethostbyaddr 198.51.100.1",
    "gethostbyaddr 198.51.100.9",
    "gethostbyaddr 198.51.100.77",
    "getnameinfo 198.51.100.4 80 0",
    "getnameinfo 198.51.100.77 80 0",
    "getnameinfo 198.51.100.77 80 8",
    "getfqdn printer",
    "getfqdn 198.51.100.1",
)


def test_as_glibc(names: Stack, directory: Path) -> None:
    """The same names, asked of the same server: the same answers, errors and order as glibc's in the namespace; what is
    cut comes by TCP."""
    host = names.namespace
    assert host is not None
    before = names.counters("tcp").get("active_opens", 0)
    said = by_stack(names, directory, *CALLS)
    expected = by_kernel(host, directory, *CALLS)
    for call in CALLS:
        rows = expected[call]
        if call.startswith("getaddrinfo") and call.count(" ") == 2:  # no family: IPv4 alone if there is any (names.py)
            rows = [row for row in rows if not isinstance(row, list) or row[0] != std.AF_INET6] or rows
        assert said[call] == rows, call
    assert len(said["getaddrinfo many.example.org 80 2 1"]) == MANY
    assert names.counters("tcp")["active_opens"] > before


def test_a_silent_server_is_passed_over(names: Stack, directory: Path) -> None:
    """resolv.conf's own servers, of which the first does not answer: the next one does, after its timeout."""
    silent = FILES["resolv.conf"].replace("nameserver", f"nameserver {OTHER}\nnameserver").replace("timeout:30", SOON)
    (directory / "resolv.conf").write_text(silent)
    names.set("gateway.dns_servers", [])
    call = "gethostbyname four.example.org"
    assert by_stack(names, directory, call) == {call: "198.51.100.4"}
    names.set("gateway.dns_servers", [OTHER])
    names.set("gateway.dns_options", ["attempts:1"])
    assert by_stack(names, directory, call) == {call: ["gaierror", -3, "Temporary failure in name resolution"]}
    (directory / "resolv.conf").write_text(FILES["resolv.conf"])


def test_lvlip_resolve(names: Stack, directory: Path) -> None:
    """What was asked, of whom, and what came; exit code 1 for what is not found. Where nobody listens costs no time."""
    names.set("gateway.dns_servers", ["10.0.0.1"])
    names.set("gateway.dns_options", ["timeout:30"])
    shown = names.lvlip("resolve", "-4", "alias.example.org.").stdout
    lines = shown.splitlines()
    assert lines[0].startswith("servers 10.0.0.1 (gateway.dns_servers)")
    assert lines[1].split()[:4] == ["10.0.0.1", "udp", "alias.example.org", "A"] and "NOERROR" in lines[1]
    assert lines[2].split()[::2] == ["alias.example.org", "CNAME"]
    assert "198.51.100.1" in lines[-1] and lines[-1].startswith("alias.example.org.: ")
    assert "udp  many.example.org A  truncated" in names.lvlip("resolve", "-4", "many.example.org.").stdout
    names.set("gateway.dns_servers", ["10.0.0.2"])  # our own address: port unreachable at once
    failed = names.lvlip("--json", "resolve", "-4", "four.example.org.", check=False)
    rows = [json.loads(line) for line in failed.stdout.splitlines()]
    assert failed.returncode == 1 and [row["kind"] for row in rows] == ["config", "exchange", "exchange", "found"]
    assert rows[1]["outcome"] == "ECONNREFUSED" and rows[3]["found"] == []


def fetch_by_name() -> tuple[bytes, str]:
    from levelip.client import socket

    with socket.create_connection(("web.example.org", 8080), 60) as sock:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loose:
            loose.sendto(b"by name", ("web.example.org", 8081))
        return sock.recv(100), sock.getpeername()[0]


def test_sockets_take_names(names: Stack, directory: Path) -> None:
    """connect and sendto to a name: the stack's resolver, here answered by a server that the test itself is."""
    host = names.namespace
    assert host is not None
    host.run(["ip", "address", "add", "10.0.0.4/24", "dev", "lvl-t"])
    names.set("gateway.dns_servers", ["10.0.0.4"])
    names.set("gateway.dns_options", ["timeout:30"])  # one question for each name
    asked: list[dns.rdatatype.RdataType] = []

    def answer(sock: std.socket) -> None:
        for _ in range(2):  # for create_connection and for sendto: nobody asks for AAAA
            data, sender = sock.recvfrom(2000)
            reply = dns.message.make_response(dns.message.from_wire(data), recursion_available=True)
            asked.append(reply.question[0].rdtype)
            if asked[-1] == dns.rdatatype.A:
                reply.answer.append(dns.rrset.from_text("web.example.org.", 5, "IN", "A", names.host))
            sock.sendto(reply.to_wire(), sender)

    with (
        host.socket() as listener,
        host.socket(kind=std.SOCK_DGRAM) as loose,
        host.socket(kind=std.SOCK_DGRAM) as server,
    ):
        for sock, port in ((listener, 8080), (loose, 8081)):
            sock.bind((names.host, port))
            sock.settimeout(60)
        server.bind(("10.0.0.4", 53))
        server.settimeout(60)
        listener.listen()
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        fetched = names.submit(fetch_by_name)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"hello by name")
            assert fetched.result(60) == (b"hello by name", names.host)
        assert loose.recv(100) == b"by name"
        thread.join(60)
    assert asked == [dns.rdatatype.A, dns.rdatatype.A]
