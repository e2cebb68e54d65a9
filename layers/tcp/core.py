"""The tcp core: verbs, dispatch of frames, demultiplexing of segments. All state lies in `context`.

From ip come Segment, Routes and IcmpError; from the gateway the calls of `levelip.frames.seam`. To ip go segments, made
when there is room for them, and PathMtu; to the gateway what the streams and calls have come to; to the shell's memory
the Stores that put received payload into rings. Nothing is kept of a segment beyond the flush after it came.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from layers.tcp import calls, control, snapshot, socket_options
from layers.tcp.closing import abort
from layers.tcp.config import TcpCoreConfig
from layers.tcp.context import Context
from layers.tcp.header_prediction import predicted
from layers.tcp.icmp_errors import icmp_error
from layers.tcp.output import next_segment
from layers.tcp.segment_arrives import segment_for_connection
from layers.tcp.segment_elsewhere import segment_elsewhere
from layers.tcp.states import State
from layers.tcp.telling import tell_progress
from layers.tcp.timeouts import handle_timers
from layers.tcp.totals import totals
from layers.tcp.urgent import send_urgent
from levelip.frames.core import Output, Room
from levelip.frames.packet import Checksum, IcmpError, Routes, Segment
from levelip.frames.seam import (
    Bind,
    Close,
    Connect,
    GetInfo,
    Listen,
    NeighbourDown,
    NeighbourUp,
    SetOption,
    StoreFailed,
    Taken,
)
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Eof, Reset, Send, Urgent
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.wire.checksum import internet_checksum, pseudo_header_sum

UNLIMITED = 1 << 60
ESTABLISHED = State.ESTABLISHED
TRUSTED = (int(Checksum.PARTIAL), int(Checksum.VERIFIED))
PROTO_TCP = 6

_HEADER = struct.Struct(">HHIIHHHH")
_COMMON = 0x8010  # a header of 8 words with ACK
_COMMON_MASK = 0xF1F7  # all of the word but the reserved bits and PSH

Call = Callable[[Context, Any, int], None]


class TcpCore:
    """RFC 9293 as a calculator: no socket, clock, thread or file."""

    def __init__(self, config: TcpCoreConfig, rng: random.Random, now: int) -> None:
        self._attach(Context(config, rng, now))

    def _attach(self, ctx: Context) -> None:
        self._ctx = ctx
        self.counters = ctx.counters  # what happened how often
        self._predict = ctx.config.header_prediction
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            Segment: self._segment,
            Routes: self._routes,
            IcmpError: self._icmp,
            NeighbourUp: self._neighbour_up,
            NeighbourDown: self._neighbour_down,
        }
        self._calls: dict[type, Call] = {
            Bind: calls.bind,
            Listen: calls.listen,
            Connect: calls.connect,
            Taken: calls.taken,
            SetOption: socket_options.set_option,
            GetInfo: calls.get_info,
            Close: calls.close,
            Urgent: send_urgent,
            Send: calls.send,
            Consumed: calls.consumed,
            Eof: calls.eof,
            Reset: calls.reset,
            StoreFailed: calls.store_failed,
        }

    # what the shell sees beside the verbs

    @property
    def interest(self) -> bool:
        """Somebody listens to events."""
        return self._ctx.interest

    @interest.setter
    def interest(self, value: bool) -> None:
        self._ctx.interest = value

    # the verbs

    def receive(self, frame: Any, now: int) -> None:
        """Take one frame from ip, the gateway or the shell."""
        ctx = self._ctx
        ctx.now = now
        kind = type(frame)
        call = self._calls.get(kind)
        if call is not None:
            call(ctx, frame, now)
        else:
            self._handlers[kind](frame, now)

    def handle_timer(self, now: int) -> None:
        """Fire what is due at or before `now`."""
        self._ctx.now = now
        handle_timers(self._ctx, now)

    def next_timer(self) -> int | None:
        """When handle_timer wants to be called; may be early, never late."""
        return self._ctx.timers.next()

    def outgoing(self, room: Room) -> Output:
        """Stores, then messages to the gateway, then segments, the connections in turn."""
        ctx = self._ctx
        out: Output = []
        if ctx.stores:
            out += [("memory", store) for store in ctx.stores]
            ctx.stores = []
        to_gateway = ctx.to_gateway
        if to_gateway or ctx.dirty:
            space = room.get("gateway", UNLIMITED)
            if ctx.dirty and len(to_gateway) < space:
                dirty, ctx.dirty = ctx.dirty, []
                for conn in dirty:
                    tell_progress(ctx, conn)
            while to_gateway and space > 0:
                out.append(("gateway", to_gateway.popleft()))
                space -= 1
        to_ip, work = ctx.to_ip, ctx.work
        if to_ip or work:
            space = room.get("ip", UNLIMITED)
            now = ctx.now
            while to_ip and space > 0:
                out.append(("ip", to_ip.popleft()))
                space -= 1
            while work and space > 0:
                conn = work.popleft()
                segment = next_segment(ctx, conn, now)
                if segment is None:
                    conn.queued = False
                else:
                    out.append(("ip", segment))
                    space -= 1
                    work.append(conn)
            if ctx.dirty and not to_gateway and room.get("gateway", UNLIMITED) > len(out):
                self._tell_room(out)
        return out

    def _tell_room(self, out: Output) -> None:
        """What was sent just now has made room for more (TCP_NOTSENT_LOWAT): nothing else would tell it soon."""
        ctx = self._ctx
        dirty, ctx.dirty = ctx.dirty, []
        for conn in dirty:
            tell_progress(ctx, conn)
        out += [("gateway", message) for message in ctx.to_gateway]
        ctx.to_gateway.clear()

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        ctx = self._ctx
        events, ctx.event_list = ctx.event_list, []
        return events

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """`ss`: all sockets; `conn` {sock | conn}: one whole TCB; `totals`: how many there are of what."""
        self._ctx.now = now
        if name == "totals":
            return totals(self._ctx)
        return control.run_command(self._ctx, name, args, now)

    def set(self, key: str, value: Any, now: int) -> None:
        """Change tcp.`key`."""
        self._ctx.now = now
        control.change_setting(self._ctx, key, value)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data."""
        return snapshot.take(self._ctx)

    @classmethod
    def restore(cls, config: TcpCoreConfig, data: dict[str, Any]) -> TcpCore:
        """A core with the same future as the one that the snapshot was taken of."""
        core = cls.__new__(cls)
        core._attach(snapshot.restore(config, data))
        return core

    # frames from ip

    def _segment(self, segment: Segment, now: int) -> None:
        ctx = self._ctx
        head, payload = segment.head, segment.payload
        size = len(head)
        if size < 20 or head[12] >> 2 & 0x3C != size:
            if not self._take_apart(segment):
                return
            head, payload = segment.head, segment.payload
        state = segment.checksum
        if state not in TRUSTED and not self._checksum_right(segment):
            ctx.drop(reasons.TCP_CHECKSUM, segment.id)
            return
        gso_size = segment.gso_size
        packets = -(-len(payload) // gso_size) if gso_size and payload else 1
        ctx.counters["segments_in"] += packets
        _, _, seq, ack, word, window, _, _ = _HEADER.unpack_from(head)
        conn = ctx.connections.get(segment.dst + segment.src + head[:4])
        if conn is None:
            segment_elsewhere(ctx, segment, seq, ack, word & 0x1FF, window, payload, now)
            return
        conn.segments_in += packets
        if (
            word & _COMMON_MASK == _COMMON
            and self._predict
            and conn.state == ESTABLISHED
            and predicted(ctx, conn, segment, seq, ack, window, payload, now)
        ):
            return
        segment_for_connection(ctx, conn, segment, seq, ack, word & 0x1FF, window, payload, now)

    def _take_apart(self, segment: Segment) -> bool:
        """Cut a segment anew, so that its head is the TCP header with its options; False if that cannot be."""
        head, payload = segment.head, segment.payload
        ctx = self._ctx
        if isinstance(payload, Place):
            ctx.drop(reasons.TCP_MALFORMED, segment.id, why="a header that is not whole before a payload in memory")
            return False
        data = head + payload
        if len(data) < 20:
            ctx.drop(reasons.TCP_MALFORMED, segment.id, why="truncated")
            return False
        length = data[12] >> 2 & 0x3C
        if not 20 <= length <= len(data):
            ctx.drop(reasons.TCP_MALFORMED, segment.id, why="data offset")
            return False
        segment.head = data[:length]
        segment.payload = data[length:]
        return True

    def _checksum_right(self, segment: Segment) -> bool:
        """RFC 9293 3.1; a payload in shared memory cannot be verified here and never comes unverified."""
        if isinstance(segment.payload, Place):
            return False
        data = segment.head + segment.payload
        return internet_checksum(data, pseudo_header_sum(segment.src, segment.dst, PROTO_TCP, len(data))) == 0

    def _routes(self, routes: Routes, now: int) -> None:
        self._ctx.routes.replace(routes)
        calls.use_routes(self._ctx)

    def _icmp(self, error: IcmpError, now: int) -> None:
        icmp_error(self._ctx, error, now)

    # neighbours

    def _neighbour_up(self, hello: NeighbourUp, now: int) -> None:
        """Another gateway than the one before knows none of its sockets: they end as if their owner had died."""
        ctx = self._ctx
        if hello.name != "gateway":
            return
        if ctx.gateway_epoch and hello.epoch != ctx.gateway_epoch:
            self._abandon(now)
        ctx.gateway_epoch = hello.epoch

    def _neighbour_down(self, gone: NeighbourDown, now: int) -> None:
        """Nothing to do: TCP waits, as for any lost packet, and a gateway that comes back says who it is."""

    def _abandon(self, now: int) -> None:
        ctx = self._ctx
        ctx.counters["gateways_lost"] += 1
        for listener in list(ctx.listeners.values()):
            calls.stop_listening(ctx, listener, now)
        for conn in list(ctx.sockets.values()):
            if not conn.orphan:
                abort(ctx, conn, now)
        for sock in list(ctx.ports.by_socket):
            if sock not in ctx.timewait_ids and sock not in ctx.sockets:
                ctx.ports.release(sock)
        ctx.dirty = []
        ctx.to_gateway.clear()
