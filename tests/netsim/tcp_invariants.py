"""What is true of a tcp core whenever it has said all that it has to say, whatever has happened to it.

`check_connections` costs microseconds and follows every flush of a test; `check_snapshot` follows every test.
"""

from __future__ import annotations

from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.core import TcpCore
from layers.tcp.receive_space import ReceiveSpace
from layers.tcp.recovery.state import CaState
from layers.tcp.send_space import SendSpace
from layers.tcp.states import State
from layers.tcp.timers import OFF, PERSIST, RETRANSMIT
from levelip.frames.core import Output, Room

QUIET = (State.CLOSED, State.TIME_WAIT, State.SYN_SENT, State.SYN_RECEIVED)
EVERY = 64  # flushes


class CheckedCore(TcpCore):
    """A core whose connections are looked at once in a while."""

    _flushes = 0

    def outgoing(self, room: Room) -> Output:
        out = super().outgoing(room)
        self._flushes += 1
        if self._flushes % EVERY == 0:
            check_connections(self)
        return out


def check_connections(core: TcpCore) -> None:
    """Every TCB is consistent with itself, and the queues with the TCBs. Nothing waits for room."""
    ctx = core._ctx
    assert all((conn.queued and conn in ctx.sockets.values()) or conn.id not in ctx.sockets for conn in ctx.work)
    assert all(conn.dirty or conn.id not in ctx.sockets for conn in ctx.dirty)
    for conn in ctx.sockets.values():
        assert not conn.queued or conn in ctx.work, "marked as queued, and nobody will ask it"
        assert not conn.dirty or conn in ctx.dirty, "marked as dirty, and nobody will tell of it"
        _sent(conn.tx)
        _received(conn.rx)
        _timers(ctx, conn)
        _recovery(conn)
        if not ctx.work:
            _owed(conn)


def _recovery(conn: Connection) -> None:
    """OPEN is the state in which nothing is in doubt."""
    assert conn.tx.in_flight() >= 0 and conn.congestion.cwnd > 0 and conn.congestion.ssthresh > 0
    if conn.recovery.state == CaState.OPEN and conn.state not in QUIET:
        assert not conn.tx.sacked_bytes and not conn.tx.lost_bytes, conn.tx


def _owed(conn: Connection) -> None:
    """Whoever owes something has a timer for it, once nothing more can be sent at once."""
    tx = conn.tx
    if conn.state in QUIET:
        return
    if tx.queue:
        assert conn.deadlines[RETRANSMIT] >= 0, conn
    elif tx.unsent() and tx.snd_wnd == 0:
        assert conn.deadlines[PERSIST] >= 0, conn


def _sent(tx: SendSpace) -> None:
    """The queue covers [SND.UNA, SND.NXT), and the sums are what its entries add up to."""
    at = tx.snd_una
    lost = sacked = sacked_packets = again = 0
    for index, row in enumerate(tx.queue):
        assert row.start == at < row.end, (at, tx.queue)
        at = row.end
        size = row.end - row.start
        text = size - (row.end > tx.fin_at >= 0)  # a FIN takes no room in a packet
        packets = max(-(-text // row.size), 1)
        assert packets <= row.packets <= size if row.sacked else row.packets == packets, row
        assert not (row.lost and row.sacked), row
        if row.lost:
            assert index >= tx.first_lost, (tx.first_lost, tx.queue)
            lost += size
        elif row.sacked:
            sacked += size
            sacked_packets += row.packets
        elif row.times > 1:
            again += size
    assert at == tx.snd_nxt or not tx.queue, (at, tx.snd_nxt)
    assert (tx.lost_bytes, tx.sacked_bytes, tx.sacked_packets) == (lost, sacked, sacked_packets), tx
    assert tx.retrans_out == again, tx
    flying = sum(row.packets for row in tx.queue if not row.sacked)
    assert tx.rate.sent == tx.delivered + flying, tx
    assert all(row.mark is None for row in tx.queue if row.sacked), tx
    assert tx.snd_nxt <= tx.snd_end + 1


def _received(rx: ReceiveSpace) -> None:
    """Ranges are apart, in order, beyond RCV.NXT and inside of the ring; the edge never goes beyond it."""
    edge = rx.rcv_nxt
    for row in rx.ranges:
        assert edge < row.start < row.end, (rx.rcv_nxt, rx.ranges)
        edge = row.end
    assert len({row.stamp for row in rx.ranges}) == len(rx.ranges)
    if rx.rcv_nxt >= 0:
        assert rx.consumed <= max(rx.rcv_nxt, 0) and edge <= rx.consumed + rx.ring + 1
        assert rx.rcv_acc <= rx.consumed + rx.ring


def _timers(ctx: Context, conn: Connection) -> None:
    """What is armed stands in the heap, not too late."""
    for kind, (deadline, scheduled) in enumerate(zip(conn.deadlines, conn.scheduled, strict=True)):
        if deadline != OFF:
            assert OFF < scheduled <= deadline, (kind, deadline, scheduled)
        if scheduled != OFF:
            assert (scheduled, kind, conn.id) in ctx.timers.heap, (kind, scheduled)


def check_snapshot(core: TcpCore) -> None:
    """The state is of its types, and a core restored from it has the same."""
    data = core.snapshot()
    assert all(event[1] != "drop" or None not in event[-1].values() for event in data["events"]), data["events"]
    assert TcpCore.restore(core._ctx.config, data).snapshot() == data
