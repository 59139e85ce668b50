"""Results as JUnit XML, which CI systems show: a test suite for each cell, a test case for each case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from matrix.results import UNEXPECTED, Case, Cell, Results, Verdict

NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""

ERRORS: frozenset[Verdict] = frozenset(("crash", "setup-error", "app-error"))
"""Verdicts that say that a case could not be judged, which JUnit calls errors; the other bad ones are failures."""


def render_junit(results: Results) -> str:
    """Return the results as JUnit XML.

    A known deviation passes, and says so among its output: it is neither failed nor skipped.
    """
    by_cell: dict[str, list[Case]] = {}
    for case in results.cases:
        by_cell.setdefault(case.cell, []).append(case)
    cells = {cell.cell: cell for cell in results.cells}
    root = Element("testsuites", name="compatibility matrix")
    for cell in dict.fromkeys([*cells, *by_cell, *results.unfinished]):
        root.append(_make_suite(cell, cells.get(cell), by_cell.get(cell, [])))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _make_suite(name: str, cell: Cell | None, cases: Sequence[Case]) -> Element:
    suite = Element("testsuite", name=name)
    if cell:
        suite.set("timestamp", cell.started.rstrip("Z"))
        suite.set("time", f"{cell.seconds:.3f}")
        suite.append(_make_properties(cell))
    tests = [_make_test(case) for case in cases]
    if not tests or not cell:
        tests.append(_make_test_of_cell(name, cell))
    suite.extend(tests)
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(test.find(tag) is not None for test in tests)))
    suite.set("tests", str(len(tests)))
    return suite


def _make_properties(cell: Cell) -> Element:
    provenance = cell.provenance
    values = {
        "transport": cell.transport,
        "server version": provenance.server_version,
        "server commit": provenance.server_commit,
        "interpreter": provenance.interpreter,
        "image": provenance.image,
        "digest": provenance.digest,
        "packages": " ".join(provenance.packages),
        "reproduce": cell.reproduce,
    }
    properties = Element("properties")
    for name, value in values.items():
        if value:
            SubElement(properties, "property", name=name, value=clean(value))
    return properties


def _make_test(case: Case) -> Element:
    test = Element("testcase", classname=f"{case.cell}.{case.kind}", name=clean(case.id), time=f"{case.seconds:.3f}")
    if case.verdict in UNEXPECTED:
        test.append(_make_problem(case.verdict, case.explanation or case.got, _describe(case)))
    elif case.verdict == "skip":
        SubElement(test, "skipped", message=clean(case.explanation))
    elif case.verdict == "known" and case.deviation:
        output = SubElement(test, "system-out")
        output.text = clean(f"known deviation: {case.deviation.reason} ({case.deviation.link})")
    return test


def _make_test_of_cell(name: str, cell: Cell | None) -> Element:
    """Return a test that stands for a cell with no case, or one that did not end."""
    test = Element("testcase", classname=name, name="cell")
    if not cell:
        test.append(_make_problem("setup-error", "the cell did not end: the run was interrupted", ""))
    elif cell.verdict in UNEXPECTED:
        test.append(_make_problem(cell.verdict, cell.explanation, f"reproduce: {cell.reproduce}"))
    elif cell.verdict == "skip":
        SubElement(test, "skipped", message=clean(cell.explanation))
    return test


def _make_problem(verdict: Verdict, message: str, text: str) -> Element:
    first = message.strip().split("\n")[0]
    problem = Element("error" if verdict in ERRORS else "failure", type=verdict, message=clean(first))
    problem.text = clean(text)
    return problem


def _describe(case: Case) -> str:
    parts = [
        case.rule,
        f"section: {case.section} ({case.level})" if case.section else "",
        *(f"expected: {outcome}" for outcome in case.expected),
        f"got: {case.got}" if case.got else "",
        case.explanation,
        f"blame: {case.blame.on}" if case.blame else "",
        f"reproduce: {case.reproduce}",
    ]
    return "\n".join(part for part in parts if part)


def clean(text: str) -> str:
    r"""Return a text with what XML cannot hold written as Python would, `\x00`."""
    return NO_XML.sub(lambda found: repr(found[0])[1:-1], text)
