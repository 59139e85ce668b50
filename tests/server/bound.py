"""An application whose responses hold what belongs to a thread, from its call to close()."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

PIECE = 65_536

local = threading.local()
variable: ContextVar[str] = ContextVar("variable")


class Bound:
    """Pieces that can be made and closed by the thread that made the first only."""

    def __init__(self, count: int) -> None:
        self._pieces = self._make(count)
        self._thread = threading.get_ident()

    def _make(self, count: int) -> Iterator[bytes]:
        database = sqlite3.connect(":memory:")
        local.name = "bound"
        variable.set("bound")
        lock = threading.RLock()
        with lock:
            for number in range(count):
                (text,) = database.execute("select ?", (f"{number}",)).fetchone()
                assert (local.name, variable.get()) == ("bound", "bound")
                yield text.encode().ljust(PIECE)
        database.close()

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Say whether it is the thread."""
        print("closed by", "the same" if threading.get_ident() == self._thread else "another", "thread", flush=True)


def slowly(count: int) -> Iterator[bytes]:
    """Take time for each piece."""
    for _ in range(count):
        time.sleep(0.1)
        yield b"piece"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application: /iterable/N and /write/N give N pieces, /slowly/N takes its time for each."""
    way, _, count = environ["PATH_INFO"].lstrip("/").partition("/")
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if way == "iterable":
        return Bound(int(count))
    if way == "write":
        for _ in range(int(count)):
            write(os.urandom(1) * PIECE)
        return [b"end"]
    if way == "slowly":
        return slowly(int(count))
    return [b"hello\n"]
