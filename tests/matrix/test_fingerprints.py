"""What a result depends on: every file that has a part in it is an input, whichever way it comes in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matrix import fingerprints
from matrix.cells import all_cells, find_cell
from matrix.fingerprints import affected_cells, control_fingerprint, fingerprint, imported_code, inputs_of
from matrix.imports import imported_files
from matrix.manifest import ROOT, SUITES, load_matrix
from matrix.suite import Suite
from matrix.transports import VenvTransport

MATRIX = load_matrix()
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CELL = find_cell(MATRIX, f"wizgy/wsgi/{PYTHON}")

LOADED = """
import json, sys
import {module}
print(json.dumps([getattr(module, "__file__", None) for module in list(sys.modules.values())]))
"""

OPENED = """
import json, sys
opened = []
def hear(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and "w" not in str(arguments[1]):
        opened.append(arguments[0])
sys.addaudithook(hear)
import pytest
status = pytest.main(sys.argv[1:])
print()
print(json.dumps([int(status), opened]))
"""


def ask(code: str, *arguments: str, directory: Path) -> list[object]:
    """Run code in a Python of its own, in which nothing is compiled yet; return the JSON of its last line."""
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "server")]),
        "PYTHONPYCACHEPREFIX": str(directory / "none"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-c", code, *arguments]
    answer = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    found: list[object] = json.loads(answer.stdout.splitlines()[-1])
    return found


def in_tree(paths: list[object]) -> set[str]:
    """Return those paths that are files of the tree, relative to it."""
    files = {(ROOT / str(path)).resolve() for path in paths if path}
    own = {path.relative_to(ROOT) for path in files if path.is_relative_to(ROOT) and path.is_file()}
    return {path.as_posix() for path in own if not path.parts[0].startswith(".")}


@pytest.mark.parametrize("module", ["matrix.runner", "matrix.run"])
def test_every_module_of_the_harness_affects_every_cell(module: str, tmp_path: Path) -> None:
    """Each module of the tree that really is loaded with the runner is an input of every cell."""
    loaded = in_tree(ask(LOADED.format(module=module), directory=tmp_path))
    cells = all_cells(MATRIX)

    assert {"matrix/transports.py", "matrix/results.py", "matrix/__init__.py"} <= loaded
    assert {path: affected_cells(MATRIX, MATRIX, cells, [path], image=False) == cells for path in loaded} == (
        dict.fromkeys(loaded, True)
    )


@pytest.mark.parametrize("framework", MATRIX.frameworks)
def test_every_file_that_tests_open_is_an_input(framework: str, tmp_path: Path) -> None:
    """Each file of the tree that pytest opens to collect the tests of a cell is an input of it."""
    cell = find_cell(MATRIX, f"wizgy/{framework}")
    words = [*Suite().command[3:], "--collect-only", "-p", "matrix.recorder"]
    tests = [f"tests/{kind}" for kind in ("control", *SUITES)]
    record = str(tmp_path / "record")
    [status, opened] = ask(
        OPENED, *words, *tests, "--framework", cell.version.id, "--record", record, directory=tmp_path
    )
    assert status == 0
    assert isinstance(opened, list)
    inputs = inputs_of(MATRIX, cell, SUITES, imported_code(SUITES), image=False)

    files = in_tree(opened)
    assert {"matrix/recorder.py", "tests/harness/known.py", "tests/conformance/cases/rfc9112-6-framing.toml"} <= files
    # Of matrix.toml only what it says of the cell is an input.
    assert {path for path in files if path not in inputs} == {"matrix.toml"}


def test_imports_are_followed(tmp_path: Path) -> None:
    """Each way to import counts, with the packages around; what is for the checker of types alone does not."""
    files = {
        "start.py": (
            "from typing import TYPE_CHECKING\nimport plain, os\nfrom package import inner, name\n"
            "import dotted.deep.leaf\nif TYPE_CHECKING:\n    import types_only\nelse:\n    import otherwise\n"
            "def function():\n    import late\ntry:\n    import tried\nexcept ImportError:\n    pass\n"
        ),
        "package/__init__.py": "from . import sibling\n",
        "package/inner.py": "from .other import thing\nfrom ..outside import nothing\n",
        "package/sibling.py": "",
        "package/other.py": "",
        "package/unused.py": "",
        "dotted/__init__.py": "",
        "dotted/deep/__init__.py": "from .. import cousin\n",
        "dotted/deep/leaf.py": "import start\n",
        "dotted/cousin.py": "def broken(:\n",
        "server/below.py": "",
        **dict.fromkeys(("plain.py", "types_only.py", "otherwise.py", "late.py", "tried.py"), "import below\n"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert imported_files(["start.py"], tmp_path) == set(files) - {"package/unused.py", "types_only.py"}


def mark(**options: object) -> str:
    """Return the fingerprint of a cell with these options of the suite."""
    return fingerprint(MATRIX, CELL, ("contract",), VenvTransport(MATRIX), Suite(**options))  # type: ignore[arg-type]


def test_limit_and_options_are_inputs() -> None:
    """A result of another limit for a case, or of other options of pytest, is another result."""
    assert mark() == mark()
    assert mark() != mark(limit=1.0)
    with_bytes = fingerprint(MATRIX, CELL, ("contract",), VenvTransport(MATRIX), Suite(), ("--record-passes",))
    assert mark() != with_bytes


def test_python_that_runs_the_tests_is_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that another Python, or other packages, found out is another result."""
    before = mark()
    monkeypatch.setattr(fingerprints, "distributions", lambda: ())
    other_packages = mark()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version", "4.0.0 (another build)")

    assert len({before, other_packages, mark()}) == 3


def test_requirement_that_can_change_is_never_used_again() -> None:
    """What a branch or a folder of `--with` holds can change; a version that is named cannot."""
    suite, kinds = Suite(), ("contract",)
    for extra, same in ((["flask==3.1.0"], True), (["flask"], False), (["flask @ git+https://x.test/y"], False)):
        marks = {fingerprint(MATRIX, CELL, kinds, VenvTransport(MATRIX, extra=extra), suite) for _ in range(2)}  # type: ignore[arg-type]
        assert (len(marks) == 1) == same


def test_a_control_is_that_of_every_server() -> None:
    """The control depends on the app and its tests, and not on the server."""
    marks = {
        control_fingerprint(MATRIX, find_cell(MATRIX, f"{server.name}/flask"), ROOT)
        for server in MATRIX.servers_for("matrix")
    }
    assert len(marks) == 1
    assert control_fingerprint(MATRIX, find_cell(MATRIX, "wizgy/django"), ROOT) not in marks


def test_images_depend_on_the_health_check_of_wizgy() -> None:
    """Every image has wizgy for its health check, so its code is an input of all that run as containers."""
    cells = all_cells(MATRIX)
    assert affected_cells(MATRIX, MATRIX, cells, ["server/wizgy/healthcheck.py"], image=True) == cells
