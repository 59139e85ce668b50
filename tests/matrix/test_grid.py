"""What a terminal shows of many cells: grids that fit, and failures by cause."""

from __future__ import annotations

import pytest

from matrix.causes import describe_causes, find_causes
from matrix.cells import all_cells, choose_cells
from matrix.grid import describe_cells, draw_grid, span
from matrix.manifest import load_matrix
from matrix.progress import draw_results, format_estimate
from matrix.results import Blame, Case, Cell, Provenance, Verdict
from matrix.runner import CellResult

MATRIX = load_matrix()


def result(cell: str, *cases: Case, verdict: Verdict = "pass", explanation: str = "") -> CellResult:
    """Return what came of a cell."""
    record = Cell(
        cell=cell,
        transport="venv",
        provenance=Provenance(),
        verdict=verdict,
        explanation=explanation,
        started="2026-01-01T00:00:00Z",
        seconds=1.0,
        reproduce=f"repro {cell}",
    )
    return CellResult(record, cases)


def failed(cell: str, name: str, explanation: str, expected: tuple[str, ...] = (), got: str = "") -> Case:
    """Return a case that failed on one server alone."""
    return Case(
        cell=cell,
        id=name,
        kind="contract",
        verdict="fail",
        seconds=0.1,
        rule="The rule.",
        expected=expected,
        got=got,
        explanation=explanation,
        blame=Blame(on="this server only"),
        reproduce=f"repro {cell} {name}",
    )


@pytest.mark.parametrize("width", [1, 12, 20, 40, 200])
def test_grid_fits(width: int) -> None:
    """A grid has each entry once; a line is only wider than asked for where one column alone is."""
    rows, columns = ["flask-3.1", "wsgi-1.0.1"], ["wizgy", "gunicorn-sync", "waitress"]
    lines = draw_grid(rows, columns, lambda row, column: f"{row[0]}{column[0]}", width)

    text = "\n".join(lines)
    assert all(text.count(f" {row[0]}{column[:1]}") >= 1 for row in rows for column in columns)
    assert all(text.count(column) == 1 for column in columns)
    assert max(map(len, lines)) <= max(width, 10 + 2 + len("gunicorn-sync"))


@pytest.mark.parametrize(
    ("some", "text"),
    [("abc", "a-c"), ("ab", "a-b"), ("a", "a"), ("ac", "a, c"), ("", ""), ("bcd", "b-d"), ("abd", "a, b, d")],
)
def test_span(some: str, text: str) -> None:
    """Names that follow each other are said by the first and the last."""
    assert span(list(some), list("abcd")) == text


def test_what_there_is() -> None:
    """A list of cells is counted, and says what no cell is made of; a choice says it of the choice."""
    text = "\n".join(describe_cells(MATRIX, all_cells(MATRIX), 200))
    assert text.startswith(f"{len(all_cells(MATRIX))} cells: 6 servers, 10 versions of 4 frameworks, 5 Pythons\n")
    assert "  Python 3.13, 3.14: django-4.2" in text

    text = "\n".join(describe_cells(MATRIX, choose_cells(MATRIX, frameworks=["flask-3.1"]), 200))
    assert "not supported" not in text


def test_results_as_a_grid() -> None:
    """A pair has its worst verdict, and of how many Pythons it is when others came out better."""
    results = [result(f"good/flask-3.1/py3.{minor}") for minor in (11, 12)]
    results += [result("bad/flask-3.1/py3.11", verdict="fail"), result("bad/flask-3.1/py3.12", verdict="known")]
    results += [result("bad/wsgi-1.0.1/py3.11", verdict="crash")]

    grid = [line.split() for line in draw_results(results, 80)]
    assert grid[1:4] == [["bad", "good"], ["flask-3.1", "FAIL", "1/2", "pass"], ["wsgi-1.0.1", "CRASH", "-"]]


def test_one_cause_of_many_failures() -> None:
    """What differs in nothing but ports, addresses and dates is one cause, with a count and one command."""
    texts = [
        "AssertionError: assert 404 == 200 at http://127.0.0.1:4711/hello of <App object at 0x7f31>",
        "AssertionError: assert 404 == 200 at http://127.0.0.1:815/hello of <App object at 0x8a00>",
    ]
    cells = [f"bad/flask-3.1/py3.{minor}" for minor in (10, 11, 12, 13)]
    results = [
        result(cell, *(failed(cell, f"test_{place}", text) for place, text in enumerate(texts)), verdict="fail")
        for cell in cells
    ]
    [cause] = find_causes(results)
    assert (cause.cases, list(cause.cells)) == (8, cells)

    lines = list(describe_causes([cause]))
    assert lines[1] == f"    8 cases in 4 cells, this server only: {', '.join(cells[:3])} and 1 more"
    assert lines[-1] == f"    again: repro {cells[0]} test_0"


def test_different_causes() -> None:
    """Another status is another cause; a rule of bytes is its own; a cell with no case says why; the worst is first."""
    cell = "bad/flask-3.1/py3.11"
    cases = [
        failed(cell, "test_a", "assert 404 == 200"),
        failed(cell, "test_b", "assert 500 == 200"),
        failed(cell, "te-and-cl", "200", ("400, then closed",), "200"),
        failed(cell, "bare-lf", "200", ("400, then closed",), "200"),
    ]
    absent = result("none/flask-3.1/py3.11", verdict="setup-error", explanation="none did not answer\nlog: nothing")
    causes = find_causes([result(cell, *cases, verdict="fail"), absent])

    assert [cause.text for cause in causes] == [
        "none did not answer",
        "assert 404 == 200",
        "assert 500 == 200",
        "te-and-cl: The rule.",
        "bare-lf: The rule.",
    ]
    assert causes[0].again == "repro none/flask-3.1/py3.11"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "about 5 s"), (12, "about 10 s"), (89, "about 90 s"), (100, "about 2 min")]
)
def test_estimate(seconds: float, text: str) -> None:
    """A time that is not known well is not said as if it were."""
    assert format_estimate(seconds) == text
