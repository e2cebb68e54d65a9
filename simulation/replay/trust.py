"""What code a recording may have run: this Level-IP's cores, and congestion controls that the user's own configuration
names.

A recording names congestion controls, in tcp's configuration, in each connection of a snapshot, and where one was set.
A name with a colon is imported ("package.module:Class"), so a file from elsewhere must not choose it: it has to stand
in the configuration that the user gives (`--config`, or LEVELIP_CONFIG).
"""

from __future__ import annotations

import os
from typing import Any

from levelip.configfile import load_config
from levelip.tracing.recording import RecordingError

_given: dict[str, str] = {}


def use_config(path: str) -> None:
    """The user's configuration file. It counts in place of LEVELIP_CONFIG's."""
    _given["path"] = path


def check_congestion(name: Any) -> None:
    """RecordingError for a congestion control that a recording must not have imported. ConfigError: the user's
    configuration is wrong."""
    if not isinstance(name, str):
        raise RecordingError(f"a congestion control's name is a text, not {name!r}")
    if ":" not in name:
        return
    path = _given.get("path") or os.environ.get("LEVELIP_CONFIG")
    if path and load_config(path, []).tcp.congestion == name:
        return
    raise RecordingError(
        f"the recording names {name!r} as congestion control, which is code of its own: it is imported only if "
        f"tcp.congestion of your configuration says the same (lvlip replay --config FILE, or LEVELIP_CONFIG)"
    )


def check_setting(process: str, key: str, value: Any) -> None:
    """The same of a setting that was changed while it was recorded."""
    if process == "tcp" and key == "congestion":
        check_congestion(value)


def check_snapshot(process: str, config: Any, state: Any) -> None:
    """The same of a snapshot, before a core is made of it. `config`: the core's, decoded."""
    if process != "tcp":
        return
    check_congestion(config.tcp.congestion)
    rows = state.get("connections") if isinstance(state, dict) else None
    for row in rows if isinstance(rows, list) else ():
        strategy = row.get("congestion") if isinstance(row, dict) else None
        if isinstance(strategy, dict):
            check_congestion(strategy.get("name"))
