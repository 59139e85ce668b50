"""Forks, pools, programs, and what is left for the exit."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from wsgiapp.behaviour.registry import PLAIN, answer_json, answer_text, behaviour, log_line, read_parameter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHILD_SECONDS = 10  # after which the system ends a child, whatever it has become
WAIT_SECONDS = 1.0  # for a child that has nothing left to do, before it is killed
WORK_SECONDS = 0.3  # of work that is left for the exit

PROGRAM = """
import json, os, signal
names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM")
paths = [f"/proc/self/fd/{number}" for number in range(3, 1024)]
links = [os.readlink(path) for path in paths if os.path.lexists(path)]
print(json.dumps({
    "blocked": sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "ignored": [name for name in names if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN],
    "descriptors": [link for link in links if link.startswith(("socket:", "pipe:", "anon_inode:"))],
}))
"""
"""Says what it has inherited."""

kept: list[Any] = []
"""What the application keeps until it exits."""


def end_soon() -> None:
    """Let the system end this process after ``CHILD_SECONDS``."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CHILD_SECONDS)


def square(number: int) -> int:
    """Work for a pool."""
    return number * number


def sleep_long() -> None:
    """Work that does not end before it is ended."""
    end_soon()
    time.sleep(CHILD_SECONDS)


def wait_for(pid: int, seconds: float = WAIT_SECONDS) -> int | str:
    """Return how a child ended: its exit code, a negative signal, or that it ran on and was killed."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "it ran on"
        time.sleep(0.01)


@behaviour
def forked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Fork; the child leaves the view by ``end``, and the parent answers how it ended."""
    end = read_parameter(environ, "end")
    pid = os.fork()
    if pid:
        return answer_json(start_response, wait_for(pid))
    end_soon()
    if end == "exit":
        sys.exit(3)
    if end == "raise":
        raise RuntimeError("the child of a view was asked to fail")
    return answer_text(start_response, "answered by the child\n")


@behaviour
def forked_in_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Fork between two pieces of an answer; the child leaves the generator by its end."""
    start_response("200 OK", [*PLAIN])
    yield b"before\n"
    pid = os.fork()
    if pid:
        yield f"{wait_for(pid)}\n".encode()
        return
    end_soon()
    yield b"sent by the child\n"


def fork_waiting() -> int:
    """Fork a child that waits for a signal, and return once it does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return pid
    try:
        end_soon()
        os.write(writer, b".")
        while True:
            # Not once and for long: a signal just before the call would wait for its end.
            time.sleep(0.02)
    except KeyboardInterrupt:
        # What Python makes of SIGINT by default; shells want to see the signal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os._exit(0)


@behaviour
def fork_signalled(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Fork a child for each of the ``signals``, send it that signal, and answer how each ended."""
    children = {name: fork_waiting() for name in read_parameter(environ, "signals").split(",")}
    for name, pid in children.items():
        os.kill(pid, getattr(signal, name))
    deadline = time.monotonic() + 2 * WAIT_SECONDS
    return answer_json(
        start_response, {name: wait_for(pid, deadline - time.monotonic()) for name, pid in children.items()}
    )


@behaviour
def terminated(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Start a process of ``multiprocessing``, terminate it at once, and answer with its exit code."""
    context: Any = multiprocessing.get_context(read_parameter(environ, "method"))
    child = context.Process(target=sleep_long, daemon=True)
    child.start()
    child.terminate()
    child.join(WAIT_SECONDS)
    code = child.exitcode
    if code is None:
        child.kill()
        child.join()
    return answer_json(start_response, "it ran on" if code is None else code)


@behaviour
def pool(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Use a pool of processes, which is terminated on leaving."""
    context: Any = multiprocessing.get_context(read_parameter(environ, "method"))
    with context.Pool(2, initializer=end_soon) as workers:
        return answer_json(start_response, workers.map_async(square, range(5)).get(timeout=CHILD_SECONDS / 2))


@behaviour
def executor(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Use an executor of ``concurrent.futures``, which is drained on leaving."""
    made: Executor = ThreadPoolExecutor(2)
    if method := read_parameter(environ, "method"):
        context: Any = multiprocessing.get_context(method)
        made = ProcessPoolExecutor(2, mp_context=context, initializer=end_soon)
    with made as workers:
        return answer_json(start_response, list(workers.map(square, range(5), timeout=CHILD_SECONDS / 2)))


@behaviour
def program(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Run a program with all that may be inherited, and answer with what it inherited."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    output = subprocess.check_output(command, stdin=subprocess.DEVNULL, close_fds=False, timeout=10)
    return answer_text(start_response, output.decode())


@behaviour
def statuses(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Start children in several ways, and answer with the exit status of each: all are 7."""
    command = [sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"]
    pid = os.fork()
    if not pid:
        os._exit(7)

    async def run() -> int | None:
        child = await asyncio.create_subprocess_exec(*command)
        return await asyncio.wait_for(child.wait(), 5)

    found = {"fork": wait_for(pid), "subprocess": subprocess.call(command, timeout=5)}
    return answer_json(start_response, {**found, "asyncio": asyncio.run(run())})


def work(name: str) -> None:
    """Do something that takes its time and then shows in the log."""
    time.sleep(WORK_SECONDS)
    log_line(f"{name} has ended")


@behaviour
def left_work(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leave work behind: a thread that is no daemon, tasks in an executor, and a function for the exit."""
    threading.Thread(target=work, args=["the thread"]).start()
    workers = ThreadPoolExecutor(1)
    for number in (1, 2):
        workers.submit(work, f"task {number}")
    kept.append(workers)
    atexit.register(log_line, "the exit function has run")
    return answer_text(start_response, "left\n")


@behaviour
def left_processes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leave processes behind, of the ``kind`` that is asked for."""
    kind = read_parameter(environ, "kind")
    context: Any = multiprocessing.get_context("fork")
    if kind == "executor":
        workers = ProcessPoolExecutor(2, mp_context=context, initializer=end_soon)
        kept.append(workers)
        list(workers.map(square, range(5)))
    elif kind == "pool":
        kept.append(context.Pool(2, initializer=end_soon))
        kept[-1].map(square, range(5))
    else:
        kept.append(context.Process(target=sleep_long, daemon=True))
        kept[-1].start()
    return answer_text(start_response, "left\n")


@behaviour
def left_fork(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leave a forked child behind that goes on for a while after the server, as long work does."""
    pid = os.fork()
    if not pid:
        end_soon()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(CHILD_SECONDS)
        os._exit(0)
    return answer_json(start_response, pid)
