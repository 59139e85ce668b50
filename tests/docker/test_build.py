"""What the Dockerfile refuses to build."""

from __future__ import annotations

import subprocess

from tests.docker.compose import BASE_IMAGE
from tests.docker.conftest import FRAMEWORKS
from tests.harness.frameworks import ROOT


def test_version_without_lock_is_refused() -> None:
    """A framework's version that has no lock stops the build, and the message lists those that do."""
    result = subprocess.run(
        [
            *("docker", "build", "--progress=plain", "--file=docker/Dockerfile"),
            *(f"--build-arg=BASE_IMAGE={BASE_IMAGE}", "--build-arg=FRAMEWORK=flask"),
            *("--build-arg=FRAMEWORK_VERSION=0.1", "."),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert result.returncode != 0
    assert "no lock for FRAMEWORK=flask FRAMEWORK_VERSION=0.1; there are:" in result.stdout
    for framework in FRAMEWORKS.values():
        assert f"FRAMEWORK={framework.name} FRAMEWORK_VERSION={framework.version}" in result.stdout
