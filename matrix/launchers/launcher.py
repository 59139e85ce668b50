"""What the launchers share: the command line `HOST PORT MODULE:ATTRIBUTE`, and finding the application."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def arguments() -> tuple[str, int, Callable[..., Any]]:
    """Return host, port and application of the command line; the working directory is importable."""
    if len(sys.argv) != 4:
        sys.exit(f"usage: {Path(sys.argv[0]).name} HOST PORT MODULE:ATTRIBUTE")
    host, port, name = sys.argv[1:]
    # First, as `python -m` has it: the launchers' own folder must hide no module of the app.
    sys.path[0] = str(Path.cwd())
    module, _, attribute = name.partition(":")
    application: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return host, int(port), application
