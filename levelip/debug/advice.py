"""What to do about a reason, and what the kinds of events mean: what `lvlip explain` adds to the lists of names."""

# ruff: noqa: E501 - tables: one name a line
from __future__ import annotations

from levelip.tracing.reasons import Reason, Severity

_BAD_SENDER = "Find the sender by its address: its stack, driver or a middlebox makes broken packets."
_QUEUE = "Something cannot keep up. lvlip status says who waits; a larger queue only hides it."
_ROUTE = "lvlip route shows the table; lvlip route add mends it."
_FORGED = "Somebody on the path or beside it makes such packets, or an old connection's are still under way. It did no harm."

REASONS = {
    # shell
    "pipe_full": _QUEUE,
    "neighbour_down": "A layer is being restarted, or does not run: lvlip status, lvlip logs LAYER.",
    "memory_lost": "A client ended, or a process was too slow to read a slot of the device pool: lvlip logs.",
    "unknown_key": "Add the key to ipc.allowed_keys if it is a friend's (lvlip keygen).",
    "fault_loss": "lvlip fault show; lvlip fault clear ends it.",
    "addon_drop": "lvlip addon list; lvlip addon unload ends it.",
    "addon_queue": "The addon delays more packets than can be kept: let it delay fewer, or for less time.",
    # ip
    "ip_bad_checksum": "A cable, a card, or a router that does not mend the header's sum.",
    "martian_source": "A misconfigured host, or a forged packet. lvlip trace --filter 'reason == martian_source' shows whence.",
    "martian_destination": "Something routes here what no host may accept.",
    "fragment_overlap": "An attack on reassembly, or a broken sender.",
    "fragment_timeout": "Fragments are lost: look for a firewall that lets only the first pass; better, find out why it is fragmented.",
    "fragments_off": "Set ip.fragment_memory, if fragments are to be taken.",
    "no_route": _ROUTE, "route_blackhole": _ROUTE, "route_unreachable": _ROUTE, "route_prohibit": _ROUTE, "tcp_no_route": _ROUTE,
    "exceeds_mtu": "Path MTU discovery at work: the sender learns of it. Nothing to do if it then sends smaller packets.",
    "source_not_ours": "The program is bound to an address that the stack does not have: lvlip address.",
    "icmp_not_ours": "An ICMP error about somebody else's packet, or a forged one.",
    "icmp_redirect_foreign": "Only the gateway in use may redirect: somebody tries to draw traffic to himself.",
    "icmp_rate_limited": "Many packets are refused: lvlip stat --drops says which. ip.icmp_rate_per_s is the limit.",
    "no_protocol": "Nothing here speaks it; the sender was told by ICMP.",
    # link
    "arp_conflict": "Two hosts have the address: give one of them another. lvlip neigh, and the MAC in the event, say who.",
    "arp_unanswered": "Is the address right, the host up and on this link? lvlip neigh.",
    "arp_contradicts": "The neighbour has a new MAC address, or somebody spoofs ARP; the known one is asked first.",
    "arp_unsolicited": "Somebody announces himself unasked, or tries to put an entry into our cache.",
    "arp_unclaimed": "Wait until the probes are over (link.acd_probes), or another host has the address.",
    "arp_queue_full": "The neighbour does not answer; what waits beyond link.arp_queue is lost.",
    "wrong_mac": "The switch floods, or the device is promiscuous: nothing to do.",
    "device_down": "Bring the interface up: ip link set DEV up.",
    "device_queue": _QUEUE,
    "vlan_tag": "Take the tag off on the host: the stack knows no VLANs.",
    "too_long_for_device": "The MTU of the device is smaller than that of the layer above: lvlip status.",
    # tcp
    "tcp_checksum": "Hardware, a driver's offload, or a middlebox that changes packets without mending the sum.",
    "tcp_malformed": _BAD_SENDER,
    "tcp_no_connection": "Nobody listens there: lvlip ss -l. After a restart of tcp it is a connection of before.",
    "tcp_land": "A forged packet (LAND).",
    "tcp_syn_fin": "A port scanner.",
    "tcp_ack_to_listener": "A connection of before a restart, a scan, or a wrong SYN cookie.",
    "syn_queue_full": "More connections come than are accepted: raise the backlog, or set tcp.syncookies.",
    "accept_queue_full": "The program does not accept() fast enough, or its backlog is small: lvlip ss -l.",
    "tcp_no_slot": "Raise tcp.connections.",
    "tcp_beyond_window": "The peer sends more than we granted: lvlip why says whether our window scale was changed on the way.",
    "tcp_zero_window": "Our application does not read: Recv-Q in lvlip ss.",
    "tcp_below_window": "A repetition: the ACK was lost or late. Many: lvlip why.",
    "tcp_paws": "Old duplicates; many mean a peer whose timestamps go back, or several hosts behind one NAT address.",
    "tcp_no_timestamp": "A middlebox strips options after the handshake: lvlip why.",
    "tcp_rst_outside": _FORGED, "tcp_rst_guessed": _FORGED, "tcp_syn_inside": _FORGED, "tcp_ack_ancient": _FORGED,
    "tcp_icmp_not_in_flight": _FORGED, "tcp_icmp_stray": _FORGED,
    "tcp_ack_unsent": "A forged ACK, or a peer that is broken.",
    "tcp_ack_bad": "A connection of before a restart, on either side.",
    "tcp_sack_invalid": "A middlebox changes sequence numbers and forgets those in SACK blocks (a known fault of firewalls).",
    "tcp_data_after_close": "The program closed before the peer had sent all: the peer gets a RST.",
    "tcp_unread": "The program closed with data unread, and so reset: read until end of file first.",
    "tcp_too_many_holes": "Very many losses or an attack: it is sent again.",
    "time_wait_full": "Many short connections: keep them open and use them again, or let the peer close first.",
    "tcp_too_many_orphans": "Programs closed with data that the peers do not take: tcp.max_orphans.",
    "tcp_memory_lost": "The client's process ended, or took its memory away.",
    "client_deaf": "The program's helper does not read: is it stopped?",
    "door_closed": "gateway.door_mode says who may use the stack.",
    "client_limit": "Raise gateway.clients.",
}  # fmt: skip

