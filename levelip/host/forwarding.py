"""Forwarding between the host's interfaces (sysctl net.ipv4.ip_forward), switched on and put back exactly.

Writing ip_forward also sets `forwarding` of every interface and `accept_redirects` of all (Linux inet_forward_change),
so what these were is remembered too.
"""

from __future__ import annotations

from pathlib import Path

from levelip.ipc.rundir import RunError

_NET = Path("/proc/sys/net/ipv4")
_SWITCH = _NET / "ip_forward"
_REDIRECTS = _NET / "conf/all/accept_redirects"


class ForwardingError(RunError):
    """Forwarding cannot be changed; the text says what would help."""


def is_on() -> bool:
    """Whether the host forwards between interfaces."""
    return _SWITCH.read_text().strip() != "0"


def settings() -> dict[str, str]:
    """What `switch_on` will change, by file, for `put_back`."""
    return {str(path): path.read_text().strip() for path in [_SWITCH, _REDIRECTS, *_per_interface()]}


def switch_on() -> None:
    """Forward between all interfaces."""
    _write(_SWITCH, "1")


def put_back(before: dict[str, str]) -> bool:
    """As it was; False if somebody switched it off in the meantime. Interfaces that are gone are left out."""
    if not before or not is_on():
        return False
    _write(_SWITCH, before[str(_SWITCH)])
    for name, value in before.items():
        path = Path(name)
        if path.exists() and path.read_text().strip() != value:
            _write(path, value)
    return True


def _per_interface() -> list[Path]:
    return sorted(path for path in _NET.glob("conf/*/forwarding") if path.parent.name != "all")


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        name = ".".join(path.relative_to("/proc/sys").parts)
        raise ForwardingError(f"{path}: {error.strerror}; as root: sysctl -w {name}={value}") from None
