"""Serve an application with the standard library's wsgiref: `serve_wsgiref.py HOST PORT MODULE:ATTRIBUTE`."""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer, make_server


class Server(WSGIServer):
    """The server, with room for more than five clients that wait."""

    request_queue_size = 128


if __name__ == "__main__":
    # Here, as the processes of `multiprocessing` import this file by its path, and find no neighbour of it.
    from launcher import arguments

    host, port, application = arguments()
    make_server(host, port, application, Server).serve_forever()
