"""A worker process from the inside: loads the application, runs the engine, and does what it is told.

Signals, orders and notices of the engine all come to the main thread, which runs nothing of the application once
it is loaded. As long as it can run, and the engine polls, the supervisor hears from it every second.
"""

from __future__ import annotations

import faulthandler
import math
import os
import selectors
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

from wizgy import forked, log, standard
from wizgy.child import SHOW_STACKS
from wizgy.config import Config
from wizgy.connection import IDLE_DRAINING
from wizgy.ending import finish
from wizgy.engine import Engine, Notice
from wizgy.errors import LoadError, StartError
from wizgy.generation import Generation
from wizgy.link import Link, Order, Report
from wizgy.listeners import Listener
from wizgy.log import ERROR, logger
from wizgy.overseer import describe_threads
from wizgy.primitives import Selector, monotonic
from wizgy.signals import SelfPipe, give_back, name_of, take
from wizgy.sink import flush_all, reopen_all
from wizgy.wsgi import Application, Environ, StartResponse

Load = Callable[[Config], Application]

BEAT: Final = 1.0
"""Seconds between two signs of life."""
END_AFTER: Final = 1.0
"""Seconds on top of the graceful timeout; then the process ends, whatever a thread still does."""
END_AFTER_FAILURE: Final = 1.0
"""Seconds for the end of a worker whose application does not load."""
FOR_THE_SUPERVISOR: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)
"""A terminal sends some of them to the whole group; the supervisor decides what they mean."""
MOST_NAMED: Final = 3
"""Files to name of those that have changed."""
EXIT_STOPPED: Final = 0
EXIT_FAILED: Final = 1


def live(do: Callable[[], int]) -> NoReturn:
    """In the process just forked: do what gives an exit status, and end the process with it."""
    exit_code = EXIT_FAILED
    try:
        exit_code = forked.call(do)
    except BaseException:  # noqa: BLE001 - nothing of the supervisor's may run in this process
        standard.traceback.print_exc()
    finally:
        try:
            flush_all()
            forked.flush_standard_streams()
        finally:
            os._exit(exit_code)


def work(load: Load, generation: Generation, link: Link) -> int:
    """Serve until told to stop, or until the supervisor is gone.

    Args:
        load: makes the application.
        generation: the settings, the listening sockets and the certificates.
        link: the worker's end of the link to the supervisor.

    Returns:
        The exit status for the process.
    """
    config, listeners = generation.config, generation.listeners
    _begin_signals()
    log.configure(config.log_level, config.log_format)
    print_at_once()
    if not link.watch():
        return EXIT_FAILED
    inner, signals = Link(*os.pipe()), SelfPipe()
    for disown in (link.close, inner.close, signals.close, *(listener.disown for listener in listeners)):
        forked.own(disown)
    load = partial(forked.call, load)
    try:
        application = load(config) if not config.reload else _load_to_edit(load, config, link)
        engine = Engine(
            application,
            config,
            listeners,
            multiprocess=config.workers > 1,
            notify=inner.send,
            tls=generation.tls,
        )
    except StartError as error:
        return _fail(error, link)
    print_at_once()  # again: the application may have put another stream in its place
    _take_signals(signals)
    link.unwatch()
    if signal.SIGTERM in signals.read():  # it was told to stop before it could promise anything
        return EXIT_STOPPED
    try:
        engine.start(lambda: link.send(Report.READY))
    except StartError as error:
        return _fail(error, link)
    duty = _Duty(engine, config, listeners, signals, inner, link)
    exit_code = duty.run()
    finish(duty.end_at, exit_code)
    return exit_code


def _fail(error: StartError, link: Link) -> int:
    """Say why the worker cannot start; returns its exit status."""
    logger.say(f"wizgy: {error}")
    link.send(Report.FAILED)
    finish(monotonic() + END_AFTER_FAILURE, error.exit_code)
    return error.exit_code


def print_at_once() -> None:
    """Have each line that the application prints leave at once.

    Python keeps up to 8 KiB of what goes to a file or pipe: it would be seen when the worker ends, or never.
    """
    try:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        pass  # there is none, or it is closed, or a stream of another kind


def _begin_signals() -> None:
    """What signals mean while the application loads: TERM ends the process, which has promised nothing yet."""
    take(FOR_THE_SUPERVISOR)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    forked.own(give_back)
    if not faulthandler.is_enabled():
        faulthandler.enable(ERROR)  # a crash in C code shows where it was
        forked.own(faulthandler.disable)
    faulthandler.register(SHOW_STACKS, ERROR)  # for when no Python can run
    forked.own(partial(faulthandler.unregister, SHOW_STACKS))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _take_signals(signals: SelfPipe) -> None:
    """Take the signals that mean something to a worker, whatever the application has done with them meanwhile."""
    replaced = signals.catch(signal.SIGTERM, signal.SIGUSR1) + take(FOR_THE_SUPERVISOR)
    if replaced:
        logger.warning(
            "The application has a handler for %s, which wizgy takes for itself: the handler is never called. "
            "Register what is to happen when a worker ends with atexit.",
            ", ".join(sorted(map(name_of, replaced))),
        )


