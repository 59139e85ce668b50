"""What each module of the server may know of, and that the guide to them names what exists."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT

PACKAGE = ROOT / "server" / "wizgy"
MODULES = sorted(PACKAGE.rglob("*.py"))
INPUT_OUTPUT = {"os", "select", "selectors", "socket", "threading", "time"}


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted name of every import in a module, inside of functions too."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} has a relative import"
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def first_names(path: Path) -> set[str]:
    """The top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imported(path)}


def name_of(path: Path) -> str:
    """The path of a module inside of the package, for ids."""
    return path.relative_to(PACKAGE).as_posix()


def test_there_are_modules() -> None:
    """The layering tests look at the whole server."""
    assert {"errors.py", "wsgi.py", "engine.py", "http/request.py"} <= set(map(name_of, MODULES))


@pytest.mark.parametrize("path", [*sorted((PACKAGE / "http").glob("*.py")), PACKAGE / "proxy.py"], ids=name_of)
def test_protocols_are_pure(path: Path) -> None:
    """The modules of the protocols take bytes and return values: they know no socket, thread, clock, system or WSGI."""
    assert not first_names(path) & INPUT_OUTPUT
    ours = {name for name in imported(path) if name.startswith("wizgy")}
    assert {name for name in ours if not name.startswith(("wizgy.errors", "wizgy.http"))} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_standard_library_only(path: Path) -> None:
    """The server has no dependencies."""
    assert first_names(path) <= sys.stdlib_module_names | {"wizgy"}


def test_wsgi_knows_no_sockets() -> None:
    """PEP 3333 is implemented on a channel, not on a socket."""
    assert not first_names(PACKAGE / "wsgi.py") & {"socket", "select", "selectors"}


def test_errors_stand_alone() -> None:
    """The exceptions can be imported from everywhere, since they import nothing of wizgy."""
    assert first_names(PACKAGE / "errors.py") <= {"__future__"}


@pytest.mark.parametrize("name", ["supervisor", "child", "generation", "link", "signals", "cgroup", "systemd"])
def test_supervisor_has_no_threads(name: str) -> None:
    """A process that forks runs no threads."""
    assert not first_names(PACKAGE / f"{name}.py") & {"threading", "_thread", "concurrent"}


def test_supervisor_loads_no_application() -> None:
    """What imports an application is called in workers alone."""
    for name in "supervisor", "child", "generation", "link", "signals", "cgroup", "systemd":
        assert not {"wizgy.loader", "importlib", "runpy"} & set(imported(PACKAGE / f"{name}.py"))


def test_wsgi_writes_no_line_ends() -> None:
    """Line ends of the protocol are written in http/response alone, where all is checked."""
    for node in ast.walk(ast.parse((PACKAGE / "wsgi.py").read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            value = node.value.encode() if isinstance(node.value, str) else node.value
            assert b"\r" not in value, f"line {node.lineno}"


def names_in(text: str) -> set[str]:
    """The dotted names of wizgy that a document has in backticks."""
    return set(re.findall(r"`(wizgy(?:\.\w+)+)(?:\(\))?`", text))


def resolve(dotted: str) -> object:
    """Import a dotted name: as much of it as is a module, then attributes."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(dotted)


def test_architecture_names_resolve() -> None:
    """Every name of the server in ARCHITECTURE.md exists."""
    names = names_in((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert names, "ARCHITECTURE.md names nothing of wizgy in backticks"
    unknown = []
    for name in sorted(names):
        try:
            resolve(name)
        except (ImportError, AttributeError):
            unknown.append(name)
    assert unknown == []


def test_unknown_names_do_not_resolve() -> None:
    """The test of ARCHITECTURE.md can fail."""
    assert names_in("`wizgy.engine.Engine`, `wizgy.engine.Nothing()`, wizgy.cli") == {
        "wizgy.engine.Engine",
        "wizgy.engine.Nothing",
    }
    with pytest.raises(AttributeError):
        resolve("wizgy.engine.Nothing")
    with pytest.raises(AttributeError):
        resolve("wizgy.nothing")
