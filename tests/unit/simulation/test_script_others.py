"""What scripts of others need: their shell's ways, epoll, sendfile, NULL; and refusals that name what is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from levelip.configfile import keys
from simulation.script.__main__ import cli
from simulation.script.absent import CALLS, NAMES, Refused
from simulation.script.answers import SYSCTLS, World, apply_command, take_option
from simulation.script.language import Option, ScriptError
from simulation.script.parse import parse
from simulation.script.run import Result, run
from tests.unit.simulation.test_script_run import ESTABLISHED, LISTEN, fails, passes

AT = Option("", None, 1, 1)


def refusal(text: str) -> str:
    """Why a script is refused; it is told before anything runs."""
    try:
        result = run(parse(text, "x.pkt"))
    except Refused as error:  # the parser knows words of packet lines
        return error.message
    assert result.refused, result.error
    assert not result.simulated_ns
    assert result.error is not None
    return result.error.message


# the shell


def test_a_command_goes_on_behind_a_backslash() -> None:
    """Also at the end of a line, which the shell joins to the next."""
    world = World()
    script = parse("`set_sysctls.py /proc/sys/net/ipv4/tcp_sack=0 \\\n    /proc/sys/net/ipv4/tcp_timestamps=0`\n")
    apply_command(world, script.events[0].action.text, AT)  # type: ignore[union-attr]
    assert world.settings == {"tcp.sack": False, "tcp.timestamps": False}


def test_the_shell_multiplies() -> None:
    """$((32*1024*1024)), as defaults.sh writes sizes."""
    world = World()
    apply_command(world, 'sysctl -q net.ipv4.tcp_rmem="4096 131072 $((32 * 1024*1024))"', AT)
    assert world.settings["tcp.receive_ring"] == 32 << 20


def test_a_sysctl_may_be_a_path() -> None:
    """net/ipv4/... is net.ipv4...."""
    world = World()
    apply_command(world, "sysctl -e -q net/ipv4/tcp_tw_reuse_delay=1500", AT)
    assert world.settings == {"tcp.tw_reuse_delay_ms": 1500}


@pytest.mark.parametrize(
    ("sysctl", "settings"),
    [
        ("tcp_early_retrans=0", {"tcp.tlp": False}), ("tcp_early_retrans=3", {"tcp.tlp": True}),
        ("tcp_invalid_ratelimit=0", {"tcp.invalid_ratelimit_ms": 0}), ("tcp_base_mss=512", {"tcp.base_mss": 512}),
        ("tcp_max_orphans=1", {"tcp.max_orphans": 1}), ("tcp_ecn_fallback=0", {"tcp.ecn_fallback": False}),
        ("ipfrag_time=60", {"ip.fragment_time_ms": 60_000}), ("ipfrag_high_thresh=0", {"ip.fragment_memory": 0}),
        ("icmp_ratelimit=250", {"ip.icmp_ratelimit_ms": 250}), ("icmp_ratemask=8", {"ip.icmp_ratemask": 8}),
        ("icmp_echo_ignore_broadcasts=0", {"ip.echo_ignore_broadcasts": False}),
        ("conf.all.force_igmp_version=0", {"ip.igmp_version": 3}),
        ("conf.all.force_igmp_version=2", {"ip.igmp_version": 2}),
        ("route.mtu_expires=60", {"tcp.mtu_expires_s": 60, "ip.mtu_expires_ms": 60_000}),
    ],
)  # fmt: skip
def test_sysctls_that_are_settings_here(sysctl: str, settings: dict[str, object]) -> None:
    """Times in their own unit, switches, numbers that count from another place."""
    world = World()
    apply_command(world, f"sysctl -q net.ipv4.{sysctl}", AT)
    assert world.settings == settings


def test_every_sysctl_that_settings_name_is_in_the_table() -> None:
    """levelip/config.py says of a setting which sysctl of Linux it stands for; scripts may use that."""
    descriptions = " ".join(key.description for key in keys().values())
    said = set(re.findall(r"Linux (tcp_\w+|icmp_\w+|ipfrag_\w+)", descriptions))
    assert len(said) > 15
    assert not [name for name in said if f"net.ipv4.{name}" not in SYSCTLS]


def test_init_scripts_come_before_the_script() -> None:
    """As the runner of Linux's own tests gives them: timestamps are on, and cubic is chosen."""
    world = World()
    take_option(world, Option("init_scripts", "../common/defaults.sh", 1, 1))
    assert world.linux_push
    assert world.settings["tcp.congestion"] == "cubic"


