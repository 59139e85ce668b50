"""Read `matrix.toml`: frameworks and their versions, servers, Pythons, tiers, and what is known to differ.

Everything is checked when it is read. A mistake is a `MatrixError` that says where it is, what was expected, and what
came; nothing later has to ask whether a name exists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
MATRIX_FILE = ROOT / "matrix.toml"

Suite: TypeAlias = Literal["contract", "conformance"]

USES = ("matrix", "conformance", "bench")
SUITES: tuple[Suite, ...] = ("contract", "conformance")
PLACEHOLDERS = ("python", "launchers", "host", "port", "application", "workers", "threads")

FRAMEWORK_NAME = re.compile(r"[a-z][a-z0-9]*")
SERVER_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")


class MatrixError(Exception):
    """`matrix.toml` cannot be read, or names something that it does not have."""


@dataclass(frozen=True)
class Version:
    """One version of a framework, with the Pythons that it works on.

    `requirements` hold what the framework itself asks for and what `[[breakage]]` tables add.
    """

    framework: str
    version: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]
    end_of_life: date | None = None

    @property
    def id(self) -> str:
        """The version as it stands in the id of a cell, `flask-3.1`."""
        return f"{self.framework}-{self.version}"


@dataclass(frozen=True)
class Framework:
    """One framework: its app, how to recognise its answers, and its versions, newest first.

    `application` is the `module:attribute` that a server is told to load in the folder `directory`.
    """

    name: str
    title: str
    greeting: str
    application: str
    directory: Path
    port: int
    version: str
    versions: tuple[Version, ...]

    @property
    def default(self) -> Version:
        """The version that is meant where none is named."""
        return self.named(self.version)

    def named(self, version: str) -> Version:
        """Return one version.

        Raises:
            MatrixError: there is no such version; the message lists those that exist.
        """
        return _choose(f"version of {self.title}", version, {each.version: each for each in self.versions})


@dataclass(frozen=True)
class Breakage:
    """What some versions need beside their own requirements, because a newer dependency broke them."""

    versions: tuple[str, ...]
    requirement: str
    reason: str
    link: str


@dataclass(frozen=True)
class Server:
    """One server: what it needs, and how it is started.

    `distribution` is the name that its installed version goes by, None for a part of Python itself; `path` the folder
    that a server of this tree is imported from, None for one that is installed.
    """

    name: str
    title: str
    url: str
    distribution: str | None
    requirements: tuple[str, ...]
    path: Path | None
    pythons: tuple[str, ...]
    command: tuple[str, ...]
    uses: tuple[str, ...]
    suites: tuple[Suite, ...]

    @property
    def family(self) -> str:
        """The name without the mode: `gunicorn-sync` and `gunicorn-gthread` are one program, and share a lock."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class Tier:
    """A named choice of cells, as patterns of their ids.

    `end_of_life` leaves only versions that their authors no longer mend (True), or only the others (False).
    """

    name: str
    summary: str
    cells: tuple[str, ...]
    end_of_life: bool | None = None


@dataclass(frozen=True)
class KnownDeviation:
    """A test that must fail in some cells, because the framework or the server differs by its own nature.

    `test` is `test_module.py::test_name`, the same with `[parameters]`, or the id of a conformance case. The others are
    patterns, of which any holds; a framework's name stands for each of its versions. `sometimes` says that the test
    may also pass, as a race decides.
    """

    test: str
    frameworks: tuple[str, ...]
    servers: tuple[str, ...]
    pythons: tuple[str, ...]
    reason: str
    link: str
    sometimes: bool = False

    def applies_to(self, server: str, version: Version, python: str) -> bool:
        """Say whether the deviation is expected in a cell."""
        return (
            any(_matches(name, self.frameworks) for name in (version.framework, version.id))
            and _matches(server, self.servers)
            and _matches(python, self.pythons)
        )


