"""Signals as bytes that can be waited for, in the supervisor and in the workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from os import read
from types import FrameType
from typing import Final

from wizgy import forked

DEFAULTS: Final = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)
"""What a process has for a signal that nothing in it has asked for."""


KNOWN: Final = frozenset(map(int, signal.Signals))
"""Signals that have a name; a program may have handlers for those for real-time use as well."""


class SelfPipe:
    """Turns signals into bytes to be read, one byte a signal.

    CPython writes the byte in its own handler, which runs no Python: nothing can be interrupted halfway. It writes one
    for every signal that has a handler, so those of the application's own handlers come here as well.
    """

    def __init__(self) -> None:
        self.descriptor, self._sender = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._sender, False)

    def catch(self, *signals: signal.Signals) -> list[signal.Signals]:
        """Have these signals written to the pipe from now on.

        Returns:
            Those for which the program had a handler, which is not called any more.
        """
        signal.set_wakeup_fd(self._sender, warn_on_full_buffer=False)
        return take(signals)

    def read(self) -> list[signal.Signals]:
        """The signals that came since the last call; those without a name mean nothing here."""
        try:
            return [signal.Signals(number) for number in read(self.descriptor, 4096) if number in KNOWN]
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close both ends."""
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._sender)


def take(signals: Collection[signal.Signals]) -> list[signal.Signals]:
    """Have these signals do nothing by themselves; returns those for which the program had a handler."""
    forked.taken_signals.update(signals)
    before = [(number, signal.signal(number, do_nothing)) for number in signals]
    return [number for number, handler in before if handler not in DEFAULTS and handler is not do_nothing]


def give_back() -> None:
    """In a process just forked: give the signals that were taken Python's default action, and write them nowhere."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) is do_nothing:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


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
