"""Run many cells: several at the same time, each result kept as soon as it is there.

A run can be stopped at any time. What has ended is kept under `.matrix/cells` by its fingerprint, so that the same
command goes on where it was stopped, and a later run uses again what did not change. Only what came out as expected is
used again: whoever runs a failure once more wants to see whether it still is one.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from matrix import children
from matrix.cells import Cell
from matrix.environments import CACHE, SetupError
from matrix.fingerprints import fingerprint, process_is_current
from matrix.interpreters import InterpreterMissing
from matrix.manifest import MatrixError
from matrix.records import decode
from matrix.results import (
    FORMAT,
    UNEXPECTED,
    Case,
    End,
    Record,
    ResultsWriter,
    Run,
    Tool,
    Verdict,
    exit_status,
    format_record,
    format_time,
    this_host,
)
from matrix.results import Cell as CellRecord
from matrix.runner import CellResult, CellRunner, Interrupted
from matrix.stop import EXIT_INTERRUPTED, stopping
from matrix.suite import EVERYTHING
from matrix.transports import tree_version
from matrix.trees import tree_commit, tree_is_modified

if TYPE_CHECKING:
    from matrix.progress import Progress

STOP_SECONDS = 3.0
"""Seconds that cells are given to end once their processes are killed: they remove what they have made."""

LOOK_SECONDS = 0.2
"""Seconds between two looks whether the run was stopped."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Args:
        cells: which cells, in which order.
        command: the command line that does it again.
        tier: the tier that was named.
        output: where the results go.
        jobs: how many cells run at the same time.
        fresh: whether to run again what did not change.
        cache: the folder of results that can be used again.
    """

    cells: Sequence[Cell]
    command: str
    tier: str | None
    output: Path
    jobs: int
    fresh: bool = False
    cache: Path = CACHE / "cells"


class ManyCells:
    """A run in progress."""

    def __init__(self, plan: Plan, runner: CellRunner, progress: Progress) -> None:
        self._plan = plan
        self._runner = runner
        self._progress = progress
        self._results: list[CellResult] = []

    def run(self) -> int:
        """Run every cell and return the exit status."""
        began = datetime.now(timezone.utc)
        plan = self._plan
        plan.output.unlink(missing_ok=True)
        with stopping(self._runner.stop, say=False), ResultsWriter(plan.output) as writer, self._progress:
            writer.write(self._head(began))
            self._work(writer)
            stopped = bool(self._runner.stop)
            verdicts = [verdict for result in self._results for verdict in _verdicts(result)]
            status = EXIT_INTERRUPTED if stopped else exit_status(verdicts)
            ended = datetime.now(timezone.utc)
            seconds = round((ended - began).total_seconds(), 2)
            writer.write(End(finished=format_time(ended), seconds=seconds, status=status, interrupted=stopped))
        self._progress.summarise(self._results, seconds, plan.output, stopped=stopped)
        return status

    def _work(self, writer: ResultsWriter) -> None:
        """Run the cells in threads until all have ended, or the run is stopped.

        The threads are daemons: one that cannot be stopped, since it waits for another run, keeps nobody.
        """
        waiting, outcomes = SimpleQueue[Cell](), SimpleQueue[BaseException | None]()
        for cell in self._plan.cells:
            waiting.put(cell)

        threads = min(self._plan.jobs, len(self._plan.cells))
        for place in range(threads):
            threading.Thread(
                target=self._run_waiting, args=(waiting, outcomes, writer), name=f"cells-{place}", daemon=True
            ).start()
        self._wait_for(outcomes, threads)

    def _run_waiting(
        self, waiting: SimpleQueue[Cell], outcomes: SimpleQueue[BaseException | None], writer: ResultsWriter
    ) -> None:
        """Run cells until none waits."""
        try:
            with suppress(Empty):
                while True:
                    self._run_one(waiting.get_nowait(), writer)
            outcomes.put(None)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._runner.stop.set()
            outcomes.put(error)

    def _wait_for(self, outcomes: SimpleQueue[BaseException | None], threads: int) -> None:
        """Wait for the outcomes of threads; an error in one is raised when it comes."""
        deadline = math.inf
        while threads and time.monotonic() < deadline:
            # With a bound, so that signals reach the main thread.
            with suppress(Empty):
                error = outcomes.get(timeout=LOOK_SECONDS)
                threads -= 1
                if error:
                    raise error
            if self._runner.stop:
                if deadline == math.inf:
                    deadline = time.monotonic() + STOP_SECONDS
                    self._progress.stopping()
                # Again and again, since a thread may be about to start one more process.
                children.end_all()

    def _head(self, began: datetime) -> Run:
        plan = self._plan
        return Run(
            format=FORMAT,
            run=f"{began:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}",
            started=format_time(began),
            tool=Tool(version=tree_version() or "0", commit=tree_commit(), modified=tree_is_modified()),
            host=this_host(),
            command=plan.command,
            tier=plan.tier,
            cells=tuple(cell.id for cell in plan.cells),
        )

    def _run_one(self, cell: Cell, writer: ResultsWriter) -> None:
        if self._runner.stop:
            return
        self._progress.cell_started(cell)
        mark = self._fingerprint(cell)
        result = None if self._plan.fresh else self._kept(mark)
        if result is None:
            try:
                result = self._runner.run(cell, mark)
            except Interrupted:
                self._progress.cell_stopped(cell)
                return
            if mark != self._fingerprint(cell):
                # What it was run with changed meanwhile: nobody knows with which of both.
                mark, result = None, replace(result, cell=replace(result.cell, fingerprint=None))
            self._keep(mark, result)
        for record in _records(result):
            writer.write(record)
        self._results.append(result)
        self._progress.cell_ended(cell, result)

    def _fingerprint(self, cell: Cell) -> str | None:
        """Return the fingerprint of a cell, None where the cell cannot run anyway, or runs in part."""
        runner = self._runner
        if runner.selection != EVERYTHING or not process_is_current():
            return None
        kinds = runner.kinds_of(cell)
        try:
            return fingerprint(runner.matrix, cell, kinds, runner.transport, runner.suite, runner.options)
        except (InterpreterMissing, MatrixError, SetupError):
            return None

    def _kept(self, mark: str | None) -> CellResult | None:
        """Return the result of an earlier run for a fingerprint, None where there is none."""
        path = self._plan.cache / f"{mark}.jsonl"
        if mark is None or not path.exists():
            return None
        try:
            run, *lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
            kinds = [line.pop("record") for line in lines]
            cases = tuple(decode(Case, line, "case") for line, kind in zip(lines, kinds, strict=True) if kind == "case")
            [cell] = [
                decode(CellRecord, line, "cell") for line, kind in zip(lines, kinds, strict=True) if kind == "cell"
            ]
            return CellResult(replace(cell, reused_from=run["run"]), cases)
        except (ValueError, KeyError):
            return None  # not whole: a machine that lost its power wrote it

    def _keep(self, mark: str | None, result: CellResult) -> None:
        """Keep a result that came out as expected, for as long as its fingerprint stays the same."""
        if mark is None or result.cell.verdict in UNEXPECTED or result.cell.verdict == "skip":
            return
        self._plan.cache.mkdir(parents=True, exist_ok=True)
        path = self._plan.cache / f"{mark}.jsonl"
        part = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
        lines = [json.dumps({"run": self._plan.output.stem}) + "\n"]
        lines += [format_record(record) for record in _records(result)]
        part.write_text("".join(lines), encoding="ascii")
        part.replace(path)


def default_output(cache: Path = CACHE) -> Path:
    """Return where the results of a run go when nothing else is said."""
    return cache / "runs" / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"


def _records(result: CellResult) -> list[Record]:
    return [*result.cases, result.cell]


def _verdicts(result: CellResult) -> Iterator[Verdict]:
    yield result.cell.verdict
    yield from (case.verdict for case in result.cases)
