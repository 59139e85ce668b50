"""Run the tests of a cell in a process of their own, and hand over each record as it comes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from matrix import children
from matrix.cells import Cell
from matrix.environments import SetupError
from matrix.manifest import ROOT
from matrix.processes import Launch
from matrix.recorder import case_name
from matrix.records import decode
from matrix.results import Case, Kind
from matrix.stop import Stop

LAST_LINES = 30

END_SECONDS = 10.0
"""Seconds for the process of tests to end after it has said that all were run."""

LOOK_SECONDS = 0.2
"""Seconds between two looks at what no descriptor tells: a stop, and the end of a process."""

COLLECT_SECONDS = 15.0
"""Seconds that collecting the tests may take beyond the limit of one case."""

SLACK = 60.0
"""Seconds without a record beyond the limit of one case: the recorder, which keeps that limit, asks a silent server."""

STACKS_SECONDS = 1.0
"""Seconds for a process that hangs to print where."""

READ_BYTES = 65536

CaseName = tuple[Kind, str]
"""The kind and the id of a case: what identifies it within a cell."""


@dataclass(frozen=True)
class Selection:
    """Which tests of a suite to run: all of them, only some, or all but some."""

    only: frozenset[CaseName] | None = None
    skip: frozenset[CaseName] = frozenset()

    def without(self, names: Collection[CaseName]) -> Selection:
        """Return the same selection without some tests."""
        return Selection(self.only, self.skip | frozenset(names))


EVERYTHING = Selection()


@dataclass(frozen=True)
class SuiteEnd:
    """How the tests ended.

    Args:
        finished: whether they came to their end by themselves, with a record of each.
        status: what pytest said at their end, else the exit status of its process.
        collected: how many they were to be.
        output: the last of what pytest printed, with why it was ended.
        cut: whether the recorder ended them, since the server was gone or a test did not end.
        recorded: how many have a record.
    """

    finished: bool
    status: int
    collected: int
    output: str
    cut: bool = False
    recorded: int = 0

    def describe(self) -> str:
        """Say how far they came, and what pytest printed last."""
        return (
            f"the tests did not come to their end: status {self.status}, {self.recorded} of {self.collected} cases "
            f"have a verdict\n{self.output}"
        )


class Session:
    """What the recorder has written of one process of tests: how many they are, a record of each, and their end.

    Args:
        on_case: told of each case.
        on_count: told how many they are.
    """

    def __init__(self, on_case: Callable[[Case], None], on_count: Callable[[int], None] = lambda count: None) -> None:
        self._on_case = on_case
        self._on_count = on_count
        self._rest = b""
        self._names: set[CaseName] = set()
        self._cut = False
        self.began = False
        self.collected = 0
        self.status: int | None = None

    def take(self, data: bytes) -> None:
        """Take what was read; the end of a line may still be missing, and stays so when the tests are killed."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            values = json.loads(line)
            if "collected" in values:
                self.began, self.collected = True, values["collected"]
                self._on_count(self.collected)
            self.status = values.get("finished", self.status)
            self._cut = self._cut or "cut" in values
            if values.pop("record", None):
                case = decode(Case, values, "case")
                self._names.add((case.kind, case.id))
                self._on_case(case)

    def end(self, status: int, output: str, why: str = "") -> SuiteEnd:
        """Return how the tests ended.

        Args:
            status: the exit status of their process.
            output: what pytest printed.
            why: why they were ended, where they were.
        """
        if self.status is not None and status == -signal.SIGKILL:
            status = self.status  # it hung after its last word, and was killed
        by_itself = status == self.status and status in (0, 1) and not self._cut
        finished = by_itself and len(self._names) == self.collected
        lines = [*([why] if why else []), *output.splitlines()[-LAST_LINES:]]
        return SuiteEnd(finished, status, self.collected, "\n".join(lines), self._cut, len(self._names))


