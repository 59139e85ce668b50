"""What the standards demand of a server, and which cases hold it: data in ``requirements.toml``.

Rules which this module keeps:

- every pattern names at least one case;
- every case of level MUST or SHOULD is named by a requirement of its level: no case demands more than a standard does
  and calls it by the standard's name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.conformance.cases import Case, CaseError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

SOURCE = Path(__file__).with_suffix(".toml")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "requirements.md"
KEYS = {"section", "level", "text", "cases", "reader", "outside"}
LEVELS = ("MUST", "SHOULD", "security")

INTRODUCTION = """\
<!-- Written by `{command}` from tests/conformance/requirements.toml. Change that, then run it again. -->

# Requirements

What RFC 9112, RFC 9110 and PEP 3333 demand of a server, as far as bytes on the wire show it, and the
[cases](conformance-cases.md) that hold each. `*` stands for any characters, and the number says how many cases that is.
"Every answer" means that the reader of the cases refuses an answer which breaks the requirement, whatever the case is
about. Requirements for clients, proxies and caches are left out, and so are those that only an application can keep.

{count} requirements. A case of level MUST or SHOULD is named here by a requirement of that level, or the check fails.
"""


@dataclass(frozen=True)
class Requirement:
    """One thing that a server has to do.

    Args:
        section: where it is said.
        level: MUST, SHOULD, or security where this project demands more.
        text: what is demanded, in short.
        cases: patterns of the ids of cases.
        reader: whether the reader of the cases refuses every answer that breaks it.
        outside: why no case holds it, and what does.
    """

    section: str
    level: str
    text: str
    cases: tuple[str, ...] = ()
    reader: bool = False
    outside: str = ""

    def names(self, case: Case) -> bool:
        """Tell whether a case is one of this requirement's."""
        return any(fnmatchcase(case.id, pattern) for pattern in self.cases)


def load_requirements(path: Path = SOURCE) -> tuple[Requirement, ...]:
    """Load the requirements.

    Raises:
        CaseError: a table has a key too many or too few, or an unknown level.
    """
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(_build(table) for table in document["requirement"])


def _build(table: dict[str, Any]) -> Requirement:
    name = f"{SOURCE.name}: {table.get('section')}: {table.get('text')}"
    if unknown := table.keys() - KEYS:
        raise CaseError(f"{name}: unknown keys {', '.join(sorted(unknown))}")
    if not {"section", "level", "text"} <= table.keys() or table["level"] not in LEVELS:
        raise CaseError(f"{name}: needs section, text, and a level of {', '.join(LEVELS)}")
    if ("outside" in table) == ("cases" in table):
        raise CaseError(f"{name}: needs either cases or outside")
    return Requirement(**{**table, "cases": tuple(table.get("cases", ()))})


def find_gaps(requirements: Iterable[Requirement], cases: Sequence[Case]) -> Iterator[str]:
    """Yield what is wrong between requirements and cases, a sentence for each."""
    requirements = tuple(requirements)
    for requirement in requirements:
        for pattern in requirement.cases:
            if not any(fnmatchcase(case.id, pattern) for case in cases):
                yield f"{requirement.section}: no case is called {pattern}"
    for case in cases:
        if case.level in ("MUST", "SHOULD") and not any(
            requirement.level == case.level and requirement.names(case) for requirement in requirements
        ):
            yield f"{case.id} is of level {case.level}, and no such requirement names it"


def make_page(requirements: Sequence[Requirement], cases: Sequence[Case], command: str) -> str:
    """Return the page of all requirements as Markdown.

    Raises:
        CaseError: requirements and cases do not fit together.
    """
    if gaps := list(find_gaps(requirements, cases)):
        raise CaseError(f"{SOURCE.name}:\n" + "\n".join(gaps))
    return "\n".join(_iterate_lines(requirements, cases, command)) + "\n"


def _iterate_lines(requirements: Sequence[Requirement], cases: Sequence[Case], command: str) -> Iterator[str]:
    yield INTRODUCTION.format(command=command, count=len(requirements))
    for title, group in groupby(requirements, key=_name_group):
        yield f"## {title}\n"
        yield "| section | level | what is demanded | cases |"
        yield "|---|---|---|---|"
        for requirement in group:
            held = "; ".join(_describe_cases(requirement, cases))
            yield f"| {_link_section(requirement)} | {requirement.level} | {requirement.text} | {held} |"
        yield ""


def _link_section(requirement: Requirement) -> str:
    document, _, number = requirement.section.partition(" section ")
    if not number:
        return requirement.section.removeprefix("PEP 3333 ")
    shown = requirement.section if requirement.level == "security" else number
    return f"[{shown}](https://www.rfc-editor.org/rfc/{document.lower().replace(' ', '')}#section-{number})"


def _name_group(requirement: Requirement) -> str:
    if requirement.level == "security":
        return "What the standards leave open"
    return requirement.section.partition(" section ")[0] if "section" in requirement.section else "PEP 3333"


def _describe_cases(requirement: Requirement, cases: Sequence[Case]) -> Iterator[str]:
    if requirement.outside:
        yield requirement.outside
    if requirement.reader:
        yield "every answer"
    for pattern in requirement.cases:
        named = [case.id for case in cases if fnmatchcase(case.id, pattern)]
        count = f" ({len(named)})" if "*" in pattern else ""
        yield f"[`{pattern}`](conformance-cases.md#{named[0]}){count}"
