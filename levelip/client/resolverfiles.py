"""What name resolution reads: hosts(5), resolv.conf(5), and what the stack's configuration says stronger than that.

A name server on the host's loopback (systemd-resolved's 127.0.0.53) would be the stack's own loopback: it is left out,
and if nothing else is named, the list that systemd-resolved itself asks is taken.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MAX_SERVERS = 3
"""MAXNS of resolv.conf(5)."""
RESOLV_CONF = Path("/etc/resolv.conf")
UPLINK = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved lists the servers that it asks (systemd-resolved.service(8))."""
_OPTION = re.compile(r"(ndots|timeout|attempts):(\d{1,3})")
_NUMBERS = {"ndots": ("ndots", 0, 15), "timeout": ("timeout_s", 1, 30), "attempts": ("attempts", 1, 5)}
"""Field, least and most. RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY of glibc's resolv.h: more counts as the most."""


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """How names are asked for. `servers_from` names where the servers come from, for people."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: int = 5
    attempts: int = 2
    rotate: bool = False
    use_vc: bool = False  # always TCP
    no_aaaa: bool = False
    servers_from: str = ""

    def with_options(self, words: Iterable[str]) -> ResolverConfig:
        """Changed by options as in resolv.conf; unknown ones are ignored, as they are there."""
        changes: dict[str, Any] = {}
        for word in words:
            if numbered := _OPTION.fullmatch(word):
                field, low, high = _NUMBERS[numbered[1]]
                changes[field] = max(low, min(int(numbered[2]), high))
            elif word in ("rotate", "use-vc", "no-aaaa"):
                changes[word.replace("-", "_")] = True
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Host:
    """One line of hosts(5)."""

    address: str
    family: int
    names: tuple[str, ...]  # the first is the canonical one


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files are."""

    hosts: Path = Path("/etc/hosts")
    resolv_conf: Path = RESOLV_CONF
    uplink: Path = UPLINK

    def read_hosts(self) -> list[Host]:
        """All lines that name an address; a file that is not there is empty."""
        found = []
        for line in _lines(self.hosts):
            words = line.split("#")[0].split()
            if len(words) > 1 and (parsed := _address(words[0])):
                family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
                found.append(Host(str(parsed), family, tuple(words[1:])))
        return found

    def config(self, told: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> ResolverConfig:
        """resolv.conf, then what the stack's configuration says (`told`: servers, search, options), then the
        program's own environment (LOCALDOMAIN, RES_OPTIONS): the later is stronger."""
        lines = _lines(self.resolv_conf)
        named = [line for line in lines if line.split()[0] in ("search", "domain")]
        search = environ.get("LOCALDOMAIN", "").split() or told.get("search") or _words(named[-1:], "") or _own_domain()
        found = [
            ("gateway.dns_servers", list(told.get("servers", ()))),
            (str(self.resolv_conf), remote(_named(lines))),
            (str(self.uplink), remote(name_servers(self.uplink))),
        ]
        source, servers = next((one for one in found if one[1]), ("", []))
        config = ResolverConfig(
            servers=tuple(servers[:MAX_SERVERS]),
            servers_from=source,
            search=tuple(name.rstrip(".") for name in search if name.strip(".")),
        )
        words = [*_words(lines, "options"), *told.get("options", ()), *environ.get("RES_OPTIONS", "").split()]
        return config.with_options(words)


def _lines(path: Path) -> list[str]:
    """The lines that are no comments."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip() and line[0] not in ";#"]


def _words(lines: Iterable[str], keyword: str) -> list[str]:
    """What follows the keyword, of all lines that begin with it; without one, of all lines."""
    return [word for line in lines for word in line.split()[1:] if not keyword or line.split()[0] == keyword]


def name_servers(path: Path) -> list[str]:
    """The IPv4 name servers of a resolv.conf(5), in order: those that the stack can ask."""
    return _named(_lines(path))


def _named(lines: Iterable[str]) -> list[str]:
    rows = [line.split() for line in lines]
    parsed = [_address(row[1]) for row in rows if row[0] == "nameserver" and len(row) > 1]
    return [str(one) for one in parsed if one and one.version == 4]


def remote(servers: Iterable[str]) -> list[str]:
    """Those that are not on the host's own loopback."""
    return [text for text in servers if not ipaddress.IPv4Address(text).is_loopback]


def _address(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text.partition("%")[0])
    return None


def _own_domain() -> list[str]:
    """Of the host's name: what resolv.conf(5) takes where it has no search list."""
    domain = socket.gethostname().partition(".")[2]
    return [domain] if domain else []
