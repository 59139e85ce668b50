"""Read `matrix.toml`, the one place that names the frameworks and their known deviations."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
MATRIX_FILE = ROOT / "matrix.toml"


class MatrixError(Exception):
    """`matrix.toml` cannot be read, or lacks something that the tests need."""


@dataclass(frozen=True)
class Framework:
    """One framework: its app, and how to recognise its answers.

    `application` is the `module:attribute` that wizgy is given with `--chdir directory`.
    """

    name: str
    title: str
    greeting: str
    application: str
    directory: Path
    version: str


@dataclass(frozen=True)
class KnownDeviation:
    """A test that must fail for a framework, because the framework differs by its own nature.

    `test` is `test_module.py::test_name`, the same with `[parameters]`, or the id of a conformance
    case.
    """

    framework: str
    test: str
    reason: str
    link: str


@dataclass(frozen=True)
class Matrix:
    """What `matrix.toml` says, checked."""

    frameworks: dict[str, Framework]
    known: tuple[KnownDeviation, ...]

    def framework(self, name: str) -> Framework:
        """Return the framework called `name`.

        Raises:
            MatrixError: no framework has that name; the message lists those that exist.
        """
        if name not in self.frameworks:
            choices = ", ".join(self.frameworks)
            raise MatrixError(f"no framework is called {name!r}; choose one of: {choices}")
        return self.frameworks[name]

    def known_for(self, framework: Framework) -> list[KnownDeviation]:
        """Return the known deviations of one framework."""
        return [known for known in self.known if known.framework == framework.name]


def load_matrix(path: Path = MATRIX_FILE) -> Matrix:
    """Read and check `matrix.toml`; directories in it are relative to the file.

    Raises:
        MatrixError: the file is missing, is not TOML, or lacks a key; the message says which.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MatrixError(f"cannot read {path}: {error}") from error
    frameworks = {name: _framework(path, name, table) for name, table in document.get("frameworks", {}).items()}
    known = tuple(_known(path, table) for table in document.get("known", []))
    for deviation in known:
        if deviation.framework not in frameworks:
            raise MatrixError(
                f"{path}: [[known]] for {deviation.test} names the framework "
                f"{deviation.framework!r}; choose one of: {', '.join(frameworks)}"
            )
    return Matrix(frameworks, known)


def _framework(path: Path, name: str, table: dict[str, Any]) -> Framework:
    where = f"{path}: [frameworks.{name}]"
    return Framework(
        name=name,
        title=_text(where, table, "title"),
        greeting=_text(where, table, "greeting"),
        application=_text(where, table, "application"),
        directory=path.parent / _text(where, table, "directory"),
        version=_text(where, table, "version"),
    )


def _known(path: Path, table: dict[str, Any]) -> KnownDeviation:
    where = f"{path}: [[known]]"
    return KnownDeviation(
        framework=_text(where, table, "framework"),
        test=_text(where, table, "test"),
        reason=_text(where, table, "reason"),
        link=_text(where, table, "link"),
    )


def _text(where: str, table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise MatrixError(f'{where} needs {key} = "some text", and has {value!r}')
    return value
