"""nftables rules for a stack's network: a table of our own, and doors in other tables that drop what is forwarded.

All through netlink (pyroute2), without the `nft` program. A batch of changes is all or nothing in the kernel, but
pyroute2 does not read its acknowledgement, so what was made is read back and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from levelip.ipc.rundir import RunError
from levelip.wire.addr import Prefix

# linux/netfilter.h, linux/netfilter/nf_tables.h
_FAMILIES = {2: "ip", 1: "inet"}
_HOOK_FORWARD = 2
_POLICY_DROP = 0
_POLICY_ACCEPT = 1
_VERDICT_ACCEPT = 1
_META_IIFNAME = 6
_META_OIFNAME = 7
_PAYLOAD_NETWORK_HEADER = 1
_REGISTER = 1
_EQUAL = 0
_SADDR_OFFSET = 12  # RFC 791 3.1
_PRIORITY_SRCNAT = 100  # linux/netfilter_ipv4.h NF_IP_PRI_NAT_SRC
_IFNAMSIZ = 16

Expression = dict[str, Any]


class FirewallError(RunError):
    """The packet filter cannot be changed; the text says what would help."""


class Chain(Struct, frozen=True, order=True):
    """A chain of somebody else's table."""

    family: int
    table: str
    name: str

    def __str__(self) -> str:
        return f"{_FAMILIES.get(self.family, self.family)} {self.table} {self.name}"


class Door(Struct, frozen=True):
    """An accept rule of ours in somebody else's chain, found again by its handle."""

    chain: Chain
    handle: int
    direction: str
    """"in": packets from the stack's device; "out": packets to it."""


def table_name(stack: str) -> str:
    """Our table's name for a stack."""
    return "level-ip" if stack == "level-ip" else f"level-ip-{stack}"


def set_table(name: str, device: str, network: Prefix, nat: str) -> None:
    """Make our table, or make it anew, in one step: forward from and to `device`, masquerade `network` out of `nat`.

    `nat` empty: no address translation. Raises FirewallError.
    """
    with _tables(2) as nft:
        nft.begin()
        nft.table("add", name=name)  # deleting what may not be there: add first
        nft.table("del", name=name)
        nft.table("add", name=name)
        nft.chain("add", table=name, name="forward", hook="forward", type="filter", policy=_POLICY_ACCEPT)
        for key in (_META_IIFNAME, _META_OIFNAME):
            nft.rule("add", table=name, chain="forward", expressions=(_interface(key, device), _accept()))
        if nat:
            nft.chain("add", table=name, name="postrouting", hook="postrouting", type="nat",
                      policy=_POLICY_ACCEPT, priority=_PRIORITY_SRCNAT)  # fmt: skip
            expressions = (_source(network), _interface(_META_OIFNAME, nat), _masquerade())
            nft.rule("add", table=name, chain="postrouting", expressions=expressions)
        nft.commit()
    if not has_table(name, nat=bool(nat)):
        raise FirewallError(
            f"the kernel did not take table {name}; it needs nf_tables, nft_masq and nft_chain_nat: "
            "modprobe -a nf_tables nft_masq nft_chain_nat"
        )


def has_table(name: str, *, nat: bool) -> bool:
    """Whether our table is there with all its rules."""
    with _tables(2) as nft:
        if name not in {table.get_attr("NFTA_TABLE_NAME") for table in nft.get_tables()}:
            return False
        rules = [
            rule.get_attr("NFTA_RULE_CHAIN") for rule in nft.get_rules() if rule.get_attr("NFTA_RULE_TABLE") == name
        ]
        return sorted(rules) == ["forward", "forward"] + ["postrouting"] * nat


