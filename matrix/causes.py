"""What failed in a run, grouped by why: one line says what a hundred cases have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matrix.results import UNEXPECTED, VERDICTS, Case, Verdict
from matrix.runner import UNSTABLE, CellResult

MAX_CAUSES = 12
"""How many causes are shown; the report has all."""

MAX_CELLS = 3

PASSING = re.compile(
    r"0x[0-9a-fA-F]+|(?<=127\.0\.0\.1:)\d+|(?<=port[ =])\d+|/tmp/\S+"
    r"|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT|\d+(\.\d+)? s\b"
)
"""What differs each time, and is no part of a cause: addresses, ports, temporary files, dates, durations."""

MAX_CHARACTERS = 200


@dataclass
class Cause:
    """Why cases failed: what they have in common, where, and the command that shows one of them."""

    verdict: Verdict
    text: str
    blame: str
    again: str
    example: str
    cases: int = 0
    cells: dict[str, None] = field(default_factory=dict)


def find_causes(results: Sequence[CellResult]) -> list[Cause]:
    """Return why what failed did so, the worst first, and then what most cells have."""
    causes: dict[tuple[str, ...], Cause] = {}
    for result in results:
        failed = [case for case in result.cases if case.verdict in UNEXPECTED]
        for cause in map(_of_case, failed):
            _add(causes, cause, result.cell.cell, 1)
        if result.cell.verdict in UNEXPECTED and not failed:
            text = _first_line(result.cell.explanation)
            _add(causes, Cause(result.cell.verdict, text, "", result.cell.reproduce, ""), result.cell.cell, 0)
    return sorted(causes.values(), key=lambda cause: (VERDICTS.index(cause.verdict), -len(cause.cells), -cause.cases))


def describe_causes(causes: Sequence[Cause]) -> Iterator[str]:
    """Return lines about causes: what, how often, where, and how to see one of them."""
    for cause in causes[:MAX_CAUSES]:
        count = f"{cause.cases} case{'s' * (cause.cases != 1)} in " if cause.cases else ""
        cells = f"{len(cause.cells)} cell{'s' * (len(cause.cells) != 1)}"
        blame = f", {cause.blame}" if cause.blame else ""
        yield f"  {cause.verdict}: {cause.text}"
        yield f"    {count}{cells}{blame}: {_some(list(cause.cells))}"
        if cause.example:
            yield f"    {cause.example}"
        yield f"    again: {cause.again}"
    if len(causes) > MAX_CAUSES:
        yield f"  and {len(causes) - MAX_CAUSES} more causes, which the page has"


def _of_case(case: Case) -> Cause:
    blame = case.blame.on if case.blame and case.blame.on != "app" else ""
    rule = f"{case.id}: {case.rule}" if case.rule else case.id
    if case.expected:
        # The bytes of a rule's own case: what was wrong is the rule.
        return Cause(case.verdict, rule.replace(":split: ", ": ", 1), blame, case.reproduce, f"got {case.got}")
    text = _first_line(case.explanation.removeprefix(f"{UNSTABLE}: ").removeprefix(f"{case.verdict}: ")) or rule
    return Cause(case.verdict, text, blame, case.reproduce, "" if text == rule else f"for example {rule}")


def _add(causes: dict[tuple[str, ...], Cause], cause: Cause, cell: str, cases: int) -> None:
    found = causes.setdefault((cause.verdict, cause.blame, PASSING.sub("…", cause.text)), cause)
    found.cases += cases
    found.cells[cell] = None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_CELLS} more" if len(names) > MAX_CELLS else ""
    return ", ".join(names[:MAX_CELLS]) + more


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]}…"
