"""What a process that an application forks has of the server: nothing. This module is where that is seen to.

An application may fork at any time: `os.fork`, a terminal of `pty`, `multiprocessing`, `concurrent.futures`,
`subprocess` with a `preexec_fn`. A copy of the server that went on in the child would take half of the requests, answer
one twice, keep the port, and be deaf to TERM. So after a fork, in the child, before any code of the application:

- **Signals** that the server has taken have Python's default action again: SIGINT raises KeyboardInterrupt, all others
  do what the system does. Handlers of the application's own stay, and so does what it ignores. There is no wake-up
  descriptor.
- **Descriptors** of the server are closed: listening sockets, connections, pipes, epolls, and temporary files with
  requests and responses. They are closed and nothing more, so no client notices: nothing is sent, no direction is shut
  down, no path of a Unix socket is removed. Standard output and error and the files of logs stay open, so that what the
  child logs is not lost. Request content of more than 256 KiB is in such a file: read it before you fork.
- **The server does not run** there. A process that was forked while a request ran, or while the application was loaded,
  ends where its part of that ends: with the code of `SystemExit`, 0 where the application returned or gave the next
  piece of its iterable, 1 with a traceback otherwise. What it gives to `write()` goes nowhere. Like a process of
  `multiprocessing` it joins its own threads and flushes standard output and error at its end, and runs no exit handlers
  (`atexit`): they are the worker's, and run there.
- A process that was forked elsewhere (in a thread of the application's own, in a program beside `make_server`) goes on
  where it was; for it, the server is one that was shut down. A server that was made and does not run yet belongs to
  whichever process starts it, so a program may bind, become a daemon by forking, and then serve.

Programs that the application starts (`subprocess`, `multiprocessing` with spawn or forkserver) get nothing of all that
because no descriptor of the server is inheritable (PEP 446), and because signals are caught and not ignored.

None of this costs a request anything. Whatever is this process's own is registered with `own` when it is made, which
for an `Engine` is once. No function that runs in a child may take a lock: the thread that held it is not there.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from os import fork
from selectors import BaseSelector, SelectorKey
from typing import Any, Final, NoReturn, TypeVar

from wizgy.errors import StartError
from wizgy.primitives import get_ident

Result = TypeVar("Result")

EXIT_RETURNED: Final = 0
EXIT_FAILED: Final = 1

taken_signals: set[signal.Signals] = set()
"""Signals that the server has taken. They wait while a process forks, until the child has given them back: it inherits
the handlers and the pipe to which CPython writes what comes, where it would be a signal for the worker."""

_owned: list[Callable[[], None]] = []
_masks: dict[int, set[Any]] = {}  # of threads that fork, as they were before
_forking_worker = 0  # the thread that forks a worker of the server itself, or 0


def own(disown: Callable[[], None]) -> None:
    """Have a function called in each child that is forked from now on, to give up what is this process's own."""
    _owned.append(disown)


def release(disown: Callable[[], None]) -> None:
    """Undo `own`: what it gives up is gone."""
    if disown in _owned:
        _owned.remove(disown)


def fork_worker() -> int:
    """Fork a process that keeps all that this one owns: a worker of the server. It registers anew what it keeps.

    Returns:
        The id of the child, and in the child 0.

    Raises:
        OSError: the system has no room for one.
    """
    global _forking_worker
    _forking_worker = get_ident()
    try:
        return fork()
    finally:
        _forking_worker = 0


def _hold_signals() -> None:
    if taken_signals:
        _masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, taken_signals)


def _let_signals_come() -> None:
    mask = _masks.pop(get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin_child() -> None:
    try:
        if _forking_worker != get_ident():
            _disown()
    finally:
        _owned.clear()
        _let_signals_come()


def _disown() -> None:
    for disown in reversed(_owned):  # what was made last uses what was made before
        with suppress(OSError, ValueError):  # closed already
            disown()


os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_come, after_in_child=_begin_child)


def call(do: Callable[..., Result], *arguments: object) -> Result:
    """Call what is the application's; in a process that was forked meanwhile this does not return, but ends it.

    Args:
        do: what to call.
        arguments: with what.
    """
    process = os.getpid()
    try:
        result = do(*arguments)
    except BaseException as error:
        if os.getpid() != process:
            # A fault of an application that is loaded was made a fault of the start.
            end(error.__context__ if isinstance(error, StartError) else error)
        raise
    if os.getpid() != process:
        end()
    return result


