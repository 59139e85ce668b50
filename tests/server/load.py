"""Clients that ask without pause, in threads, and count what fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tests.server.client import TIMEOUT, connect, request

USER_AGENT = "load"
"""By which a line of the access log is known to be of the load, and not of whoever waited for the server."""
CLOSING = request("/hello", f"User-Agent: {USER_AGENT}", "Connection: close")
KEEPING = request("/hello", f"User-Agent: {USER_AGENT}")
CHUNKED_END = b"\r\n0\r\n\r\n"


class Load:
    """Clients of a server, from `with` on until its end; half of them use a connection as long as they may.

    A client sends its next request when it has the whole answer to the last. An answer that is not 200, a
    connection that is refused and one that ends too soon are failures, also where a client of RFC 9110 section 9.2.2
    would ask again.

    Args:
        address: the server's.
        clients: how many of each kind.
        pause: seconds between two requests of a client.
    """

    def __init__(self, address: tuple[str, int], clients: int = 2, pause: float = 0.0) -> None:
        self._address = address
        self._pause = pause
        self._stopping = threading.Event()
        self._counts = [0] * clients * 2
        self.failures: list[str] = []
        self.slowest = 0.0
        kinds: list[Callable[[int], None]] = [self._close_each, self._keep_open]
        self._threads = [
            threading.Thread(target=self._repeat, args=(kinds[number % 2], number)) for number in range(clients * 2)
        ]

    @property
    def answered(self) -> int:
        """How many requests were answered with 200."""
        return sum(self._counts)

    @property
    def asked(self) -> int:
        """How many requests have come to an end."""
        return self.answered + len(self.failures)

    def _repeat(self, client: Callable[[int], None], number: int) -> None:
        while not self._stopping.is_set():
            try:
                client(number)
            except (OSError, ValueError) as error:
                self.failures.append(f"{client.__name__} at {time.strftime('%H:%M:%S')}: {error!r}")
                self._stopping.wait(0.01)

    def _close_each(self, number: int) -> None:
        with connect(self._address) as sock:
            self._ask(sock, CLOSING, number)

    def _keep_open(self, number: int) -> None:
        with connect(self._address) as sock:
            while not self._stopping.is_set():
                if self._ask(sock, KEEPING, number):
                    return

    def _ask(self, sock: socket.socket, data: bytes, number: int) -> bool:
        """Ask once; returns whether the server closes the connection.

        Raises:
            OSError: there is no whole answer.
            ValueError: the answer is not 200.
        """
        began = time.monotonic()
        sock.sendall(data)
        answer = b""
        while not answer.endswith(CHUNKED_END if b"chunked" in answer else b"hello\n"):
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"the answer ends after {len(answer)} bytes")
            answer += piece
            if not answer.startswith(b"HTTP/1.1 200 "[: len(answer)]):
                raise ValueError(f"{answer!r}")
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._counts[number] += 1
        if self._pause:
            self._stopping.wait(self._pause)
        return b"\r\nconnection: close\r\n" in answer.lower()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
