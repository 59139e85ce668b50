"""What the result of a cell depends on: as long as none of it changes, the result may be used again.

The same list says which cells a change of files affects.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from matrix.cells import Cell
from matrix.manifest import ROOT, Matrix
from matrix.results import Kind
from matrix.transports import Transport
from matrix.trees import tracked_files

TESTS = (
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/harness/*",
    "tests/control/*",
    "requirements/tests.txt",
    "pyproject.toml",
    *(
        f"matrix/{name}.py"
        for name in ("containers", "environments", "processes", "recorder", "runner", "suite", "tap")
    ),
)
"""What every cell is run with; patterns in which `*` stands for slashes too."""

IMAGES = (
    "docker/Dockerfile",
    "docker/install.sh",
    "docker/docker-bake.hcl",
    "docker-compose.yml",
    ".dockerignore",
    "requirements/build.txt",
)
"""What every image is made with, beside what is in it."""


def input_patterns(matrix: Matrix, cell: Cell, kinds: Iterable[Kind], *, image: bool) -> list[str]:
    """Return patterns of the files of the tree that the result of a cell depends on."""
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
    return patterns


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
    matrix: Matrix, cell: Cell, kinds: Sequence[Kind], transport: Transport, options: Sequence[str] = ()
) -> str:
    """Return a hash of all that the result of a cell depends on, options of pytest included."""
    patterns = input_patterns(matrix, cell, kinds, image=transport.name == "image")
    parts = [transport.text, *kinds, *options, *transport.parts(cell), *manifest_parts(matrix, cell)]
    files = (path for path in _tree() if any(fnmatchcase(path, pattern) for pattern in patterns))
    parts += [f"{path} {_digest(ROOT / path)}" for path in files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


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
    for cell in cells:
        kinds = matrix.server(cell.server).suites
        patterns = input_patterns(matrix, cell, kinds, image=image)
        touched = any(fnmatchcase(path, pattern) for path in changed for pattern in patterns)
        if touched or before is None or manifest_parts(before, cell) != manifest_parts(matrix, cell):
            found.append(cell)
    return found


@functools.lru_cache
def _tree() -> tuple[str, ...]:
    return tuple(tracked_files())


@functools.cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"
