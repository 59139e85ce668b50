"""Containers: images that `docker/docker-bake.hcl` describes, and services of `docker-compose.yml` made of them.

Everything that a run starts has names and ports of its own, and the run's id as a label: runs at the same time do
not see each other, and what a killed run has left can be found.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix import children
from matrix.cells import Cell
from matrix.environments import SetupError, run_step
from matrix.manifest import ROOT
from matrix.processes import StartError, wait_answering
from matrix.results import Case
from matrix.stop import Stop
from matrix.suite import LAST_LINES, Session, SuiteEnd

BAKE_FILE = "docker/docker-bake.hcl"
COMPOSE_FILE = "docker-compose.yml"
LABEL = "wizgy.matrix"
PORT = 8888
"""The port that every image of this project serves on."""

REPOSITORY = "wizgy-matrix"

CONTAINER_UID = "10001:10001"

ROUNDS = 3
"""How often containers are looked for again: the engine may still make what a killed command has asked for."""


def bake_name(text: str) -> str:
    """Return a text as the name of a bake target may be."""
    return re.sub(r"[^a-zA-Z0-9_-]", "-", text.replace("/", "_"))


def cell_target(cell: Cell) -> str:
    """Return the bake target of a cell's image."""
    return bake_name(cell.id)


def cell_image(cell: Cell) -> str:
    """Return the name of a cell's image."""
    return f"{REPOSITORY}/{cell.server}:{cell.version.id}-py{cell.python}"


def control_target(cell: Cell) -> str:
    """Return the bake target of the image that runs the control of a cell's version."""
    return bake_name(f"control/{cell.version.id}/py{cell.python}")


def control_image(cell: Cell) -> str:
    """Return the name of the image that runs the control of a cell's version."""
    return f"{REPOSITORY}/control:{cell.version.id}-py{cell.python}"


@dataclass(frozen=True)
class Container:
    """A container that answers.

    `command` is what it runs, `leave` what a person types to remove it; `warnings` say what went wrong on removing it.
    """

    id: str
    image: str
    digest: str
    url: str
    log: Path
    command: tuple[str, ...]
    leave: str
    follower: subprocess.Popen[bytes]
    warnings: list[str]

    def ask(self, code: str) -> Any:
        """Run code in its Python, and return the JSON that it prints."""
        return json.loads(run_step(["docker", "exec", self.id, "python", "-I", "-c", code]))

    def dead(self) -> str | None:
        """Return why the container has ended, None while it runs."""
        form = "{{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}}"
        try:
            running, status, memory = run_step(["docker", "inspect", "--format", form, self.id]).split()
        except SetupError as error:
            return str(error)
        if running == "true":
            return None
        return f"the container has ended with exit status {status}" + (" (out of memory)" if memory == "true" else "")


