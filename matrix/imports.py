"""Which files of the tree Python code imports, read from its source: nothing is run, and nothing is listed by hand."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

PATHS = (".", "server")
"""The folders of the tree from which modules are imported, as `matrix.suite` sets them."""


def imported_files(starts: Iterable[str], root: Path) -> set[str]:
    """Return files of a tree and all that they import, directly or not, as far as it lies in the tree.

    What is imported for the checker of types alone is left out.

    Args:
        starts: paths of Python files, relative to the root.
        root: the folder of the tree.
    """
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in found or not (root / path).is_file():
            continue
        found.add(path)
        package = tuple(Path(path).parent.parts)
        for name, names in _imports((root / path).read_bytes(), package):
            waiting += _files_of(name, names, root)
    return found


def _files_of(module: str, names: tuple[str, ...], root: Path) -> Iterator[str]:
    """Return the files that `from module import names` can be about, packages around them included."""
    parts = module.split(".")
    modules = [parts[: count + 1] for count in range(len(parts))] + [[*parts, name] for name in names]
    for folder in PATHS:
        for each in modules:
            path = Path(folder, *each)
            candidates = (path.with_suffix(".py"), path / "__init__.py")
            yield from (candidate.as_posix() for candidate in candidates if (root / candidate).is_file())


@functools.cache  # by the text: the same text always has the same imports
def _imports(source: bytes, package: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each module that source imports, with the names that it takes from it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()  # it is an input itself, and cannot import anything
    return tuple(_walk(tree, package))


def _walk(node: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, ()) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        outer = package[: len(package) - node.level + 1] if node.level else ()
        yield ".".join([*outer, *([node.module] if node.module else [])]), tuple(alias.name for alias in node.names)
    inner = node.orelse if isinstance(node, ast.If) and _is_for_types(node.test) else ast.iter_child_nodes(node)
    for child in inner:
        yield from _walk(child, package)


def _is_for_types(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
