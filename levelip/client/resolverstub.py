"""A stub resolver (RFC 1034 5.3.1) as glibc's: search list, servers in turn, UDP and, where that is cut, TCP.

It holds no socket and no clock: a `Network` gives channels to servers, and the time. What was asked of whom, and what
came of it, can be listened to (`Exchange`).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.message import QueryMessage
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from levelip.client.resolverfiles import ResolverConfig

EDNS_PAYLOAD = 1232
"""Bytes of an answer that we take by UDP: no fragments on any usual path (RFC 9715 3.1, RFC 6891 6.2.5)."""
NEXT_SERVER = (Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED)
"""Answers after which the next server is asked (glibc res_send.c)."""


class Channel(Protocol):
    """A datagram socket to one server, or a connection, which carries messages too."""

    def send(self, message: bytes) -> None:
        """OSError if it cannot be sent."""

    def receive(self, timeout: float) -> bytes:
        """The next message. TimeoutError; OSError: the server cannot be reached, or is not there."""

    def close(self) -> None:
        """Give it back."""


class Network(Protocol):
    """The world of a stub."""

    def now(self) -> float:
        """Seconds of any clock that only goes forward."""

    def udp(self, server: str) -> Channel:
        """A datagram socket that hears this server alone, from a port that nobody guesses (RFC 5452 9.2)."""

    def tcp(self, server: str, timeout: float) -> Channel:
        """A connection. TimeoutError, OSError."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question to one server. `outcome`: a response code, "truncated", "timeout", "garbage" or an errno's name."""

    server: str
    transport: str
    name: str
    rdtype: str
    seconds: float
    outcome: str
    size: int = 0
    records: tuple[str, ...] = ()


class Failure(Enum):
    """Why there is no answer, as netdb.h has it (h_errno)."""

    HOST_NOT_FOUND = 1
    TRY_AGAIN = 2
    NO_RECOVERY = 3
    NO_DATA = 4


class LookupFailed(Exception):
    """No answer."""

    def __init__(self, why: Failure) -> None:
        super().__init__(why.name)
        self.why = why


@dataclass(slots=True)
class Found:
    """What was found: `canonical` is the end of the chain of CNAMEs, `aliases` what led there."""

    canonical: str
    aliases: list[str] = field(default_factory=list)
    records: list[tuple[RdataType, str]] = field(default_factory=list)  # addresses, names: as text


