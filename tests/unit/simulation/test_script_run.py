"""Running packet scripts: what passes, what fails and how that is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simulation.script.__main__ import cli
from simulation.script.parse import parse
from simulation.script.report import failure_text
from simulation.script.run import Result, run

LISTEN = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
"""
ESTABLISHED = (
    LISTEN
    + """
   +0 < S 0:0(0) win 65535 <mss 1000>
   +0 > S. 0:0(0) ack 1 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
"""
)


def passes(text: str, **how: object) -> Result:
    """A script that is right, also at its end."""
    result = run(parse(text, "x.pkt"), strict=True, **how)  # type: ignore[arg-type]
    assert result.status == 0, failure_text(result) if result.failure else result.error
    return result


def fails(text: str, **how: object) -> dict[str, tuple[str, str]]:
    """The fields that differ: name → (expected, got)."""
    result = run(parse(text, "x.pkt"), **{"strict": True, **how})  # type: ignore[arg-type]
    assert result.status == 1, result.error
    assert result.failure is not None
    return {row.name: (row.expected, row.got) for row in result.failure.rows if row.differs}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("+0 > . 1:101(100) ack 1", "flags"),
        ("+0 > P. 2:102(100) ack 1", "seq"),
        ("+0 > P. 1:102(101) ack 1", "seq"),
        ("+0 > P. 1:101(100) ack 2", "ack"),
        ("+0 > P. 1:101(100) ack 1 win 5", "win"),
        ("+0 > P. 1:101(100) ack 1 urg 5", "urg"),
        ("+0 > P. 1:101(100) ack 1 <nop,nop,TS val 1 ecr 1>", "options"),
        ("+.01 > P. 1:101(100) ack 1", "time"),
        ("+0 > [ect0] P. 1:101(100) ack 1", "ecn"),
        ("+0 > [tos 0x8] P. 1:101(100) ack 1", "tos"),
        ("+0 > [ttl 63] P. 1:101(100) ack 1", "ttl"),
        ("+0 > [nodf] P. 1:101(100) ack 1", "df"),
        ("+0 > 8080 > 1 P. 1:101(100) ack 1", "ports"),
        ("+0 > icmp echo_reply", "protocol"),
    ],
)
def test_each_field_is_compared(wrong: str, field: str) -> None:
    """One field wrong, and only that one is marked."""
    write = ESTABLISHED + "   +0 write(4, ..., 100) = 100\n"
    passes(write + "   +0 > [noecn, tos 0x0, ttl 64, df] P. 1:101(100) ack 1 win 65535")
    assert list(fails(write + wrong)) == [field]


@pytest.mark.parametrize("option", ["option 2 0x05", "option 3 0x", "option 8 0x00", "option 5 0x0102"])
def test_a_known_option_may_be_written_in_bytes(option: str) -> None:
    """Then it has the length that it is written with, also one that is wrong; the stack passes it over."""
    syn = f"   +0 < S 0:0(0) win 65535 <{option.removesuffix(' 0x')}>\n   +0 > S. 0:0(0) ack 1 <mss 1460>"
    passes(LISTEN + syn)


AGAIN = "P. 1:101(100) ack 1"  # sent at 0.1 s; at 0.4 s, an RTO of 300 ms later, again; at 1.0 s once more
SENT = ESTABLISHED + f"   +0 write(4, ..., 100) = 100\n   +0 > {AGAIN}\n"


@pytest.mark.parametrize(
    "when",
    [
        "0.4", "+.3", "*", "0.3~0.5", "+.2~+.4", "+.2~.4", "0.4~0.5", "0.2~0.4", "0.396", "+.304", "0.404~0.5",
        "+.1~+.296",
    ],
)  # fmt: skip
def test_a_packet_in_time(when: str) -> None:
    """Every form of time, up to its ends and 4 ms beyond; what is relative then counts from when the packet came."""
    passes(f"{SENT} {when} > {AGAIN}\n +.6 > {AGAIN}")
    assert fails(f"{SENT} {when} > {AGAIN}\n +.605 > {AGAIN}") == {"time": ("1.005000", "1.000000")}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("0.405", "0.405000"), ("+.305", "0.405000"), ("0.405~0.5", "0.405000~0.500000"),
        ("+.305~+.5", "0.405000~0.600000"),
    ],
)  # fmt: skip
def test_a_packet_before_its_time(when: str, expected: str) -> None:
    """By 5 ms."""
    assert fails(f"{SENT} {when} > {AGAIN}") == {"time": (expected, "0.400000")}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("0.395", "0.395000"), ("+.295", "0.395000"), ("0.2~0.395", "0.200000~0.395000"),
        ("+0~+.295", "0.100000~0.395000"),
    ],
)  # fmt: skip
def test_a_packet_behind_its_time(when: str, expected: str) -> None:
    """By 5 ms: until then there is nothing, and the report says what comes next."""
    assert fails(f"{SENT} {when} > {AGAIN}") == {"time": (expected, "nothing")}