@dataclass(frozen=True)
class Matrix:
    """What `matrix.toml` says, checked."""

    pythons: tuple[str, ...]
    frameworks: dict[str, Framework]
    servers: dict[str, Server]
    tiers: dict[str, Tier]
    breakage: tuple[Breakage, ...]
    known: tuple[KnownDeviation, ...]

    def framework(self, name: str) -> Framework:
        """Return the framework called `name`, or of which `name` is a version.

        Raises:
            MatrixError: no framework has that name; the message lists those that exist.
        """
        return self.frameworks[self.version(name).framework]

    def version(self, name: str) -> Version:
        """Return the version called `name` (`flask-3.1`), or the default version of the framework `name`.

        Raises:
            MatrixError: there is none; the message lists what exists.
        """
        framework, separator, version = name.partition("-")
        found = _choose("framework", framework, self.frameworks)
        return found.named(version) if separator else found.default

    def versions_named(self, name: str) -> list[Version]:
        """Return the version called `name`, or every version of the framework `name`.

        Raises:
            MatrixError: there is none; the message lists what exists.
        """
        return list(self.frameworks[name].versions) if name in self.frameworks else [self.version(name)]

    def server(self, name: str) -> Server:
        """Return the server called `name`; the name of a program with modes stands for the first of them.

        Raises:
            MatrixError: no server has that name; the message lists those that exist.
        """
        return self.servers_named(name)[0]

    def servers_named(self, name: str) -> list[Server]:
        """Return the server called `name`, or every mode of the program `name`.

        Raises:
            MatrixError: no server has that name; the message lists those that exist.
        """
        modes = [server for server in self.servers.values() if server.family == name]
        return modes or [_choose("server", name, self.servers)]

    def python(self, name: str) -> str:
        """Return a Python, which may be written `3.13`, `py3.13` or `py313`.

        Raises:
            MatrixError: it is none of those that cells have.
        """
        for python in self.pythons:
            if name in (python, f"py{python}", f"py{python.replace('.', '')}"):
                return python
        raise MatrixError(f"no Python is called {name!r}; choose one of: {', '.join(self.pythons)}")

    def tier(self, name: str) -> Tier:
        """Return the tier called `name`.

        Raises:
            MatrixError: no tier has that name; the message lists those that exist.
        """
        return _choose("tier", name, self.tiers)

    def servers_for(self, use: str) -> list[Server]:
        """Return the servers that serve a use: `matrix`, `conformance` or `bench`."""
        return [server for server in self.servers.values() if use in server.uses]

    def known_for(self, server: str, version: Version, python: str) -> list[KnownDeviation]:
        """Return the known deviations of one cell."""
        return [known for known in self.known if known.applies_to(server, version, python)]


