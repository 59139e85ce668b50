"""Measure wizgy and its peers in one run: `python -m benchmarks [run|compare|report|list]`."""

from __future__ import annotations

import sys

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
