"""Threads, contexts, exceptions that end threads, and clients that go away."""

from __future__ import annotations

import asyncio
import contextvars
import json
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wsgiapp.behaviour.registry import PLAIN, answer_json, answer_text, behaviour, read_parameter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PIECE = bytes(64 * 1024)
PIECES = 256
NO_ROOM = 1024 * 1024  # bytes that a file may have where there is no room for an answer
GONE_SECONDS = 3.0

ours = threading.local()
lock = threading.RLock()
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
seen: dict[str, Any] = {}
"""What was seen after an answer had ended, by ``key``."""


def limit_files(size: int) -> None:
    """Limit how large a file of this process may become, in bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size == resource.RLIM_INFINITY else size, hard))


class Stream:
    """A long answer whose every piece, and its end, checks something that is bound to a thread."""

    def __init__(self, check: Callable[[], object], close: Callable[[], object], key: str) -> None:
        self._check = check
        self._close = close
        self._key = key
        self._left = PIECES
        self._threads = {threading.get_ident()}

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._threads.add(threading.get_ident())
        self._check()
        if not self._left:
            raise StopIteration
        self._left -= 1
        return PIECE

    def close(self) -> None:
        """Say how it ended."""
        self._threads.add(threading.get_ident())
        try:
            self._close()
            seen[self._key] = {"threads": len(self._threads), "pieces": PIECES - self._left}
        except Exception as error:  # noqa: BLE001 - it is the answer
            seen[self._key] = repr(error)
        limit_files(resource.RLIM_INFINITY)


def keep_local() -> Stream:
    """Stream with a ``threading.local``."""
    ours.value = "here"

    def check() -> None:
        assert getattr(ours, "value", "") == "here", "threading.local has lost its value"

    return Stream(check, check, "local")


def keep_lock() -> Stream:
    """Stream with a lock that only its thread can release."""
    lock.acquire()

    def check() -> None:
        lock.acquire(timeout=1)
        lock.release()

    return Stream(check, lock.release, "lock")


def keep_database() -> Stream:
    """Stream with a connection of sqlite3, which refuses other threads."""
    connection = sqlite3.connect(":memory:")

    def check() -> None:
        connection.execute("SELECT 1").fetchone()

    return Stream(check, connection.close, "sqlite3")


def keep_context() -> Stream:
    """Stream with a context variable that is set before the answer begins."""
    variable.set("set by the view")

    def check() -> None:
        assert variable.get() == "set by the view", f"the context variable is {variable.get()!r}"

    return Stream(check, check, "contextvars")


STREAMS = {"local": keep_local, "lock": keep_lock, "sqlite3": keep_database, "contextvars": keep_context}


@behaviour
def bound_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stream 16 MiB with something that is bound to a thread, where asked for with ``no-room`` on a disk."""
    if read_parameter(environ, "no-room"):
        limit_files(NO_ROOM)
    kind = read_parameter(environ, "kind")
    seen.pop(kind, None)
    start_response("200 OK", [*PLAIN])
    return STREAMS[kind]()


@behaviour
def seen_after(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wait for what an earlier request leaves under a ``key``, and answer with it."""
    deadline = time.monotonic() + GONE_SECONDS
    while (key := read_parameter(environ, "key")) not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer_json(start_response, seen.pop(key, "nothing came"))


@behaviour
def context(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the value of a context variable, after which it is set."""
    value = variable.get()
    variable.set("set by another request")
    return answer_text(start_response, value)


@behaviour
def event_loop(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Run an event loop within a view."""

    async def wait() -> str:
        await asyncio.sleep(0.01)
        return "waited\n"

    return answer_text(start_response, asyncio.run(wait()))


def recurse(depth: int) -> int:
    """Recurse as deep as asked for."""
    return recurse(depth - 1) + 1 if depth else 0


@behaviour
def recursion(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Recurse to a ``depth``, or without end, in Python or in C."""
    depth = read_parameter(environ, "depth")
    if depth == "endless-in-c":
        json.loads("[" * 1_000_000)
    return answer_json(start_response, recurse(10_000_000 if depth == "endless" else int(depth)))


@behaviour
def client_watched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wait until the client has gone, and leave what the server said of it under ``disconnected``."""
    gone = environ.get("wizgy.client_disconnected") or environ.get("waitress.client_disconnected")
    if gone is None:
        seen["disconnected"] = "the server does not tell"
        return answer_text(start_response, "the server does not tell\n")
    first = gone()
    deadline = time.monotonic() + GONE_SECONDS / 2
    while not gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    seen["disconnected"] = {"before": bool(first), "after": bool(gone())}
    return answer_text(start_response, "watched\n")


@behaviour
def raised(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise an exception that ends a process or a thread where nothing catches it."""
    kinds: dict[str, type[BaseException]] = {
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "GeneratorExit": GeneratorExit,
    }
    raise kinds[read_parameter(environ, "type")]
