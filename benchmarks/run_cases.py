"""Benchmarks of programs as they are: under `lvlip run`, beside the same ones on the kernel over a veth pair, in turns.

iperf3 both ways, wrk against nginx, redis-benchmark, connections a second of a C program, and what each trapped call
costs. Of each pair the program that is named is on the measured side, the other one on the kernel at 10.0.0.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.agent import AgentError
from benchmarks.cases import SEED, Results, World
from benchmarks.figures import Figure
from benchmarks.peer import ECHO
from benchmarks.run_cost import SOURCE, echo_datagrams
from benchmarks.worlds import StackWorld, VethWorld
from tests.system.harness import ROOT
from tests.system.namespace import Namespace, end

HOST, OURS = "10.0.0.1", "10.0.0.2"
IPERF_S, WRK_S, CONNECT_S = 2, 2, 1
REDIS_REQUESTS, REDIS_CLIENTS = 10_000, 50
AT_ONCE = 16
_LISTENING_S = 20.0
_LIMIT_S = 60.0
NGINX = """
worker_processes 1; daemon off; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
    client_body_temp_path {0}/1; proxy_temp_path {0}/2; fastcgi_temp_path {0}/3; uwsgi_temp_path {0}/4;
    scgi_temp_path {0}/5;
    server {{ listen 8080; root {0}; }}
}}
"""
CONNECTS = r"""
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in peer = {.sin_family = AF_INET};
static double until;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void *run(void *count) {
    char byte = 'x';
    while (now() < until) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&peer, sizeof peer) || write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) {
            perror("connect, write, read");
            exit(1);
        }
        close(fd);
        ++*(long *)count;
    }
    return NULL;
}

int main(int argc, char *argv[]) {
    int threads = atoi(argv[3]);
    pthread_t made[threads];
    long counts[threads], sum = 0;
    if (argc < 5) return 2;
    inet_pton(AF_INET, argv[1], &peer.sin_addr);
    peer.sin_port = htons(atoi(argv[2]));
    double start = now();
    until = start + atof(argv[4]);
    for (int n = 0; n < threads; n++) counts[n] = 0, pthread_create(&made[n], NULL, run, &counts[n]);
    for (int n = 0; n < threads; n++) pthread_join(made[n], NULL), sum += counts[n];
    printf("%f\n", sum / (now() - start));
    return 0;
}
"""


def _program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise AgentError(f"{name} is not installed: apt-get install {package}")
    return found


class Side:
    """One side of a world, where programs are started: the measured one, or the kernel's behind it."""

    def __init__(self, namespace: Namespace, prefix: Sequence[str], variables: Mapping[str, str]) -> None:
        self.namespace = namespace
        self._prefix = prefix
        self._variables = variables

    def run(self, *argv: str | os.PathLike[str]) -> str:
        """To its end; what it printed. AgentError if it fails."""
        try:
            done = self.namespace.run([*self._prefix, *argv], check=False, timeout=_LIMIT_S, env=self._variables)
        except subprocess.TimeoutExpired:
            raise AgentError(f"{argv[0]}: not done within {_LIMIT_S:g} s") from None
        if done.returncode:
            raise AgentError(f"{argv[0]}: exit {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
        return done.stdout

    @contextlib.contextmanager
    def server(self, *argv: str | os.PathLike[str], listens: tuple[Side, str, int]) -> Iterator[None]:
        """While it listens: `listens` is the side from which, and the address and port at which it can be reached."""
        child = self.namespace.popen(
            [*self._prefix, *argv], env=self._variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        side, host, port = listens
        try:
            deadline = time.monotonic() + _LISTENING_S
            while not side.reaches(host, port):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise AgentError(f"{argv[0]} does not listen (exit {child.poll()})")
                time.sleep(0.05)
            yield
        finally:
            end(child)

    def reaches(self, host: str, port: int) -> bool:
        """Whether the kernel of this side can connect there."""
        with self.namespace.socket() as probe:
            probe.settimeout(2.0)
            return probe.connect_ex((host, port)) == 0


def _sides(world: World) -> tuple[Side, Side]:
    """The measured side and the kernel's."""
    if isinstance(world, VethWorld):
        return Side(world.ours, [], {}), Side(world.theirs, [], {})
    namespace = world.stack.namespace
    assert namespace is not None
    lvlip = [sys.executable, "-P", "-m", "levelip.cli", "run", "--"]
    variables = {**world.stack.env, "PYTHONPATH": str(ROOT)}
    return Side(namespace, lvlip, variables), Side(namespace, [], {})


@contextlib.contextmanager
def _worlds() -> Iterator[tuple[StackWorld, VethWorld]]:
    with VethWorld(seed=SEED) as veth, StackWorld(seed=SEED) as stack:
        yield stack, veth


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lvbench", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker becomes another user
        yield directory


def _sample(figure: Figure, world: World, value: float) -> None:
    (figure.samples if isinstance(world, StackWorld) else figure.baseline).append(value)


def iperf3(results: Results) -> None:
    """iperf3 under `lvlip run` against the kernel's, both ways, one stream."""
    iperf = _program("iperf3", "iperf3")
    figures = {
        (): results.add(Figure("lvlip run: iperf3 sends", "Gbit/s")),
        ("-R",): results.add(Figure("lvlip run: iperf3 receives", "Gbit/s")),
    }
    with _worlds() as worlds, contextlib.ExitStack() as servers:
        for world in worlds:
            ours, kernel = _sides(world)
            inside = ours if isinstance(world, VethWorld) else kernel
            servers.enter_context(kernel.server(iperf, "-s", "-B", HOST, listens=(inside, HOST, 5201)))
        for _ in results.rounds("iperf3"):
            for flags, figure in figures.items():
                for world in worlds:
                    time.sleep(0.2)  # the server makes its listener anew after each client
                    said = _sides(world)[0].run(iperf, "-c", HOST, "-t", str(IPERF_S), "-J", *flags)
                    _sample(figure, world, json.loads(said)["end"]["sum_received"]["bits_per_second"] / 1e9)


def wrk(results: Results) -> None:
    """nginx under `lvlip run`, the kernel's wrk asks for a small file on 50 connections."""
    nginx, asks = _program("nginx", "nginx-light"), _program("wrk", "wrk")
    rate = results.add(Figure("lvlip run: nginx, wrk on 50 connections", "/s"))
    middle = results.add(Figure("lvlip run: nginx, median answer", "ms", higher_is_better=False))
    with _worlds() as worlds, contextlib.ExitStack() as servers:
        for world in worlds:
            directory = servers.enter_context(_directory())
            (directory / "small").write_text("x" * 100, encoding="ascii")
            (directory / "nginx").write_text(NGINX.format(directory), encoding="ascii")
            ours, kernel = _sides(world)
            servers.enter_context(ours.server(nginx, "-c", directory / "nginx", listens=(kernel, OURS, 8080)))
        for _ in results.rounds("wrk against nginx"):
            for world in worlds:
                flags = ("-t1", "-c50", f"-d{WRK_S}", "--latency")
                said = _sides(world)[1].run(asks, *flags, f"http://{OURS}:8080/small")
                if "Non-2xx" in said or "Socket errors" in said:
                    raise AgentError(f"wrk: {said}")
                _sample(rate, world, float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]))
                number, unit = re.findall(r"50%\s+([\d.]+)(us|ms|s)", said)[0]
                _sample(middle, world, float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit])


