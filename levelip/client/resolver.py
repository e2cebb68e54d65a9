"""Names and addresses over the stack: getaddrinfo, gethostbyname and their family, as the standard library has them.

First the hosts file, then name servers, which are asked through the stack's own sockets. What needs no network (numeric
addresses, service names, what arguments may be) the standard library's functions decide. The stack has no IPv6 yet:
IPv6 addresses are found, as glibc finds them on a host without IPv6, and sorted behind all others (RFC 6724 6, rule 1).
"""

from __future__ import annotations

import itertools
import os
import re
import socket as std
import sys
from collections.abc import Callable, Sequence
from typing import Any

from levelip.client.kernel import ORIGINAL
from levelip.client.resolverfiles import Files, Host, ResolverConfig

__all__ = ["getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo", "usable"]

_getaddrinfo, _getnameinfo = ORIGINAL["getaddrinfo"], ORIGINAL["getnameinfo"]  # the standard module may be patched
AF_INET, AF_INET6, AF_UNSPEC = std.AF_INET, std.AF_INET6, std.AF_UNSPEC
_GAI = {
    std.EAI_NONAME: "Name or service not known",
    std.EAI_AGAIN: "Temporary failure in name resolution",
    std.EAI_NODATA: "No address associated with hostname",
}
"""glibc's gai_strerror."""
HOST_NOT_FOUND, TRY_AGAIN, NO_RECOVERY, NO_DATA = 1, 2, 3, 4  # h_errno of netdb.h
_H = {
    HOST_NOT_FOUND: "Unknown host",
    TRY_AGAIN: "Host name lookup failure",
    NO_RECOVERY: "Unknown server error",
    NO_DATA: "No address associated with name",
}
"""glibc's hstrerror."""
_TO_GAI = {
    HOST_NOT_FOUND: std.EAI_NONAME, TRY_AGAIN: std.EAI_AGAIN, NO_RECOVERY: std.EAI_NONAME, NO_DATA: std.EAI_NODATA,
}  # fmt: skip
"""glibc's getaddrinfo never says EAI_FAIL (getaddrinfo.c gethosts)."""
NO_SERVER = "no name server (gateway.dns_servers, or nameserver in /etc/resolv.conf)"
_NO_IPV4 = (std.EAI_NONAME, std.EAI_NODATA, std.EAI_ADDRFAMILY)
_LOCALHOST = (("127.0.0.1", AF_INET), ("::1", AF_INET6))
_SCOPE_LINK, _SCOPE_GLOBAL = 2, 14  # RFC 6724 3.1, 3.2
_MAPPED = "::ffff:"  # before an IPv4 address that AI_V4MAPPED makes one of IPv6 (RFC 4291 2.5.5.2)
_HOST_NAME = re.compile(r"(?!-)(?=.*[^0-9.])[A-Za-z0-9_.-]+")
Address = tuple[str, int]  # as text, family


class NotFound(Exception):
    """A name or an address that nothing is known of; `h_errno` says why, `text` what people should know besides."""

    def __init__(self, h_errno: int, text: str = "") -> None:
        super().__init__(h_errno, text)
        self.h_errno = h_errno
        self.text = text

    def gai(self) -> std.gaierror:
        """As getaddrinfo raises it."""
        return _gai(_TO_GAI[self.h_errno], self.text)

    def herror(self) -> std.herror:
        """As gethostbyaddr raises it."""
        return std.herror(self.h_errno, _H[self.h_errno] + (f": {self.text}" if self.text else ""))


class Named:
    """What is known of a name: its canonical form, other names, addresses in the order in which they were found."""

    def __init__(self, canonical: str, aliases: list[str], addresses: list[Address]) -> None:
        self.canonical = canonical
        self.aliases = aliases
        self.addresses = addresses


