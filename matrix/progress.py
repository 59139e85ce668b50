"""What a run says while it goes on: a line for each cell that ends, and on a terminal what runs now.

On a terminal `rich` draws the cells that run; without it, and in a log, lines are all there is.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from matrix.cells import Cell
from matrix.results import UNEXPECTED, VERDICT_MEANINGS, VERDICTS, Case, Verdict
from matrix.runner import CellResult

MARKS: dict[Verdict, str] = {
    "crash": "CRASH",
    "setup-error": "SETUP ERROR",
    "app-error": "APP ERROR",
    "timeout": "TIMEOUT",
    "fail": "FAIL",
    "stale": "STALE",
    "known": "known",
    "pass": "pass",
    "skip": "skip",
}

MAX_SHOWN = 10
"""How many failing cases of a cell are shown; all are in the results."""

EXPLANATION_LINES = 12


class Progress:
    """Says what goes on. Its methods may be called by any thread.

    Args:
        total: how many cells there are.
        output: where to write.
    """

    def __init__(self, total: int, output: TextIO = sys.stdout) -> None:
        self._total = total
        self._output = output
        self._mutex = Lock()
        self._running: dict[str, tuple[float, int]] = {}
        self._ended = 0
        self._stopping = False
        self._live = _live_display(self, output)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def cell_started(self, cell: Cell) -> None:
        """A cell begins."""
        with self._mutex:
            self._running[cell.id] = (time.monotonic(), 0)

    def case_ended(self, cell: Cell, case: Case) -> None:
        """A case of a cell has ended."""
        with self._mutex:
            began, count = self._running.get(cell.id, (time.monotonic(), 0))
            self._running[cell.id] = (began, count + 1)

    def cell_stopped(self, cell: Cell) -> None:
        """A cell was stopped before it ended."""
        with self._mutex:
            self._running.pop(cell.id, None)

    def cell_ended(self, cell: Cell, result: CellResult) -> None:
        """A cell has ended: say what came of it, and what failed."""
        with self._mutex:
            self._running.pop(cell.id, None)
            self._ended += 1
            place = self._ended
        # Without the lock: rich takes one of its own to print, and holds that while it draws, which takes this one.
        lines = [f"[{place:>{len(str(self._total))}}/{self._total}] {describe_cell(result)}"]
        lines += [f"    {line}" for line in describe_failures(result)]
        self._write("\n".join(lines))

    def stopping(self) -> None:
        """The run was told to stop."""
        self._stopping = True
        self._write("stopping: tests, servers and installations are ended; once more to end at once")

    def summarise(self, results: Sequence[CellResult], seconds: float, output: Path, *, stopped: bool) -> None:
        """Say at the end how many cells came out how, and where the results are."""
        counts = Counter(result.cell.verdict for result in results)
        listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        reused = sum(result.cell.reused_from is not None for result in results)
        again = f", {reused} of them used again, as nothing had changed" if reused else ""
        self._write(f"\n{len(results)} of {self._total} cells in {format_seconds(seconds)}: {listed or 'none'}{again}")
        skipped = Counter(result.cell.explanation for result in results if result.cell.verdict == "skip")
        for explanation, count in skipped.items():
            self._write(f"{count} not run: {explanation}")
        if stopped:
            self._write("stopped; the same command goes on from here")
        shown = output.relative_to(Path.cwd()) if output.is_relative_to(Path.cwd()) else output
        self._write(f"results: {shown}\nas a page: python -m matrix report {shlex.quote(str(shown))}")

    def running(self) -> list[str]:
        """Return a line for each cell that runs."""
        with self._mutex:
            now = time.monotonic()
            return [
                f"{cell}  {count} cases, {format_seconds(now - began)}"
                for cell, (began, count) in self._running.items()
            ]

    def state(self) -> str:
        """Return how far the run is."""
        return f"{self._ended} of {self._total} cells"

    def _write(self, line: str) -> None:
        if self._live:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            # In one piece: another thread may write too.
            self._output.write(f"{line}\n")
            self._output.flush()


def describe_verdict(verdict: Verdict) -> str:
    """Return a verdict with what it means."""
    return f"{MARKS[verdict]} ({VERDICT_MEANINGS[verdict]})"


def describe_cell(result: CellResult) -> str:
    """Return one line about a cell that has ended."""
    cell = result.cell
    counts = Counter(case.verdict for case in result.cases)
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in reversed(VERDICTS) if counts[verdict])
    what = "used again" if cell.reused_from else format_seconds(cell.seconds)
    return f"{MARKS[cell.verdict]:<11} {cell.cell:<36} {listed or 'no case run'} ({what})"


def describe_failures(result: CellResult) -> list[str]:
    """Return lines about what failed in a cell: each case, whose fault it seems to be, and how to see it again."""
    lines: list[str] = []
    if result.cell.explanation and result.cell.verdict in UNEXPECTED:
        first, *others = result.cell.explanation.splitlines()
        lines += [first, *others[-EXPLANATION_LINES:]]
    lines += [f"warning: {line}" for warning in result.cell.warnings for line in warning.splitlines()]
    failed = [case for case in result.cases if case.verdict in UNEXPECTED]
    for case in failed[:MAX_SHOWN]:
        blame = f" [{case.blame.on}]" if case.blame else ""
        lines.append(f"{case.verdict}: {case.id}{blame}: {case.rule}")
        if case.expected:
            lines.append(f"  expected {', or '.join(case.expected)}")
        if case.explanation:
            lines.append(f"  {'got' if case.expected else 'because'} {_first_line(case.explanation)}")
        lines.append(f"  again: {case.reproduce}")
    if len(failed) > MAX_SHOWN:
        lines.append(f"and {len(failed) - MAX_SHOWN} more, which the results have")
    return lines


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def format_seconds(seconds: float) -> str:
    """Return a time as a person says it: `4.2 s`, `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _live_display(progress: Progress, output: TextIO) -> Any:
    """Return a display of the running cells, None where there is no terminal to draw on."""
    if not output.isatty():
        return None
    try:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        return None

    class Running:
        def __rich__(self) -> Any:
            lines = [Text(f"  {line}", style="dim", no_wrap=True) for line in progress.running()]
            return Group(*lines, Text(f"  {progress.state()}", style="bold"))

    return Live(Running(), console=Console(file=output), refresh_per_second=4, transient=True)
