"""How the server of a cell is started: as a process, as a container, or by somebody else, who gives its URL.

Every transport gives the same: a URL, a file with the server's log, and what the cell is made of. The tests do not
know which it was.
"""

from __future__ import annotations

import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from matrix.cells import Cell
from matrix.containers import Container, Engine, cell_image, cell_target, control_image, control_target
from matrix.environments import (
    ASK_PACKAGES,
    CACHE,
    Environment,
    SetupError,
    environment,
    find_version,
    framework_lock,
    from_locks,
)
from matrix.interpreters import ASK as ASK_INTERPRETER
from matrix.interpreters import Interpreter, InterpreterMissing, find_interpreter
from matrix.manifest import ROOT, Matrix, Server
from matrix.processes import Launch, StartError, start, wait_answering
from matrix.results import Case, Kind, Provenance
from matrix.results import Transport as TransportName
from matrix.stop import Stop
from matrix.subject import recognise
from matrix.suite import Suite, SuiteEnd
from matrix.trees import tree_commit

TESTS_LOCK = ROOT / "requirements" / "tests.txt"
URL_SECONDS = 10.0
"""Seconds that a server which somebody else has started may take to answer."""


class NotHere(Exception):
    """A cell cannot run on this machine, by no fault of the cell; the message says what is missing."""


@dataclass(frozen=True)
class Started:
    """A server that answers.

    Args:
        url: where.
        log: a file with what it logs.
        provenance: what the cell is made of.
        dead: why the server has ended, None while it runs.
        entry: the command of a shell inside of it.
        leave: what a person does to end it, when it is kept running.
        directory: where the shell is started.
        launch: how to start another server like it; None: this transport cannot.
        warnings: what went wrong when it was ended; known on leaving.
    """

    url: str
    log: Path | None
    provenance: Provenance
    dead: Callable[[], str | None]
    entry: tuple[str, ...] = ()
    leave: str = ""
    directory: Path = ROOT
    launch: Launch | None = None
    warnings: list[str] = field(default_factory=list)


