"""Name resolution over the stack: which servers are asked for what, and what the standard library's functions say."""

from __future__ import annotations

import socket as std
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.message import QueryMessage
from hypothesis import given
from hypothesis import strategies as st

from levelip.client import kernel
from levelip.client.resolver import Resolver, is_numeric
from levelip.client.resolverfiles import Files
from levelip.client.resolverstub import EDNS_PAYLOAD, Exchange, Failure, LookupFailed, Stub
from tests.nameservers import Answer, Records, World, refusing, silent, zone

A, B, C = "192.0.2.53", "192.0.2.54", "192.0.2.55"
ORG: Records = {
    "www.example.org A": ["198.51.100.1", "198.51.100.2"],
    "www.example.org AAAA": ["2001:db8::1"],
    "alias.example.org CNAME": ["other.example.org."],
    "other.example.org CNAME": ["www.example.org."],
    "circle.example.org CNAME": ["circle.example.org."],
    "mail.example.org MX": ["10 www.example.org."],
    "four.example.org A": ["198.51.100.4"],
    "1.100.51.198.in-addr.arpa PTR": ["www.example.org.", "web.example.org."],
    "2.100.51.198.in-addr.arpa CNAME": ["2.0-25.100.51.198.in-addr.arpa."],
    "2.0-25.100.51.198.in-addr.arpa PTR": ["two.example.org."],
}
HOSTS = """\
127.0.0.1 localhost
198.51.100.9  Printer.example.org printer  # in the cellar
198.51.100.10 printer
2001:db8::9   printer
"""
WORDS = "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch example.org example.net\n"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Resolver, World]]:
    """Makes a resolver and its world: servers by address, files, what the stack has configured."""
    for name in ("LOCALDOMAIN", "RES_OPTIONS"):
        monkeypatch.delenv(name, raising=False)

    def made(
        servers: dict[str, Answer] | None = None, *, conf: str = WORDS, hosts: str = HOSTS, uplink: str = "",
        told: dict[str, list[str]] | None = None, sources: dict[str, str | None] | None = None, listen: Any = None,
    ) -> tuple[Resolver, World]:  # fmt: skip
        paths = {"hosts": hosts, "resolv_conf": conf, "uplink": uplink}
        for name, text in paths.items():
            (tmp_path / name).write_text(text)
        world = World(servers if servers is not None else {A: zone(ORG), B: zone(ORG)}, sources)
        files = Files(**{name: tmp_path / name for name in paths})
        return Resolver(files=files, told=lambda: told or {}, network=lambda: world, listen=listen), world

    return made


Make = Callable[..., tuple[Resolver, World]]


def addresses(rows: list[Any]) -> list[str]:
    return list(dict.fromkeys(row[4][0] for row in rows))


def error(call: Callable[..., Any], *args: Any, **more: Any) -> int:
    with pytest.raises((std.gaierror, std.herror)) as caught:
        call(*args, **more)
    return int(caught.value.errno or 0)


# -- what needs no network: as the standard library


@pytest.mark.parametrize(
    ("args", "more"),
    [
        (("127.0.0.1", 80), {}),
        (("127.1", "http"), {}),
        (("0x7f.1", None), {"type": std.SOCK_STREAM}),
        (("::1", 80), {"proto": std.IPPROTO_UDP}),
        (("::1", 80), {"family": std.AF_INET}),
        (("10.0.0.1", 80), {"family": std.AF_INET6}),
        (("10.0.0.1", 80), {"family": std.AF_INET6, "flags": std.AI_V4MAPPED}),
        (("10.0.0.1", "nope"), {}),
        (("10.0.0.1", "http"), {"flags": std.AI_NUMERICSERV}),
        (("10.0.0.1", 70000), {}),
        (("10.0.0.1", "domain"), {"type": std.SOCK_DGRAM}),
        (("10.0.0.1", 80), {"type": std.SOCK_RAW}),
        (("10.0.0.1", 80), {"type": 77}),
        (("10.0.0.1", 80), {"family": 77}),
        (("10.0.0.1", 80), {"flags": 1 << 20}),
        (("10.0.0.1", 80), {"flags": std.AI_CANONNAME}),
        (("www.example.org", 80), {"flags": std.AI_NUMERICHOST}),
        (("www.example.org", "nope"), {}),
        (("www.example.org", 80), {"type": 77}),
        (("www.example.org", 80), {"family": 77}),
        ((None, None), {}),
        ((None, 80), {"flags": std.AI_CANONNAME}),
        ((None, 80), {"flags": std.AI_PASSIVE, "type": std.SOCK_STREAM}),
        ((None, 80), {"type": std.SOCK_STREAM}),
    ],
)
def test_what_needs_no_network_is_as_in_the_standard_library(make: Make, args: Any, more: Any) -> None:
    """Numeric hosts, services, arguments that cannot be: the same answers and errors as of std.getaddrinfo, and nobody
    is asked."""
    resolver, world = make()

    def outcome(function: Any) -> Any:
        try:
            return sorted(function(*args, **more), key=repr)
        except std.gaierror as failure:
            return failure.errno

    assert outcome(resolver.getaddrinfo) == outcome(std.getaddrinfo)
    assert world.asked == []


