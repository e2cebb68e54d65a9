"""Editing: each value reads back, nothing else changes but lengths and checksums; what cannot be is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from samples import (
    ARP_REQUEST,
    PACKETS,
    SYN_OPTIONS,
    TAGGED,
    A,
    B,
    device_frame,
    ethernet,
    icmp_error,
    ip,
    packet,
    segment,
    tcp,
)

from levelip.frames.packet import Checksum, DeviceFrame, LinkState, Segment
from levelip.rpc.place import Place
from levelip.tracing.edit import EDITABLE, EditError, edit, editable, parse_changes, pointed
from levelip.tracing.editoptions import OPTION_FIELDS
from levelip.tracing.fields import FIELDS, fields, fields_of_view
from levelip.tracing.fieldtypes import Kind
from levelip.tracing.view import view
from levelip.wire.segment import partial_tcp_checksum, split_tcp
from levelip.wire.tcp import ACK, PSH, SYN
from levelip.wire.vnet import VnetHeader

FRAMES = {name: packet(data) for name, data in PACKETS.items()}
FRAMES |= {f"link {name}": device_frame(ethernet(data)) for name, data in PACKETS.items()}
FRAMES |= {"arp": device_frame(ARP_REQUEST), "tagged": device_frame(TAGGED), "tun": device_frame(PACKETS["data"])}
FRAMES |= {"segment": segment(tcp(PSH | ACK, payload=b"hello")), "segment syn": segment(tcp(SYN, options=SYN_OPTIONS))}


def value_for(name: str) -> st.SearchStrategy[Any]:
    """Legal values of a field."""
    field = FIELDS[name]
    if name in ("tcp.options.sack_le", "tcp.options.sack_re"):
        return st.lists(st.integers(0, 0xFFFF_FFFF), min_size=1, max_size=2)
    if field.kind is Kind.FLAG:
        return st.booleans()
    if field.kind in (Kind.IPV4, Kind.MAC):
        size = 4 if field.kind is Kind.IPV4 else 6
        return st.binary(min_size=size, max_size=size)
    if field.kind is Kind.BYTES:
        sizes = {"tcp.options": 40, "ip.options": 40, "tcp.options.md5.digest": 16, "tcp.options.tfo.cookie": 8}
        size = sizes.get(name, 50)
        least = 16 if name == "tcp.options.md5.digest" else 1
        return st.binary(min_size=least, max_size=size)
    place = field.place
    if place is not None:
        return st.integers(0, (1 << place.bits) - 1).map(lambda number: number * place.scale)
    return st.integers(0, (1 << (field.bits or 16)) - 1)


# What else changes by its nature: names that say the same bytes, or follow from them.
_TOGETHER = {
    "ip.dsfield": {"ip.dsfield.dscp", "ip.dsfield.ecn"}, "ip.flags": {"ip.flags.rb", "ip.flags.df", "ip.flags.mf"},
    "tcp.flags": {"tcp.flags."},
}  # fmt: skip
_FOLLOW = ("checksum", "ip.len", "ip.hdr_len", "tcp.hdr_len", "udp.length", "frame.len", "frame.pieces", "frame.gso",
           "tcp.nxtseq", "tcp.option_", "tcp.options.nop", "tcp.options.eol", "frame.checksum")  # fmt: skip
_PAYLOAD = ("tcp.flags.str", "tcp.payload", "udp.payload", "data", "data.len", "tcp.len")
_STRUCTURE = (
    "ip.version", "ip.hdr_len", "ip.len", "ip.proto", "ip.frag_offset", "ip.flags", "ip.flags.mf", "tcp.hdr_len",
    "eth.type", "icmp.type", "igmp.type", "ip.options", "tcp.options", "frame.gso_size", "tcp.flags",
)  # fmt: skip
"""Fields that decide what the rest of the packet is; only that they read back is asked of them."""


def outer(frame: Any) -> dict[str, Any]:
    """Its fields without those of a packet that it quotes."""
    found = view(frame)
    found.quoted = None
    return fields_of_view(found)


@given(st.data())
def test_each_legal_value_reads_back_and_the_rest_stays(data: st.DataObject) -> None:
    frame = FRAMES[data.draw(st.sampled_from(sorted(FRAMES)))]
    names = [name for name in editable(frame) if name not in ("frame.gso_size", "frame.next_hop")]
    name = data.draw(st.sampled_from(names))
    field = FIELDS[name]
    value = data.draw(value_for(name))
    changes = {name: value}
    if name in ("tcp.options.sack_le", "tcp.options.sack_re"):
        changes = {"tcp.options.sack_le": value, "tcp.options.sack_re": value}
    before = outer(frame)
    try:
        edited = edit(frame, changes)
    except EditError as error:
        message = str(error)
        assert "room for 40" in message or "cannot be inserted" in message or "cannot be read" in message
        return
    assert outer(frame) == before  # the one given is as it was
    after = outer(edited)
    shown = field.show(value)
    got = after.get(name)
    if frame is FRAMES["tun"] and name in ("ip.version", "ip.hdr_len", "ip.len"):
        return  # bytes of which nobody says whether they are Ethernet, and that look like IP no more
    if name in ("tcp.options", "ip.options"):
        assert got == value + bytes(-len(value) & 3)
    elif name == "ip.version" and value != 4:
        assert "ip.src" not in after
    elif name == "ip.hdr_len" and value < 20:
        assert got == value
    elif name in OPTION_FIELDS and value is False:
        assert got is None
    elif isinstance(got, list) and not isinstance(value, list):
        assert shown in got or shown == got[0], (name, got)
    elif isinstance(value, list):
        assert got == (value if len(value) > 1 else value[0])
    elif name not in ("eth.type", "ip.proto", "ip.frag_offset", "icmp.type", "igmp.type"):
        assert got == shown
    if name in _STRUCTURE:
        return
    for other in {*before, *after} - set(changes):
        if any(part in other for part in _FOLLOW) or (other.startswith("tcp.options") and name in OPTION_FIELDS):
            continue
        if other.startswith(name) or name.rpartition(".")[0] == other or other in _PAYLOAD:
            continue
        assert before.get(other) == after.get(other), (name, other)
    if isinstance(frame, DeviceFrame) or before.get("ip.frag_offset") or before.get("ip.flags.mf"):
        return
    assert edited.checksum == Checksum.UNVERIFIED
    for status in ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status"):
        if name != status.removesuffix(".status") and not (status[:3] == "udp" and after.get("udp.checksum") == 0):
            assert after.get(status, "good") == "good", name


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_options_put_in_and_taken_out_again_leave_the_others(name: str, data: st.DataObject) -> None:
    frame = FRAMES[name]
    assume("tcp.options.mss_val" in editable(frame))
    before = fields(frame)
    assume("tcp.options.wscale.shift" not in before)
    try:
        edited = edit(frame, {"tcp.options.wscale.shift": data.draw(st.integers(0, 255))})
        back = edit(edited, {"-tcp.options.wscale.shift": ""})
    except EditError as error:
        assert "room for 40" in str(error)
        return
    after = fields(back)
    kinds = [kind for kind in _list(before.get("tcp.option_kind")) if kind > 1]
    assert [kind for kind in _list(after.get("tcp.option_kind")) if kind > 1] == kinds
    for key in before:
        if key.startswith("tcp.options.") and key[12:15] not in ("nop", "eol"):
            assert after.get(key) == before[key]
    assert after.get("data") == before.get("data")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def changed(frame: Any, changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What differs after an edit: name → new value (None: gone)."""
    before, after = fields(frame), fields(edit(frame, changes, **more))
    return {name: after.get(name) for name in {*before, *after} if before.get(name) != after.get(name)}


