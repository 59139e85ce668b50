"""A server as a process: start it as `matrix.toml` says, wait until it answers, end it with all that it started."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from matrix import children
from matrix.environments import Environment
from matrix.manifest import Server

LAUNCHERS = Path(__file__).resolve().parent / "launchers"

START_SECONDS = 60.0
"""Seconds until a server must answer: Django first makes its database, on a machine that may be busy."""

STOP_SECONDS = 10.0
"""Seconds for a server to end after SIGTERM, before it is killed."""

ASK_AGAIN_SECONDS = 0.005
"""Seconds between two questions whether a stranger's socket listens: nothing tells."""

HOST = "127.0.0.1"

PORTS_TO_TRY = 3

INHERITED = ("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TZ", "USER")
"""The variables of this process that a server is given, beside those of the locale."""

LAST_LINES = 40


_kept: list[subprocess.Popen[bytes]] = []
"""Servers that are left running: nobody waits for them."""


class StartError(Exception):
    """A server did not start; the message has its command and what it logged."""


@dataclass
class Running:
    """A server that answers.

    `launch` starts another one like it, `log` is a file with its standard output and standard error, `start_seconds`
    how long it took to answer.
    """

    launch: Launch
    host: str
    port: int
    process: subprocess.Popen[bytes]
    command: tuple[str, ...]
    log: Path
    start_seconds: float = 0.0

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id, which is also that of its process group."""
        return self.process.pid

    def read_log(self) -> str:
        """Return what it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="backslashreplace")

    def stop(self, seconds: float = STOP_SECONDS) -> int | None:
        """Send SIGTERM; return the exit status, None when it had to be killed. What it started is killed too."""
        try:
            with suppress(ProcessLookupError):
                self.process.terminate()
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the process and all that it started; do nothing once they have ended."""
        children.end(self.process)


@dataclass(frozen=True)
class Launch:
    """How a server is started; in the words of the command `{port}` stands for its port."""

    server: Server
    command: tuple[str, ...]
    directory: Path
    variables: Mapping[str, str]

    def start(self, log: Path, run: str | None = None) -> Running:
        """Start it on a free port of 127.0.0.1 and wait for nothing; `run` is what it belongs to, if not this run."""
        port = free_port(HOST)
        command = tuple(word.replace("{port}", str(port)) for word in self.command)
        with log.open("wb") as output:
            process = children.start(
                command, variables=self.variables, output=output, directory=self.directory, run=run
            )
        return Running(self, HOST, port, process, command, log)

    def start_answering(self, log: Path, seconds: float = START_SECONDS, run: str | None = None) -> Running:
        """Start it and wait until it answers; once more when another process took its port before it.

        Args:
            log: the file for its output.
            seconds: how long it may take until it answers.
            run: the run of the matrix that it belongs to, if not this process.

        Raises:
            StartError: it ended before it answered, or did not answer in time.
        """
        for _ in range(PORTS_TO_TRY - 1):
            running = self.start(log, run)
            try:
                return _wait_answering(running, seconds)
            except StartError as error:
                if "address already in use" not in str(error).lower():
                    raise
        return _wait_answering(self.start(log, run), seconds)


def plan_launch(
    server: Server,
    environment: Environment,
    directory: Path,
    application: str,
    temporary: Path,
    *,
    workers: int = 1,
    threads: int = 8,
    variables: Mapping[str, str] | None = None,
) -> Launch:
    """Return how a server is started as `matrix.toml` says, with `temporary` as the folder for its temporary files.

    The other arguments are those of `start`.
    """
    command = command_of(
        server,
        python=environment.python,
        launchers=str(LAUNCHERS),
        host=HOST,
        port="{port}",
        application=application,
        workers=workers,
        threads=threads,
    )
    settings = {**_variables(server, environment, temporary), **(variables or {})}
    return Launch(server, command, directory, settings)


@contextmanager
def start(
    server: Server,
    environment: Environment,
    directory: Path,
    application: str,
    *,
    workers: int = 1,
    threads: int = 8,
    variables: Mapping[str, str] | None = None,
    seconds: float = START_SECONDS,
    keep: bool = False,
) -> Iterator[Running]:
    """Start a server on a free port of 127.0.0.1 and give it once it answers; end it on leaving.

    Args:
        server: a server of `matrix.toml`.
        environment: where it is installed, as `matrix.environments.environment` makes it.
        directory: the app's folder, which becomes the working directory and is importable.
        application: the `module:attribute` to serve.
        workers: how many processes, where the server knows such a setting.
        threads: how many threads run the application, where the server knows such a setting.
        variables: environment variables beside those of this process.
        seconds: how long it may take until it answers.
        keep: leave it running, with its temporary files.

    Raises:
        StartError: it ended before it answered, or did not answer in time.
    """
    temporary = Path(tempfile.mkdtemp(prefix=children.temporary_prefix(children.this_run())))
    with ExitStack() as leaving:
        leaving.callback(shutil.rmtree, temporary, ignore_errors=True)
        launch = plan_launch(
            server,
            environment,
            directory,
            application,
            temporary,
            workers=workers,
            threads=threads,
            variables=variables,
        )
        running = launch.start_answering(temporary / "server.log", seconds)
        leaving.callback(running.stop)
        yield running
        if keep:
            leaving.pop_all()
            children.let_go(running.process)
            _kept.append(running.process)


def command_of(
    server: Server,
    *,
    python: str,
    launchers: str,
    host: str,
    port: int | str,
    application: str,
    workers: int,
    threads: int,
) -> tuple[str, ...]:
    """Return the command that starts a server, with nothing left to fill in."""
    values = {
        "python": python,
        "launchers": launchers,
        "host": host,
        "port": str(port),
        "application": application,
        "workers": str(workers),
        "threads": str(threads),
    }
    return tuple(word.format_map(values) for word in server.command)


def free_port(host: str = HOST) -> int:
    """Return a port that is free and stays so for a minute, for whoever binds it by number.

    A connection is made to it and closed from its side: in the state TIME_WAIT the system hands the port out to
    nobody, while a server, which sets SO_REUSEADDR, can bind it.
    """
    while True:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, 0))
            listener.listen(1)
            port: int = listener.getsockname()[1]
            with socket.create_connection((host, port)) as client:
                accepted, peer = listener.accept()
                accepted.close()
                # A client of something else, which had this port before, may have come first: take another one then.
                if peer == client.getsockname():
                    client.recv(1)
                    return port


def _variables(server: Server, environment: Environment, temporary: Path) -> dict[str, str]:
    """Return the variables of a server: a few of this process's, and a place of its own for temporary files.

    Others could change what the server does, and would be for everybody to read in results: wsgiref puts each of them
    into `environ`.
    """
    variables = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    variables["PATH"] = os.pathsep.join([str(environment.directory / "bin"), variables.get("PATH", os.defpath)])
    variables["PYTHONUNBUFFERED"] = "1"
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    variables["TMPDIR"] = str(temporary)
    if server.path:
        variables["PYTHONPATH"] = str(server.path)
    return variables


def _wait_answering(running: Running, seconds: float) -> Running:
    """Wait until the server answers any request, with whatever status; kill it when it does not.

    Raises:
        StartError: it ended first, or did not answer in time.
    """
    launched = time.monotonic()
    deadline = launched + seconds
    try:
        while not _answers(running.host, running.port, max(deadline - time.monotonic(), 0.1)):
            if time.monotonic() > deadline:
                raise StartError(_report(running, f"did not answer within {seconds:g} s"))
            with suppress(subprocess.TimeoutExpired):
                status = running.process.wait(ASK_AGAIN_SECONDS)
                raise StartError(_report(running, f"ended with exit status {status} before it answered"))
    except BaseException:
        running.kill()
        raise
    running.start_seconds = time.monotonic() - launched
    return running


def wait_answering(url: str, seconds: float = START_SECONDS) -> None:
    """Wait until something answers at a URL that somebody else serves.

    Raises:
        StartError: nothing did in time, or the URL is not `http://HOST:PORT`.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise StartError(f"expected http://HOST:PORT, got {url!r}")
    deadline = time.monotonic() + seconds
    while not _answers(parts.hostname, parts.port or 80, max(deadline - time.monotonic(), 0.1)):
        if time.monotonic() > deadline:
            raise StartError(f"nothing answered GET {url}/hello within {seconds:g} s; start the server first")
        time.sleep(ASK_AGAIN_SECONDS)


def _answers(host: str, port: int, seconds: float) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", "/hello", headers={"Connection": "close"})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _report(running: Running, problem: str) -> str:
    log = "\n".join(running.read_log().splitlines()[-LAST_LINES:])
    command = " ".join(running.command)
    return f"{running.launch.server.title} {problem}\ncommand: {command}\nlog:\n{log or '(nothing)'}"
