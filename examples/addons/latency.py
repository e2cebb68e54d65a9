"""A histogram of the time from a data segment to its ACK, as the device sees it, in steps of a factor of two.

lvlip addon load examples/addons/latency.py
lvlip addon list           shows it; every=N: after each N ACKs (default 1000)
"""

from collections import Counter

from levelip import addon
from levelip.addon import Context, Packet

WAITING = 10_000  # segments whose ACK is waited for


def loaded(context: Context) -> None:
    if not hasattr(context.state, "sent"):
        context.state.sent = {}  # (ports, acknowledgment number that will answer it) -> when
        context.state.times = Counter()
        context.state.count = 0


@addon.frame("tcp.len > 0", way="down")
def data(packet: Packet, context: Context) -> None:
    sent = context.state.sent
    key = packet["tcp.srcport"], packet["tcp.dstport"], packet["tcp.nxtseq"]
    if sent.pop(key, None) is None and len(sent) < WAITING:  # sent again: which of the two an ACK answers is unknown
        sent[key] = context.now


@addon.frame("tcp.flags.ack and not tcp.flags.syn", way="up")
def answer(packet: Packet, context: Context) -> None:
    state = context.state
    when = state.sent.pop((packet["tcp.dstport"], packet["tcp.srcport"], packet["tcp.ack"]), None)
    if when is None:
        return
    state.times[max((context.now - when) // 1000, 1).bit_length()] += 1
    state.count += 1
    if state.count % int(context.options.get("every", 1000)) == 0:
        show(context)


def show(context: Context) -> None:
    times = context.state.times
    widest = max(times.values())
    for step in range(min(times), max(times) + 1):
        bar = "#" * (40 * times[step] // widest)
        context.log(f"{2 ** (step - 1):>8} us  {times[step]:>6}  {bar}")


def unloaded(context: Context) -> None:
    if context.state.times:
        show(context)
