"""`lvlip trace`: lines from records, the order of several publishers, filters, losses, restarts."""

# ruff: noqa: E501 - expected lines stand as they are printed
from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cli_layer import FakeLayer
from click.testing import Result

from levelip.cli import trace
from levelip.cli.common import Stack
from levelip.cli.sources import records
from levelip.cli.trace import choose_seams
from levelip.cli.tracelines import Chooser, TextLines, WallClock, hexdump
from levelip.debug.tap import Notice, Request, TapReader, goes_up, one_side
from levelip.frames.packet import Packet, Segment
from levelip.ipc.control import ControlError
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.events import Event
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import ACK, FIN, PSH, SYN, pack_tcp

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
MSS = bytes.fromhex("020405b4")
START = 1_700_000_000_123_456_789  # ns since 1970


class FixedClock(WallClock):
    """Monotonic time is the time of day, in UTC."""

    def text(self, mono: int) -> str:
        return f"00:00:{mono // 10**9:02d}.{mono % 10**9 // 1000:06d}"


def head(flags: int, seq: int, ack: int = 0, options: bytes = b"", back: bool = False) -> bytes:
    ports = (80, 4711) if back else (4711, 80)
    return pack_tcp(*ports, seq=seq, ack=ack, flags=flags, window=502, options=options)


def segment(flags: int, seq: int, ack: int = 0, payload: bytes = b"", number: int = 1, **more: Any) -> Segment:
    back = more.get("back", False)
    src, dst = (B, A) if back else (A, B)
    return Segment(3 << 60 | number, [2 << 60 | number], False, 0, 1, src, dst, 6, 64, 0, head(flags, seq, ack, **more),
                   payload, 2, 0)  # fmt: skip


def packet(flags: int, seq: int, ack: int = 0, payload: bytes = b"") -> Packet:
    tcp = head(flags, seq, ack)
    ip = Ipv4Header.build(A, B, proto=6, payload_length=len(tcp) + len(payload)).serialize()
    return Packet(2 << 60 | 9, [], False, 0, 1, ip + tcp, payload, 2, 0)


def meanwhile(script: Callable[[], None], command: Callable[[], Result]) -> Result:
    """The result of a command in which, beside it, a script of what layers publish was played."""
    failed: list[BaseException] = []

    def play() -> None:
        try:
            script()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    result = command()
    thread.join()
    assert not failed, failed
    return result


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [re.sub(r"^\d\d:\d\d:\d\d\.\d{6}", "TIME", line) for line in result.stdout.splitlines()]


def frame(seam: str, process: str, direction: str, what: Segment, mono: int = START) -> list[Any]:
    return [1, "f", process, seam, direction, 5, mono, what.id, what.causes, "Segment",
            {"src": what.src, "dst": what.dst, "proto": what.proto}, what.head, what.payload, len(what.payload), 2, 0]  # fmt: skip


def test_a_frame_is_one_line_with_time_seam_way_and_tcpdumps_text() -> None:
    text = TextLines(clock=FixedClock())
    line = text.line(frame("ip-tcp", "tcp", "in", segment(SYN, 1000, options=MSS), mono=7_000_123_999))
    assert line == (
        "00:00:07.000123 ip-tcp         ↑ IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [S], seq 1000, win 502, "
        "options [mss 1460], length 0"
    )


def test_sequence_numbers_count_from_the_syn_as_in_tcpdump() -> None:
    text = TextLines(clock=FixedClock())
    exchange = [
        ("in", segment(SYN, 4_294_967_295)),
        ("out", segment(SYN | ACK, 5000, 0, back=True)),
        ("in", segment(ACK, 0, 5001)),
        ("in", segment(ACK | PSH, 0, 5001, b"x" * 10)),
        ("out", segment(ACK, 5001, 10, back=True)),
        ("out", segment(FIN | ACK, 5001, 10, back=True)),
    ]
    shown = [text.line(frame("ip-tcp", "tcp", way, what)).partition(": ")[2] for way, what in exchange]
    assert shown == [
        "Flags [S], seq 4294967295, win 502, length 0",
        "Flags [S.], seq 5000, ack 0, win 502, length 0",
        "Flags [.], ack 1, win 502, length 0",
        "Flags [P.], seq 1:11, ack 1, win 502, length 10",
        "Flags [.], ack 11, win 502, length 0",
        "Flags [F.], seq 1, ack 11, win 502, length 0",
    ]


