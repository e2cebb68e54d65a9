"""Unmodified programs on the stack: their socket calls are trapped by seccomp and carried to the gateway."""
