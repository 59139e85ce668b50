"""A fault, what came of it, and the servers that it is put to."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from matrix.manifest import Server, load_matrix
from matrix.processes import LAUNCHERS, command_of, free_port
from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, children, get, is_alive, resident, wait_until

START_TIMEOUT = 30.0
"""Seconds until a server must answer."""
PROBE_TIMEOUT = 5.0
"""Seconds after which a probe that nobody answers has failed."""
PROBE_PAUSE = 0.1
"""Seconds between two probes."""

FAMILIES_WITH_WORKERS = ("wizgy", "gunicorn", "granian")
"""Programs that have worker processes, and load the application anew on HUP; the others are one process."""
FAMILIES_WITH_SIGNALS = ("wizgy", "gunicorn")
"""Programs to which TTIN, TTOU and USR1 mean something; these signals end or stop any other."""


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Args:
        kept: whether the promise was kept; None where the server has no such feature.
        figure: what was measured, in a few words.
    """

    kept: bool | None
    figure: str


NOT_THERE = Outcome(None, "—")


@dataclass(frozen=True)
class Fault:
    """One fault of the list.

    Args:
        number: its number there.
        title: what happens.
        promise: what must be measured.
        provoke: does it.
        for_others: whether it is put to other servers too; not where only wizgy has a setting for it.
    """

    number: int
    title: str
    promise: str
    provoke: Callable[[Case], Outcome]
    for_others: bool = True


FAULTS: list[Fault] = []


def fault(
    number: int, title: str, promise: str, *, for_others: bool = True
) -> Callable[[Callable[[Case], Outcome]], Callable[[Case], Outcome]]:
    """Put a function into the list of faults; see `Fault` for the arguments."""

    def register(provoke: Callable[[Case], Outcome]) -> Callable[[Case], Outcome]:
        FAULTS.append(Fault(number, title, promise, provoke, for_others))
        FAULTS.sort(key=lambda fault: fault.number)
        return provoke

    return register


class Target(ServerProcess):
    """A server that a fault is put to.

    Args:
        command: the whole command.
        port: the port that it was told.
        environment: variables beside those of this process.
        folder: its working folder.
    """

    def __init__(self, command: Sequence[str], port: int, environment: Mapping[str, str], folder: Path) -> None:
        super().__init__((), command=command, environment=environment, directory=folder)
        self.port = port

    @property
    def address(self) -> tuple[str, int]:
        """Where it serves."""
        return "127.0.0.1", self.port

    @property
    def log(self) -> str:
        """All that it has written."""
        return self.stdout + self.stderr

    def answers(self) -> bool:
        """Whether it answers GET /hello with 200."""
        try:
            return get(self.address)[0] == 200
        except (OSError, ValueError):
            return False

    def wait_answer(self, timeout: float = START_TIMEOUT) -> float:
        """Wait until it answers; returns the seconds that this took."""
        began = time.monotonic()

        def answers() -> bool:
            assert self.returncode is None, f"{self.command} ended:\n{self.log}"
            return self.answers()

        wait_until(answers, f"{self.command} answers:\n{self.log}", timeout)
        return time.monotonic() - began


