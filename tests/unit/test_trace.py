"""The wire dump of `--trace`."""

from __future__ import annotations

import os

import pytest

from wizgy.log import Trace


def test_reader_that_is_gone_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump that cannot be written never fails a request: its reader may have closed the pipe."""
    receiver, sender = os.pipe()
    os.close(receiver)
    with open(sender, "wb", buffering=0) as raw:
        monkeypatch.setattr("sys.stdout", _Text(raw.fileno()))
        trace = Trace()
        trace.sent(b"HTTP/1.1 200 OK\r\n")
        trace.close()  # before the pipe is, whose number another file may get


class _Text:
    """A standard output without a buffer, so that every write meets the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def flush(self) -> None:
        """Nothing is kept."""
