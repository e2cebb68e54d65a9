"""Whole Python programs on the stack: `python -m levelip`, and the libraries that programs are made of."""

from __future__ import annotations

import difflib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.system.harness import ROOT, Stack
from tests.system.programs import libraries, semantics, socketapi
from tests.system.test_run import PATIENCE_S, Peers

pytestmark = pytest.mark.timeout(600)

PROGRAMS = Path(semantics.__file__).parent
ON_STACK = [sys.executable, "-m", "levelip"]


def _variables(stack: Stack) -> dict[str, str]:
    """No name server is there: http.server's getfqdn() shall not wait for one as long as it may."""
    options = {"RES_OPTIONS": "timeout:1 attempts:1"}
    return {**stack.env, **options, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def said(_shared: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What libraries.py says of each case; all run in one process, as the imports take longest."""
    certificates = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certificates / "ca.pem")
    server = authority.issue_cert(_shared.address)
    server.private_key_and_cert_chain_pem.write_to_path(certificates / "server.pem")
    assert _shared.namespace is not None
    done = subprocess.run(
        _shared.namespace.command(
            [*ON_STACK, str(PROGRAMS / "libraries.py"), str(certificates), _shared.address, _shared.host]
        ),
        env=_variables(_shared), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    answers = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return {**answers, "stderr": done.stderr}


@pytest.mark.parametrize("case", [case.__name__ for case in libraries.CASES])
def test_libraries(shared_stack: Stack, said: dict[str, str], case: str) -> None:
    """Libraries that know nothing of the stack talk over it, as client and as server, with TLS and without."""
    assert said.get(case) == "ok", said["stderr"]


def test_the_libraries_went_over_the_stack(shared_stack: Stack, said: dict[str, str]) -> None:
    """What they sent was counted in the stack: more than 10 MB crossed its loopback."""
    assert said
    assert shared_stack.counters("ip")["loopback.bytes"] > 10_000_000


@pytest.fixture
def peers(shared_stack: Stack) -> Iterator[Peers]:
    """Servers of the kernel."""
    found = Peers(shared_stack)
    yield found
    found.close()


# the other cases of semantics.py call C functions on the descriptor, or programs that are not on the stack
@pytest.mark.parametrize("case", ["connected", "addressed", "refused", "nonblocking", "options", "resets", "threads"])
def test_calls_answer_as_the_kernels(shared_stack: Stack, peers: Peers, case: str) -> None:
    """A program that tries what socket calls answer in each situation says the same under python -m levelip."""
    assert shared_stack.namespace is not None
    heard = []
    for command, host in (([sys.executable, "-P"], "10.0.0.1"), (ON_STACK, shared_stack.address)):
        program = shared_stack.namespace.popen(
            [*command, str(PROGRAMS / "semantics.py"), "10.0.0.1", case],
            env=_variables(shared_stack), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        killer = threading.Timer(PATIENCE_S, program.kill)
        killer.start()
        heard.append(peers.talk(program, host).splitlines())
        killer.cancel()
    assert heard[0] == heard[1], "\n".join(difflib.unified_diff(*heard, "kernel", "levelip", lineterm="", n=1))


def sections(output: str) -> dict[str, list[str]]:
    """The lines of each case, by its name."""
    found: dict[str, list[str]] = {}
    for part in output.split("-- ")[1:]:
        name, *lines = part.splitlines()
        found[name] = lines
    return found


@pytest.fixture(scope="module")
def compared(_shared: Stack) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What socketapi.py says on the kernel's sockets and on the stack's, which run at the same time."""
    assert _shared.namespace is not None
    _shared.namespace.run(["ip", "link", "set", "lo", "up"])
    programs = [
        _shared.namespace.popen(
            [*command, str(PROGRAMS / "socketapi.py")],
            env=_variables(_shared), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for command in ([sys.executable, "-P"], ON_STACK)
    ]  # fmt: skip
    kernel, ours = [sections(program.communicate(timeout=300)[0]) for program in programs]
    return kernel, ours


@pytest.mark.parametrize("case", [case.__name__ for case in socketapi.CASES])
def test_the_api_answers_as_on_the_kernel(
    shared_stack: Stack, compared: tuple[dict[str, list[str]], dict[str, list[str]]], case: str
) -> None:
    """A program that tries methods, flags, poll masks, processes and errors says the same on both."""
    kernel, ours = compared[0].get(case, []), compared[1].get(case, [])
    assert kernel == ours, "\n".join(difflib.unified_diff(kernel, ours, "kernel", "levelip", lineterm="", n=1))
    assert len(kernel) >= 2
    assert not any("Traceback" in line for line in kernel)
