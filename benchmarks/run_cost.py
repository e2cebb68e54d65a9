"""What a trapped call costs: the same calls by a C program on the kernel's sockets and under `lvlip run`.

    .venv/bin/python -m benchmarks.run_cost            (root, or user namespaces; gcc)

One line a call, the median of some runs: microseconds on the kernel, under `lvlip run`, their ratio. The peer is the
kernel at 10.0.0.1 in the stack's namespace.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.system import streams
from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace

PORT, SINK = 7000, 7001  # as in SOURCE
RUNS = 3
SOURCE = r"""
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
#define TIME(name, turns, body) do { double start = now(); for (int i = 0; i < (turns); i++) { body; } \
    printf("%s %f\n", name, (now() - start) / (turns)); } while (0)
#define OK(call) do { if ((call) < 0) { perror(#call); exit(1); } } while (0)

int main(int argc, char *argv[]) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(7000)}, name;
    socklen_t size; int one = 1, value, pair[2]; char byte = 'x', block[1000] = {0};
    inet_pton(AF_INET, argv[1], &peer.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    OK(connect(fd, (struct sockaddr *)&peer, sizeof peer));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    TIME("getppid (not trapped)", 100000, getppid());
    TIME("getsockname of AF_UNIX (trapped, let through)", 2000,
         size = sizeof name; OK(getsockname(pair[0], (struct sockaddr *)&name, &size)));
    TIME("open with O_CLOEXEC, close (not trapped)", 20000, {
         int f = open("/dev/null", O_RDONLY | O_CLOEXEC); OK(f); close(f); });
    TIME("open with O_RDONLY, close (trapped, let through)", 2000, {
         int f = open("/dev/null", O_RDONLY); OK(f); close(f); });
    TIME("getsockname (the helper knows)", 2000,
         size = sizeof name; OK(getsockname(fd, (struct sockaddr *)&name, &size)));
    TIME("setsockopt TCP_NODELAY (answered at once)", 1000, OK(setsockopt(fd, 6, 1, &one, sizeof one)));
    TIME("getsockopt SO_ERROR (asks the gateway)", 1000, size = sizeof value; OK(getsockopt(fd, 1, 4, &value, &size)));
    TIME("socket, close", 500, { int s = socket(AF_INET, SOCK_STREAM, 0); OK(s); close(s); });
    TIME("socket, connect, close", 300, { int s = socket(AF_INET, SOCK_STREAM, 0); OK(s);
         OK(connect(s, (struct sockaddr *)&peer, sizeof peer)); close(s); });
    TIME("1 byte there and back", 1000, OK(write(fd, &byte, 1)); OK(read(fd, &byte, 1)));
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    TIME("UDP socket, connect, close", 300, { int s = socket(AF_INET, SOCK_DGRAM, 0); OK(s);
         OK(connect(s, (struct sockaddr *)&peer, sizeof peer)); close(s); });
    TIME("1 byte there and back by sendto, recvfrom", 1000, size = sizeof name;
         OK(sendto(udp, &byte, 1, 0, (struct sockaddr *)&peer, sizeof peer));
         OK(recvfrom(udp, &byte, 1, 0, (struct sockaddr *)&name, &size)));
    OK(connect(udp, (struct sockaddr *)&peer, sizeof peer));
    TIME("1 byte there and back by send, recv", 1000, OK(send(udp, &byte, 1, 0)); OK(recv(udp, &byte, 1, 0)));
    peer.sin_port = htons(7001); /* nobody reads there */
    TIME("sendto of 1000 bytes", 5000, OK(sendto(udp, block, sizeof block, 0, (struct sockaddr *)&peer, sizeof peer)));
    return 0;
}
"""


def _serve(listener: socket.socket) -> None:
    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_536):
                connection.sendall(data)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


@contextlib.contextmanager
def echo_datagrams(namespace: Namespace, host: str, port: int) -> Iterator[None]:
    """The kernel's side of the program's datagrams: an echo at `port`, and a socket that nobody reads at SINK."""
    with namespace.socket(kind=socket.SOCK_DGRAM) as echo, namespace.socket(kind=socket.SOCK_DGRAM) as sink:
        echo.bind((host, port))
        sink.bind((host, SINK))

        thread = threading.Thread(target=streams.echo_datagrams, args=(echo,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # ENOTCONN; it wakes the thread all the same
                echo.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory() as directory, Namespace() as namespace, Stack(namespace) as stack,
        contextlib.ExitStack() as servers,
    ):  # fmt: skip
        program = Path(directory) / "calls"
        subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", program], input=SOURCE, text=True, check=True)
        listener = namespace.socket()
        listener.bind((stack.host, PORT))
        listener.listen(512)
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        servers.enter_context(echo_datagrams(namespace, stack.host, PORT))
        ours = [sys.executable, "-m", "levelip.cli", "run", "--"]
        figures: dict[str, tuple[list[float], list[float]]] = {}
        for _ in range(RUNS):
            for index, prefix in enumerate(([], ours)):
                done = namespace.run([*prefix, program, stack.host], env={**stack.env, "PYTHONPATH": str(ROOT)})
                for line in done.stdout.splitlines():
                    name, _, figure = line.rpartition(" ")
                    figures.setdefault(name, ([], []))[index].append(float(figure))
        print(f"{'call':48} {'kernel':>9} {'lvlip run':>10} {'ratio':>7}   µs, median of {RUNS}")
        for name, both in figures.items():
            kernel, run = (statistics.median(values) for values in both)
            print(f"{name:48} {kernel:9.2f} {run:10.2f} {run / kernel:7.1f}")
        listener.close()


if __name__ == "__main__":
    main()