@pytest.mark.parametrize(
    ("option", "right", "wrong"),
    [
        ("--tolerance_usecs=10000", "+.31", "+.310001"),
        ("--tolerance_usecs=0", "+.3", "+.300001"),
        ("--tolerance_percent=5", "+.3157", "+.3158"),  # 0.3 / 0.95
        ("--tolerance_percent=1.0", "+.304", "+.304001"),
    ],
)
def test_tolerance(option: str, right: str, wrong: str) -> None:
    """A fixed time, 4 ms if nothing else is said, or a part of the time since the event before, if that is more."""
    passes(f"{option}\n{SENT} {right} > {AGAIN}")
    assert list(fails(f"{option}\n{SENT} {wrong} > {AGAIN}")) == ["time"]


def test_segments_that_follow_one_another_are_as_good_as_one() -> None:
    """A script may write what one call sends as one segment, or cut it anywhere between segments."""
    write = ESTABLISHED + "   +0 write(4, ..., 3000) = 3000\n"
    passes(write + "   +0 > P. 1:3001(3000) ack 1")
    passes(write + "   +0 > . 1:1001(1000) ack 1\n   +0 > P. 1001:3001(2000) ack 1")
    assert "seq" in fails(write + "   +0 > P. 1:2501(2500) ack 1")
    passes("--strict_segments\n" + write + "   +0 > P. 1:3001(3000) ack 1")
    assert "seq" in fails("--strict_segments\n" + write + "   +0 > . 1:1001(1000) ack 1")


def test_a_packet_that_never_comes_fails_at_its_time() -> None:
    """And the report says what came instead, if anything."""
    sent = ESTABLISHED + "   +0 write(4, ..., 100) = 100\n   +0 > P. 1:101(100) ack 1\n"
    rows = fails(sent + " +.1 > P. 1:101(100) ack 1")
    assert rows["time"] == ("0.200000", "nothing")
    assert fails(LISTEN + "   * > S. 0:0(0) ack 1")["time"][1] == "nothing"


def test_what_is_left_at_the_end() -> None:
    """Strict: a failure. Else a warning, as packetdrill does not look."""
    text = ESTABLISHED + "   +0 write(4, ..., 100) = 100\n"
    assert fails(text)["sent"] == ("nothing more", "0.100000 > P. 1:101(100) ack 1 win 65535")
    assert fails("--strict\n" + text, strict=None)["sent"]
    result = run(parse(text))
    assert result.status == 0
    assert "P. 1:101(100)" in result.warnings[0]


def test_results_and_errnos() -> None:
    """A call's value and errno are compared; EBADF for what is not open."""
    passes("0 close(3) = -1 EBADF (Bad file descriptor)")
    socket = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n"
    passes(socket + "+0 listen(3, 1) = 0\n+0 accept4(9, ..., ..., 0) = -1 EBADF (x)")
    assert fails(socket + "+0 getpeername(3, ..., ...) = -1 EINVAL (x)") == {"result": ("-1 EINVAL", "-1 ENOTCONN")}
    assert fails("0 socket(..., SOCK_SEQPACKET, 0) = 3")["result"][1] == "-1 ESOCKTNOSUPPORT"


def test_a_call_that_blocks() -> None:
    """It returns when it can, which is compared with the end that is written; without one it may not block."""
    waits = ESTABLISHED + "   +0...0.2 read(4, ..., 100) = 10\n"
    waits += "   +.2 < P. 1:11(10) ack 1 win 65535\n   +0 > . 1:1(0) ack 11"
    passes(waits)
    assert fails(waits.replace("0...0.2", "0...0.1"))["returns"] == ("0.200000", "0.300000")
    assert fails(waits.replace("+0...0.2", "+0")) == {"returns": ("0.100000", "blocks")}
    assert fails(waits.replace("0...0.2", "0...0.3"))["returns"] == ("0.400000", "0.300000")
    assert fails(ESTABLISHED + "   +0...0.1 read(4, ..., 100) = 10\n   +.2 close(4) = 0")["returns"][1] == "still waits"


