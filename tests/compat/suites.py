"""CPython's own test suites: how they are run over the stack, what is left out, what does not pass, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """One module of Python's `test` package. Names are Class.method, in a package module.Class.method."""

    name: str
    at_least: int
    """Tests that must have passed on the kernel, lest nothing counts as a success."""
    options: tuple[str, ...] = ()
    limit_s: int = 600
    """Of the whole; regrtest then shows each thread's stack, and ends."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Patterns of tests that are not run at all, and why."""
    differ: dict[str, str] = field(default_factory=dict)
    """Tests that pass on the kernel and not here, and why; "run: NAME" and "patch: NAME" in one way alone."""

    varies: dict[str, str] = field(default_factory=dict)
    """Likewise, but they do not always differ: time decides."""

    def known(self, way: str) -> set[str]:
        """Those that differ in one way, always."""
        return {name for only, name in map(_split, self.differ) if only in ("", way)}

    def unsure(self, way: str) -> set[str]:
        """Those that differ in it at times."""
        return {name for only, name in map(_split, self.varies) if only in ("", way)}


def _split(name: str) -> tuple[str, str]:
    only, _, test = name.rpartition(": ")
    return only, test


_GRANTED = "SO_SNDBUF made smaller on a live connection: the 256 KB that were granted before may still be written"
_LATER = "expects a reset to have arrived when the close() that sends it returns, as on Linux's loopback"
_AT_ONCE = "expects both ends to have what was sent when the calls that send it return, as on Linux's loopback"
_NO_IPV6 = "of AF_INET6: skipped, as has_ipv6 is False"
_RACING = (
    "connects again while the first attempt, to a port where nobody listens, is not refused yet: ECONNABORTED once "
    "that was told, as on Linux"
)
_CLOCK = "gives a machine that may be busy a second or two"
_CLEANED = "closes the client's socket once the server's half is done, perhaps before the client's asks for its name"
_LOOPS = ("EPoll", "Poll", "Select")
_KINDS = ("Default", "Epoll", "Poll", "Select")
_FILES = ("", "Unbuffered", "LineBuffered", "SmallBuffered", "UnicodeRead", "UnicodeWrite", "UnicodeReadWrite")

SUITES = (
    Suite(
        "test_socket",
        350,
        left_out={
            "*UDPLITE*": "UDP-Lite (RFC 3828) is not in the stack: EPROTONOSUPPORT",
            "*VSOCK*": "not AF_INET; it waits for ever where the kernel has AF_VSOCK and no hypervisor",
        },
        differ={
            "patch: GeneralModuleTests.testIPv6toString": _NO_IPV6,
            "patch: GeneralModuleTests.testStringToIPv6": _NO_IPV6,
            "patch: GeneralModuleTests.testRefCountGetNameInfo": (
                "counts references to the argument while the exception is handled: ours is a Python function, whose "
                "frame the traceback holds"
            ),
        },
        varies={f"{kind}FileObjectClassTestCase.testReadAfterTimeout": _CLOCK for kind in _FILES}
        | {
            "NetworkConnectionAttributesTest.testSourceAddress": _CLEANED,
            "NonBlockingTCPTests.testAccept": _CLOCK,
            "TCPCloserTest.testClose": _CLOCK,
            "UnbufferedFileObjectClassTestCase.testSmallReadNonBlocking": _CLOCK,
        },
    ),
    Suite("test_socketserver", 15, ("-u", "network")),
    Suite(
        "test_selectors",
        60,
        varies={
            f"{kind}SelectorTestCase.{test}": _CLOCK for kind in _KINDS for test in ("test_selector", "test_timeout")
        },
    ),
    Suite(
        "test_asyncio",
        2000,
        varies={
            f"test_sendfile.{loop}EventLoopTests.test_sendfile_{way}close_peer_in_the_middle_of_receiving": _GRANTED
            for loop in _LOOPS
            for way in ("", "fallback_")
        }
        | {f"test_sendfile.{loop}EventLoopTests.test_sendfile_prevents_bare_write": _AT_ONCE for loop in _LOOPS}
        | {f"test_sock_lowlevel.{loop}EventLoopTests.test_sock_client_connect_racing": _RACING for loop in _LOOPS},
    ),
    Suite("test_httpservers", 50),
    Suite("test_smtplib", 60),
    Suite("test_poplib", 50),
    Suite("test_xmlrpc", 70),
    Suite("test_urllib2_localnet", 15),
    Suite("test_ftplib", 70),
    Suite(
        "test_ssl",
        120,
        varies={
            "TestPreHandshakeClose.test_preauth_data_to_tls_client": _LATER,
            "TestPreHandshakeClose.test_preauth_data_to_tls_server": _LATER,
        },
    ),
    Suite("test_httplib", 100),
    Suite("test_imaplib", 80),
    Suite("test_telnetlib", 15),
    Suite("test_asyncore", 60),
    Suite("test_asynchat", 20, varies={"TestAsynchat.test_close_when_done": _AT_ONCE}),
    Suite("test_poll", 5),
    Suite("test_epoll", 8, varies={"TestEPoll.test_control_and_wait": _AT_ONCE}),
    Suite("test_select", 4),
    Suite("test_logging", 150),
)
