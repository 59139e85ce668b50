"""`docker compose run --rm conformance NAME`: what its exit status and its words say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.compose import Compose, Service
from tests.docker.conftest import FRAMEWORKS

BREAK_REDIRECT = '''"""The app, but /redirect leads nowhere."""

from main import application as whole


def application(environ, start_response):
    if environ["PATH_INFO"] == "/redirect":
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    return whole(environ, start_response)
'''

OVERRIDE = """
services:
  wsgi:
    command: ["broken:application"]
    volumes: ["{module}:/srv/compat_apps/wsgi/broken.py:ro"]
"""


@pytest.fixture
def broken(compose: Compose, tmp_path: Path) -> Iterator[Path]:
    """A compose file that breaks a route of the plain app; the whole app is back afterwards."""
    module = tmp_path / "broken.py"
    module.write_text(BREAK_REDIRECT, encoding="utf-8")
    module.chmod(0o644)
    override = tmp_path / "override.yml"
    override.write_text(OVERRIDE.format(module=module), encoding="utf-8")
    yield override
    assert Service(compose, FRAMEWORKS["wsgi"]).up().returncode == 0


def test_broken_route_is_named(compose: Compose, broken: Path) -> None:
    """A route that is broken makes exit status 1, and a line names the test that failed."""
    result = compose("run", "--rm", "conformance", "wsgi", "-k", "redirect", override=broken)
    assert result.returncode == 1, result.stdout
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    assert failed, result.stdout
    assert all("redirect" in line for line in failed)
    assert "conformance: WSGI at http://wsgi:8888: FAILED" in result.stdout


def test_unknown_framework_is_refused(compose: Compose) -> None:
    """A name that no framework has makes exit status 2, and the message lists the choices."""
    result = compose("run", "--rm", "--no-deps", "conformance", "flsk")
    assert result.returncode == 2, result.stdout
    assert f"no framework is called 'flsk'; choose one of: {', '.join(FRAMEWORKS)}" in result.stdout


def test_missing_framework_is_refused(compose: Compose) -> None:
    """No name at all makes exit status 2 too."""
    result = compose("run", "--rm", "--no-deps", "conformance")
    assert result.returncode == 2, result.stdout
    assert "no framework was named" in result.stdout