def test_a_timeout_of_a_socket_ends_a_read() -> None:
    """SO_RCVTIMEO: EAGAIN when its time is over."""
    passes(
        ESTABLISHED
        + "   +0 setsockopt(4, SOL_SOCKET, SO_RCVTIMEO, {tv_sec=0, tv_usec=250000}, 16) = 0\n"
        + "   +0...0.25 read(4, ..., 100) = -1 EAGAIN (Resource temporarily unavailable)\n"
    )


def test_poll_waits_and_tells() -> None:
    """poll with a timeout: the event that ends it, or 0."""
    passes(
        ESTABLISHED
        + "   +0 poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLOUT}], 1, 50) = 1\n"
        + "   +0...0.05 poll([{fd=4, events=POLLIN, revents=0}], 1, 50) = 0\n"
        + "  +.1...0.2 poll([{fd=4, events=POLLIN, revents=POLLIN}], 1, 500) = 1\n"
        + "  +.1 < P. 1:11(10) ack 1 win 65535\n   +0 > . 1:1(0) ack 11\n"
    )


def test_peek_ioctl_and_vectors() -> None:
    """MSG_PEEK leaves bytes, SIOCINQ and SIOCOUTQ count them, readv and writev take several buffers."""
    passes(
        ESTABLISHED
        + """
   +0 < P. 1:11(10) ack 1 win 65535
   +0 > . 1:1(0) ack 11
   +0 ioctl(4, SIOCINQ, [10]) = 0
   +0 recv(4, ..., 4, MSG_PEEK) = 4
   +0 recv(4, ..., 100, MSG_PEEK|MSG_DONTWAIT) = 10
   +0 readv(4, [{..., 3}, {..., 100}], 2) = 10
   +0 recv(4, ..., 100, MSG_DONTWAIT) = -1 EAGAIN (Resource temporarily unavailable)
   +0 writev(4, [{"abc", 3}, {..., 2}], 2) = 5
   +0 > P. 1:6(5) ack 11
   +0 ioctl(4, SIOCOUTQ, [5]) = 0
   +0 sendmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 7}], msg_flags=0}, MSG_NOSIGNAL) = 7
   +.1 < . 11:11(0) ack 6 win 65535
   +0 > P. 6:13(7) ack 11
   +.1 < . 11:11(0) ack 13 win 65535
   +0 ioctl(4, SIOCOUTQ, [0]) = 0
"""
    )


def test_names_of_both_ends() -> None:
    """Addresses and ports as options set them; packetdrill's defaults."""
    passes(
        ESTABLISHED
        + """
   +0 getsockname(4, {sa_family = AF_INET, sin_port = htons(8080), sin_addr = inet_addr("192.168.0.1")}, [16]) = 0
   +0 getpeername(4, {sa_family = AF_INET, sin_port = htons(53055), sin_addr = inet_addr("192.0.2.1")}, [16]) = 0
"""
    )
    passes(
        "--local_ip=10.1.0.5\n--netmask_ip=255.255.255.0\n--gateway_ip=10.1.0.1\n--bind_port=99\n"
        + ESTABLISHED
        + "   +0 getsockname(4, {sa_family = AF_INET, sin_port = htons(99), "
        + 'sin_addr = inet_addr("10.1.0.5")}, ...) = 0\n'
    )


CONNECT = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)
   +0 > [from LOCAL, to REMOTE] S 0:0(0) <...>
"""


def test_addresses_of_the_options() -> None:
    """Where ours connects to, by --remote_ip and --connect_port; who says what is wrong on the way, by --gateway_ip."""
    options = "--local_ip=10.1.0.5\n--netmask_ip=255.255.255.0\n--gateway_ip=10.1.0.1\n--remote_ip=198.51.100.7\n"
    options += "--connect_port=81\n"
    text = CONNECT.replace("LOCAL", "10.1.0.5").replace("REMOTE", "198.51.100.7")
    error = "   +0 < icmp unreachable port_unreachable [0:0(0)]\n"
    error += "   +0 getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0\n"
    result = passes(options + text + error)
    seen = [line.text for line in result.trace if line.data]
    assert "> 198.51.100.7.81: Flags [S]" in seen[0] and seen[1].startswith("IP 10.1.0.1 > 10.1.0.5: ICMP")
    defaults = CONNECT.replace("LOCAL", "192.168.0.1").replace("REMOTE", "192.0.2.1")
    seen = [line.text for line in passes(defaults + error).trace if line.data]
    assert "> 192.0.2.1.8080: Flags [S]" in seen[0] and seen[1].startswith("IP 192.168.0.2 > 192.168.0.1: ICMP")


def test_sizes_of_the_options() -> None:
    """--mtu is the device's; a segment injected that is longer than --mss came as several packets."""
    passes("--mtu=576\n" + ESTABLISHED.replace("mss 1460", "mss 536"))
    data = ESTABLISHED + "   +0 < P. 1:3001(3000) ack 1 win 65535\n   +0 > . 1:1(0) ack 3001\n"
    passes("--mss=1000\n" + data + "   +0 %{ assert tcpi_data_segs_in == 3, tcpi_data_segs_in }%")
    passes(data + "   +0 %{ assert tcpi_data_segs_in == 1, tcpi_data_segs_in }%")


