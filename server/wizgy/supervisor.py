"""Worker processes: start, watch, replace, drain, stop.

The supervisor opens the listening sockets and forks the workers, which inherit them. It runs no thread and no
code of the application, so nothing that an application does can stop it. Signal handlers only write to a
self-pipe. Each worker holds the read end of a pipe whose write end only the supervisor has: its end tells the
worker that the supervisor is gone.
"""

from __future__ import annotations

import atexit
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Final

from wizgy import log
from wizgy.config import Config
from wizgy.engine import Engine
from wizgy.errors import LoadError, StartError
from wizgy.listeners import Listener, open_listener
from wizgy.log import logger
from wizgy.wsgi import Application

Load = Callable[[], Application]

QUICK_DEATH: Final = 1.0
"""Seconds of life below which a worker's death counts as a failed start."""
FIRST_BACK_OFF: Final = 0.5
LONGEST_BACK_OFF: Final = 10.0
"""Seconds to wait before a worker is replaced that failed to start; doubled each time."""
KILL_AFTER: Final = 2.0
"""Seconds that a worker gets on top of the graceful timeout."""
CAUGHT: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""The signals that mean something to the supervisor."""
EXIT_STOPPED: Final = 0
EXIT_WORKER_FAILED: Final = 1


class SelfPipe:
    """Turns signals into bytes to be read, one byte a signal."""

    def __init__(self) -> None:
        self.descriptor, self._sender = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._sender, False)

    def catch(self, *signals: signal.Signals) -> None:
        """Have these signals written to the pipe from now on, and no others."""
        signal.set_wakeup_fd(self._sender, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, self._ignore)

    @staticmethod
    def _ignore(number: int, frame: FrameType | None) -> None:
        """CPython writes the byte itself; a handler must exist for it to do so."""

    def read(self) -> list[signal.Signals]:
        """The signals that came since the last call."""
        try:
            return [signal.Signals(number) for number in os.read(self.descriptor, 4096)]
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close both ends."""
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._sender)


class Worker:
    """What the supervisor knows of one worker process.

    Args:
        pid: its process id.
        status: the read end of the pipe on which it says that it is ready.
    """

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.status = status
        self.started = monotonic()
        self.ready = False
        self.stopping = False  # whether it was told to, so that one more or fewer can be counted


def run(load: Load, config: Config) -> int:
    """Serve until a signal stops it.

    Args:
        load: makes the application; called in each worker.
        config: the settings.

    Returns:
        The exit status for the process.

    Raises:
        BindError: an address cannot be listened on.
    """
    log.configure(config.log_level, config.log_format)
    listeners: list[Listener] = []
    try:
        for address in config.bind:
            listeners.append(open_listener(address, config.backlog))  # noqa: PERF401 - those before a bad one
        return Supervisor(load, config, listeners).run()
    finally:
        for listener in listeners:
            listener.close()
            listener.remove()


