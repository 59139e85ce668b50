"""Each statement of `docs/applications.md` is held by a test, which it names in a comment."""

from __future__ import annotations

import ast
import re

import pytest

from tests.harness.frameworks import ROOT

PAGE = (ROOT / "docs" / "applications.md").read_text(encoding="utf-8")
MARK = re.compile(r"<!-- test: (\S+)::(\w+) -->")
STATEMENT = re.compile(r"^- .+\n(?:  .+\n)*", re.MULTILINE)


@pytest.mark.parametrize(("path", "name"), sorted(set(MARK.findall(PAGE))))
def test_named_test_exists(path: str, name: str) -> None:
    """A test that the page names exists."""
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def test_every_statement_names_a_test() -> None:
    """No statement of the page stands there without a test that holds it."""
    statements = STATEMENT.findall(PAGE)

    assert len(statements) > 20
    assert [statement for statement in statements if not MARK.search(statement)] == []
    assert len(MARK.findall("".join(statements))) == len(re.findall("<!-- test", PAGE))


def test_every_platform_is_tested() -> None:
    """Each platform of the page has its case, and each case its platform."""
    titles = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    cases = (ROOT / "tests" / "server" / "test_platforms.py").read_text(encoding="utf-8")

    assert re.findall(r"Platform\(\n\s+\"(.+)\"", cases) == titles