def test_a_symbol_of_the_command_line_yields_to_the_scripts_own() -> None:
    """--define in the head, and -D where the head has none: sizes, flags, times are what they stand for."""
    text = ESTABLISHED + "   +0 write(4, ..., SIZE) = SIZE\n   +0 > P. 1:101(100) ack 1\n"
    head = parse("--define=SIZE=100\n" + text, "x.pkt", {"SIZE": "7"})
    assert run(head, strict=True).status == run(parse(text, "x.pkt", {"SIZE": "100"}), strict=True).status == 0
    assert run(parse(text, "x.pkt", {"SIZE": "7"}), strict=True).status == 1


def test_code_sees_the_figures_and_fails_with_its_line() -> None:
    """tcpi_ names, constants, names kept from piece to piece; a failed assertion points at its line."""
    passes(
        ESTABLISHED
        + "   +0 %{ mss = tcpi_snd_mss }%\n   +0 %{\nassert mss == 1000\nassert tcpi_state == TCP_ESTABLISHED\n}%"
    )
    text = ESTABLISHED + "   +0 %{\nassert True\nassert tcpi_snd_mss == 7, tcpi_snd_mss\n}%"
    result = run(parse(text))
    assert result.failure is not None
    assert result.failure.line == text.splitlines().index("assert tcpi_snd_mss == 7, tcpi_snd_mss") + 1
    assert result.failure.rows[0].got == "AssertionError: 1000"


def test_printed_lines_are_in_the_trace() -> None:
    """print in code is part of what happened."""
    result = passes(ESTABLISHED + "   +0 %{ print('snd_cwnd', tcpi_snd_cwnd) }%")
    assert [line.text for line in result.trace if line.kind == "print"] == ["snd_cwnd 10"]


def test_timestamps_are_translated() -> None:
    """Ours count from the first that is expected; the peer echoes what the script calls them."""
    opening = (
        LISTEN
        + """
   +0 < S 0:0(0) win 65535 <mss 1000,nop,nop,TS val 7 ecr 0>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,TS val 100 ecr 7>
  +.1 < . 1:1(0) ack 1 win 65535 <nop,nop,TS val 8 ecr 100>
   +0 accept(3, ..., ...) = 4
   +0 %{ assert tcpi_rtt == 100000, tcpi_rtt }%
   +0 write(4, ..., 10) = 10
"""
    )
    sent = "   +0 > P. 1:11(10) ack 1 <nop,nop,TS val 200 ecr 8>"
    passes("--tcp_ts_tick_usecs=1000\n" + opening + sent)
    passes(opening + sent.replace("200", "999"))  # as packetdrill: not compared without a tick
    assert "options" in fails("--tcp_ts_tick_usecs=1000\n" + opening + sent.replace("200", "210"))
    assert "options" in fails(opening + sent.replace("ecr 8", "ecr 7"))


def test_two_connections_by_their_ports() -> None:
    """With ports a line names its connection."""
    passes(
        LISTEN.replace("listen(3, 1)", "listen(3, 5)")
        + """
   +0 < 1111 > 8080 S 0:0(0) win 65535 <mss 1000>
   +0 > 8080 > 1111 S. 0:0(0) ack 1 <mss 1460>
   +0 < 2222 > 8080 S 500:500(0) win 65535 <mss 1000>
   +0 > 8080 > 2222 S. 0:0(0) ack 501 <mss 1460>
   +0 < 1111 > 8080 . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 < 2222 > 8080 . 501:501(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 5
   +0 write(4, ..., 10) = 10
   +0 > 8080 > 1111 P. 1:11(10) ack 1
   +0 write(5, ..., 10) = 10
   +0 > 8080 > 2222 P. 1:11(10) ack 501
"""
    )