def redis(results: Results) -> None:
    """redis-server under `lvlip run`, the kernel's redis-benchmark with 50 clients; alone and 16 requests at once."""
    server, asks = _program("redis-server", "redis-server"), _program("redis-benchmark", "redis-tools")
    figures = {
        (name, depth): results.add(Figure(f"lvlip run: redis {name}{f', {depth} at once' * (depth > 1)}", "/s"))
        for depth in (1, 16)
        for name in ("SET", "GET")
    }
    with _worlds() as worlds, contextlib.ExitStack() as servers:
        for world in worlds:
            directory = servers.enter_context(_directory())
            flags = ("--port", "6399", "--save", "", "--protected-mode", "no", "--dir", directory)
            ours, kernel = _sides(world)
            servers.enter_context(ours.server(server, *flags, listens=(kernel, OURS, 6399)))
        for _ in results.rounds("redis-benchmark"):
            for depth in (1, 16):
                for world in worlds:
                    said = _sides(world)[1].run(
                        asks, "-h", OURS, "-p", "6399", "-c", str(REDIS_CLIENTS), "-n", str(REDIS_REQUESTS * depth),
                        "-P", str(depth), "-t", "set,get", "--csv",
                    )  # fmt: skip
                    for name, value in re.findall(r'^"(SET|GET)","([\d.]+)"', said, re.MULTILINE):
                        _sample(figures[name, depth], world, float(value))


def _compile(directory: Path, source: str) -> Path:
    program = directory / "program"
    argv = [_program("gcc", "gcc"), "-O1", "-pthread", "-x", "c", "-", "-o", str(program)]
    subprocess.run(argv, input=source, text=True, check=True, timeout=60)
    return program


def connects(results: Results) -> None:
    """A C program under `lvlip run`: connect, one byte there and back, close; on one thread and on 16."""
    figures = {
        1: results.add(Figure("lvlip run: connect, one byte, close", "/s")),
        AT_ONCE: results.add(Figure(f"lvlip run: connect, one byte, close, {AT_ONCE} at once", "/s")),
    }
    with _directory() as directory, _worlds() as worlds:
        program = _compile(directory, CONNECTS)
        for _ in results.rounds("connects under lvlip run"):
            for threads, figure in figures.items():
                for world in worlds:
                    said = _sides(world)[0].run(program, HOST, str(ECHO), str(threads), str(CONNECT_S))
                    _sample(figure, world, float(said))


def calls(results: Results) -> None:
    """What each call costs that `lvlip run` traps (benchmarks/run_cost.py)."""
    figures: dict[str, Figure] = {}
    with _directory() as directory, _worlds() as worlds, contextlib.ExitStack() as servers:
        for world in worlds:
            servers.enter_context(echo_datagrams(_sides(world)[1].namespace, HOST, ECHO))
        program = _compile(directory, SOURCE.replace("htons(7000)", f"htons({ECHO})"))
        for _ in results.rounds("trapped calls"):
            for world in worlds:
                for line in _sides(world)[0].run(program, HOST).splitlines():
                    name, _, cost = line.rpartition(" ")
                    if name not in figures:
                        figures[name] = results.add(Figure(f"lvlip run: {name}", "µs", higher_is_better=False))
                    _sample(figures[name], world, float(cost))


CASES: dict[str, Callable[[Results], None]] = {
    "run-iperf3": iperf3,
    "run-wrk": wrk,
    "run-redis": redis,
    "run-connect": connects,
    "run-calls": calls,
}