def load_matrix(path: Path = MATRIX_FILE) -> Matrix:
    """Read and check `matrix.toml`; folders in it are relative to the file.

    Raises:
        MatrixError: the file is missing, is not TOML, or something in it is wrong; the message says what and where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MatrixError(f"cannot read {path}: {error}") from error
    return parse_matrix(text, path)


def parse_matrix(text: str, path: Path = MATRIX_FILE) -> Matrix:
    """Check the text of a `matrix.toml` that lies, or lay, at a path.

    Raises:
        MatrixError: it is not TOML, or something in it is wrong; the message says what and where.
    """
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise MatrixError(f"cannot read {path}: {error}") from error
    top = _Table(str(path), document)
    pythons = top.texts("pythons", pattern=VERSION)
    breakage = tuple(_breakage(table) for table in top.tables("breakage"))
    frameworks = {
        name: _framework(path.parent, name, table, pythons, breakage)
        for name, table in top.named_tables("frameworks", FRAMEWORK_NAME)
    }
    servers = {
        name: _server(path.parent, name, table, pythons) for name, table in top.named_tables("servers", SERVER_NAME)
    }
    tiers = {name: _tier(name, table) for name, table in top.named_tables("tiers", SERVER_NAME)}
    known = tuple(known for table in top.tables("known") for known in _known(table))
    top.refuse_the_rest()
    versions = [version for framework in frameworks.values() for version in framework.versions]
    _refuse_idle_patterns(path, breakage, known, versions, tuple(servers), pythons)
    return Matrix(pythons, frameworks, servers, tiers, breakage, known)


def _framework(
    home: Path, name: str, table: _Table, pythons: tuple[str, ...], breakage: Iterable[Breakage]
) -> Framework:
    versions = tuple(_version(name, each, pythons, breakage) for each in table.tables("versions"))
    framework = Framework(
        name=name,
        title=table.text("title"),
        greeting=table.text("greeting"),
        application=table.text("application"),
        directory=home / table.text("directory"),
        port=table.integer("port"),
        version=table.text("default"),
        versions=versions,
    )
    if framework.version not in {version.version for version in versions}:
        named = ", ".join(version.version for version in versions) or "none"
        raise table.error(f"default = {framework.version!r} is none of its versions, which are: {named}")
    table.refuse_the_rest()
    return framework


def _version(name: str, table: _Table, pythons: tuple[str, ...], breakage: Iterable[Breakage]) -> Version:
    version = table.text("version", pattern=VERSION)
    broken = [each for each in breakage if _matches(f"{name}-{version}", each.versions)]
    found = Version(
        framework=name,
        version=version,
        requirements=table.texts("requirements") + tuple(each.requirement for each in broken),
        pythons=table.choices("pythons", pythons),
        end_of_life=table.date("end_of_life"),
    )
    table.refuse_the_rest()
    return found


def _breakage(table: _Table) -> Breakage:
    found = Breakage(table.texts("versions"), table.text("requirement"), table.text("reason"), table.text("link"))
    table.refuse_the_rest()
    return found


def _server(home: Path, name: str, table: _Table, pythons: tuple[str, ...]) -> Server:
    path = table.text("path", default="")
    server = Server(
        name=name,
        title=table.text("title"),
        url=table.text("url"),
        distribution=table.text("distribution", default="") or None,
        requirements=table.texts("requirements"),
        path=home / path if path else None,
        pythons=table.choices("pythons", pythons, default=pythons),
        command=table.texts("command"),
        uses=table.choices("uses", USES),
        suites=tuple(suite for suite in SUITES if suite in table.choices("suites", SUITES, default=SUITES)),
    )
    for word in server.command:
        for placeholder in re.findall(r"\{(.*?)\}", word):
            if placeholder not in PLACEHOLDERS:
                raise table.error(f"command has {{{placeholder}}}; choose one of: {', '.join(PLACEHOLDERS)}")
    table.refuse_the_rest()
    return server


def _tier(name: str, table: _Table) -> Tier:
    tier = Tier(name, table.text("summary"), table.texts("cells"), table.truth("end_of_life"))
    table.refuse_the_rest()
    return tier


def _known(table: _Table) -> list[KnownDeviation]:
    found = [
        KnownDeviation(
            test=test,
            frameworks=table.texts("frameworks", default=("*",)),
            servers=table.texts("servers", default=("*",)),
            pythons=table.texts("pythons", default=("*",)),
            reason=table.text("reason"),
            link=table.text("link"),
            sometimes=bool(table.truth("sometimes")),
        )
        for test in table.texts("tests")
    ]
    table.refuse_the_rest()
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_idle_patterns(
    path: Path,
    breakage: Iterable[Breakage],
    known: Iterable[KnownDeviation],
    versions: Iterable[Version],
    servers: Iterable[str],
    pythons: Iterable[str],
) -> None:
    """Refuse patterns that name nothing: a misspelt one would quietly do nothing."""
    names = sorted({version.framework for version in versions} | {version.id for version in versions})
    patterns = [
        *((f"[[breakage]] for {each.requirement}", pattern, names) for each in breakage for pattern in each.versions),
        *((f"[[known]] for {each.test}", pattern, names) for each in known for pattern in each.frameworks),
        *((f"[[known]] for {each.test}", pattern, servers) for each in known for pattern in each.servers),
        *((f"[[known]] for {each.test}", pattern, pythons) for each in known for pattern in each.pythons),
    ]
    for where, pattern, choices in patterns:
        if pattern != "*" and not any(fnmatchcase(choice, pattern) for choice in choices):
            raise MatrixError(f"{path}: {where} names {pattern!r}; choose from: {', '.join(choices)}")


class _Table:
    """One table of the file, that knows where it stands and which of its keys were read."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self.values = values
        self.read: set[str] = set()

    def error(self, problem: str) -> MatrixError:
        """Return an error that says where the table stands."""
        return MatrixError(f"{self.where}: {problem}")

    def text(self, key: str, *, default: str | None = None, pattern: re.Pattern[str] | None = None) -> str:
        """Return a text that is not empty."""
        value = self._get(key, default)
        if default is not None and key not in self.values:
            return default
        if not isinstance(value, str) or not value or (pattern and not pattern.fullmatch(value)):
            like = f" like {pattern.pattern}" if pattern else ""
            raise self.error(f'needs {key} = "some text"{like}, and has {value!r}')
        return value

    def texts(
        self, key: str, *, pattern: re.Pattern[str] | None = None, default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._get(key, None)
        if value is None and default is not None:
            return default
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self.error(f'needs {key} = ["some text", ...], and has {value!r}')
        for each in value:
            if pattern and not pattern.fullmatch(each):
                raise self.error(f"{key} has {each!r}, which is not like {pattern.pattern}")
        return tuple(value)

    def choices(self, key: str, choices: Iterable[str], *, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Return a list of texts that are all among the choices."""
        if default is not None and key not in self.values:
            return default
        found = self.texts(key)
        for each in found:
            if each not in tuple(choices):
                raise self.error(f"{key} has {each!r}; choose from: {', '.join(choices)}")
        return found

    def integer(self, key: str) -> int:
        """Return a number."""
        value = self._get(key, None)
        if type(value) is not int:
            raise self.error(f"needs {key} = some number, and has {value!r}")
        return value

    def truth(self, key: str) -> bool | None:
        """Return true or false, None when neither is said."""
        value = self._get(key, None)
        if value not in (True, False, None):
            raise self.error(f"needs {key} = true or false, and has {value!r}")
        return None if value is None else bool(value)

    def date(self, key: str) -> date | None:
        """Return a date, None when there is none."""
        value = self._get(key, None)
        try:
            return None if value is None else date.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise self.error(f'needs {key} = "YYYY-MM-DD", and has {value!r}') from error

    def tables(self, key: str) -> list[_Table]:
        """Return the tables of an array of them."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.error(f"needs [[{key}]] tables, and has {value!r}")
        return [_Table(f"{self.where}: [[{key}]] number {place}", each) for place, each in enumerate(value, 1)]

    def named_tables(self, key: str, pattern: re.Pattern[str]) -> list[tuple[str, _Table]]:
        """Return the tables under a name, with the names of each."""
        value = self._get(key, {})
        if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
            raise self.error(f"needs [{key}.NAME] tables, and has {value!r}")
        for name in value:
            if not pattern.fullmatch(name):
                raise self.error(f"[{key}.{name}] has a name that is not like {pattern.pattern}")
        return [(name, _Table(f"{self.where}: [{key}.{name}]", each)) for name, each in value.items()]

    def refuse_the_rest(self) -> None:
        """Refuse keys that nobody reads."""
        for key in self.values:
            if key not in self.read:
                raise self.error(f"has the key {key!r}, which nothing reads; there are: {', '.join(sorted(self.read))}")

    def _get(self, key: str, default: Any) -> Any:
        self.read.add(key)
        return self.values.get(key, default)


_Found = TypeVar("_Found")


def _choose(what: str, name: str, choices: Mapping[str, _Found]) -> _Found:
    if name not in choices:
        raise MatrixError(f"no {what} is called {name!r}; choose one of: {', '.join(choices)}")
    return choices[name]