class Supervisor:
    """Keeps `config.workers` workers alive.

    Args:
        load: makes the application; called in each worker.
        config: the settings.
        listeners: the listening sockets.
    """

    def __init__(self, load: Load, config: Config, listeners: list[Listener]) -> None:
        self._load = load
        self._config = config
        self._listeners = listeners
        self._signals = SelfPipe()
        self._lifeline, self._lifeline_end = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, Worker] = {}
        self._wanted = config.workers
        self._announced = False
        self._back_off = 0.0
        self._spawn_at = 0.0
        self._kill_at: float | None = None
        self._exit_code: int | None = None

    def run(self) -> int:
        """Supervise until stopped; returns the exit status."""
        self._signals.catch(*CAUGHT)
        self._selector.register(self._signals.descriptor, selectors.EVENT_READ)
        while self._exit_code is None or self._workers:
            if self._exit_code is None:
                self._spawn_missing()
            self._wait()
        return self._exit_code

    def _spawn_missing(self) -> None:
        while self._is_one_missing() and monotonic() >= self._spawn_at:
            self._spawn()

    def _wait(self) -> None:
        for key, _ in self._selector.select(self._seconds_to_wait()):
            if key.fd == self._signals.descriptor:
                for number in self._signals.read():
                    self._handle(number)
            elif key.fd in self._selector.get_map():  # else its worker was buried a moment ago
                self._read_status(key.data)
        if self._kill_at is not None and monotonic() >= self._kill_at:
            self._kill_at = None
            self._signal_workers(signal.SIGKILL)

    def _seconds_to_wait(self) -> float | None:
        due = []
        if self._kill_at is not None:
            due.append(self._kill_at)
        if self._exit_code is None and self._is_one_missing():
            due.append(self._spawn_at)
        return max(min(due) - monotonic(), 0.0) if due else None

    def _spawn(self) -> None:
        status, status_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal for the new worker waits until it has a pipe of its own: in the one that it inherits it would
        # be a signal for the supervisor.
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        pid = os.fork()
        if pid == 0:
            os.close(status)
            os.close(self._lifeline_end)
            self._selector.close()
            self._signals.close()
            _become_worker(self._load, self._config, self._listeners, status_end, self._lifeline)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        os.close(status_end)
        worker = self._workers[pid] = Worker(pid, status)
        self._selector.register(status, selectors.EVENT_READ, worker)
        self._spawn_at = monotonic() + self._back_off

    def _read_status(self, worker: Worker) -> None:
        """A worker says that it is ready, or its end of the pipe is closed."""
        if os.read(worker.status, 1):
            worker.ready = True
            self._back_off = 0.0
            if not self._announced:
                self._announced = True
                for listener in self._listeners:
                    print(listener.ready_line, file=sys.stderr, flush=True)
        self._selector.unregister(worker.status)

    def _handle(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number is signal.SIGTTIN:
            self._wanted += 1
        elif number is signal.SIGTTOU and self._wanted > 1:
            self._wanted -= 1
            self._stop_surplus()
        elif number is signal.SIGHUP:
            logger.warning("HUP: reloading is not implemented yet; restart to load new code.")

    def _stop(self) -> None:
        """The first time, let requests finish; the second, stop at once."""
        if self._exit_code is not None:
            self._signal_workers(signal.SIGKILL)
            return
        self._exit_code = EXIT_STOPPED
        self._kill_at = monotonic() + self._config.graceful_timeout + KILL_AFTER
        for listener in self._listeners:
            listener.close()  # the workers have their own; the last one to close refuses
        self._signal_workers(signal.SIGTERM)

    def _stop_surplus(self) -> None:
        """Have the oldest workers stop that are too many; there may be none while a dead one awaits its successor."""
        staying = [worker for worker in self._workers.values() if not worker.stopping]
        for worker in staying[: max(len(staying) - self._wanted, 0)]:
            worker.stopping = True
            os.kill(worker.pid, signal.SIGTERM)

    def _is_one_missing(self) -> bool:
        # The first goes ahead: if the application cannot be loaded, that is said once and not by every worker.
        wanted = self._wanted if self._announced else 1
        return sum(not worker.stopping for worker in self._workers.values()) < wanted

    def _signal_workers(self, number: signal.Signals) -> None:
        for pid in self._workers:
            os.kill(pid, number)  # not reaped yet, so the id is still the worker's

    def _reap(self) -> None:
        """Collect every child that has ended; as PID 1 of a container those of others too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._bury(worker, os.waitstatus_to_exitcode(status))

    def _bury(self, worker: Worker, exit_code: int) -> None:
        if worker.status in self._selector.get_map():
            self._read_status(worker)
        os.close(worker.status)
        if self._exit_code is not None or worker.stopping:
            return  # it was asked to stop
        if not self._announced:
            # Nothing has ever worked, so trying again would not either. The worker has said why.
            self._exit_code = exit_code if exit_code > 0 else EXIT_WORKER_FAILED
            self._signal_workers(signal.SIGTERM)
            return
        cause = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exited {exit_code}"
        logger.error("Worker %d %s; another one takes its place.", worker.pid, cause)
        if monotonic() - worker.started < QUICK_DEATH or not worker.ready:
            self._back_off = min(max(self._back_off * 2, FIRST_BACK_OFF), LONGEST_BACK_OFF)
        self._spawn_at = monotonic() + self._back_off


def _become_worker(load: Load, config: Config, listeners: list[Listener], status: int, lifeline: int) -> None:
    """Run a worker in the process just forked, and end the process."""
    exit_code = EXIT_WORKER_FAILED
    try:
        exit_code = work(load, config, listeners, status, lifeline)
        atexit._run_exitfuncs()  # those of the application
    except BaseException:  # noqa: BLE001 - nothing of the supervisor's may run in this process
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(exit_code)


def work(load: Load, config: Config, listeners: list[Listener], status: int, lifeline: int) -> int:
    """Serve until TERM, or until the supervisor is gone.

    Args:
        load: makes the application.
        config: the settings.
        listeners: the listening sockets.
        status: a pipe to write a byte to, once requests are accepted.
        lifeline: a pipe that ends when the supervisor is gone.

    Returns:
        The exit status for the process.
    """
    signals = SelfPipe()
    signals.catch(signal.SIGTERM)
    # The terminal sends INT to the whole group; the supervisor decides what it means.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
    try:
        application = load()
        engine = Engine(application, config, listeners, multiprocess=config.workers > 1)
    except StartError as error:
        print(f"wizgy: {error}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, LoadError) else StartError.exit_code
    engine.start()
    os.write(status, b"R")
    os.close(status)
    with selectors.DefaultSelector() as selector:
        selector.register(signals.descriptor, selectors.EVENT_READ)
        selector.register(lifeline, selectors.EVENT_READ)
        orphaned = any(key.fd == lifeline for key, _ in selector.select())
    engine.drain()
    if orphaned:  # else the supervisor does it, once the last worker has ended
        for listener in listeners:
            listener.remove()
    return EXIT_STOPPED if engine.wait(config.graceful_timeout + KILL_AFTER) else EXIT_WORKER_FAILED
