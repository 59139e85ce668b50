"""Run one cell: its control, its server, its tests, and whose fault it is when one fails.

The story of a cell:

1. The app of its framework version runs in process under `wsgiref.validate`. Where that fails the app is at fault, the
   cell is an `app-error`, and no server is asked.
2. Its server is started, and the tests run against it in a process of their own, which hands over each record.
3. A server that ends, or a test that does not, cuts the tests short: the server is started again and the tests that
   are left go on, one case at a time, so that it is known which one it was.
4. What fails is played once more, alone. It stays a failure if it then passes, but is said to be unstable.
5. What fails is run on the other servers too: `this server only`, `some servers`, or `every server`.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from threading import Lock
from typing import Literal

from matrix import results
from matrix.cells import Cell
from matrix.environments import SetupError
from matrix.fingerprints import control_fingerprint
from matrix.jury import BLAMED, Jury
from matrix.manifest import SUITES, Matrix
from matrix.processes import StartError
from matrix.results import Blame, Case, Kind, Provenance, Verdict, format_time, worst
from matrix.stop import Stop
from matrix.suite import CaseName, Selection, Suite, SuiteEnd
from matrix.transports import NotHere, Started, Transport, again_command

MAX_RESTARTS = 5
"""How often the server of one cell is started again after a crash or a test without end."""

MAX_PLAYED_AGAIN = 60
"""With so many failing cases of a cell nothing is unstable: none of them is played again."""

UNSTABLE = "unstable, it passes when it is played again alone"

LOG_LINES = 40

ONE_AT_A_TIME = ("--jobs", "1")


Phase = Literal["environment", "control", "tests", "again", "blame"]
"""What a cell does: set up, run its app with no server, run its tests, play again what failed, ask other servers."""


class Interrupted(Exception):
    """The run was stopped while the cell ran."""


@dataclass(frozen=True)
class CellResult:
    """What came of a cell."""

    cell: results.Cell
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Control:
    """What came of a control: the cases that failed, and why it could not run, if so."""

    failed: tuple[Case, ...] = ()
    explanation: str = ""
    verdict: Verdict = "pass"


class OneAtATime:
    """Does each piece of work once, however many threads want it, and keeps what came of it."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._locks: dict[object, Lock] = {}
        self._done: dict[object, Control] = {}

    def get(self, key: object, work: Callable[[], Control]) -> Control:
        """Return what came of the work for a key, after doing it if nobody has."""
        with self._mutex:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            if key not in self._done:
                self._done[key] = work()
            return self._done[key]


