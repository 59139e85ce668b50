"""The conformance cases: data in ``cases/*.toml``, validated by ``schema.json``.

Rules which this module keeps, beyond those of the schema:

- ids are unique over all files;
- nothing is sent after a half-close or a reset;
- a connection whose writing side is closed cannot be asked to answer again, so ``then = "open"``
  needs an open writing side;
- every pattern compiles.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import jsonschema

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

Level: TypeAlias = Literal["MUST", "SHOULD", "security", "robustness"]
Then: TypeAlias = Literal["closed", "open", "any"]
Framing: TypeAlias = Literal["content-length", "chunked", "close", "none"]

LEVELS: tuple[Level, ...] = ("MUST", "SHOULD", "security", "robustness")
HERE = Path(__file__).parent
DIRECTORY = HERE / "cases"


class CaseError(ValueError):
    """A file of cases is not valid; the message names the file, the case and what is wrong."""


@dataclass(frozen=True)
class SendBytes:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Send nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Await:
    """Wait until these bytes have been received."""

    data: bytes
    within: float | None = None


@dataclass(frozen=True)
class Reconnect:
    """Close the connection and go on with a new one."""


@dataclass(frozen=True)
class HalfClose:
    """Shut down the writing side."""


@dataclass(frozen=True)
class Reset:
    """Reset the connection."""


Step: TypeAlias = SendBytes | Pause | Await | Reconnect | HalfClose | Reset


@dataclass(frozen=True)
class ExpectedResponse:
    """What one final answer must look like; ``None`` and empty mean that it does not matter."""

    statuses: tuple[str, ...]
    headers: tuple[tuple[str, re.Pattern[str]], ...] = ()
    no_headers: tuple[str, ...] = ()
    body: bytes | None = None
    body_matches: re.Pattern[bytes] | None = None
    body_lacks: re.Pattern[bytes] | None = None
    body_length: int | None = None
    json: Mapping[str, Any] | None = None
    framing: Framing | None = None
    head: bool = False
    version: str | None = None
    interim: tuple[int, ...] | None = None
    complete: bool = True


@dataclass(frozen=True)
class Outcome:
    """One acceptable outcome: exactly these final answers, and what becomes of the connection."""

    responses: tuple[ExpectedResponse, ...]
    then: Then


@dataclass(frozen=True)
class Case:
    """One conformance case."""

    id: str
    level: Level
    section: str
    source: str
    rule: str
    frameworks: tuple[str, ...]
    send: tuple[Step, ...]
    split: bool
    expect: tuple[Outcome, ...]
    file: str

    def is_for(self, framework: str | None) -> bool:
        """Tell whether the case holds for a compat app; ``None`` stands for an unknown app."""
        return not self.frameworks or framework in self.frameworks


def load_cases(directory: Path = DIRECTORY) -> tuple[Case, ...]:
    """Load every ``*.toml`` file of a directory, sorted by file name, each file in its own order.

    Raises:
        CaseError: a file does not follow the schema, or two cases share an id.
    """
    cases = [case for path in sorted(directory.glob("*.toml")) for case in load_file(path)]
    seen: dict[str, str] = {}
    for case in cases:
        if case.id in seen:
            raise CaseError(f"{case.file}: the id {case.id} is taken by a case of {seen[case.id]}")
        seen[case.id] = case.file
    return tuple(cases)


def load_file(path: Path) -> tuple[Case, ...]:
    """Load one file of cases.

    Raises:
        CaseError: the file is not TOML, breaks the schema, or breaks a rule of this module.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{path.name}: not TOML: {error}") from error
    errors = list(iterate_schema_errors(document))
    if errors:
        raise CaseError(f"{path.name}: " + "; ".join(errors))
    return tuple(_build_case(table, path.name) for table in document["case"])


def iterate_schema_errors(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a document of cases, each naming the case and the place in it."""
    for error in _validator().iter_errors(document):
        # Of a failed "oneOf" the branch that came closest says more than the whole.
        best = jsonschema.exceptions.best_match([error]) or error
        yield f"{_name_place(document, list(best.absolute_path))}: {best.message}"


@cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def _name_place(document: Mapping[str, Any], path: list[str | int]) -> str:
    if len(path) < 2:
        return "the file"
    table = document["case"][path[1]]
    name = table.get("id", f"case {path[1]}") if isinstance(table, dict) else f"case {path[1]}"
    return " ".join([str(name), *map(str, path[2:])])


def _build_case(table: Mapping[str, Any], file: str) -> Case:
    case = Case(
        id=table["id"],
        level=table["level"],
        section=table["section"],
        source=table["source"],
        rule=table["rule"],
        frameworks=tuple(table.get("frameworks", ())),
        send=tuple(_build_step(step) for step in table["send"]),
        split=table.get("split", True),
        expect=tuple(
            Outcome(tuple(_build_response(r) for r in outcome["responses"]), outcome["then"])
            for outcome in table["expect"]
        ),
        file=file,
    )
    _check_ends(case)
    return case


def _check_ends(case: Case) -> None:
    ends = [n for n, step in enumerate(case.send) if isinstance(step, HalfClose | Reset)]
    if ends and ends[0] != len(case.send) - 1:
        raise CaseError(f"{case.file}: {case.id}: nothing can be sent after a half-close or reset")
    if ends and any(outcome.then == "open" for outcome in case.expect):
        raise CaseError(f'{case.file}: {case.id}: then = "open" needs an open writing side')


def _build_step(step: str | Mapping[str, Any]) -> Step:
    if isinstance(step, str):
        return SendBytes(step.encode("latin-1"))
    if "repeat" in step:
        return SendBytes(step["repeat"].encode("latin-1") * step["times"])
    if "pause" in step:
        return Pause(float(step["pause"]))
    if "await" in step:
        return Await(step["await"].encode("latin-1"), step.get("within"))
    if "reconnect" in step:
        return Reconnect()
    return HalfClose() if "half_close" in step else Reset()


def _build_response(table: Mapping[str, Any]) -> ExpectedResponse:
    status = table["status"]
    return ExpectedResponse(
        statuses=tuple(str(s) for s in (status if isinstance(status, list) else [status])),
        headers=tuple((name.lower(), re.compile(pattern)) for name, pattern in table.get("headers", {}).items()),
        no_headers=tuple(name.lower() for name in table.get("no_headers", ())),
        body=table["body"].encode("latin-1") if "body" in table else None,
        body_matches=_compile(table.get("body_matches")),
        body_lacks=_compile(table.get("body_lacks")),
        body_length=table.get("body_length"),
        json=table.get("json"),
        framing=cast("Framing | None", table.get("framing")),
        head=table.get("head", False),
        version=table.get("version"),
        interim=tuple(table["interim"]) if "interim" in table else None,
        complete=table.get("complete", True),
    )


def _compile(pattern: str | None) -> re.Pattern[bytes] | None:
    return None if pattern is None else re.compile(pattern.encode("latin-1"))


def select_cases(cases: Iterable[Case], framework: str | None = None, ids: Iterable[str] = ()) -> tuple[Case, ...]:
    """Select the cases which hold for a compat app, and of them those with the given ids, if any.

    Raises:
        KeyError: an id is unknown, or its case is for other apps.
    """
    chosen = {case.id: case for case in cases if case.is_for(framework)}
    wanted = tuple(ids)
    return tuple(chosen[i] for i in wanted) if wanted else tuple(chosen.values())
