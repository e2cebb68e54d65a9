"""Level-IP: a TCP/IP stack in user space, one process per protocol layer."""

__version__ = "0.1.0"
