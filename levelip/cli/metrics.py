"""`lvlip metrics`: a stack's counters and gauges for Prometheus, on a loopback port."""

from __future__ import annotations

import errno
import threading

import click

from levelip.cli.common import Failure, Number, Stack, StackCommand, interruptible

PORT = 9100


@click.command(cls=StackCommand)
@click.option("--port", metavar="PORT", type=Number(0, 65_535), default=PORT, show_default=True,
              help="Where to listen; 0: any that is free.")  # fmt: skip
@click.option("--bind", "--listen", "address", metavar="ADDRESS", default="127.0.0.1", show_default=True,
              help="On which address. Anybody who reaches it can read the counters.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print them once, for a file that a node exporter reads.")
@click.pass_obj
def command(stack: Stack, port: int, address: str, once: bool) -> None:
    """Serve counters and gauges to Prometheus, at http://127.0.0.1:9100/metrics.

    Counters of all processes, drops by reason, connections by state, queues, restarts, whether the stack is held. The
    processes are asked at each scrape, at most once a second. Runs until Ctrl-C; a stack that is down is told as down.

    \b
    lvlip metrics
    lvlip metrics --once | grep levelip_drops
    """
    from prometheus_client import generate_latest, start_http_server

    from levelip.debug.metrics import registry

    made = registry(stack.run)
    if once:
        stack.need_running()
        if stack.json:
            for family in made.collect():
                for sample in family.samples:
                    stack.emit({"metric": sample.name, "labels": sample.labels, "value": float(sample.value)})
        else:
            click.echo(generate_latest(made).decode(), nl=False)
        return
    try:
        server, thread = start_http_server(port, addr=address, registry=made)
    except OSError as error:
        hint = "; choose another with --port" if error.errno == errno.EADDRINUSE else ""
        raise Failure(f"{address}:{port}: {error.strerror or error}{hint}") from None
    url = f"http://{address}:{server.server_port}/metrics"
    try:
        with interruptible():
            if stack.json:
                stack.emit({"url": url})
            else:
                click.echo(f"serving {url}; end with Ctrl-C", err=True)
            threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
