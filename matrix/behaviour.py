"""What an application may expect of the server that runs it: which tests say so, and which servers keep it.

`docs/application-behaviour.md` is made from the docstrings of those tests and the `[[known]]` tables of `matrix.toml`.
A run fails where a server does otherwise, so the page says what a run found. The report has the same table, from the
results of its run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matrix.manifest import ROOT, KnownDeviation, Matrix, Server

MODULE = "test_application_behaviour.py"
PATH = f"tests/contract/{MODULE}"
VERSION = "wsgi"
"""The framework whose app has the views that these tests ask."""

KEPT, BROKEN, SOMETIMES = "✅", "🔷", "🔷 at times"

_GROUP = re.compile(r"# (.+)")


@dataclass(frozen=True)
class Expectation:
    """One test: the group that it stands in, its name, and what it says."""

    group: str
    name: str
    text: str


def read_expectations(path: Path = ROOT / PATH) -> list[Expectation]:
    """Return the expectations of the module of tests, in its order."""
    text = path.read_text(encoding="utf-8")
    groups = {number: found[1] for number, line in enumerate(text.splitlines(), 1) if (found := _GROUP.fullmatch(line))}
    return [
        Expectation(
            group=next((groups[number] for number in sorted(groups, reverse=True) if number < node.lineno), ""),
            name=node.name,
            text=" ".join((ast.get_docstring(node) or "").split()),
        )
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def behaviour_page(matrix: Matrix) -> str:
    """Return the page that says which server keeps what."""
    servers = matrix.servers_for("matrix")
    lines = [
        "<!-- Made by `python -m matrix generate` from matrix.toml and the tests, not by hand. -->",
        "",
        "# What an application may expect",
        "",
        "What works in plain Python works in a view. These tests say so, and each server of the [matrix](matrix.md)",
        f"runs them with the plain WSGI app: `{PATH}`. What wizgy does in",
        "detail, and how to deploy it, is in [applications](applications.md).",
        "",
        f"{KEPT} the server keeps it. {BROKEN} it does not: the test fails there, and must, or the run fails as stale.",
        "Where only some variants of a test fail, they are named. [The reasons](#why-the-others-differ) stand below.",
        "",
        *_tables(matrix, servers),
        "## Why the others differ",
        "",
        *_reasons(matrix, servers),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _tables(matrix: Matrix, servers: list[Server]) -> Iterator[str]:
    group = None
    for expectation in read_expectations():
        if expectation.group != group:
            if group is not None:
                yield ""
            group = expectation.group
            yield f"## {group}"
            yield ""
            yield f"| an application may expect | {' | '.join(server.title for server in servers)} |"
            yield "|---|" + "---|" * len(servers)
        marks = [_mark(matrix, server, expectation) for server in servers]
        yield f"| {expectation.text.replace('|', '&#124;')} | {' | '.join(marks)} |"
    yield ""


def _mark(matrix: Matrix, server: Server, expectation: Expectation) -> str:
    """Return how a server stands to an expectation, with the variants that it does not keep."""
    known = list(_known(matrix, server, expectation.name))
    if not known:
        return KEPT
    mark = SOMETIMES if all(each.sometimes for each in known) else BROKEN
    variants = [each.test.partition("[")[2].removesuffix("]") for each in known]
    return f"{mark} ({', '.join(variants)})" if all(variants) else mark


def _known(matrix: Matrix, server: Server, name: str) -> Iterator[KnownDeviation]:
    version = matrix.version(VERSION)
    for known in matrix.known:
        module, _, test = known.test.partition("::")
        applies = any(known.applies_to(server.name, version, python) for python in version.pythons)
        if applies and module == MODULE and test.partition("[")[0] == name:
            yield known


def _reasons(matrix: Matrix, servers: list[Server]) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for server in servers:
        for expectation in read_expectations():
            for known in _known(matrix, server, expectation.name):
                names = reasons.setdefault((known.reason, known.link), [])
                if server.title not in names:
                    names.append(server.title)
    for (reason, link), names in reasons.items():
        yield f"- {', '.join(names)}: [{reason}]({link})"
