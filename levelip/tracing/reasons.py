"""The one list of reasons for which anything is discarded or refused.

Each row: name, the layer that uses it, severity, a sentence, and the rule (RFC and section) behind it. A drop is
counted as `drop.<name>`; a test asserts each.
"""

# ruff: noqa: E501 - a table: one reason a line
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much a reason should worry a reader."""

    NORMAL = "normal"  # happens on every healthy network
    NOTICE = "notice"  # worth a look
    ERROR = "error"  # the sender, or we, did something wrong


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was discarded."""

    name: str
    layer: str
    severity: Severity
    sentence: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.sentence}, {self.rule}" if self.rule else self.sentence

    @property
    def counter(self) -> str:
        """The name under which the drop is counted."""
        return f"drop.{self.name}"


_ALL: dict[str, Reason] = {}


def _reason(name: str, layer: str, severity: Severity, sentence: str, rule: str = "") -> Reason:
    if name in _ALL:
        raise ValueError(f"reason {name} is listed twice")
    return _ALL.setdefault(name, Reason(name, layer, severity, sentence, rule))


def lookup(name: str) -> Reason | None:
    """The reason of that name."""
    return _ALL.get(name)


def all_reasons() -> list[Reason]:
    """Every reason, in the order of the list."""
    return list(_ALL.values())


N, O, E = Severity.NORMAL, Severity.NOTICE, Severity.ERROR  # noqa: E741 - columns of the table below