@given(st.text("0123456789abcdefx.:%", max_size=18))
def test_numeric_is_what_the_standard_library_takes_for_an_address(text: str) -> None:
    """is_numeric() says of a text what inet_aton and inet_pton say."""
    found = text != "" and not text.isspace()
    try:
        std.inet_aton(text)
    except OSError:
        try:
            std.inet_pton(std.AF_INET6, text.partition("%")[0])
        except OSError:
            found = False
    if "%" not in text:
        assert is_numeric(text) is found


def test_without_ipv6_the_usable_address_is_first(make: Make) -> None:
    """No host: the wildcard or loopback address of IPv4 before that of IPv6, which no socket of the stack can have."""
    resolver, _ = make()
    for flags in (0, std.AI_PASSIVE):
        assert resolver.getaddrinfo(None, 80, type=std.SOCK_STREAM, flags=flags)[0][0] == std.AF_INET


@pytest.mark.parametrize("argument", [3, 1.5, ["x"]])
def test_what_is_no_host(make: Make, argument: Any) -> None:
    """TypeError, as the standard library."""
    with pytest.raises(TypeError):
        make()[0].getaddrinfo(argument, 80)


# -- by name


def test_addresses_of_both_families(make: Make) -> None:
    """A and AAAA are asked of the first server on one socket; IPv6 comes last, as the stack has none; each address
    once for each kind of socket, in glibc's order; the canonical name only where it is asked for, in the first row."""
    resolver, world = make()
    rows = resolver.getaddrinfo("www.example.org", "http", flags=std.AI_CANONNAME)
    assert addresses(rows) == ["198.51.100.1", "198.51.100.2", "2001:db8::1"]
    assert [(row[0], row[1], row[3]) for row in rows[:2]] == [
        (std.AF_INET, std.SOCK_STREAM, "www.example.org"), (std.AF_INET, std.SOCK_STREAM, ""),
    ]  # fmt: skip
    assert rows[0][4] == ("198.51.100.1", 80) and rows[-1][4] == ("2001:db8::1", 80, 0, 0)
    assert world.asked == [(A, "udp", "www.example.org", "A"), (A, "udp", "www.example.org", "AAAA")]


def test_families_and_flags(make: Make) -> None:
    """AF_INET asks for A alone; so does AI_ADDRCONFIG, as the stack has no IPv6 address; AI_V4MAPPED makes IPv6 of IPv4
    where there is no other, with AI_ALL also beside others."""
    resolver, world = make()
    find = lambda *args, **more: addresses(resolver.getaddrinfo(*args, type=std.SOCK_STREAM, **more))  # noqa: E731
    assert find("www.example.org", 80, family=std.AF_INET) == ["198.51.100.1", "198.51.100.2"]
    assert find("www.example.org", 80, flags=std.AI_ADDRCONFIG) == ["198.51.100.1", "198.51.100.2"]
    assert {one[3] for one in world.asked} == {"A"}
    assert find("www.example.org", 80, family=std.AF_INET6) == ["2001:db8::1"]
    mapped = {"family": std.AF_INET6, "flags": std.AI_V4MAPPED}
    assert find("four.example.org", 80, **mapped) == ["::ffff:198.51.100.4"]
    assert find("www.example.org", 80, **mapped) == ["2001:db8::1"]
    mapped["flags"] |= std.AI_ALL
    assert find("www.example.org", 80, **mapped) == ["::ffff:198.51.100.1", "::ffff:198.51.100.2", "2001:db8::1"]
    assert error(resolver.getaddrinfo, "four.example.org", 80, family=std.AF_INET6) == std.EAI_NODATA
    assert error(resolver.getaddrinfo, "www.example.org", 80, std.AF_INET6, 0, 0, std.AI_ADDRCONFIG) == std.EAI_NONAME


