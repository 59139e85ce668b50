"""The end of a worker: what Python does at the end of a process, for as long as there is time.

In Python's order: the hooks of `concurrent.futures` finish what was submitted to its pools, threads that are no daemons
are joined, then exit handlers (`atexit`) run, the last registered first; that of `multiprocessing` terminates its
daemonic processes and joins the others. The server's own threads are daemons.

All of it is bounded: when the graceful timeout is over, what is left is named in the log and cut off.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from wizgy import standard
from wizgy.forked import flush_standard_streams
from wizgy.locks import Latch
from wizgy.log import logger
from wizgy.primitives import Thread, monotonic
from wizgy.sink import flush_all

AT_LEAST: Final = 0.5
"""Seconds for all of it where requests have taken the whole graceful timeout."""
PATIENCE: Final = 1.0
"""Seconds after which the log says what is waited for."""


def finish(deadline: float, exit_code: int) -> None:
    """Do what Python does at the end of a process; called by the main thread.

    Args:
        deadline: when to end the process whatever still runs, in seconds of the monotonic clock.
        exit_code: its exit status then.
    """
    deadline = max(deadline, monotonic() + AT_LEAST)
    done = Latch()
    try:
        Thread(partial(_guard, deadline, exit_code, done), "wizgy-end").start()
    except (RuntimeError, MemoryError):
        pass  # the system allows no more threads; the supervisor sees to the deadline
    _attempt(threading._shutdown)  # type: ignore[attr-defined]
    _attempt(atexit._run_exitfuncs)
    done.set()


def _attempt(do: Callable[[], None]) -> None:
    """Take one step; what it raises does not keep the others from their turn."""
    try:
        do()
    except BaseException as error:  # noqa: BLE001 - a handler of a signal may raise anything
        sys.excepthook(type(error), error, error.__traceback__)


def _guard(deadline: float, exit_code: int, done: Latch) -> None:
    """In a thread of its own: say what is waited for, and end the process at the deadline."""
    if done.wait(min(PATIENCE, deadline - monotonic())):
        return
    if monotonic() < deadline:
        logger.info("Worker %d has answered its requests, and waits for %s.", os.getpid(), describe_rest())
    if done.wait(max(deadline - monotonic(), 0.0)):
        return
    logger.warning(
        "The graceful timeout is over. Worker %d ends, which cuts off %s. "
        "If that has to be finished, raise --graceful-timeout.",
        os.getpid(),
        describe_rest(),
    )
    for process in _processes():
        process.terminate()
    flush_standard_streams()
    flush_all()
    os._exit(exit_code)


def describe_rest() -> str:
    """Name what is not finished: threads, tasks of pools, processes; or the exit handler that runs."""
    threads = [f"thread {thread.name}" for thread in _threads()]
    processes = [f"process {process.pid} ({process.name})" for process in _processes()]
    found = [*threads, *_waiting_tasks(), *processes]
    if found and threads:
        return ", ".join(found)
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    stack = "".join(standard.traceback.format_stack(frame)).rstrip("\n") if frame else ""
    return ", ".join([*found, f"exit handlers (atexit), which are here:\n{stack}"])


def _threads() -> list[Any]:
    main = threading.main_thread()
    others = [thread for thread in threading.enumerate() if not thread.daemon and thread is not main]
    return [thread for thread in others if not thread.name.startswith("wizgy-")]


def _waiting_tasks() -> Iterator[str]:
    """What was submitted to the pools of `concurrent.futures` and has not begun, or not ended in a process."""
    of_threads: Any = sys.modules.get("concurrent.futures.thread")
    of_processes: Any = sys.modules.get("concurrent.futures.process")
    queues = list(getattr(of_threads, "_threads_queues", {}).values())  # one for each thread, and the same for a pool
    waiting = sum(max(queue.qsize() - queues.count(queue), 0) for queue in set(queues))  # less what ends the threads
    running = sum(len(thread.pending_work_items) for thread in list(getattr(of_processes, "_threads_wakeups", {})))
    if waiting:
        yield f"{waiting} task{'s' if waiting > 1 else ''} waiting for a ThreadPoolExecutor"
    if running:
        yield f"{running} task{'s' if running > 1 else ''} of a ProcessPoolExecutor"


def _processes() -> list[Any]:
    """The processes that the application has started by `multiprocessing`, also those of pools."""
    multiprocessing: Any = sys.modules.get("multiprocessing")
    return multiprocessing.active_children() if multiprocessing else []


def forget_program() -> None:
    """In a worker of `wizgy.serve`, just forked: leave to the program what it has registered for its own end.

    What the application registers from here on is the worker's, and runs at the worker's end.
    """
    atexit._clear()
    finalizers: Any = weakref.finalize
    for finalizer in list(finalizers._registry):
        finalizer.atexit = False  # still called when its object goes, as after any fork
    finalizers._registered_with_atexit = False  # so that the next one registers itself
    logging: Any = sys.modules.get("logging")
    if logging is not None:
        atexit.register(logging.shutdown)  # flushes handlers, also those that the worker adds
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:  # as multiprocessing does in its own children
        sys.modules["multiprocessing.process"]._children.clear()
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)