# fmt: off
# --- pipes (levelip.ipc)
PIPE_FULL        = _reason("pipe_full", "ipc", O, "the pipe to the next process is full")
NEIGHBOUR_DOWN   = _reason("neighbour_down", "ipc", O, "the next process is not running")
STALE_EPOCH      = _reason("stale_epoch", "ipc", N, "meant for or sent by a process that has been restarted")
UNKNOWN_VERSION  = _reason("unknown_version", "ipc", E, "a message of an unknown version")
GARBAGE          = _reason("garbage", "ipc", E, "bytes that are no message of ours")
BAD_MESSAGE      = _reason("bad_message", "ipc", E, "a message of unknown kind or with wrong fields")
BAD_PARTS        = _reason("bad_parts", "ipc", E, "too many or too few parts")
BAD_PART         = _reason("bad_part", "ipc", E, "a payload names a part that is not there")
BAD_PLACE        = _reason("bad_place", "ipc", E, "a payload names an impossible place in memory")
TOO_MANY         = _reason("too_many", "ipc", E, "too many messages in one envelope")
MEMORY_LOST      = _reason("memory_lost", "ipc", O, "the shared memory that holds the payload is gone or was reused")
UNKNOWN_KEY      = _reason("unknown_key", "ipc", E, "a connection to a tcp:// endpoint with a key that is not in ipc.allowed_keys")
FAULT_LOSS       = _reason("fault_loss", "ipc", N, "lost on purpose (lvlip fault)")
ADDON_DROP       = _reason("addon_drop", "ipc", N, "taken out on purpose (lvlip addon)")
ADDON_QUEUE      = _reason("addon_queue", "ipc", O, "an addon keeps too many frames back")
DEBUG_DROP       = _reason("debug_drop", "ipc", N, "dropped by hand while it was held (lvlip held drop)")
# --- ip: what came in (layers.ip.validate)
IP_TRUNCATED       = _reason("ip_truncated", "ip", E, "shorter than its IPv4 header", "RFC 791 3.1")
IP_VERSION         = _reason("ip_bad_version", "ip", N, "not IP version 4", "RFC 1122 3.2.1.1")
IP_HEADER_LENGTH   = _reason("ip_bad_header_length", "ip", E, "a header length below 20 bytes", "RFC 791 3.1")
IP_CHECKSUM        = _reason("ip_bad_checksum", "ip", E, "the header checksum is wrong", "RFC 1122 3.2.1.2")
IP_TOTAL_LENGTH    = _reason("ip_bad_total_length", "ip", E, "a total length below the header's", "RFC 791 3.1")
IP_TORN            = _reason("ip_torn", "ip", E, "fewer bytes arrived than the total length says", "RFC 791 3.1")
IP_OPTION          = _reason("ip_bad_option", "ip", E, "an option that does not fit into the header, or with impossible values", "RFC 1122 3.2.1.8")
IP_SOURCE_ROUTED   = _reason("ip_source_routed", "ip", O, "a source route, which we do not take", "RFC 7126 4.3, as Linux accept_source_route=0")
IP_NOT_INLINE      = _reason("ip_headers_not_inline", "ip", E, "headers lie in shared memory, where a core cannot read them")
MARTIAN_SOURCE     = _reason("martian_source", "ip", E, "a source that no host may use on a network", "RFC 1122 3.2.1.3")
OWN_SOURCE         = _reason("own_source", "ip", O, "our own address as the source of a packet from outside")
MARTIAN_DEST       = _reason("martian_destination", "ip", E, "a destination that must not appear on a network", "RFC 1122 3.2.1.3")
LINK_BROADCAST     = _reason("link_broadcast", "ip", O, "a link-level broadcast for a single host's address", "RFC 1122 3.3.6")
MULTICAST_UNJOINED = _reason("multicast_not_joined", "ip", N, "a multicast group that we are not in", "RFC 1112 7.2")
NOT_FOR_US         = _reason("not_for_us", "ip", N, "for another host, and we are no router", "RFC 1122 3.2.1.3")
FRAGMENTS_OFF      = _reason("fragments_off", "ip", O, "a fragment while ip.fragment_memory is 0")
FRAGMENT_LENGTH    = _reason("fragment_bad_length", "ip", E, "an empty fragment, or one before the last that is no multiple of 8 bytes", "RFC 791 3.2")
FRAGMENT_BEYOND    = _reason("fragment_beyond_65535", "ip", E, "a fragment that makes the datagram longer than any can be", "RFC 791 3.2")
FRAGMENT_DUPLICATE = _reason("fragment_duplicate", "ip", N, "a fragment that has come before", "RFC 791 3.2")
FRAGMENT_OVERLAP   = _reason("fragment_overlap", "ip", E, "a fragment that overlaps another: the datagram is refused", "RFC 5722 4")
FRAGMENT_END       = _reason("fragment_two_ends", "ip", E, "fragments that tell different lengths: the datagram is refused", "RFC 791 3.2")
FRAGMENT_COUNT     = _reason("fragment_too_many", "ip", O, "more fragments than ip.fragments_per_datagram: the datagram is refused")
FRAGMENT_OF_REFUSED = _reason("fragment_of_refused", "ip", N, "a fragment of a datagram that was refused", "RFC 5722 4")
FRAGMENT_ECN       = _reason("fragment_ecn", "ip", E, "congestion marked on one fragment, and another cannot carry ECN: the datagram is refused", "RFC 3168 5.3")
FRAGMENT_TIME      = _reason("fragment_timeout", "ip", O, "a datagram whose other fragments did not come in time", "RFC 1122 3.3.2")
FRAGMENT_MEMORY    = _reason("fragment_memory", "ip", O, "the oldest datagram that lacks fragments, as ip.fragment_memory is used up", "RFC 1122 3.3.2")
NO_PROTOCOL        = _reason("no_protocol", "ip", O, "a protocol that nothing here speaks", "RFC 1122 3.2.2.1")
# --- ip: ICMP that came in, or was not sent (layers.ip.icmp)
ICMP_TRUNCATED     = _reason("icmp_truncated", "ip", E, "shorter than an ICMP header", "RFC 792")
ICMP_CHECKSUM      = _reason("icmp_bad_checksum", "ip", E, "the ICMP checksum is wrong", "RFC 792")
ICMP_UNKNOWN_TYPE  = _reason("icmp_unknown_type", "ip", O, "an ICMP type that we do not know", "RFC 1122 3.2.2")
ICMP_UNSUPPORTED   = _reason("icmp_unsupported", "ip", N, "an ICMP message that a host need not act on", "RFC 1122 3.2.2")
ICMP_REDIRECT      = _reason("icmp_redirect_ignored", "ip", O, "a redirect while ip.accept_redirects is false, or of an unknown code")
ICMP_REDIRECT_FROM = _reason("icmp_redirect_foreign", "ip", E, "a redirect that is not from the gateway in use", "RFC 1122 3.2.2.2")
ICMP_REDIRECT_TO   = _reason("icmp_redirect_bad_gateway", "ip", E, "a redirect to a gateway that we cannot reach directly, or must not use", "RFC 1122 3.2.2.2")
ICMP_SOURCE_QUENCH = _reason("icmp_source_quench", "ip", N, "a source quench, to be ignored", "RFC 6633 3")
ICMP_GROUP         = _reason("icmp_broadcast", "ip", N, "ICMP to a broadcast address", "RFC 1122 3.2.2.6")
ICMP_ECHO_OFF      = _reason("icmp_echo_off", "ip", N, "an echo request while ip.echo_reply is false")
ICMP_QUOTE         = _reason("icmp_bad_quote", "ip", E, "an ICMP error that does not quote enough of a packet", "RFC 1122 3.2.2")
ICMP_NOT_OURS      = _reason("icmp_not_ours", "ip", O, "an ICMP error about a packet that we did not send", "RFC 5927 4.1")
ICMP_NO_TRANSPORT  = _reason("icmp_no_transport", "ip", N, "an ICMP error about something that nobody here waits for")
ICMP_UNASKED       = _reason("icmp_unasked", "ip", N, "an echo reply that nobody waits for")
ICMP_RATE_LIMITED  = _reason("icmp_rate_limited", "ip", O, "an ICMP error beyond ip.icmp_rate_per_s", "RFC 1812 4.3.2.8")
ICMP_HOST_LIMITED  = _reason("icmp_host_rate_limited", "ip", O, "one more ICMP error to the same host within ip.icmp_ratelimit_ms", "RFC 1812 4.3.2.8")
PATH_MTU_STALE     = _reason("path_mtu_not_lower", "ip", N, "a path MTU that is no less than the one in use", "RFC 1191 3")
# --- ip: IGMP (layers.ip.membership)
IGMP_MALFORMED     = _reason("igmp_malformed", "ip", E, "no whole IGMP message", "RFC 3376 4, 7.1")
IGMP_CHECKSUM      = _reason("igmp_bad_checksum", "ip", E, "the IGMP checksum is wrong", "RFC 3376 4.1.2")
IGMP_NO_ALERT      = _reason("igmp_no_router_alert", "ip", E, "a query without router alert, or from beyond the link", "RFC 3376 9.1")
IGMP_BAD_QUERY     = _reason("igmp_bad_query", "ip", E, "a query to another group than the one it asks about", "RFC 3376 4.1.12")
IGMP_REPORT        = _reason("igmp_not_for_hosts", "ip", N, "an IGMP report or leave that says nothing to us", "RFC 3376 4")
TOO_MANY_GROUPS    = _reason("too_many_groups", "ip", O, "a socket joins a group, and too many are joined already")
IGMP_UNKNOWN_TYPE  = _reason("igmp_unknown_type", "ip", N, "an IGMP type that we do not know", "RFC 3376 4")
ICMP_NOT_ALLOWED   = _reason("icmp_error_not_allowed", "ip", N, "no ICMP error may answer this packet", "RFC 1122 3.2.2")
# --- ip: what was to go out (layers.ip.core)
NO_ROUTE           = _reason("no_route", "ip", O, "no route to the destination", "RFC 1122 3.3.1.1")
SOURCE_NOT_OURS    = _reason("source_not_ours", "ip", E, "a source address that is not ours", "RFC 1122 3.2.1.3")
BROADCAST_REFUSED  = _reason("broadcast_refused", "ip", O, "to a broadcast or multicast address without having asked for it", "RFC 1122 4.2.3.10")
DATAGRAM_TOO_LONG  = _reason("datagram_too_long", "ip", E, "more than 65,535 bytes", "RFC 791 3.1")
EXCEEDS_MTU        = _reason("exceeds_mtu", "ip", N, "larger than the MTU, and not to be fragmented", "RFC 1191 3")
NEEDS_CHECKSUM     = _reason("needs_checksum", "ip", O, "to be fragmented, with a checksum that nobody can complete", "RFC 791 3.2")
ROUTE_BLACKHOLE    = _reason("route_blackhole", "ip", O, "a route says blackhole", "RFC 1812 5.2.4.3, as Linux")
ROUTE_UNREACHABLE  = _reason("route_unreachable", "ip", O, "a route says unreachable", "as Linux")
ROUTE_PROHIBIT     = _reason("route_prohibit", "ip", O, "a route says prohibited", "as Linux")
LOOPBACK_OUTSIDE   = _reason("loopback_outside", "ip", E, "a loopback source to a destination outside", "RFC 1122 3.2.1.3")
IP_QUEUE_FULL      = _reason("ip_queue_full", "ip", O, "the queue of packets that wait for link is full")
# --- link (layers.link)
RUNT             = _reason("runt", "link", E, "frame shorter than its link header", "IEEE 802.3 3.2")
TORN_FRAME       = _reason("torn_frame", "link", E, "frame shorter than its IP packet says", "RFC 791 3.1")
WRONG_MAC        = _reason("wrong_mac", "link", N, "Ethernet destination is neither ours nor a group", "RFC 894")
FOREIGN_GROUP    = _reason("foreign_group", "link", N, "Ethernet multicast of a group that ip has not joined", "RFC 1112 7.3")
VLAN_TAG         = _reason("vlan_tag", "link", O, "VLAN-tagged frame", "IEEE 802.1Q")
FOREIGN_TYPE     = _reason("foreign_type", "link", N, "neither IPv4 nor ARP", "RFC 894")
BAD_VNET         = _reason("bad_vnet", "link", E, "virtio header that makes no sense", "virtio 1.2 5.1.6")
ARP_MALFORMED    = _reason("arp_malformed", "link", E, "ARP packet that is not for IPv4 over Ethernet", "RFC 826")
ARP_BAD_OP       = _reason("arp_bad_op", "link", E, "ARP packet neither request nor reply", "RFC 826")
ARP_BAD_SENDER   = _reason("arp_bad_sender", "link", E, "ARP sender that no host can have", "RFC 1122 3.2.1.3")
ARP_OWN          = _reason("arp_own", "link", N, "our own ARP packet, come back", "RFC 826")
ARP_CONFLICT     = _reason("arp_conflict", "link", E, "another host claims our address", "RFC 5227 2.4")
ARP_NOT_FOR_US   = _reason("arp_not_for_us", "link", N, "ARP packet about others, of no use to us", "RFC 826")
ARP_UNSOLICITED  = _reason("arp_unsolicited", "link", O, "ARP reply that nobody asked for", "RFC 826, as Linux arp_accept=0")
ARP_CONTRADICTS  = _reason("arp_contradicts", "link", O, "another MAC for a neighbour in use: the known one is asked first", "RFC 4861 7.2.5")
ARP_UNCLAIMED    = _reason("arp_unclaimed", "link", O, "our address is still being probed for, or another host has it", "RFC 5227 2.1")
ARP_QUEUE_FULL   = _reason("arp_queue_full", "link", O, "too many packets wait for one ARP answer", "RFC 1122 2.3.2.2")
ARP_CACHE_FULL   = _reason("arp_cache_full", "link", O, "too many ARP questions at once", "RFC 1122 2.3.2.1")
ARP_UNANSWERED   = _reason("arp_unanswered", "link", O, "the next hop does not answer ARP", "RFC 1122 3.3.1.5")
NO_NEXT_HOP      = _reason("no_next_hop", "link", E, "no IPv4 next hop to resolve", "RFC 1122 3.3.1")
OVER_DEVICE_MTU  = _reason("too_long_for_device", "link", E, "packet or piece longer than the device's MTU", "RFC 1122 3.3.2")
BAD_OFFLOAD      = _reason("bad_offload", "link", E, "a checksum or cut is asked for that the packet does not allow")
DEVICE_DOWN      = _reason("device_down", "link", O, "the device is down")
DEVICE_QUEUE     = _reason("device_queue", "link", O, "too many frames wait for the device")
DEVICE_ERROR     = _reason("device_error", "link", E, "the device refused the frame")
WIRE_PEER        = _reason("wire_peer", "link", O, "the wire has no peer now")
WIRE_TRUNCATED   = _reason("wire_truncated", "link", E, "datagram longer than any frame")
# --- gateway
NO_SESSION       = _reason("no_session", "gateway", E, "a client that has not said Hello")
DOOR_CLOSED      = _reason("door_closed", "gateway", O, "a user who may not open sockets here (gateway.door_mode)")
CLIENT_LIMIT     = _reason("client_limit", "gateway", O, "more clients than gateway.clients")
CLIENT_VERSION   = _reason("client_version", "gateway", E, "a client of another version of the protocol")
BAD_MEMORY       = _reason("bad_memory", "gateway", E, "a client's memory file is missing, foreign or of the wrong size")
UNKNOWN_SOCKET   = _reason("unknown_socket", "gateway", N, "for a socket that is closed, or never was this client's")
WRONG_STATE      = _reason("wrong_state", "gateway", N, "stream data for a socket that is not connected")
BAD_STREAM       = _reason("bad_stream", "gateway", E, "a stream message whose offsets, length or payload cannot be")
TCP_UNKNOWN      = _reason("tcp_unknown", "gateway", N, "tcp speaks of a socket that the application has closed")
CLIENT_DEAF      = _reason("client_deaf", "gateway", E, "a client that does not read what it is sent")
CLIENT_GONE      = _reason("client_gone", "gateway", N, "the client's connection is gone")
# --- tcp: segments (layers.tcp)
TCP_MALFORMED        = _reason("tcp_malformed", "tcp", E, "no whole TCP header", "RFC 9293 3.1")
TCP_CHECKSUM         = _reason("tcp_checksum", "tcp", E, "the checksum is wrong", "RFC 9293 3.1")
TCP_NO_CONNECTION    = _reason("tcp_no_connection", "tcp", O, "for a port where nobody listens: answered with RST", "RFC 9293 3.10.7.1")
TCP_RST_NOWHERE      = _reason("tcp_rst_nowhere", "tcp", N, "RST for no connection", "RFC 9293 3.10.7.1")
TCP_BROADCAST        = _reason("tcp_broadcast", "tcp", O, "to a broadcast address", "RFC 9293 3.9.2.3")
TCP_LAND             = _reason("tcp_land", "tcp", E, "a SYN from its own destination", "RFC 9293 3.10.7.2")
TCP_ACK_TO_LISTENER  = _reason("tcp_ack_to_listener", "tcp", O, "an ACK where only a SYN can be: answered with RST", "RFC 9293 3.10.7.2")
TCP_NO_SYN           = _reason("tcp_no_syn", "tcp", O, "no SYN where one was waited for", "RFC 9293 3.10.7.2, 3.10.7.3")
TCP_SYN_FIN          = _reason("tcp_syn_fin", "tcp", E, "SYN and FIN together", "RFC 9293 3.10.7.2, as Linux")
TCP_SYN_PAYLOAD      = _reason("tcp_syn_payload", "tcp", O, "payload of a SYN, to be sent again", "RFC 9293 3.10.7.2, as Linux without Fast Open")
SYN_QUEUE_FULL       = _reason("syn_queue_full", "tcp", O, "too many half-open connections for the backlog", "RFC 9293 3.9.1.1, as Linux")
ACCEPT_QUEUE_FULL    = _reason("accept_queue_full", "tcp", O, "too many connections wait for accept()", "RFC 9293 3.9.1.1, as Linux")
TCP_NO_SLOT          = _reason("tcp_no_slot", "tcp", O, "no ring slot is free (tcp.connections)")
TCP_NO_ROUTE         = _reason("tcp_no_route", "tcp", O, "no route back to the sender", "RFC 1122 3.3.1.1")
TCP_BELOW_WINDOW     = _reason("tcp_below_window", "tcp", N, "below the window: it has come before", "RFC 9293 3.10.7.4, first step")
TCP_BEYOND_WINDOW    = _reason("tcp_beyond_window", "tcp", O, "beyond the window", "RFC 9293 3.10.7.4, first step")
TCP_ZERO_WINDOW      = _reason("tcp_zero_window", "tcp", N, "our window is closed", "RFC 9293 3.10.7.4, first step")
TCP_TRIMMED          = _reason("tcp_trimmed", "tcp", N, "the part of it beyond the window or the FIN", "RFC 9293 3.10.7.4, first step")
TCP_PAWS             = _reason("tcp_paws", "tcp", N, "an old timestamp: from before the sequence numbers wrapped", "RFC 7323 5.3")
TCP_PAWS_ECHO        = _reason("tcp_paws_echo", "tcp", O, "answers our SYN, but echoes a timestamp that it never had: answered with RST", "RFC 7323 5.2, as Linux")
TCP_NO_TIMESTAMP     = _reason("tcp_no_timestamp", "tcp", O, "no timestamp though both sides agreed on them", "RFC 7323 3.2")
TCP_RST_OUTSIDE      = _reason("tcp_rst_outside", "tcp", O, "RST outside the window", "RFC 9293 3.10.7.4, second step")
TCP_RST_GUESSED      = _reason("tcp_rst_guessed", "tcp", O, "RST in the window, but not at its start: challenge ACK", "RFC 5961 3.2")
TCP_SYN_INSIDE       = _reason("tcp_syn_inside", "tcp", O, "SYN on an open connection: challenge ACK", "RFC 5961 4.2")
TCP_SYN_AGAIN        = _reason("tcp_syn_again", "tcp", N, "the SYN once more: SYN-ACK once more", "RFC 9293 3.10.7.4, fourth step")
TCP_NO_ACK           = _reason("tcp_no_ack", "tcp", E, "no ACK flag", "RFC 9293 3.10.7.4, fifth step")
TCP_ACK_BAD          = _reason("tcp_ack_bad", "tcp", O, "acknowledges what is not our SYN: answered with RST", "RFC 9293 3.10.7.3, 3.10.7.4")
TCP_DEFERRED         = _reason("tcp_deferred", "tcp", N, "TCP_DEFER_ACCEPT waits for data: not handed out yet", "Linux tcp_check_req")
TCP_ACK_UNSENT       = _reason("tcp_ack_unsent", "tcp", E, "acknowledges what we have not sent", "RFC 9293 3.10.7.4, fifth step")
TCP_ACK_ANCIENT      = _reason("tcp_ack_ancient", "tcp", O, "acknowledges what is long past: challenge ACK", "RFC 5961 5.2")
TCP_SACK_INVALID     = _reason("tcp_sack_invalid", "tcp", E, "a SACK block of what is not outstanding", "RFC 2018 3, RFC 2883 4")
TCP_AFTER_FIN        = _reason("tcp_after_fin", "tcp", E, "text or FIN after the FIN", "RFC 9293 3.10.7.4, seventh step")
TCP_DATA_AFTER_CLOSE = _reason("tcp_data_after_close", "tcp", O, "data that nobody will read: answered with RST", "RFC 9293 3.10.4, RFC 2525 2.17")
TCP_TOO_MANY_HOLES   = _reason("tcp_too_many_holes", "tcp", O, "too many ranges out of order to remember one more")
TCP_IN_TIME_WAIT     = _reason("tcp_in_time_wait", "tcp", N, "for a connection in TIME-WAIT", "RFC 9293 3.10.7.4")
TIME_WAIT_FULL       = _reason("time_wait_full", "tcp", O, "too many connections in TIME-WAIT: this one skips it", "as Linux tcp_max_tw_buckets")
TCP_TOO_MANY_ORPHANS = _reason("tcp_too_many_orphans", "tcp", O, "more connections than tcp.max_orphans that nobody owns: RST", "as Linux tcp_max_orphans")
TCP_QUEUE_FULL       = _reason("tcp_queue_full", "tcp", O, "too many ACKs and RSTs wait for ip")
# --- tcp: ICMP errors and calls
TCP_ICMP_STRAY       = _reason("tcp_icmp_stray", "tcp", O, "an ICMP error that concerns no connection, or says nothing new", "RFC 5927 4")
TCP_ICMP_FITS        = _reason("tcp_icmp_fits", "tcp", E, "an ICMP error: too big, about a segment that is no larger than it says", "RFC 5927 7.1")
TCP_ICMP_NOT_IN_FLIGHT = _reason("tcp_icmp_not_in_flight", "tcp", E, "an ICMP error about what is not in flight", "RFC 5927 4.1")