@dataclass(frozen=True)
class Suite:
    """The tests, and what they are run with.

    `root` is the folder of `tests`; `python` runs pytest, and has what `requirements/tests.txt` asks for.
    """

    root: Path = ROOT
    python: str = sys.executable
    limit: float = 180.0

    @property
    def command(self) -> tuple[str, ...]:
        """The start of each command: pytest, which looks for settings nowhere but in the files that are named."""
        settings = self.root / "pyproject.toml"
        return (
            *(self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--rootdir", str(self.root), "--confcutdir", str(self.root / "tests")),
            *(("-c", str(settings)) if settings.exists() else ()),
        )

    def run(
        self,
        cell: Cell,
        kinds: Sequence[Kind],
        on_case: Callable[[Case], None],
        *,
        url: str | None = None,
        log: Path | None = None,
        launch: Launch | None = None,
        selection: Selection = EVERYTHING,
        options: Sequence[str] = (),
        again: str = "",
        stop: Stop | None = None,
        on_count: Callable[[int], None] = lambda count: None,
    ) -> SuiteEnd:
        """Run tests and call `on_case` for each that ends, in this thread.

        Args:
            cell: whose framework, server and Python the tests expect, known deviations included.
            kinds: which folders of tests.
            on_case: what to do with a record.
            url: the server; None for tests that need none.
            log: the file that the server logs to.
            launch: how to start another server like it, for tests that end one; None: they are skipped.
            selection: which tests.
            options: more options of pytest.
            again: the command that runs a case of the cell again, to which its id is added.
            stop: ends the tests early.
            on_count: told how many tests there are, once they are collected.
        """
        with children.temporary_directory() as temporary:
            command = [
                *self.command,
                *("-p", "matrix.recorder", "--tb=short", "--no-header"),
                *(f"tests/{kind}" for kind in kinds),
                *("--framework", cell.version.id, "--server", cell.server, "--python", cell.python),
                *(("--url", url) if url else ()),
                *(("--record-log", str(log)) if log else ()),
                *(("--launch", _write_launch(Path(temporary), launch)) if launch else ()),
                *("--record-cell", cell.id, "--record-again", again, "--record-limit", str(self.limit)),
                *_write_selection(Path(temporary), selection),
                *options,
            ]
            return self._follow(command, Path(temporary), on_case, stop, on_count)

    def names(self, cell: Cell, kind: Kind) -> list[str]:
        """Return the ids of the cases of one kind that a cell has.

        Raises:
            SetupError: the tests could not be collected.
        """
        command = [
            *self.command,
            *("--collect-only", f"tests/{kind}"),
            *("--framework", cell.version.id, "--server", cell.server, "--python", cell.python),
        ]
        with children.temporary_directory() as temporary:
            variables = self._variables(Path(temporary))
            seconds = self.limit + COLLECT_SECONDS
            try:
                answer = children.run(command, variables=variables, directory=self.root, seconds=seconds)
            except subprocess.TimeoutExpired as error:
                raise SetupError(f"the tests of {cell.id} could not be collected within {seconds:g} s") from error
        if answer.returncode:
            raise SetupError(f"the tests could not be collected:\n{answer.stdout}{answer.stderr}".rstrip())
        return [case_name(line)[1] for line in answer.stdout.splitlines() if "::" in line]

    def _follow(
        self,
        command: list[str],
        temporary: Path,
        on_case: Callable[[Case], None],
        stop: Stop | None,
        on_count: Callable[[int], None] = lambda count: None,
    ) -> SuiteEnd:
        stop = Stop() if stop is None else stop
        session = Session(on_case, on_count)
        output = temporary / "output"
        reader, writer = os.pipe()
        with output.open("wb") as sink, os.fdopen(reader, "rb", buffering=0) as pipe:
            process = children.start(
                [*command, "--record", f"/dev/fd/{writer}"],
                variables=self._variables(temporary),
                output=sink,
                directory=self.root,
                pass_fds=[writer],
            )
            os.close(writer)
            try:
                why = self._watch(process, pipe, session, stop)
            finally:
                status = children.end(process)
        printed = output.read_text(encoding="utf-8", errors="backslashreplace")
        return session.end(status, printed, why)

    def _watch(self, process: subprocess.Popen[bytes], pipe: IO[bytes], session: Session, stop: Stop) -> str:
        """Take records until the tests end; return why they have to be ended, nothing when they did by themselves.

        The end of the pipe alone says nothing: a test may leave a thread, so that its process stays, or a process that
        has the pipe.
        """
        heard = time.monotonic()
        while not stop:
            ended = process.poll() is not None
            if _readable(pipe, 0.0 if ended else LOOK_SECONDS):
                data = os.read(pipe.fileno(), READ_BYTES)
                session.take(data)
                heard = time.monotonic()
                if not data:
                    return self._wait_end(process)
            elif ended:
                return ""
            elif session.status is not None:
                return self._wait_end(process)
            elif (silent := time.monotonic() - heard) > self.limit + (SLACK if session.began else COLLECT_SECONDS):
                doing = "while tests ran" if session.began else "while the tests were collected"
                self._ask_where(process)
                return f"nothing was heard for {silent:.0f} s {doing}, so they were ended; where they were:"
        return "stopped"

    def _wait_end(self, process: subprocess.Popen[bytes]) -> str:
        """Give a process that has said all the time to end."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        return ""

    def _ask_where(self, process: subprocess.Popen[bytes]) -> None:
        """Let pytest print the stacks of its threads: `faulthandler`, which it enables, does that on SIGABRT."""
        process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STACKS_SECONDS)

    def _variables(self, temporary: Path) -> dict[str, str]:
        strange = ("WIZGY_", "PYTEST_", "PYTHONPATH", "TMPDIR")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        paths = dict.fromkeys([str(self.root), str(self.root / "server"), str(ROOT), str(ROOT / "server")])
        return {
            **variables,
            "PYTHONPATH": os.pathsep.join(paths),
            # Compiled once, and not into the tree.
            "PYTHONPYCACHEPREFIX": str(self.root / ".matrix" / "pycache"),
            "TMPDIR": str(temporary),
            # Plugins that happen to be installed cost seconds, and could change what tests do.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "COLUMNS": "160",
        }


def _write_launch(directory: Path, launch: Launch) -> str:
    path = directory / "launch.json"
    values = {"command": launch.command, "directory": str(launch.directory), "variables": dict(launch.variables)}
    path.write_text(json.dumps(values), encoding="utf-8")
    return str(path)


def _write_selection(directory: Path, selection: Selection) -> list[str]:
    options = []
    for option, names in (("--record-only", selection.only), ("--record-skip", selection.skip)):
        if names:
            path = directory / option.strip("-")
            path.write_text("".join(f"{kind} {name}\n" for kind, name in sorted(names)), encoding="utf-8")
            options += [option, str(path)]
    return options


def _readable(pipe: IO[bytes], seconds: float) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