def test_absolute_numbers_on_request() -> None:
    text = TextLines(clock=FixedClock(), absolute=True)
    text.line(frame("ip-tcp", "tcp", "out", segment(SYN | ACK, 5000, 1001, back=True)))
    assert ", ack 5001, " in text.line(frame("ip-tcp", "tcp", "in", segment(ACK, 1001, 5001)))


def test_an_event_is_a_line_with_its_reason_and_rule() -> None:
    event = [1, "e", "ip", 1_000, [5, "drop", "ip_bad_checksum", 0, "", {"src": "10.0.0.1"}]]
    assert TextLines(clock=FixedClock()).line(event) == (
        "00:00:00.000001                  ip: drop, the header checksum is wrong, RFC 1122 3.2.1.2 (src 10.0.0.1)"
    )


def test_verbose_lines_name_the_frame_and_its_causes() -> None:
    line = TextLines(clock=FixedClock(), verbose=True).line(frame("ip-tcp", "tcp", "in", segment(SYN, 1, number=5)))
    assert line.splitlines()[1].strip() == "tcp in, frame tcp-00000-5 because of ip-00000-5, checksum verified"


def test_hexdump_shows_offset_hex_and_text() -> None:
    assert hexdump(b"GET / HTTP/1.1\r\n\r\n") == (
        "0x0000  4745 5420 2f20 4854 5450 2f31 2e31 0d0a  GET / HTTP/1.1..\n"
        "0x0010  0d0a                                     .."
    )


def test_ways_are_named_from_the_network_toward_the_applications() -> None:
    assert goes_up("link", "link", "in")
    assert goes_up("link", "link-ip", "out")
    assert goes_up("tcp", "ip-tcp", "in")
    assert not goes_up("ip", "ip-tcp", "in")
    assert not goes_up("gateway", "gateway-client", "in")


def test_each_seam_is_shown_once_and_a_layer_with_both_its_sides() -> None:
    assert one_side(["link", "ip", "tcp", "gateway"]) == {
        "link": ["link", "link-ip:in"],
        "ip": ["link-ip:in", "ip-tcp:in", "ip-udp:in"],
        "tcp": ["ip-tcp:in", "tcp-gateway:in"],
        "gateway": ["tcp-gateway:in", "udp-gateway:in", "gateway-client"],
    }
    assert choose_seams(("ip",), ()) == {"ip": ["link-ip", "ip-tcp", "ip-udp"]}
    assert choose_seams((), ("ip-tcp",)) == {"ip": ["ip-tcp:in"], "tcp": ["ip-tcp:in"]}


def test_events_pass_a_filter_by_connection_or_by_their_frame() -> None:
    chooser = Chooser({"port": 80})

    def event(conn: str = "", frame_id: int = 0) -> list[Any]:
        return [1, "e", "tcp", 0, [0, "state", "", frame_id, conn, {}]]

    assert chooser.wants(event("10.0.0.2:80>10.0.0.1:4711"))
    assert not chooser.wants(event("10.0.0.2:8080>10.0.0.1:4711"))
    assert not chooser.wants(event(frame_id=9))
    chooser.wants(frame("ip-tcp", "tcp", "in", segment(SYN, 1, number=9)))
    assert chooser.wants(event(frame_id=3 << 60 | 9))


