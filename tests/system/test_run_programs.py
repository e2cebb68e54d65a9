"""Unmodified programs under `lvlip run`, each as client or server against the kernel in the stack's namespace.

The namespace has no way out but the stack's device, so what slips past the filter finds nothing: the server at 10.0.0.1
is on the other side of the stack, and port 9 of it is closed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import ROOT, Stack
from tests.system.namespace import end
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

BIG = 50_000_000
LIMIT_S = 100.0
"""How long a program may take on a busy machine."""
HOST, OURS = "10.0.0.1", "10.0.0.2"
WEB = 8000
SERVER = """
import http.server, sys
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server((sys.argv[1], int(sys.argv[2])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
HELLO = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(2048)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) { perror("socket"); return 1; }
    if (argc < 2 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) { fputs("hello ADDRESS\n", stderr); return 1; }
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) { perror("connect"); return 1; }
    if (write(fd, "hello", 5) != 5) { perror("write"); return 1; }
    close(fd);
    return 0;
}
"""
NODE = """
const crypto = require('crypto'), http = require('http');
http.get(process.argv[1], answer => {
    const hash = crypto.createHash('sha256');
    answer.on('data', data => hash.update(data));
    answer.on('end', () => console.log(hash.digest('hex')));
});
"""
NODE_SERVER = """
require('http').createServer((_, answer) => answer.end('from node')).listen(8107, '0.0.0.0');
"""
NGINX = """
worker_processes 2; daemon off; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {0}/1; proxy_temp_path {0}/2; fastcgi_temp_path {0}/3; uwsgi_temp_path {0}/4;
    scgi_temp_path {0}/5;
    server {{ listen 8105; root {0}; }}
}}
"""


class World:
    """The stack, and a directory that a kernel web server serves at 10.0.0.1:8000."""

    def __init__(self, stack: Stack, directory: Path, digest: str) -> None:
        assert stack.namespace is not None
        self.stack = stack
        self.namespace = stack.namespace
        self.directory = directory
        self.digest = digest
        self.url = f"http://{HOST}:{WEB}"

    @property
    def variables(self) -> dict[str, str]:
        return {**self.stack.env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def command(self, argv: Sequence[str | os.PathLike[str]], *flags: str) -> list[str]:
        """The command line of a program on the stack; lvlip itself needs no PYTHONPATH of the program."""
        return [sys.executable, "-P", "-m", "levelip.cli", "run", *flags, "--", *map(str, argv)]

    def run(self, *argv: str | os.PathLike[str], code: int = 0, timeout: float = LIMIT_S, text: str = "") -> str:
        """A program on the stack, to its end; what it printed, both streams."""
        done = subprocess.run(
            self.namespace.command(self.command(argv)), env={**os.environ, **self.variables}, cwd=self.directory,
            input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{argv[0]}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def kernel(self, *argv: str | os.PathLike[str], code: int = 0, timeout: float = LIMIT_S, text: str = "") -> str:
        """A program on the kernel's own sockets; what it printed."""
        done = self.namespace.run(argv, check=False, timeout=timeout, text=text)
        assert done.returncode == code, f"{argv[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def server(
        self, *argv: str | os.PathLike[str], port: int, ours: bool = True, **options: Any
    ) -> Iterator[subprocess.Popen[Any]]:
        """A server, on the stack or the kernel, that listens now; it gets SIGTERM in the end."""
        command = self.command(argv) if ours else list(argv)
        child = self.namespace.popen(command, env=self.variables, cwd=self.directory, **options)
        try:
            deadline = time.monotonic() + 60
            while True:
                with self.namespace.socket() as probe:
                    if probe.connect_ex((OURS if ours else HOST, port)) == 0:
                        break
                assert child.poll() is None, f"{argv[0]} ended with {child.poll()}"
                assert time.monotonic() < deadline, f"{argv[0]} does not listen"
                time.sleep(0.05)
            yield child
        finally:
            end(child, wait=60.0)  # nginx's workers go after it has told them, and would keep the port


