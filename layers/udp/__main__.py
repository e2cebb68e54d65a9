"""`python -m layers.udp`."""

import sys

from layers.udp.process import main

sys.exit(main())