def select(selector: BaseSelector, timeout: float) -> list[tuple[SelectorKey, int]]:
    """Wait as `selector.select` does. A handler of a signal may fork meanwhile; the child ends here."""
    process = os.getpid()
    try:
        return selector.select(timeout)
    except (OSError, ValueError):
        if os.getpid() != process:  # the selector was closed there
            end()
        raise


def end(error: BaseException | None = None) -> NoReturn:
    """End this process, which was forked while the application ran.

    Args:
        error: what came out of the application, or None where it returned.
    """
    code = EXIT_FAILED
    try:
        code = _exit_code_of(error)
        threading._shutdown()  # type: ignore[attr-defined]  # joins its threads, as multiprocessing does in its children
    except BaseException as another:  # noqa: BLE001 - nothing of the server may run in this process
        sys.excepthook(type(another), another, another.__traceback__)
    finally:
        flush_standard_streams()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)  # as Python ends then: its parent sees why
        os._exit(code)


def _exit_code_of(error: BaseException | None) -> int:
    """The exit code that Python gives a process that ends so; what is to be said of it is said."""
    if error is None:
        return EXIT_RETURNED
    if not isinstance(error, SystemExit):
        if not isinstance(error, KeyboardInterrupt):
            sys.excepthook(type(error), error, error.__traceback__)
        return EXIT_FAILED
    if error.code is None:
        return EXIT_RETURNED
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return EXIT_FAILED


def flush_standard_streams() -> None:
    """Flush standard output and error, where they are there and can be."""
    for stream in sys.stdout, sys.stderr:
        with suppress(Exception):  # missing, closed, on a full disk, a pipe that nobody reads: it hinders nothing
            stream.flush()


class ForkedConnection:
    """Its methods replace those of a connection in a child: its socket is closed, and it is not the child's to answer.

    These are the methods that are called first when the thread comes out of the application.
    """

    __slots__ = ()

    def send(self, data: bytes) -> bool:
        """Drop what the application has pushed with `write()`; where it has returned or given a piece, end."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__") == "wizgy.wsgi":
            if frame.f_code.co_name == "write":
                return False
            frame = frame.f_back
        end()

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """The application has returned."""
        end()

    def is_closing(self) -> bool:
        """Whatever is asked, nothing more comes."""
        return True

    def wait_for_room(self) -> None:
        """Nothing is kept, so there is room."""

    def report(self, text: str, error: BaseException | None) -> None:
        """An exception came out of the application."""
        if error is not None:
            end(error)

    def _finish_response(self, response: object, ended: float) -> None:
        """The application has come to the end of its response."""
        end()

    def close(self) -> None:
        """The thread has come out of the application."""
        end()


class ForkedEngine:
    """Its method replaces that of an engine in a child: where the engine's code goes on, the process ends."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        """Whatever an engine does begins with one of its attributes."""
        end()


_kinds: dict[type, type] = {}


def disable(thing: object, instead: type) -> None:
    """Give an object other methods in place of its own.

    Args:
        thing: an object of the server.
        instead: `ForkedConnection` or `ForkedEngine`.
    """
    kind = type(thing)
    if kind not in _kinds:  # not a second base, which would change the layout
        methods = {name: value for name, value in vars(instead).items() if callable(value)}
        _kinds[kind] = type(f"Forked{kind.__name__}", (kind,), {**methods, "__slots__": ()})
    thing.__class__ = _kinds[kind]


def close_accepted(names: Iterable[object]) -> None:
    """Close sockets that were accepted, and are held by no object that could be found.

    Another thread may have been between `accept` and the object for it, or about to close it, when this process was
    forked. Connections have the address of their listener, and nothing else of this process can have it.

    Args:
        names: what `getsockname` of the listeners says.
    """
    names = {name for name in names if name}
    try:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return  # a system that does not list them
    for descriptor in descriptors:
        with suppress(OSError):  # the one that listed them
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                _close_if_named(socket.socket(fileno=descriptor), names)


def _close_if_named(sock: socket.socket, names: set[object]) -> None:
    try:
        name = sock.getsockname()
        alike = [name, ("0.0.0.0", *name[1:]), ("::", *name[1:])] if isinstance(name, tuple) else [name]
        if not names.isdisjoint(alike):
            sock.close()
    finally:
        sock.detach()  # where it was not closed it is the application's