class Transport(ABC):
    """One way to start the servers of cells."""

    name: TransportName

    @property
    def text(self) -> str:
        """What chooses it on the command line."""
        return self.name

    @property
    def options(self) -> tuple[str, ...]:
        """The options of the command line that it was made with, beside `text`."""
        return ()

    def refuse(self, cell: Cell) -> None:  # noqa: B027 - most can run anything
        """Find out whether a cell can run on this machine.

        Raises:
            NotHere: it cannot.
        """

    def prepare(self, cell: Cell) -> None:  # noqa: B027 - what runs already needs nothing
        """Make all that the control and the server of a cell need, so that both then start at once.

        Raises:
            SetupError: something could not be made.
        """

    @abstractmethod
    @contextmanager
    def start(self, cell: Cell) -> Iterator[Started]:
        """Start the server of a cell, and end it on leaving.

        Raises:
            SetupError: something that it needs could not be made.
            StartError: it did not start.
        """

    @abstractmethod
    def run_control(self, cell: Cell, suite: Suite, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd | None:
        """Run the control of a cell's version: its app in process, with no server. None: it cannot be run.

        Raises:
            SetupError: something that it needs could not be made.
        """

    @abstractmethod
    def parts(self, cell: Cell) -> list[str]:
        """Return what the result of a cell depends on beside files of the tree."""


class VenvTransport(Transport):
    """Each server is a process of this machine, in an environment of its own.

    `extra` are requirements that are installed on top of the locks: another version of the framework, say. With `keep`
    the servers stay.
    """

    name: TransportName = "venv"

    def __init__(self, matrix: Matrix, *, extra: Sequence[str] = (), keep: bool = False, cache: Path = CACHE) -> None:
        self.matrix = matrix
        self.extra = tuple(extra)
        self.keep = keep
        self.cache = cache

    @property
    def options(self) -> tuple[str, ...]:
        """What is installed on top of the locks."""
        return tuple(word for requirement in self.extra for word in ("--with", requirement))

    def refuse(self, cell: Cell) -> None:
        """Refuse a cell whose Python is not on this machine."""
        try:
            find_interpreter(cell.python)
        except InterpreterMissing as error:
            raise NotHere(str(error)) from error

    def prepare(self, cell: Cell) -> None:
        """Install the control and the server."""
        self._control_environment(cell)
        environment(self.matrix.server(cell.server), cell.version, cell.python, extra=self.extra, cache=self.cache)

    def _control_environment(self, cell: Cell) -> Environment:
        locks = [TESTS_LOCK, framework_lock(cell.version)]
        return from_locks(locks, find_interpreter(cell.python), extra=self.extra, cache=self.cache)

    @contextmanager
    def start(self, cell: Cell) -> Iterator[Started]:
        """Start the server as a process."""
        server, framework = self.matrix.server(cell.server), self.matrix.frameworks[cell.version.framework]
        made = environment(server, cell.version, cell.python, extra=self.extra, cache=self.cache)
        with start(server, made, framework.directory, framework.application, keep=self.keep) as running:

            def dead() -> str | None:
                status = running.process.poll()
                return None if status is None else f"the server has ended with exit status {status}"

            yield Started(
                url=running.url,
                log=running.log,
                provenance=Provenance(
                    packages=made.packages,
                    interpreter=made.interpreter.build,
                    platform=made.interpreter.platform,
                    server_version=version_of(server, made.packages, made.interpreter.version),
                    server_commit=tree_commit() if server.path else None,
                    server_command=_portable(running.command, made.python),
                ),
                dead=dead,
                entry=("env", f"PATH={made.directory / 'bin'}{os.pathsep}{os.environ['PATH']}", "sh"),
                leave=f"kill {running.pid}",
                directory=framework.directory,
                launch=running.launch,
            )

    def run_control(self, cell: Cell, suite: Suite, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd | None:
        """Run the control in an environment that has pytest beside the framework."""
        made = self._control_environment(cell)
        within = Suite(suite.root, made.python, suite.limit)
        return within.run(cell, ["control"], on_case, stop=stop, again=again_command(cell, self, suite))

    def parts(self, cell: Cell) -> list[str]:
        """Return the interpreter, and what is installed on top of the locks, which is new each time unless pinned."""
        interpreter = find_interpreter(cell.python)
        pinned = all(re.fullmatch(r"[\w.\[\],-]+==[\w.+!]+", requirement) for requirement in self.extra)
        return [interpreter.executable, interpreter.build, *self.extra, "" if pinned else os.urandom(16).hex()]


class ImageTransport(Transport):
    """Each server is a container of an image that is built from this tree."""

    name: TransportName = "image"

    def __init__(self, matrix: Matrix, engine: Engine) -> None:
        self.matrix = matrix
        self.engine = engine

    def prepare(self, cell: Cell) -> None:
        """Build the images of the control and the server."""
        self.engine.build(control_target(cell), control_image(cell))
        self.engine.build(cell_target(cell), cell_image(cell))

    @contextmanager
    def start(self, cell: Cell) -> Iterator[Started]:
        """Build the image if it has changed, and start its service of docker-compose.yml in a project of its own."""
        image = self.engine.build(cell_target(cell), cell_image(cell))
        with self.engine.serve(cell, image) as container:
            yield self._started(self.matrix.server(cell.server), container)

    def _started(self, server: Server, container: Container) -> Started:
        packages = container.ask(ASK_PACKAGES)
        interpreter = Interpreter(**container.ask(ASK_INTERPRETER))
        return Started(
            url=container.url,
            log=container.log,
            provenance=Provenance(
                image=container.image,
                digest=container.digest,
                packages=tuple(packages),
                interpreter=interpreter.build,
                platform=interpreter.platform,
                server_version=version_of(server, packages, interpreter.version),
                server_commit=tree_commit() if server.path else None,
                server_command=shlex.join(container.command),
            ),
            dead=container.dead,
            entry=("docker", "exec", "-it", container.id, "sh"),
            leave=container.leave,
            warnings=container.warnings,
        )

    def run_control(self, cell: Cell, suite: Suite, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd | None:
        """Run the control in a container that has the tests beside the framework."""
        image = self.engine.build(control_target(cell), control_image(cell))
        return self.engine.run_control(cell, image, again_command(cell, self, suite), on_case, stop)

    def parts(self, cell: Cell) -> list[str]:
        """Return the base image: the rest of an image is made of files of the tree."""
        return [self.engine.base_digest(cell.python)]


class UrlTransport(Transport):
    """The server runs already, and stays."""

    name: TransportName = "url"

    def __init__(self, matrix: Matrix, url: str, control: VenvTransport | None = None) -> None:
        self.matrix = matrix
        self.url = url.rstrip("/")
        self._control = control

    @property
    def text(self) -> str:
        """What chooses it on the command line."""
        return f"url:{self.url}"

    def refuse(self, cell: Cell) -> None:
        """Refuse what is not the app of the cell, before anything else is done.

        Raises:
            SetupError: nothing serves there, or something else.
        """
        recognise(self.url, self.matrix.frameworks[cell.version.framework])

    @contextmanager
    def start(self, cell: Cell) -> Iterator[Started]:
        """Wait until something answers at the URL."""
        try:
            wait_answering(self.url, URL_SECONDS)
        except StartError as error:
            raise SetupError(str(error)) from error
        yield Started(self.url, None, Provenance(url=self.url), dead=lambda: None)

    def run_control(self, cell: Cell, suite: Suite, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd | None:
        """Run the control of the same framework version as a process, where its Python is here."""
        try:
            return self._control.run_control(cell, suite, on_case, stop) if self._control else None
        except (InterpreterMissing, SetupError):
            return None

    def parts(self, cell: Cell) -> list[str]:
        """Return something new each time: nobody knows what has changed behind a URL."""
        return [self.url, os.urandom(16).hex()]


class GivenImageTransport(Transport):
    """The server is a container of an image that somebody else has built; it serves on `port`."""

    name: TransportName = "image"

    def __init__(self, matrix: Matrix, image: str, port: int, engine: Engine, control: VenvTransport) -> None:
        self.matrix = matrix
        self.image = image
        self.port = port
        self.engine = engine
        self._control = control

    @property
    def text(self) -> str:
        """What chooses it on the command line."""
        return f"image:{self.image}"

    @property
    def options(self) -> tuple[str, ...]:
        """The port."""
        return ("--port", str(self.port))

    def refuse(self, cell: Cell) -> None:
        """Refuse an image that does not serve the app of the cell, before anything else is done.

        Raises:
            SetupError, StartError: it does not start, or serves something else.
        """
        with self.engine.serve_given(self.image, self.port) as container:
            recognise(container.url, self.matrix.frameworks[cell.version.framework])

    @contextmanager
    def start(self, cell: Cell) -> Iterator[Started]:
        """Start a container and wait until it answers."""
        with self.engine.serve_given(self.image, self.port) as container:
            provenance = Provenance(
                image=self.image, digest=container.digest, server_command=shlex.join(container.command)
            )
            entry = ("docker", "exec", "-it", container.id, "sh")
            yield Started(
                container.url,
                container.log,
                provenance,
                container.dead,
                entry,
                container.leave,
                warnings=container.warnings,
            )

    def run_control(self, cell: Cell, suite: Suite, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd | None:
        """Run the control of the same framework version as a process, where its Python is here."""
        try:
            return self._control.run_control(cell, suite, on_case, stop)
        except (InterpreterMissing, SetupError):
            return None

    def parts(self, cell: Cell) -> list[str]:
        """Return the digest of the image."""
        return [self.engine.digest(self.image), str(self.port)]


def _portable(command: Sequence[str], python: str) -> str:
    """Return a command with no path of this machine in it."""
    words = ("python" if word == python else word.replace(f"{ROOT}{os.sep}", "") for word in command)
    return shlex.join(words)


def version_of(server: Server, packages: Sequence[str], python: str) -> str | None:
    """Return the version of a server: what is installed, wizgy's own, or that of the Python it is a part of."""
    if server.path:
        return tree_version()
    return find_version(packages, server.distribution) if server.distribution else python


def tree_version() -> str | None:
    """Return the version of the server in this tree."""
    text = (ROOT / "server" / "wizgy" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return found[1] if found else None


def again_command(cell: Cell, transport: Transport, suite: Suite, kinds: Sequence[Kind] | None = None) -> str:
    """Return the command that runs a cell again, or one of its cases when the id of one is added.

    Args:
        cell: the cell.
        transport: how its server was started.
        suite: what ran its tests.
        kinds: which tests ran; None: those of the server.
    """
    words = ["python", "-m", "matrix", "repro"]
    if transport.text != "venv":
        words += ["--transport", transport.text]
    words += transport.options
    if suite.limit != Suite.limit:
        words += ["--limit", f"{suite.limit:g}"]
    for kind in kinds or ():
        words += ["--suite", kind]
    return shlex.join([*words, cell.id])
