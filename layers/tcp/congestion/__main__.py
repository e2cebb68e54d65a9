"""`python -m layers.tcp.congestion NAME`: whether tcp would start with that congestion control; else why not, and exit
status 1. `lvlip config --check` asks so, which imports no layer."""

from __future__ import annotations

import sys

from layers.tcp.congestion import NoStrategy, find

try:
    find(sys.argv[1])
except NoStrategy as error:
    sys.exit(str(error))
