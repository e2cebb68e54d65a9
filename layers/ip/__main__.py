"""`python -m layers.ip`: see process.py."""

import sys

from layers.ip.process import main

sys.exit(main())