@dataclass
class Engine:
    """The container engine, as one run uses it.

    `keep` leaves the containers that are served where they are. Once `stop` is set no container is ended in order:
    `clean_up` removes them all.
    """

    run: str = field(default_factory=children.this_run)
    keep: bool = False
    stop: Stop = field(default_factory=Stop)
    _builds: dict[str, threading.Lock] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def refuse_missing(self) -> None:
        """Find out whether containers can be made at all.

        Raises:
            SetupError: they cannot.
        """
        try:
            for command in ("docker info", "docker compose version", "docker buildx version"):
                run_step(command.split())
        except SetupError as error:
            raise SetupError(
                f"no container engine with compose and buildx answers ({error}); start Docker, or run the cells as "
                "processes (--transport venv)"
            ) from error

    def build(self, target: str, image: str) -> str:
        """Build a target of the bake file from the tree as it is; return the name of the image.

        Raises:
            SetupError: it cannot be built.
        """
        with self._mutex:
            lock = self._builds.setdefault(target, threading.Lock())
        with lock:
            run_step(["docker", "buildx", "bake", "--file", BAKE_FILE, "--load", "--progress", "plain", target])
        return image

    def digest(self, image: str) -> str:
        """Return the digest of an image that is there, or can be pulled.

        Raises:
            SetupError: it is not there and cannot be pulled.
        """
        form = ["--format", "{{.Id}}"]
        try:
            return run_step(["docker", "image", "inspect", *form, image]).strip()
        except SetupError:
            run_step(["docker", "pull", "--quiet", image])
            return run_step(["docker", "image", "inspect", *form, image]).strip()

    def base_digest(self, python: str) -> str:
        """Return the digest of the image that those of a Python are built on."""
        return self.digest(os.environ.get("BASE_IMAGE") or f"python:{python}-slim")

    @contextmanager
    def serve(self, cell: Cell, image: str) -> Iterator[Container]:
        """Start an image as its framework's service of docker-compose.yml, hardened as it is there.

        Raises:
            StartError: it did not become healthy.
        """
        service = cell.version.framework
        project = f"wizgy-matrix-{self.run}-{uuid.uuid4().hex[:8]}"
        warnings: list[str] = []
        labels = {LABEL: self.run}
        override = {
            "services": {service: {"image": image, "labels": labels}},
            "networks": {"default": {"labels": labels}},
        }
        with children.temporary_directory() as temporary:
            path = Path(temporary, "override.json")
            path.write_text(json.dumps(override), encoding="utf-8")
            compose = ["docker", "compose", "--file", COMPOSE_FILE, "--file", str(path), "--project-name", project]
            variables = {f"{service.upper()}_PORT": "0"}
            with contextlib.ExitStack() as leaving:
                if not self.keep:
                    down = [*compose, "down", "--volumes", "--timeout", "5"]
                    leaving.callback(self._remove, warnings, down, variables)
                container = self._up(compose, variables, service, image, Path(temporary), warnings)
                leaving.callback(children.end, container.follower)
                yield container

    def _up(
        self,
        compose: list[str],
        variables: dict[str, str],
        service: str,
        image: str,
        temporary: Path,
        warnings: list[str],
    ) -> Container:
        try:
            run_step(
                [*compose, "up", "--detach", "--wait", "--no-build", "--pull", "never", service], variables=variables
            )
        except SetupError as error:
            log = _output([*compose, "logs", "--no-color", "--tail", str(LAST_LINES), service], variables)
            raise StartError(f"the container did not become healthy\n{error}\nlog:\n{log}") from error
        container = run_step([*compose, "ps", "--quiet", service], variables=variables).strip()
        project = compose[compose.index("--project-name") + 1]
        leave = f"docker compose --project-name {project} down"
        return self._container(container, image, PORT, temporary, leave, warnings)

    @contextmanager
    def serve_given(self, image: str, port: int) -> Iterator[Container]:
        """Start an image that somebody else has built, and wait until it answers on `port`.

        Raises:
            SetupError: there is no such image.
            StartError: it ended, or does not answer.
        """
        warnings: list[str] = []
        publish = ["--publish", f"127.0.0.1::{port}"]
        container = run_step(["docker", "run", "--detach", "--label", f"{LABEL}={self.run}", *publish, image]).strip()
        with children.temporary_directory() as temporary, contextlib.ExitStack() as leaving:
            if not self.keep:
                leaving.callback(self._remove, warnings, ["docker", "rm", "--force", "--volumes", container])
            try:
                leave = f"docker rm --force {container[:12]}"
                started = self._container(container, image, port, Path(temporary), leave, warnings)
                leaving.callback(children.end, started.follower)
                wait_answering(started.url)
            except (StartError, SetupError) as error:
                log = _output(["docker", "logs", "--tail", str(LAST_LINES), container])
                raise StartError(f"{image} does not answer on port {port}\n{error}\nlog:\n{log}") from error
            yield started

    def _container(
        self, container: str, image: str, port: int, temporary: Path, leave: str, warnings: list[str]
    ) -> Container:
        [inspected] = json.loads(run_step(["docker", "inspect", container]))
        bindings = inspected["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        if not bindings:
            raise StartError(f"port {port} is not published: the container has ended")
        log = temporary / "server.log"
        return Container(
            id=container,
            image=image,
            digest=inspected["Image"],
            url=f"http://127.0.0.1:{bindings[0]['HostPort']}",
            log=log,
            follower=_follow_log(container, log),
            command=(*(inspected["Config"]["Entrypoint"] or ()), *(inspected["Config"]["Cmd"] or ())),
            leave=leave,
            warnings=warnings,
        )

    def run_control(self, cell: Cell, image: str, again: str, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd:
        """Run the control of a cell's version in a container."""
        name = f"wizgy-matrix-{self.run}-{uuid.uuid4().hex[:8]}"
        with children.temporary_directory() as temporary:
            records = Path(temporary, "records")
            records.touch()
            # The tests run as the user of the image, which is nobody on this machine.
            Path(temporary).chmod(0o755)
            records.chmod(0o666)
            command = [
                *("docker", "run", "--rm", "--name", name, "--label", f"{LABEL}={self.run}", "--user", CONTAINER_UID),
                *("--network", "none", "--read-only", "--tmpfs", "/tmp:size=256m,mode=1777"),
                *("--volume", f"{records}:/records", image, "-q", "-p", "no:cacheprovider", "-p", "matrix.recorder"),
                *("tests/control", "--tb=short", "--framework", cell.version.id, "--server", cell.server),
                *("--python", cell.python, "--record", "/records", "--record-cell", cell.id, "--record-again", again),
            ]
            process = children.start(command, variables=os.environ, output=subprocess.PIPE)
            try:
                output = process.communicate()[0].decode("utf-8", "backslashreplace")
            finally:
                children.end(process)
            written = records.read_bytes()
        session = Session(on_case)
        session.take(written)
        return session.end(process.returncode, output)

    def _remove(self, warnings: list[str], command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Remove a container in order. A failure is a warning: it is no fault of a cell, and `clean_up` tries again."""
        try:
            if not self.stop:
                run_step(command, variables=variables)
        except SetupError as error:
            warnings.append(str(error))

    def clean_up(self) -> None:
        """Remove every container and network of this run.

        Raises:
            SetupError: some are left.
        """
        remove_labelled(lambda run: run == self.run)


def remove_labelled(chosen: Callable[[str], bool]) -> tuple[int, int]:
    """Remove the containers and networks of runs that are chosen; return how many of each.

    Raises:
        SetupError: some could not be removed; the others are.
    """
    removed, problem = [0, 0], ""
    for _ in range(ROUNDS):
        found = _labelled(["ps", "--all"], chosen), _labelled(["network", "ls"], chosen)
        if not any(found):
            return removed[0], removed[1]
        problems = _remove_all(["rm", "--force", "--volumes"], found[0]), _remove_all(["network", "rm"], found[1])
        problem = "\n".join(filter(None, problems))
        removed = [count + len(ids) for count, ids in zip(removed, found, strict=True)]
    raise SetupError(problem or "containers came back while they were removed")


def _remove_all(command: Sequence[str], ids: Sequence[str]) -> str:
    """Remove what can be removed of some things; return what was said of the others."""
    try:
        if ids:
            run_step(["docker", *command, *ids])
    except SetupError as error:
        return str(error)
    return ""


def _labelled(listing: Sequence[str], chosen: Callable[[str], bool]) -> list[str]:
    """Return the ids of what `docker` lists of the runs that are chosen."""
    form = f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}}'
    lines = run_step(["docker", *listing, "--filter", f"label={LABEL}", "--format", form]).splitlines()
    return [identifier for identifier, _, run in (line.partition(" ") for line in lines) if chosen(run)]


def _follow_log(container: str, path: Path) -> subprocess.Popen[bytes]:
    """Let the engine write the container's log to a file, as it comes; this ends with the container."""
    with path.open("wb") as sink:
        return children.start(["docker", "logs", "--follow", container], variables=os.environ, output=sink)


def _output(command: Sequence[str], variables: dict[str, str] | None = None) -> str:
    """Return what a command prints, whether it succeeds or not."""
    with contextlib.suppress(OSError):
        answer = children.run(command, variables={**os.environ, **(variables or {})}, directory=ROOT)
        return answer.stdout + answer.stderr
    return ""
