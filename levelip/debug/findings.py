"""What `lvlip why` can find: name, what it is, the rule that was broken or is at work, what to do. And a finding itself."""

# ruff: noqa: E501 - a table: one finding a paragraph
from __future__ import annotations

from dataclasses import dataclass, field

from levelip.debug.facts import Fact
from levelip.tracing.reasons import lookup


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the list. `explains`: findings that are mere consequences where this one is found before them."""

    name: str
    title: str
    rule: str
    advice: str
    explains: tuple[str, ...] = ()


@dataclass(slots=True)
class Finding:
    """Something wrong. `packet`: the first wrong one; None where none was seen. `certain`: the records leave no other
    reading; else it is the likeliest."""

    name: str
    says: str
    packet: Fact | None
    at: int
    because: list[str] = field(default_factory=list)
    certain: bool = True
    reason: str = ""
    """Name of the reason with which it was discarded, if the finding is about that."""
    fault: str = ""
    """What lvlip fault did that led to it, if that was seen: "loss", "dup", "corrupt", "delay", "reorder"."""
    led_to: list[Finding] = field(default_factory=list)
    """Of a change by an addon: which others follow from it, of those that its kind explains."""

    @property
    def rule(self) -> str:
        """The rule that was broken or is at work."""
        known = lookup(self.reason)
        return (known.rule or known.sentence) if known is not None else self.kind.rule

    @property
    def advice(self) -> str:
        """What to do."""
        return self.kind.advice.replace("REASON", self.reason) if self.reason else self.kind.advice

    @property
    def kind(self) -> Kind:
        """Its row in the list."""
        return KINDS[self.name]


_LOSSES = ("segment_lost", "peer_segment_lost", "late_ack", "spurious_retransmission")
_SILENCE = (*_LOSSES, "peer_silent", "syn_unanswered", "syn_lost", "fin_lost", "peer_fin_lost")

_UNDO = "It is what was asked for: lvlip fault show has all that are set and their counts, lvlip fault clear takes them away."
_GONE = ("syn_unanswered", "syn_lost", "fin_lost", "peer_fin_lost", "peer_silent", "path_mtu_blackhole", "neighbour_silent",
         "spurious_retransmission", "late_ack")

_ROWS = (
    Kind("own_loss", "lvlip fault lost packets of it", "lvlip fault show", _UNDO, _GONE),
    Kind("own_corruption", "lvlip fault damaged packets of it", "lvlip fault show", _UNDO,
         (*_GONE, "bad_checksum", "changed_inside", "discarded")),
    Kind("own_delay", "lvlip fault delayed packets of it", "lvlip fault show", _UNDO,
         ("late_ack", "spurious_retransmission", "syn_lost")),
    Kind("own_reordering", "lvlip fault let packets of it overtake others", "lvlip fault show", _UNDO, ("spurious_retransmission",)),
    Kind("own_duplication", "lvlip fault sent packets of it twice", "lvlip fault show", _UNDO,
         ("spurious_retransmission", "syn_on_open", "stray_reset")),
    Kind("window_scale_wrong", "the window scale that came is not the one that the peer uses", "RFC 7323 2.2, 2.3",
         "Look for a middlebox that rewrites or removes the window scale option of SYNs; tcp.window_scaling false avoids scaling until it is gone.",
         (*_LOSSES, "window_shrunk", "zero_window", "beyond_window")),
    Kind("mss_rewritten", "the MSS in the SYN is not what the peer's own segments show", "RFC 9293 3.7.1, MUST-16",
         "A middlebox clamps the MSS: right on a path with a smaller MTU, wasteful elsewhere. Compare the SYN at both ends."),
    Kind("our_mss_rewritten", "the peer's full segments are smaller than the MSS that we announced", "RFC 9293 3.7.1, SHLD-6",
         "Either the path to the peer is narrower, or the MSS in our SYN was rewritten on the way: compare the SYN at both ends."),
    Kind("options_stripped", "an option that the peer uses was missing in its SYN", "RFC 9293 3.2, MUST-6; RFC 7323 3.2; RFC 2018 2",
         "A middlebox removes TCP options (firewalls call it normalization): let it pass SACK, timestamps and window scale.",
         (*_LOSSES, "peer_silent", "path_mtu_blackhole")),
    Kind("timestamps_missing", "a segment without a timestamp though both sides agreed on them", "RFC 7323 3.2",
         "A middlebox removes TCP options from segments after the handshake, or the peer is broken.", _SILENCE),
    Kind("sack_missing", "duplicate ACKs without SACK blocks though SACK was agreed on", "RFC 2018 4",
         "A middlebox removes SACK options after the handshake, so that losses are found by duplicate ACKs and timeouts alone."),
    Kind("window_shrunk", "the peer took back window that it had granted", "RFC 9293 3.8.6, SHLD-14",
         "A middlebox rewrites windows, or the peer's receive buffer was made smaller; we go on within the new window (MUST-34).",
         ("segment_lost", "zero_window", "late_ack")),
    Kind("zero_window", "the peer's window is closed: its application does not read", "RFC 9293 3.8.6.1",
         "Look at the peer's application; its queue is full. We probe until the window opens."),
    Kind("our_zero_window", "our window is closed: our application does not read", "RFC 9293 3.8.6.2",
         "See Recv-Q in lvlip ss: the program behind the socket does not take what has come."),
    Kind("beyond_window", "the peer sent more than our window takes", "RFC 9293 3.10.7.4, first step",
         "The peer reads our window wrongly: compare the window scale of our SYN at both ends (RFC 7323 2.2)."),
    Kind("segment_lost", "a segment of ours was lost", "RFC 5681 3.2, RFC 6298 5, RFC 8985 6.2",
         "One now and then is life. Many: look for a full queue, a bad cable, a duplex mismatch on the path."),
    Kind("peer_segment_lost", "a segment of the peer was lost", "RFC 9293 3.10.7.4; RFC 5681 4.2",
         "As for ours; lvlip stat --drops tells whether it was lost within this stack."),
    Kind("spurious_retransmission", "sent again though the peer has it", "RFC 5682, RFC 3522, RFC 2883",
         "The path reorders or its delay jumps; where all ACKs are late, see late_ack."),
    Kind("late_ack", "the ACK came later than the retransmission timeout: it was sent again for nothing", "RFC 6298 2, RFC 9293 3.8.6.3, RFC 3522",
         "Something holds ACKs back: a delayed ACK above 500 ms (RFC 9293 3.8.6.3), a shaper or a queue on the way back.",
         ("segment_lost", "spurious_retransmission")),
    Kind("fin_lost", "our FIN was lost", "RFC 9293 3.6, 3.8.1",
         "The FIN is repeated by the retransmission timer; the peer sees end of file only then."),
    Kind("peer_fin_lost", "the peer's FIN was lost", "RFC 9293 3.6, 3.10.7.4",
         "We learn of the end of file when the peer repeats it; if it never does, the connection hangs in FIN-WAIT-2 or ESTABLISHED.",
         ("peer_segment_lost",)),
    Kind("stale_arp", "packets went to a MAC address that the neighbour no longer has", "RFC 1122 2.3.2.1, RFC 826",
         "lvlip neigh shows the entry. Who announced it? The host moved without announcing itself (RFC 5227 2.3), or somebody spoofs ARP.",
         (*_SILENCE, "path_mtu_blackhole", "neighbour_silent")),
    Kind("neighbour_silent", "the next hop does not answer ARP", "RFC 1122 2.3.2.1, 3.3.1.5",
         "Is the address right, and is the host up and on this link?", (*_SILENCE, "discarded")),
    Kind("peer_silent", "the peer fell silent: nothing that we send is answered", "RFC 9293 3.8.3, RFC 1122 4.2.3.5",
         "Is the host up, and the way to and back? A firewall that forgot the connection drops in silence, too.",
         (*_LOSSES, "fin_lost")),
    Kind("path_mtu_blackhole", "large packets vanish and no ICMP says why", "RFC 2923 2.1, RFC 1191 3, RFC 4821 3",
         "Let ICMP 'fragmentation needed' pass, or lower the MTU or MSS; tcp.mtu_probing finds the size by itself.",
         (*_LOSSES, "fin_lost", "peer_silent")),
    Kind("bad_checksum", "what came was damaged: its checksum is wrong", "RFC 9293 3.1, MUST-3; RFC 1122 3.2.1.2",
         "Hardware, a driver's checksum offload, or a middlebox that changes packets without mending the sum.",
         ("peer_segment_lost", "peer_fin_lost", "syn_unanswered", *_LOSSES)),
    Kind("reset_forged", "a reset that the peer did not send", "RFC 5961 3, RFC 9293 3.5.3",
         "Something on the path ends connections (a firewall, a censor, an attacker). Compare TTL and IP ident of the RST with the peer's other packets.",
         ("discarded", *_LOSSES)),
    Kind("reset_by_peer", "the peer reset the connection", "RFC 9293 3.10.7.4, second step",
         "The peer's program closed with data unread, crashed, or its kernel knows nothing of the connection."),
    Kind("reset_by_us", "we reset the connection", "RFC 9293 3.10.4, RFC 2525 2.17",
         "The reason stands with the event: a close with unread data, an abort, or a segment that cannot be."),
    Kind("stray_reset", "a reset outside of what the connection expects, ignored", "RFC 5961 3.2",
         "An old duplicate or a blind attack: it was answered with a challenge ACK and did no harm."),
    Kind("syn_on_open", "a SYN on a connection that is open", "RFC 5961 4.2, RFC 9293 3.10.7.4, fourth step",
         "An old duplicate of the handshake, a peer that restarted, or a blind attack; a challenge ACK asks the peer."),
    Kind("syn_unanswered", "nobody answers the SYN", "RFC 9293 3.8.3, RFC 6298 2",
         "A firewall drops it, the host is down, or the way back is broken."),
    Kind("half_open", "the peer still had an older connection of these ports, half-open", "RFC 9293 3.5.1, 3.10.7.3, first step",
         "Our RST ends it there, and the SYN that is sent again opens the new one: it costs the first RTO, a second. This side was restarted, or lost power, without a FIN or RST; a connect() from another port does not meet it.",
         ("discarded", "reset_by_us")),
    Kind("syn_lost", "the SYN or its answer was lost", "RFC 6298 2.1, 5.7",
         "A lost SYN costs a second, as there is no RTT yet."),
    Kind("refused", "the SYN was answered with a reset: nobody listens there", "RFC 9293 3.10.7.1",
         "Is the server running, and on this address and port?"),
    Kind("unreachable", "an ICMP error came about the connection", "RFC 1122 4.2.3.9, RFC 5927",
         "The text of the ICMP message says who could not deliver and why."),
    Kind("own_change", "an addon or a debugger changed packets of it, and they went wrong", "lvlip addon list, lvlip held",
         "Do without it: lvlip addon unload. A middlebox that does the same on the path would do the same harm.",
         (*_LOSSES, *_GONE, "refused", "reset_by_peer", "bad_checksum", "discarded")),
    Kind("changed_inside", "a packet was changed within this stack, and nobody says that he did it", "lvlip trace --layer LAYER -v",
         "No addon, fault or debugger did: a bug of Level-IP, or memory that was overwritten; please report it. (Records without events, and recordings of an older Level-IP, do not know of addons.)"),
    Kind("vanished_inside", "a packet went into a process and nothing came of it", "lvlip stat --drops",
         "A fault or an addon took it, a pipe was full, or the process was restarted.",
         _LOSSES),
    Kind("discarded", "a packet was discarded", "the reason's own rule, RFC and section: lvlip explain REASON",
         "lvlip explain REASON says more."),
)  # fmt: skip

KINDS = {row.name: row for row in _ROWS}
