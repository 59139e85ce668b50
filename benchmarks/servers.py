"""What is measured: the servers of `matrix.toml`, two that are no WSGI servers, and other sources of wizgy.

A contender is written `NAME[@SOURCE][ OPTIONS]`: `granian`; `wizgy@HEAD~3` or `wizgy@/path/to/server` for wizgy as it
was in a commit or is in a folder; `"wizgy --threads 1"` with options of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import shlex
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from matrix.environments import Environment, SetupError, framework_lock, from_locks, server_lock
from matrix.interpreters import InterpreterMissing, find_interpreter
from matrix.manifest import ROOT, Matrix, Server, load_matrix

APPS = ROOT / "benchmarks" / "apps"
ASSETS = ROOT / "compat_apps" / "assets"
SOURCES = ROOT / "build" / "benchmarks" / "sources"

REFERENCE = "wizgy"
BARE_LOOP = "bare-loop"
BARE_APP = "bare-app"
NGINX = "nginx"

NATIVE = ("granian", "uwsgi", "bjoern", "fastwsgi")
"""Peers whose loop and parser are not written in Python."""


def _extra(name: str, title: str, url: str, *command: str) -> Server:
    """Make a server that is none of `matrix.toml`; what is not told is as for any other."""
    any_server = load_matrix().server(REFERENCE)
    return dataclasses.replace(
        any_server, name=name, title=title, url=url, distribution=None, requirements=(), path=None, command=command
    )


EXTRA = {
    server.name: server
    for server in (
        _extra(BARE_LOOP, "bare epoll loop", "", "{python}", f"{APPS}/bare_loop.py", "{host}", "{port}"),
        _extra(
            BARE_APP,
            "bare epoll loop with the app",
            "",
            *("{python}", f"{APPS}/bare_app.py", "{host}", "{port}", "{application}"),
        ),
        _extra(NGINX, "nginx", "https://nginx.org/", "{python}", f"{APPS}/nginx.py", "{host}", "{port}", f"{ASSETS}"),
    )
}
"""What is no WSGI server: the limits of an event loop in Python, without the app and with it, and nginx for files."""


class UsageError(Exception):
    """Something that was asked for does not exist; the message says what does."""


@dataclass(frozen=True)
class Contender:
    """One server as it is measured. `name` is how it was asked for, and what its figures go by."""

    name: str
    server: Server
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the tables call it."""
        return self.name if self.name != self.server.name else self.server.title

    @property
    def is_wizgy(self) -> bool:
        """Whether it is wizgy, of whatever source."""
        return self.server.name == REFERENCE


def names(matrix: Matrix) -> list[str]:
    """Return the names of all servers that can be measured, wizgy first."""
    peers = [server.name for server in matrix.servers_for("bench") if server.name != REFERENCE]
    return [REFERENCE, *peers, *EXTRA]


def parse_contender(text: str, matrix: Matrix) -> Contender:
    """Return the contender that a text like `wizgy@HEAD~3 --threads 1` means.

    Raises:
        UsageError: there is no such server or source.
    """
    words = shlex.split(text)
    if not words:
        raise UsageError("no server was named; choose from: " + ", ".join(names(matrix)))
    name, _, source = words[0].partition("@")
    if name not in names(matrix):
        raise UsageError(f"no server is called {name!r}; choose from: {', '.join(names(matrix))}")
    server = EXTRA.get(name) or matrix.server(name)
    if source:
        if server.path is None:
            raise UsageError(f"{words[0]}: only {REFERENCE} can be taken from another source than its package")
        server = dataclasses.replace(server, path=find_source(source))
    return Contender(text, server, tuple(words[1:]))


def find_source(source: str) -> Path:
    """Return the folder to import wizgy from: a folder itself, or that of a commit, unpacked.

    Raises:
        UsageError: it is neither.
    """
    for folder in (Path(source).resolve(), Path(source).resolve() / "server"):
        if (folder / "wizgy" / "__init__.py").is_file():
            return folder
    found = _git("rev-parse", "--verify", "--quiet", source + "^{commit}")
    if found is None:
        raise UsageError(f"{source!r} is neither a folder that holds wizgy/ or server/wizgy/, nor a commit")
    commit = found.decode().strip()
    folder = SOURCES / commit[:12]
    if not folder.exists():
        archive = _git("archive", commit, "server")
        if archive is None:
            raise UsageError(f"commit {commit[:12]} has no server/")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
    return folder / "server"


def _git(*arguments: str) -> bytes | None:
    git = shutil.which("git")
    if git is None:
        return None
    answer = subprocess.run([git, *arguments], cwd=ROOT, capture_output=True, check=False)
    return answer.stdout if answer.returncode == 0 else None


@functools.lru_cache
def environment_of(server: Server, python: str) -> Environment:
    """Make the environment of a server, with every framework in it, or find it made.

    Raises:
        SetupError: it could not be made; the message says why.
    """
    if server.pythons and python not in server.pythons:
        raise SetupError(f"{server.title} works on Python {', '.join(server.pythons)}, not on {python}")
    try:
        interpreter = find_interpreter(python)
    except InterpreterMissing as error:
        raise SetupError(str(error)) from error
    locks = [framework_lock(framework.default) for framework in load_matrix().frameworks.values()]
    if server.name not in EXTRA:
        locks.append(server_lock(server))
    return from_locks(locks, interpreter)


def pinned(contender: Contender, processor: int) -> Server:
    """Return the server with a command that keeps it on one processor and has the contender's own options."""
    command = list(contender.server.command)
    place = command.index("{application}") if command[-1] == "{application}" else len(command)
    command[place:place] = contender.options  # before an application that stands last, since some read no further
    return dataclasses.replace(contender.server, command=("taskset", "--cpu-list", str(processor), *command))
