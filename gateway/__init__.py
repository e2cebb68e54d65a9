"""The gateway: what the socket calls of applications mean, and the way of their bytes between clients and tcp."""
