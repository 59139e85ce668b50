"""Run the tests of a cell in a process of their own, and hand over each record as it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from matrix.cells import Cell
from matrix.manifest import ROOT
from matrix.recorder import case_name
from matrix.records import decode
from matrix.results import Case, Kind

LAST_LINES = 30

END_SECONDS = 10.0
"""Seconds for the process of tests to end after its last record."""

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

    `finished` says whether they came to their end; `collected` is how many they were to be, and `output` the last of
    what pytest printed.
    """

    finished: bool
    status: int
    collected: int
    output: str


class Stop:
    """Tells every process of tests to end, now and from then on."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._set = False

    def __bool__(self) -> bool:
        return self._set

    def set(self) -> None:
        """End the processes that run, and those that will be started."""
        with self._mutex:
            self._set = True
            for process in self._processes:
                _kill_group(process)

    @contextmanager
    def ends(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """End a process when this is set; whatever happens, nothing that it started is left on leaving."""
        with self._mutex:
            self._processes.add(process)
            if self._set:
                _kill_group(process)
        try:
            yield
        finally:
            with self._mutex:
                self._processes.discard(process)
            # With its output at an end the process is ending; what it started, and left behind, is not.
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Suite:
    """The tests, and what they are run with.

    `root` is the folder of `tests`; `python` runs pytest, and has what `requirements/tests.txt` asks for.
    """

    root: Path = ROOT
    python: str = sys.executable
    limit: float = 180.0

    def run(
        self,
        cell: Cell,
        kinds: Sequence[Kind],
        on_case: Callable[[Case], None],
        *,
        url: str | None = None,
        log: Path | None = None,
        selection: Selection = EVERYTHING,
        options: Sequence[str] = (),
        again: str = "",
        stop: Stop | None = None,
    ) -> SuiteEnd:
        """Run tests and call `on_case` for each that ends, in this thread.

        Args:
            cell: whose framework, server and Python the tests expect, known deviations included.
            kinds: which folders of tests.
            on_case: what to do with a record.
            url: the server; None for tests that need none.
            log: the file that the server logs to.
            selection: which tests.
            options: more options of pytest.
            again: the command that runs a case of the cell again, to which its id is added.
            stop: ends the tests early.
        """
        with tempfile.TemporaryDirectory(prefix="matrix-suite-") as temporary:
            command = [
                *(self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "matrix.recorder"),
                *("--rootdir", str(self.root), "--tb=short", "--no-header"),
                *(f"tests/{kind}" for kind in kinds),
                *("--framework", cell.version.id, "--server", cell.server, "--python", cell.python),
                *(("--url", url) if url else ()),
                *(("--record-log", str(log)) if log else ()),
                *("--record-cell", cell.id, "--record-again", again, "--record-limit", str(self.limit)),
                *_write_selection(Path(temporary), selection),
                *options,
            ]
            return self._follow(command, Path(temporary), on_case, stop)

    def names(self, cell: Cell, kind: Kind) -> list[str]:
        """Return the ids of the cases of one kind that a cell has."""
        command = [
            *(self.python, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", f"tests/{kind}"),
            *("--rootdir", str(self.root), "--framework", cell.version.id, "--server", cell.server),
            *("--python", cell.python),
        ]
        with tempfile.TemporaryDirectory(prefix="matrix-suite-") as temporary:
            variables = self._variables(Path(temporary))
            answer = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        return [case_name(line)[1] for line in answer.stdout.splitlines() if "::" in line]

    def _follow(
        self, command: list[str], temporary: Path, on_case: Callable[[Case], None], stop: Stop | None
    ) -> SuiteEnd:
        reader, writer = os.pipe()
        output = temporary / "output"
        with output.open("wb") as sink, os.fdopen(reader, encoding="ascii") as lines:
            process = subprocess.Popen(
                [*command, "--record", f"/dev/fd/{writer}"],
                cwd=self.root,
                env=self._variables(temporary),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                start_new_session=True,
            )
            os.close(writer)
            with (stop or Stop()).ends(process):
                collected, finished = _read_records(lines, on_case)
            status = process.wait()
        tail = output.read_text(encoding="utf-8", errors="backslashreplace").splitlines()[-LAST_LINES:]
        return SuiteEnd(finished, status, collected, "\n".join(tail))

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


def _write_selection(directory: Path, selection: Selection) -> list[str]:
    options = []
    for option, names in (("--record-only", selection.only), ("--record-skip", selection.skip)):
        if names:
            path = directory / option.strip("-")
            path.write_text("".join(f"{kind} {name}\n" for kind, name in sorted(names)), encoding="utf-8")
            options += [option, str(path)]
    return options


def _read_records(lines: Iterable[str], on_case: Callable[[Case], None]) -> tuple[int, bool]:
    """Hand over the records that come until the tests end; return how many tests there were, and if all were run."""
    collected, finished = 0, False
    for line in lines:
        values = json.loads(line)
        if values.pop("record", None):
            on_case(decode(Case, values, "case"))
        collected = values.get("collected", collected)
        finished = finished or "finished" in values
    return collected, finished