def need(program: str, package: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed (package {package})")
    return found


@contextlib.contextmanager
def served() -> Iterator[tuple[Path, str]]:
    """A directory with a big and a small file, and the digest of the big one."""
    directory = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
    try:
        directory.chmod(0o755)  # nginx's workers become another user
        data = os.urandom(1_000_000) * (BIG // 1_000_000)
        (directory / "big").write_bytes(data)
        (directory / "small").write_text("small\n", encoding="ascii")
        yield directory, hashlib.sha256(data).hexdigest()
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def web() -> Iterator[tuple[Path, str]]:
    """What `served` makes."""
    with served() as found:
        yield found


@pytest.fixture
def world(shared_stack: Stack, web: tuple[Path, str]) -> Iterator[World]:
    """The stack, with the kernel's web server beside it."""
    found = World(shared_stack, *web)
    with found.server(sys.executable, "-c", SERVER, HOST, str(WEB), port=WEB, ours=False, stderr=subprocess.DEVNULL):
        yield found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_curl(world: World, tmp_path: Path) -> None:
    """curl gets 50 MB whole, 20 files at once, is refused, and keeps its time limit."""
    curl = need("curl", "curl")
    world.run(curl, "-sS", "-o", tmp_path / "got", f"{world.url}/big")
    assert digest(tmp_path / "got") == world.digest
    parallel = [word for _ in range(20) for word in ("-o", "/dev/null", "-w", "%{http_code} ", f"{world.url}/small")]
    said = world.run(curl, "-sS", "--no-progress-meter", "--parallel", "--parallel-max", "20", *parallel)
    assert re.findall(r"\d+", said) == ["200"] * 20
    assert "port 9" in world.run(curl, "-sS", f"http://{HOST}:9/", code=7)
    assert "timed out" in world.run(curl, "-sS", "--max-time", "1", "http://10.0.0.77/", code=28)


def test_hello(world: World, tmp_path: Path) -> None:
    """A C program, compiled as it stands: connect to port 2048, write "hello"; refused, it says so and returns 1."""
    gcc = need("gcc", "gcc")
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text(HELLO, encoding="ascii")
    for flags in ((), ("-static",)):
        subprocess.run([gcc, *flags, "-o", program, source], check=True, timeout=60)
        assert world.run(program, HOST, code=1) == "connect: Connection refused\n"
        with world.namespace.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, 2048))
            listener.listen()
            listener.settimeout(60)
            assert world.run(program, HOST) == ""
            connection, where = listener.accept()
            with connection:
                assert where[0] == OURS
                assert connection.recv(100) + connection.recv(100) == b"hello"


