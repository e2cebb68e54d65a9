"""What all connections of one core share: tables, queues toward the neighbours, clock, counters, events."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from typing import Any

from layers.tcp.config import TcpCoreConfig
from layers.tcp.connection import Connection
from layers.tcp.listener import Listener
from layers.tcp.ports import Ports
from layers.tcp.routes import RouteTable
from layers.tcp.slots import Slots
from layers.tcp.states import Input, transition
from layers.tcp.timers import Timers
from layers.tcp.timewait import TimeWait
from levelip.frames.packet import FrameIds, Process, TransportToIp
from levelip.frames.seam import Store
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason

SECOND = 1_000_000_000  # nanoseconds
MS = 1_000_000


class Context:
    """Plain attributes; the parts of tcp read and write them, `core` alone talks to the shell."""

    __slots__ = (
        "challenge_budget", "challenge_second", "children", "config", "connections", "counters", "dirty", "event_list",
        "gateway_epoch", "ids", "interest", "listeners", "listening", "now", "orphans", "ports", "rng", "routes",
        "slots", "sockets", "stores", "tcp", "timers", "timewait_ids", "timewaits", "to_gateway", "to_ip", "work",
    )  # fmt: skip

    def __init__(self, config: TcpCoreConfig, rng: random.Random, now: int) -> None:
        self.config = config
        self.tcp = config.tcp
        self.rng = rng
        self.now = now
        self.interest = False
        self.counters: dict[str, int] = defaultdict(int)
        self.event_list: list[Event] = []
        self.ids = FrameIds(Process.TCP, config.epoch)
        # toward the neighbours
        self.stores: list[Store] = []
        self.to_gateway: deque[Any] = deque()
        self.to_ip: deque[TransportToIp] = deque()
        self.work: deque[Connection] = deque()  # connections that may have something to send
        self.dirty: list[Connection] = []  # connections that have something to tell the gateway
        # tables
        self.connections: dict[bytes, Connection] = {}  # by address and port pairs; not those in TIME-WAIT
        self.sockets: dict[int, Connection] = {}  # by socket id: those, half-open ones, and ended ones not yet closed
        self.orphans: dict[int, bool] = {}  # ids of connections that go on after their application closed them
        self.listeners: dict[int, Listener] = {}
        self.listening: dict[bytes, list[int]] = {}  # local address and port → ids of listeners
        self.timewaits: dict[bytes, TimeWait] = {}
        self.timewait_ids: dict[int, bytes] = {}  # socket id → key of its TIME-WAIT record
        self.ports = Ports()
        self.slots = Slots(self.tcp.send_ring, self.tcp.receive_ring, self.tcp.connections)
        self.routes = RouteTable()
        self.timers = Timers()
        self.children = 0  # connections that came in, for their ids
        self.challenge_second = -1
        self.challenge_budget = 0
        self.gateway_epoch = 0

    # ids

    def child_id(self) -> int:
        """A socket id for a connection that came in. Bit 62 tells it from the gateway's; none recurs in 2^30 epochs."""
        self.children += 1
        return 1 << 62 | (self.config.epoch & 0x3FFF_FFFF) << 32 | self.children & 0xFFFF_FFFF

    # events and counters

    def emit(self, kind: str, conn: Connection | None = None, *, reason: str = "", frame: int = 0, **data: Any) -> None:
        """Add an event. Callers ask `interest` first, so that nobody listening costs nothing."""
        name = conn.name if conn is not None else ""
        self.event_list.append(Event(self.now, kind, reason, frame, name, data))

    def drop(self, reason: Reason, frame: int, conn: Connection | None = None, **data: Any) -> None:
        """Something is discarded: count it, and tell if somebody listens."""
        self.counters[reason.counter] += 1
        if self.interest:
            self.emit("drop", conn, reason=reason.name, frame=frame, **data)

    def change_state(self, conn: Connection, event: Input, frame: int = 0) -> None:
        """Move a connection by the table of states."""
        old = conn.state
        conn.state = transition(old, event)
        if self.interest:
            self.emit("state", conn, frame=frame, old=old.name, new=conn.state.name, input=event.name)

    # queues

    def want_output(self, conn: Connection) -> None:
        """`conn` may have something to send: it is asked at the next flush."""
        if not conn.queued:
            conn.queued = True
            self.work.append(conn)

    def mark_dirty(self, conn: Connection) -> None:
        """`conn` has something to tell the gateway at the next flush."""
        if not conn.dirty:
            conn.dirty = True
            self.dirty.append(conn)

    # tables

    def find_listener(self, address: bytes, port: int, remote_port: int) -> Listener | None:
        """The listener for a destination: a specific address wins over any.

        Of several with SO_REUSEPORT the remote port chooses, so that a repeated SYN meets the same one.
        """
        where = port.to_bytes(2, "big")
        for candidate in (address, bytes(len(address))):
            ids = self.listening.get(candidate + where)
            if ids:
                return self.listeners[ids[remote_port % len(ids)]]
        return None


