"""What an application may expect: the page from matrix.toml, and the table from the results of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matrix.behaviour import MODULE, Expectation, behaviour_page, read_expectations
from matrix.manifest import KnownDeviation, Matrix, load_matrix
from matrix.report.behaviour import behaviour_table
from matrix.report.page import render_page
from matrix.report.summary import render_summary
from matrix.results import Results, Verdict
from tests.matrix.synthetic import make_results

MATRIX = load_matrix()
RULE = "A rule with <b>."

TESTS = '''\
"""A module."""

# Forks


def test_first(own):
    """The first
    rule."""


# Files


def test_second(own):
    """The second | rule."""
'''


def deviation(test: str) -> KnownDeviation:
    """Return a known deviation of waitress with the plain app."""
    return KnownDeviation(f"{MODULE}::{test}", ("wsgi",), ("waitress",), ("*",), "a reason", "https://x.test/")


def with_known(*known: KnownDeviation) -> Matrix:
    """Return today's matrix with other known deviations."""
    return replace(MATRIX, known=known)


def row(page: str, text: str) -> list[str]:
    """Return the marks of a row of a page, by their columns."""
    [line] = [line for line in page.splitlines() if line.startswith(f"| {text}")]
    return [field.strip() for field in line.strip("|").split("|")][1:]


def test_expectations_are_read_in_order(tmp_path: Path) -> None:
    """Each test is an expectation, with the group that it stands in and its rule in one line."""
    path = tmp_path / "test_x.py"
    path.write_text(TESTS, "utf-8")

    assert read_expectations(path) == [
        Expectation("Forks", "test_first", "The first rule."),
        Expectation("Files", "test_second", "The second | rule."),
    ]


def test_page_marks_what_is_known() -> None:
    """A server that is known to deviate is marked, with the variants that do; every other one keeps the rule."""
    known = [deviation("test_executor[fork]"), deviation("test_exit_functions_run"), deviation("test_event_loop")]
    known[2] = replace(known[2], sometimes=True)
    page = behaviour_page(with_known(*known))
    waitress = [server.name for server in MATRIX.servers_for("matrix")].index("waitress")

    assert row(page, "An executor of")[waitress] == "🔷 (fork)"
    assert row(page, "What is registered")[waitress] == "🔷"
    assert row(page, "A view can run")[waitress] == "🔷 at times"
    assert set(row(page, "A view can run")[:waitress]) == {"✅"}
    assert "- waitress: [a reason](https://x.test/)" in page


def test_page_has_every_expectation_and_wizgy_keeps_all() -> None:
    """No rule is left out of the page, and none has a known deviation of wizgy."""
    page = behaviour_page(MATRIX)
    expectations = read_expectations()

    assert len(expectations) > 25
    assert all(expectation.text and expectation.group for expectation in expectations)
    assert {row(page, expectation.text)[0] for expectation in expectations} == {"✅"}


def results_with(*verdicts: tuple[str, str, Verdict]) -> Results:
    """Return the results of a run that has, beside others, these cases: server, test, verdict."""
    results = make_results(servers=("wizgy",), versions=("flask-3.1",), pythons=("3.13",), cases=10, faults=False)
    model = results.cases[0]
    cases = [
        replace(model, cell=f"{server}/wsgi-1.0.1/py3.13", id=f"{MODULE}::{test}", verdict=verdict, rule=RULE)
        for server, test, verdict in verdicts
    ]
    others = [case for case in results.cases if not case.id.startswith(MODULE)]
    return replace(results, cases=(*others, *cases))


def test_table_of_a_run() -> None:
    """A row has each server's worst verdict, and how many variants it keeps where those are not all."""
    table = behaviour_table(
        results_with(
            ("wizgy", "test_one[a]", "pass"),
            ("wizgy", "test_one[b]", "pass"),
            ("waitress", "test_one[a]", "known"),
            ("waitress", "test_one[b]", "pass"),
            ("wizgy", "test_two", "fail"),
        ),
        {"wizgy": "Wizgy"},
    )

    assert table is not None
    assert table.servers == ("Wizgy", "waitress")
    assert [marks for _, marks in table.rows] == [("✅", "🔷 1 of 2"), ("❌", "")]


def test_reports_have_the_section_where_it_was_asked() -> None:
    """Summary and page have the table of a run that asked, with nothing of it as markup, and else say nothing."""
    asked, not_asked = results_with(("wizgy", "test_one", "pass")), results_with()

    assert "## What an application may expect" in render_summary(asked)
    assert "| A rule with &lt;b&gt;. | ✅ |" in render_summary(asked)
    assert "What an application may expect" not in render_summary(not_asked)
    assert "A rule with &lt;b&gt;." in render_page(asked)
    assert 'id="behaviour"' not in render_page(not_asked)


def test_known_deviations_name_expectations() -> None:
    """The tests that known deviations name are those that exist: their variants are checked when they are collected."""
    names = {expectation.name for expectation in read_expectations()}
    known = {known.test.partition("::")[2].partition("[")[0] for known in MATRIX.known if known.test.startswith(MODULE)}

    assert known <= names