def test_http_server(world: World) -> None:
    """python3 -m http.server under `lvlip run`, the kernel's curl as its client: 50 MB, and ten at once."""
    curl = need("curl", "curl")
    argv = [sys.executable, "-m", "http.server", "8101"]  # no address: getaddrinfo(3) finds that there is no IPv6
    with world.server(*argv, port=8101, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        got = subprocess.run(
            world.namespace.command([curl, "-sS", f"http://{OURS}:8101/big"]),
            stdout=subprocess.PIPE, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        assert hashlib.sha256(got.stdout).hexdigest() == world.digest
        urls = [
            word for _ in range(10) for word in ("-o", "/dev/null", "-w", "%{http_code} ", f"http://{OURS}:8101/small")
        ]
        said = world.kernel(curl, "-sS", "--no-progress-meter", "--parallel", "--parallel-max", "10", *urls)
        assert re.findall(r"\d+", said) == ["200"] * 10


def _wget(world: World, tmp_path: Path) -> None:
    wget = need("wget", "wget")
    world.run(wget, "-q", "-O", tmp_path / "got", f"{world.url}/big")
    assert digest(tmp_path / "got") == world.digest
    assert "failed: Connection refused" in world.run(wget, "-t1", "-O", "-", f"http://{HOST}:9/", code=4)


def _nc(world: World, tmp_path: Path) -> None:
    nc = need("nc", "netcat-openbsd")
    assert "200 OK" in world.run(nc, "-N", HOST, str(WEB), text="GET /small HTTP/1.0\r\n\r\n")
    world.run(nc, "-z", HOST, "9", code=1)
    with (tmp_path / "heard").open("wb") as heard:
        child = world.namespace.popen(world.command([nc, "-l", "8102"]), env=world.variables, stdout=heard)
        data = os.urandom(200_000).hex()
        deadline = time.monotonic() + 60
        while world.namespace.run([nc, "-N", OURS, "8102"], text=data, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert child.wait(60) == 0
    assert (tmp_path / "heard").read_text(encoding="ascii") == data


def _socat(world: World, tmp_path: Path) -> None:
    socat = need("socat", "socat")
    with world.server(socat, "TCP-LISTEN:8103,reuseaddr,fork", "EXEC:rev", port=8103):
        for word in ("abc", "def"):
            assert world.kernel(socat, "-t60", "-", f"TCP:{OURS}:8103", text=f"{word}\n") == f"{word[::-1]}\n"
    with world.server(socat, f"TCP-LISTEN:8103,bind={HOST},reuseaddr,fork", "EXEC:rev", port=8103, ours=False):
        assert world.run(socat, "-t60", "-", f"TCP:{HOST}:8103", text="ghi\n") == "ihg\n"
        assert world.run(socat, "-t60", "-", f"TCP:{HOST}:8103,nodelay,keepalive", text="jkl\n") == "lkj\n"


def _busybox(world: World, tmp_path: Path) -> None:
    busybox = need("busybox", "busybox-static")
    world.run(busybox, "wget", "-q", "-O", tmp_path / "got", f"{world.url}/big")
    assert digest(tmp_path / "got") == world.digest
    with world.server(busybox, "httpd", "-f", "-p", "8104", "-h", world.directory, port=8104):
        assert world.kernel(busybox, "wget", "-q", "-O", "-", f"http://{OURS}:8104/small") == "small\n"


def _nginx(world: World, tmp_path: Path) -> None:
    nginx, wrk = need("nginx", "nginx-light"), need("wrk", "wrk")
    curl = need("curl", "curl")
    (world.directory / "nginx").write_text(NGINX.format(world.directory), encoding="ascii")
    with world.server(nginx, "-c", world.directory / "nginx", port=8105, stderr=subprocess.DEVNULL) as server:
        got = world.kernel(curl, "-sS", "-o", tmp_path / "got", "-w", "%{http_code}", f"http://{OURS}:8105/big")
        assert (got, digest(tmp_path / "got")) == ("200", world.digest)
        said = world.kernel(wrk, "-t1", "-c50", "-d4", "--timeout", "30", f"http://{OURS}:8105/small")
        requests = re.search(r"(\d+) requests in", said)
        assert requests and int(requests[1]) >= 50, said
        assert "Non-2xx" not in said and "Socket errors" not in said, said
        server.terminate()
        assert server.wait(60) == 0  # nginx's own answer to SIGTERM


def _redis(world: World, tmp_path: Path) -> None:
    redis, cli = need("redis-server", "redis-server"), need("redis-cli", "redis-tools")
    argv = [redis, "--port", "8106", "--save", "", "--protected-mode", "no", "--dir", tmp_path]
    with world.server(*argv, port=8106, stdout=subprocess.DEVNULL) as server:
        assert world.kernel(cli, "-h", OURS, "-p", "8106", "set", "key", "value") == "OK\n"
        assert world.kernel(cli, "-h", OURS, "-p", "8106", "get", "key") == "value\n"
        benchmark = shutil.which("redis-benchmark")
        if benchmark:
            argv = [benchmark, "-h", OURS, "-p", "8106", "-c", "20", "-n", "2000", "-t", "get,set", "-P", "4", "--csv"]
            assert '"GET"' in world.kernel(*argv)
        world.kernel(cli, "-h", OURS, "-p", "8106", "shutdown", "nosave")
        assert server.wait(60) == 0
    argv = [redis, "--port", "8106", "--save", "", "--protected-mode", "no", "--dir", tmp_path]
    with world.server(*argv, port=8106, ours=False, stdout=subprocess.DEVNULL):
        assert world.run(cli, "-h", HOST, "-p", "8106", "ping") == "PONG\n"


def _node(world: World, tmp_path: Path) -> None:
    node = need("node", "nodejs")
    assert world.run(node, "-e", NODE, f"{world.url}/big").strip() == world.digest
    with world.server(node, "-e", NODE_SERVER, port=8107):
        assert world.kernel(need("curl", "curl"), "-sS", f"http://{OURS}:8107/") == "from node"


PROGRAMS = {
    "wget": _wget, "nc": _nc, "socat": _socat, "busybox": _busybox, "nginx": _nginx, "redis": _redis, "node": _node,
}  # fmt: skip


@pytest.mark.matrix(ids={"nc", "nginx"})
@pytest.mark.parametrize("program", PROGRAMS)
def test_program(world: World, tmp_path: Path, program: str) -> None:
    """More programs, as clients and as servers."""
    PROGRAMS[program](world, tmp_path)


def test_status_signals_and_streams(world: World, tmp_path: Path) -> None:
    """Exit status, signals and streams are as without us; a program that is not there is 127, one that is none 126."""
    assert world.run("sh", "-c", "cat; echo err >&2; exit 7", code=7, text="in\n") == "in\nerr\n"
    world.run("sh", "-c", "kill -9 $$", code=-signal.SIGKILL)
    assert "No such file" in world.run("/no/such/program", code=127)
    assert "Permission denied" in world.run(world.directory / "small", code=126)
    pid = tmp_path / "pid"
    for number, script in (
        (signal.SIGTERM, "echo runs; exec sleep 100"),
        (signal.SIGUSR1, 'trap "exit 9" USR1; echo runs; sleep 100 & wait'),
    ):
        command = world.command(["sh", "-c", script], "--pid-file", str(pid))
        child = world.namespace.popen(command, env=world.variables, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"runs\n"
        assert _runs(int(pid.read_text()))
        child.send_signal(number)
        assert child.wait(60) == (9 if number == signal.SIGUSR1 else -number)
        pid.unlink()
    child = world.namespace.popen(world.command(["sleep", "100"], "--pid-file", str(pid)), env=world.variables)
    until(lambda: pid.exists() and pid.read_text(), "it runs")
    child.kill()  # the program goes with its starter
    child.wait(60)
    until(lambda: not _runs(int(pid.read_text())), "it has ended")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_terminal(world: World) -> None:
    """The program has our terminal; Ctrl-C ends it and us by SIGINT, once."""
    import pty

    script = (
        "import os, signal; print(os.ttyname(0)); word = input(); "
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); print('got', word, flush=True); "
        "signal.sigwait([signal.SIGINT]); print('once', flush=True); "
        "print('once' if signal.sigtimedwait([signal.SIGINT], 0.3) else 'no more'); raise SystemExit(130)"
    )  # a shell loses one that comes while it starts a command
    command = world.namespace.command(world.command([sys.executable, "-c", script]))
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe(command[0], command, {**os.environ, **world.variables})
    said = b""
    watchdog = threading.Timer(200, os.kill, (pid, signal.SIGKILL))
    watchdog.start()
    for expected, typed in ((b"/dev/pts/", b"word\n"), (b"got word", b"\x03"), (b"once", b"")):
        while expected not in said:
            said += os.read(terminal, 4096)
        if typed:  # behind the last the terminal is closed
            os.write(terminal, typed)
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            said += part
    status = os.waitpid(pid, 0)[1]
    watchdog.cancel()
    os.close(terminal)
    assert said.count(b"once") == 1 and b"no more" in said
    assert os.waitstatus_to_exitcode(status) in (0, 130, -signal.SIGINT), said


def test_children_and_daemons(world: World) -> None:
    """Children and orphans are on the stack too; what a pipe waits for ends with the program, not with the helper."""
    curl = need("curl", "curl")
    script = f"{curl} -sS {world.url}/small & wait; (sleep 0.5; {curl} -sS {world.url}/small) & exit 3"
    assert world.run("sh", "-c", script, code=3) == "small\nsmall\n"


def test_trace_and_capture(world: World, tmp_path: Path) -> None:
    """--trace and --capture hold what the program's connections did."""
    curl = need("curl", "curl")
    trace, capture = tmp_path / "trace", tmp_path / "capture.pcapng"
    command = world.command([curl, "-sS", f"{world.url}/small"], "--trace", str(trace), "--capture", str(capture))
    done = world.namespace.run(command, env=world.variables)
    assert done.stdout == "small\n"
    said = trace.read_text(encoding="utf-8")
    assert f"{HOST}.{WEB}" in said or f"{HOST}:{WEB}" in said, said[:2000]
    assert b"GET /small" in capture.read_bytes()


def test_a_watcher_that_hangs(world: World, tmp_path: Path) -> None:
    """One that is stopped (SIGSTOP) is given up after seconds, which is said; the exit status is the program's."""
    trace = tmp_path / "trace"
    stop = f"""
import contextlib, os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        if os.readlink(process / "fd" / "1") == "{trace}":
            os.kill(int(process.name), signal.SIGSTOP)
raise SystemExit(3)
"""
    command = world.command([sys.executable, "-c", stop], "--trace", str(trace))
    done = world.namespace.run(command, env=world.variables, check=False, timeout=LIMIT_S)
    assert done.returncode == 3
    assert re.search(r"lvlip trace \(pid \d+\) did not end and was killed", done.stderr), done.stderr


def test_refusals(world: World) -> None:
    """What the stack does not carry fails, with the errno that programs expect, and is told once."""
    source = """
import ctypes, errno, socket
for family, kind, proto in ((2, 3, 6), (2, 3, 6), (2, 4, 0), (10, 1, 0), (10, 2, 0), (17, 3, 0), (31, 1, 0)):
    try:
        socket.socket(family, kind, proto)
        print("made", family, kind)
    except OSError as error:
        print(errno.errorcode[error.errno])
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 8, ctypes.create_string_buffer(128)), errno.errorcode[ctypes.get_errno()])
"""
    lines = world.run(sys.executable, "-c", source).splitlines()
    told = [line for line in lines if line.startswith("lvlip run: ")]
    assert [line for line in lines if line not in told] == [
        "EPERM", "EPERM", "ESOCKTNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT",
        "EAFNOSUPPORT", "-1 ENOSYS",
    ]  # fmt: skip
    assert told == [
        "lvlip run: raw sockets are not carried by the stack, but for ICMP echo: EPERM",
        "lvlip run: sockets of family 17 are not carried by the stack: EAFNOSUPPORT",
        "lvlip run: sockets of family 31 are not carried by the stack: EAFNOSUPPORT",
    ]
    nested = world.run(*world.command(["true"]), code=1)
    assert "there is a seccomp supervisor already" in nested
    done = world.namespace.run(world.command(["true"]), env={**world.variables, "LEVELIP_NAME": "none"}, check=False)
    assert done.returncode == 1 and "start one with: lvlip up" in done.stderr


STUB = "nameserver 127.0.0.53\noptions timeout:20 attempts:2\n"
MOUNTED = """
mount -t tmpfs none /run
mkdir /run/nscd
to=$(readlink -m /etc/resolv.conf)
mkdir -p "${{to%/*}}"
[ -e "$to" ] || : >"$to"
mount --bind {} "$to"
exec "$@"
"""
LONG = "x" * 200
ZONE = """
no-resolv
no-hosts
host-record=www.test,10.0.0.1
host-record=two.test,10.0.0.7
host-record=two.test,10.0.0.8
local=/test/
listen-address=10.0.0.1
bind-interfaces
user=root
"""


@contextlib.contextmanager
def _dns(world: World, directory: Path) -> Iterator[None]:
    """dnsmasq at 10.0.0.1, the kernel's."""
    dnsmasq = need("dnsmasq", "dnsmasq-base")
    records = "".join(f"txt-record=long.test,{LONG}{number}\n" for number in range(10))
    (directory / "conf").write_text(f"{ZONE}pid-file={directory / 'pid'}\n{records}", encoding="ascii")
    child = world.namespace.popen([dnsmasq, "--keep-in-foreground", "--conf-file=" + str(directory / "conf")])
    try:
        deadline = time.monotonic() + 60
        while True:
            with world.namespace.socket() as probe:
                if probe.connect_ex((HOST, 53)) == 0:
                    break
            assert child.poll() is None and time.monotonic() < deadline, "dnsmasq does not listen"
            time.sleep(0.05)
        yield
    finally:
        end(child)


def test_names(world: World, tmp_path: Path) -> None:
    """A host whose resolver is 127.0.0.53: glibc, busybox and dig ask the server on the stack instead, by UDP and,
    where that is cut, by TCP, and believe that it was 127.0.0.53; without a server it is said why no name is found."""
    curl, busybox, dig = need("curl", "curl"), need("busybox", "busybox-static"), need("dig", "bind9-dnsutils")
    (tmp_path / "resolv.conf").write_text(STUB, encoding="ascii")

    def run(line: str, *flags: str, code: int = 0) -> str:
        mounted = MOUNTED.format(tmp_path / "resolv.conf")
        command = ["unshare", "--mount", "sh", "-ec", mounted, "sh", *world.command(["sh", "-c", line], *flags)]
        done = world.namespace.run(command, env=world.variables, check=False, timeout=LIMIT_S)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    lookups = [
        f"{curl} -sS http://www.test:{WEB}/small",
        "getent ahostsv4 two.test | cut -d ' ' -f 1 | sort -u",
        "getent hosts none.test || echo none",
        f"{busybox} nslookup www.test | grep -v '^$' | head -4",
        f"{dig} +short www.test",
        f"{dig} +tcp +short www.test",
        f"{dig} +noedns +short TXT long.test | wc -l",  # truncated (RFC 1035 4.1.1), so it asks again by TCP
        f"{dig} +noall +stats www.test | grep SERVER",
    ]
    daemon = "import socket; s, c = socket.socket(1), socket.socket(1); s.bind('/run/nscd/socket'); s.listen(); "
    daemon += "print(c.connect_ex('/run/nscd/socket')); print(c.connect_ex('/run/nscd/../nscd/socket'))"
    lookups.append(f'{sys.executable} -c "{daemon}"')
    with _dns(world, tmp_path):
        said = run("; ".join(lookups), "--nameserver", HOST)
    assert said.splitlines() == [
        "small",
        "10.0.0.7", "10.0.0.8",
        "none",
        "Server:\t\t127.0.0.53", "Address:\t127.0.0.53:53", "Name:\twww.test", "Address: 10.0.0.1",
        "10.0.0.1", "10.0.0.1", "10",
        ";; SERVER: 127.0.0.53#53(127.0.0.53) (UDP)",
        str(errno.ECONNREFUSED), "0",  # a daemon would ask by the host's network; other sockets are free
    ]  # fmt: skip
    said = run("getent hosts www.test", code=2)
    assert said == "lvlip run: the resolver at 127.0.0.53 is not on the stack; which one is? --nameserver ADDRESS\n"


INTERFACES = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket(socket.AF_UNIX) as local:
    for number, name in socket.if_nameindex():
        ifreq = struct.pack("16s24x", name.encode())
        ask = lambda request: fcntl.ioctl(local if request == 0x8921 else sock, request, ifreq)
        address, mask, broadcast = (socket.inet_ntoa(ask(request)[20:24]) for request in (0x8915, 0x891B, 0x8919))
        print(number, name.split("-")[0], socket.if_nametoindex(name) == number, address, mask, broadcast,
              struct.unpack("=16xi20x", ask(0x8921))[0], hex(struct.unpack("=16xH22x", ask(0x8913))[0]))
    print(struct.unpack("=iQ", fcntl.ioctl(sock, 0x8912, struct.pack("=i4xQ", 0, 0))[:12])[0] // 40)
    try:
        fcntl.ioctl(sock, 0x8915, struct.pack("16s24x", b"eth9"))
    except OSError as error:
        print(error.strerror)
"""


def test_interfaces(world: World) -> None:
    """ioctl, getifaddrs and ip(8) show the stack's interfaces and routes; to change them is refused, and told."""
    ip = need("ip", "iproute2")
    assert world.run(sys.executable, "-c", INTERFACES).replace("'", "").splitlines() == [
        "1 lvl True 10.0.0.2 255.255.255.0 10.0.0.255 1500 0x1043",
        "2 lo True 127.0.0.1 255.0.0.0 0.0.0.0 65535 0x49",
        "2",
        "No such device",
    ]
    script = f"{ip} -o -4 addr; {ip} route; {ip} route get 192.0.2.9; {ip} link show dev lo; {ip} link set lo down"
    name, life = f"lvl-{world.stack.name}", "\\       valid_lft forever preferred_lft forever"
    said = [line.strip() for line in world.run("sh", "-c", script, code=2).splitlines()]
    assert said == [
        f"1: {name}    inet 10.0.0.2/24 brd 10.0.0.255 scope global {name}{life}",
        f"2: lo    inet 127.0.0.1/8 scope host lo{life}",
        f"10.0.0.0/24 dev {name} proto kernel scope link src 10.0.0.2",
        f"default via 10.0.0.1 dev {name} proto static src 10.0.0.2",
        f"192.0.2.9 via 10.0.0.1 dev {name} src 10.0.0.2",
        "cache",
        "2: lo: <LOOPBACK,UP,LOWER_UP> mtu 65535 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000",
        "link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00",
        "lvlip run: interfaces and routes of the stack are changed by lvlip: EPERM",
        "RTNETLINK answers: Operation not permitted",
    ]


NO_SUCH_FILE = "No such file or directory"
HOSTS = "would tell of the host's network: ENOENT; see lvlip address, ss, stat"


@pytest.mark.parametrize("program", ["cat", "net-tools", "busybox", "iproute2"])
def test_what_tells_of_the_network(world: World, program: str) -> None:
    """Tools that read /proc/net show the stack's routes and interfaces, and nothing of the host's: what the stack does
    not tell is not there, and neither are the kernel's sockets."""
    name = f"lvl-{world.stack.name}"
    routes = ["0.0.0.0 10.0.0.1 0.0.0.0 UG", "10.0.0.0 0.0.0.0 255.255.255.0 U"]

    def shown(command: str, code: int = 0) -> list[str]:
        return [" ".join(line.split()) for line in world.run("sh", "-c", command, code=code).splitlines()]

    if program == "cat":
        rows = shown("cat /proc/net/route; cat < /proc/self/net/route; cd /proc/self/net; cat route")
        assert rows[1:3] == [f"{name} 00000000 0100000A 0003 0 0 0 00000000 0 0 0",
                             f"{name} 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0"]  # fmt: skip
        assert rows == 3 * rows[:3]
        assert shown("cat /proc/net/dev /sys/class/net/lo/mtu", 1) == [
            f"lvlip run: dev {HOSTS}", f"cat: /proc/net/dev: {NO_SUCH_FILE}",
            f"cat: /sys/class/net/lo/mtu: {NO_SUCH_FILE}",
        ]  # fmt: skip
        assert shown("head -n 1 /proc/net/unix")[0].startswith("Num RefCount")
        return
    if program == "iproute2":
        need("ss", "iproute2")
        assert world.kernel("ss", "-tlnH"), "the kernel has sockets that listen"
        unknown = "Cannot open netlink socket: Protocol not supported"
        assert shown("ss -tlnH; ss -uanH") == [
            "lvlip run: the kernel would tell of the host's sockets: EPROTONOSUPPORT; see lvlip ss", unknown,
            f"lvlip run: tcp {HOSTS}", unknown,
        ]  # fmt: skip
        assert shown("ip maddr; true") == [f"lvlip run: dev_mcast {HOSTS}"]
        assert not any("RX" in line for line in shown("ip -s link")), "no counters are better than the host's"
        return
    tool, failed = ("busybox ", 0) if program == "busybox" else ("", 1)
    need(tool.strip() or "netstat", program)
    for command in ("route -n", "netstat -rn"):
        rows = shown(tool + command)[2:]
        assert [" ".join(row.split()[:4]) for row in rows] == routes
        assert {row.split()[-1] for row in rows} == {name}
    told, why, *interfaces = shown(tool + "ifconfig")
    assert told == f"lvlip run: dev {HOSTS}" and NO_SUCH_FILE in why
    assert "10.0.0.2" in "".join(interfaces) and "RX" not in "".join(interfaces)
    told, *sockets = shown(tool + "netstat -tan", failed)
    assert told == f"lvlip run: tcp {HOSTS}" and not any(line.startswith("tcp") for line in sockets)


LOOK = """
import errno, os
for path in ("/proc/net/route", "/proc/self/net/tcp", "/sys/class/net/lo/mtu", "/proc/version"):
    try:
        with open(path) as file:
            lines = file.read().splitlines()
            print(path, [line.split()[0] for line in lines[1:]] if "route" in path else len(lines) > 0,
                  os.get_inheritable(file.fileno()))
    except OSError as error:
        print(path, errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("flag", [[], ["--all-opens"]])
def test_what_tells_of_the_network_to_who_says_o_cloexec(world: World, flag: list[str]) -> None:
    """Python opens its files so: it reads the kernel's, and by --all-opens the stack's."""
    argv = [sys.executable, "-I", "-S", "-c", LOOK]
    done = world.namespace.run(world.command(argv, *flag), env=world.variables, timeout=LIMIT_S)
    name = f"lvl-{world.stack.name}"
    theirs = ["/proc/self/net/tcp True False", "/sys/class/net/lo/mtu True False"]
    ours = ["/proc/self/net/tcp ENOENT", "/sys/class/net/lo/mtu ENOENT"]
    route, *others = done.stdout.splitlines()
    assert (route == f"/proc/net/route ['{name}', '{name}'] False") is bool(flag), route
    assert others == [*(ours if flag else theirs), "/proc/version True False"]
    assert (f"lvlip run: tcp {HOSTS}" in done.stderr) is bool(flag)


def test_a_start_that_blocks(world: World, tmp_path: Path) -> None:
    """A program whose start waits for ever (its pid file is a FIFO that nobody reads) ends with who started it: by
    Ctrl-C's signal or SIGTERM, which it is told, and by SIGKILL; nothing is left behind."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        child = world.namespace.popen(world.command(["true"], "--pid-file", str(fifo)), env=world.variables)
        waiting = until(lambda: _writers(fifo), "its start blocks")
        child.send_signal(number)
        assert child.wait(60) == -number
        until(lambda waiting=waiting: not any(map(_runs, waiting)), "nothing is left behind")


def _writers(fifo: Path) -> list[int]:
    """Processes that wait in open(2) of it, by what the kernel says of their system call."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"--pid-file\0" + os.fsencode(fifo) in (process / "cmdline").read_bytes():
                if (process / "wchan").read_text() == "wait_for_partner":
                    found.append(int(process.name))
    return found


def test_shell(world: World) -> None:
    """Everything that `lvlip shell` runs is on the stack."""
    curl = need("curl", "curl")
    line = f"{curl} -sS {world.url}/small; echo $LEVELIP_SHELL"
    command = [sys.executable, "-P", "-m", "levelip.cli", "shell", "-c", line]
    assert world.namespace.run(command, env=world.variables).stdout == f"small\n{world.stack.name}\n"


def test_ordinary_user(world: World, tmp_path: Path) -> None:
    """A user who owns neither the stack nor anything else runs a program on it, and does not gain privileges by it."""
    if os.geteuid() != 0:
        pytest.skip("root, to become another user")
    curl = need("curl", "curl")
    mode = world.stack.directory.stat().st_mode
    world.stack.directory.chmod(0o711)
    become = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=-all"]
    try:
        probe = subprocess.run([*become, sys.executable, "-c", ""], capture_output=True, check=False, cwd="/")
        if probe.returncode:
            pytest.skip(f"{sys.executable} lies where other users may not go")
        script = f"id -u; grep NoNewPrivs /proc/self/status; {curl} -sS {world.url}/small"
        done = world.namespace.run([*become, *world.command(["sh", "-c", script])], env=world.variables)
        assert done.stdout.split() == ["54321", "NoNewPrivs:", "1", "small"]
    finally:
        world.stack.directory.chmod(mode)
