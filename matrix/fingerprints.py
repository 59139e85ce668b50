"""What the result of a cell depends on: as long as none of it changes, the result may be used again.

The same inputs say which cells a change of files affects. Code is found by following imports. Everything is read anew
each time, since files are edited while a run goes on: a run asks before a cell and after it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import distributions
from pathlib import Path

from matrix.cells import Cell
from matrix.environments import ASK_PACKAGES, run_step
from matrix.imports import imported_files
from matrix.manifest import MATRIX_FILE, ROOT, Matrix, load_matrix
from matrix.results import Kind
from matrix.suite import Suite
from matrix.transports import Transport
from matrix.trees import tracked_files

HARNESS = "matrix/run.py"
"""What runs a cell and keeps its result: this and all that it imports."""

CONFTEST = "tests/conftest.py"

TESTS = ("tests/control/*", "requirements/tests.txt", "pyproject.toml")
"""What every cell is run with beside code that is imported; patterns in which `*` stands for slashes too."""

IMAGES = (
    "docker/Dockerfile",
    "docker/install.sh",
    "docker/docker-bake.hcl",
    "docker-compose.yml",
    ".dockerignore",
    "requirements/build.txt",
    "server/*",  # for its health check wizgy is in the images of the other servers too
)
"""What every image is made with, beside what is in it."""


@dataclass(frozen=True)
class Inputs:
    """The files that a result depends on: some by their paths, the others by patterns."""

    files: frozenset[str]
    patterns: tuple[str, ...]

    def __contains__(self, path: str) -> bool:
        return path in self.files or any(fnmatchcase(path, pattern) for pattern in self.patterns)


def imported_code(kinds: Iterable[Kind], root: Path = ROOT) -> frozenset[str]:
    """Return the code that runs cells, and the tests of some kinds with all that they import."""
    folders = [root / "tests" / kind for kind in ("control", *kinds)]
    tests = [path.relative_to(root).as_posix() for folder in folders for path in folder.rglob("*.py")]
    return frozenset(imported_files([HARNESS, CONFTEST, *tests], root))


def inputs_of(matrix: Matrix, cell: Cell, kinds: Sequence[Kind], code: frozenset[str], *, image: bool) -> Inputs:
    """Return the files of the tree that the result of a cell depends on.

    Args:
        matrix: what `matrix.toml` says.
        cell: the cell.
        kinds: which tests it is run with.
        code: what `imported_code` returns for these.
        image: whether it runs as a container.
    """
    patterns = [
        *TESTS,
        *(f"tests/{kind}/*" for kind in kinds),
        f"compat_apps/{cell.version.framework}/*",
        "compat_apps/assets/*",
        f"docker/locks/{cell.version.id}.txt",
    ]
    if image:
        patterns += IMAGES
    if cell.server in matrix.servers:
        server = matrix.server(cell.server)
        patterns.append(f"requirements/servers/{server.family}.txt")
        if server.path:
            patterns.append(f"{server.path.relative_to(ROOT).as_posix()}/*")
        if any("{launchers}" in word for word in server.command):
            patterns.append("matrix/launchers/*")
    return Inputs(code, tuple(patterns))


def manifest_parts(matrix: Matrix, cell: Cell) -> list[str]:
    """Return what `matrix.toml` says of a cell: its server, its framework, its version and what is known to differ."""
    framework = matrix.frameworks.get(cell.version.framework)
    own = (framework.title, framework.greeting, framework.application, framework.directory) if framework else ()
    versions = {version.id: version for version in framework.versions} if framework else {}
    return [
        repr(matrix.servers.get(cell.server)),
        repr(own),
        repr(versions.get(cell.version.id)),
        *(repr(known) for known in matrix.known_for(cell.server, cell.version, cell.python)),
    ]


def fingerprint(
    matrix: Matrix, cell: Cell, kinds: Sequence[Kind], transport: Transport, suite: Suite, options: Sequence[str] = ()
) -> str:
    """Return a hash of all that the result of a cell depends on now.

    Args:
        matrix: what `matrix.toml` said when this process read it.
        cell: the cell.
        kinds: which tests it is run with.
        transport: how its server is started.
        suite: what runs the tests: its Python, the packages of that, and its limit for a case.
        options: more options of pytest.

    Raises:
        MatrixError: `matrix.toml` can no longer be read.
        InterpreterMissing, SetupError: something that the cell needs is not there.
    """
    root = suite.root
    inputs = inputs_of(matrix, cell, kinds, imported_code(kinds, root), image=transport.name == "image")
    # The tests read `matrix.toml` anew.
    now = manifest_parts(load_matrix(root / MATRIX_FILE.name), cell)
    parts = [transport.text, *kinds, *options, f"limit {suite.limit:g}", *_packages(suite.python)]
    parts += [*transport.parts(cell), *manifest_parts(matrix, cell), *now]
    return _hash([*parts, *_digests(inputs, root)])


def control_fingerprint(matrix: Matrix, cell: Cell, root: Path) -> str:
    """Return a hash of all files that the control of a cell depends on now; it is the same with every server."""
    without_server = Cell("", cell.version, cell.python)
    inputs = inputs_of(matrix, without_server, ("control",), imported_code((), root), image=True)
    return _hash([_digest(root / MATRIX_FILE.name), *_digests(inputs, root)])


def process_is_current() -> bool:
    """Say whether this process still runs the code that lies in the tree: what it finds out may be kept then."""
    return _harness() == _HARNESS


def affected_cells(
    matrix: Matrix,
    before: Matrix | None,
    cells: Iterable[Cell],
    changed: Sequence[str],
    *,
    image: bool,
) -> list[Cell]:
    """Return the cells that a change can make a difference to.

    Args:
        matrix: what `matrix.toml` says now.
        before: what it said before; None when it could not be read then.
        cells: which cells to look at.
        changed: the files that changed.
        image: whether they run as containers.
    """
    found = []
    code = {kinds: imported_code(kinds) for kinds in {server.suites for server in matrix.servers.values()}}
    for cell in cells:
        kinds = matrix.server(cell.server).suites
        inputs = inputs_of(matrix, cell, kinds, code[kinds], image=image)
        touched = any(path in inputs for path in changed)
        if touched or before is None or manifest_parts(before, cell) != manifest_parts(matrix, cell):
            found.append(cell)
    return found


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _digests(inputs: Inputs, root: Path) -> list[str]:
    paths = inputs.files.union(path for path in tracked_files(root) if path in inputs)
    return [f"{path} {_digest(root / path)}" for path in sorted(paths)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"


def _packages(python: str) -> list[str]:
    """Return the build of a Python, and the distributions that it has."""
    if python == sys.executable:
        return [sys.version, *sorted(f"{each.metadata['Name']}=={each.version}" for each in distributions())]
    return run_step([python, "-c", f"import sys; print(sys.version); {ASK_PACKAGES}"]).splitlines()


def _harness() -> list[str]:
    return [f"{path} {_digest(ROOT / path)}" for path in sorted(imported_files([HARNESS], ROOT))]


_HARNESS = _harness()
"""The code of this process, as it was when it was imported."""
