"""Grids of versions and servers as text, for a terminal and for a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matrix.cells import Cell
from matrix.manifest import Matrix

GAP = 2

NOTHING = "-"


def draw_grid(rows: Sequence[str], columns: Sequence[str], entry: Callable[[str, str], str], width: int) -> list[str]:
    """Return a grid as lines: what does not fit beside each other comes below, under its own heads.

    Args:
        rows: the names of the rows.
        columns: the names of the columns.
        entry: what stands in a row and a column; nothing for a dash.
        width: how many characters a line may have.
    """
    first = max(map(len, rows), default=0)
    texts = {column: [entry(row, column) or NOTHING for row in rows] for column in columns}
    widths = {column: max(map(len, [column, *texts[column]])) for column in columns}
    lines: list[str] = []
    for block in _blocks(columns, widths, width - first):
        lines += [""] if lines else []
        for name, place in [("", None), *((row, place) for place, row in enumerate(rows))]:
            cells = (column if place is None else texts[column][place] for column in block)
            padded = (" " * GAP + cell.ljust(widths[column]) for column, cell in zip(block, cells, strict=True))
            lines.append((name.ljust(first) + "".join(padded)).rstrip())
    return lines


def _blocks(columns: Sequence[str], widths: dict[str, int], room: int) -> Iterator[list[str]]:
    block: list[str] = []
    left = room
    for column in columns:
        needed = GAP + widths[column]
        if block and needed > left:
            yield block
            block, left = [], room
        block.append(column)
        left -= needed
    if block:
        yield block


def describe_cells(matrix: Matrix, cells: Sequence[Cell], width: int) -> list[str]:
    """Return what there is, and what there is not: a count, a grid with the Pythons of each pair, and the gaps."""
    servers = list(dict.fromkeys(cell.server for cell in cells))
    versions = {cell.version.id: cell.version for cell in cells}
    pythons = [python for python in matrix.pythons if any(cell.python == python for cell in cells)]
    has: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        has.setdefault((cell.version.id, cell.server), []).append(cell.python)
    frameworks = {version.framework for version in versions.values()}
    counted = [
        f"{len(servers)} servers",
        f"{len(versions)} versions of {len(frameworks)} frameworks",
        f"{len(pythons)} Pythons",
    ]
    lines = [f"{len(cells)} cells: {', '.join(counted)}", ""]
    lines += draw_grid(
        list(versions), servers, lambda version, server: span(has.get((version, server), ()), pythons), width
    )
    gaps = {name: [each for each in pythons if each not in version.pythons] for name, version in versions.items()}
    gaps |= {name: [each for each in pythons if each not in matrix.servers[name].pythons] for name in servers}
    missing: dict[str, list[str]] = {}
    for name, absent in gaps.items():
        if absent:
            missing.setdefault(", ".join(absent), []).append(name)
    if missing:
        lines += ["", "not supported, so there are no cells for:"]
        lines += [f"  Python {absent}: {', '.join(names)}" for absent, names in missing.items()]
    return lines


def span(some: Sequence[str], order: Sequence[str]) -> str:
    """Return names of an order in short: `3.10-3.13`, `3.10, 3.12`."""
    places = [order.index(each) for each in some]
    if len(places) > 1 and places == list(range(places[0], places[-1] + 1)):
        return f"{some[0]}-{some[-1]}"
    return ", ".join(some)