class Resolver:
    """The functions of this module are methods of one of these. `told` asks the stack what it has configured, `network`
    makes what servers are reached by, `listen` hears of each Exchange: tests and `lvlip resolve` have their own."""

    def __init__(
        self, *, files: Files | None = None, told: Callable[[], dict[str, Any]] | None = None,
        network: Callable[[], Any] | None = None, listen: Callable[[Any], None] | None = None,
    ) -> None:  # fmt: skip
        self.files = files or Files()
        self._told = told or _ask_helper
        self._network = network or _stack_network
        self._listen = listen
        self._turn = itertools.count()  # of the servers, where they take turns

    def config(self) -> ResolverConfig:
        """How names are asked for, as of now. OSError without a stack."""
        return self.files.config(self._told(), os.environ)

    # -- by name

    def getaddrinfo(
        self, host: str | bytes | None, port: str | bytes | int | None, family: int = 0, type: int = 0, proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:  # fmt: skip
        """(family, type, proto, canonname, sockaddr) for each address and kind of socket. gaierror."""
        if flags & std.AI_ADDRCONFIG:  # the host's own addresses say nothing of the stack's
            flags &= ~std.AI_ADDRCONFIG
            if family == AF_INET6:
                raise _gai(std.EAI_NONAME)
            family = AF_INET if family == AF_UNSPEC else family
        name = _name(host)
        if name is None:
            rows = _getaddrinfo(None, port, family, type, proto, flags)
            return sorted(rows, key=lambda row: row[0] != AF_INET)  # what can be used first
        if flags & std.AI_NUMERICHOST or is_numeric(name):
            found: list[Any] = _getaddrinfo(_raw(name), port, family, type, proto, flags | std.AI_NUMERICHOST)
            return found
        # what the other arguments say comes first, with an address that is surely fine
        sample = AF_INET if family in (AF_UNSPEC, AF_INET, AF_INET6) else family
        _getaddrinfo("127.0.0.1", port, sample, type, proto, flags | std.AI_NUMERICHOST)
        mapped = family == AF_INET6 and flags & std.AI_V4MAPPED
        try:
            named = self._named(name, family, mapped=bool(mapped), everything=bool(flags & std.AI_ALL))
        except NotFound as lost:
            raise lost.gai() from None
        rows = []
        numeric = std.AI_NUMERICHOST | flags & std.AI_NUMERICSERV
        for address, kind in self._sorted(named.addresses):
            rows += _getaddrinfo(address, port, kind, type, proto, numeric)
        if flags & std.AI_CANONNAME and rows:
            rows[0] = (*rows[0][:3], named.canonical, rows[0][4])
        return rows

    def usable(
        self, host: str | bytes | None, port: str | bytes | int | None, family: int = 0, type: int = 0, proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:  # fmt: skip
        """As getaddrinfo; but where no family is asked for, IPv4 alone if there is any, as the stack has no other:
        servers are asked for AAAA only if there is none."""
        sys.audit("socket.getaddrinfo", host, port, family, type, proto)
        if not family:
            try:
                return self.getaddrinfo(host, port, AF_INET, type, proto, flags)
            except std.gaierror as error:
                if flags & std.AI_ADDRCONFIG or error.errno not in _NO_IPV4:
                    raise
            family = AF_INET6
        return self.getaddrinfo(host, port, family, type, proto, flags)

    def gethostbyname(self, name: str | bytes) -> str:
        """An IPv4 address of the name, as text. gaierror."""
        sys.audit("socket.gethostbyname", name)
        return str(self._set_address(name, AF_INET)[0])

    def gethostbyname_ex(self, name: str | bytes) -> tuple[str, list[str], list[str]]:
        """(canonical name, aliases, IPv4 addresses). gaierror, herror."""
        sys.audit("socket.gethostbyname", name)
        text = _text_of(name)
        if text in ("", "<broadcast>"):
            raise NotFound(NO_RECOVERY).herror()
        if is_numeric(text):
            return text, [], [self._set_address(text, AF_INET)[0]]
        try:
            named = self._named(text, AF_INET)
        except NotFound as lost:
            raise lost.gai() from None
        return named.canonical, named.aliases, [address for address, _ in named.addresses]

    def _set_address(self, name: str | bytes, family: int) -> tuple[str, int]:
        """One address for what gethostbyname and its like take: "" is any, "<broadcast>" the broadcast address."""
        text = _text_of(name)
        if text == "":
            if family == AF_UNSPEC:
                raise OSError("wildcard resolved to multiple address")
            return "0.0.0.0", AF_INET
        if text == "<broadcast>":
            if family not in (AF_INET, AF_UNSPEC):
                raise OSError("address family mismatched")
            return "255.255.255.255", AF_INET
        found = self.getaddrinfo(text, None, family, std.SOCK_STREAM)[0]
        return found[4][0], found[0]

    # -- by address

    def gethostbyaddr(self, address: str | bytes) -> tuple[str, list[str], list[str]]:
        """(name, aliases, [address]) of an address, or of the address of a name. gaierror, herror."""
        sys.audit("socket.gethostbyaddr", address)
        text, family = self._set_address(address, AF_UNSPEC)
        try:
            name, aliases = self._names_of(text, family)
        except NotFound as lost:
            raise lost.herror() from None
        return name, aliases, [text]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """(host, service) of an address. gaierror."""
        host, service = _getnameinfo(sockaddr, flags & ~std.NI_NAMEREQD | std.NI_NUMERICHOST)
        if not flags & std.NI_NUMERICHOST:
            bare = host.partition("%")[0]
            try:
                name, _ = self._names_of(bare, AF_INET6 if ":" in bare else AF_INET)
            except NotFound as lost:
                if lost.h_errno == TRY_AGAIN:
                    raise lost.gai() from None
            else:
                return self._without_domain(name) if flags & std.NI_NOFQDN else name, service
        if flags & std.NI_NAMEREQD:
            raise _gai(std.EAI_NONAME)
        return host, service

    def _without_domain(self, name: str) -> str:
        for domain in self.config().search[:1]:
            return name.removesuffix(f".{domain}")
        return name

    # -- sources

    def _named(self, name: str, family: int, *, mapped: bool = False, everything: bool = False) -> Named:
        """From the hosts file, else from name servers. NotFound."""
        families = (AF_INET, AF_INET6) if family == AF_UNSPEC or mapped else (family,)
        named = self._from_hosts(name, families) or _special(name, families) or self._from_servers(name, families)
        if mapped:
            six = [one for one in named.addresses if one[1] == AF_INET6]
            four: list[Address] = [(f"{_MAPPED}{text}", AF_INET6) for text, kind in named.addresses if kind == AF_INET]
            named.addresses = six + four if everything or not six else six
        return named

    def _from_hosts(self, name: str, families: Sequence[int]) -> Named | None:
        """All lines with that name, as with `multi on` in host.conf(5)."""
        wanted = name.rstrip(".").lower()
        lines = [line for line in self._hosts() if wanted in map(str.lower, line.names) and line.family in families]
        if not lines:
            return None
        canonical, *aliases = lines[0].names
        for line in lines[1:]:  # as glibc puts them (nss_files): the line's aliases, then its first name if it differs
            aliases += [*line.names[1:], *([line.names[0]] if line.names[0] != canonical else [])]
        return Named(canonical, aliases, [(line.address, line.family) for line in lines])

    def _hosts(self) -> list[Host]:
        return self.files.read_hosts()

    def _from_servers(self, name: str, families: Sequence[int]) -> Named:
        from dns.rdatatype import RdataType

        if not _is_host_name(name):
            raise NotFound(HOST_NOT_FOUND)
        config = self.config()
        wanted = [RdataType.A if family == AF_INET else RdataType.AAAA for family in families]
        if config.no_aaaa:
            wanted = [rdtype for rdtype in wanted if rdtype != RdataType.AAAA]
        if not wanted:
            raise NotFound(NO_DATA)
        found = self._asked(config, lambda stub: stub.search(name, wanted))
        addresses: list[Address] = [
            (text, AF_INET if rdtype == RdataType.A else AF_INET6) for rdtype, text in found.records
        ]
        return Named(found.canonical, found.aliases, addresses)

    def _names_of(self, address: str, family: int) -> tuple[str, list[str]]:
        """The names of an address: from the hosts file, else its PTR records. NotFound."""
        for line in self._hosts():
            if line.family == family and line.address == address:
                return line.names[0], list(line.names[1:])
        from dns.rdatatype import RdataType
        from dns.reversename import from_address

        reverse = from_address(address).to_text(omit_final_dot=True)
        found = self._asked(self.config(), lambda stub: stub.look_up(reverse, [RdataType.PTR]))
        names = [text for _, text in found.records if _is_host_name(text)]
        if not names:
            raise NotFound(HOST_NOT_FOUND)
        return names[0], []  # glibc: several are no aliases of each other

    def _asked(self, config: ResolverConfig, ask: Callable[[Any], Any]) -> Any:
        from levelip.client.resolverstub import LookupFailed, Stub

        if not config.servers:
            raise NotFound(TRY_AGAIN, NO_SERVER)
        first = next(self._turn) if config.rotate else 0
        try:
            return ask(Stub(config, self._network(), first=first, listen=self._listen))
        except LookupFailed as lost:
            raise NotFound(lost.why.value) from None

    # -- order

    def _sorted(self, addresses: list[Address]) -> list[Address]:
        """RFC 6724 6, as far as it can tell IPv4 addresses apart: what can be reached first (rule 1), then what lies in
        the scope of our own address (rule 2), then the smaller scope (rule 8); else as the servers said (rule 10)."""
        if len(addresses) < 2:
            return addresses
        network = self._network()

        def rank(one: Address) -> tuple[bool, bool, int]:
            text, family = one[0].removeprefix(_MAPPED), one[1]
            source = network.source(text) if family == AF_INET or text != one[0] else None
            if source is None:
                return True, True, _SCOPE_GLOBAL
            scope = _scope(std.inet_aton(text))
            return False, scope != _scope(source), scope

        return sorted(addresses, key=rank)


def _scope(address: bytes) -> int:
    """RFC 6724 3.2: loopback and 169.254/16 are of the link, all other IPv4 addresses global."""
    return _SCOPE_LINK if address[0] == 127 or address[:2] == b"\xa9\xfe" else _SCOPE_GLOBAL


def _special(name: str, families: Sequence[int]) -> Named | None:
    """RFC 6761 6.3: localhost and what lies below it is this host, and no server is asked."""
    bare = name.rstrip(".").lower()
    if bare != "localhost" and not bare.endswith(".localhost"):
        return None
    return Named(bare, [], [one for one in _LOCALHOST if one[1] in families])


def is_numeric(name: str) -> bool:
    """Whether it is an address, in any of the forms of inet_aton(3) and inet_pton(3)."""
    try:
        _getaddrinfo(_raw(name), None, 0, std.SOCK_STREAM, 0, std.AI_NUMERICHOST)
    except std.gaierror:
        return False
    return True


def _is_host_name(name: str) -> bool:
    """Whether servers are asked for it, and believed: letters, digits, hyphens, underscores and dots (glibc res_hnok),
    and more than digits and dots (__nss_hostname_digits_dots)."""
    return _HOST_NAME.fullmatch(name) is not None


def _name(host: str | bytes | bytearray | None) -> str | None:
    """As text that DNS takes: what is not ASCII as IDNA has it (RFC 3490), as the standard library does."""
    if host is None:
        return None
    if isinstance(host, str):
        return host.encode("idna").decode("ascii") if host else host
    if isinstance(host, bytes | bytearray):
        return bytes(host).decode("ascii", "surrogateescape")
    raise TypeError("getaddrinfo() argument 1 must be string or None")


def _text_of(host: str | bytes | bytearray | None) -> str:
    """As _name; TypeError for None, which means nothing here."""
    text = _name(host)
    if text is None:
        raise TypeError("argument 1 must be str, bytes or bytearray, not None")
    return text


def _raw(name: str) -> bytes:
    """As bytes, which the standard library does not encode once more."""
    return name.encode("ascii", "surrogateescape")


def _gai(code: int, text: str = "") -> std.gaierror:
    return std.gaierror(code, _GAI[code] + (f": {text}" if text else ""))


def _ask_helper() -> dict[str, Any]:
    """What the stack has configured (docs/rpc.md, `resolver`)."""
    from levelip.client.program import PROGRAM

    return PROGRAM.call("resolver", 0)[0]


def _stack_network() -> Any:
    from levelip.client.resolvernetwork import StackNetwork

    return StackNetwork()


_RESOLVER = Resolver()
getaddrinfo = _RESOLVER.getaddrinfo
usable = _RESOLVER.usable
gethostbyname = _RESOLVER.gethostbyname
gethostbyname_ex = _RESOLVER.gethostbyname_ex
gethostbyaddr = _RESOLVER.gethostbyaddr
getnameinfo = _RESOLVER.getnameinfo