def test_a_window_is_closed() -> None:
    """The example of the issue: one field, and the checksum with it."""
    found = changed(segment(tcp(ACK)), {"tcp.window_size_value": 0})
    assert found.pop("tcp.checksum") > 0
    assert found == {"tcp.window_size_value": 0}


def test_values_are_numbers_or_text() -> None:
    frame = segment(tcp(SYN, options=SYN_OPTIONS))
    for value in (536, "536", "0x218", " 536 "):
        assert fields(edit(frame, {"tcp.options.mss_val": value}))["tcp.options.mss_val"] == 536
    for value in (True, 1, "1", "true", "yes", "set"):
        assert fields(edit(frame, {"tcp.flags.fin": value}))["tcp.flags.fin"] is True
    for value in ("10.9.9.9", bytes((10, 9, 9, 9))):
        assert edit(frame, {"ip.src": value}).src == bytes((10, 9, 9, 9))
    for value in ('"hi\\n"', "68690a", "0x68690a", "68:69:0a", b"hi\n"):
        assert fields(edit(frame, {"data": value}))["data"] == b"hi\n"
    mac = edit(device_frame(TAGGED), {"eth.dst": "02-00-00-00-00-09"})
    assert fields(mac)["eth.dst"] == "02:00:00:00:00:09"