def test_a_cookie_of_fast_open_has_a_name() -> None:
    """TFO_COOKIE, which Linux's runner defines; a listener without Fast Open passes it over."""
    passes(LISTEN + "   +0 < S 0:0(0) win 65535 <mss 1000,FO TFO_COOKIE>\n   +0 > S. 0:0(0) ack 1 <mss 1460>")
    own = "   +0 < S 0:0(0) win 65535 <FO MINE>\n   +0 > S. 0:0(0) ack 1 <mss 1460>"
    result = run(parse(LISTEN + own, "x.pkt", {"MINE": "a1b2"}))
    assert next(line for line in result.trace if line.kind == "in").data.hex().endswith("2204a1b2")
    with pytest.raises(ScriptError, match="hex digits"):
        parse(LISTEN + own)


def test_a_symbol_stands_for_a_word_wherever_there_may_be_one() -> None:
    """Also where keywords may follow: the code of an ICMP error, behind which mtu could stand."""
    script = parse("0 < icmp unreachable CODE\n", "x.pkt", {"CODE": "port_unreachable"})
    assert script.events[0].action.code == 3  # type: ignore[union-attr]


def test_psh_of_linux_is_not_compared() -> None:
    """After defaults.sh, where there is data; not in a script that is strict."""
    for flags in ("P.", "."):
        text = f"{ESTABLISHED}   +0 write(4, ..., 100) = 100\n   +0 > {flags} 1:101(100) ack 1\n"
        result = run(parse("`defaults.sh`\n" + text))
        assert result.status == 0, result.failure
    assert list(fails("`defaults.sh`\n" + text)) == ["flags"]


# calls


def test_null_is_no_place_for_bytes() -> None:
    """EFAULT; where there are none to carry it does not matter."""
    calls = "".join(
        f"   +0 {call} = -1 EFAULT (Bad address)\n"
        for call in ("write(4, NULL, 5)", "send(4, NULL, 5, 0)", "sendto(4, NULL, 5, 0, ..., ...)", "read(4, NULL, 5)",
                     "recv(4, NULL, 5, 0)", "recvfrom(4, NULL, 5, 0, ..., ...)")
    )  # fmt: skip
    passes(ESTABLISHED + calls + "   +0 write(4, NULL, 0) = 0\n")


def test_msg_more_holds_back_until_a_call_without_it() -> None:
    """TCP_CORK by another name, as the client does it; a socket that is corked stays so."""
    more = "   +0 send(4, ..., 300, MSG_MORE) = 300\n"
    passes(ESTABLISHED + 2 * more + "   +.1 write(4, ..., 50) = 50\n   +0 > P. 1:651(650) ack 1")
    cork = "   +0 setsockopt(4, SOL_TCP, TCP_CORK, [1], 4) = 0\n"
    passes(ESTABLISHED + cork + more + "   +0 write(4, ..., 50) = 50\n +.2 > P. 1:351(350) ack 1")


def test_a_file_of_zeros_is_sent() -> None:
    """`dd` made it; an offset counts, and what is not there has no descriptor."""
    made = ESTABLISHED + "   +0 `rm -f /tmp/x; dd bs=10 count=5 if=/dev/zero of=/tmp/x status=none`\n"
    opened = made + '   +0 open("/tmp/x", O_RDONLY) = 5\n'
    passes(opened + "   +0 sendfile(4, 5, [0], 20) = 20\n   +0 > P. 1:21(20) ack 1\n   +0 close(5) = 0\n"
           "   +0 sendfile(4, 5, [0], 20) = -1 EBADF (x)\n")  # fmt: skip
    passes(opened + "   +0 sendfile(4, 5, [45], 20) = 5\n   +0 > P. 1:6(5) ack 1\n")
    passes(made + '   +0 open("/tmp/y", O_RDONLY) = -1 ENOENT (x)\n')
    with pytest.raises(ScriptError, match="dd is known as"):
        apply_command(World(), "dd if=/etc/hosts of=/tmp/x count=1", AT)


