"""What a test says and hears over its sockets, without its help: sockets are made of a class that keeps the bytes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matrix.results import EventKind

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


@dataclass(frozen=True)
class TapEvent:
    """Something that happened on a socket; `matrix.results.make_exchange` takes it."""

    seconds: float
    kind: EventKind
    data: bytes = b""
    text: str = ""


class Tap:
    """Keeps what goes over the client sockets that are made while it listens."""

    def __init__(self) -> None:
        self.events: list[TapEvent] = []
        self._began = 0.0
        self._connections = 0
        self._last = 0

    @contextmanager
    def listening(self, wanted: bool) -> Iterator[None]:
        """Forget what was heard, and listen if that is wanted."""
        self.events, self._connections, self._last = [], 0, 0
        if not wanted:
            yield
            return
        self._began = time.monotonic()
        original = socket.socket  # where `socket.create_connection` and urllib3 look it up
        socket.socket = _tapped(self)  # type: ignore[misc]
        try:
            yield
        finally:
            socket.socket = original  # type: ignore[misc]

    def connected(self) -> int:
        """Return the number of a new connection."""
        self._connections += 1
        return self._connections

    def heard(self, connection: int, kind: EventKind, data: bytes = b"", text: str = "") -> None:
        """Keep an event; when it is on another connection than the last one, say so first."""
        seconds = time.monotonic() - self._began
        if connection != self._last and (self._last or connection > 1):
            self.events.append(TapEvent(seconds, "note", text=f"on connection {connection}"))
        self._last = connection
        self.events.append(TapEvent(seconds, kind, data, text))


def _tapped(tap: Tap) -> type[socket.socket]:
    """Return a class of sockets that tell the tap what they send and receive once they are connected."""

    class TappedSocket(socket.socket):
        connection = 0

        def connect(self, address: Any) -> None:
            super().connect(address)
            self.connection = tap.connected()

        def send(self, data: ReadableBuffer, flags: int = 0) -> int:
            count = super().send(data, flags)
            self._tell("sent", bytes(memoryview(data).cast("B")[:count]))
            return count

        def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
            super().sendall(data, flags)
            self._tell("sent", bytes(memoryview(data).cast("B")))

        def recv(self, size: int, flags: int = 0) -> bytes:
            data = super().recv(size, flags)
            self._tell("received" if data else "end of stream", data)
            return data

        def recv_into(self, buffer: WriteableBuffer, size: int = 0, flags: int = 0) -> int:
            count = super().recv_into(buffer, size, flags)
            self._tell("received" if count else "end of stream", bytes(memoryview(buffer).cast("B")[:count]))
            return count

        def shutdown(self, how: int) -> None:
            super().shutdown(how)
            self._tell("half-closed")

        def _tell(self, kind: EventKind, data: bytes = b"") -> None:
            if self.connection:
                tap.heard(self.connection, kind, data)

    return TappedSocket
