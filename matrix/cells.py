"""Cells: which there are, and which of them a run is about.

A cell is a server, a version of a framework and a Python, written `wizgy/flask-3.1/py3.13`. How it was started, as a
process, as a container or by somebody else, is no part of its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from matrix.manifest import Matrix, MatrixError, Server, Tier, Version


@dataclass(frozen=True)
class Cell:
    """One combination. The server of a cell at a URL may be one that `matrix.toml` does not have."""

    server: str
    version: Version
    python: str

    @property
    def id(self) -> str:
        """The id, `wizgy/flask-3.1/py3.13`."""
        return f"{self.server}/{self.version.id}/py{self.python}"

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True)
class Shard:
    """One of so many equal parts of a run, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/5`.

        Raises:
            MatrixError: it is not the number of a shard.
        """
        number, separator, of = text.partition("/")
        if not (separator and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise MatrixError(f"no shard is called {text!r}; write NUMBER/OF, as 1/4 to 4/4")
        return cls(int(number), int(of))

    def part_of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells of this shard: every `of`-th, so that slow neighbours are spread."""
        return list(cells[self.number - 1 :: self.of])


def all_cells(matrix: Matrix) -> list[Cell]:
    """Return every cell that `matrix.toml` makes: each server, with each version, on the Pythons of both."""
    return [
        Cell(server.name, version, python)
        for server in matrix.servers_for("matrix")
        for framework in matrix.frameworks.values()
        for version in framework.versions
        for python in matrix.pythons
        if python in version.pythons and python in server.pythons
    ]


def find_cell(matrix: Matrix, text: str) -> Cell:
    """Return the cell with an id. A version, and the Python, may be left out: `wizgy/flask` is the newest of both.

    Raises:
        MatrixError: there is no such cell; the message says which part is wrong, and what there is.
    """
    parts = text.split("/")
    if "*" in text:
        raise MatrixError(f"{text!r} is a pattern, and this wants one cell; python -m matrix list {text!r} names them")
    if len(parts) not in (2, 3):
        raise MatrixError(f"no cell is called {text!r}; write SERVER/FRAMEWORK-VERSION/pyPYTHON")
    server = matrix.server(parts[0])
    version = matrix.version(parts[1])
    pythons = [python for python in version.pythons if python in server.pythons]
    python = parts[2].removeprefix("py") if len(parts) == 3 else pythons[-1]
    if python not in pythons:
        there_are = ", ".join(pythons)
        raise MatrixError(f"{server.name} with {version.id} has no Python {python!r}; choose from: {there_are}")
    return Cell(server.name, version, python)


def in_tier(cell: Cell, tier: Tier) -> bool:
    """Say whether a tier has a cell."""
    if tier.end_of_life is not None and tier.end_of_life != (cell.version.end_of_life is not None):
        return False
    return any(fnmatchcase(cell.id, pattern) for pattern in tier.cells)


def choose_cells(
    matrix: Matrix,
    *,
    tier: str | None = None,
    servers: Iterable[str] = (),
    frameworks: Iterable[str] = (),
    pythons: Iterable[str] = (),
    patterns: Iterable[str] = (),
) -> list[Cell]:
    """Return the cells that satisfy every condition that is given.

    Args:
        matrix: what there is.
        tier: the name of a tier.
        servers: names of servers, or of distributions (`gunicorn`: each of its modes).
        frameworks: names of frameworks, or of versions (`flask-3.1`).
        pythons: Pythons, `3.13`.
        patterns: ids of cells, in which `*` stands for anything.

    Raises:
        MatrixError: a name is none of `matrix.toml`, a pattern has no cell, or no cell satisfies all of them.
    """
    cells = all_cells(matrix)
    for pattern in patterns:
        if not any(fnmatchcase(cell.id, pattern) for cell in cells):
            raise MatrixError(f"no cell is called {pattern!r}; `python -m matrix list` shows those that there are")
    wanted_servers = {server.name for name in servers for server in matrix.servers_named(name)}
    wanted_versions = {version.id for name in frameworks for version in matrix.versions_named(name)}
    wanted_pythons = {matrix.python(name) for name in pythons}
    found = [
        cell
        for cell in cells
        if (tier is None or in_tier(cell, matrix.tier(tier)))
        and (not wanted_servers or cell.server in wanted_servers)
        and (not wanted_versions or cell.version.id in wanted_versions)
        and (not wanted_pythons or cell.python in wanted_pythons)
        and (not (given := tuple(patterns)) or any(fnmatchcase(cell.id, pattern) for pattern in given))
    ]
    if not found:
        raise MatrixError("no cell is all of that; `python -m matrix list` shows those that there are")
    return found


def peers_of(matrix: Matrix, cell: Cell) -> list[Server]:
    """Return the other servers that a failing case of a cell can be run on: they tell whose fault it is."""
    return [
        server
        for server in matrix.servers_for("matrix")
        if server.name != cell.server and cell.python in server.pythons
    ]
