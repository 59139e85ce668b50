"""Run uWSGI out of its Python package: `serve_uwsgi.py MODULE:ATTRIBUTE [uWSGI's options]`, in the app's folder."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    import pyuwsgi

    name, *options = sys.argv[1:]
    module, _, attribute = name.partition(":")
    # uWSGI itself looks only into the module's dictionary, and misses what a module makes when it is asked.
    entry = f"from {module} import {attribute} as application"
    # It starts a Python of its own, which has to find this environment and the app.
    pyuwsgi.run(["--virtualenv", sys.prefix, "--pythonpath", str(Path.cwd()), "--eval", entry, *options])