UDP_UNKNOWN        = _reason("udp_unknown", "gateway", N, "udp or a client speaks of a datagram socket that is not there")
UDP_DOWN           = _reason("udp_down", "gateway", O, "udp is not running, or far behind: a datagram is lost")
UDP_MALFORMED      = _reason("udp_malformed", "udp", E, "no whole UDP datagram", "RFC 768")
UDP_NOT_INLINE     = _reason("udp_not_inline", "udp", E, "a datagram whose bytes lie in memory, where only TCP's do")
UDP_CHECKSUM       = _reason("udp_checksum", "udp", E, "the checksum is wrong", "RFC 1122 4.1.3.4")
UDP_NO_PORT        = _reason("udp_no_port", "udp", O, "for a port where nobody receives: answered with port unreachable", "RFC 1122 4.1.3.1")
UDP_BUFFER_FULL    = _reason("udp_buffer_full", "udp", O, "the application is slow: its receive buffer is full", "as Linux (UdpRcvbufErrors)")
UDP_QUEUE_FULL     = _reason("udp_queue_full", "udp", O, "too many datagrams wait for ip (udp.queue)")
UDP_NO_SOCKETS     = _reason("udp_no_sockets", "udp", O, "more datagram sockets than udp.sockets")
UDP_UNKNOWN_SOCKET = _reason("udp_unknown_socket", "udp", N, "the gateway speaks of a socket that is not there")
UDP_NO_PING        = _reason("udp_no_ping", "udp", N, "an echo reply that nobody waits for", "RFC 1122 3.2.2.6")
UDP_ICMP_STRAY     = _reason("udp_icmp_stray", "udp", O, "an ICMP error that concerns no socket", "RFC 1122 4.1.3.3")
TCP_UNKNOWN_SOCKET   = _reason("tcp_unknown_socket", "tcp", N, "a message of the gateway about a socket that is no more")
TCP_NOT_CONNECTED    = _reason("tcp_not_connected", "tcp", N, "data for a connection that is not open")
TCP_REPEATED_CALL    = _reason("tcp_repeated_call", "tcp", O, "a connect on a socket that is in use already")
TCP_SEND_GAP         = _reason("tcp_send_gap", "tcp", O, "data beyond what is known of the stream: asked for again", "docs/rpc.md, Streams")
TCP_SEND_BEYOND      = _reason("tcp_send_beyond", "tcp", E, "data beyond the limit that was granted", "docs/rpc.md, Streams")
TCP_SEND_AFTER_EOF   = _reason("tcp_send_after_eof", "tcp", E, "data after the end of the stream")
TCP_CONSUMED_AHEAD   = _reason("tcp_consumed_ahead", "tcp", E, "more was consumed than was delivered")
TCP_UNKNOWN_OPTION   = _reason("tcp_unknown_option", "tcp", O, "a socket option that tcp does not know")
TCP_UNREAD           = _reason("tcp_unread", "tcp", N, "received data that the application closed upon: RST", "RFC 2525 2.17")
TCP_MEMORY_LOST      = _reason("tcp_memory_lost", "tcp", O, "the memory that holds a connection's rings is gone: RST")
# fmt: on