@dataclass
class Attempts:
    """What the tests of a cell have said so far, over the starts of its server."""

    done: dict[CaseName, Case] = field(default_factory=dict)
    suspect: Case | None = None
    collected: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    explanation: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class CellRunner:
    """Runs cells.

    Args:
        matrix: what there is.
        transport: how servers are started.
        suite: the tests.
        stop: set when everything is to end.
        jury: who says whose fault a failing case is; None: nobody.
        kinds: which suites to run; None: those of the server.
        selection: which tests.
        options: more options of pytest.
        require_all: whether a cell that cannot run on this machine is an error.
        on_case: told of each case as it ends.
        on_phase: told what a cell does next, and with how many cases as soon as that is known, 0 before.
    """

    matrix: Matrix
    transport: Transport
    suite: Suite
    stop: Stop
    jury: Jury | None = None
    kinds: tuple[Kind, ...] | None = None
    selection: Selection = field(default_factory=Selection)
    options: tuple[str, ...] = ()
    require_all: bool = False
    on_case: Callable[[Cell, Case], None] = lambda cell, case: None
    on_phase: Callable[[Cell, Phase, int], None] = lambda cell, phase, total: None
    controls: OneAtATime = field(default_factory=OneAtATime)

    def kinds_of(self, cell: Cell) -> tuple[Kind, ...]:
        """Return the suites that a cell is run with."""
        if self.kinds is not None:
            return self.kinds
        known = cell.server in self.matrix.servers
        return self.matrix.server(cell.server).suites if known else SUITES

    def run(self, cell: Cell, fingerprint: str | None = None) -> CellResult:
        """Run a cell and say what came of it.

        Raises:
            Interrupted: it was stopped.
        """
        began, started = time.monotonic(), format_time(datetime.now(timezone.utc))
        attempts = self._attempt(cell)
        if self.stop:
            raise Interrupted
        cases = self._played_again(cell, attempts)
        if self.jury:
            if any(case.verdict in BLAMED for case in cases):
                self.on_phase(cell, "blame", 0)
            cases = self.jury.judge(cell, cases)
        if self.stop:
            raise Interrupted
        verdict = worst([*attempts.verdicts, *(case.verdict for case in cases)])
        record = results.Cell(
            cell=cell.id,
            transport=self.transport.name,
            provenance=attempts.provenance,
            verdict=verdict,
            explanation=attempts.explanation,
            warnings=tuple(attempts.warnings),
            started=started,
            seconds=round(time.monotonic() - began, 2),
            reproduce=again_command(cell, self.transport, self.suite, self.kinds),
            fingerprint=fingerprint,
        )
        return CellResult(record, tuple(cases))

    def _attempt(self, cell: Cell) -> Attempts:
        """Run control and tests; whatever hinders them becomes a verdict."""
        attempts = Attempts()
        try:
            self.transport.refuse(cell)
            self.on_phase(cell, "environment", 0)
            self.transport.prepare(cell)
            self.on_phase(cell, "control", 0)
            control = self._control_of(cell)
            if control.verdict == "pass":
                self.on_phase(cell, "tests", 0)
                self._run_tests(cell, attempts)
            else:
                attempts.verdicts.append(control.verdict)
                attempts.explanation = control.explanation
                again = again_command(cell, self.transport, self.suite)
                for case in control.failed:
                    attempts.done[case.kind, case.id] = replace(
                        case, cell=cell.id, reproduce=f"{again} {shlex.quote(case.id)}"
                    )
        except NotHere as reason:
            attempts.verdicts.append("setup-error" if self.require_all else "skip")
            attempts.explanation = str(reason)
        except (SetupError, StartError) as error:
            attempts.verdicts.append("setup-error")
            attempts.explanation = str(error)
        return attempts

    def _control_of(self, cell: Cell) -> Control:
        """Run the control of a cell, unless that was done with the same files."""
        files = control_fingerprint(self.matrix, cell, self.suite.root)
        return self.controls.get((cell.version.id, cell.python, files), lambda: self._run_control(cell))

    def _run_control(self, cell: Cell) -> Control:
        """Run the app in process, with no server.

        Raises:
            SetupError: what it needs could not be made.
        """
        cases: list[Case] = []
        end = self.transport.run_control(cell, self.suite, cases.append, self.stop)
        if end is None:
            return Control()
        failed = [
            replace(case, verdict="app-error", blame=Blame(on="app"))
            for case in cases
            if case.verdict in ("fail", "timeout", "crash", "stale")
        ]
        if failed:
            title = f"{cell.version.id} on Python {cell.python}"
            text = f"{title} fails {len(failed)} of {end.collected} controls in process, under wsgiref.validate"
            return Control(tuple(failed), text, "app-error")
        if not end.finished:
            return Control((), f"control: {end.describe()}", "setup-error")
        if problem := nothing_ran(cases):
            return Control((), f"control: {problem}", "setup-error")
        return Control()

    def _run_tests(self, cell: Cell, attempts: Attempts) -> None:
        """Run the tests until each has a record, with the server started again where it is gone."""
        for _ in range(MAX_RESTARTS + 1):
            one_at_a_time = attempts.suspect is not None
            with self.transport.start(cell) as started:
                attempts.provenance = started.provenance
                end = self._run_once(cell, started, attempts, ONE_AT_A_TIME if one_at_a_time else ())
                died = started.dead()
                log = _tail(started)
            attempts.warnings += started.warnings
            if self.stop:
                raise Interrupted
            if end.finished or end.cut:
                if len(attempts.done) == attempts.collected:
                    self._conclude(attempts, died, log)
                    return
            if not end.cut:
                attempts.verdicts.append("setup-error")
                attempts.explanation = end.describe() + (f"\n{died}; the last lines of its log:\n{log}" if died else "")
                return
            if died:
                attempts.explanation = f"{died}; the last lines of its log:\n{log}"
        left = attempts.collected - len(attempts.done)
        attempts.verdicts.append("crash")
        attempts.explanation = (
            f"{left} cases were not run: the server was started {MAX_RESTARTS + 1} times\n{attempts.explanation}"
        )

    def _played_again(self, cell: Cell, attempts: Attempts) -> list[Case]:
        """Play what failed once more, alone, and say of what then passes that it is unstable."""
        cases = list(attempts.done.values())
        failed = frozenset((case.kind, case.id) for case in cases if case.verdict == "fail")
        if not failed or len(failed) > MAX_PLAYED_AGAIN:
            return cases
        self.on_phase(cell, "again", len(failed))
        again: list[Case] = []
        try:
            with self.transport.start(cell) as started:
                self.suite.run(
                    cell,
                    self.kinds_of(cell),
                    again.append,
                    url=started.url,
                    launch=started.launch,
                    selection=Selection(failed),
                    options=[*self.options, *ONE_AT_A_TIME],
                    stop=self.stop,
                )
        except (SetupError, StartError):
            return cases
        attempts.warnings += started.warnings
        passed = {(case.kind, case.id) for case in again if case.verdict == "pass"}
        return [
            replace(case, explanation=f"{UNSTABLE}: {case.explanation}") if (case.kind, case.id) in passed else case
            for case in cases
        ]

    def _run_once(self, cell: Cell, started: Started, attempts: Attempts, options: Sequence[str]) -> SuiteEnd:
        """Run the tests that have no record yet."""

        def keep(case: Case) -> None:
            name: CaseName = (case.kind, case.id)
            if case.verdict == "crash" and attempts.suspect is None:
                # Many cases were on their way when the server went: play the rest one by one to see which it was.
                attempts.suspect = case
                return
            attempts.done[name] = case
            self.on_case(cell, case)

        end = self.suite.run(
            cell,
            self.kinds_of(cell),
            keep,
            url=started.url,
            log=started.log,
            launch=started.launch,
            selection=self.selection.without(attempts.done),
            options=[*self.options, *options],
            again=again_command(cell, self.transport, self.suite),
            stop=self.stop,
            on_count=lambda count: self.on_phase(cell, "tests", count),
        )
        attempts.collected = attempts.collected or end.collected
        return end

    def _conclude(self, attempts: Attempts, died: str | None, log: str) -> None:
        """Let no crash be forgotten that nobody could be blamed for."""
        if problem := nothing_ran(attempts.done.values()):
            attempts.verdicts.append("setup-error")
            attempts.explanation = problem
            return
        crashed = any(case.verdict == "crash" for case in attempts.done.values())
        suspect = attempts.suspect
        if suspect and not crashed:
            text = "it ended while several cases were played at once, and not when they were played one by one"
            case = replace(suspect, explanation=f"{text}\n{suspect.explanation}")
            attempts.done[case.kind, case.id] = case
        elif died and not crashed:
            attempts.verdicts.append("crash")
            attempts.explanation = f"{died}, after the last case; the last lines of its log:\n{log}"
        elif not crashed:
            attempts.explanation = ""


def nothing_ran(cases: Collection[Case]) -> str:
    """Say that none of these cases ran, and why; nothing when one did."""
    if any(case.verdict != "skip" for case in cases):
        return ""
    reasons = Counter(case.explanation for case in cases)
    return f"none of {len(cases)} cases ran" + "".join(f"\n{count} skipped: {text}" for text, count in reasons.items())


def _tail(started: Started) -> str:
    if started.log is None or not started.log.exists():
        return "(it is not known)"
    lines = started.log.read_text(encoding="utf-8", errors="backslashreplace").splitlines()[-LOG_LINES:]
    return "\n".join(lines) or "(nothing)"
