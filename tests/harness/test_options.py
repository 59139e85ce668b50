"""The options and fixtures of `conftest.py`, as a run of pytest over a small tree of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT

MATRIX = """\
pythons = ["3.13"]

[frameworks.plain]
title = "Plain"
greeting = "hello"
application = "app:app"
directory = "."
port = 8000
default = "1"
versions = [{ version = "1", requirements = [], pythons = ["3.13"] }]

[frameworks.other]
title = "Other"
greeting = "hello"
application = "app:app"
directory = "."
port = 8001
default = "2"
versions = [{ version = "2", requirements = [], pythons = ["3.13"] }]

[servers.wizgy]
title = "wizgy"
url = "https://example.test/"
requirements = []
command = ["{python}"]
uses = ["matrix"]
"""

SERVER = """\
import os, signal, sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

def app(environ, start_response):
    print("asked for", environ["PATH_INFO"], file=sys.stderr, flush=True)
    start_response("200 OK", [("Content-Length", "0")])
    return []

if "CANNOT_START" in os.environ:
    sys.exit("cannot start: no such app")
exit_status = int(os.environ.get("EXIT_STATUS", "0"))
signal.signal(signal.SIGTERM, lambda *_: os._exit(exit_status))
server = make_server("127.0.0.1", 0, app)
print(f"wizgy: Serving HTTP on 127.0.0.1 port {server.server_port} ...", file=sys.stderr, flush=True)
server.serve_forever()
"""

TESTS = """\
import pytest

def test_passes(target):
    assert target.get("/passes").status_code == 200

def test_fails(target):
    assert target.get("/fails").status_code == 404

@pytest.mark.frameworks("other")
def test_other(framework):
    assert framework.version == "2"

@pytest.mark.parametrize("case", ["first-case"])
def test_case(case):
    raise AssertionError(case)

@pytest.fixture
def broken():
    raise RuntimeError("the fixture is broken")

def test_broken_fixture(broken):
    pass
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs pytest with arguments, known deviations and variables."""
    tests = tmp_path / "tests"
    shutil.copytree(ROOT / "tests" / "harness", tests / "harness")
    shutil.copytree(ROOT / "matrix", tmp_path / "matrix")
    for test_module in (tests / "harness").glob("test_*.py"):
        test_module.unlink()
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, tests)
    _write(tests / "conformance" / "__init__.py", "")
    _write(tests / "contract" / "test_sample.py", TESTS)
    _write(tmp_path / "server" / "wizgy" / "__init__.py", "")  # a package, so that it hides one that is installed
    _write(tmp_path / "server" / "wizgy" / "__main__.py", SERVER)

    def run(
        *arguments: str, known: tuple[str, ...] = (), variable: str = "UNUSED", value: str = "1"
    ) -> subprocess.CompletedProcess[str]:
        tables = "".join(
            f'[[known]]\nframeworks = ["plain"]\ntests = ["{test}"]\nreason = "why"\nlink = "where"\n' for test in known
        )
        _write(tmp_path / "matrix.toml", MATRIX + tables)
        monkeypatch.setenv(variable, value)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", "."]
        return subprocess.run(
            [*command, "--framework", "plain", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_header_names_the_target(run: Run) -> None:
    """The header of a run names the server and the app."""
    result = run("-k", "test_passes")

    assert result.returncode == 0, result.stdout
    assert "target: wizgy of this tree, on a free port of 127.0.0.1; Plain 1 (app:app)" in (result.stdout)


def test_unknown_framework(run: Run) -> None:
    """A framework that the matrix has not is a usage error that lists the choices."""
    result = run("--framework", "unknown")

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no framework is called 'unknown'; choose one of: plain, other" in result.stderr


def test_unusable_url(run: Run) -> None:
    """A URL that no target can have is one usage error, and no test runs."""
    result = run("--url", "ftp://127.0.0.1/")

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "expected http://HOST:PORT, got 'ftp://127.0.0.1/'" in result.stderr


def test_log_is_in_the_report(run: Run) -> None:
    """A failing test shows what the server logged during it, and nothing of other tests."""
    result = run("tests/contract/test_sample.py", "-k", "test_passes or test_fails")

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed" in result.stdout
    assert "asked for /fails" in result.stdout
    assert "asked for /passes" not in result.stdout


def test_server_that_cannot_start(run: Run) -> None:
    """A server that does not start ends the run with one message and its log."""
    result = run(variable="CANNOT_START")

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert result.stdout.count("cannot test Plain: the server ended with exit status 1") == 1
    assert "cannot start: no such app" in result.stdout


def test_server_that_stops_badly(run: Run) -> None:
    """A server that ends with another status than 0 after SIGTERM fails the run."""
    result = run("-k", "test_passes", variable="EXIT_STATUS", value="3")

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "the server ended with exit status 3 after SIGTERM" in result.stdout


def test_tests_of_other_frameworks_are_deselected(run: Run) -> None:
    """A test for other frameworks is deselected, never skipped."""
    result = run("-k", "test_other")
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "5 deselected" in result.stdout

    result = run("-k", "test_other", "--framework", "other")
    assert result.returncode == 0
    assert "1 passed" in result.stdout


def test_known_deviation_is_expected(run: Run) -> None:
    """A known deviation, named by test or by case id, must fail and then fails no run."""
    result = run("-k", "fails or case", known=("test_sample.py::test_fails", "first-case"))

    assert result.returncode == 0, result.stdout
    assert "2 xfailed" in result.stdout


def test_stale_deviation_fails(run: Run) -> None:
    """A known deviation that passes fails the run as stale."""
    result = run("-k", "test_passes", known=("test_sample.py::test_passes",))

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "stale: remove its [[known]] from matrix.toml" in result.stdout


def test_known_deviation_excuses_no_fixture(run: Run) -> None:
    """A fixture that breaks is an error, even for a test that must fail."""
    result = run("-k", "broken", known=("test_sample.py::test_broken_fixture",))

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 error" in result.stdout


@pytest.mark.parametrize("test", ["test_sample.py::test_gone", "test_gone.py::test_x", "no-case"])
def test_deviation_of_no_test_is_an_error(run: Run, test: str) -> None:
    """A known deviation that names no test is a usage error that names it."""
    result = run("tests/contract", "tests/conformance", known=(test,))

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"match no test: {test};" in result.stderr


@pytest.mark.parametrize("arguments", [["tests/contract/test_sample.py::test_passes"], ["-k", "s"]])
def test_narrow_run_minds_no_other_deviation(run: Run, arguments: list[str]) -> None:
    """A run of a part of the tests is not stopped by deviations of the rest."""
    result = run(*arguments, known=("test_sample.py::test_fails",))

    assert "match no test" not in result.stderr
    assert " passed" in result.stdout


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