def test_options_come_and_go() -> None:
    frame = segment(tcp(SYN, options=SYN_OPTIONS))
    for change in ({"-tcp.options.sack_perm": ""}, {"tcp.options.sack_perm": "del"}, {"tcp.options.sack_perm": None},
                   {"tcp.options.sack_perm": 0}):  # fmt: skip
        found = fields(edit(frame, change))
        assert "tcp.options.sack_perm" not in found
        assert (found["tcp.options.mss_val"], found["tcp.options.wscale.shift"]) == (1460, 7)
    bare = segment(tcp(SYN))
    found = fields(edit(bare, {"tcp.options.sack_perm": 1, "tcp.options.timestamp.tsval": 7, "tcp.options.mss_val": 9}))
    assert found["tcp.option_kind"] == [4, 8, 2, 1, 1, 1, 1][: len(found["tcp.option_kind"])]
    assert (found["tcp.options.timestamp.tsval"], found["tcp.options.timestamp.tsecr"]) == (7, 0)
    assert (found["tcp.hdr_len"], found["tcp.checksum.status"]) == (36, "good")
    none = edit(edit(bare, {"tcp.options.mss_val": 1}), {"-tcp.options.mss": ""})
    assert fields(none)["tcp.hdr_len"] == 20


def test_options_set_whole_are_padded_with_the_end() -> None:
    """RFC 9293 3.1: also a lone no-operation, which does not ask for more of its kind."""
    segment = edit(FRAMES["data"], {"tcp.options": b"\x01"})
    assert fields(segment)["tcp.options"] == b"\x01\0\0\0"


def test_sack_blocks_are_set_edge_by_edge() -> None:
    frame = packet(PACKETS["sack"])
    found = changed(frame, {"tcp.options.sack_le": "5001,7001"})
    assert found["tcp.options.sack_le"] == [5001, 7001]
    assert "tcp.options.sack_re" not in found
    with pytest.raises(EditError, match="as many of either"):
        edit(frame, {"tcp.options.sack_le": 1})
    with pytest.raises(EditError, match="room for 4 SACK blocks"):
        edit(frame, {"tcp.options.sack_le": [1] * 5, "tcp.options.sack_re": [2] * 5})
    assert "tcp.options.sack" not in fields(edit(frame, {"-tcp.options.sack": ""}))


def test_alignment_gives_way_where_options_need_the_room() -> None:
    """NOPs are dropped before an option is refused."""
    options = bytes.fromhex("0101080a0000000100000002 0101051a") + bytes(range(24))
    full = segment(tcp(options=options))
    found = fields(edit(full, {"tcp.options.sack_perm": 1}))
    assert found["tcp.options.sack.count"] == 3
    assert found["tcp.options.sack_perm"] is True
    with pytest.raises(EditError, match="room for 40"):
        edit(full, {"tcp.options.mss_val": 9, "tcp.options.wscale.shift": 1})


def test_lengths_follow_unless_they_are_set() -> None:
    frame = packet(PACKETS["udp"])
    found = fields(edit(frame, {"data": b"x" * 100}))
    assert (found["udp.length"], found["ip.len"], found["udp.checksum.status"]) == (108, 128, "good")
    found = fields(edit(frame, {"data": b"x" * 100, "udp.length": 9}))
    assert (found["udp.length"], found["ip.len"]) == (9, 128)
    found = fields(edit(packet(PACKETS["data"]), {"ip.len": 40}))
    assert found["ip.len"] == 40
    lying = edit(packet(PACKETS["udp"]), {"udp.length": 9})
    assert fields(edit(lying, {"data": b"question!"}))["udp.length"] == 10  # it lied, and lies as much
    assert fields(edit(lying, {"ip.ttl": 3}))["udp.length"] == 9


def test_ethernets_padding_shrinks_as_the_packet_grows() -> None:
    padded = device_frame(ethernet(ip(tcp(ACK))).ljust(60, b"\0"))
    assert fields(edit(padded, {"ip.ttl": 3}))["frame.len"] == 60
    assert fields(edit(padded, {"data": b"xy"}))["frame.len"] == 60
    assert fields(edit(padded, {"data": b"x" * 50}))["frame.len"] == 104


