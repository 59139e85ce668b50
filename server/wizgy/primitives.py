"""Threads, locks, the clock and the selectors of the process, as they were before the application was loaded.

An application may replace them for itself: ``gevent.monkey.patch_all()`` and ``eventlet.monkey_patch()`` make greenlets
of threads and take `select.epoll` away; freezegun puts a clock that stands still wherever it finds the real one. Its
views then run with what it asked for, and the server goes on with what is here.

Rules for all of the server, held by ``tests/unit/test_primitives.py``:

- What waits, wakes, reads the clock or starts a thread comes from this module, or was bound by name when its module was
  imported (``from os import read``). Nothing of the kind is looked up in a module of the standard library later.
- A thread is a `threading.Thread`, which debuggers and profilers know, unless the application has replaced threads.
"""

from __future__ import annotations

import _thread
import select
import selectors
import socket
import sys
import threading
from _thread import RLock, allocate_lock, get_ident, start_new_thread
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

__all__ = [
    "Lock",
    "RLock",
    "Selector",
    "Socket",
    "Thread",
    "clock",
    "epoll",
    "find_replaced",
    "get_ident",
    "localtime",
    "monotonic",
    "poll",
    "sleep",
    "strftime",
    "time",
    "time_ns",
]


def _copy_of_time() -> Any:
    """The module `time` once more: what replaces its functions wherever they are does not know those of the copy."""
    spec = BuiltinImporter.find_spec("time")
    assert spec is not None
    module = BuiltinImporter.create_module(spec)
    assert isinstance(module, ModuleType)
    BuiltinImporter.exec_module(module)
    return module


clock: Final = _copy_of_time()
monotonic: Final[Callable[[], float]] = clock.monotonic
sleep: Final[Callable[[float], None]] = clock.sleep
time: Final[Callable[[], float]] = clock.time
time_ns: Final[Callable[[], int]] = clock.time_ns
localtime = clock.localtime
strftime = clock.strftime

if TYPE_CHECKING:
    from threading import Lock
else:
    Lock = allocate_lock
Selector: Final = selectors.DefaultSelector
Socket: Final = socket.socket
epoll: Final[Any] = getattr(select, "epoll", None)
poll: Final[Any] = getattr(select, "poll", None)

_SEAMS: Final = {
    (module, name): getattr(module, name, None)
    for module, names in (
        (_thread, ("start_new_thread", "start_joinable_thread", "allocate_lock", "get_ident")),
        (threading, ("Thread", "Lock", "Event", "Condition", "_allocate_lock", "get_ident")),
        (threading, ("_start_new_thread", "_start_joinable_thread")),
    )
    for name in names
}
"""What `threading.Thread` is made of."""


def _threads_are_replaced() -> bool:
    return any(getattr(module, name, None) is not real for (module, name), real in _SEAMS.items())


class Thread:
    """A thread of the server, which does not keep the process alive.

    Args:
        do: what it does.
        name: what it is called.
    """

    def __init__(self, do: Callable[[], None], name: str) -> None:
        self._do = do
        self._name = name
        self._running = Lock()

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: the system allows no more.
            MemoryError: there is no room for another.
        """
        self._running.acquire()
        if _threads_are_replaced():
            start_new_thread(self._run, ())
        else:
            threading.Thread(target=self._run_unjoined, name=self._name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._do()
        finally:
            self._running.release()

    def _run_unjoined(self) -> None:
        # A thread inherits from the one that starts it whether it is a daemon. Whether this one is joined at the end
        # was decided when it started, so it can say now that it is none: threads of the application are joined.
        threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
        self._run()

    def join(self, timeout: float) -> None:
        """Wait for its end, for so many seconds at most."""
        if self._running.acquire(timeout=max(timeout, 0.0)):
            self._running.release()


def _find_replaced_at_import() -> str:
    """What had replaced one of these before this module was imported, if anything had; its name, or nothing."""
    suspects: tuple[Any, ...] = (allocate_lock, get_ident, start_new_thread, Socket)
    replaced = [one for one in suspects if one.__module__ not in ("_thread", "socket")]
    if replaced:
        return str(replaced[0].__module__).partition(".")[0]
    return "something" if sys.platform == "linux" and epoll is None else ""


_replaced_by: Final = _find_replaced_at_import()


def find_replaced() -> str:
    """A sentence where the process is one that the server cannot serve in, or nothing.

    Whatever is replaced later is not used here.
    """
    if not _replaced_by:
        return ""
    return (
        f"Threads, locks or sockets were replaced (by {_replaced_by}) before wizgy was imported, and it needs the real "
        "ones. Patch in the application's first lines, which wizgy loads later, or import wizgy before you patch."
    )
