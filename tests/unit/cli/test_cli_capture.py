"""`lvlip capture`: which packet an event is noted on, and what ends up in the file."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_layer import FakeLayer
from click.testing import Result
from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket, InterfaceDescription

from levelip.cli.comments import HOLD_NS, Commenter
from levelip.debug.tap import Notice
from levelip.frames.packet import Packet, Segment
from levelip.tracing.events import Event
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import SYN, pack_tcp

pytestmark = pytest.mark.filterwarnings("ignore:Field type should not be:DeprecationWarning")

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
TCP = pack_tcp(4711, 80, seq=7, ack=0, flags=SYN, window=9)
IP = Ipv4Header.build(A, B, proto=6, payload_length=20).serialize(fill_checksum=True)
SECOND = 1_000_000_000
DROP = "tcp: drop, frame shorter than its link header, IEEE 802.3 3.2"


def packet(
    mono: int, number: int, causes: tuple[int, ...] = (), *, seam: str = "link-ip", process: str = "ip"
) -> list[Any]:
    return [1, "f", process, seam, "in", mono, mono, number, list(causes), "Packet", {}, IP + TCP, b"", 0, 2, 0]


def event(mono: int, frame: int = 0, conn: str = "") -> list[Any]:
    return [1, "e", "tcp", mono, [mono, "drop", "runt", frame, conn, {}]]


def packets(out: io.BytesIO) -> list[EnhancedPacket]:
    return [block for block in FileScanner(io.BytesIO(out.getvalue())) if isinstance(block, EnhancedPacket)]


def comments(out: io.BytesIO) -> list[list[str]]:
    return [block.options.get_all("opt_comment") if "opt_comment" in block.options else [] for block in packets(out)]


def commenter(out: io.BytesIO, *seams: str, **more: Any) -> Commenter:
    return Commenter(out, seams or ("link-ip",), ethernet=True, **more)


def test_an_event_is_noted_on_the_packet_that_it_names() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), packet(2, 12), event(3, 11)], captured=True)
    held.finish()
    assert comments(out) == [[DROP], []]
    assert (held.packets, held.events, held.homeless) == (2, 1, 0)


def test_an_event_about_a_frame_that_was_not_captured_goes_to_the_packet_it_came_from() -> None:
    """tcp speaks of its segment; captured was the packet that link had handed up, two causes before."""
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), packet(1, 12)], captured=True)
    held.take([packet(2, 22, (11,)), packet(2, 33, (22,))], captured=False)
    held.take([event(3, 33)], captured=True)
    held.finish()
    assert comments(out) == [[DROP], []]


@pytest.mark.parametrize("filtered", [True, False])
def test_an_event_that_is_told_before_the_frames_that_lead_to_its_packet(filtered: bool) -> None:
    """Frames of seams that are not captured come by another reader, which may be the later one."""
    out = io.BytesIO()
    held = commenter(out, filtered=filtered)
    held.take([packet(SECOND, 11), packet(SECOND, 12), event(SECOND + 3, 33)], captured=True)
    held.write(SECOND + 4)
    held.take([packet(SECOND + 1, 22, (11,)), packet(SECOND + 2, 33, (22,))], captured=False)
    held.write(SECOND + HOLD_NS)
    held.finish()
    assert comments(out) == [[DROP], []]
    assert (held.packets, held.events, held.homeless) == (2, 1, 0)


def test_an_event_that_leads_to_no_packet_stands_on_the_first_after_it() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), event(2, 99), packet(3, 12), packet(4, 13)], captured=True)
    held.finish()
    first, second, third = comments(out)
    assert (first, third) == ([], [])
    assert second[0].endswith(f" {DROP}")


def test_an_event_without_a_packet_is_noted_on_the_next_one_with_its_time() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), event(2), packet(3, 12)], captured=True)
    held.finish()
    first, second = comments(out)
    assert first == []
    assert second[0].endswith(" " + DROP)
    assert len(second[0]) == len(DROP) + 16


def test_events_after_the_last_packet_are_noted_on_it_and_without_packets_counted() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), event(2)], captured=True)
    held.finish()
    assert comments(out)[0][0].endswith(DROP)
    nothing = commenter(io.BytesIO())
    nothing.take([event(2)], captured=True)
    nothing.finish()
    assert nothing.homeless == 1


def test_with_a_filter_events_about_others_are_left_out() -> None:
    out = io.BytesIO()
    held = commenter(out, filtered=True)
    held.take([packet(1, 11), event(2, 99), event(2)], captured=True)
    held.finish()
    assert comments(out) == [[]]


def test_with_a_filter_what_timers_do_to_a_captured_connection_stays() -> None:
    """It names no frame, or one that never came to where packets are captured; the connection is known by others."""
    out = io.BytesIO()
    held = commenter(out, filtered=True)
    one, other = "10.0.0.2:80>10.0.0.1:4711", "10.0.0.2:80>10.0.0.1:4712"
    held.take([event(1, 0, one), packet(2, 11), event(2, 11, one), event(3, 0, one), event(3, 0, other)], captured=True)
    held.take([event(3, 99, one), event(3, 99, other), packet(4, 12)], captured=True)
    held.finish()
    assert [[text[-len("[10.0.0.2:80 > 10.0.0.1:4711]") :] for text in each] for each in comments(out)] == [
        ["[10.0.0.2:80 > 10.0.0.1:4711]", "[10.0.0.2:80 > 10.0.0.1:4711]"],
        ["[10.0.0.2:80 > 10.0.0.1:4711]", "[10.0.0.2:80 > 10.0.0.1:4711]"],
    ]


def test_packets_wait_for_their_events_and_no_longer() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(SECOND, 11), packet(2 * SECOND, 12)], captured=True)
    assert held.write(SECOND + HOLD_NS - 1) == 0
    assert held.write(SECOND + HOLD_NS) == 1
    held.take([event(2 * SECOND, 11)], captured=True)  # too late for 11: noted on what comes next
    held.take([packet(3 * SECOND, 13)], captured=True)
    held.finish()
    assert [len(one) for one in comments(out)] == [0, 0, 1]


def test_what_was_left_out_is_noted_where_it_was() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), Notice(2, "ip: 5 left out"), packet(3, 12)], captured=True)
    held.finish()
    assert comments(out) == [[], ["ip: 5 left out"]]


def test_count_and_snaplen() -> None:
    out = io.BytesIO()
    held = commenter(out, count=2, snaplen=24)
    held.take([packet(1, 11), packet(2, 12), packet(3, 13)], captured=True)
    assert held.full
    held.finish()
    assert [(block.captured_len, block.packet_len) for block in packets(out)] == [(24, 40), (24, 40)]


def test_a_capture_of_two_layers(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One interface a seam; events of tcp stand on the packets of ip that caused them."""
    monkeypatch.setattr("levelip.debug.tap.SETTLE_NS", 10**9)  # however late one publisher's thread gets its turn
    ip, tcp = layer("ip"), layer("tcp")
    path = tmp_path / "x.pcapng"

    def script() -> None:
        ip.wait_for_listener()
        tcp.wait_for_listener()
        ip.frames("link-ip", "in", [Packet(11, [], False, 0, 1, IP + TCP, b"", 2, 0)])
        segment = Segment(22, [11], False, 0, 1, A, B, 6, 64, 0, TCP, b"hello", 1, 0)
        drop = Event(1, "drop", "runt", 22, "10.0.0.2:80>10.0.0.1:4711")
        # in one message, as in one round of a layer's loop: the capture ends with the second packet
        tcp.order(lambda tap: (tap.publish_frames("ip-tcp", "in", [segment], 0), tap.publish_events([drop])))

    thread = threading.Thread(target=script, daemon=True)
    thread.start()
    result = lvlip("capture", "-w", str(path), "--count", "2", "--json")
    thread.join()
    assert result.exit_code == 0, result.output
    assert result.stdout == f'{{"file": "{path}", "packets": 2, "events": 1, "left_out": 0}}\n'
    blocks = list(FileScanner(io.BytesIO(path.read_bytes())))
    names = [block.options["if_name"] for block in blocks if isinstance(block, InterfaceDescription)]
    assert names == ["link", "link-ip", "ip-tcp", "ip-udp"]
    first, second = [block for block in blocks if isinstance(block, EnhancedPacket)]
    assert (first.interface_id, second.interface_id) == (1, 2)
    assert second.options["opt_comment"] == f"{DROP} [10.0.0.2:80 > 10.0.0.1:4711]"
    assert second.packet_data[-5:] == b"hello"
    assert second.packet_data[12:20] == A + B


