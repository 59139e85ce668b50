"""Serve an application with FastWSGI: `serve_fastwsgi.py HOST PORT MODULE:ATTRIBUTE`."""

from __future__ import annotations

from launcher import arguments

if __name__ == "__main__":
    host, port, application = arguments()
    import fastwsgi

    fastwsgi.run(application, host, port)
