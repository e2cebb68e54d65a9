"""Name servers in virtual time: a world of zones and misbehaviour for resolverstub.Stub, without a socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from dns.message import QueryMessage

Records = dict[str, list[str]]  # "www.example.org A" → what its records say
Answer = Callable[[QueryMessage, str], Iterable[tuple[float, bytes]]]  # query, transport → messages and their delays


def zone(records: Records, *, delay: float = 0.01, largest: int = 65_535, rcode: int | None = None) -> Answer:
    """A server that knows these records and follows CNAMEs among them; by UDP it cuts what is longer than `largest`,
    or than the query's EDNS says (RFC 6891 6.2.5; 512 without)."""

    def answer(query: QueryMessage, transport: str) -> Iterable[tuple[float, bytes]]:
        reply = dns.message.make_response(query, recursion_available=True)
        asked = query.question[0]
        name, rdtype = asked.name.to_text(omit_final_dot=True).lower(), asked.rdtype.name
        known = False
        while True:
            known = known or any(key.split()[0] == name for key in records)
            texts = records.get(f"{name} {rdtype}", [])
            if texts:
                reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", rdtype, *texts))
                break
            links = records.get(f"{name} CNAME", [])
            if not links:
                break
            reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", links[0]))
            name = links[0].rstrip(".")
        reply.set_rcode(
            dns.rcode.Rcode(rcode) if rcode is not None else dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN
        )
        wire = reply.to_wire(max_size=65_535, want_shuffle=False)
        limit = min(largest, query.payload if query.edns >= 0 else 512)
        if transport == "udp" and len(wire) > limit:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return [(delay, wire)]

    return answer


def silent(_query: QueryMessage, _transport: str) -> Iterable[tuple[float, bytes]]:
    """A server that says nothing."""
    return []


def refusing(_query: QueryMessage, _transport: str) -> Iterable[tuple[float, bytes]]:
    """No server: ICMP port unreachable, or RST."""
    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


class World:
    """All servers by address, what was asked of them, and the time. `sources`: our address toward others (None: no
    way)."""

    def __init__(self, servers: dict[str, Answer], sources: dict[str, str | None] | None = None) -> None:
        self.time = 100.0
        self.servers = servers
        self.sources = sources or {}
        self.asked: list[tuple[str, str, str, str]] = []  # server, transport, name, type
        self.queries: list[QueryMessage] = []

    def now(self) -> float:
        return self.time

    def udp(self, server: str) -> WorldChannel:
        return WorldChannel(self, server, "udp")

    def tcp(self, server: str, timeout: float) -> WorldChannel:
        return WorldChannel(self, server, "tcp")

    def source(self, address: str) -> bytes | None:
        text = self.sources.get(address, "10.0.0.2")
        return socket.inet_aton(text) if text else None


class WorldChannel:
    def __init__(self, world: World, server: str, transport: str) -> None:
        self.world, self.server, self.transport = world, server, transport
        self.coming: list[tuple[float, bytes]] = []
        self.failure: OSError | None = None

    def send(self, message: bytes) -> None:
        query: Any = dns.message.from_wire(message)
        self.world.queries.append(query)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.world.asked.append((self.server, self.transport, name, question.rdtype.name))
        try:
            for delay, data in self.world.servers[self.server](query, self.transport):
                self.coming.append((self.world.time + delay, data))
        except OSError as error:
            self.failure = error

    def receive(self, timeout: float) -> bytes:
        if self.failure is not None:
            raise self.failure
        deadline = self.world.time + max(timeout, 0)
        self.coming.sort(key=lambda one: one[0])
        if not self.coming or self.coming[0][0] > deadline:
            self.world.time = deadline
            raise TimeoutError
        when, data = self.coming.pop(0)
        self.world.time = max(self.world.time, when)
        return data

    def close(self) -> None:
        self.coming.clear()