def remove_table(name: str) -> bool:
    """Remove our table with all in it; False if there was none."""
    with _tables(2) as nft:
        if name not in {table.get_attr("NFTA_TABLE_NAME") for table in nft.get_tables()}:
            return False
        nft.table("del", name=name)
    with _tables(2) as nft:
        if name in {table.get_attr("NFTA_TABLE_NAME") for table in nft.get_tables()}:
            raise FirewallError(f"table {name} cannot be removed; with nftables installed: nft delete table ip {name}")
    return True


def closed_chains(own: str) -> list[Chain]:
    """Others' chains that drop what they do not accept of forwarded packets.

    An accept in our own table does not help against them: every table has its say, and one drop is enough.
    """
    found = []
    for family in _FAMILIES:
        with _tables(family) as nft:
            for chain in nft.get_chains():
                hook = chain.get_attr("NFTA_CHAIN_HOOK")
                table = chain.get_attr("NFTA_CHAIN_TABLE")
                if chain["nfgen_family"] != family or hook is None or table == own:
                    continue
                if hook.get_attr("NFTA_HOOK_HOOKNUM") == _HOOK_FORWARD and (
                    chain.get_attr("NFTA_CHAIN_POLICY") == _POLICY_DROP
                ):
                    found.append(Chain(family, table, chain.get_attr("NFTA_CHAIN_NAME")))
    return sorted(found)


def open_doors(own: str, device: str, known: list[Door]) -> Iterator[Door]:
    """Accept what is forwarded from and to `device` in every closed chain; the doors that `known` does not have yet,
    each as soon as it is open.

    The rules are those that `iptables -I FORWARD -i DEVICE -j ACCEPT` makes, so that iptables-nft shows them.
    """
    for chain in closed_chains(own):
        for direction, key in (("in", _META_IIFNAME), ("out", _META_OIFNAME)):
            mine = [door for door in known if door.chain == chain and door.direction == direction]
            if any(_is_there(door, device) for door in mine):
                continue
            before = _handles(chain)
            with _tables(chain.family) as nft:
                rule = (_interface(key, device), _counter(), _accept())
                nft.rule("insert", table=chain.table, chain=chain.name, expressions=rule)
            new = sorted(_handles(chain) - before)
            door = Door(chain, new[0] if new else 0, direction)
            if not new or not _is_there(door, device):
                raise FirewallError(f"chain {chain} drops what is forwarded, and took no rule for {device}")
            yield door


def close_door(door: Door, device: str) -> bool:
    """Remove our rule from somebody else's chain; False if it is not there any more."""
    if not _is_there(door, device):
        return False
    with _tables(door.chain.family) as nft:
        nft.rule("del", table=door.chain.table, chain=door.chain.name, handle=door.handle)
    if _is_there(door, device):
        raise FirewallError(f"rule {door.handle} of {door.chain} cannot be removed")
    return True


def rules_text(name: str) -> list[str]:
    """The rules of our table in the words of nft."""
    with _tables(2) as nft:
        return [
            f"{rule.get_attr('NFTA_RULE_CHAIN')}: {_rule_text(rule.get_attr('NFTA_RULE_EXPRESSIONS') or [])}"
            for rule in nft.get_rules()
            if rule.get_attr("NFTA_RULE_TABLE") == name
        ]


@contextmanager
def _tables(family: int) -> Iterator[Any]:
    """A netlink socket for the tables of one family."""
    from pyroute2 import NetlinkError
    from pyroute2.nftables.main import NFTables

    try:
        nft = NFTables(nfgen_family=family)
    except OSError as error:
        raise FirewallError(f"no netfilter netlink: {error.strerror}; modprobe nf_tables") from None
    try:
        yield nft
    except NetlinkError as error:
        hint = "run it as root" if error.code == 1 else "modprobe nf_tables"
        raise FirewallError(f"nftables: {error}; {hint}") from None
    finally:
        nft.close()


def _handles(chain: Chain) -> set[int]:
    return {rule.get_attr("NFTA_RULE_HANDLE") for rule in _rules(chain)}


