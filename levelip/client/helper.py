"""Entry of the socket helper: `python -m levelip.client.helper ENDPOINT DOOR_FD PROGRAM`, started by a program's first
socket (program.py).

It leaves the program's process group, session, directory and standard streams (except standard error, for crashes,
until the program is gone), so that a Ctrl-C in the program's terminal does not cut what it wrote. It ends when the
last holder of a socket has closed it and all that was written is handed over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

IGNORED = ("SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT", "SIGTSTP", "SIGPIPE", "SIGUSR1", "SIGUSR2")
NAME = b"lvlip-helper"  # as ps and top show it; 15 bytes at most


def main() -> None:
    """Fork away from the starter, which waits only for that, then serve."""
    if len(sys.argv) != 4:
        sys.exit("usage: python -m levelip.client.helper ENDPOINT DOOR_FD PROGRAM (programs start it themselves)")
    endpoint, door_fd, software = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if os.fork():
        os._exit(0)
    detach()
    # imported here, so that the starter need not wait for it
    import socket

    from levelip.client.door import Door
    from levelip.client.loop import Loop

    door = Door(socket.socket(fileno=door_fd))
    loop = Loop(endpoint, door, software, share=os.environ.get("LEVELIP_SHARE", "1") != "0")
    loop.run()
    loop.close()


def detach() -> None:
    """Own session (the starter has made one), harmless signals, root directory, as many descriptors as allowed."""
    import resource

    for name in IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as comm:  # noqa: PTH123 - keeps imports few
        comm.write(NAME)


if __name__ == "__main__":
    main()
