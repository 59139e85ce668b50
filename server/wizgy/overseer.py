"""Requests that take the application too long: which threads are in it, since when, and where they are.

A thread that is stuck in the application cannot be ended. So its request is answered for it, another thread is
started in its place, and it ends when it comes out after all.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from types import CodeType, FrameType
from typing import Final

from wizgy import standard, wsgi
from wizgy.connection import Connection
from wizgy.primitives import RLock, get_ident, monotonic

OURS: Final = os.path.dirname(wsgi.__file__) + os.sep
CALLERS: Final = (wsgi.__file__, f"{OURS}mount.py")
"""The modules of the server that call the application: what is called by them and is none of the server's is its."""
STANDARD_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep
MOST_PLACES: Final = 5
"""How many places threads are named at."""


class Dismissed(BaseException):
    """Ends a thread that came out of the application after its place was given to another."""


class Call:
    """One thread in the application.

    Args:
        overseer: who watches it.
        connection: whose request it is.
        began: when it entered the application, in seconds of the monotonic clock; what it waited for a client is left
            out, and while it does so this is never.
    """

    __slots__ = ("_is_out", "_overseer", "_spent", "began", "connection", "thread")

    def __init__(self, overseer: Overseer, connection: Connection, began: float) -> None:
        self._overseer = overseer
        self._is_out = False
        self._spent = 0.0
        self.connection = connection
        self.began = began
        self.thread = get_ident()

    # Called by the thread.
    def __call__(self) -> None:
        """Note that the thread has come out of the application; a second call does nothing.

        Raises:
            Dismissed: it was given up meanwhile. By now the leader has no more to do with its connection.
        """
        if not self._is_out:
            self._is_out = True
            self._overseer.leave(self)

    # Called by the thread.
    def pause(self) -> None:
        """Wait for a client: that time is not the application's."""
        self._spent, self.began = monotonic() - self.began, inf

    # Called by the thread.
    def go_on(self) -> None:
        """Be in the application again."""
        self.began = monotonic() - self._spent


class Overseer:
    """Knows which threads are in the application.

    Args:
        limit: the seconds that a thread may be in it for a request.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        # Who takes a call out of it, which only one can, decides what becomes of the request.
        self._calls: dict[Call, None] = {}
        self._dismissing = RLock()
        self.dismissed: set[int] = set()
        """The threads that are in the application still, after they were given up."""

    # Called by the thread.
    def enter(self, connection: Connection, now: float) -> Call:
        """Note that this thread enters the application; what is returned is called when it has come out."""
        call = Call(self, connection, now)
        self._calls[call] = None
        return call

    # Called by the thread.
    def leave(self, call: Call) -> None:
        """Note that a call has come to its end.

        Raises:
            Dismissed: it was given up meanwhile.
        """
        if self._take(call):
            return
        with self._dismissing:  # the leader may be at it still
            self.dismissed.discard(call.thread)
            raise Dismissed

    # Called by the leader.
    def dismiss_overdue(self, now: float, dismiss: Callable[[Connection, str], None]) -> None:
        """Give up the threads that are in the application for too long.

        Args:
            now: seconds of the monotonic clock.
            dismiss: called with the connection of each, and with its stack. The thread stays in the application, or
                waits at its end, until this returns.
        """
        for call in self._calls.copy():
            if now - call.began >= self._limit:
                stack = describe_stack(call.thread)
                with self._dismissing:
                    if self._take(call):
                        self.dismissed.add(call.thread)
                        dismiss(call.connection, stack)

    def _take(self, call: Call) -> bool:
        return self._calls.pop(call, call) is None


def describe_stack(thread: int) -> str:
    """Where a thread is, as a traceback has it, from the application's own first line on."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "  (it has just ended)\n"
    stack = standard.traceback.extract_stack(frame)
    outside = [number for number, entry in enumerate(stack) if entry.filename == wsgi.__file__]
    return "".join(standard.traceback.format_list(stack[outside[-1] + 1 :] if outside else stack))


def find_places(threads: Iterable[int]) -> list[FrameType]:
    """Where threads are that are in the application: the innermost frame of each.

    A thread that the application has called the server from, as it does to log, is in the server.
    """
    frames = sys._current_frames()
    return [frames[thread] for thread in threads if thread in frames and _is_in_application(frames[thread])]


def runs_any(threads: Iterable[int], code: CodeType) -> bool:
    """Whether one of the threads runs a function, itself or in what that calls."""
    frames = sys._current_frames()
    return any(_is_within(frames.get(thread), code) for thread in threads)


def _is_within(frame: FrameType | None, code: CodeType) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _is_in_application(innermost: FrameType) -> bool:
    frame: FrameType | None = innermost
    while frame is not None:
        code = frame.f_code
        if code.co_filename in CALLERS:
            return True
        if code.co_filename.startswith(OURS):
            return False
        frame = frame.f_back
    return False  # it ends, or has yet to begin


def describe_places(threads: Iterable[int]) -> str:
    """Where threads are in the application, one item for those at the same place: the innermost line of its code."""
    places = Counter(map(_describe_place, find_places(threads)))
    named = [f"{count} times {place}" if count > 1 else place for place, count in places.most_common(MOST_PLACES)]
    others = sum(places.values()) - sum(count for _, count in places.most_common(MOST_PLACES))
    return ", ".join(named + [f"{others} elsewhere"] * bool(others)) or "the server"


def _describe_place(innermost: FrameType) -> str:
    """The innermost frame that is neither the standard library's nor the server's, or else the innermost of all."""
    frame: FrameType | None = innermost
    while frame is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    found = frame or innermost
    return f"{found.f_code.co_name} ({found.f_code.co_filename}:{found.f_lineno})"


def _is_library(path: str) -> bool:
    is_standard = path.startswith(STANDARD_LIBRARY) and f"{os.sep}site-packages{os.sep}" not in path
    return is_standard or path.startswith((OURS, "<frozen "))


def describe_threads() -> str:
    """Where each thread of this process is, as a traceback has it."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = {ident: "".join(standard.traceback.format_stack(frame)) for ident, frame in sys._current_frames().items()}
    return "\n".join(f"{names.get(ident, 'a thread of C code')}:\n{stack}" for ident, stack in stacks.items())
