"""One compose project for all tests of the images."""

from __future__ import annotations

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
