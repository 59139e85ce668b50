"""Virtual environments from locks: one for a server, a framework version and a Python, made once and used again.

An environment lies under `.matrix/environments` and is named after the hash of all that it is made from: the two
locks and the build of the interpreter. So it is never changed, only made or thrown away, and runs that go on at the
same time share it: whoever comes first makes it under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matrix import children
from matrix.interpreters import Interpreter, InterpreterMissing, find_interpreter, find_uv
from matrix.manifest import ROOT, Server, Version, load_matrix

CACHE = ROOT / ".matrix"
SERVER_LOCKS = ROOT / "requirements" / "servers"
FRAMEWORK_LOCKS = ROOT / "docker" / "locks"

INSTALL_SECONDS = 600.0
"""Seconds for one installation; some packages are compiled."""

ASK_PACKAGES = (
    "import importlib.metadata as m, json; "
    "print(json.dumps(sorted({d.metadata['Name'] + '==' + d.version for d in m.distributions()}, key=str.lower)))"
)
"""What a Python is told to say which distributions it has."""

LAST_LINES = 15


class SetupError(Exception):
    """What a cell needs could not be set up; the message says which step failed, and how."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is ready.

    `packages` are its distributions with their versions, as `name==version`, in order.
    """

    directory: Path
    interpreter: Interpreter
    packages: tuple[str, ...]

    @property
    def python(self) -> str:
        """The Python to run in it."""
        return str(self.directory / "bin" / "python")

    def version_of(self, distribution: str) -> str | None:
        """Return the version of a distribution that is installed, None when it is not."""
        return find_version(self.packages, distribution)


def find_version(packages: Iterable[str], distribution: str) -> str | None:
    """Return the version that a list of `name==version` has of a distribution, None when it has none."""
    wanted = distribution.lower().replace("_", "-")
    versions = (package.partition("==") for package in packages)
    return next((version for name, _, version in versions if name.lower().replace("_", "-") == wanted), None)


def server_lock(server: Server) -> Path:
    """Return where the lock of a server is."""
    return SERVER_LOCKS / f"{server.family}.txt"


def framework_lock(version: Version) -> Path:
    """Return where the lock of a version of a framework is."""
    return FRAMEWORK_LOCKS / f"{version.id}.txt"


def environment(
    server: Server | str,
    framework_version: Version | str,
    python: str,
    *,
    extra: Sequence[str] = (),
    cache: Path = CACHE,
) -> Environment:
    """Make the environment of a server, a framework version and a Python, or find it made.

    Args:
        server: a server of `matrix.toml`, or its name.
        framework_version: a version, or its name: `flask-3.1`, or `flask` for the default one.
        python: the Python, `3.13`.
        extra: requirements to install on top of the locks.
        cache: the folder to keep environments in.

    Raises:
        MatrixError: a name is none of `matrix.toml`.
        SetupError: the Python or a lock is missing, or something could not be installed.
    """
    if isinstance(server, str):
        server = load_matrix().server(server)
    if isinstance(framework_version, str):
        framework_version = load_matrix().version(framework_version)
    try:
        interpreter = find_interpreter(python)
    except InterpreterMissing as error:
        raise SetupError(str(error)) from error
    # The framework's last: where both pin a package, the versions that a cell is about are the framework's.
    locks = [server_lock(server), framework_lock(framework_version)]
    return from_locks(locks, interpreter, extra=extra, cache=cache)


def from_locks(
    locks: list[Path], interpreter: Interpreter, *, extra: Sequence[str] = (), cache: Path = CACHE
) -> Environment:
    """Make an environment from locks, or find it made; a later lock overrides an earlier one, and `extra` all of them.

    Raises:
        SetupError: a lock is missing, or something could not be installed.
    """
    locks = [lock for lock in locks if _pins(lock)]
    name = _name(locks, interpreter, extra)
    directory = cache / "environments" / name
    record = directory / "matrix.json"
    with _locked(directory.with_suffix(".lock")):
        if not record.exists():
            shutil.rmtree(directory, ignore_errors=True)
            _make(directory, interpreter, locks, extra)
            packages = _freeze(directory)
            if name != _name(locks, interpreter, extra):
                raise SetupError("a lock changed while an environment was made from it; run the command again")
            record.write_text(json.dumps(packages, indent=1) + "\n", encoding="utf-8")
    return Environment(directory, interpreter, tuple(json.loads(record.read_text(encoding="utf-8"))))


def _name(locks: list[Path], interpreter: Interpreter, extra: Sequence[str]) -> str:
    """Return the name of an environment that is made from what the locks say now."""
    key = hashlib.sha256(f"{interpreter.executable}\n{interpreter.build}\n".encode())
    for lock in locks:
        key.update(lock.read_bytes())
    key.update("\n".join(extra).encode())
    return "-".join([*(lock.stem for lock in locks), f"py{interpreter.version}", key.hexdigest()[:12]])


def _pins(lock: Path) -> bool:
    """Say whether a lock has something to install."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SetupError(f"there is no lock {_shown(lock)}; run `tox -e lock`") from error
    return any(line.strip() and not line.startswith("#") for line in lines)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(directory: Path, interpreter: Interpreter, locks: list[Path], extra: Sequence[str]) -> None:
    uv = find_uv()
    if uv:
        _run([uv, "venv", "--quiet", "--no-project", "--python", interpreter.executable, str(directory)])
        install = [uv, "pip", "install", "--quiet", "--python", str(directory / "bin" / "python")]
        check = [uv, "pip", "check", "--python", str(directory / "bin" / "python")]
    else:
        _run([interpreter.executable, "-m", "venv", str(directory)])
        pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        install, check = [*pip, "install", "--quiet"], [*pip, "check"]
    for lock in locks:
        _run([*install, "--require-hashes", "--requirement", str(lock)])
    if extra:
        _run([*install, *extra])
    if locks or extra:
        _run(check)


def _freeze(directory: Path) -> list[str]:
    packages: list[str] = json.loads(_run([str(directory / "bin" / "python"), "-I", "-c", ASK_PACKAGES]))
    return packages


def _run(command: list[str]) -> str:
    # Another environment that is active must not be taken for the one that is meant.
    return run_step(command, without=("VIRTUAL_ENV", "PYTHONPATH"))


def run_step(command: Sequence[str], *, without: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> str:
    """Run one step of the setting-up and return what it printed.

    Args:
        command: the program and its arguments.
        without: environment variables that it must not see.
        variables: environment variables beside those of this process.

    Raises:
        SetupError: it could not be run, failed, or took too long.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    try:
        answer = children.run(
            command, variables={**inherited, **(variables or {})}, directory=ROOT, seconds=INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{_command_line(command)}: {error}") from error
    if answer.returncode:
        lines = (answer.stdout + answer.stderr).strip().splitlines()[-LAST_LINES:]
        raise SetupError(f"{_command_line(command)} failed with status {answer.returncode}:\n" + "\n".join(lines))
    return answer.stdout


def _command_line(command: Sequence[str]) -> str:
    return " ".join(_shown(Path(word)) if word.startswith(str(ROOT)) else word for word in command)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
