"""`lvlip ping`: echo requests from the stack, printed as iputils' ping prints them."""

from __future__ import annotations

import math
import secrets
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import click

from levelip.cli.common import EXIT_FAILED, Failure, Number, Seconds, Stack, StackCommand
from levelip.cli.status import held_by

EXIT_OTHER = 2
"""ping(8): "on other error it exits with code 2"."""
IP_ICMP_HEADERS = 28
"""Bytes before the data: IPv4 header and ICMP header."""
DEFAULT_WAIT_S = 10.0
"""iputils MAXWAIT: how long to wait for the last answer when there was none before."""
ANSWER_GRACE_S = 1.0
"""What the ip process may take beyond a request's own timeout; then it was killed and the answer is lost."""


class PingFailure(Failure):
    """An error that is not a missing answer."""

    exit_code = EXIT_OTHER

    def show(self, file: Any = None) -> None:
        click.echo(f"ping: {self.format_message()}", file=file, err=True)


@dataclass
class Statistics:
    """What was sent and what came, times in milliseconds."""

    transmitted: int = 0
    errors: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def received(self) -> int:
        return len(self.times)

    @property
    def loss(self) -> float:
        """Percent."""
        return 100 * (self.transmitted - self.received) / self.transmitted if self.transmitted else 0.0

    def rtt(self) -> tuple[float, float, float, float]:
        """min, avg, max and mdev, which is the standard deviation."""
        mean = sum(self.times) / len(self.times)
        square = sum(each * each for each in self.times) / len(self.times)
        return min(self.times), mean, max(self.times), math.sqrt(max(0.0, square - mean * mean))


@click.command(cls=StackCommand)
@click.argument("host")
@click.option("-c", "count", metavar="N", type=Number(min=1), help="Stop after N requests.")
@click.option("-i", "interval", metavar="S", type=Seconds(min=0.001), default=1.0, show_default=True,
              help="Seconds between requests.")  # fmt: skip
@click.option("-s", "size", metavar="BYTES", type=Number(0, 65_507), default=56, show_default=True,
              help="Bytes of data in a request.")  # fmt: skip
@click.option("-t", "ttl", metavar="TTL", type=Number(1, 255), help="Time to live (default: ip.ttl).")
@click.option("-W", "wait", metavar="S", type=Seconds(min=0.001, max=3600), help="Seconds to wait for an "
              "answer (default: 10, or twice the longest round trip seen).")  # fmt: skip
@click.option("-M", "discovery", type=click.Choice(["do", "dont"]), default="dont", show_default=True,
              help="do: refuse what does not fit, with DF set; dont: send it in fragments.")  # fmt: skip
@click.option("-Q", "tos", metavar="TOS", type=Number(0, 255), default=0, help="DSCP and ECN, one byte.")
@click.option("-q", "quiet", is_flag=True, help="Print nothing but the summary.")
@click.pass_obj
def command(
    stack: Stack, host: str, count: int | None, interval: float, size: int, ttl: int | None, wait: float | None,
    discovery: str, tos: int, quiet: bool,
) -> int:  # fmt: skip
    """Send ICMP echo requests to HOST from the stack and print what comes back.

    HOST is an address or a name that this host's resolver knows. Ctrl-C ends it and prints the summary. Exit code 0
    if anything answered, 1 if nothing did, 2 for other errors.

    \b
    lvlip ping -c 3 10.0.0.1
    lvlip ping -s 1472 -M do 10.0.0.1
    """
    address = resolve(host)
    pinger = _Pinger(stack, host, address, size=size, ttl=ttl, wait=wait, quiet=quiet)
    if discovery == "do":
        pinger.args["dont_fragment"] = True
    if tos:
        pinger.args["tos"] = tos
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    try:
        pinger.run(count, interval)
    except KeyboardInterrupt:
        if not stack.json:
            click.echo()
    finally:
        pinger.client.close()
    pinger.summary()
    if not pinger.statistics.received and held_by(stack) is not None:
        click.echo(f"ping: the stack is held, so that nothing passes; see: lvlip status{stack.name_flag()}", err=True)
    return 0 if pinger.statistics.received else EXIT_FAILED


def resolve(host: str) -> str:
    """The IPv4 address of a name, as text."""
    try:
        return socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0]  # type: ignore[return-value]
    except (OSError, UnicodeError) as error:
        raise PingFailure(f"{host}: {getattr(error, 'strerror', None) or error}") from None


