"""The files that repeat what matrix.toml says: each must agree with it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

import wizgy
from matrix import generate
from tests.harness.frameworks import ROOT, load_matrix

FRAMEWORKS = load_matrix().frameworks
LOCKS = {f"docker/locks/{version.id}.txt" for each in FRAMEWORKS.values() for version in each.versions}
DEFAULT_LOCKS = {f"docker/locks/{framework.default.id}.txt" for framework in FRAMEWORKS.values()}


def compose_service(name: str) -> dict[str, Any]:
    """Return one service of docker-compose.yml, as it is written."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    service: dict[str, Any] = document["services"][name]
    return service


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_suite_waits_for_service(name: str) -> None:
    """The suite's own service waits for each framework's."""
    assert name in compose_service("conformance")["depends_on"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_image_finds_app(name: str) -> None:
    """The application and its folder have the names that the Dockerfile makes out of the framework's."""
    framework = FRAMEWORKS[name]

    assert framework.application == f"{name}app:app"
    assert framework.directory == ROOT / "compat_apps" / name


def test_tox_uses_todays_locks() -> None:
    """tox.ini names the lock of each framework's version, and outside of its made part those of the default ones."""
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    by_hand = text.partition(generate.BEGIN)[0] + text.partition(generate.END)[2]

    assert set(re.findall(r"-r (docker/locks/\S+)", text)) == LOCKS
    assert set(re.findall(r"-r (docker/locks/\S+)", by_hand)) <= DEFAULT_LOCKS


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