def _rules(chain: Chain) -> list[Any]:
    with _tables(chain.family) as nft:
        return [
            rule
            for rule in nft.get_rules()
            if rule["nfgen_family"] == chain.family
            and rule.get_attr("NFTA_RULE_TABLE") == chain.table
            and rule.get_attr("NFTA_RULE_CHAIN") == chain.name
        ]


def _is_there(door: Door, device: str) -> bool:
    """Whether the rule of that handle is (still) ours: handles are not reused, but tables may have been made anew."""
    wanted = f"{door.direction[0]}ifname {device} accept"
    return any(
        rule.get_attr("NFTA_RULE_HANDLE") == door.handle
        and _rule_text(rule.get_attr("NFTA_RULE_EXPRESSIONS") or []) == wanted
        for rule in _rules(door.chain)
    )


# Expressions


def _expression(name: str, **fields: Any) -> Expression:
    from pyroute2.nftables.expressions import genex

    made: Expression = genex(name, fields)
    return made


def _data(value: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _interface(key: int, name: str) -> list[Expression]:
    """Match the name of the interface that a packet came by (iifname) or goes out of (oifname)."""
    padded = name.encode().ljust(_IFNAMSIZ, b"\0")
    return [
        _expression("meta", key=key, dreg=_REGISTER),
        _expression("cmp", sreg=_REGISTER, op=_EQUAL, data=_data(padded)),
    ]


def _source(network: Prefix) -> list[Expression]:
    """Match source addresses within `network`. (pyroute2's own ipv4addr() has wrong masks where length % 8.)"""
    return [
        _expression("payload", dreg=_REGISTER, base=_PAYLOAD_NETWORK_HEADER, offset=_SADDR_OFFSET, len=4),
        _expression("bitwise", sreg=_REGISTER, dreg=_REGISTER, len=4, mask=_data(network.netmask), xor=_data(bytes(4))),
        _expression("cmp", sreg=_REGISTER, op=_EQUAL, data=_data(network.network)),
    ]


def _counter() -> list[Expression]:
    return [_expression("counter", bytes=0, packets=0)]


def _masquerade() -> list[Expression]:
    return [_expression("masq")]


def _accept() -> list[Expression]:
    from pyroute2.nftables.expressions import verdict

    made: list[Expression] = verdict(_VERDICT_ACCEPT)
    return made


def _rule_text(expressions: list[Any]) -> str:
    """The few expressions that we use, as nft writes them; counters are left out."""
    words: list[str] = []
    mask = b""
    for expression in expressions:
        name = expression.get_attr("NFTA_EXPR_NAME")
        data = expression.get_attr("NFTA_EXPR_DATA")
        match name:
            case "meta":
                words.append(str(data.get_attr("NFTA_META_KEY")).removeprefix("NFT_META_").lower())
            case "payload":
                words.append("ip saddr" if data.get_attr("NFTA_PAYLOAD_OFFSET") == _SADDR_OFFSET else "payload")
            case "bitwise":
                mask = data.get_attr("NFTA_BITWISE_MASK").get_attr("NFTA_DATA_VALUE")
            case "cmp":
                value = data.get_attr("NFTA_CMP_DATA").get_attr("NFTA_DATA_VALUE")
                if mask:
                    length = f"{int.from_bytes(mask, 'big'):b}".count("1")
                    words.append(f"{'.'.join(map(str, value))}/{length}")
                    mask = b""
                else:
                    words.append(bytes(value).rstrip(b"\0").decode("utf-8", "replace"))
            case "masq":
                words.append("masquerade")
            case "immediate":
                code = data.get_attr("NFTA_IMMEDIATE_DATA").get_attr("NFTA_DATA_VERDICT")
                words.append(str(code.get_attr("NFTA_VERDICT_CODE")).removeprefix("NF_").lower() if code else name)
            case "counter":
                pass
            case _:
                words.append(str(name))
    return " ".join(words)
