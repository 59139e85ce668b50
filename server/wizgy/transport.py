"""A connected stream that does not block, and receiving from it."""

from __future__ import annotations

from typing import Final, Protocol

from wizgy.primitives import monotonic

RECEIVE_SIZE: Final = 65536
"""Bytes to ask for at a time, and so the bound of what is read ahead of a pipelined request."""
TURN: Final = 0.0005
"""Seconds that one connection may take before another has its turn."""


class Turn:
    """The time that one connection may take. It starts with the first question: short work reads no clock."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = 0.0

    def is_over(self) -> bool:
        """Whether others are due."""
        now = monotonic()
        if not self._end:
            self._end = now + TURN
        return now >= self._end


class Receiver(Protocol):
    """What can be received from."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive as much as is there and goes into `buffer`; nothing means that the stream has ended."""


class Transport(Receiver, Protocol):
    """A connected stream that does not block: a socket, or what looks like one."""

    def fileno(self) -> int:
        """The descriptor that the selector watches."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send as much as goes; after BlockingIOError the same bytes have to come again."""

    def shutdown(self, how: int, /) -> None:
        """End one direction, or both."""

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """Set an option of the socket."""

    def close(self) -> None:
        """Close it."""


# Those that nobody is receiving into: one for each thread that ever did so at the same time. They are kept because
# `recv` would allocate `RECEIVE_SIZE` bytes each time and give back all but the few that came; the holes that this
# leaves in the heap of each thread grow to tens of megabytes, which the C library does not return to the system.
_buffers: list[memoryview] = []


def receive(sock: Receiver) -> bytes:
    """Receive what is there, `RECEIVE_SIZE` bytes at most; fewer mean that no more is there.

    Args:
        sock: what to receive from.

    Raises:
        BlockingIOError: nothing is there now.
        OSError: the peer is gone.
    """
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = memoryview(bytearray(RECEIVE_SIZE))
    try:
        return bytes(buffer[: sock.recv_into(buffer)])
    finally:
        _buffers.append(buffer)