@dataclass
class Case:
    """One run of a fault against one server.

    Args:
        server: the server, of `matrix.toml`.
        python: the interpreter of an environment that it is installed in.
        full: whether to run the full counts.
        folder: an empty folder.
    """

    server: Server
    python: str
    full: bool
    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def family(self) -> str:
        """The program's name."""
        return self.server.family

    @property
    def has_workers(self) -> bool:
        """Whether it has worker processes, and reloads."""
        return self.family in FAMILIES_WITH_WORKERS

    @property
    def probe_limit(self) -> float:
        """Seconds that a probe may take: a quick run may share its machine with others."""
        return 0.1 if self.full else 1.0

    def size(self, quick: int, full: int) -> int:
        """How many: in a quick run, in a full one."""
        return full if self.full else quick

    def start(
        self,
        application: str = "served:app",
        *,
        workers: int = 2,
        threads: int = 4,
        prefix: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Target:
        """Start the server, until the case ends.

        Args:
            application: the application; `served` and the case's folder are importable.
            workers: how many processes, where it has them.
            threads: how many threads each.
            prefix: words before the command.
            settings: wizgy's, by name; others have their defaults.
            variables: environment variables.
            wait: whether to wait until it answers.
        """
        port = free_port()
        command = command_of(
            self.server,
            python=self.python,
            launchers=str(LAUNCHERS),
            host="127.0.0.1",
            port=port,
            application=application,
            workers=workers,
            threads=threads,
        )
        environment = {
            "PYTHONPATH": os.pathsep.join([str(FOLDER), *([str(self.server.path)] if self.server.path else [])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(variables or {}),
        }
        if self.family == "wizgy":
            environment.update({f"WIZGY_{name.upper()}": value for name, value in (settings or {}).items()})
        target = Target([*prefix, *command], port, environment, self.folder)
        self._stack.callback(target.kill)
        if wait:
            target.wait_answer()
        return target

    def workers(self, target: Target) -> set[int]:
        """The processes that may serve: those below the first, or the first itself where it has none."""
        if not self.has_workers:
            return {target.pid}
        # wizgy's have their threads when they serve; others start some with the first request.
        least = 2 if self.family == "wizgy" else 1
        return {pid for pid in children(target.pid) if is_alive(pid) and len(threads_of(pid)) >= least}

    def wait_workers(self, target: Target, count: int, timeout: float = START_TIMEOUT) -> set[int]:
        """Wait until so many processes serve."""
        count = count if self.has_workers else 1

        def find() -> set[int]:
            pids = self.workers(target)
            return pids if len(pids) == count else set()

        return wait_until(find, f"{count} workers", timeout)

    def memory(self, target: Target) -> int:
        """The bytes that its processes have in memory."""
        pids = {target.pid, *children(target.pid)}
        return sum(resident(pid) for pid in pids if is_alive(pid))

    def write_application(self, name: str, text: str, before: str = "") -> None:
        """Write a module whose `app` answers /hello with `text` and all else as `served` does.

        Args:
            name: the module.
            text: the answer.
            before: lines that are run when it is imported.
        """
        source = (
            f"{before}\nimport served\n\n\n"
            "def app(environ, start_response):\n"
            "    if environ['PATH_INFO'] == '/hello':\n"
            "        start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', "
            f"'{len(text)}')])\n"
            f"        return [{text.encode()!r}]\n"
            "    return served.app(environ, start_response)\n"
        )
        new = self.folder / f"{name}.new"
        new.write_text(source, "utf-8")
        new.rename(self.folder / f"{name}.py")

    def __enter__(self) -> Case:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def own_case(folder: Path, *, full: bool = False) -> Case:
    """A case for wizgy of this tree, with the Python that runs."""
    return Case(load_matrix().server("wizgy"), sys.executable, full, folder)


def threads_of(pid: int) -> list[str]:
    """The threads of a process."""
    with suppress(OSError):
        return os.listdir(f"/proc/{pid}/task")
    return []


@dataclass
class Probes:
    """What came of probes.

    Args:
        slowest: seconds that the slowest took.
        count: how many there were.
        failed: how many were not answered with 200.
    """

    slowest: float = 0.0
    count: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)

    def once(self, address: tuple[str, int]) -> None:
        """Ask once for /hello, on a connection of its own."""
        import http.client

        began = time.monotonic()
        connection = http.client.HTTPConnection(*address, timeout=PROBE_TIMEOUT)
        try:
            connection.request("GET", "/hello", headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            self.failed += response.status != 200
        except (OSError, http.client.HTTPException):
            self.failed += 1
        finally:
            connection.close()
        self.seconds.append(time.monotonic() - began)
        self.slowest = max(self.slowest, self.seconds[-1])
        self.count += 1

    def go_on(self, address: tuple[str, int], until: Callable[[], bool]) -> None:
        """Ask every tenth of a second until something is so."""
        while not until():
            began = time.monotonic()
            self.once(address)
            time.sleep(max(began + PROBE_PAUSE - time.monotonic(), 0.0))

    def during(self, address: tuple[str, int], seconds: float) -> Probes:
        """Ask every tenth of a second for so long."""
        deadline = time.monotonic() + seconds
        self.go_on(address, lambda: time.monotonic() >= deadline)
        return self

    def percentile(self, share: float) -> float:
        """The seconds in which that share of the probes was answered."""
        return sorted(self.seconds)[min(int(share * len(self.seconds)), len(self.seconds) - 1)]

    def __str__(self) -> str:
        if self.failed:
            return f"{self.failed} of {self.count} probes failed, slowest {show_seconds(self.slowest)}"
        return f"slowest probe {show_seconds(self.slowest)}"


def show_seconds(seconds: float) -> str:
    """A time as a person reads it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def elapsed(find: Callable[[], object], timeout: float, pause: float = 0.02) -> float | None:
    """The seconds until something is so, or None after `timeout` seconds."""
    began = time.monotonic()
    while not find():
        if time.monotonic() - began > timeout:
            return None
        time.sleep(pause)
    return time.monotonic() - began
