"""The two ways in from Python: `serve` for a process of its own, `make_server` inside of another."""

from __future__ import annotations

import threading
from types import TracebackType

from wizgy import forked, log, supervisor
from wizgy.callables import find_objection
from wizgy.child import KILL_AFTER
from wizgy.config import Config
from wizgy.ending import forget_program
from wizgy.engine import Engine
from wizgy.errors import UsageError
from wizgy.generation import discard, read_certificates
from wizgy.listeners import Listener, open_listeners
from wizgy.log import open_standard_files
from wizgy.primitives import RLock, find_replaced
from wizgy.sources import check_keywords
from wizgy.wsgi import Application


def serve(application: Application, **settings: object) -> None:
    """Serve an application as the ``wizgy`` command does: worker processes, signals, ready lines.

    On HUP new workers serve this same object; to load code anew takes the command.

    Args:
        application: the WSGI application.
        settings: those of ``wizgy --help``, with underscores for dashes.

    Raises:
        UsageError: the application is none, a setting is unknown or has a value that will not do, or this is not the
            main thread.
        BindError: an address cannot be listened on.
        SystemExit: the server has stopped; its code is that of the command.

    Source: PEP 3333
    """
    _check(application)
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(
            "wizgy.serve is for the main thread, the only one that handles signals. In another thread use "
            "wizgy.make_server(('127.0.0.1', 8888), application).serve_forever()."
        )
    config = check_keywords(settings)
    if config.reload:
        raise UsageError("setting reload: the application is loaded already. Use the command: wizgy --reload APP.")
    open_standard_files()

    def load(config: Config) -> Application:
        forget_program()
        return application

    raise SystemExit(supervisor.run(load, config, lambda: config))


def _check(application: object) -> None:
    objection = find_replaced() or find_objection(application, "")
    if objection:
        raise UsageError(objection)


class Server:
    """A server inside of a process that does other things too; handles no signals.

    Args:
        listeners: the listening sockets; the server closes them.
        engine: what serves on it.
        patience: seconds that `shutdown` waits for the engine; a thread may be stuck in the application.

    Attributes:
        server_address: ``(host, port)`` that it listens on, of a name with several addresses the first; or the path of
            a Unix socket.
    """

    def __init__(self, listeners: list[Listener], engine: Engine, patience: float) -> None:
        self._listeners = listeners
        self._engine = engine
        self._patience = patience
        self._lock = RLock()  # a handler of a signal may call `shutdown`
        self._started = False
        self._closed = False
        listener = listeners[0]
        self.server_address: tuple[str, int] | str = (
            listener.host.removeprefix("unix:") if listener.is_unix else (listener.host, listener.port)
        )

    def serve_forever(self) -> None:
        """Serve until another thread calls `shutdown`."""
        with self._lock:
            if self._closed:
                return
            if not self._started:
                self._started = True
                forked.own(self.disown)
                self._engine.start()
        try:
            self._engine.wait()
        except BaseException:  # an interrupt from the keyboard, say
            self.shutdown()
            raise

    def shutdown(self) -> None:
        """Finish the requests that run, then stop. Returns when that is done."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._started:
                self._engine.be_unready()
                self._engine.drain()
                self._engine.wait(self._patience)
            else:
                self._engine.close()
            forked.release(self.disown)
            discard(self._listeners)

    def disown(self) -> None:
        """In a process just forked: there it counts as shut down, so that the end of ``with`` does nothing."""
        self._lock = RLock()
        self._closed = True
        for listener in self._listeners:
            listener.disown()

    def __enter__(self) -> Server:
        """Nothing starts before `serve_forever`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shut down."""
        self.shutdown()


def make_server(address: tuple[str, int] | str, application: Application, **settings: object) -> Server:
    """Make a server for an application, listening already.

    Args:
        address: ``(host, port)``, or the path of a Unix socket. Port 0 picks a free one.
        application: the WSGI application.
        settings: those of ``wizgy --help`` that concern one process, with underscores for dashes.

    Raises:
        UsageError: the application is none, or a setting is unknown or has a value that will not do.
        BindError: the address cannot be listened on.

    Source: PEP 3333
    """
    _check(application)
    config = check_keywords(settings, embedded=True)
    log.configure(config.log_level, config.log_format, embedded=True)
    if isinstance(address, str):
        where = f"unix:{address}" + ("?" if "?" in address else "")
    else:
        host, port = address
        where = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"
    tls = read_certificates(config)
    listeners = open_listeners(where, config.backlog, [where])
    engine = Engine(application, config, listeners, tls=tls)
    return Server(listeners, engine, config.graceful_timeout + KILL_AFTER)