def test_nobody_is_asked_for_what_the_stack_cannot_use(make: Make) -> None:
    """usable(), which programs call as getaddrinfo: AAAA is asked for only where there is no A, or on request."""
    records = {**ORG, "six.example.org AAAA": ["2001:db8::6"]}
    resolver, world = make({A: zone(records)})
    question = (A, "udp", "www.example.org")
    assert addresses(resolver.usable("www.example.org", 80)) == ["198.51.100.1", "198.51.100.2"]
    assert world.asked == [(*question, "A")]
    assert addresses(resolver.usable("www.example.org.", 80, std.AF_INET6)) == ["2001:db8::1"]
    assert world.asked[1:] == [(*question, "AAAA")]
    assert addresses(resolver.usable("six.example.org", 80)) == ["2001:db8::6"]
    assert addresses(resolver.usable("::1", 80)) == ["::1"]
    assert addresses(resolver.usable(None, 80)) == ["127.0.0.1"]
    assert error(resolver.usable, "six.example.org", 80, flags=std.AI_ADDRCONFIG) == std.EAI_NODATA
    assert error(resolver.usable, "nowhere.example.org.", 80) == std.EAI_NONAME
    assert error(resolver.usable, "www.example.org", "nope") == std.EAI_SERVICE


def test_a_chain_of_cnames(make: Make) -> None:
    """The canonical name is the end of the chain; what led there are aliases. A circle is no answer (EAI_NODATA)."""
    resolver, _ = make()
    rows = resolver.getaddrinfo("alias.example.org", 80, flags=std.AI_CANONNAME)
    assert rows[0][3] == "www.example.org"
    assert resolver.gethostbyname_ex("alias.example.org") == (
        "www.example.org", ["alias.example.org", "other.example.org"], ["198.51.100.1", "198.51.100.2"],
    )  # fmt: skip
    circle = zone({"a.example.org A": ["198.51.100.1"]})

    def endless(query: QueryMessage, transport: str) -> Any:
        ((delay, wire),) = circle(query, transport)
        reply = dns.message.from_wire(wire)
        reply.set_rcode(dns.rcode.NOERROR)
        for n in range(20):
            name = "loop.example.org." if n == 0 else f"{n}.example.org."
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", f"{n + 1}.example.org."))
        return [(delay, reply.to_wire())]

    resolver, _ = make({A: endless, B: endless})
    assert error(resolver.gethostbyname, "loop.example.org") == std.EAI_NODATA


def test_negative_answers(make: Make) -> None:
    """No such name: EAI_NONAME. The name, but no address: EAI_NODATA. The servers fail: EAI_AGAIN."""
    resolver, world = make()
    assert error(resolver.getaddrinfo, "nobody.example.com", 80) == std.EAI_NONAME
    assert error(resolver.gethostbyname_ex, "nobody.example.com") == std.EAI_NONAME
    assert error(resolver.getaddrinfo, "mail.example.org", 80) == std.EAI_NODATA
    resolver, world = make({A: zone({}, rcode=dns.rcode.SERVFAIL), B: zone({}, rcode=dns.rcode.REFUSED)})
    assert error(resolver.getaddrinfo, "www.example.org.", 80) == std.EAI_AGAIN
    assert [one[0] for one in world.asked if one[3] == "A"] == [A, B, A, B]
    resolver, _ = make({A: zone({}, rcode=dns.rcode.FORMERR), B: silent})
    assert error(resolver.gethostbyname, "www.example.org.") == std.EAI_NONAME  # as glibc: never EAI_FAIL


@pytest.mark.parametrize("name", ["", "1.2.3.256", "1.2.3.4.5", "127.0.0.1 x", "a\nb", "a/b", "-a", "*.org", "\xe4"])
def test_names_that_are_none(make: Make, name: str) -> None:
    """EAI_NONAME, as glibc says of what can be no host's name, and nobody is asked."""
    resolver, world = make()
    assert error(resolver.getaddrinfo, name.encode("latin-1"), 80) == std.EAI_NONAME
    assert world.asked == []