def test_our_isn_can_be_chosen() -> None:
    """--local_isn: the script's numbers stay as they are while the wire's wrap."""
    write = "   +0 write(4, ..., 10) = 10\n   +0 > P. 1:11(10) ack 1"
    result = passes("--local_isn=4294967290\n" + ESTABLISHED + write)
    assert any("seq 4294967290" in line.text for line in result.trace)


def test_settings_from_outside_stay() -> None:
    """--set holds whatever the script's commands say; a sysctl maps to a setting."""
    text = "`sysctl -q net.ipv4.tcp_timestamps=0 net.ipv4.tcp_sack=0`\n0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n"
    text += "+0 fcntl(3, F_SETFL, O_NONBLOCK) = 0\n+0 connect(3, ..., ...) = -1 EINPROGRESS (x)\n"
    passes(text + "+0 > S 0:0(0) <mss 1460,nop,wscale 7>")
    passes(
        text + "+0 > S 0:0(0) <mss 1460,nop,nop,TS val 1 ecr 0,nop,wscale 7>",
        settings={"tcp.timestamps": "true"},
    )


def test_commands_between_events() -> None:
    """A sysctl after the first event changes the running stack; one that needs a restart is an error."""
    passes(
        ESTABLISHED
        + "   +0 `sysctl -q net.ipv4.ip_default_ttl=77`\n"
        + "   +0 write(4, ..., 10) = 10\n   +0 > [ttl 77] P. 1:11(10) ack 1\n"
    )
    result = run(parse(ESTABLISHED + "   +0 `sysctl -q net.ipv4.tcp_wmem='4096 65536 65536'`\n"))
    assert result.error is not None
    assert "before the first event" in result.error.message


def test_twenty_seconds_take_milliseconds() -> None:
    """Virtual time: 20 s of retransmissions are simulated in well below half a second of real time."""
    text = ESTABLISHED + "   +0 write(4, ..., 100) = 100\n   +0 > P. 1:101(100) ack 1\n"
    at = [0.3, 0.6, 1.2, 2.4, 4.8, 9.6]
    text += "".join(f"  +{gap} > P. 1:101(100) ack 1\n" for gap in at)
    result = passes(text + "   +2 < . 1:1(0) ack 101 win 65535")
    assert result.simulated_ns > 20e9
    assert result.wall_s < 0.5


def test_fragments_come_in_one_by_one() -> None:
    """frag START:END sends that piece of the packet on the line; MF as it has to be."""
    message = "icmp echo_request id 5 [raw(48)]"
    result = run(parse(f"0 < [frag 0:24, id 9] {message}\n+0 < [frag 24:48, id 9] {message}"))
    seen = [line.text for line in result.trace if line.kind == "in"]
    assert len(seen) == 2
    assert "fragment 24:24" in seen[1]


