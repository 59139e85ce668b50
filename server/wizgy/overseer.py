"""Requests that take the application too long: which threads are in it, since when, and where they are.

A thread that is stuck in the application cannot be ended. So its request is answered for it, another thread is
started in its place, and it ends when it comes out after all.
"""

from __future__ import annotations

import sys
import threading
from typing import NamedTuple

from wizgy import wsgi
from wizgy.connection import Connection


class Dismissed(BaseException):
    """Ends a thread that came out of the application after its place was given to another."""


class Call(NamedTuple):
    """One thread in the application.

    Args:
        connection: whose request it is.
        began: when it entered the application, in seconds of the monotonic clock.
    """

    connection: Connection
    began: float


class Overseer:
    """Knows which threads are in the application.

    Args:
        limit: the seconds that a thread may be in it at a stretch.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}

    # Called by the thread.
    def enter(self, connection: Connection, now: float) -> None:
        """Note that this thread enters the application for a connection."""
        with self._lock:
            self._calls[threading.get_ident()] = Call(connection, now)

    # Called by the thread.
    def leave(self) -> bool:
        """Note that this thread has come out of the application; False when it was given up meanwhile."""
        with self._lock:
            return self._calls.pop(threading.get_ident(), None) is not None

    # Called by the leader.
    def take_overdue(self, now: float) -> list[tuple[Connection, str]]:
        """Give up the threads that are in the application for too long: their connections, and their stacks."""
        overdue = []
        with self._lock:
            for thread, call in list(self._calls.items()):
                if now - call.began >= self._limit:
                    del self._calls[thread]
                    overdue.append((call.connection, describe_stack(thread)))
        return overdue


def describe_stack(thread: int) -> str:
    """Where a thread is, as a traceback has it, from the application's own first line on."""
    import traceback  # not at the top: it takes a while, and there should be no need

    frame = sys._current_frames().get(thread)
    if frame is None:
        return "  (it has just ended)\n"
    stack = traceback.extract_stack(frame)
    outside = [number for number, entry in enumerate(stack) if entry.filename == wsgi.__file__]
    return "".join(traceback.format_list(stack[outside[-1] + 1 :] if outside else stack))
