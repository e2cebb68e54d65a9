"""patch() and `python -m levelip`, in processes of their own. Nothing here needs a stack."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    """A Python that finds the package and no stack."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "LEVELIP_RUN": "/nowhere", "LEVELIP_NAME": "t"}
    return subprocess.run(
        [sys.executable, *argv], env=variables, capture_output=True, text=True, timeout=240, check=False
    )


def check(source: str) -> None:
    """Run a program that asserts."""
    done = python("-c", textwrap.dedent(source))
    assert done.returncode == 0, done.stderr


def test_patch_and_undo() -> None:
    """The standard module's names are ours between patch() and undo(), and then what they were."""
    check("""
        import socket
        before = dict(vars(socket))
        import levelip
        from levelip.client import socket as ours
        with levelip.patch():
            assert socket.socket is ours.socket
            assert socket.has_ipv6 is False and not socket.has_dualstack_ipv6()
            assert socket.getaddrinfo is ours.getaddrinfo
            one, two = socket.socketpair()
            assert isinstance(one, socket.socket)
            one.send(b"x")
            assert two.recv(1) == b"x"
            one.close(), two.close()
            try:
                socket.create_connection(("127.0.0.1", 1))
            except OSError as error:
                assert "no Level-IP stack" in str(error), error
            else:
                raise AssertionError
        assert vars(socket) == before
    """)


def test_patches_nest() -> None:
    """Each undo() takes back its own patch(); the last one the change. A second undo() of the same is nothing."""
    check("""
        import levelip, socket
        kernel = socket.socket
        first, second = levelip.patch(), levelip.patch()
        first.undo(), first.undo()
        assert socket.socket is not kernel
        second.undo()
        assert socket.socket is kernel
    """)


def test_modules_that_took_a_name_before() -> None:
    """`from socket import socket` in a module that is loaded is changed, too, and put back."""
    check("""
        import sys, types
        module = types.ModuleType("early")
        exec("from socket import socket, getaddrinfo, gaierror", vars(module))
        sys.modules["early"] = module
        import socket, levelip
        kernel = socket.socket
        patch = levelip.patch()
        assert module.socket is socket.socket is not kernel
        assert module.getaddrinfo is socket.getaddrinfo
        patch.undo()
        assert module.socket is kernel
    """)


@pytest.mark.parametrize("order", ["import ssl; levelip.patch()", "levelip.patch(); import ssl"])
def test_contexts_make_our_sockets(order: str) -> None:
    """Whether ssl was imported before or after, what a context wraps is of our class; the kernel's still works."""
    check(f"""
        import levelip
        {order}
        import socket
        context = ssl.create_default_context()
        one, two = socket.socketpair()
        kind = context.sslsocket_class
        assert issubclass(kind, socket.socket) and issubclass(kind, ssl.SSLSocket), kind.__mro__
        wrapped = context.wrap_socket(one, server_hostname="x", do_handshake_on_connect=False)
        assert isinstance(wrapped, ssl.SSLSocket) and isinstance(wrapped, socket.socket)
        wrapped.setblocking(False)
        try:
            wrapped.do_handshake()
        except ssl.SSLWantReadError:
            pass
        assert two.recv(1) == b"\\x16"  # a handshake record
    """)


def test_multiprocessing_sends_our_sockets() -> None:
    """A pipe of multiprocessing carries a socket of ours as it does the standard library's."""
    check("""
        import levelip
        levelip.patch()
        import multiprocessing, socket
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        one, two = socket.socketpair()
        ours.send(one)
        again = theirs.recv()
        again.send(b"sent")
        assert two.recv(9) == b"sent" and type(again) is type(one)
    """)


def test_programs(tmp_path: Path) -> None:
    """`python -m levelip` is the program: its name, arguments, directory, exit status and output."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, socket, beside\n"
        "assert __name__ == '__main__' and socket.socket.__module__ == 'levelip.client.socket'\n"
        "print(sys.argv[1:], __file__ == sys.argv[0])\n"
        "sys.exit(7)\n"
    )
    (tmp_path / "beside.py").write_text("")
    done = python("-m", "levelip", "--name", "other", str(program), "--name", "-m")
    assert (done.returncode, done.stdout) == (7, "['--name', '-m'] True\n"), done.stderr
    done = python("-m", "levelip", "-c", "import sys, os; print(sys.argv, os.environ['LEVELIP_NAME'], __name__)", "x")
    assert done.stdout == "['-c', 'x'] t __main__\n"
    own = "import pickle\ndef own(): return 'found'\nprint(pickle.loads(pickle.dumps(own))())"
    assert python("-m", "levelip", "-c", own).stdout == "found\n", "functions of the program's are found in __main__"
    done = python("-m", "levelip", "-m", "json.tool", "--help")
    assert done.returncode == 0
    assert "usage" in done.stdout


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "no program"),
        (["-m"], "-m needs a value"),
        (["--name"], "--name needs a value"),
        (["-x"], "unknown option -x"),
        (["/no/such/program.py"], "can't open file"),
    ],
)
def test_wrong_command_lines(argv: list[str], complaint: str) -> None:
    """Are told in a sentence, with a status that is not 0."""
    done = python("-m", "levelip", *argv)
    assert done.returncode
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
