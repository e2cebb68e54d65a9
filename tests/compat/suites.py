"""CPython's own test suites: how they are run over the stack, what is left out, and what may fail, with reasons."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """One module of Python's `test` package. Patterns and names are Class.method; the values say why."""

    name: str
    at_least: int  # tests that it must have run, lest nothing counts as a success
    options: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    may_fail: dict[str, str] = field(default_factory=dict)


_GRANTED = "SO_SNDBUF made smaller on a live connection: the 256 KB that were granted before may still be written"

_NEWER = "fails on the kernel's sockets likewise where the suite is newer than the interpreter"
_LATER = "expects a reset to have arrived when the close() that sends it returns, as on Linux's loopback"

SUITES = (
    Suite("test_socketserver", 15, ("-u", "network")),
    Suite("test_selectors", 60),
    Suite(
        "test_socket",
        500,
        left_out={
            "*UDPLITE*": "UDP-Lite (RFC 3828) is not in the stack: EPROTONOSUPPORT",
            "*VSOCK*": "not AF_INET; it waits for ever where the kernel has AF_VSOCK and no hypervisor",
        },
    ),
    Suite(
        "test_asyncio",
        2000,
        may_fail={
            f"{loop}EventLoopTests.test_sendfile_close_peer_in_the_middle_of_receiving": _GRANTED
            for loop in ("EPoll", "Poll", "Select")
        }
        | {
            "SslProtoHandshakeTests.test_check_hostname_requires_server_hostname": _NEWER,
        },
    ),
    Suite("test_httpservers", 50),
    Suite("test_smtplib", 60),
    Suite("test_poplib", 50),
    Suite("test_xmlrpc", 70),
    Suite("test_urllib2_localnet", 15),
    Suite(
        "test_ftplib",
        70,
        may_fail={"TestFtpcpSecurity.test_ftpcp_ignores_untrusted_pasv_host": _NEWER},
    ),
    Suite(
        "test_ssl",
        120,
        may_fail={
            "TestPreHandshakeClose.test_preauth_data_to_tls_client": _LATER,
            "TestPreHandshakeClose.test_preauth_data_to_tls_server": _LATER,
            "SSLErrorTests.test_bad_server_hostname": _NEWER,
            "SSLObjectTests.test_check_hostname_requires_server_hostname": _NEWER,
            "SSLObjectTests.test_server_side_bad_params": _NEWER,
        },
    ),
)
