"""Recording: a connection that was captured becomes a script that passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from levelip.tracing.pcapng import INBOUND, LINKTYPE_RAW, OUTBOUND, Interface, PcapngWriter
from simulation.script.__main__ import cli
from simulation.script.parse import parse
from simulation.script.record import RecordError, Seen, finished, make_script
from simulation.script.run import run

SERVER = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
  +.5 < S 700:700(0) win 65535 <mss 1460,sackOK,TS val 50 ecr 0,nop,wscale 7>
   +0 > S. 0:0(0) ack 701 <...>
  +.1 < . 701:701(0) ack 1 win 512 <nop,nop,TS val 150 ecr 100>
   +0 accept(3, ..., ...) = 4
   +0 < P. 701:801(100) ack 1 win 512 <nop,nop,TS val 150 ecr 100>
   +0 > . 1:1(0) ack 801 <...>
   +0 read(4, ..., 1000) = 100
 +.01 write(4, ..., 30000) = 30000
   +0 > P. 1:14481(14480) ack 801 <...>
  +.1 < . 801:801(0) ack 14481 win 512 <nop,nop,TS val 260 ecr 210>
   +0 > P. 14481:30001(15520) ack 801 <...>
+.202 > P. 28961:30001(1040) ack 801 <...>
"""
CLIENT = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)
   +0 > S 0:0(0) <...>
  +.1 < S. 9000:9000(0) ack 1 win 65535 <mss 1000>
   +0 > . 1:1(0) ack 9001
  +.1 write(3, ..., 500) = 500
   +0 > P. 1:501(500) ack 9001
  +.1 < P. 9001:9101(100) ack 501 win 65535
   +0 > . 501:501(0) ack 9101
   +0 read(3, ..., 1000) = 100
  +.1 shutdown(3, SHUT_WR) = 0
   +0 > F. 501:501(0) ack 9101
  +.1 < F. 9101:9101(0) ack 502 win 65535
   +0 > . 502:502(0) ack 9102
"""


def seen_in(text: str) -> list[Seen]:
    """The packets of a run of a script that passes."""
    result = run(parse(text))
    assert result.status == 0, result.failure and result.failure.rows
    return [Seen(line.at, line.data, line.kind == "out") for line in result.trace if line.data]


@pytest.mark.parametrize("text", [SERVER, CLIENT])
def test_a_recorded_connection_passes(text: str) -> None:
    """Captured, written down, run: every packet comes as it came, and numbers are relative."""
    packets = seen_in(text)
    script = make_script(packets)
    result = run(parse(script), strict=True)
    assert result.status == 0, (script, result.error, result.failure and result.failure.rows)
    again = [(line.kind, len(line.data)) for line in result.trace if line.data]
    assert again == [("out" if seen.outbound else "in", len(seen.data)) for seen in packets]
    assert " 0:0(0)" in script


def test_what_a_script_says_of_the_calls() -> None:
    """Calls are inferred: one write up to each PSH (a super-segment ends with one), reads of what came, shutdown at
    the FIN."""
    script = make_script(seen_in(SERVER))
    assert "write(4, ..., 14480) = 14480" in script and "write(4, ..., 15520) = 15520" in script
    assert "read(4, ..., 100) = 100" in script
    assert script.count("write(") == 2
    assert "shutdown(3, SHUT_WR) = 0" in make_script(seen_in(CLIENT))


def test_from_a_capture_file(tmp_path: Path) -> None:
    """`record FILE.pcapng -o FILE.pkt`, as `lvlip capture` writes it."""
    capture, target = tmp_path / "x.pcapng", tmp_path / "x.pkt"
    with capture.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface("link-ip", LINKTYPE_RAW)])
        for seen in seen_in(SERVER):
            writer.packet(
                0, 1_700_000_000_000_000_000 + seen.at, seen.data, len(seen.data),
                direction=OUTBOUND if seen.outbound else INBOUND,
            )  # fmt: skip
    done = CliRunner().invoke(cli, ["record", str(capture), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(cli, ["run", "--strict", str(target)]).exit_code == 0
    assert "Recorded from x.pcapng" in target.read_text()


def test_a_capture_without_directions_needs_the_address() -> None:
    """Whose packets are whose is said, or asked for."""
    packets = [Seen(seen.at, seen.data, None) for seen in seen_in(CLIENT)]
    with pytest.raises(RecordError, match="--local"):
        make_script(packets)
    assert run(parse(make_script(packets, local=bytes([192, 168, 0, 1])))).status == 0


def test_a_capture_without_a_connection() -> None:
    """Nothing to write down."""
    with pytest.raises(RecordError, match="first SYN"):
        make_script([])
    with pytest.raises(RecordError, match="first SYN"):
        make_script(seen_in(CLIENT), port=1)


def test_a_broken_file_is_an_error_not_a_crash(tmp_path: Path) -> None:
    """Exit status 1 and a sentence."""
    broken = tmp_path / "x.pcapng"
    broken.write_bytes(b"no capture at all")
    done = CliRunner().invoke(cli, ["record", str(broken)])
    assert done.exit_code == 1
    assert "x.pcapng is no capture: it starts neither as pcapng nor as pcap" in done.output
    broken.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000065000000") + b"cut")
    assert "x.pcapng ends within packet 1" in CliRunner().invoke(cli, ["record", str(broken)]).output
    broken.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000065000000"))
    assert "there are no IPv4 packets in" in CliRunner().invoke(cli, ["record", str(broken)]).output


def test_when_a_connection_is_over() -> None:
    """Both FINs, or a reset, end a live recording."""
    packets = seen_in(CLIENT)
    assert finished(packets)
    assert not finished(packets[:-2])


def test_what_came_together_is_injected_together() -> None:
    """Two segments that one ACK answers were taken by one round of the stack's loop."""
    together = CLIENT.replace(
        "  +.1 < P. 9001:9101(100) ack 501 win 65535\n",
        "  +.1 < [batch] P. 9001:9051(50) ack 501 win 65535\n   +0 < P. 9051:9101(50) ack 501 win 65535\n",
    )
    script = make_script(seen_in(together))
    assert "[batch] P. 1:51(50)" in script
    assert "read(3, ..., 100) = 100" in script
    assert run(parse(script), strict=True).status == 0


