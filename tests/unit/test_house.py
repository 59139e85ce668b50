"""The files that repeat what matrix.toml says: each must agree with it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

import wizgy
from tests.harness.frameworks import ROOT, load_matrix

FRAMEWORKS = load_matrix().frameworks
LOCKS = {f"docker/locks/{framework.default.id}.txt" for framework in FRAMEWORKS.values()}


def compose_service(name: str) -> dict[str, Any]:
    """Return one service of docker-compose.yml, as it is written."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    service: dict[str, Any] = document["services"][name]
    return service


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_compose_has_service(name: str) -> None:
    """Each framework is a service that is built with the version of matrix.toml and published on its port."""
    version = FRAMEWORKS[name].version
    service = compose_service(name)

    assert service["ports"] == [f"127.0.0.1:${{{name.upper()}_PORT:-{FRAMEWORKS[name].port}}}:8888"]
    assert service["build"]["args"]["FRAMEWORK"] == name
    assert service["build"]["args"]["FRAMEWORK_VERSION"] == f"${{{name.upper()}_VERSION:-{version}}}"
    assert f"${{{name.upper()}_VERSION:-{version}}}-py" in service["image"]
    assert name in compose_service("conformance")["depends_on"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_image_finds_app(name: str) -> None:
    """The application and its folder have the names that the Dockerfile makes out of the framework's."""
    framework = FRAMEWORKS[name]

    assert framework.application == f"{name}app:app"
    assert framework.directory == ROOT / "compat_apps" / name


def test_tox_uses_todays_locks() -> None:
    """tox.ini names the lock of each framework's version, and no other."""
    named = re.findall(r"-r (docker/locks/\S+)", (ROOT / "tox.ini").read_text(encoding="utf-8"))

    assert set(named) == LOCKS


def test_build_backend_is_the_locked_one() -> None:
    """The image builds the wheel with the version of the backend that pyproject.toml asks for."""
    [pin] = (ROOT / "requirements" / "build.in").read_text(encoding="utf-8").split()

    assert f'requires = ["{pin}"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_images_carry_the_version() -> None:
    """The OCI label of the version is wizgy's."""
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")

    assert f'org.opencontainers.image.version="{wizgy.__version__}"' in dockerfile


def test_locks_name_no_index() -> None:
    """A lock holds names, versions and hashes; where packages come from is the reader's own choice."""
    for lock in [*(ROOT / "requirements").glob("*.txt"), *(ROOT / "docker" / "locks").glob("*.txt")]:
        assert "://" not in lock.read_text(encoding="utf-8"), lock
