"""`python -m layers.link`."""

from __future__ import annotations

import sys

from layers.link.process import main

sys.exit(main())