def test_a_trace_of_two_layers_is_one_stream(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of ip and tcp, published in turn, come out in the order of their times; of each seam one side."""
    monkeypatch.setattr("levelip.debug.tap.SETTLE_NS", 10**9)  # however late one publisher's thread gets its turn
    ip, tcp = layer("ip"), layer("tcp")

    def script() -> None:
        ip.wait_for_listener()
        tcp.wait_for_listener()
        ip.frames("link-ip", "in", [packet(SYN, 7)])
        ip.frames("ip-tcp", "out", [segment(SYN, 7)])
        tcp.frames("ip-tcp", "in", [segment(SYN, 7)])
        tcp.events(Event(1, "drop", "runt", 3 << 60 | 1, "10.0.0.2:80>10.0.0.1:4711"))
        ip.frames("ip-tcp", "in", [segment(SYN | ACK, 5000, 8, back=True)])

    assert lines(meanwhile(script, lambda: lvlip("trace", "--count", "4"))) == [
        "TIME link-ip        ↑ IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [S], seq 7, win 502, length 0",
        "TIME ip-tcp         ↑ IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [S], seq 7, win 502, length 0",
        "TIME                  tcp: drop, frame shorter than its link header, IEEE 802.3 3.2 [10.0.0.2:80 > 10.0.0.1:4711]",
        "TIME ip-tcp         ↓ IP 10.0.0.2.80 > 10.0.0.1.4711: Flags [S.], seq 5000, ack 8, win 502, length 0",
    ]


def test_filters_run_in_the_publisher(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    tcp = layer("tcp")

    def script() -> None:
        tcp.wait_for_listener()
        tcp.frames("ip-tcp", "in", [segment(SYN, 7), segment(FIN | ACK, 8, 1)])

    arguments = ("trace", "--layer", "tcp", "--flags", "F", "--host", "10.0.0.1", "--count", "1")
    assert "Flags [F.]" in lines(meanwhile(script, lambda: lvlip(*arguments)))[0]
    listen = dict(tcp.asked)["tap.listen"]
    assert listen["filter"] == {"host": A, "flags": "F"}
    assert listen["seams"] == ["ip-tcp", "tcp-gateway"]


def test_json_lines_hold_everything(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    tcp = layer("tcp")

    def script() -> None:
        tcp.wait_for_listener()
        tcp.frames("ip-tcp", "in", [segment(SYN, 7, payload=b"ab")], 99)
        tcp.events(Event(1, "drop", "runt", 3 << 60 | 1, "c", {"length": 3}))

    result = meanwhile(script, lambda: lvlip("trace", "--layer", "tcp", "--json", "--count", "2"))
    first, second = [json.loads(line) for line in result.stdout.splitlines()]
    assert first["way"] == "up"
    assert first["frame"] == "tcp-00000-1"
    assert first["causes"] == ["ip-00000-1"]
    assert first["stack_ns"] == 99
    assert first["length"] == 22
    assert first["fields"]["src"] == "0a000001"
    assert first["text"].startswith("IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [S], seq 7:9")
    assert second["event"] == "drop"
    assert second["rule"] == "IEEE 802.3 3.2"
    assert second["data"] == {"length": 3}


def test_what_was_lost_is_said(layer: Callable[..., FakeLayer], run: RunDirectory) -> None:
    """A gap in a publisher's numbers becomes a notice in the stream, and is counted."""
    tcp = layer("tcp")
    reader = TapReader(run, Request({"tcp": ["ip-tcp"]}))
    reader.open()
    try:
        tcp.frames("ip-tcp", "in", [segment(SYN, 7)])

        def lose(tap: Any) -> None:
            for one in tap._active:  # as a publisher whose queue is full: numbered, not sent
                one.seq += 5

        tcp.order(lose)
        tcp.frames("ip-tcp", "in", [segment(SYN, 8)])
        found: list[Any] = []
        while len(found) < 3:
            found += reader.read(5)
        assert [one.text for one in found if isinstance(one, Notice)] == ["tcp: 5 left out"]
        assert isinstance(found[1], Notice)
        assert reader.lost == {"tcp": 5}
    finally:
        reader.close()


def test_the_others_are_listened_to_while_one_is_silent(
    layer: Callable[..., FakeLayer], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs and says nothing is told of, and listened to once it answers; if it is the only one, that is said."""
    monkeypatch.setattr("levelip.debug.tap.SILENT_NS", 0)
    lock = run.lock("ip")
    alone = TapReader(run, Request({"ip": ["link-ip"]}))
    with pytest.raises(ControlError, match="ip did not answer; see: lvlip status"):
        alone.open()
    alone.close()
    layer("tcp")
    reader = TapReader(run, Request({"tcp": ["ip-tcp"], "ip": ["link-ip"]}))
    try:
        assert reader.open() == ["tcp"]
        found = reader.read(60)
        assert [one.text for one in found if isinstance(one, Notice)] == ["ip did not answer: what it does is left out"]
        os.close(lock)
        layer("ip")
        found = []
        while not found:
            found += reader.read(5)
        assert [one.text for one in found if isinstance(one, Notice)] == ["listening to ip"]
    finally:
        reader.close()


@pytest.mark.parametrize(
    "words",
    [
        ("paths", "--seconds", "2"),
        ("why", "80"),
        ("trace", "--count", "3"),
        ("capture", "-w", "x.pcapng", "--seconds", "0.1"),
        ("capture", "-w", "x.pcapng", "--count", "1"),
    ],
)
def test_a_layer_that_is_silent_is_named_and_the_exit_code_is_1(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory, words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the others say is shown; also if it is Ctrl-C that ends it."""
    lock = run.lock("ip")
    tcp = layer("tcp", ss={"sockets": []})
    taken = threading.Semaphore(0)
    take = TapReader._take

    def noted(reader: TapReader, source: Any) -> int:
        number = take(reader, source)
        for _ in range(number):
            taken.release()
        return number

    monkeypatch.setattr(TapReader, "_take", noted)

    def script() -> None:
        tcp.wait_for_listener()
        for number in range(1, 10):
            tcp.frames("ip-tcp", "in", [segment(SYN, 7, number=number)])
        if words[0] == "why":
            for _ in range(9):
                assert taken.acquire(timeout=60)
            os.kill(os.getpid(), signal.SIGINT)

    result = meanwhile(script, lambda: lvlip(*words))
    os.close(lock)
    assert result.exit_code == 1, result.output
    assert result.stderr.endswith("lvlip: ip did not answer; see: lvlip status --name t\n"), result.stderr
    assert "ip did not answer: what it does is left out" in result.output
    assert {"paths": "packets", "capture": "captured"}.get(words[0], "4711") in result.output


def test_a_kind_of_event_that_nobody_makes_is_told_of(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    """It may be an addon's, so it is listened for all the same."""
    tcp = layer("tcp")

    def script() -> None:
        tcp.wait_for_listener()
        tcp.events(Event(5, "drop", "runt"), Event(6, "dropp", "", 0, "", {}))

    result = meanwhile(script, lambda: lvlip("trace", "--no-packets", "--kind", "dropp", "--count", "1"))
    assert result.exit_code == 0
    assert "--kind dropp: no layer makes such events, only an addon may; did you mean drop" in result.stderr
    assert "tcp: dropp" in result.stdout
    result = meanwhile(
        lambda: (tcp.wait_for_nobody(), script())[1], lambda: lvlip("trace", "--kind", "drop", "--count", "1")
    )
    assert "--kind" not in result.stderr


def test_ctrl_c_ends_the_listening_wherever_it_comes(layer: Callable[..., FakeLayer], run: RunDirectory) -> None:
    """Also in the midst of what is done with a record: that is finished, and what has come by then is there."""
    tcp = layer("tcp", ss={"sockets": []})
    stack = Stack(run.name, str(run.root))

    def send() -> None:
        tcp.wait_for_listener()
        for seq in range(5):
            tcp.frames("ip-tcp", "in", [segment(SYN, seq)])

    sender = threading.Thread(target=send)
    sender.start()
    found: list[Any] = []
    for record in records(stack, None, None):
        if not found:
            os.kill(os.getpid(), signal.SIGINT)  # the handler runs here, not in the reader
        found.append(record)
    sender.join()
    assert any(not isinstance(one, Notice) for one in found)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_while_a_line_is_made_loses_none(
    layer: Callable[..., FakeLayer], run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    """lvlip trace writes all that was told by then, each line once."""

    class Pressed(TextLines):
        pressed = False

        def line(self, record: Any) -> str:
            if not self.pressed:
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)
            return f"line {record[0]}"

    tcp = layer("tcp")
    reader = TapReader(run, Request({"tcp": ["ip-tcp"]}))
    told = [segment(SYN, seq) for seq in range(5)]
    sender = threading.Thread(target=lambda: (tcp.wait_for_listener(), tcp.frames("ip-tcp", "in", told)))
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        trace._listen(reader, Chooser({}, (), None), Pressed(), None)
    sender.join()
    assert capsys.readouterr().out.splitlines() == [f"line {number}" for number in range(1, 6)]


def test_at_the_end_what_is_under_way_is_waited_for(layer: Callable[..., FakeLayer], run: RunDirectory) -> None:
    """Also what a process has not even sent; one that is silent is not waited for long."""
    tcp = layer("tcp")
    reader = TapReader(run, Request({"tcp": ["ip-tcp"]}))
    reader.open()
    try:
        tcp.hold_back(lambda tap: tap.publish_frames("ip-tcp", "in", [segment(SYN, seq) for seq in range(3)], 0))
        assert [one[0] for one in reader.drain() if not isinstance(one, Notice)] == [1, 2, 3]
        run.control("tcp").unlink()
        assert reader.drain() == []
    finally:
        reader.close()


class Untiring:
    """A publisher's socket that always has one more."""

    sent = 0

    def recv_multipart(self, _flags: int) -> list[bytes]:
        self.sent += 1
        assert self.sent < 100_000, "more is taken than had come when it was asked for"
        return [b"", msgspec.msgpack.encode([[self.sent, "e", "tcp", time.monotonic_ns(), []]])]


def test_the_end_comes_although_a_process_tells_on_and_on(run: RunDirectory) -> None:
    """What comes after it was asked for is left."""
    reader = TapReader(run, Request({"tcp": []}))
    endless: Any = SimpleNamespace(process="tcp", next=1, behind=0, socket=Untiring(), topic=b"")
    reader._sources["tcp"] = endless
    begun = time.monotonic_ns()
    found = reader.drain()
    assert found and found[0][3] >= begun


def test_a_layer_that_comes_back_is_listened_to_again(layer: Callable[..., FakeLayer], run: RunDirectory) -> None:
    first = layer("tcp")
    reader = TapReader(run, Request({"tcp": ["ip-tcp"]}))
    reader.open()
    try:
        first.stop()
        found: list[Any] = []
        while not found:
            found += reader.read(5)
        assert [one.text for one in found] == ["tcp is gone"]
        assert reader.heard == []
        second = layer("tcp")
        found = []
        while not found:
            found += reader.read(5)
        assert [one.text for one in found] == ["listening to tcp"]
        second.frames("ip-tcp", "in", [segment(SYN, 7)])
        found = []
        while not found:
            found += reader.read(5)
        assert found[0][1] == "f"
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--host", "nowhere"), "Error: --host nowhere: must be an address, as 10.0.0.1"),
        (("--proto", "quic"), "Error: --proto quic: must be icmp, tcp, udp or a number from 0 to 255"),
        (("--flags", "X"), "Error: --flags X: 'X' is no TCP flag; known are F S R P . U E W e"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(lvlip: Callable[..., Result], args: tuple[str, ...], text: str) -> None:
    result = lvlip("trace", *args)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == text


def test_it_ends_after_some_seconds(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    """Or before, by --count; also of journeys."""
    tcp = layer("tcp", ss={"sockets": []})

    def script() -> None:
        tcp.wait_for_listener()
        tcp.frames("ip-tcp", "in", [segment(SYN, 7)])

    result = meanwhile(script, lambda: lvlip("trace", "--seconds", "300", "--count", "1"))
    assert lines(result)[0].endswith("Flags [S], seq 7, win 502, length 0")
    for more in ((), ("--journey",)):
        result = lvlip("trace", "--seconds", "0.1", *more)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "listening to tcp; for 0.1 s\n")


def test_without_a_stack_it_says_how_to_start_one(lvlip: Callable[..., Result]) -> None:
    result = lvlip("trace")
    assert (result.exit_code, result.stderr) == (
        1,
        "lvlip: stack 't' is not running; start it with: lvlip up --name t\n",
    )


def test_an_expression_chooses_frames_and_the_events_about_them(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    """--filter runs in the tool; without events in the expression, events of the frames that passed are shown."""
    tcp = layer("tcp")

    def script() -> None:
        tcp.wait_for_listener()
        tcp.frames("ip-tcp", "in", [segment(SYN, 7, number=1), segment(FIN | ACK, 8, 1, number=2)])
        tcp.events(Event(1, "drop", "runt", 3 << 60 | 1), Event(1, "drop", "runt", 3 << 60 | 2))
        tcp.frames("ip-tcp", "in", [segment(FIN | ACK, 9, 1, number=3)])

    result = meanwhile(script, lambda: lvlip("trace", "--layer", "tcp", "--filter", "tcp.flags.fin", "--count", "3"))
    shown = lines(result)
    assert ["Flags [F.]" in line for line in shown] == [True, False, True]
    assert "frame shorter" in shown[1]
    assert dict(tcp.asked)["tap.listen"]["detail"] == "headers"


def test_an_expression_about_events_chooses_events(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    tcp = layer("tcp")

    def script() -> None:
        tcp.wait_for_listener()
        tcp.events(Event(1, "rto", data={"rto": 10**9}), Event(1, "drop", "runt"), Event(1, "drop", "tcp_below_window"))

    arguments = ("trace", "--layer", "tcp", "--filter", "event drop and reason == below_window", "--count", "1")
    assert "below the window" in lines(meanwhile(script, lambda: lvlip(*arguments)))[0]
    assert not dict(tcp.asked)["tap.listen"]["frames"]  # no packet could pass


def test_an_expression_about_payload_has_it_sent(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    tcp = layer("tcp")

    def script() -> None:
        tcp.wait_for_listener()
        tcp.frames("ip-tcp", "in", [segment(ACK, 7, 1, b"x" * 200 + b"needle"), segment(ACK, 7, 1, b"hay")])

    arguments = ("trace", "--layer", "tcp", "--filter", 'tcp.payload contains "needle" or event rto', "--count", "1")
    assert "length 206" in lines(meanwhile(script, lambda: lvlip(*arguments)))[0]
    assert dict(tcp.asked)["tap.listen"]["detail"] == "full"


def test_an_expression_that_means_nothing_is_shown_with_its_place(lvlip: Callable[..., Result]) -> None:
    result = lvlip("trace", "--filter", "tcp.prt == 80")
    assert result.exit_code == 2
    assert "did you mean tcp.port" in result.output
    assert result.output.splitlines()[-1] == "  ^^^^^^^"
    result = lvlip("trace", "--filter", "conn.cwnd < 4")
    assert "conn.cwnd is known where the stack can be asked" in result.output


def test_a_layer_that_falls_silent_is_told_of_and_heard_again(
    layer: Callable[..., FakeLayer], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs closes nothing: it is asked, and does not answer. What it tells when it goes on is taken."""
    monkeypatch.setattr("levelip.debug.tap.ASK_NS", 0)
    monkeypatch.setattr("levelip.debug.tap.ANSWER_S", 0.3)
    tcp = layer("tcp")
    layer("ip")
    reader = TapReader(run, Request({"tcp": ["ip-tcp"], "ip": ["link-ip"]}))
    goes_on = threading.Event()

    def notices(text: str) -> str:
        found: list[str] = []
        while not found:
            found = [one.text for one in reader.read(0.2) if isinstance(one, Notice) and one.text.startswith(text)]
        return found[0]

    try:
        assert reader.open() == reader.heard == ["ip", "tcp"]
        hanging = threading.Thread(target=lambda: tcp.order(lambda _: goes_on.wait(60)))
        hanging.start()
        assert re.fullmatch(r"tcp is no longer heard, since \d\d:\d\d:\d\d", notices("tcp is no"))
        assert (reader.heard, reader.silent) == (["ip"], ["tcp"])
        goes_on.set()
        hanging.join()
        assert notices("tcp is heard") == "tcp is heard again"
        assert (reader.heard, reader.silent) == (["ip", "tcp"], [])
        tcp.frames("ip-tcp", "in", [segment(SYN, 7)])
        while not any(one[1] == "f" for one in reader.read(5) if not isinstance(one, Notice)):
            pass
    finally:
        goes_on.set()
        reader.close()


def test_a_packet_is_told_of_though_nobody_hears_where_it_goes(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ip and link run elsewhere, or are silent: what they would tell is not waited for, however long one waits."""
    monkeypatch.setattr("levelip.debug.journeys._LATE_NS", 1 << 62)
    tcp = layer("tcp", ss={"sockets": []})

    def script() -> None:
        tcp.wait_for_listener()
        number, listening = 0, [True]
        while listening[-1]:  # those from before it listened to all are left out
            number += 1
            tcp.frames("ip-tcp", "out", [segment(SYN, 7, number=number)])
            time.sleep(0.02)
            tcp.order(lambda tap: listening.append(tap.frames))

    result = meanwhile(script, lambda: lvlip("trace", "--journey", "--count", "1", "--json"))
    assert [hop["process"] for hop in json.loads(result.stdout)["hops"]] == ["tcp"]
