"""The two pipes between the supervisor and one worker: reports one way, orders the other.

Every message is one byte, so it is written whole or not at all. The end of the input says that the other process
is gone, however it went.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from enum import IntEnum
from os import read, write


class Report(IntEnum):
    """What a worker says."""

    ALIVE = ord(".")  # once a second
    READY = ord("R")  # the application is loaded, and requests are accepted
    ENOUGH = ord("E")  # it has answered --max-requests, and wants a successor
    STUCK = ord("S")  # a thread is stuck in the application, and it wants a successor
    CHANGED = ord("M")  # code has changed (--reload), so it is out of date
    DEAF = ord("d")  # once a second in place of ALIVE: its engine does not work, but it can still be told something
    CLOSED = ord("C")  # it takes no new connections any more
    FAILED = ord("F")  # it cannot start, and has said why


class Order(IntEnum):
    """What the supervisor says."""

    REOPEN = ord("o")  # the files of the logs were renamed: go on with new ones
    RETIRE = ord("r")  # a successor serves: finish, and wait a while for requests on idle connections
    SHOW = ord("s")  # log what every thread does
    LEAVE = ord("l")  # it is out of date: finish what runs, and close idle connections


class Link:
    """One process's end. Nothing here waits.

    Args:
        reader: the read end of one pipe.
        writer: the write end of the other.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self._writer = writer
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)

    def send(self, message: IntEnum) -> None:
        """Send one message. It is lost when the other process is gone, or has not read for very long."""
        try:
            write(self._writer, bytes([message]))
        except (BlockingIOError, BrokenPipeError):
            pass

    def read(self) -> bytes | None:
        """The messages that came since the last call, or None when the other process is gone."""
        try:
            return read(self.reader, 4096) or None
        except BlockingIOError:
            return b""

    def watch(self) -> bool:
        """End this process, with SIGIO, once the other one is gone; whatever this one does then. Any message does so.

        For a worker that loads the application, where nobody reads what comes, and which may hang. On Linux only: the
        signal means nothing elsewhere.

        Returns:
            Whether the other process was still there.
        """
        if sys.platform == "linux":
            signal.signal(signal.SIGIO, signal.SIG_DFL)
            fcntl.fcntl(self.reader, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(self.reader, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        return self.read() is not None

    def unwatch(self) -> None:
        """Undo `watch`."""
        fcntl.fcntl(self.reader, fcntl.F_SETFL, os.O_NONBLOCK)

    def close(self) -> None:
        """Close this end."""
        os.close(self.reader)
        os.close(self._writer)


def make_link() -> tuple[Link, Link]:
    """Make the two ends: the supervisor's and the worker's.

    Raises:
        OSError: there is no descriptor left.
    """
    report, report_end = os.pipe()
    try:
        order, order_end = os.pipe()
    except OSError:
        os.close(report)
        os.close(report_end)
        raise
    return Link(report, order_end), Link(order, report_end)