class Stub:
    """One lookup's worth of a resolver: made for it, and thrown away. `first` is the place of the server to begin with
    where they take turns (rotate)."""

    def __init__(
        self, config: ResolverConfig, network: Network, *, first: int = 0,
        listen: Callable[[Exchange], None] | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._network = network
        self._listen = listen
        start = first % len(config.servers) if config.rotate and config.servers else 0
        self._servers = config.servers[start:] + config.servers[:start]
        self._edns = set(self._servers)  # those that have not said that they know no EDNS
        self._heard = False  # anybody, since the last name was asked for

    def search(self, name: str, types: Sequence[RdataType]) -> Found:
        """Look up `name` as it is and in the domains of the search list, in the order of resolv.conf(5).

        LookupFailed if no candidate has a record of these types.
        """
        first: Failure | None = None  # of the name as it is, where that was tried first
        seen: set[Failure] = set()
        last = Failure.HOST_NOT_FOUND
        bare = name.rstrip(".")
        silent = False
        for place, candidate in enumerate(self._candidates(name)):
            if silent and candidate != bare:
                continue  # nobody answers: no further domain is tried, but the name as it is (glibc res_query.c)
            try:
                return self.look_up(candidate, types)
            except LookupFailed as failure:
                last = failure.why
                if place == 0 and candidate == bare:
                    first = last
                seen.add(last)
                silent = not self._heard
        for why in (first, Failure.NO_DATA, Failure.TRY_AGAIN):  # glibc res_query.c: what is most telling
            if why is not None and (why is first or why in seen):
                raise LookupFailed(why)
        raise LookupFailed(last)

    def _candidates(self, name: str) -> Iterator[str]:
        bare = name.rstrip(".")
        if name.endswith("."):
            yield bare
            return
        early = bare.count(".") >= self._config.ndots
        if early:
            yield bare
        for domain in self._config.search:
            yield f"{bare}.{domain}"
        if not early:
            yield bare

    def look_up(self, name: str, types: Sequence[RdataType]) -> Found:
        """Look up exactly this name. LookupFailed."""
        try:
            asked = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            raise LookupFailed(Failure.HOST_NOT_FOUND) from None
        self._heard = False
        answers = self._ask(asked, types)
        found = Found(name)
        failures = []
        for rdtype in types:
            message = answers.get(rdtype)
            if message is None:
                failures.append(Failure.TRY_AGAIN)
            elif why := _take(message, rdtype, found):
                failures.append(why)
        if found.records:
            return found
        for why in (Failure.TRY_AGAIN, Failure.NO_RECOVERY, Failure.NO_DATA):
            if why in failures:
                raise LookupFailed(why)
        raise LookupFailed(Failure.HOST_NOT_FOUND)

    def _ask(self, name: dns.name.Name, types: Sequence[RdataType]) -> dict[RdataType, QueryMessage]:
        """Ask the servers in turn, all types at once, until there is an answer to each, or no more attempt."""
        answers: dict[RdataType, QueryMessage] = {}
        config = self._config
        for attempt in range(config.attempts):
            timeout = float(config.timeout_s << attempt)
            if attempt:
                timeout = max(1.0, timeout // len(self._servers))  # glibc res_send.c
            for server in self._servers:
                missing = [rdtype for rdtype in types if rdtype not in answers]
                if not missing:
                    return answers
                answers |= self._ask_one(server, name, missing, timeout)
        return answers

    def _ask_one(
        self, server: str, name: dns.name.Name, types: Sequence[RdataType], timeout: float
    ) -> dict[RdataType, QueryMessage]:
        """What this server answers in time; what it does not is missing."""
        queries = {rdtype: self._query(server, name, rdtype) for rdtype in types}
        if self._config.use_vc:
            found = self._by_tcp(server, queries, timeout)
        else:
            found = self._by_udp(server, queries, timeout)
            cut = {rdtype: queries[rdtype] for rdtype, answer in found.items() if answer.flags & dns.flags.TC}
            if cut:  # RFC 7766 5: what is cut is asked for again by TCP
                for rdtype in cut:
                    del found[rdtype]
                found |= self._by_tcp(server, cut, timeout)
        refused = [rdtype for rdtype, answer in found.items() if answer.rcode() == Rcode.FORMERR]
        if refused and server in self._edns:  # RFC 6891 7: it may not know EDNS
            self._edns.discard(server)
            for rdtype in refused:
                del found[rdtype]
            found |= self._ask_one(server, name, refused, timeout)
        return {rdtype: answer for rdtype, answer in found.items() if not _useless(answer)}

    def _query(self, server: str, name: dns.name.Name, rdtype: RdataType) -> QueryMessage:
        edns = 0 if server in self._edns else -1
        return dns.message.make_query(name, rdtype, use_edns=edns, payload=EDNS_PAYLOAD)

    def _by_udp(
        self, server: str, queries: dict[RdataType, QueryMessage], timeout: float
    ) -> dict[RdataType, QueryMessage]:
        return self._exchange(server, "udp", queries, timeout, lambda: self._network.udp(server))

    def _by_tcp(
        self, server: str, queries: dict[RdataType, QueryMessage], timeout: float
    ) -> dict[RdataType, QueryMessage]:
        return self._exchange(server, "tcp", queries, timeout, lambda: self._network.tcp(server, timeout))

    def _exchange(
        self, server: str, transport: str, queries: dict[RdataType, QueryMessage], timeout: float,
        open_channel: Callable[[], Channel],
    ) -> dict[RdataType, QueryMessage]:  # fmt: skip
        """Put the questions on one channel and take the answers that match them; all else is ignored."""
        network = self._network
        began = network.now()
        found: dict[RdataType, QueryMessage] = {}

        def tell(query: QueryMessage, outcome: str, size: int = 0, answer: QueryMessage | None = None) -> None:
            if self._listen is not None:
                question = query.question[0]
                name, rdtype = question.name.to_text(omit_final_dot=True), question.rdtype.name
                seconds, records = network.now() - began, _records(answer)
                self._listen(Exchange(server, transport, name, rdtype, seconds, outcome, size, records))

        try:
            channel = open_channel()
            with contextlib.closing(channel):
                for query in queries.values():
                    channel.send(query.to_wire())
                while len(found) < len(queries):
                    data = channel.receive(began + timeout - network.now())
                    for rdtype, query in queries.items():
                        answer = _parse(data, query) if rdtype not in found else None
                        if answer is not None:
                            found[rdtype] = answer
                            self._heard = True
                            cut = answer.flags & dns.flags.TC and transport == "udp"
                            tell(query, "truncated" if cut else answer.rcode().name, len(data), answer)
                            break
                    else:
                        tell(next(iter(queries.values())), "garbage", len(data))
        except TimeoutError:
            lost = "timeout"
        except OSError as error:
            lost = errno.errorcode.get(error.errno or 0, str(error))
        else:
            return found
        for rdtype, query in queries.items():
            if rdtype not in found:
                tell(query, lost)
        return found


def _parse(data: bytes, query: QueryMessage) -> QueryMessage | None:
    """The answer to `query`, if it is one: same number, same question (RFC 5452 9.1)."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
    except (dns.exception.DNSException, ValueError):
        return None
    return message if isinstance(message, QueryMessage) and query.is_response(message) else None


def _useless(answer: QueryMessage) -> bool:
    """Whether another server may know better: this one does not, or it only refers to others (glibc res_send.c)."""
    if answer.rcode() in NEXT_SERVER:
        return True
    known = answer.answer or answer.additional or answer.flags & (dns.flags.AA | dns.flags.RA)
    return answer.rcode() == Rcode.NOERROR and not known


def _take(message: QueryMessage, rdtype: RdataType, found: Found) -> Failure | None:
    """Add the records that answer the question, at the end of its chain of CNAMEs; or why there are none."""
    if message.rcode() not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return Failure.NO_RECOVERY
    try:
        chain = message.resolve_chaining()
    except dns.exception.DNSException:  # too long, or in a circle
        return Failure.NO_DATA
    if chain.answer is None:
        return Failure.HOST_NOT_FOUND if message.rcode() == Rcode.NXDOMAIN else Failure.NO_DATA
    canonical = chain.canonical_name.to_text(omit_final_dot=True)
    if not found.records:
        found.canonical = canonical
        found.aliases = [rrset.name.to_text(omit_final_dot=True) for rrset in chain.cnames]
    for rdata in chain.answer:
        found.records.append((rdtype, _text(rdata)))
    return None


def _text(rdata: object) -> str:
    target = getattr(rdata, "target", None)
    return str(target.to_text(omit_final_dot=True)) if target is not None else str(rdata)


def _records(answer: QueryMessage | None) -> tuple[str, ...]:
    """The answer section, a line a record, as people read it."""
    if answer is None:
        return ()
    return tuple(
        f"{rrset.name.to_text(omit_final_dot=True)} {rrset.ttl} {rrset.rdtype.name} {_text(rdata)}"
        for rrset in answer.answer
        for rdata in rrset
    )
