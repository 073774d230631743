"""`python -m mtltrain`."""

import sys

from .cli import main

sys.exit(main())
