"""What libraries replace in a running process: clocks for tests, threads and selectors for event loops."""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from wsgiapp.behaviour.registry import answer_text, behaviour, read_parameter

if TYPE_CHECKING:
    from types import ModuleType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

REPLACED: dict[str, tuple[tuple[ModuleType, str], ...]] = {
    "clock": tuple((time, name) for name in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns")),
    "threads": tuple(
        (threading, name) for name in ("Thread", "Lock", "RLock", "Condition", "Event", "Semaphore", "get_ident")
    ),
    "selectors": (
        (select, "select"),
        (select, "poll"),
        (select, "epoll"),
        (selectors, "DefaultSelector"),
        (socket, "create_connection"),
    ),
}


def make_replacement(name: str) -> Any:
    """Return what takes the place of a function or class: a clock stands still, all else must not be called."""
    if name in ("time", "monotonic", "perf_counter"):
        return lambda: 1_000_000_000.0
    if name in ("time_ns", "monotonic_ns"):
        return lambda: 10**18

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise RuntimeError(f"{name} is the application's, which has replaced it")

    return refuse


@behaviour
def patched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Replace the ``kind`` of functions that is asked for, for good."""
    for module, name in REPLACED[read_parameter(environ, "kind")]:
        if hasattr(module, name):
            setattr(module, name, make_replacement(name))
    return answer_text(start_response, "patched\n")