def test_what_a_server_says_that_is_no_name(make: Make) -> None:
    """A PTR record with a blank, a slash or a line's end in it is passed over: programs print what they are told."""
    bad = ["a\\032b.example.org.", "a\\010.example.org.", "a/b.example.org."]
    where = "7.100.51.198.in-addr.arpa PTR"
    resolver, _ = make({A: zone({where: [*bad, "good.example.org."]}), B: silent})
    assert resolver.gethostbyaddr("198.51.100.7")[0] == "good.example.org"
    resolver, _ = make({A: zone({where: bad}), B: silent})
    with pytest.raises(std.herror):
        resolver.gethostbyaddr("198.51.100.7")
    assert resolver.getnameinfo(("198.51.100.7", 80), 0) == ("198.51.100.7", "http")


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example.org", ".".join(["abcdefgh"] * 40)])
def test_names_that_cannot_be(make: Make, name: str) -> None:
    """Empty and long labels and long names: UnicodeError where IDNA refuses text, else EAI_NONAME; nobody is asked."""
    resolver, world = make(conf="nameserver 192.0.2.53\n")
    assert error(resolver.getaddrinfo, name.encode(), 80) == std.EAI_NONAME
    assert world.asked == []


def test_a_name_in_unicode_is_asked_for_in_ascii(make: Make) -> None:
    """IDNA, as in the standard library."""
    resolver, _ = make({A: zone({"xn--bcher-kva.example.org A": ["198.51.100.7"]}), B: silent})
    assert resolver.gethostbyname("bücher.example.org") == "198.51.100.7"


# -- search list and ndots


def test_the_search_list(make: Make) -> None:
    """A name with fewer dots than ndots is tried in the domains first, then as it is; one with as many the other way
    round; one with a dot at its end as it is only."""
    resolver, world = make()
    assert resolver.gethostbyname("www") == "198.51.100.1"
    assert [one[2] for one in world.asked] == ["www.example.org"]
    world.asked.clear()
    assert error(resolver.gethostbyname, "nobody") == std.EAI_NONAME
    assert [one[2] for one in world.asked] == ["nobody.example.org", "nobody.example.net", "nobody"]
    world.asked.clear()
    assert error(resolver.gethostbyname, "no.body") == std.EAI_NONAME
    assert [one[2] for one in world.asked] == ["no.body", "no.body.example.org", "no.body.example.net"]
    world.asked.clear()
    assert error(resolver.gethostbyname, "www.") == std.EAI_NONAME
    assert [one[2] for one in world.asked] == ["www"]
    resolver, world = make(conf=WORDS + "options ndots:2\n")
    assert error(resolver.gethostbyname, "no.body") == std.EAI_NONAME
    assert [one[2] for one in world.asked] == ["no.body.example.org", "no.body.example.net", "no.body"]


def test_the_most_telling_of_several_failures(make: Make) -> None:
    """A name that is there without an address in one domain is EAI_NODATA, though others do not know it; of a name that
    was tried as it is first, that answer stands."""
    resolver, _ = make({A: zone({"a.example.org MX": ["1 www.example.org."]}), B: silent})
    assert error(resolver.gethostbyname, "a") == std.EAI_NODATA
    resolver, _ = make({A: zone({"a.b.example.org MX": ["1 www.example.org."]}), B: silent})
    assert error(resolver.gethostbyname, "a.b") == std.EAI_NONAME


def test_where_nobody_answers_further_domains_are_not_tried(make: Make) -> None:
    """But the name as it is (glibc res_query.c); where a server says SERVFAIL they are."""
    resolver, world = make({A: silent, B: silent})
    assert error(resolver.gethostbyname, "www") == std.EAI_AGAIN
    assert list(dict.fromkeys(one[2] for one in world.asked)) == ["www.example.org", "www"]
    failing = zone({}, rcode=dns.rcode.SERVFAIL)
    resolver, world = make({A: failing, B: failing})
    assert error(resolver.gethostbyname, "www") == std.EAI_AGAIN
    assert list(dict.fromkeys(one[2] for one in world.asked)) == ["www.example.org", "www.example.net", "www"]