def epoll(*lines: str) -> str:
    """A connection that an epoll instance, 5, watches."""
    return ESTABLISHED + "   +0 epoll_create(1) = 5\n" + "".join(f"   +0 {line}\n" for line in lines)


WATCH = "epoll_ctl(5, EPOLL_CTL_ADD, 4, {{events=EPOLLIN{}, fd=4}}) = 0"
NOTHING = "epoll_wait(5, {events=0, ptr=0}, 1, 0) = 0"
READABLE = "epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1"
DATA = ("< P. 1:1001(1000) ack 1 win 65535", "> . 1:1(0) ack 1001")
MORE = ("< P. 1001:2001(1000) ack 1 win 65535", "> . 1:1(0) ack 2001")


def test_epoll_by_levels() -> None:
    """Told as long as it is true."""
    passes(epoll(WATCH.format(""), NOTHING, *DATA, READABLE, READABLE, "read(4, ..., 1000) = 1000", NOTHING))


def test_epoll_by_edges() -> None:
    """Told once for what came, again only when more comes, read or not."""
    passes(epoll(WATCH.format("|EPOLLET"), *DATA, READABLE, NOTHING, "read(4, ..., 500) = 500", NOTHING, *MORE,
                 READABLE, NOTHING))  # fmt: skip


def test_epoll_once() -> None:
    """EPOLLONESHOT: until it is asked for anew."""
    again = WATCH.format("").replace("ADD", "MOD")
    passes(epoll(WATCH.format("|EPOLLONESHOT"), *DATA, READABLE, NOTHING, again, READABLE))


def test_epoll_tells_of_room_where_there_was_none() -> None:
    """An edge of EPOLLOUT: not each ACK, but the first after a write that did not fit."""
    text = "--set=tcp.send_buffer=20000\n" + epoll(
        "fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0",
        "epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLOUT|EPOLLET, fd=4}) = 0",
        "epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = 1", "write(4, ..., 50000) = 20000",
        "> P. 1:10001(10000) ack 1", NOTHING, "< . 1:1(0) ack 10001 win 65535", "> P. 10001:20001(10000) ack 1",
        "epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = 1", "< . 1:1(0) ack 20001 win 65535", NOTHING,
    )  # fmt: skip
    passes(text)


def test_epoll_waits() -> None:
    """For what comes, or for so long."""
    come = "   +0...0.1 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, -1) = 1\n"
    passes(epoll(WATCH.format("")) + come + f" +.1 {DATA[0]}\n   +0 {DATA[1]}\n")
    passes(epoll(WATCH.format("")) + "   +0...0.05 epoll_wait(5, {events=0, ptr=0}, 1, 50) = 0\n")


def test_epoll_refuses_as_linux_does() -> None:
    """Twice, never, not open, no epoll; and what differs is shown."""
    watch = WATCH.format("")
    passes(epoll(watch, watch.replace("= 0", "= -1 EEXIST (x)"), watch.replace("ADD", "DEL"),
                 watch.replace("ADD", "MOD").replace("= 0", "= -1 ENOENT (x)"),
                 "epoll_ctl(5, EPOLL_CTL_ADD, 9, {events=EPOLLIN, fd=9}) = -1 EBADF (x)", "close(5) = 0",
                 watch.replace("= 0", "= -1 EBADF (x)")))  # fmt: skip
    rows = fails(epoll(WATCH.format("|EPOLLOUT"), *DATA, READABLE))
    assert rows == {"fd 4": ("EPOLLIN", "POLLIN|POLLOUT")}


