"""The whole state of the core as plain data, and back. What can be derived is not written down."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import msgspec

from layers.tcp.config import TcpCoreConfig
from layers.tcp.congestion import find, label
from layers.tcp.congestion.base import Strategy
from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.listener import Listener
from layers.tcp.ports import Ports
from layers.tcp.slots import Slots
from layers.tcp.timers import Timers
from layers.tcp.timewait import TimeWait
from levelip.frames.core import load_rng, save_rng
from levelip.frames.packet import FrameIds, Route, Routes, TransportToIp
from levelip.frames.seam import Store, TcpToGateway
from levelip.tracing.events import Event


@dataclass
class TcpState:
    """All fields of a Context, tables as lists in their order."""

    now: int
    rng: list[Any]
    interest: bool
    counters: dict[str, int]
    events: list[Event]
    ids: FrameIds
    stores: list[Store]
    to_gateway: list[TcpToGateway]
    to_ip: list[TransportToIp]
    connections: list[Connection]
    demultiplexed: list[int]
    work: list[int]
    dirty: list[int]
    orphans: list[int]
    listeners: list[Listener]
    timewaits: list[TimeWait]
    ports: Ports
    slots: Slots
    routes: list[Route]
    addresses: list[bytes]
    routes_known: bool
    path_mtus: dict[bytes, tuple[int, int]]
    timers: Timers
    children: int
    challenge_second: int
    challenge_budget: int
    gateway_epoch: int


def take(ctx: Context) -> dict[str, Any]:
    """The state as dicts, lists, bytes, strings and numbers."""
    state = TcpState(
        now=ctx.now,
        rng=save_rng(ctx.rng),
        interest=ctx.interest,
        counters=dict(ctx.counters),
        events=ctx.event_list,
        ids=ctx.ids,
        stores=ctx.stores,
        to_gateway=list(ctx.to_gateway),
        to_ip=list(ctx.to_ip),
        connections=list(ctx.sockets.values()),
        demultiplexed=[conn.id for conn in ctx.connections.values()],
        work=[conn.id for conn in ctx.work if conn.id in ctx.sockets],
        dirty=[conn.id for conn in ctx.dirty if conn.id in ctx.sockets],
        orphans=list(ctx.orphans),
        listeners=list(ctx.listeners.values()),
        timewaits=list(ctx.timewaits.values()),
        ports=ctx.ports,
        slots=ctx.slots,
        routes=ctx.routes.routes,
        addresses=ctx.routes.addresses,
        routes_known=ctx.routes.known,
        path_mtus=ctx.routes.learned,
        timers=ctx.timers,
        children=ctx.children,
        challenge_second=ctx.challenge_second,
        challenge_budget=ctx.challenge_budget,
        gateway_epoch=ctx.gateway_epoch,
    )
    plain: dict[str, Any] = msgspec.to_builtins(state, builtin_types=(bytes,))
    for row, conn in zip(plain["connections"], state.connections, strict=True):
        row["congestion"]["name"] = label(conn.congestion)
    return plain


def _strategy(kind: type, data: dict[str, Any]) -> Any:
    """A strategy is one of several kinds: its name says which."""
    if kind is not Strategy:
        raise NotImplementedError(kind)
    fields = dict(data)
    return msgspec.convert(fields, find(fields.pop("name")))


def restore(config: TcpCoreConfig, data: dict[str, Any]) -> Context:
    """A context with the same future as the one that `take` was given."""
    state = msgspec.convert(data, TcpState, dec_hook=_strategy)
    rng = random.Random()
    load_rng(rng, state.rng)
    ctx = Context(config, rng, state.now)
    ctx.interest = state.interest
    ctx.counters.update(state.counters)
    ctx.event_list = state.events
    ctx.ids = state.ids
    ctx.stores = state.stores
    ctx.to_gateway.extend(state.to_gateway)
    ctx.to_ip.extend(state.to_ip)
    ctx.sockets = {conn.id: conn for conn in state.connections}
    ctx.connections = {ctx.sockets[ident].key: ctx.sockets[ident] for ident in state.demultiplexed}
    ctx.work.extend(ctx.sockets[ident] for ident in state.work)
    ctx.dirty = [ctx.sockets[ident] for ident in state.dirty]
    ctx.orphans = dict.fromkeys(state.orphans, True)
    for listener in state.listeners:
        ctx.listeners[listener.id] = listener
        ctx.listening.setdefault(listener.address + listener.port.to_bytes(2, "big"), []).append(listener.id)
    for record in state.timewaits:
        ctx.timewaits[record.key] = record
        ctx.timewait_ids[record.id] = record.key
    ctx.ports = state.ports
    ctx.slots = state.slots
    ctx.routes.replace(Routes(state.routes, state.addresses))
    ctx.routes.known = state.routes_known
    ctx.routes.learned = state.path_mtus
    ctx.timers = state.timers
    ctx.children = state.children
    ctx.challenge_second = state.challenge_second
    ctx.challenge_budget = state.challenge_budget
    ctx.gateway_epoch = state.gateway_epoch
    for row in ctx.ports.bindings.values():
        for sock, binding in row.items():
            ctx.ports.by_socket[sock] = binding  # the same object, as a listener's flag is set through either
    return ctx