def test_checksums_can_stay_wrong_on_purpose() -> None:
    frame = packet(PACKETS["data"])
    kept = fields(edit(frame, {"tcp.seq": 5, "ip.ttl": 9}, checksums="keep"))
    assert (kept["tcp.checksum.status"], kept["ip.checksum.status"]) == ("bad", "bad")
    assert kept["tcp.checksum"] == fields(frame)["tcp.checksum"]
    set_ = fields(edit(frame, {"tcp.seq": 5, "tcp.checksum": 0xDEAD}))
    assert (set_["tcp.checksum"], set_["ip.checksum.status"]) == (0xDEAD, "good")
    set_ = fields(edit(frame, {"ip.checksum": 1, "tcp.seq": 5}))
    assert (set_["ip.checksum"], set_["tcp.checksum.status"]) == (1, "good")


@pytest.mark.parametrize("state", [Checksum.PARTIAL, Checksum.VERIFIED])
def test_a_checksum_that_was_never_computed_is_completed_first(state: Checksum) -> None:
    """Kept, too: PARTIAL holds the pseudo-header's sum, and what a device vouches for may hold that as well."""
    whole = PACKETS["data"]
    cut = 40
    head = partial_tcp_checksum(whole[:cut], len(whole) - 20)
    frame = packet(head + whole[cut:], checksum=state)
    edited = edit(frame, {"ip.id": 9}, checksums="keep")
    assert edited.checksum == Checksum.UNVERIFIED
    assert fields(edited)["tcp.checksum"] == fields(packet(whole))["tcp.checksum"]
    assert fields(edited)["tcp.checksum.status"] == "good"
    vnet = VnetHeader.for_tcp(link_len=14, ip_len=20, head_len=40).serialize()
    device = edit(device_frame(ethernet(head + whole[cut:]), vnet=vnet), {"ip.id": 9})
    assert (device.vnet, fields(device)["tcp.checksum.status"]) == (bytes(10), "good")
    seg = edit(segment(whole[20:16 + 20] + bytes(2) + whole[38:], checksum=state), {"ip.ttl": 3}, checksums="keep")
    assert fields(seg)["tcp.checksum.status"] == "good"


def test_a_super_segment_stays_one() -> None:
    """Its pieces get their checksums when it is cut: by us, or by the device."""
    frame = packet(ip(tcp(PSH | ACK, payload=b"x" * 3000)), checksum=Checksum.PARTIAL, gso_size=1000)
    edited = edit(frame, {"tcp.window_size_value": 7, "-tcp.options": ""})
    assert (edited.gso_size, edited.checksum) == (1000, Checksum.UNVERIFIED)
    assert fields(edited)["tcp.checksum.status"] == "good"
    pieces = split_tcp(edited.head, edited.payload, 1000)
    assert all(fields(packet(head + bytes(body)))["tcp.checksum.status"] == "good" for head, body in pieces)
    for refused in ({"changes": {"tcp.checksum": 1}}, {"changes": {"ip.ttl": 1}, "checksums": "keep"}):
        with pytest.raises(EditError, match="split it first"):
            edit(frame, **refused)
    assert edit(frame, {"data": b"short"}).gso_size == 0
    assert edit(frame, {"frame.gso_size": 500}).gso_size == 500
    with pytest.raises(EditError, match="only TCP"):
        edit(packet(PACKETS["udp"]), {"frame.gso_size": 2})


def test_a_super_segment_at_the_device_has_a_virtio_header_that_fits() -> None:
    """Options move the payload: header length and the checksum's place move with it."""
    vnet = VnetHeader.for_tcp(link_len=14, ip_len=20, head_len=40, gso_size=1000).serialize()
    frame = device_frame(ethernet(ip(tcp(ACK, payload=b"x" * 3000))), vnet=vnet, cut=54)
    edited = edit(frame, {"tcp.options.mss_val": 5, "tcp.flags.cwr": 1})
    header = VnetHeader.parse(edited.vnet)
    assert (header.hdr_len, header.gso_size, header.csum_start, header.needs_csum) == (58, 1000, 34, True)
    assert header.gso_type & 0x80
    assert edited.head[50:52] == partial_tcp_checksum(edited.head[14:], 24 + 3000)[36:38]
    assert len(edited.head) == 58


def test_a_fragment_is_edited_as_one() -> None:
    """What the transport's checksum covers is not all here: it stays."""
    frame = packet(PACKETS["first fragment"])
    found = changed(frame, {"udp.srcport": 9})
    assert set(found) == {"udp.srcport"}
    assert set(changed(packet(PACKETS["last fragment"]), {"ip.ttl": 3})) == {"ip.ttl", "ip.checksum"}


