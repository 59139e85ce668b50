"""The limit for a server in Python: an epoll loop that looks for the end of a head and sends a canned answer.

It parses nothing, calls no application, knows no deadline and trusts its clients: `bare_loop.py HOST PORT`.
"""

from __future__ import annotations

import select
import socket
import sys

CONTENT = b"Hello, world!\n"

HEAD_END = b"\r\n\r\n"
CLOSE = b"Connection: close\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(CONTENT)
ANSWER = HEAD + b"\r\n" + CONTENT
LAST_ANSWER = HEAD + CLOSE + b"\r\n" + CONTENT


def serve(host: str, port: int) -> None:
    """Answer every request on every connection, for ever."""
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
            last = not data or CLOSE in data
            if data.endswith(HEAD_END):
                client.send(LAST_ANSWER if last else ANSWER)
            if last:
                poller.unregister(client)
                del clients[descriptor]
                client.close()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
