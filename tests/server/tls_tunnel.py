"""A tunnel that speaks TLS to a server on behalf of clients that do not."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from contextlib import suppress
from types import TracebackType

from tests.server.client import Address, connect
from tests.server.tls_client import Pieces

ROOM = 1 << 18
"""Bytes that wait for one side before the other is read no more."""


class Tunnel:
    """Listens, and hands on what comes on each connection over TLS on one of its own.

    The ends of both streams keep their meaning: an end is close_notify, and a reset, or an end without close_notify, is
    a reset.

    Args:
        server: where the server is.
        context: what the tunnel trusts.
    """

    def __init__(self, server: Address, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(0.1)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.address: tuple[str, int] = self._listener.getsockname()

    def __enter__(self) -> Tunnel:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, *call: object) -> None:
        function, *arguments = call
        thread = threading.Thread(target=function, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, connect(self._server) as server:
            try:
                tls = Pieces(server, self._context)
                tls.shake_hands()
                _Relay(client, tls).run(self._ended)
            except OSError:
                for sock in (client, server):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Relay:
    """Both directions of one connection."""

    def __init__(self, client: socket.socket, tls: Pieces) -> None:
        self._client, self._server, self._tls = client, tls.sock, tls
        self._to_client, self._to_server = bytearray(), bytearray()
        self._client_ended = self._server_ended = self._told = False
        self._cut = False  # whether the server has ended without saying so

    def run(self, ended: threading.Event) -> None:
        """Hand on until both have ended, or one is gone.

        Raises:
            OSError: one is gone, or has ended without saying so.
        """
        self._client.setblocking(False)
        self._server.setblocking(False)
        while not ended.is_set() and not (self._client_ended and self._server_ended and not self._to_client):
            reading = [self._client] if not self._client_ended and len(self._to_server) < ROOM else []
            if not self._server_ended and len(self._to_client) < ROOM:
                reading.append(self._server)
            writing = [self._client] * bool(self._to_client) + [self._server] * bool(self._to_server)
            readable, writable, _ = select.select(reading, writing, [], 0.1)
            if self._client in readable:
                self._take_from_client()
            if self._server in readable:
                self._take_from_server()
            for sock, waiting in ((self._client, self._to_client), (self._server, self._to_server)):
                if sock in writable:
                    del waiting[: sock.send(waiting)]
            if self._cut and not self._to_client:
                raise ConnectionResetError
            if self._server_ended and not self._to_client and not self._told:
                self._told = True
                self._client.shutdown(socket.SHUT_WR)

    def _take_from_client(self) -> None:
        data = self._client.recv(65536)
        if data:
            self._tls.tls.write(data)
        else:
            self._client_ended = True
            with suppress(ssl.SSLWantReadError):
                self._tls.tls.unwrap()
        self._to_server += self._tls.outgoing.read()

    def _take_from_server(self) -> None:
        data = self._server.recv(65536)
        if data:
            self._tls.incoming.write(data)
        else:
            self._tls.incoming.write_eof()
        try:
            while piece := self._tls.tls.read(65536):
                self._to_client += piece
            self._server_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._server_ended = True
        except ssl.SSLEOFError:
            self._cut = self._server_ended = True
        self._to_server += self._tls.outgoing.read()
