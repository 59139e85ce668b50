"""Signals as bytes that can be waited for, in the supervisor and in the workers."""

from __future__ import annotations

import os
import signal
from os import read
from types import FrameType


class SelfPipe:
    """Turns signals into bytes to be read, one byte a signal.

    CPython writes the byte in its own handler, which runs no Python: nothing can be interrupted halfway.
    """

    def __init__(self) -> None:
        self.descriptor, self._sender = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._sender, False)

    def catch(self, *signals: signal.Signals) -> None:
        """Have these signals written to the pipe from now on."""
        signal.set_wakeup_fd(self._sender, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, do_nothing)

    def read(self) -> list[signal.Signals]:
        """The signals that came since the last call."""
        try:
            return [signal.Signals(number) for number in read(self.descriptor, 4096)]
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close both ends."""
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._sender)


def do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that CPython writes the byte, or that a signal is ignored in this process alone.

    A program that the process starts has the signal's default action again, where SIG_IGN would be inherited.
    """


def name_of(number: int) -> str:
    """The name of a signal, as in ``SIGKILL``; those for real-time use have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