class _Pinger:
    """One run: sends on time, collects answers in between."""

    def __init__(
        self, stack: Stack, host: str, address: str, *, size: int, ttl: int | None, wait: float | None, quiet: bool
    ) -> None:
        from levelip.ipc.control import ControlClient, NotRunning

        self.statistics = Statistics()
        self._stack = stack
        self._host, self._address = host, address
        self._wait = wait
        self._quiet = quiet
        self.args: dict[str, Any] = {"dst": address, "id": secrets.randbelow(1 << 16), "size": size}
        if ttl is not None:
            self.args["ttl"] = ttl
        self._waiting: dict[int, tuple[int, float]] = {}  # request number → (icmp_seq, when its answer is given up)
        self._began = self._last = time.monotonic()
        try:
            self.client: ControlClient = stack.client("ip")
        except Failure as failure:
            raise PingFailure(failure.format_message()) from None
        except NotRunning as error:
            raise PingFailure(str(error)) from None
        if not stack.json:
            click.echo(f"PING {host} ({address}) {size}({size + IP_ICMP_HEADERS}) bytes of data.")

    def run(self, count: int | None, interval: float) -> None:
        """Send `count` requests (None: until Ctrl-C) and wait for the last answers."""
        self._began = due = time.monotonic()
        while count is None or self.statistics.transmitted < count:
            self._collect_until(due)
            self._send()
            due += interval
        linger = self._wait or DEFAULT_WAIT_S
        if self._wait is None and self.statistics.times:
            linger = max(2 * max(self.statistics.times) / 1000, interval)
        self._collect_until(time.monotonic() + linger, until_all=True)

    def _send(self) -> None:
        statistics = self.statistics
        statistics.transmitted += 1
        wait = self._wait or DEFAULT_WAIT_S
        sequence = statistics.transmitted & 0xFFFF
        self._last = time.monotonic()
        number = self.client.start("ping", seq=sequence, timeout_ms=max(1, round(wait * 1000)), **self.args)
        self._waiting[number] = (sequence, time.monotonic() + wait + ANSWER_GRACE_S)

    def _collect_until(self, deadline: float, *, until_all: bool = False) -> None:
        """Print answers as they come until `deadline`, or, if asked so, until nothing is waited for."""
        while not (until_all and not self._waiting):
            now = time.monotonic()
            if now >= deadline:
                return
            self._waiting = {number: entry for number, entry in self._waiting.items() if entry[1] > now}
            answer = self.client.collect(min(deadline - now, ANSWER_GRACE_S))
            if answer is None:
                continue
            number, data = answer
            sequence, _ = self._waiting.pop(number, (0, 0.0))
            if isinstance(data, Exception):
                raise PingFailure(str(data))
            self._last = time.monotonic()
            self._take(sequence, data)

    def _take(self, sequence: int, data: dict[str, Any]) -> None:
        error = data.get("error")
        if data.get("local"):
            raise PingFailure(f"connect: {error}" if "unreachable" in str(error) else f"local error: {error}")
        if error == "timeout":
            self._emit({"icmp_seq": sequence, "error": "timeout"}, None)
        elif error:
            self.statistics.errors += 1
            self._emit({"icmp_seq": sequence, "from": data["from"], "error": error},
                       f"From {data['from']} icmp_seq={sequence} {error}")  # fmt: skip
        else:
            milliseconds = data["rtt_ns"] / 1e6
            self.statistics.times.append(milliseconds)
            source = data["from"]
            if source == self._address and self._host != self._address:
                source = f"{self._host} ({source})"
            line = (
                f"{data['size']} bytes from {source}: icmp_seq={sequence} ttl={data['ttl']} "
                f"time={time_text(milliseconds)} ms"
            )
            if data.get("wrong_data"):
                line += "\nwrong data byte"
            self._emit({"icmp_seq": sequence, **data, "rtt_ms": milliseconds}, line)

    def _emit(self, data: dict[str, Any], line: str | None) -> None:
        if self._quiet:
            return
        if self._stack.json:
            self._stack.emit(data)
        elif line is not None:
            click.echo(line)

    def summary(self) -> None:
        """The last lines."""
        statistics = self.statistics
        duration = round((self._last - self._began) * 1000)
        if self._stack.json:
            figures: dict[str, Any] = {
                "host": self._host, "address": self._address, "transmitted": statistics.transmitted,
                "received": statistics.received, "errors": statistics.errors, "loss_percent": statistics.loss,
                "time_ms": duration,
            }  # fmt: skip
            if statistics.times:
                figures["rtt_ms"] = dict(zip(("min", "avg", "max", "mdev"), statistics.rtt(), strict=True))
            self._stack.emit(figures)
            return
        errors = f", +{statistics.errors} errors" if statistics.errors else ""
        click.echo(f"\n--- {self._host} ping statistics ---")
        click.echo(
            f"{statistics.transmitted} packets transmitted, {statistics.received} received{errors}, "
            f"{statistics.loss:g}% packet loss, time {duration}ms"
        )
        if statistics.times:
            low, mean, high, deviation = statistics.rtt()
            click.echo(f"rtt min/avg/max/mdev = {low:.3f}/{mean:.3f}/{high:.3f}/{deviation:.3f} ms")
        else:
            click.echo()


def time_text(milliseconds: float) -> str:
    """A round trip with three significant digits, as iputils prints it: 0.043, 1.23, 12.3, 123."""
    if milliseconds >= 99.95:
        return f"{milliseconds:.0f}"
    if milliseconds >= 9.995:
        return f"{milliseconds:.1f}"
    if milliseconds >= 0.9995:
        return f"{milliseconds:.2f}"
    return f"{milliseconds:.3f}"
