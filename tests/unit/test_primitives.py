"""What an application may replace or hide is not looked up by the server when it is there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from wizgy.standard import LATE

PACKAGE = ROOT / "server" / "wizgy"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("primitives.py", "standard.py")]
REPLACED = {
    "threading": {"Thread", "Lock", "RLock", "Event", "Condition", "Semaphore", "Timer", "get_ident"},
    "_thread": {"allocate_lock", "start_new_thread", "get_ident"},
    "select": {"select", "poll", "epoll", "kqueue"},
    "selectors": {"DefaultSelector", "EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector"},
    "os": {"read", "write", "fork", "waitpid"},
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep", "localtime", "strftime"},
}
EXCEPTED = {
    ("supervisor.py", "os.waitpid"): "the supervisor loads no application",
}
"""What may be looked up all the same, and why."""
BEFORE_IT_LOADS: dict[str, str] = {
    "cli.py": "runs in the supervisor, or before the application is loaded",
    "config.py": "settings are read in the supervisor",
    "sources.py": "settings are read in the supervisor",
    "generation.py": "certificates are read in the supervisor",
    "addresses.py": "sockets are made in the supervisor",
    "healthcheck.py": "is a process of its own",
}
"""Modules that import inside of functions where no application is."""
ALWAYS_IMPORTED = {"importlib.util": "the package is imported before, and finds its modules itself"}


def find_lookups(source: str) -> Iterator[str]:
    """Yield each place where something that may be replaced is looked up."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in REPLACED.get(node.value.id, ()):
                yield f"line {node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield f"line {node.lineno}: from time import"


def find_late_imports(source: str) -> Iterator[str]:
    """Yield the modules that functions import."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from (name.name for name in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_nothing_is_looked_up(path: Path) -> None:
    """Threads, locks, the clock, selectors and what reads and writes come from `wizgy.primitives`, or by name."""
    found = [one for one in find_lookups(path.read_text("utf-8")) if (path.name, one.split()[-1]) not in EXCEPTED]
    assert found == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.name not in BEFORE_IT_LOADS], ids=lambda p: p.name)
def test_late_imports(path: Path) -> None:
    """Where the application may be, functions import modules of wizgy that `wizgy.standard` knows, and no others."""
    known = {f"wizgy.{name}" for name in LATE} | ALWAYS_IMPORTED.keys()
    assert set(find_late_imports(path.read_text("utf-8"))) <= known


def test_rules_can_fail() -> None:
    """The rules find what they forbid."""
    source = "import os\nfrom time import sleep\ndef f():\n    import json\n    os.write(1, b'')\n"
    assert list(find_lookups(source)) == ["line 2: from time import", "line 5: os.write"]
    assert list(find_late_imports(source)) == ["json"]


def test_exceptions_exist() -> None:
    """Each module that is excepted is there."""
    assert {path.name for path in MODULES} >= BEFORE_IT_LOADS.keys()
    assert {"importlib"} <= sys.modules.keys()
