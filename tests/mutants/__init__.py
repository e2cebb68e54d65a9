"""Mutation testing of layers/tcp and layers/ip: `make mutants`, docs/mutants.md.

mutmut makes the mutants; `make.py` names them so that a name outlives edits elsewhere, `trial.py` runs one against the
tests that reach it, `worker.py` all of them, `report.py` counts and writes docs/mutants.md, `run.py` is the program.
"""
