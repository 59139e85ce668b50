"""Modules of the standard library that the server imports when it first needs them.

``standard.tempfile`` is the module `tempfile`, imported at the first use. Most processes never need it, and it takes a
while.

The folder of an application comes first on `sys.path`, and may have a ``tempfile.py`` of its own. As in any Python
program, ``import tempfile`` in the application is then that file, and the server needs the other. Rules:

- Nothing of the standard library is imported inside of a function of the server, once the application may be there:
  it is taken from here. ``tests/unit/test_primitives.py`` holds this.
- `keep_standard` looks for such files before a folder becomes importable. Only where there are some does it import
  what the server may need. Those names it takes out of `sys.modules` again, for the application to import its own.
- A module that is imported before the application anyway, as `socket`, cannot be replaced by a file.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import difflib
    import json.encoder
    import random
    import resource
    import tempfile
    import traceback
    import urllib.parse

__all__ = ["difflib", "json", "keep_standard", "random", "resource", "tempfile", "traceback", "urllib"]

NEEDED: Final = {
    "difflib": "difflib",
    "json": "json.encoder",
    "random": "random",
    "resource": "resource",
    "tempfile": "tempfile",
    "traceback": "traceback",
    "urllib": "urllib.parse",
}
"""What each name here imports."""
LATE: Final = ("certificates", "elsewhere", "logline", "mount", "proxied", "reloader", "secure")
"""Modules of wizgy that are imported inside of functions, and import more of the standard library."""


def __getattr__(name: str) -> Any:
    if name not in NEEDED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(NEEDED[name])
    module = globals()[name] = sys.modules[name]
    return module


def keep_standard(folder: str) -> None:
    """Import what a folder would hide from the server, before it becomes importable.

    Args:
        folder: where an application is.
    """
    hidden = _find_hidden(folder)
    if not hidden:
        return
    before, path = set(sys.modules), sys.path
    sys.path = [entry for entry in path if os.path.realpath(entry) != os.path.realpath(folder)]
    try:
        for name in NEEDED:
            with suppress(ImportError):  # not every Python has all
                globals()[name] = __getattr__(name)
        for name in LATE:
            with suppress(ImportError):
                import_module(f"wizgy.{name}")
    finally:
        sys.path = path
    for name in sys.modules.keys() - before:
        if name.partition(".")[0] in hidden:
            del sys.modules[name]


def _find_hidden(folder: str) -> set[str]:
    """The modules of the standard library that are not imported yet, and have the name of a file in a folder."""
    try:
        names = {name.partition(".")[0] for name in os.listdir(folder)}
    except OSError:  # it may be entered but not listed
        names = set(sys.stdlib_module_names)
    return (names & sys.stdlib_module_names) - sys.modules.keys()
