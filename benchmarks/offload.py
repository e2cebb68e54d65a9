"""Turn a device's segmentation and checksum offload off, as `ethtool -K DEV tso off gso off gro off tx off` does.

python -m benchmarks.offload DEVICE
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_OFF = {  # linux/ethtool.h; segmentation first, as it needs checksums
    "tso": 0x1F,
    "gso": 0x24,
    "gro": 0x2C,
    "tx": 0x17,
}


def turn_off(device: str) -> None:
    """All of it. OSError as ioctl gives it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFF.values():
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            request = struct.pack("16sQ16x", device.encode("ascii"), ctypes.addressof(value))
            fcntl.ioctl(control, _SIOCETHTOOL, request)


if __name__ == "__main__":
    turn_off(sys.argv[1])
