"""The page docs/socket-compat.md, and what it is made from."""
