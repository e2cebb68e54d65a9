"""What a configuration must satisfy beyond each key's type: formats, and keys that concern each other; and which keys
a running layer can change. Values are checked here and never changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from levelip.addressing import BadSetting, addressing
from levelip.config import CONGESTIONS, Config
from levelip.wire.addr import parse_interface, parse_ipv4, parse_mac

PROCESSES = ("link", "ip", "tcp", "udp", "gateway")
PIPES = (
    "link-ip", "ip-link", "ip-tcp", "tcp-ip", "ip-udp", "udp-ip", "tcp-gateway", "gateway-tcp", "udp-gateway",
    "gateway-udp",
)  # fmt: skip
"""FROM-TO; TO binds it."""
CURVE_KEY_LENGTH = 40
"""Characters of a key in Z85, as `lvlip keygen` writes it (zmq_curve_keypair(3))."""

DNS_SERVERS = 3
"""Name servers at most, as in resolv.conf(5) (MAXNS)."""
DNS_SEARCH = 6
"""Domains of the search list at most (resolv.conf(5) before glibc 2.26; long lists only cost time)."""
_DNS_OPTION = re.compile(r"ndots:\d{1,2}|timeout:[1-9]\d?|attempts:[1-5]|rotate|use-vc|no-aaaa")
_DOMAIN = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?")

_OWN_CONGESTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

_FIXED = {
    "link": {"pool_slots"},
    "ip": {"address", "addresses", "multicast_groups", "igmp_version"},
    "tcp": {"send_ring", "receive_ring", "connections", "congestion"},
    "udp": {"port_first", "port_last"},
    "gateway": set(),
}
"""By section: what decides where memory lies, or what connections rest on. Sections that are
missing here concern devices and pipes, which are made once."""

RUNTIME = frozenset(
    f"{section}.{name}"
    for section, fixed in _FIXED.items()
    for name in getattr(Config(), section).__struct_fields__
    if name not in fixed
)
"""Keys that `lvlip set` changes in a running layer; all others need a restart of the layer."""

Problems = Iterator[tuple[str, str]]  # dotted key, what is allowed


def check(config: Config) -> Problems:
    """The mistakes in `config` that a type does not show: (dotted key, what would be right)."""
    yield from _device(config)
    yield from _ip(config)
    yield from _tcp(config)
    yield from _dns(config)
    yield from _ipc(config)
    for layer in config.stack.layers:
        if layer not in PROCESSES:
            yield "stack.layers", f"{layer!r} is no process; known are {', '.join(PROCESSES)}"
    if not config.stack.layers:
        yield "stack.layers", f"must name at least one of {', '.join(PROCESSES)}"


def _reads(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _interface(text: str) -> bool:
    """Whether it is an IPv4 address with prefix length."""
    return "/" in text and ":" not in text and _reads(parse_interface, text)


def _device(config: Config) -> Problems:
    device = config.device
    if device.name and ("/" in device.name or any(c.isspace() for c in device.name) or device.name in (".", "..")):
        yield "device.name", "must be an interface name: no slash, no space (Linux dev_valid_name)"
    if device.host_address and not _interface(device.host_address):
        yield "device.host_address", "must be an IPv4 address with prefix length, as 10.0.0.1/24, or empty"
    if device.mac:
        if not _reads(parse_mac, device.mac):
            yield "device.mac", "must be a MAC address, as 02:00:00:00:00:02, or empty"
        elif parse_mac(device.mac)[0] & 1:
            yield "device.mac", "must not be a group address (lowest bit of the first byte is 0)"
    if device.attach and not device.name and device.kind != "wire":
        yield "device.name", "must name the existing device, as device.attach is true"


def _ip(config: Config) -> Problems:
    problems = list(_ip_texts(config))
    yield from problems
    if not problems:
        try:
            addressing(config.ip)
        except BadSetting as error:
            yield error.key, error.allowed


def _ip_texts(config: Config) -> Problems:
    if not _interface(config.ip.address):
        yield "ip.address", "must be an IPv4 address with prefix length, as 10.0.0.2/24"
    elif _interface(config.device.host_address) and config.device.kind != "wire":
        if parse_interface(config.ip.address)[0] == parse_interface(config.device.host_address)[0]:
            yield (
                "ip.address",
                f"must differ from device.host_address ({config.device.host_address}), which is the host's",
            )
    if config.ip.gateway and not _reads(parse_ipv4, config.ip.gateway):
        yield "ip.gateway", "must be an IPv4 address, or empty"
    elif config.ip.gateway and _interface(config.ip.address):
        _, prefix = parse_interface(config.ip.address)
        beyond = config.ip.addresses or any(" dev" in route for route in config.ip.routes)  # then `addressing` judges
        if not beyond and not prefix.contains(parse_ipv4(config.ip.gateway)):
            yield "ip.gateway", f"must lie in {prefix}, the network of ip.address, or be empty"


def _tcp(config: Config) -> Problems:
    tcp = config.tcp
    if tcp.send_buffer > tcp.send_ring:
        yield "tcp.send_buffer", f"must be at most tcp.send_ring ({tcp.send_ring})"
    if tcp.receive_buffer > tcp.receive_ring:
        yield "tcp.receive_buffer", f"must be at most tcp.receive_ring ({tcp.receive_ring})"
    if tcp.congestion not in CONGESTIONS and not _OWN_CONGESTION.fullmatch(tcp.congestion):
        yield "tcp.congestion", f"must be one of {', '.join(CONGESTIONS)}, or PACKAGE.MODULE:CLASS"
    if tcp.port_first > tcp.port_last:
        yield "tcp.port_first", f"must be at most tcp.port_last ({tcp.port_last})"
    if tcp.rto_min_ms > tcp.rto_max_ms:
        yield "tcp.rto_min_ms", f"must be at most tcp.rto_max_ms ({tcp.rto_max_ms})"
    if tcp.rto_initial_ms > tcp.rto_max_ms:
        yield "tcp.rto_initial_ms", f"must be at most tcp.rto_max_ms ({tcp.rto_max_ms})"


def _dns(config: Config) -> Problems:
    gateway = config.gateway
    if len(gateway.dns_servers) > DNS_SERVERS or not all(_reads(parse_ipv4, text) for text in gateway.dns_servers):
        yield "gateway.dns_servers", f"must be IPv4 addresses, {DNS_SERVERS} at most"
    if len(gateway.dns_search) > DNS_SEARCH or not all(_DOMAIN.fullmatch(text) for text in gateway.dns_search):
        yield "gateway.dns_search", f"must be names of domains, {DNS_SEARCH} at most"
    for text in gateway.dns_options:
        if not _DNS_OPTION.fullmatch(text):
            yield "gateway.dns_options", f"{text!r}: not ndots:N, timeout:S, attempts:1-5, rotate, use-vc, no-aaaa"


def _ipc(config: Config) -> Problems:
    ipc = config.ipc
    remote: list[str] = []
    for pipe, endpoint in ipc.endpoints.items():
        if pipe not in PIPES:
            yield "ipc.endpoints", f'"{pipe}" is no pipe; known are {", ".join(PIPES)}'
        elif endpoint.startswith("tcp://"):
            host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) <= 65535:
                yield "ipc.endpoints", f'"{pipe}": {endpoint} must be tcp://ADDRESS:PORT'
            remote.append(pipe)
        elif not endpoint.startswith("ipc:///"):
            yield "ipc.endpoints", f'"{pipe}": {endpoint} must be tcp://ADDRESS:PORT or ipc:///PATH'
    for process in ipc.affinity:
        if process not in PROCESSES:
            yield "ipc.affinity", f'"{process}" is no process; known are {", ".join(PROCESSES)}'
    for pipe, key in ipc.server_keys.items():
        if pipe not in PIPES:
            yield "ipc.server_keys", f'"{pipe}" is no pipe; known are {", ".join(PIPES)}'
        if len(key) != CURVE_KEY_LENGTH:
            yield "ipc.server_keys", f'"{pipe}" must be a public key of {CURVE_KEY_LENGTH} characters (lvlip keygen)'
    for key in ipc.allowed_keys:
        if len(key) != CURVE_KEY_LENGTH:
            yield "ipc.allowed_keys", f'"{key}" must be a public key of {CURVE_KEY_LENGTH} characters (lvlip keygen)'
    if remote:
        yield from _keys_for(config, remote)


def _keys_for(config: Config, remote: list[str]) -> Problems:
    """A tcp:// endpoint needs CURVE and a list of who may connect: CURVE alone admits any key (DESIGN 1)."""
    ipc, here = config.ipc, config.stack.layers
    if not ipc.secret_key_file:
        yield "ipc.secret_key_file", f"must name a key file (lvlip keygen), as {', '.join(remote)} is a tcp:// endpoint"
    for pipe in remote:
        sender, _, receiver = pipe.partition("-")
        if receiver in here and sender not in here and not ipc.allowed_keys:
            yield "ipc.allowed_keys", f"must list the public keys (lvlip keygen) that may connect to {pipe}"
        if sender in here and receiver not in here and pipe not in ipc.server_keys:
            yield "ipc.server_keys", f'must hold the public key (lvlip keygen) of the process that binds "{pipe}"'
