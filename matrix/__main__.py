"""`python -m matrix`: which cells there are, run them, see one again."""

from __future__ import annotations

import sys

try:
    from matrix.cli import main
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] in ("matrix", "tests", "requirements"):
        raise  # a fault of this tree, or of where the command was given
    sys.exit(f"matrix: {error}; run: pip install --require-hashes -r requirements/matrix.txt")

if __name__ == "__main__":
    sys.exit(main())