def test_only_one_seam_and_only_for_a_while(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path
) -> None:
    tcp = layer("tcp")
    path = tmp_path / "x.pcapng"
    result = lvlip("capture", "-w", str(path), "--at", "ip-tcp", "--seconds", "0.1")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "0 packets captured, 0 events"
    listens = [args for name, args in tcp.asked if name == "tap.listen"]
    assert [(args["seams"], args["detail"], args["events"]) for args in listens] == [(["ip-tcp:in"], "full", True)]


def test_a_seam_without_packets_cannot_be_captured(lvlip: Callable[..., Result]) -> None:
    result = lvlip("capture", "-w", "x", "--at", "tcp-gateway")
    assert result.exit_code == 2
    assert "'tcp-gateway' is not one of 'link', 'link-ip', 'ip-tcp'" in result.stderr


def test_a_packet_that_came_late_is_written_where_it_belongs() -> None:
    out = io.BytesIO()
    held = commenter(out)
    held.take([packet(1, 11), packet(3, 13), packet(2, 12)], captured=True)
    held.finish()
    times = [block.timestamp_high << 32 | block.timestamp_low for block in packets(out)]
    assert times == sorted(times)


def test_an_expression_chooses_packets(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path
) -> None:
    """What it leaves out still tells where other frames come from."""
    tcp = layer("tcp")
    path = tmp_path / "x.pcapng"

    def script() -> None:
        tcp.wait_for_listener()
        for number, flags in ((1, SYN), (2, 4), (3, SYN), (4, 4)):
            head = pack_tcp(4711, 80, seq=7, ack=0, flags=flags, window=9)
            tcp.frames("ip-tcp", "in", [Segment(number, [], False, 0, 1, A, B, 6, 64, 0, head, b"", 2, 0)])

    thread = threading.Thread(target=script, daemon=True)
    thread.start()
    result = lvlip("capture", "-w", str(path), "--at", "ip-tcp", "--filter", "tcp.flags.reset", "--count", "2")
    thread.join()
    assert result.exit_code == 0, result.output
    found = packets(io.BytesIO(path.read_bytes()))
    assert [block.packet_data[33] for block in found] == [4, 4]


def test_a_capture_of_events_is_none(lvlip: Callable[..., Result], tmp_path: Path) -> None:
    result = lvlip("capture", "-w", str(tmp_path / "x"), "--filter", "event drop")
    assert result.exit_code == 2
    assert "what is captured are packets" in result.output