def test_udp_without_a_checksum_stays_without() -> None:
    assert fields(edit(packet(PACKETS["udp without checksum"]), {"data": b"other"}))["udp.checksum"] == 0


def test_arp_icmp_and_igmp() -> None:
    arp = fields(edit(device_frame(ARP_REQUEST), {"arp.opcode": 2, "arp.src.proto_ipv4": "10.0.0.9"}))
    assert (arp["arp.opcode"], arp["arp.src.proto_ipv4"]) == (2, "10.0.0.9")
    mtu = edit(packet(PACKETS["frag needed"]), {"icmp.mtu": 1000})
    assert fields(mtu)["icmp.mtu"] == 1000
    assert fields(mtu)["tcp.seq"] == 100  # what it quotes is as it was
    both = fields(edit(packet(PACKETS["echo"]), {"icmp.mtu": 600, "icmp.type": 3, "icmp.code": 4}))
    assert (both["icmp.type"], both["icmp.mtu"]) == (3, 600)
    with pytest.raises(EditError, match=r"ICMP messages of type 8 have no icmp\.mtu"):
        edit(packet(PACKETS["echo"]), {"icmp.mtu": 1000})
    igmp = edit(packet(PACKETS["igmp query"]), {"igmp.max_resp": 9})
    assert fields(igmp)["igmp.max_resp"] == 9


def test_an_icmp_error_told_to_tcp() -> None:
    edited = edit(icmp_error(), {"icmp.mtu": 576, "ip.src": "10.0.0.99"})
    assert (edited.mtu, edited.reporter) == (576, bytes((10, 0, 0, 99)))
    with pytest.raises(EditError, match=r"has no tcp\.seq"):
        edit(icmp_error(), {"tcp.seq": 1})


def test_a_payload_in_shared_memory_becomes_inline() -> None:
    frame = segment(tcp(PSH | ACK, payload=b"hello"))
    frame.payload = Place("ring", 0, 100, 7, 5)
    with pytest.raises(EditError, match="shared memory"):
        edit(frame, {"tcp.seq": 9})
    edited = edit(frame, {"tcp.seq": 9}, read=lambda place: b"hello")
    assert edited.payload == b"hello"
    assert fields(edited)["tcp.checksum.status"] == "good"
    assert isinstance(frame.payload, Place)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (FRAMES["data"], {"tcp.prt": 1}, "did you mean tcp.srcport"),
    (FRAMES["data"], {"tcp.port": 1}, "tcp.port is two fields: say tcp.srcport or tcp.dstport"),
    (FRAMES["data"], {"tcp.srcport": 65536}, "holds 0 to 65535"),
    (FRAMES["data"], {"tcp.srcport": -1}, "holds 0 to 65535"),
    (FRAMES["data"], {"tcp.srcport": "eighty"}, "'eighty' is none"),
    (FRAMES["data"], {"tcp.srcport": True}, "True is none"),
    (FRAMES["data"], {"tcp.hdr_len": 22}, "steps of 4"),
    (FRAMES["data"], {"ip.hdr_len": 64}, "holds 0 to 60"),
    (FRAMES["data"], {"tcp.flags.syn": 2}, "0 or 1"),
    (FRAMES["data"], {"ip.src": "10.0.0"}, "an IPv4 address"),
    (FRAMES["tagged"], {"eth.src": "02"}, "a MAC address"),
    (FRAMES["data"], {"data": "0g"}, "is bytes"),
    (FRAMES["data"], {"data": '"open'}, "does not end"),
    (FRAMES["data"], {"data": b"", "tcp.payload": b""}, "the same bytes"),
    (FRAMES["data"], {"data": b"x" * 65_500}, "more than an IPv4 packet holds"),
    (FRAMES["data"], {"tcp.len": 5}, "follows from other fields"),
    (FRAMES["data"], {"seam": "link"}, "follows from other fields"),
    (FRAMES["data"], {"-tcp.srcport": ""}, "not removed"),
    (FRAMES["data"], {"tcp.seq_raw": 1, "tcp.seq": 2}, "changed twice"),
    (FRAMES["data"], {"udp.srcport": 1}, "has no udp header"),
    (FRAMES["data"], {"arp.opcode": 1}, "has no arp header"),
    (FRAMES["data"], {"eth.src": "02:00:00:00:00:01"}, "has no eth header"),
    (FRAMES["data"], {"udp.payload": b""}, "has no udp.payload"),
    (FRAMES["udp"], {"tcp.options.mss_val": 1}, "no TCP header"),
    (FRAMES["data"], {"tcp.options.mss": 1}, "cannot be inserted without its value"),
    (FRAMES["data"], {"tcp.options": b"\1", "tcp.options.mss_val": 1}, "as a whole and one by one"),
    (FRAMES["data"], {"tcp.options": b"\1" * 41}, "room for 40"),
    (FRAMES["data"], {"ip.options": b"\1" * 41}, "room for 40"),
    (FRAMES["arp"], {"ip.options": b"\1"}, "no IP header"),
    (FRAMES["segment"], {"ip.id": 1}, "ip takes off that header"),
    (FRAMES["segment"], {"frame.next_hop": "10.0.0.1"}, "only packets between link and ip"),
    (segment(tcp(options=bytes.fromhex("0101020a"))), {"tcp.options.mss_val": 1}, "cannot be read from byte 2"),
    (packet(PACKETS["data"][:30]), {"tcp.window_size_value": 1}, "ends before tcp.window_size_value"),
    (LinkState(1, "lvl0", "tap", True, 1500, 0, True), {"ip.ttl": 1}, "a LinkState is no packet"),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "changes", "message"), REFUSED, ids=[str(row[1])[:40] for row in REFUSED])
