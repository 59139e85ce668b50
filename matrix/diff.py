"""What changed from one run of the matrix to another: regressed, fixed, changed, new and gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias, get_args

from matrix.results import EXIT_FAILED, EXIT_OK, UNEXPECTED, Results, Verdict

Change: TypeAlias = Literal["regressed", "fixed", "changed", "new", "gone"]
CHANGES: tuple[Change, ...] = get_args(Change)

CHANGE_MEANINGS: dict[Change, str] = {
    "regressed": "was as expected before, and is not now",
    "fixed": "was not as expected before, and is now",
    "changed": "has another verdict, neither better nor worse",
    "new": "has a verdict now, and had none before",
    "gone": "had a verdict before, and has none now",
}

MAX_LISTED = 20
"""How many cases of one cell are listed under `new` and `gone`; of more, only the count is."""


@dataclass(frozen=True)
class Difference:
    """One case, or one cell as a whole, whose verdict is not what it was.

    Args:
        change: in which way.
        cell: the id of the cell.
        kind: `control`, `contract` or `conformance`; `cell` for the cell as a whole.
        id: the id of the case; empty for the cell as a whole.
        before: the verdict in the earlier run; None when it had none.
        after: the verdict in the later run; None when it has none.
    """

    change: Change
    cell: str
    kind: str
    id: str
    before: Verdict | None
    after: Verdict | None


def classify(before: Verdict | None, after: Verdict | None) -> Change | None:
    """Return what became of a verdict; None when nothing did. What was skipped has no verdict."""
    before = None if before == "skip" else before
    after = None if after == "skip" else after
    if before == after:
        return None
    if before is None or after is None:
        return "new" if before is None else "gone"
    if (before in UNEXPECTED) == (after in UNEXPECTED):
        return "changed"
    return "regressed" if after in UNEXPECTED else "fixed"


def compare(before: Results, after: Results) -> list[Difference]:
    """Return all differences between two runs: by change, then by cell and case.

    The verdict of a cell is compared like that of a case: a cell that does not even start any more has no cases, and
    they are not merely gone.
    """
    earlier, later = _verdicts(before), _verdicts(after)
    found = [
        Difference(change, *key, before=earlier.get(key), after=later.get(key))
        for key in sorted({*earlier, *later})
        if (change := classify(earlier.get(key), later.get(key)))
    ]
    return sorted(found, key=lambda difference: CHANGES.index(difference.change))


def _verdicts(results: Results) -> dict[tuple[str, str, str], Verdict]:
    """Return the verdict of every case by cell, kind and id, and those of cells as kind `cell`."""
    cells: dict[tuple[str, str, str], Verdict] = {(cell.cell, "cell", ""): cell.verdict for cell in results.cells}
    return cells | {case.key: case.verdict for case in results.cases}


def lost_cells(differences: Iterable[Difference]) -> list[str]:
    """Return the cells that had a verdict before and have none now: nobody knows whether they regressed."""
    return [each.cell for each in differences if each.kind == "cell" and each.change == "gone"]


def exit_status(differences: Sequence[Difference], *, allow_missing: bool = False) -> int:
    """Return 1 when something regressed or a cell is lost, 0 otherwise.

    Args:
        differences: what changed.
        allow_missing: whether cells may be lost.
    """
    regressed = any(difference.change == "regressed" for difference in differences)
    return EXIT_FAILED if regressed or (lost_cells(differences) and not allow_missing) else EXIT_OK


def format_differences(before: Results, after: Results, differences: list[Difference]) -> str:
    """Describe the differences as text for a terminal."""
    counts = Counter((difference.change, difference.kind == "cell") for difference in differences)
    lines = [
        f"before: run {before.run.run} of {before.run.started}",
        f"after:  run {after.run.run} of {after.run.started}",
        "",
        f"{'':<9}  {'cells':>6}  {'cases':>6}",
        *(f"{change:<9}  {counts[change, True]:>6}  {counts[change, False]:>6}" for change in CHANGES),
    ]
    for change, group in groupby(differences, key=lambda difference: difference.change):
        lines += ["", f"{change} ({CHANGE_MEANINGS[change]}):"]
        for cell, of_cell in groupby(group, key=lambda difference: difference.cell):
            lines += _describe_cell(change, cell, list(of_cell))
    return "\n".join(lines) + "\n"


def _describe_cell(change: Change, cell: str, differences: list[Difference]) -> Iterator[str]:
    whole = [difference for difference in differences if difference.kind == "cell"]
    cases = [difference for difference in differences if difference.kind != "cell"]
    yield f"  {cell}" + "".join(f"  {_describe_change(difference)}" for difference in whole)
    if change in ("new", "gone") and len(cases) > MAX_LISTED:
        yield f"    {len(cases)} cases"
        return
    width = max((len(difference.id) for difference in cases), default=0)
    for difference in cases:
        yield f"    {difference.kind:<11}  {difference.id:<{width}}  {_describe_change(difference)}"


def _describe_change(difference: Difference) -> str:
    return f"{difference.before or 'none'} -> {difference.after or 'none'}"