# -- servers


def test_a_server_that_is_silent_is_passed_over_after_its_timeout(make: Make) -> None:
    """5 s, then the next one (resolv.conf(5) timeout)."""
    resolver, world = make({A: silent, B: zone(ORG)})
    began = world.time
    assert resolver.gethostbyname("www.example.org") == "198.51.100.1"
    assert world.time == pytest.approx(began + 5.01)
    assert [one[0] for one in world.asked] == [A, B]


def test_attempts_and_their_times(make: Make) -> None:
    """Each attempt asks all; the time doubles, and from the second on the servers share it (glibc res_send.c)."""
    resolver, world = make({A: silent, B: silent}, conf=WORDS + "options timeout:3 attempts:3\n")
    began = world.time
    assert error(resolver.gethostbyname, "www.example.org.") == std.EAI_AGAIN
    assert [one[0] for one in world.asked] == [A, B] * 3
    assert world.time - began == pytest.approx(2 * 3 + 2 * (6 // 2) + 2 * (12 // 2))


def test_a_server_that_is_not_there_costs_no_time(make: Make) -> None:
    """ICMP port unreachable: the next one at once."""
    resolver, world = make({A: refusing, B: zone(ORG)})
    began = world.time
    assert resolver.gethostbyname("www.example.org") == "198.51.100.1"
    assert world.time - began < 0.1


def test_rotate(make: Make) -> None:
    """The servers take turns to be first."""
    resolver, world = make(conf=WORDS + "options rotate\n")
    for _ in range(4):
        resolver.gethostbyname("www.example.org")
    assert [one[0] for one in world.asked] == [A, B, A, B]


def test_a_server_that_only_refers_to_others_is_passed_over(make: Make) -> None:
    """No answer, no authority, no recursion: not one that can be used (glibc res_send.c)."""

    def lame(query: QueryMessage, _: str) -> Any:
        return [(0.01, dns.message.make_response(query, recursion_available=False).to_wire())]

    resolver, world = make({A: lame, B: zone(ORG)})
    assert resolver.gethostbyname("www.example.org") == "198.51.100.1"
    assert [one[0] for one in world.asked] == [A, B]


def test_one_type_answered_the_other_not(make: Make) -> None:
    """The addresses that there are count; the missing type is asked of the other servers."""
    whole = zone(ORG)

    def no_aaaa(query: QueryMessage, transport: str) -> Any:
        return [] if query.question[0].rdtype.name == "AAAA" else whole(query, transport)

    resolver, world = make({A: no_aaaa, B: no_aaaa})
    assert addresses(resolver.getaddrinfo("www.example.org", 80)) == ["198.51.100.1", "198.51.100.2"]
    assert [one[3] for one in world.asked].count("A") == 1 and [one[3] for one in world.asked].count("AAAA") == 4


# -- messages


def test_a_long_answer_comes_by_tcp(make: Make) -> None:
    """What UDP cuts is asked for again by TCP, of the same server; with use-vc nothing goes by UDP at all."""
    many = {"many.example.org A": [f"198.51.100.{n}" for n in range(200)]}
    resolver, world = make({A: zone(many), B: silent})
    assert len(resolver.gethostbyname_ex("many.example.org")[2]) == 200
    assert [one[:2] for one in world.asked] == [(A, "udp"), (A, "tcp")]
    resolver, world = make({A: zone(many), B: silent}, told={"options": ["use-vc"]})
    assert len(resolver.gethostbyname_ex("many.example.org")[2]) == 200
    assert [one[:2] for one in world.asked] == [(A, "tcp")]


def test_edns(make: Make) -> None:
    """We take 1232 bytes by UDP (RFC 6891), so that 1,000 come without TCP; a server that knows no EDNS says FORMERR
    and is asked again without."""
    some = {"some.example.org A": [f"198.51.100.{n}" for n in range(60)]}
    resolver, world = make({A: zone(some), B: silent})
    assert len(resolver.gethostbyname_ex("some.example.org")[2]) == 60
    assert [one[1] for one in world.asked] == ["udp"] and world.queries[0].payload == EDNS_PAYLOAD
    plain = zone(ORG)

    def old(query: QueryMessage, transport: str) -> Any:
        if query.edns < 0:
            return plain(query, transport)
        reply = dns.message.make_response(query)
        reply.use_edns(False)
        reply.set_rcode(dns.rcode.FORMERR)
        return [(0.01, reply.to_wire())]

    resolver, world = make({A: old, B: silent})
    assert resolver.gethostbyname("www.example.org") == "198.51.100.1"
    assert [query.edns for query in world.queries] == [0, -1]


@pytest.mark.parametrize("harm", ["number", "question", "cut", "noise", "query"])
def test_what_is_no_answer_to_the_question_is_ignored(make: Make, harm: str) -> None:
    """Another number, another question, garbage, a query: not taken, and the right answer still is (RFC 5452 9.1)."""
    right = zone({"www.example.org A": ["198.51.100.1"]}, delay=0.02)
    forged = zone({"www.example.org A": ["203.0.113.66"], "evil.example.org A": ["203.0.113.66"]})

    def spoofed(query: QueryMessage, transport: str) -> Any:
        if harm == "question":
            other = dns.message.make_query("evil.example.org", "A", id=query.id)
            ((_, wire),) = forged(other, transport)
        else:
            ((_, wire),) = forged(query, transport)
        wire = {
            "number": bytes([wire[0] ^ 1]) + wire[1:], "cut": wire[:20], "noise": b"\xff" * 40, "question": wire,
            "query": wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:],
        }[harm]  # fmt: skip
        return [(0.01, wire), *right(query, transport)]

    heard: list[Exchange] = []
    resolver, _ = make({A: spoofed, B: silent}, listen=heard.append)
    assert resolver.gethostbyname("www.example.org") == "198.51.100.1"
    assert [one.outcome for one in heard] == ["garbage", "NOERROR"]


@given(st.binary(max_size=80))
def test_no_answer_can_harm(data: bytes) -> None:
    """Whatever bytes a server sends: an answer, or none."""
    from levelip.client.resolverfiles import ResolverConfig

    def mad(query: QueryMessage, _: str) -> Any:
        return [(0.01, data), (0.02, query.to_wire()[:2] + data)]

    world = World({A: mad})
    try:
        Stub(ResolverConfig((A,), attempts=1), world).search("www.example.org", [dns.rdatatype.A])
    except LookupFailed as lost:
        assert lost.why in Failure


def test_numbers_and_ports_are_fresh(make: Make) -> None:
    """Each query has its own random number (RFC 5452 9.2); its port is the stack's to choose, a socket each."""
    resolver, world = make()
    for _ in range(20):
        resolver.gethostbyname("www.example.org")
    assert len({query.id for query in world.queries}) > 15


# -- configuration


def test_the_stacks_configuration_wins(make: Make) -> None:
    """Servers, domains and options of level-ip.toml go before resolv.conf's."""
    told = {"servers": [C], "search": ["example.org"], "options": ["ndots:3", "attempts:1"]}
    resolver, _ = make({C: zone(ORG)}, told=told, conf=WORDS + "options ndots:2 timeout:7\n")
    config = resolver.config()
    assert (config.servers, config.servers_from) == ((C,), "gateway.dns_servers")
    assert (config.search, config.ndots, config.attempts, config.timeout_s) == (("example.org",), 3, 1, 7)
    assert resolver.gethostbyname("www") == "198.51.100.1"


def test_a_resolver_on_the_hosts_loopback_is_left_out(make: Make) -> None:
    """127.0.0.53 is not the stack's: what systemd-resolved itself asks is, unless something else is named."""
    resolved = "nameserver 127.0.0.53\nnameserver ::1\noptions edns0 trust-ad\nsearch corp.example\n"
    resolver, _ = make(conf=resolved, uplink="nameserver 192.0.2.55\nnameserver 2001:db8::53\n")
    assert resolver.config().servers == (C,) and resolver.config().search == ("corp.example",)
    resolver, _ = make(conf=resolved + "nameserver 192.0.2.54\n", uplink="nameserver 192.0.2.55\n")
    assert resolver.config().servers == (B,)
    resolver, world = make(conf=resolved)
    with pytest.raises(std.gaierror, match="no name server") as caught:
        resolver.gethostbyname("www.example.org")
    assert caught.value.errno == std.EAI_AGAIN and world.asked == []


def test_resolv_conf(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, the last of search and domain, three servers at most, numbers within glibc's limits; the program's
    LOCALDOMAIN and RES_OPTIONS go before all."""
    conf = (
        "# a\n; b\ndomain old.example\nsearch a.example b.example.\noptions ndots:99 timeout:99 attempts:9 hop rotate\n"
    )
    conf += "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 6))
    config = make(conf=conf, told={"search": ["told.example"]})[0].config()
    assert config.servers == ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert (config.ndots, config.timeout_s, config.attempts, config.rotate) == (15, 30, 5, True)
    assert config.search == ("told.example",)
    assert make(conf=conf)[0].config().search == ("a.example", "b.example")
    monkeypatch.setenv("LOCALDOMAIN", "here.example there.example")
    monkeypatch.setenv("RES_OPTIONS", "ndots:4 no-aaaa")
    config = make(conf=conf, told={"search": ["told.example"], "options": ["ndots:3"]})[0].config()
    assert (config.search, config.ndots, config.no_aaaa) == (("here.example", "there.example"), 4, True)


def test_no_aaaa(make: Make) -> None:
    """Nobody is asked for IPv6 addresses."""
    resolver, world = make(told={"options": ["no-aaaa"]})
    assert addresses(resolver.getaddrinfo("www.example.org", 80)) == ["198.51.100.1", "198.51.100.2"]
    assert error(resolver.getaddrinfo, "www.example.org", 80, family=std.AF_INET6) == std.EAI_NODATA
    assert {one[3] for one in world.asked} == {"A"}


# -- files


def test_the_hosts_file_is_first(make: Make) -> None:
    """All of its lines with the name, in any case; the first one's first name is the canonical one; no server is asked.
    A family that it does not have is asked for."""
    resolver, world = make()
    rows = resolver.getaddrinfo("PRINTER", 80, type=std.SOCK_STREAM, flags=std.AI_CANONNAME)
    assert addresses(rows) == ["198.51.100.9", "198.51.100.10", "2001:db8::9"]
    assert rows[0][3] == "Printer.example.org"
    assert resolver.gethostbyname_ex("printer") == (
        "Printer.example.org", ["printer", "printer"], ["198.51.100.9", "198.51.100.10"],
    )  # fmt: skip
    assert world.asked == []
    assert error(resolver.getaddrinfo, "printer.example.org", 80, family=std.AF_INET6) == std.EAI_NONAME
    assert world.asked


def test_localhost_is_never_asked_for(make: Make) -> None:
    """RFC 6761 6.3: also below it, and without a line in the hosts file."""
    resolver, world = make(hosts="")
    assert addresses(resolver.getaddrinfo("localhost", 80)) == ["127.0.0.1", "::1"]
    assert resolver.gethostbyname("db.localhost.") == "127.0.0.1"
    assert world.asked == []


# -- by address


def test_names_of_an_address(make: Make) -> None:
    """PTR records, over CNAMEs (RFC 2317); the hosts file first; herror where nobody knows."""
    resolver, _ = make()
    assert resolver.gethostbyaddr("198.51.100.1") == ("www.example.org", [], ["198.51.100.1"])
    assert resolver.gethostbyaddr("198.51.100.2") == ("two.example.org", [], ["198.51.100.2"])
    assert resolver.gethostbyaddr("198.51.100.9") == ("Printer.example.org", ["printer"], ["198.51.100.9"])
    assert resolver.gethostbyaddr("www.example.org")[0] == "www.example.org"
    with pytest.raises(std.herror) as caught:
        resolver.gethostbyaddr("198.51.100.77")
    assert caught.value.args == (1, "Unknown host")
    resolver, _ = make({A: silent, B: silent})
    with pytest.raises(std.herror) as caught:
        resolver.gethostbyaddr("198.51.100.77")
    assert caught.value.args == (2, "Host name lookup failure")


def test_getnameinfo(make: Make) -> None:
    """Host and service; numbers where names are not wanted, or not known; NI_NAMEREQD insists; NI_NOFQDN leaves out our
    own domain."""
    resolver, world = make()
    there = ("198.51.100.1", 80)
    assert resolver.getnameinfo(there, 0) == ("www.example.org", "http")
    assert resolver.getnameinfo(there, std.NI_NOFQDN | std.NI_NUMERICSERV) == ("www", "80")
    assert resolver.getnameinfo(("198.51.100.77", 80), 0) == ("198.51.100.77", "http")
    assert error(resolver.getnameinfo, ("198.51.100.77", 80), std.NI_NAMEREQD) == std.EAI_NONAME
    world.asked.clear()
    assert resolver.getnameinfo(there, std.NI_NUMERICHOST) == ("198.51.100.1", "http")
    assert resolver.getnameinfo(("198.51.100.1", 514), std.NI_NUMERICHOST | std.NI_DGRAM)[1] == "syslog"
    assert world.asked == []
    assert error(resolver.getnameinfo, ("www.example.org", 80), 0) == std.EAI_NONAME
    with pytest.raises(TypeError):
        resolver.getnameinfo("198.51.100.1", 0)  # type: ignore[arg-type]
    resolver, _ = make({A: silent, B: silent})
    assert error(resolver.getnameinfo, there, 0) == std.EAI_AGAIN


def test_getfqdn(make: Make) -> None:
    """The first name with a dot; the name itself where nothing is known of it."""
    resolver, _ = make()
    getfqdn = kernel.rebound(kernel.ORIGINAL["getfqdn"], gethostbyaddr=resolver.gethostbyaddr)
    assert getfqdn("printer") == "Printer.example.org"
    assert getfqdn("198.51.100.1") == "www.example.org"
    assert getfqdn("nobody.example.com") == "nobody.example.com"


def test_names_that_mean_an_address(make: Make) -> None:
    """ "" and "<broadcast>", as in the standard library."""
    resolver, world = make()
    for name in ("", "<broadcast>", "127.1", "198.51.100.4"):
        assert resolver.gethostbyname(name) == std.gethostbyname(name)
    assert resolver.gethostbyname_ex("198.51.100.4") == ("198.51.100.4", [], ["198.51.100.4"])
    for name in ("", "<broadcast>"):
        for call in (resolver.gethostbyname_ex, std.gethostbyname_ex):
            with pytest.raises(std.herror) as caught:
                call(name)
            assert caught.value.args == (3, "Unknown server error")
    for call in (resolver.gethostbyname, resolver.gethostbyname_ex, resolver.gethostbyaddr):
        with pytest.raises(TypeError):
            call(None)
    with pytest.raises(OSError, match="wildcard resolved to multiple address"):
        resolver.gethostbyaddr("")
    assert world.asked == []


# -- order


def test_the_order_of_addresses(make: Make) -> None:
    """RFC 6724 6: what cannot be reached is last; then what lies in our own address's scope; then the smaller scope;
    else as the server said. One address alone is not looked at."""
    records = {"x.example.org A": ["203.0.113.1", "169.254.3.3", "198.51.100.1", "127.0.0.1", "198.51.100.2"]}
    sources: dict[str, str | None] = {
        "203.0.113.1": None, "169.254.3.3": "10.0.0.2", "198.51.100.1": "10.0.0.2", "127.0.0.1": "127.0.0.1",
    }  # fmt: skip
    resolver, _ = make({A: zone(records), B: silent}, sources=sources)
    found = addresses(resolver.getaddrinfo("x.example.org", 80, family=std.AF_INET))
    assert found == ["127.0.0.1", "198.51.100.1", "198.51.100.2", "169.254.3.3", "203.0.113.1"]


# -- what is told


def test_exchanges_are_told(make: Make) -> None:
    """What was asked, of whom, how long it took, and what came."""
    heard: list[Exchange] = []
    resolver, _ = make({A: silent, B: zone(ORG)}, listen=heard.append)
    resolver.gethostbyname("alias.example.org")
    assert [(one.server, one.transport, one.name, one.rdtype, one.outcome) for one in heard] == [
        (A, "udp", "alias.example.org", "A", "timeout"), (B, "udp", "alias.example.org", "A", "NOERROR"),
    ]  # fmt: skip
    assert heard[0].seconds == pytest.approx(5) and heard[1].seconds == pytest.approx(0.01)
    assert heard[1].records == (
        "alias.example.org 60 CNAME other.example.org", "other.example.org 60 CNAME www.example.org",
        "www.example.org 60 A 198.51.100.1", "www.example.org 60 A 198.51.100.2",
    )  # fmt: skip
