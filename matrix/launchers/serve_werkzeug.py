"""Serve an application with Werkzeug's development server: `serve_werkzeug.py HOST PORT MODULE:ATTRIBUTE`."""

from __future__ import annotations

from launcher import arguments

if __name__ == "__main__":
    host, port, application = arguments()
    from werkzeug.serving import run_simple

    run_simple(host, port, application, threaded=True)
