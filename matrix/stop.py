"""Stopping: the first INT, TERM or HUP lets a command end what it has begun, a second one ends it at once."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from matrix import children

EXIT_INTERRUPTED = 130

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SHOW_CURSOR = b"\x1b[?25h"
"""What a terminal is told, because a display that is drawn again and again hides the cursor."""


class Stop:
    """Tells all that goes on to end. A signal handler may set it: it takes no lock."""

    def __init__(self) -> None:
        self._set = False

    def __bool__(self) -> bool:
        return self._set

    def set(self) -> None:
        """From now on everything is to end."""
        self._set = True


@contextmanager
def stopping(stop: Stop, *, interrupt: bool = False, say: bool = True) -> Iterator[None]:
    """Let signals stop what goes on within: the first one in order, a second one at once, whatever hangs.

    Args:
        stop: what the first signal sets.
        interrupt: whether the first signal also ends the processes that the main thread waits for, with
            KeyboardInterrupt in that thread.
        say: whether to say that the first signal was heard; a display that is drawn says so itself.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop:
            leave_at_once()
        stop.set()
        if say:
            _say(2, b"\nmatrix: stopping; once more to end at once\n")
        if interrupt:
            children.end_all()
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_at_once() -> None:
    """Kill all that was started, and end this process, even if another of its threads holds a lock or hangs."""
    children.end_all()
    children.end_marked(children.this_run())
    _say(sys.__stdout__.fileno() if sys.__stdout__ else 1, SHOW_CURSOR, terminal=True)
    _say(2, b"\nmatrix: ended at once; `python -m matrix clean` removes containers that are left\n")
    os._exit(EXIT_INTERRUPTED)


def _say(descriptor: int, text: bytes, *, terminal: bool = False) -> None:
    """Write to a descriptor that takes it now: a terminal may be held, and a pipe full."""
    with suppress(OSError):
        if (os.isatty(descriptor) or not terminal) and select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, text)