# errors, and the command


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 fork() = 0", "no system call 'fork'"),
        ("`rm -rf x`", "'rm -rf x' is not known"),
        ("`sysctl -q net.ipv4.tcp_nonsense=1`", "tcp_nonsense is not known"),
        ("+0 `nonsense`", "'nonsense' is not known"),
        ("--nonsense=1\n`true`", "no option --nonsense"),
        ("--ip_version=ipv6\n`true`", "not implemented, IPv6"),
        ("--set=tcp.nonsense=1\n`true`", "no setting tcp.nonsense"),
        ("0 socket(..., SOCK_NONSENSE, 0) = 3", "SOCK_NONSENSE is no constant"),
        (
            "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n"
            '+0 bind(3, {sa_family=AF_INET, sin_port=htons(1), sin_addr=inet_addr("1.2.3")}, 16) = 0',
            "no IPv4 address",
        ),
        ("0 socket(..., SOCK_STREAM) = 3", "socket needs more arguments"),
        ("0 < icmp unreachable host_unreachable [1:1(0)]", "no connection yet"),
    ],
)
def test_a_script_that_cannot_run_says_why(text: str, words: str) -> None:
    """Status 2, with the line and a sentence."""
    result = run(parse(text))
    assert result.status == 2
    assert result.error is not None
    assert words in result.error.message


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A script that passes."""
    path = tmp_path / "good.pkt"
    path.write_text(ESTABLISHED)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """One that fails in its last line."""
    path = tmp_path / "bad.pkt"
    path.write_text(ESTABLISHED + "   +0 write(4, ..., 10) = 10\n   +0 > P. 1:12(11) ack 1\n")
    return path


def test_exit_status_and_report(good: Path, bad: Path, tmp_path: Path) -> None:
    """0, 1, 2; a failure shows file, line, both sides and the trace; a directory is all its scripts."""
    runner = CliRunner()
    assert runner.invoke(cli, ["run", str(good)]).exit_code == 0
    failed = runner.invoke(cli, ["run", str(bad)])
    assert failed.exit_code == 1
    assert f"{bad}:12: the packet differs" in failed.output
    assert "* seq      1:12(11)  1:11(10)" in failed.output
    assert "Flags [P.]" in failed.output
    both = runner.invoke(cli, ["run", str(tmp_path)])
    assert both.exit_code == 1
    assert "2 scripts: 1 passed, 1 failed" in both.output
    wrong = tmp_path / "wrong.pkt"
    wrong.write_text("0 < S 0:0(0)\n")
    assert runner.invoke(cli, ["run", str(wrong)]).exit_code == 2
    checked = runner.invoke(cli, ["check", str(wrong), str(good)])
    assert checked.exit_code == 2
    assert f"{wrong}:1:3:" in checked.output


def test_json(good: Path, bad: Path) -> None:
    """One value a script, with the fields that were compared."""
    output = CliRunner().invoke(cli, ["run", "--json", str(good), str(bad)]).output
    first, second = map(json.loads, output.splitlines())
    assert first["status"] == "passed"
    assert (second["status"], second["line"]) == ("failed", 12)
    assert [row["name"] for row in second["fields"] if row["differs"]] == ["seq"]


def test_lists_and_options_of_the_command(good: Path) -> None:
    """--list-commands, --verbose, --set, --option, -D."""
    runner = CliRunner()
    listed = runner.invoke(cli, ["--list-commands"]).output
    assert "net.ipv4.tcp_timestamps" in listed
    assert "accept" in listed
    assert "Flags [S.]" in runner.invoke(cli, ["run", "-v", str(good)]).output
    assert runner.invoke(cli, ["run", "--set", "tcp.sack=false", "--option", "mtu=1400", str(good)]).exit_code == 1
    assert runner.invoke(cli, ["run", "--option", "nonsense=1", str(good)]).exit_code == 2
    assert runner.invoke(cli, ["run", "--mtu=1500", str(good), "--ip_version=ipv4", "--verbose"]).exit_code == 0
    assert runner.invoke(cli, ["run", "--mtu=1400", str(good)]).exit_code == 1
    assert runner.invoke(cli, ["run", "--option", "--mtu=1500", str(good)]).exit_code == 0, "its value"
    assert "there is no option --nonsense" in runner.invoke(cli, ["run", "--nonsense=1", str(good)]).output
    assert runner.invoke(cli, ["run", "--", "--mtu=1400"]).exit_code == 2, "a file that is not there"
    assert runner.invoke(cli, ["run", "--set", "tcp.nonsense=1", str(good)]).exit_code == 2


def test_packets_that_come_together_are_answered_once() -> None:
    """[batch]: as when a loop takes several frames at once (RFC 9293 3.10.7.4, MUST-58: ACKs are aggregated)."""
    two = "   +0 < {}P. 1:1001(1000) ack 1 win 65535\n   +0 < P. 1001:2001(1000) ack 1 win 65535\n"
    passes(ESTABLISHED + two.format("[batch] ") + "   +0 > . 1:1(0) ack 2001")
    assert "ack" in fails(ESTABLISHED + two.format("") + "   +0 > . 1:1(0) ack 2001")


@pytest.mark.parametrize(
    ("option", "said"),
    [("ip.multicast_groups=239.1.2", "ip.multicast_groups"), ("ip.routes=nowhere", "ip.routes")],
)
def test_addresses_that_are_none_are_an_error_of_the_script(option: str, said: str) -> None:
    """What only the whole configuration shows to be wrong, too."""
    result = run(parse(f"--set={option}\n0 < S 0:0(0) win 1000\n", "x.pkt"))
    assert result.status == 2 and said in str(result.error)


def test_code_may_end_in_a_backslash() -> None:
    """As in scripts for Linux, whose code goes on over several lines."""
    passes(ESTABLISHED + "   +0 %{ assert tcpi_snd_mss == 1000;\\\n         assert tcpi_snd_cwnd == 10;\\\n}%")
