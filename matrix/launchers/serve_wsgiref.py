"""Serve an application with the standard library's wsgiref: `serve_wsgiref.py HOST PORT MODULE:ATTRIBUTE`."""

from __future__ import annotations

from wsgiref.simple_server import make_server

from launcher import arguments

if __name__ == "__main__":
    host, port, application = arguments()
    make_server(host, port, application).serve_forever()