def test_code_sees_a_socket_that_did_nothing_yet() -> None:
    """Its state is TCP_CLOSE, as Linux tells."""
    passes("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 %{ assert tcpi_state == TCP_CLOSE, tcpi_state }%")


# what is left out


@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"msg_control"}))
def test_a_name_of_what_is_left_out_is_refused(name: str) -> None:
    """With its reason, in whatever call it stands."""
    assert refusal(f"0 setsockopt(3, SOL_SOCKET, {name}, [1], 4) = 0") == f"{name}: not implemented, {NAMES[name]}"


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_call_that_is_left_out_is_refused(name: str) -> None:
    """Not as an unknown one."""
    assert refusal(f"0 {name}(3) = 0") == f"{name}: not implemented, {CALLS[name]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 recvmsg(3, {msg_iov(1)=[{..., 9}], msg_control=[{cmsg_level=1}]}, 0) = 9", "control messages"),
        ("0 recvmsg(3, {msg_name(...)=..., msg_iov(1)=[{..., 9}], msg_flags=0|MSG_ERRQUEUE}, 0) = 9", "error queue"),
        ("--ip_version=ipv6\n0 close(3) = 0", "IPv6"),
        ("--psp_udp_port=1000\n0 close(3) = 0", "PSP"),
        ("0 < ipv4 2.2.2.2 > 1.1.1.1: gre: . 1:1001(1000) ack 1 win 123", "packets within packets"),
        ("0 < encap psp spi 7 P. 101:501(400) ack 1 win 50000", "packets within packets"),
        ("`sysctl -q net.ipv4.tcp_ecn=3`\n0 close(3) = 0", "Accurate ECN"),
        ("0 `sysctl -q net.ipv4.tcp_ecn_option=2`", "Accurate ECN"),
        ("`sysctl -q net.ipv4.tcp_fastopen=0x602`", "Fast Open"),
        ("`sysctl -q net.ipv4.tcp_shrink_window=1`", "SHOULD NOT"),
        ("`sysctl -q net.ipv4.tcp_notsent_lowat=4000`", "not sent"),
        ("0 `nstat | grep TcpExtBeyondWindow`", "asks a question about Linux"),
        ("0 `tc qdisc add dev tun0 root pfifo limit 0`", "loses or delays"),
        ("0 `tc qdisc replace dev tun0 root fq`", "pacing"),
        ("0 `ip route change 192.0.2.1 dev tun0 advmss 1400`", "lvlip route"),
        ("0 %{ assert SK_MEMINFO_RCVBUF == 1 }%", "own account"),
        ("0 < S 0:0(0) win 1 <mss 1460,mp_capable_no_cs>", "Multipath"),
        ("0 < S 0:0(0) win 1 <mss 1460,ECN e1b 1>", "Accurate ECN"),
    ],
)
def test_what_is_left_out_is_named(text: str, said: str) -> None:
    """Sysctls, commands, options of TCP, code."""
    assert said in refusal(text)


def test_refused_is_counted_apart(tmp_path: Path) -> None:
    """Neither failed nor wrong; the exit status is that of a script that cannot run."""
    (tmp_path / "a.pkt").write_text("0 pipe([3, 4]) = 0\n")
    (tmp_path / "b.pkt").write_text("0 nonsense(3) = 0\n")
    (tmp_path / "c.pkt").write_text("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n")
    said = CliRunner().invoke(cli, ["run", str(tmp_path)])
    assert said.exit_code == 2
    assert "REFUSED " in said.output
    assert "a.pkt:1:1: pipe: not implemented" in said.stderr
    assert "3 scripts: 1 passed, 1 refused, 1 in error" in said.output
    rows = [json.loads(line) for line in CliRunner().invoke(cli, ["run", "--json", str(tmp_path)]).output.splitlines()]
    assert [row["status"] for row in rows] == ["refused", "error", "passed"]


def test_an_error_is_no_refusal() -> None:
    """What is unknown stays an error of the script."""
    result: Result = run(parse(LISTEN + "   +0 setsockopt(3, SOL_SOCKET, SO_NOWHERE, [1], 4) = 0"))
    assert result.status == 2
    assert not result.refused
