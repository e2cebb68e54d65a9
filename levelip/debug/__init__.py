"""The debugger as a Python API: what `lvlip` itself uses to watch, stop and change a running stack."""