def test_what_cannot_be_is_refused_with_the_reason(frame: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError) as caught:
        edit(frame, changes)
    assert message in str(caught.value)


def test_a_source_that_ip_has_yet_to_choose_has_no_checksum() -> None:
    frame = Segment(1, [], False, 0, 1, b"", B, 6, 0, 0, tcp()[:20], b"", Checksum.PARTIAL, 0)
    with pytest.raises(EditError, match=r"set ip\.src"):
        edit(frame, {"tcp.seq": 5})


def test_the_next_hop_of_a_packet() -> None:
    assert edit(packet(PACKETS["data"], next_hop=A), {"frame.next_hop": "10.0.0.2"}).next_hop == B


def test_changes_as_people_type_them() -> None:
    assert parse_changes(["tcp.seq=1", "-tcp.options.mss", 'data="a=b"']) == {
        "tcp.seq": "1", "-tcp.options.mss": "", "data": '"a=b"',
    }  # fmt: skip
    for wrong in (["tcp.seq"], ["tcp.seq=1", "tcp.seq=2"]):
        with pytest.raises(EditError):
            parse_changes(wrong)


@given(st.sampled_from(sorted(FRAMES)), st.lists(st.sampled_from(EDITABLE), min_size=1, max_size=4), st.data())
def test_several_changes_at_once_do_or_are_refused(name: str, names: list[str], data: st.DataObject) -> None:
    """Whatever is asked: a frame with these fields that can be read, or an EditError."""
    changes = {one: data.draw(value_for(one)) for one in names}
    try:
        edited = edit(FRAMES[name], changes, checksums=data.draw(st.sampled_from(["mend", "keep"])))
    except EditError:
        return
    fields(edited)


@given(st.binary(max_size=90), st.sampled_from(EDITABLE), st.booleans(), st.data())
def test_what_is_no_whole_packet_is_edited_as_far_as_it_goes(
    raw: bytes, name: str, link: bool, data: st.DataObject
) -> None:
    frame = device_frame(raw) if link else packet(raw, cut=0)
    try:
        edited = edit(frame, {name: data.draw(value_for(name))})
    except EditError:
        return
    fields(edited)
    assert edit(edited, {}) is not None


@pytest.mark.parametrize(
    ("words", "mark"),
    [
        (["ip.ttl=9", "tcp.windw=5"], "         ^^^^^^^^^"),
        (["tcp.window_size_value=70000", "ip.ttl=9"], "                      ^^^^^"),
        (["ip.ttl=9", "ip.src=10.0.0"], "                ^^^^^^"),
        (["ip.ttl=9", "nonsense"], "         ^^^^^^^^"),
        (["ip.ttl=9", "ip.ttl=10"], "         ^^^^^^"),
        (["ip.ttl=9", "-tcp.seq"], "         ^^^^^^^^"),
        (["ip.ttl=9", "ip.version=3"], "         ^^^^^^^^^^"),
    ],
)
def test_an_error_points_at_the_spot(words: list[str], mark: str) -> None:
    """At the field that cannot be, or at its value, as errors of expressions do."""
    with pytest.raises(EditError) as caught:
        edit(segment(tcp(ACK)), parse_changes(words))
    assert pointed(caught.value, words).splitlines() == [str(caught.value), f"  {' '.join(words)}", f"  {mark}"]
