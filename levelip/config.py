"""Configuration: one TOML file, overridden by environment and flags; validated before anything starts.

Every tunable is a field here with its default, its unit in the name, its allowed range and its sentence (`Meta`);
`level-ip.toml`, `lvlip get` and the error messages are made from them (configfile.py). Which keys a running layer can
change is `configrules.RUNTIME`; all others need a restart of the layer.
"""

# ruff: noqa: E501 - one setting a line, however long its sentence
from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from levelip.wire.addr import parse_mac

DAY_MS = 86_400_000
CONGESTIONS = ("cubic", "newreno")
"""Strategies by name; on the seam between gateway and tcp their place in this, plus one. 0: the configured one."""
MAX_COUNT = 1 << 31


def _ms(description: str, *, ge: int = 0, le: int = DAY_MS) -> Meta:
    """A duration in milliseconds. (msgspec refuses a bound that is set twice, so bounds have defaults here.)"""
    return Meta(ge=ge, le=le, description=description)


def _count(description: str, *, ge: int = 0, le: int = MAX_COUNT) -> Meta:
    """A number of things."""
    return Meta(ge=ge, le=le, description=description)


def _size(description: str, *, ge: int = 0, le: int = MAX_COUNT) -> Meta:
    """A number of bytes."""
    return Meta(ge=ge, le=le, description=description)


class DeviceConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[device]: what link opens."""

    kind: Annotated[
        Literal["tap", "tun", "wire"], Meta(description="tap (Ethernet), tun (raw IP) or wire (AF_UNIX datagrams)")
    ] = "tap"
    name: Annotated[str, Meta(max_length=15, description="interface name; empty: made from the stack's name")] = ""
    host_address: Annotated[
        str, Meta(description="the host's address on the device, with prefix length; empty: leave the host side alone")
    ] = "10.0.0.1/24"
    mac: Annotated[str, Meta(description="the stack's MAC address; empty: made from the stack's name")] = ""
    mtu: Annotated[int, Meta(ge=68, le=65_535, description="largest IP packet, bytes")] = 1500
    offload: Annotated[
        bool,
        Meta(
            description="let the device take and give super-segments and unfinished checksums; false: MTU-sized packets everywhere"
        ),
    ] = True
    persist: Annotated[
        bool, Meta(description="the device stays when link ends (a restart of link then loses nothing but packets)")
    ] = True
    attach: Annotated[bool, Meta(description="use an existing device and change nothing of it")] = False
    wire_path: Annotated[
        str, Meta(description="wire: path of our datagram socket; empty: wire.sock in the run directory")
    ] = ""
    wire_peer: Annotated[str, Meta(description="wire: path of the peer's socket; empty: whoever sent last")] = ""
    wire_carries: Annotated[Literal["ethernet", "ip"], Meta(description="wire: what a datagram holds")] = "ethernet"

    def interface(self, stack: str) -> str:
        """The interface's name for the stack of that name, at most 15 bytes (Linux IFNAMSIZ)."""
        if self.name:
            return self.name
        if len(stack) <= 11 and re.fullmatch(r"[A-Za-z0-9_-]+", stack):
            return f"lvl-{stack}" if stack != "level-ip" else "lvl0"
        return f"lvl-{hashlib.sha256(stack.encode()).hexdigest()[:10]}"

    def stack_mac(self, stack: str) -> bytes:
        """The stack's MAC address, 6 bytes: as configured, or locally administered and made from the stack's name."""
        if self.mac:
            return parse_mac(self.mac)
        return b"\x02" + hashlib.sha256(f"{stack}/stack".encode()).digest()[:5]

    def host_mac(self, stack: str) -> bytes:
        """The MAC address of the host's side of a tap that link creates: the same at each creation."""
        return b"\x02" + hashlib.sha256(f"{stack}/host".encode()).digest()[:5]


class LinkConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[link]: ARP and the device's queue."""

    arp_reachable_ms: Annotated[
        int, _ms(description="how long an ARP answer is trusted, on average: half to one and a half of it")
    ] = 30_000
    arp_delay_ms: Annotated[
        int, _ms(description="how long a neighbour that may be gone is used before it is asked")
    ] = 5000
    arp_locktime_ms: Annotated[
        int, _ms(description="time between two questions because somebody claims a neighbour's address")
    ] = 1000
    arp_retry_ms: Annotated[int, _ms(ge=1, description="time between ARP requests for one address")] = 1000
    arp_retries: Annotated[
        int, _count(ge=1, le=100, description="ARP requests before an address counts as unreachable")
    ] = 3
    arp_entries: Annotated[int, _count(ge=1, description="largest ARP cache")] = 1024
    arp_queue: Annotated[int, _count(ge=1, description="packets that wait for one ARP answer")] = 64
    acd_probes: Annotated[
        int, _count(le=10, description="ARP probes before our address is used (RFC 5227 has 3); 0: none, as Linux")
    ] = 0
    acd_probe_wait_ms: Annotated[int, _ms(description="the first probe is sent after at most this, at random")] = 1000
    acd_probe_min_ms: Annotated[int, _ms(description="time between two probes, at least")] = 1000
    acd_probe_max_ms: Annotated[int, _ms(description="time between two probes, at most")] = 2000
    acd_announce_wait_ms: Annotated[int, _ms(description="time from the last probe to the first announcement")] = 2000
    acd_announcements: Annotated[int, _count(le=10, description="ARP announcements of our address")] = 2
    acd_announce_interval_ms: Annotated[int, _ms(description="time between two announcements")] = 2000
    acd_defend_interval_ms: Annotated[
        int, _ms(description="our address is not defended against a conflict that comes less than this after another")
    ] = 10_000
    device_queue: Annotated[int, _count(ge=1, description="frames that wait for the device")] = 1024
    pool_slots: Annotated[int, _count(ge=16, le=65_536, description="slots of 64 KB in the device pool")] = 512


class IpConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[ip]: addresses, routes, fragments, ICMP, IGMP."""

    address: Annotated[str, Meta(description="the stack's address with prefix length")] = "10.0.0.2/24"
    addresses: Annotated[list[str], Meta(description="further addresses with prefix length")] = []
    gateway: Annotated[str, Meta(description="default gateway; empty: none")] = "10.0.0.1"
    routes: Annotated[list[str], Meta(description='further routes: "PREFIX via GATEWAY" or "PREFIX dev", then "metric N" and "src ADDRESS" if wanted; "blackhole PREFIX", "unreachable PREFIX", "prohibit PREFIX"')] = []
    ttl: Annotated[int, Meta(ge=1, le=255, description="time to live of what we send")] = 64
    multicast_groups: Annotated[list[str], Meta(description="multicast groups to join at the start")] = []
    igmp_version: Annotated[int, Meta(ge=1, le=3, description="newest version of IGMP to speak; an older querier has its own spoken")] = 3
    fragment_time_ms: Annotated[int, _ms(ge=15_000, le=120_000, description="how long fragments wait for the others (RFC 1122 3.3.2; Linux ipfrag_time)")] = 30_000
    fragment_memory: Annotated[int, _size(description="bytes that waiting fragments take, at most; the oldest datagram goes first (Linux ipfrag_high_thresh; 0: no reassembly)")] = 4_194_304
    fragments_per_datagram: Annotated[int, _count(ge=2, le=8192, description="fragments of one datagram, at most (1366: 65,535 bytes at an MTU of 68)")] = 1366
    min_pmtu: Annotated[int, Meta(ge=68, le=65_535, description="smallest path MTU that is believed; smaller ones count as this (Linux min_pmtu)")] = 552
    mtu_expires_ms: Annotated[int, _ms(ge=1000, description="how long a smaller path MTU that a ping found is remembered; of what TCP found tcp.mtu_expires_s says it (RFC 1191 6.3; Linux mtu_expires)")] = 600_000
    accept_redirects: Annotated[bool, Meta(description="follow ICMP redirects of the gateway in use (Linux accept_redirects)")] = True
    secure_redirects: Annotated[bool, Meta(description="and only to gateways that the routing table names (Linux secure_redirects without shared_media)")] = False
    redirect_ms: Annotated[int, _ms(ge=1000, description="how long a redirect is followed (Linux route/gc_timeout)")] = 300_000
    gateway_retry_ms: Annotated[int, _ms(description="how long a gateway that does not answer ARP is passed over where another route to the prefix has one")] = 60_000
    icmp_rate_per_s: Annotated[int, _count(description="ICMP errors a second, at most (0: none; Linux icmp_msgs_per_sec)")] = 1000
    icmp_burst: Annotated[int, _count(ge=1, description="ICMP errors at once, at most (Linux icmp_msgs_burst)")] = 50
    icmp_ratelimit_ms: Annotated[int, _ms(description="least time between ICMP errors to one destination, six at once let through (0: none; Linux icmp_ratelimit)")] = 1000
    icmp_ratemask: Annotated[int, _count(description="ICMP types that the limits hold for, as bits 1 << type (Linux icmp_ratemask)")] = 6168
    echo_reply: Annotated[bool, Meta(description="answer ICMP echo requests")] = True
    echo_ignore_broadcasts: Annotated[bool, Meta(description="but not those to broadcast and multicast addresses (Linux icmp_echo_ignore_broadcasts)")] = True
    queue: Annotated[int, _count(ge=1, description="packets that wait for link, at most; more are dropped")] = 1024


class TcpConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[tcp]: all of TCP."""

    send_buffer: Annotated[
        int, _size(ge=4096, description="bytes a connection takes from the application ahead of acknowledgement")
    ] = 4_194_304
    receive_buffer: Annotated[
        int, _size(ge=4096, description="bytes a connection holds for the application; bounds the window")
    ] = 4_194_304
    send_initial: Annotated[
        int,
        _size(ge=4096, description="bytes of send buffer at the start; it grows with cwnd up to send_buffer (tcp_wmem)"),
    ] = 262_144
    receive_initial: Annotated[
        int,
        _size(
            ge=4096,
            description="bytes of receive buffer at the start; it grows with the rate up to receive_buffer (tcp_rmem)",
        ),
    ] = 262_144
    moderate_rcvbuf: Annotated[
        bool, Meta(description="receive buffers grow (Linux tcp_moderate_rcvbuf) where SO_RCVBUF is not set")
    ] = True
    send_ring: Annotated[
        int, _size(ge=65_536, description="address space of a send buffer: upper limit of SO_SNDBUF")
    ] = 4_194_304
    receive_ring: Annotated[
        int, _size(ge=65_536, description="address space of a receive buffer: upper limit of SO_RCVBUF")
    ] = 4_194_304
    connections: Annotated[int, _count(ge=1, le=65_536, description="connections a client session, at most")] = 4096
    delayed_ack_ms: Annotated[int, _ms(le=500, description="longest delay of an ACK (RFC 9293 3.8.6.3: below 500)")] = (
        40
    )
    ack_every: Annotated[int, _count(ge=1, description="full-sized segments that force an ACK (RFC 5681 4.2: 2)")] = 2
    nagle: Annotated[bool, Meta(description="Nagle's algorithm unless a socket sets TCP_NODELAY")] = True
    timestamps: Annotated[bool, Meta(description="offer timestamps (RFC 7323)")] = True
    window_scaling: Annotated[bool, Meta(description="offer window scaling (RFC 7323)")] = True
    sack: Annotated[bool, Meta(description="offer selective acknowledgement (RFC 2018)")] = True
    tlp: Annotated[bool, Meta(description="tail loss probes (RFC 8985 7; Linux tcp_early_retrans)")] = True
    frto: Annotated[bool, Meta(description="find spurious retransmission timeouts (RFC 5682; Linux tcp_frto)")] = True
    congestion: Annotated[
        str, Meta(description="congestion control: cubic, newreno, or PACKAGE.MODULE:CLASS of your own (docs/congestion-control.md)")
    ] = "cubic"
    hystart: Annotated[
        bool, Meta(description="leave slow start when round trips get longer (HyStart++, RFC 9406)")
    ] = True
    slow_start_after_idle: Annotated[
        bool, Meta(description="after an idle RTO come down to the initial window (RFC 5681 4.1; Linux tcp_slow_start_after_idle); false: it stays for 5 minutes, and what was really used decides at a loss (RFC 7661)")
    ] = True
    ecn: Annotated[
        int, Meta(ge=0, le=2, description="explicit congestion notification (RFC 3168; Linux tcp_ecn): 0 never, 1 ask for it, 2 agree when asked")
    ] = 2
    ecn_fallback: Annotated[
        bool, Meta(description="a SYN sent again does not ask for ECN (RFC 3168 6.1.1.1; Linux tcp_ecn_fallback)")
    ] = True
    initial_window: Annotated[
        int, _count(ge=1, le=64, description="initial congestion window, segments (RFC 6928: 10)")
    ] = 10
    rto_initial_ms: Annotated[int, _ms(ge=1, description="RTO before the first measurement (RFC 6298 2.1: 1000)")] = (
        1000
    )
    rto_min_ms: Annotated[int, _ms(ge=1, description="smallest RTO (RFC 6298 2.4: 1000; Linux: 200)")] = 200
    rto_max_ms: Annotated[int, _ms(ge=1000, description="largest RTO (RFC 6298 2.5: at least 60000)")] = 120_000
    syn_retries: Annotated[int, _count(le=30, description="retransmissions of a SYN (Linux tcp_syn_retries)")] = 6
    synack_retries: Annotated[
        int, _count(le=30, description="retransmissions of a SYN-ACK (Linux tcp_synack_retries)")
    ] = 5
    retries: Annotated[
        int, _count(le=30, description="retransmissions of data before the connection is given up (Linux tcp_retries2)")
    ] = 15
    orphan_retries: Annotated[
        int, _count(le=30, description="the same once the application has closed (Linux tcp_orphan_retries: 8)")
    ] = 8
    time_wait_ms: Annotated[
        int, _ms(description="2 MSL: how long TIME-WAIT lasts (RFC 9293: 240000; Linux: 60000)")
    ] = 60_000
    fin_timeout_ms: Annotated[
        int, _ms(description="how long an orphan stays in FIN-WAIT-2 (Linux tcp_fin_timeout)")
    ] = 60_000
    keepalive_idle_ms: Annotated[
        int, _ms(ge=1000, description="idle time before the first keep-alive (RFC 9293 3.8.4: 7200000)")
    ] = 7_200_000
    keepalive_interval_ms: Annotated[int, _ms(ge=1000, description="time between keep-alives")] = 75_000
    keepalive_probes: Annotated[
        int, _count(ge=1, description="unanswered keep-alives before the connection is given up")
    ] = 9
    port_first: Annotated[int, Meta(ge=1, le=65_535, description="first ephemeral port (RFC 6056)")] = 32_768
    port_last: Annotated[int, Meta(ge=1, le=65_535, description="last ephemeral port")] = 60_999
    backlog_max: Annotated[int, _count(ge=1, description="largest listen backlog (Linux somaxconn)")] = 4096
    challenge_acks_per_s: Annotated[
        int, _count(description="challenge ACKs a second, on the average, at most (RFC 5961 7, Linux tcp_challenge_ack_limit)")
    ] = 1000
    invalid_ratelimit_ms: Annotated[
        int, _ms(description="a socket answers segments out of window no faster than once in this time (Linux)")
    ] = 500
    max_syn_backlog: Annotated[
        int, _count(ge=4, description="half-open connections a listener without SYN cookies, at most (Linux)")
    ] = 1024
    syncookies: Annotated[
        int, Meta(ge=0, le=2, description="SYN cookies (RFC 4987): 0 never, 1 when the backlog is full, 2 always")
    ] = 1
    abort_on_overflow: Annotated[
        bool, Meta(description="reset a connection whose listener's accept queue is full, do not let it try again")
    ] = False
    rfc1337: Annotated[bool, Meta(description="no RST ends TIME-WAIT (RFC 1337; Linux tcp_rfc1337)")] = False
    tw_reuse: Annotated[
        int, Meta(ge=0, le=2, description="connect() may take over a port pair in TIME-WAIT: 0 no, 1 yes, 2 on loopback")
    ] = 2
    tw_reuse_delay_ms: Annotated[int, _ms(description="how long it must have been in TIME-WAIT for that (Linux)")] = 1000
    max_orphans: Annotated[
        int, _count(description="connections that nobody owns any more, at most; beyond, they are reset (Linux)")
    ] = 16_384
    retries1: Annotated[
        int, _count(le=30, description="retransmissions before the path is doubted (RFC 9293 3.8.3 R1; Linux tcp_retries1)")
    ] = 3
    icmp_abort_connect: Annotated[
        bool, Meta(description="unreachable net or host ends a connect at once, as Linux; false: only its timeout does (RFC 1122)")
    ] = True
    mtu_expires_s: Annotated[
        int, _count(ge=1, le=86_400, description="how long a path MTU learned of ICMP is believed, here and by ip (RFC 1191 6.3; Linux mtu_expires)")
    ] = 600
    mtu_probing: Annotated[
        int, Meta(ge=0, le=2, description="find the path MTU by probes (RFC 4821): 0 no, 1 when packets vanish, 2 always")
    ] = 1
    base_mss: Annotated[
        int, _count(ge=48, le=65_495, description="MSS to fall back to when large packets vanish (Linux tcp_base_mss)")
    ] = 1024
    mtu_probe_floor: Annotated[
        int, _count(ge=48, le=65_495, description="smallest MSS to fall back to (Linux tcp_mtu_probe_floor)")
    ] = 48
    probe_threshold: Annotated[
        int, _count(ge=1, description="bytes: the search ends when it is that close (Linux tcp_probe_threshold)")
    ] = 8
    probe_interval_s: Annotated[
        int, _count(ge=1, le=86_400, description="time until the search begins anew (Linux tcp_probe_interval)")
    ] = 600


class UdpConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[udp]: datagrams."""

    sockets: Annotated[int, _count(ge=1, description="datagram sockets at once, at most")] = 16_384
    receive_buffer: Annotated[int, _size(ge=2304, description="bytes that wait for an application (SO_RCVBUF's default; Linux rmem_default)")] = 212_992
    receive_buffer_max: Annotated[int, _size(ge=2304, description="most that SO_RCVBUF can ask for (Linux rmem_max)")] = 4_194_304
    port_first: Annotated[int, Meta(ge=1, le=65_535, description="first ephemeral port (RFC 6056)")] = 32_768
    port_last: Annotated[int, Meta(ge=1, le=65_535, description="last ephemeral port")] = 60_999
    queue: Annotated[int, _count(ge=1, description="datagrams that wait for ip, at most; more are dropped")] = 1024
    mtu_expires_s: Annotated[int, _count(ge=1, le=86_400, description="how long a path MTU that an ICMP error told of a datagram is believed, here and by ip (RFC 1191 6.3; Linux mtu_expires)")] = 600


class GatewayConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[gateway]: the applications' door."""

    sockets_per_client: Annotated[int, _count(ge=1, description="sockets of one client, at most (then EMFILE)")] = 4096
    sockets_per_user: Annotated[
        int, _count(ge=1, description="sockets of all clients of one user, at most (then ENFILE); not of the stack's own user")
    ] = 16_384
    sockets: Annotated[int, _count(ge=1, description="sockets of all clients, at most (then ENFILE)")] = 65_536
    calls_per_client: Annotated[
        int, _count(ge=1, description="calls of one client that are not answered yet, at most (then ENOBUFS)")
    ] = 8192
    clients: Annotated[int, _count(ge=1, description="clients at once, at most (then EUSERS)")] = 1024
    clients_per_user: Annotated[
        int, _count(ge=1, description="clients of one user, at most (then EUSERS); not of the stack's own user")
    ] = 512
    client_unread: Annotated[
        int, _size(ge=2_097_152, description="bytes sent to a client that it has not read: beyond it its session ends")
    ] = 67_108_864
    client_inline: Annotated[
        int, _size(ge=65_536, description="bytes in flight to a client without shared memory, all its sockets together")
    ] = 16_777_216
    door_mode: Annotated[
        Literal["owner", "everyone"],
        Meta(description="who may open sockets: only the user that runs the stack, or everyone"),
    ] = "everyone"
    rpc_inline_credit: Annotated[
        int, _size(ge=65_536, description="bytes in flight to a client without shared memory, a socket")
    ] = 1_048_576
    tcp_wait_ms: Annotated[int, _ms(description="how long a call waits for tcp or udp to come up (then ENETDOWN)")] = 10_000
    rejoin_ms: Annotated[int, _ms(description="how long a client's sockets stay when its connection broke but its process lives")] = 5_000
    probe_ms: Annotated[int, _ms(ge=100, description="how often it is seen whether the clients' connections still stand")] = 5_000
    dns_servers: Annotated[list[str], Meta(description="name servers that programs ask over the stack, IPv4 addresses, at most 3; empty: those of /etc/resolv.conf that do not lie on the host's loopback (MAXNS of resolv.conf(5))")] = []
    dns_search: Annotated[list[str], Meta(description="domains that names without enough dots are looked up in; empty: those of /etc/resolv.conf")] = []
    dns_options: Annotated[list[str], Meta(description='options as in resolv.conf(5), stronger than those there: "ndots:N", "timeout:N", "attempts:N", "rotate", "use-vc" (TCP always), "no-aaaa"')] = []


class IpcConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[ipc]: pipes between the processes."""

    packet_hwm: Annotated[int, _count(ge=1000, description="messages that a packet pipe holds")] = 4096
    batch: Annotated[int, _count(ge=1, le=1024, description="packets in one message, at most")] = 64
    endpoints: Annotated[
        dict[str, str],
        Meta(
            description='pipe → endpoint where it is not ipc:// in the run directory, e.g. "ip-tcp" = "tcp://192.0.2.1:7001"; a pipe FROM-TO is bound by TO'
        ),
    ] = {}
    secret_key_file: Annotated[
        str, Meta(description="CURVE secret key of this host (lvlip keygen); needed for tcp:// endpoints")
    ] = ""
    server_keys: Annotated[
        dict[str, str], Meta(description="pipe → public key of the process that binds it, for tcp:// endpoints")
    ] = {}
    allowed_keys: Annotated[list[str], Meta(description="public keys that may connect to our tcp:// endpoints")] = []
    heartbeat_ms: Annotated[int, _ms(description="ZeroMQ heartbeat on tcp:// pipes")] = 1000
    affinity: Annotated[dict[str, list[int]], Meta(description='process → CPUs it may run on, e.g. "link" = [0]')] = {}


class StackConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[stack]: what concerns all processes."""

    seed: Annotated[
        int, Meta(ge=0, le=(1 << 63) - 1, description="seed of all random choices; 0: from the system at each start")
    ] = 0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="what goes to the log files")
    ] = "info"
    flight_recorder_mib: Annotated[
        int, Meta(ge=0, le=4096, description="MiB of memory a process in which its newest calls are kept for `lvlip record dump`, and for a crash (0: off)")
    ] = 32
    layers: Annotated[list[str], Meta(description="which processes run on this host")] = field(
        default_factory=lambda: ["link", "ip", "tcp", "udp", "gateway"]
    )


class Config(Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole file; one section a layer."""

    stack: StackConfig = field(default_factory=StackConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    ip: IpConfig = field(default_factory=IpConfig)
    tcp: TcpConfig = field(default_factory=TcpConfig)
    udp: UdpConfig = field(default_factory=UdpConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    ipc: IpcConfig = field(default_factory=IpcConfig)
