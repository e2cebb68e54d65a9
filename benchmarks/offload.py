"""Turn a device's segmentation and checksum offload off, as `ethtool -K DEV tso off gso off gro off tx off` does.

python -m benchmarks.offload DEVICE [NAME=on|off ...]    only these, of tso, gso, gro, tx
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_SET = {  # linux/ethtool.h; segmentation first, as it needs checksums
    "tso": 0x1F,
    "gso": 0x24,
    "gro": 0x2C,
    "tx": 0x17,
}


def turn(device: str, features: dict[str, bool]) -> None:
    """Some features on or off. OSError as ioctl gives it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, on in features.items():
            value = ctypes.create_string_buffer(struct.pack("=II", _SET[name], on))
            request = struct.pack("16sQ16x", device.encode("ascii"), ctypes.addressof(value))
            fcntl.ioctl(control, _SIOCETHTOOL, request)


if __name__ == "__main__":
    given = dict(word.split("=") for word in sys.argv[2:])
    turn(sys.argv[1], {name: value == "on" for name, value in given.items()} or dict.fromkeys(_SET, False))
