"""Write the locks: exact versions with hashes, for every tool, and for every framework version and server.

A lock holds for Python 3.10 and newer on every platform, that of a framework version or a server for the Pythons it
has in matrix.toml. `requirements/NAME.in` becomes `requirements/NAME.txt`; the requirements of a framework version
become `docker/locks/NAME-VERSION.txt`, those of a server `requirements/servers/NAME.txt`. Each lock opens
with what it was made from, so that `--check` finds drift with no network.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `python requirements/lock.py` alone would find only its own folder

from matrix.environments import FRAMEWORK_LOCKS, SERVER_LOCKS, framework_lock, server_lock  # noqa: E402
from matrix.manifest import Matrix, load_matrix  # noqa: E402

TOOLS = ROOT / "requirements"
OLDEST_PYTHON = "3.10"


@dataclass(frozen=True)
class Lock:
    """One lock: where it is, and the requirements that it is made from."""

    path: Path
    requirements: tuple[str, ...]
    oldest_python: str = OLDEST_PYTHON

    @property
    def name(self) -> str:
        """Return the path as a person would type it from the repository root."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def header(self) -> str:
        """Return the lines that a lock of these requirements starts with."""
        inputs = "".join(f"#   {requirement}\n" for requirement in self.requirements)
        return "# Made by `tox -e lock`, not by hand, from:\n" + (inputs or "#   nothing\n")


def read_requirements(path: Path) -> tuple[str, ...]:
    """Return the requirements in an `.in` file, those of the files that it includes among them."""
    found: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement.startswith("-r "):
            found += read_requirements(path.parent / requirement.removeprefix("-r ").strip())
        elif requirement:
            found.append(requirement)
    return tuple(sorted(set(found)))


def matrix_locks(matrix: Matrix) -> list[Lock]:
    """Return the lock of each framework version and of each server that matrix.toml names."""
    versions = [
        Lock(framework_lock(version), version.requirements, version.pythons[0])
        for framework in matrix.frameworks.values()
        for version in framework.versions
    ]
    servers = {
        server_lock(server): Lock(server_lock(server), server.requirements, server.pythons[0])
        for server in matrix.servers.values()
    }
    return versions + list(servers.values())


def all_locks() -> list[Lock]:
    """Return every lock that there must be; the tests' one first, since the others agree with it."""
    tools = [Lock(path.with_suffix(".txt"), read_requirements(path)) for path in TOOLS.glob("*.in")]
    tools.sort(key=lambda lock: (lock.path.stem != "tests", lock.path))
    return tools + matrix_locks(load_matrix())


def strays(locks: list[Lock]) -> list[Path]:
    """Return the files among the locks that nothing asks for."""
    wanted = {lock.path for lock in locks}
    return sorted({*TOOLS.glob("*.txt"), *SERVER_LOCKS.glob("*.txt"), *FRAMEWORK_LOCKS.glob("*.txt")} - wanted)


def check(locks: list[Lock]) -> list[str]:
    """Return a line for each lock that is missing, was made from something else, or is a stray."""
    problems = [f"{path.relative_to(ROOT)}: nothing asks for it" for path in strays(locks)]
    for lock in locks:
        if not lock.path.exists():
            problems.append(f"{lock.name}: missing")
        elif not lock.path.read_text(encoding="utf-8").startswith(lock.header + "\n"):
            problems.append(f"{lock.name}: made from other requirements than those of today")
    return problems


def write(lock: Lock, options: list[str]) -> None:
    """Resolve one lock; what an earlier one pins stays, unless `--upgrade` is among the options."""
    agree = TOOLS / "tests.txt"
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "requirements.in")
        source.write_text("\n".join(lock.requirements), encoding="utf-8")
        command = [
            *("uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
            *("--python-version", lock.oldest_python, "--no-header", "--no-annotate"),
            *("--no-emit-index-url", "--no-emit-find-links", *options),
            *(() if lock.path == agree else ("--constraint", str(agree))),
            *("--output-file", str(lock.path), str(source)),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    pins = lock.path.read_text(encoding="utf-8")
    lock.path.write_text(f"{lock.header}\n{pins}", encoding="utf-8")
    print(lock.name)


def main(words: Sequence[str] | None = None) -> int:
    """Write or check every lock; return the exit status."""
    parser = argparse.ArgumentParser(prog="tox -e lock --", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    arguments = parser.parse_args(words)
    locks = all_locks()
    if arguments.check:
        problems = check(locks)
        for problem in problems:
            print(f"{problem}; run `tox -e lock`", file=sys.stderr)
        return 1 if problems else 0
    for directory in (FRAMEWORK_LOCKS, SERVER_LOCKS):
        directory.mkdir(parents=True, exist_ok=True)
    for path in strays(locks):
        path.unlink()
    for lock in locks:
        write(lock, ["--upgrade"] if arguments.upgrade else [])
    return 0


if __name__ == "__main__":
    sys.exit(main())
