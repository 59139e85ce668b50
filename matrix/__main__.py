"""`python -m matrix`: which cells there are, run them, see one again."""

from __future__ import annotations

import sys

from matrix.cli import main

if __name__ == "__main__":
    sys.exit(main())
