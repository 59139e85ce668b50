"""The limit for a WSGI server in Python: an epoll loop that calls the application with a canned environ.

It parses nothing, checks nothing, knows no deadline and trusts clients and application:
`bare_app.py HOST PORT MODULE:CALLABLE`.
"""

from __future__ import annotations

import importlib
import io
import select
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

HEAD_END = b"\r\n\r\n"


def answer(application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> bytes:
    """Call the application; return its whole answer, which must have told its length."""
    environ = environ.copy()
    environ["wsgi.input"] = io.BytesIO()
    lines: list[str] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: object = None) -> None:
        lines[:] = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "\r\n"]

    content = application(environ, start_response)
    data = b"".join(content)
    close = getattr(content, "close", None)
    if close is not None:
        close()
    return "\r\n".join(lines).encode("latin-1") + data


def serve(host: str, port: int, name: str) -> None:
    """Answer every request on every connection with what the application has for ``/hello``, for ever."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    application = getattr(importlib.import_module(module), attribute)
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/hello",
        "QUERY_STRING": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": f"{host}:{port}",
        "REMOTE_ADDR": host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    listener = socket.create_server((host, port), backlog=1024)
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    waiting = listener.fileno()
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == waiting:
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poller.register(client, select.EPOLLIN)
                continue
            client = clients[descriptor]
            try:
                data = client.recv(65_536)
            except ConnectionError:
                data = b""
            if data.endswith(HEAD_END):
                client.send(answer(application, environ))
            if not data:
                poller.unregister(client)
                del clients[descriptor]
                client.close()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
