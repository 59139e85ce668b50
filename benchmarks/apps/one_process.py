"""wizgy in one process, without its watcher: `one_process.py HOST PORT THREADS MODULE:CALLABLE`.

Callgrind makes everything fifty times slower, so every call would count as slow, and what hand-offs cost would be
counted in place of what a request costs. It attaches to a process that was started, and not to one that was forked.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import wizgy
import wizgy.engine

NEVER = 3600.0
"""Seconds after which a call counts as slow."""


def serve(host: str, port: int, threads: int, name: str) -> None:
    """Serve an application until the process is killed."""
    engine: Any = wizgy.engine
    engine.SLOW = engine.LONGEST_TICK = NEVER
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    application = getattr(importlib.import_module(module), attribute)
    wizgy.make_server((host, port), application, threads=threads).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
