"""The udp core: datagrams between ip and the gateway; a calculator without socket, clock, thread or timer.

From ip come Segment, Routes and IcmpError; from the gateway the calls of `levelip.frames.seam`. To ip go segments,
Refused (nobody receives there), Groups and PathMtu; to the gateway datagrams, errors and answers. ICMP's datagram
sockets (ping.py) are here, too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from layers.udp import calls
from layers.udp.config import UdpCoreConfig
from layers.udp.context import Context, ToGateway, ToIp
from layers.udp.endpoints import Endpoint, Endpoints
from layers.udp.path_mtu import Learned, PathMtus
from layers.udp.receiving import icmp_arrives, segment_arrives
from layers.udp.sending import send_to
from levelip.config import UdpConfig
from levelip.frames.core import UNLIMITED, ControlError, Output, Room, load_rng, save_rng
from levelip.frames.packet import FrameIds, IcmpError, Refused, Routes, Segment
from levelip.frames.seam import (
    Associate,
    Bind,
    Close,
    Datagram,
    GetInfo,
    Member,
    NeighbourDown,
    NeighbourUp,
    OpenDatagram,
    SendTo,
    SetOption,
    Took,
)
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.wire.addr import ANY, format_address
from levelip.wire.ipv4 import Proto

FIXED = ("port_first", "port_last")
"""Settings that a running core does not change: bound sockets hold what they have."""


class UdpCore:
    """RFC 768 as a calculator."""

    def __init__(self, config: UdpCoreConfig, rng: random.Random, now: int) -> None:
        self._attach(Context(config, rng, now))

    def _attach(self, ctx: Context) -> None:
        self._ctx = ctx
        self.counters = ctx.counters  # what happened how often
        self._handlers: dict[type, Callable[[Context, Any], None]] = {
            Segment: segment_arrives,
            IcmpError: icmp_arrives,
            Routes: lambda ctx, told: ctx.routes.replace(told),
            SendTo: send_to,
            Took: calls.took,
            OpenDatagram: calls.open_datagram,
            Bind: calls.bind,
            Associate: calls.associate,
            Member: calls.member,
            GetInfo: calls.get_info,
            SetOption: calls.set_option,
            Close: calls.close,
            NeighbourUp: self._neighbour_up,
            NeighbourDown: self._neighbour_down,
        }

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
        self._handlers[type(frame)](ctx, frame)
        while ctx.looped:
            segment_arrives(ctx, ctx.looped.popleft())

    def handle_timer(self, now: int) -> None:
        """Nothing here waits for time."""

    def next_timer(self) -> int | None:
        """Never."""
        return None

    def outgoing(self, room: Room) -> Output:
        """What there is room for. What a slow gateway has not taken waits; the sockets' buffers bound it."""
        ctx = self._ctx
        out: Output = []
        for port, queue in (("gateway", ctx.to_gateway), ("ip", ctx.to_ip)):
            space = room.get(port, UNLIMITED)
            while queue and space > 0:
                out.append((port, queue.popleft()))
                space -= 1
        return out

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        ctx = self._ctx
        events, ctx.event_list = ctx.event_list, []
        return events

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """`ss`: all sockets."""
        self._ctx.now = now
        if name == "ss":
            return {"sockets": [_row(one) for one in self._ctx.endpoints.rows()]}
        raise ControlError(f"{name}: udp knows ss")

    def set(self, key: str, value: Any, now: int) -> None:
        """Change udp.`key`."""
        if key not in UdpConfig.__struct_fields__:
            raise ControlError(f"udp.{key} is no setting; there are {', '.join(UdpConfig.__struct_fields__)}")
        if key in FIXED:
            raise ControlError(f"udp.{key} needs a restart of udp")
        setattr(self._ctx.udp, key, value)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data."""
        ctx = self._ctx
        data: dict[str, Any] = msgspec.to_builtins(
            {
                "now": ctx.now,
                "rng": save_rng(ctx.rng),
                "interest": ctx.interest,
                "counters": dict(sorted(ctx.counters.items())),
                "events": ctx.event_list,
                "ids": ctx.ids,
                "endpoints": ctx.endpoints.rows(),
                "path_mtus": ctx.path_mtus.rows(),
                "routes": Routes(ctx.routes.routes, ctx.routes.addresses, ctx.routes.interfaces, ctx.routes.ways),
                "routes_known": ctx.routes.known,
                "to_ip": list(ctx.to_ip),
                "to_gateway": list(ctx.to_gateway),
                "gateway_epoch": ctx.gateway_epoch,
            },
            builtin_types=(bytes,),
        )
        return data

    @classmethod
    def restore(cls, config: UdpCoreConfig, data: dict[str, Any]) -> UdpCore:
        """A core with the same future as the one that the snapshot was taken of."""

        def back(name: str, kind: Any) -> Any:
            return msgspec.convert(data[name], kind, builtin_types=(bytes,))

        rng = random.Random()
        load_rng(rng, data["rng"])
        ctx = Context(config, rng, data["now"])
        ctx.interest = data["interest"]
        ctx.counters.update(data["counters"])
        ctx.event_list = back("events", list[Event])
        ctx.ids = back("ids", FrameIds)
        ctx.endpoints = Endpoints(back("endpoints", list[Endpoint]))
        ctx.path_mtus = PathMtus(back("path_mtus", list[Learned]))
        if data["routes_known"]:
            ctx.routes.replace(back("routes", Routes))
        ctx.to_ip = deque(back("to_ip", list[ToIp]))
        ctx.to_gateway = deque(back("to_gateway", list[ToGateway]))
        ctx.gateway_epoch = data["gateway_epoch"]
        core = cls.__new__(cls)
        core._attach(ctx)
        return core

    # neighbours

    def _neighbour_up(self, ctx: Context, hello: NeighbourUp) -> None:
        """A new ip hears of the groups; another gateway than the one before knows none of its sockets."""
        if hello.name == "ip" and any(one.groups for one in ctx.endpoints.by_id.values()):
            calls.tell_groups(ctx)
        if hello.name != "gateway":
            return
        if ctx.gateway_epoch and hello.epoch != ctx.gateway_epoch:
            ctx.counters["gateways_lost"] += 1
            for one in ctx.endpoints.rows():
                calls.release(ctx, one)
            ctx.to_gateway.clear()
        ctx.gateway_epoch = hello.epoch

    def _neighbour_down(self, ctx: Context, gone: NeighbourDown) -> None:
        """What waits for a process that is gone is of no use to its successor."""
        if gone.name == "ip":
            for item in ctx.to_ip:
                if isinstance(item, Segment | Refused):
                    ctx.drop(reasons.NEIGHBOUR_DOWN, item.id, to="ip")
            ctx.to_ip.clear()
        elif gone.name == "gateway":
            for message in ctx.to_gateway:
                if isinstance(message, Datagram):
                    ctx.drop(reasons.NEIGHBOUR_DOWN, message.id, to="gateway")
            ctx.to_gateway.clear()


def _row(one: Endpoint) -> dict[str, Any]:
    return {
        "sock": one.id,
        "netid": "icmp" if one.proto == Proto.ICMP else "udp",
        "state": "ESTABLISHED" if one.peer else "UNCONN",
        "local": format_address(one.address),
        "local_port": one.port,
        "remote": format_address(one.peer or ANY),
        "remote_port": one.peer_port,
        "recv_q": one.waiting,
        "drops": one.drops,
        "groups": [format_address(group) for group in one.groups],
    }
