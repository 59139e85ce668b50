"""What a run says while it goes on, and at its end: a grid, and what failed, by cause.

On a terminal `rich` draws the cells that run, below the lines of those that have ended. In a pipe or a log, on a
terminal that cannot move its cursor, and without `rich`, there are lines alone.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from matrix.causes import describe_causes, find_causes
from matrix.cells import Cell
from matrix.grid import draw_grid
from matrix.results import UNEXPECTED, VERDICT_MEANINGS, VERDICTS, Case, Verdict, worst
from matrix.runner import CellResult, Phase

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

STYLES = {"bold red": ("CRASH", "SETUP ERROR", "APP ERROR", "TIMEOUT", "FAIL", "STALE"), "green": ("pass",)}

MAX_SHOWN = 3
"""How many failing cases of a cell are shown when it ends; all are in the results, and at the end by cause."""

LOG_WIDTH = 120
"""How wide a grid may be where no terminal has a width."""

EXPLANATION_LINES = 12


@dataclass
class _Running:
    """A cell that runs: what it does now, since when, and how many of its cases have ended and failed."""

    began: float
    phase: Phase = "environment"
    phase_began: float = 0.0
    total: int = 0
    ended: int = 0
    failed: int = 0

    def left(self, now: float) -> float | None:
        """Return the seconds that its tests will still take, None where nothing tells."""
        if self.phase != "tests" or not self.ended or not self.total:
            return None
        return (now - self.phase_began) / self.ended * max(self.total - self.ended, 0)

    def describe(self, now: float) -> str:
        """Return what it does, in columns."""
        cases = f"{self.ended} of {self.total}" if self.total else ""
        failed = f"{self.failed} failed" if self.failed else ""
        left = self.left(now)
        ahead = f", {format_estimate(left)} left" if left is not None else ""
        return f"{self.phase:<11}  {cases:<12}  {failed:<10}  {format_seconds(now - self.began)}{ahead}"


class Progress:
    """Says what goes on. Its methods may be called by any thread.

    Args:
        total: how many cells there are.
        output: where to write.
        jobs: how many cells run at the same time.
    """

    def __init__(self, total: int, output: TextIO = sys.stdout, jobs: int = 1) -> None:
        self._total = total
        self._output = output
        self._jobs = jobs
        self._mutex = Lock()
        self._began = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._took: list[float] = []
        self._ended = 0
        self._failed = 0
        self._stopping = False
        self._live = _live_display(self, output)

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
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
            self._running[cell.id] = _Running(time.monotonic())

    def phase_began(self, cell: Cell, phase: Phase, total: int = 0) -> None:
        """A cell does something else now: with so many cases, 0 when that is not known yet."""
        with self._mutex:
            if running := self._running.get(cell.id):
                if running.phase != phase:
                    running.phase, running.phase_began = phase, time.monotonic()
                running.total = running.total or total

    def case_ended(self, cell: Cell, case: Case) -> None:
        """A case of a cell has ended."""
        with self._mutex:
            if running := self._running.get(cell.id):
                running.ended += 1
                running.failed += case.verdict in UNEXPECTED

    def cell_stopped(self, cell: Cell) -> None:
        """A cell was stopped before it ended."""
        with self._mutex:
            self._running.pop(cell.id, None)

    def cell_ended(self, cell: Cell, result: CellResult) -> None:
        """A cell has ended: say what came of it, and what failed."""
        with self._mutex:
            running = self._running.pop(cell.id, None)
            self._ended += 1
            self._failed += result.cell.verdict in UNEXPECTED
            if running and not result.cell.reused_from:
                self._took.append(time.monotonic() - running.began)
            place = self._ended
        # Without the lock: rich takes one of its own to print, and holds that while it draws, which takes this one.
        lines = [f"[{place:>{len(str(self._total))}}/{self._total}] {describe_cell(result)}"]
        lines += [f"    {line}" for line in describe_failures(result)]
        self._write(lines)

    def stopping(self) -> None:
        """The run was told to stop."""
        self._stopping = True
        self._write(["stopping: tests, servers and installations are ended; once more to end at once"])

    def summarise(self, results: Sequence[CellResult], seconds: float, output: Path, *, stopped: bool) -> None:
        """Say at the end which cells came out how, what failed and why, and where the results are."""
        counts = Counter(result.cell.verdict for result in results)
        listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        reused = sum(result.cell.reused_from is not None for result in results)
        again = f", {reused} of them used again, as nothing had changed" if reused else ""
        lines = draw_results(results, self._width()) if len(results) > 1 else []
        if causes := find_causes(results):
            lines += ["", "what failed, by cause:", *describe_causes(causes)]
        lines += ["", f"{len(results)} of {self._total} cells in {format_seconds(seconds)}: {listed or 'none'}{again}"]
        skipped = Counter(result.cell.explanation for result in results if result.cell.verdict == "skip")
        lines += [f"{count} not run: {explanation}" for explanation, count in skipped.items()]
        if stopped:
            lines.append("stopped; the same command goes on from here")
        shown = output.relative_to(Path.cwd()) if output.is_relative_to(Path.cwd()) else output
        page = f"as a page: python -m matrix report {shlex.quote(str(shown))}"
        self._write([*lines, f"results: {shown}", page])

    def running(self) -> list[str]:
        """Return a line for each cell that runs, and one for all of them."""
        with self._mutex:
            now = time.monotonic()
            wide = max(map(len, self._running), default=0)
            lines = [f"{name:<{wide}}  {running.describe(now)}" for name, running in self._running.items()]
            return [*lines, self._describe(now)]

    def _describe(self, now: float) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        left = self._left(now)
        ahead = f", {format_estimate(left)} left" if left is not None else ""
        stopping = "; stopping" if self._stopping else ""
        elapsed = format_seconds(now - self._began)
        return f"{self._ended} of {self._total} cells{failed}  {elapsed}{ahead}{stopping}"

    def _left(self, now: float) -> float | None:
        """Return the seconds that the run will still take, None as long as no cell tells how long one takes."""
        left = [running.left(now) for running in self._running.values()]
        whole = [
            now - running.began + seconds
            for running, seconds in zip(self._running.values(), left, strict=True)
            if seconds is not None
        ]
        if not (took := self._took + whole):
            return None
        average = sum(took) / len(took)
        waiting = self._total - self._ended - len(self._running)
        begun = [
            max(average - (now - running.began), 0.0) if seconds is None else seconds
            for running, seconds in zip(self._running.values(), left, strict=True)
        ]
        return max([(waiting * average + sum(begun)) / max(min(self._jobs, self._total), 1), *begun])

    def _width(self) -> int:
        return self._live.console.width if self._live else LOG_WIDTH

    def _write(self, lines: Sequence[str]) -> None:
        """Write lines in one piece: another thread may write too."""
        text = "\n".join(lines)
        if self._live:
            # A long line is the terminal's to break, so that a command in it can be copied.
            self._live.console.print(_coloured(text), soft_wrap=True)
        else:
            self._output.write(f"{text}\n")
            self._output.flush()


def draw_results(results: Sequence[CellResult], width: int) -> list[str]:
    """Return a grid of versions and servers: the worst verdict of each pair, and of how many Pythons it is."""
    verdicts: dict[tuple[str, str], list[Verdict]] = {}
    servers: dict[str, None] = {}
    for result in results:
        server, version, _ = result.cell.cell.split("/")
        verdicts.setdefault((version, server), []).append(result.cell.verdict)
        servers[server] = None

    def entry(version: str, server: str) -> str:
        found = verdicts.get((version, server), [])
        if not found:
            return ""
        bad = worst(found)
        same = found.count(bad)
        return MARKS[bad] if same == len(found) else f"{MARKS[bad]} {same}/{len(found)}"

    versions = dict.fromkeys(version for version, _ in verdicts)
    lines = draw_grid(sorted(versions), sorted(servers), entry, width)
    if any("/" in line for line in lines):
        lines.append("FAIL 1/5: that came of 1 of 5 Pythons, the others are better")
    return ["", *lines]


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


def format_estimate(seconds: float) -> str:
    """Return a time that is not known well: `about 40 s`, `about 3 min`."""
    if seconds < 90:
        return f"about {max(round(seconds / 5) * 5, 5)} s"
    return f"about {round(seconds / 60)} min"


def _coloured(text: str) -> Any:
    """Return a text with its verdicts in colours; only where `rich` is there."""
    from rich.text import Text

    shown = Text(text)
    for style, marks in STYLES.items():
        shown.highlight_regex(rf"(?<![\w/-])({'|'.join(marks)})(?![\w/-])", style)
    return shown


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
    console = Console(file=output)
    if console.is_dumb_terminal:
        return None

    class Running:
        def __rich__(self) -> Any:
            *cells, all_of_them = progress.running()
            lines = [Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in cells]
            return Group(*lines, Text(f"  {all_of_them}", style="bold", no_wrap=True, overflow="ellipsis"))

    return Live(Running(), console=console, refresh_per_second=4, transient=True)
