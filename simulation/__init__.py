"""The cores in one process and in virtual time: for packet scripts, tests and replay. Nothing imports it but these."""