def _load_to_edit(load: Load, config: Config, link: Link) -> Application:
    """Load an application that somebody works on: report when its code changes; where it does not load, show why."""
    from wizgy.reloader import Watcher, distrust_bytecode  # not at the top: it takes a while, and few need it

    def tell(files: list[str]) -> None:
        logger.info("Changed: %s. Loading anew.", ", ".join(map(os.path.relpath, files[:MOST_NAMED])))
        link.send(Report.CHANGED)

    distrust_bytecode()
    watcher = Watcher(os.path.abspath(config.chdir), tell)
    try:
        application = load(config)
        watcher.note_loaded()
        return application
    except LoadError as error:
        watcher.note_failed(error)
        print(f"wizgy: {error}\nwizgy: Waiting for a change.", file=sys.stderr, flush=True)
        return show(str(error))


def show(text: str) -> Application:
    """An application that answers everything with a text, as an error."""
    content = f"{text}\n\nwizgy --reload waits for a change.\n".encode()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
        return [content]

    return application


class _Duty:
    """What the main thread does while the engine serves."""

    def __init__(
        self, engine: Engine, config: Config, listeners: list[Listener], signals: SelfPipe, inner: Link, link: Link
    ) -> None:
        self._engine = engine
        self._config = config
        self._listeners = listeners
        self._signals = signals
        self._inner = inner
        self._link = link
        self._drain_at: float | None = None  # when the drain delay is over
        self.end_at = math.inf  # when the process ends, whatever still runs
        self._stopped = False
        self._orphaned = False

    def run(self) -> int:
        """Attend to what comes until the engine has stopped; returns the exit status."""
        with Selector() as selector:
            forked.own(selector.close)
            selector.register(self._signals.descriptor, selectors.EVENT_READ, self._read_signals)
            selector.register(self._inner.reader, selectors.EVENT_READ, self._read_notices)
            selector.register(self._link.reader, selectors.EVENT_READ, self._read_orders)
            while not self._stopped and monotonic() < self.end_at:
                for key, _ in forked.select(selector, self._seconds_to_wait()):
                    key.data()
                if self._orphaned and self._link.reader in selector.get_map():
                    selector.unregister(self._link.reader)
                if self._drain_at is not None and monotonic() >= self._drain_at:
                    self._drain(IDLE_DRAINING)
                self._link.send(Report.ALIVE if self._engine.is_polling() else Report.DEAF)
        if self._orphaned:  # else the supervisor does it
            for listener in self._listeners:
                listener.remove()
        return EXIT_STOPPED if self._stopped else EXIT_FAILED

    def _seconds_to_wait(self) -> float:
        return BEAT if self._drain_at is None else min(max(self._drain_at - monotonic(), 0.0), BEAT)

    def _read_signals(self) -> None:
        signals = self._signals.read()
        if signal.SIGUSR1 in signals:  # the supervisor sends an order, but logrotate's pkill means all processes
            reopen_all()
        if signal.SIGTERM in signals and self._drain_at is None:
            # The supervisor sends it, or systemd to all processes; who stops at once sends KILL.
            self._drain_at = monotonic() + self._config.drain_delay
            self._engine.be_unready()
            if self._config.drain_delay > BEAT:
                logger.info("Stopping: not ready, but serving for %g s more (--drain-delay).", self._config.drain_delay)

    def _read_notices(self) -> None:
        for notice in self._inner.read() or b"":
            if notice == Notice.ENOUGH:
                self._link.send(Report.ENOUGH)
            elif notice == Notice.STUCK:
                self._link.send(Report.STUCK)
            elif notice == Notice.CLOSED:
                self._link.send(Report.CLOSED)
            elif notice == Notice.STOPPED:
                self._stopped = True

    def _read_orders(self) -> None:
        orders = self._link.read()
        if orders is None:
            self._orphaned = True
            self._engine.be_unready()
            self._drain(IDLE_DRAINING)
            return
        if Order.REOPEN in orders:
            reopen_all()
        if Order.SHOW in orders:
            logger.warning("Here is what the threads of worker %d do:\n%s", os.getpid(), describe_threads())
        if Order.LEAVE in orders:
            self._drain(0.0)
        elif Order.RETIRE in orders:
            # A successor serves, so there is no hurry: a client that is about to use its connection again may.
            self._drain(self._config.keepalive_timeout)

    def _drain(self, idle_grace: float) -> None:
        self._drain_at = None
        self.end_at = min(self.end_at, monotonic() + self._config.graceful_timeout + END_AFTER)
        self._engine.drain(idle_grace)
