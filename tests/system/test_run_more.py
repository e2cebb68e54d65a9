"""More unmodified programs under `lvlip run`, each as client and as server against the kernel's: curl with TLS, iperf3,
ssh, redis-benchmark, static Go programs. See test_run_programs.py."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import pwd
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import Stack
from tests.system.test_run_programs import BIG, HOST, LIMIT_S, OURS, World, digest, need, served

pytestmark = pytest.mark.timeout(400)

PLAIN, TLS = 8110, 8111
NGINX = """
worker_processes 2; daemon off; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {0}/1; proxy_temp_path {0}/2; fastcgi_temp_path {0}/3; uwsgi_temp_path {0}/4;
    scgi_temp_path {0}/5;
    server {{
        listen 8110; listen 8111 ssl;
        ssl_certificate {0}/certificate; ssl_certificate_key {0}/key;
        root {0};
        location /slow/ {{ alias {0}/; limit_rate 500k; }}
    }}
}}
"""
SSHD = """
Port 2222
HostKey {0}/host
AuthorizedKeysFile {0}/mine.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
GO = """
package main

import (
    "crypto/sha256"
    "fmt"
    "io"
    "net"
    "os"
    "sync"
)

func fail(err error) {
    if err != nil {
        fmt.Fprintln(os.Stderr, err)
        os.Exit(1)
    }
}

func serve(listener net.Listener) {
    for {
        connection, err := listener.Accept()
        fail(err)
        go func() {
            io.Copy(connection, connection)
            connection.Close()
        }()
    }
}

func ask(address string, number int) {
    connection, err := net.Dial("tcp4", address)
    fail(err)
    data := make([]byte, 500000)
    for at := range data {
        data[at] = byte(at * (number + 3) >> 3)
    }
    go func() {
        _, err := connection.Write(data)
        fail(err)
        fail(connection.(*net.TCPConn).CloseWrite())
    }()
    back, err := io.ReadAll(connection)
    fail(err)
    if sha256.Sum256(back) != sha256.Sum256(data) {
        fail(fmt.Errorf("stream %d came back altered, %d bytes", number, len(back)))
    }
    connection.Close()
}

func main() {
    if os.Args[1] == "serve" {
        listener, err := net.Listen("tcp4", os.Args[2])
        fail(err)
        serve(listener)
    }
    var group sync.WaitGroup
    for number := 0; number < 20; number++ {
        group.Add(1)
        go func(number int) {
            ask(os.Args[2], number)
            group.Done()
        }(number)
    }
    group.Wait()
    fmt.Println("20 streams")
}
"""


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Path, str]]:
    """A directory with a big and a small file, a certificate for both addresses, and the big one's digest."""
    with served() as (directory, big):
        subprocess.run(
            [need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", directory / "key", "-out", directory / "certificate", "-days", "2",
             "-subj", "/CN=level-ip", "-addext", f"subjectAltName=IP:{HOST},IP:{OURS}"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        (directory / "nginx").write_text(NGINX.format(directory), encoding="ascii")
        yield directory, big


@pytest.fixture
def place(shared_stack: Stack, site: tuple[Path, str]) -> World:
    """The stack and the directory."""
    return World(shared_stack, *site)


def nginx(place: World, *, ours: bool) -> Any:
    """nginx with TLS, on the stack or the kernel."""
    argv = [need("nginx", "nginx-light"), "-c", place.directory / "nginx"]
    return place.server(*argv, port=TLS, ours=ours, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("ours", [False, True], ids=["client", "server"])
def test_curl_with_tls(place: World, tmp_path: Path, ours: bool) -> None:
    """curl and nginx with TLS, one of them on the stack: 50 MB, resumed, 100 at once, a time limit."""
    curl = need("curl", "curl")
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    url, trust = f"https://{host}:{TLS}", ("--cacert", place.directory / "certificate")
    with nginx(place, ours=ours):
        run(curl, "-sS", *trust, "-o", tmp_path / "got", f"{url}/big")
        assert digest(tmp_path / "got") == place.digest
        with (tmp_path / "got").open("r+b") as file:
            file.truncate(30_000_001)
        said = run(
            curl, "-sS", *trust, "-C", "-", "-w", "%{http_code} %{size_download}", "-o", tmp_path / "got", f"{url}/big"
        )
        assert said == f"206 {BIG - 30_000_001}" and digest(tmp_path / "got") == place.digest
        many = [word for _ in range(100) for word in ("-o", "/dev/null", "-w", "%{http_code} ", f"{url}/small")]
        said = run(curl, "-sS", *trust, "--no-progress-meter", "--parallel", "--parallel-max", "100", *many)
        assert re.findall(r"\d+", said) == ["200"] * 100
        part = tmp_path / "part"
        for limit in (1, 4, 16, 64):  # s; 500 KB/s of 50 MB; the first in which the handshake is over
            run(curl, "-sS", *trust, "--max-time", str(limit), "-o", part, f"{url}/slow/big", code=28)
            if part.exists() and part.stat().st_size:
                break
        assert 0 < part.stat().st_size < BIG
        run(curl, "-sS", f"{url}/small", code=60)  # a certificate that nobody vouches for


@pytest.mark.parametrize("ours", [False, True], ids=["client", "server"])
def test_wrk(place: World, ours: bool) -> None:
    """wrk asks nginx on 200 connections at a time, one of the two on the stack: all are answered."""
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    with nginx(place, ours=ours):
        said = run(need("wrk", "wrk"), "-t2", "-c200", "-d8", "--timeout", "30", f"http://{host}:{PLAIN}/small")
    assert "200 connections" in said
    requests = re.search(r"(\d+) requests in", said)
    assert requests and int(requests[1]) > 200, said
    assert "Non-2xx" not in said and "Socket errors" not in said, said


def iperf(argv: list[str], run: Any) -> dict[str, Any]:
    """What iperf3 measured: the sums at the end. After each client its server closes its listener and makes a new one,
    on any stack, which resets who comes just then: we come again."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        said = run("sh", "-c", shlex.join([need("iperf3", "iperf3"), *argv, "--json"]) + " || true")
        found: dict[str, Any] = json.loads(said[said.index("{") :])
        if "error" not in found:
            end: dict[str, Any] = found["end"]
            return end
        assert time.monotonic() < deadline, found["error"]
        assert re.search("reset by peer|refused|server is busy", found["error"]), found["error"]
        time.sleep(0.2)


@pytest.mark.parametrize("ours", [False, True], ids=["client", "server"])
def test_iperf3(place: World, ours: bool) -> None:
    """iperf3 both ways over TCP, four streams at once too; what one side has sent the other has received, but
    for what was under way as iperf3 stopped the clock."""
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    with place.server(need("iperf3", "iperf3"), "-s", "-p", "5210", port=5210, ours=ours, stdout=subprocess.DEVNULL):
        for flags in ([], ["-R"], ["-P", "4", "-w", "200K"]):  # four of the largest buffers hold more than 24 MB
            end = iperf(["-c", host, "-p", "5210", "-n", "60M", *flags], run)
            sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
            assert sent >= 60 << 20 and sent - (24 << 20) < received <= sent, (flags, sent, received)


@pytest.fixture(scope="module")
def keys(site: tuple[Path, str]) -> Path:
    """sshd's configuration, its key and ours."""
    directory = site[0] / "ssh"
    directory.mkdir()
    for name in ("host", "mine"):
        argv = [need("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", directory / name]
        subprocess.run(argv, check=True, timeout=60)
    (directory / "config").write_text(SSHD.format(directory), encoding="ascii")
    (directory / "client").write_text(
        f"User {getpass.getuser()}\nPort 2222\nIdentityFile {directory}/mine\nIdentitiesOnly yes\nBatchMode yes\n"
        f"StrictHostKeyChecking accept-new\nUserKnownHostsFile {directory}/known\nLogLevel ERROR\n",
        encoding="ascii",
    )
    return directory


@pytest.mark.parametrize("ours", [False, True], ids=["client", "server"])
def test_ssh(place: World, keys: Path, tmp_path: Path, ours: bool) -> None:
    """ssh and sshd, one of them on the stack: a command with its input and exit status, 20 MB by sftp both ways, a
    forwarded port."""
    sshd, ssh, scp = need("sshd", "openssh-server"), need("ssh", "openssh-client"), need("scp", "openssh-client")
    if os.geteuid() == 0:  # sshd's own: where its unprivileged part is locked up
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        pwd.getpwnam("sshd")
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    config = ("-F", keys / "client")
    with place.server(sshd, "-D", "-e", "-f", keys / "config", port=2222, ours=ours, stderr=subprocess.DEVNULL):
        run(ssh, *config, host, "exit 7", code=7)
        text = os.urandom(100_000).hex()
        assert run(ssh, *config, host, "sha256sum", text=text).split()[0] == hashlib.sha256(text.encode()).hexdigest()
        source = tmp_path / "source"
        source.write_bytes(os.urandom(20_000_000))
        run(scp, "-q", *config, source, f"{host}:{tmp_path}/there")
        assert digest(tmp_path / "there") == digest(source)
        run(scp, "-q", *config, f"{host}:{tmp_path}/there", tmp_path / "back")
        assert digest(tmp_path / "back") == digest(source)


def _redis(place: World, tmp_path: Path, *, ours: bool) -> None:
    redis, benchmark = need("redis-server", "redis-server"), need("redis-benchmark", "redis-tools")
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    argv = [redis, "--port", "8112", "--save", "", "--protected-mode", "no", "--dir", tmp_path]
    with place.server(*argv, port=8112, ours=ours, stdout=subprocess.DEVNULL):
        tests = "ping,set,get,incr,lpush,lpop,mset"
        said = run(benchmark, "-h", host, "-p", "8112", "-c", "50", "-n", "5000", "-d", "100", "-t", tests, "--csv")
        rates = {name: float(rate) for name, rate in re.findall(r'^"([^"]+)","([\d.]+)"', said, re.MULTILINE)}
        assert {"SET", "GET", "INCR", "LPUSH", "LPOP"} <= rates.keys() and min(rates.values()) > 0, said
        said = run(benchmark, "-h", host, "-p", "8112", "-c", "10", "-n", "20000", "-P", "16", "-t", "get", "--csv")
        assert '"GET"' in said


def _go(place: World, tmp_path: Path, *, ours: bool) -> None:
    go = need("go", "golang-go")
    source, program = tmp_path / "echo.go", tmp_path / "echo"
    source.write_text(GO, encoding="ascii")
    variables = {**os.environ, "CGO_ENABLED": "0", "GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off"}
    subprocess.run([go, "build", "-o", program, source], check=True, timeout=300, env=variables)
    assert b"dynamic" not in subprocess.run(["file", "-b", program], capture_output=True, check=False).stdout
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    with place.server(program, "serve", "0.0.0.0:8113" if ours else f"{HOST}:8113", port=8113, ours=ours):
        assert run(program, "ask", f"{host}:8113") == "20 streams\n"
    if not ours:
        assert "connection refused" in run(program, "ask", f"{host}:9", code=1)


PROGRAMS = {"redis": _redis, "go": _go}


@pytest.mark.matrix(ids=())
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ours", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_program(place: World, tmp_path: Path, program: str, ours: bool) -> None:
    """Programs that take longer, or are large to install."""
    PROGRAMS[program](place, tmp_path, ours=ours)
