"""One compose project for all tests of the images."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.docker.compose import EngineError, Project, refuse_missing_engine
from tests.harness.frameworks import load_matrix

EXIT_NO_ENGINE = 3


def pytest_sessionstart(session: pytest.Session) -> None:
    """End the run, rather than skip or fail each test, where no container can run."""
    try:
        refuse_missing_engine()
    except EngineError as error:
        pytest.exit(f"tests/docker cannot run: {error}", returncode=EXIT_NO_ENGINE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line for each combination whether it passed, or which tests failed."""
    python = os.environ.get("PYTHON_VERSION", "3.13")
    for name, framework in load_matrix().frameworks.items():
        verdicts = {
            key: [report.nodeid.partition("::")[2] for report in reports if report.nodeid.endswith(f"[{name}]")]
            for key in ("passed", "failed", "error")
            for reports in [terminalreporter.getreports(key)]
        }
        failed = verdicts["failed"] + verdicts["error"]
        if failed or verdicts["passed"]:
            verdict = f"FAILED: {', '.join(failed)}" if failed else "passed"
            terminalreporter.line(f"{name}-{framework.version}/py{python}: {verdict}")


@pytest.fixture(scope="session")
def project() -> Iterator[Project]:
    """All four apps, built from this tree and healthy."""
    project = Project(tuple(load_matrix().frameworks))
    try:
        project.checked("--profile", "conformance", "build", "--quiet")
        project.checked("up", "--detach", "--wait", "--no-build", "--pull", "never", *project.services)
        yield project
    finally:
        project.remove()