EVENTS = {
    "addon": ("an addon changed, delayed, repeated or made a packet (one that it dropped is a drop), or was loaded again, was slow, or failed and was taken out", "lvlip addon list"),
    "arp": ("an entry of the ARP cache changed", "RFC 826, RFC 4861 7.3 (states)"),
    "conflict": ("another host claims our address", "RFC 5227 2.4"),
    "cwnd": ("the congestion window changed", "RFC 5681 3.1, RFC 9438"),
    "drop": ("something was discarded; its reason says why", "lvlip explain REASON"),
    "dsack": ("the peer received something twice", "RFC 2883"),
    "ecn": ("a congestion mark came, or its echo ended", "RFC 3168 6.1.3"),
    "fault": ("lvlip fault delayed, repeated, corrupted or held back a packet; one that it lost is a drop", "lvlip fault show"),
    "fragment": ("a packet was cut into fragments", "RFC 791 3.2"),
    "hand": ("a debugger changed, delayed, repeated or made a packet (one that it dropped is a drop)", "lvlip held, lvlip inject"),
    "icmp": ("an ICMP message came, or was sent", "RFC 792, RFC 1122 3.2.2"),
    "loss": ("segments were found to be lost", "RFC 8985 6.2, RFC 6675 5"),
    "mtu_probe": ("a large segment tries out the path's MTU", "RFC 4821 7"),
    "pmtu": ("the path MTU changed", "RFC 1191, RFC 4821"),
    "probe": ("a probe of a closed window, or a keep-alive", "RFC 9293 3.8.6.1, 3.8.4"),
    "reassembled": ("a datagram was put together of its fragments", "RFC 815, RFC 791 3.2"),
    "recovery": ("loss recovery began, changed or ended", "RFC 6675 5, RFC 6582, RFC 8985"),
    "reneged": ("the peer no longer has what it acknowledged selectively", "RFC 2018 8"),
    "reordering": ("the path was seen to reorder packets", "RFC 8985 6.2, RFC 3708"),
    "reset": ("a RST was sent or came", "RFC 9293 3.5.2, 3.5.3"),
    "retransmit": ("a segment is sent again: fast, by RTO, as a tail loss probe (tlp), or after a partial ACK", "RFC 5681 3.2, RFC 6298 5.4, RFC 8985 7, RFC 6582 3.2"),
    "rto": ("the retransmission timer ran out", "RFC 6298 5.4-5.6"),
    "rtt": ("a round trip was measured", "RFC 6298 2, RFC 7323 4"),
    "state": ("a connection changed its state", "RFC 9293 3.3.2"),
    "syn_cookie": ("a SYN was answered by a cookie, as too many are half open", "RFC 4987 3.6"),
    "timer": ("a timer was armed", "RFC 9293 3.8"),
    "undo": ("a reduction of the congestion window was undone: it had been for nothing", "RFC 3522, RFC 5682, RFC 3708"),
    "urgent": ("urgent data", "RFC 6093"),
    "window": ("the peer's window changed", "RFC 9293 3.8.6"),
}
"""Kind of event → (what it means, rule)."""


def advice(reason: Reason) -> str:
    """What to do about a reason."""
    if reason.name in REASONS:
        return REASONS[reason.name]
    look = f"lvlip trace --filter 'reason == {reason.name}' shows each"
    if reason.severity is Severity.NORMAL:
        return f"Nothing: it happens on every healthy network; {look}."
    if reason.severity is Severity.ERROR:
        return f"Whoever sent it is wrong, or it was damaged on the way: {look}."
    return f"{look}, with what is known of it."
