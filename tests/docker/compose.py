"""One compose project of a test's own: unique name, free ports, gone at the end whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.frameworks import ROOT

COMMAND_SECONDS = 600.0
"""Seconds for one command: the first build downloads packages."""


class EngineError(Exception):
    """No Docker engine with Compose answers."""


def run(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the repository, whatever its exit status."""
    return subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )


def refuse_missing_engine() -> None:
    """Find out whether containers can be run at all.

    Raises:
        EngineError: they cannot.
    """
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            answer = run(command)
        except FileNotFoundError as error:
            raise EngineError("there is no docker command; install Docker with Compose v2") from error
        if answer.returncode:
            raise EngineError(f"`{' '.join(command)}` fails, so no engine runs: {answer.stderr.strip()}")


@dataclass
class Project:
    """A compose project; its services listen on free ports of 127.0.0.1."""

    services: tuple[str, ...]
    name: str = field(default_factory=lambda: f"wizgy-test-{uuid.uuid4().hex[:8]}")
    override: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` for this project."""
        files = ["--file", "docker-compose.yml"]
        if self.override is not None:
            files += ["--file", str(self.override)]
        # The images are shared between projects: only containers and networks are this project's own.
        environment = {**{f"{service.upper()}_PORT": "0" for service in self.services}, **self.variables}
        return run(["docker", "compose", *files, "--project-name", self.name, *arguments], environment)

    def checked(self, *arguments: str) -> str:
        """Run `docker compose`, which must succeed; return what it printed."""
        answer = self.compose(*arguments)
        assert answer.returncode == 0, f"docker compose {' '.join(arguments)}:\n{answer.stdout}{answer.stderr}"
        return answer.stdout

    def url(self, service: str) -> str:
        """Return where a service is published."""
        return f"http://{self.checked('port', service, '8888').strip()}"

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        container = self.checked("ps", "--all", "--quiet", service).strip()
        found: list[dict[str, Any]] = json.loads(run(["docker", "inspect", container]).stdout)
        return found[0]

    def remove(self) -> None:
        """Remove its containers, networks and images."""
        self.compose("--profile", "conformance", "down", "--volumes", "--rmi", "all", "--timeout", "5")
