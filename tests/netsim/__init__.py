"""Two or more stacks over a simulated network, in virtual time."""