@pytest.mark.parametrize(("late_ms", "tolerance"), [(0, 20_000), (60, 100_000), (300, 500_000)])
def test_a_stack_on_a_busy_machine_is_late(tmp_path: Path, late_ms: int, tolerance: int) -> None:
    """Its ACKs come late, and one ACK answers what came while it had no processor: the script bears with that, and with
    no more than it has to."""
    together = CLIENT.replace("  +.1 < P. 9001:9101(100)", "  +.1 < [batch] P. 9001:9101(100)").replace(
        "   +0 > . 501:501(0) ack 9101\n   +0 read(3, ..., 1000) = 100\n  +.1 shutdown(3, SHUT_WR) = 0\n"
        "   +0 > F. 501:501(0) ack 9101\n  +.1 < F. 9101:9101(0) ack 502 win 65535\n   +0 > . 502:502(0) ack 9102\n",
        "   +0 < F. 9101:9101(0) ack 501 win 65535\n   +0 > . 501:501(0) ack 9102\n   +0 read(3, ..., 1000) = 100\n",
    )
    packets = seen_in(together)
    assert [seen.outbound for seen in packets] == [True, False, True, True, False, False, True]
    late = late_ms * 1_000_000
    for number, more in ((2, late // 5), (5, late // 6), (6, late)):
        one = packets[number]
        packets[number] = Seen(one.at + more, one.data, one.outbound)
    capture, target = tmp_path / "x.pcapng", tmp_path / "x.pkt"
    with capture.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface("link-ip", LINKTYPE_RAW)])
        for seen in sorted(packets, key=lambda seen: seen.at):
            way = OUTBOUND if seen.outbound else INBOUND
            writer.packet(0, 1_700_000_000_000_000_000 + seen.at, seen.data, len(seen.data), direction=way)
    done = CliRunner().invoke(cli, ["record", str(capture), "-o", str(target)])
    assert done.exit_code == 0, done.output + target.read_text()
    assert f"--tolerance_usecs={tolerance}\n" in target.read_text()


def test_an_answer_that_was_on_its_way_goes_first() -> None:
    """Captured behind a packet that it does not acknowledge: it was made before that came."""
    packets = seen_in(CLIENT)
    (ack,) = [index for index, seen in enumerate(packets) if seen.outbound and seen.at == 300_000_000]
    late = packets[ack]
    fin = next(index for index, seen in enumerate(packets) if not seen.outbound and index > ack)
    late = Seen(packets[fin].at, late.data, True)
    shuffled = [*packets[:ack], *packets[ack + 1 : fin + 1], late, *packets[fin + 1 :]]
    script = make_script(shuffled)
    assert script.index("> . 501:501(0) ack 101") < script.index("< F. 101:101(0)")
