"""Serve an application with bjoern: `serve_bjoern.py HOST PORT MODULE:ATTRIBUTE`."""

from __future__ import annotations

from launcher import arguments

if __name__ == "__main__":
    host, port, application = arguments()
    import bjoern

    bjoern.run(application, host, port)
