"""`python -m layers.tcp`."""

import sys

from layers.tcp.process import main

sys.exit(main())
