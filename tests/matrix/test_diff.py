"""What became of verdicts from one run to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from matrix import diff
from matrix.cli import main
from matrix.report.commands import run_diff
from matrix.results import Results, Verdict
from tests.matrix.synthetic import make_results, write_results

CELL = "wizgy/flask-3.1/py3.13"


@pytest.fixture
def before() -> Results:
    """Return a run of one cell with four cases, all passing."""
    results = make_results(servers=("wizgy",), versions=("flask-3.1",), pythons=("3.13",), cases=4, faults=False)
    cases = tuple(replace(case, verdict="pass") for case in results.cases)
    return replace(results, cells=tuple(replace(cell, verdict="pass") for cell in results.cells), cases=cases)


def judge(results: Results, *verdicts: Verdict, cell: Verdict = "fail") -> Results:
    """Return results whose cases have these verdicts, and whose cell has the one that is named."""
    cases = tuple(replace(case, verdict=verdict) for case, verdict in zip(results.cases, verdicts, strict=True))
    return replace(results, cells=tuple(replace(each, verdict=cell) for each in results.cells), cases=cases)


@pytest.mark.parametrize(
    ("earlier", "later", "change"),
    [
        ("pass", "pass", None),
        ("fail", "fail", None),
        (None, None, None),
        ("skip", None, None),
        ("pass", "fail", "regressed"),
        ("known", "stale", "regressed"),
        ("known", "crash", "regressed"),
        ("fail", "pass", "fixed"),
        ("timeout", "known", "fixed"),
        ("fail", "timeout", "changed"),
        ("pass", "known", "changed"),
        (None, "fail", "new"),
        ("skip", "pass", "new"),
        ("pass", None, "gone"),
        ("fail", "skip", "gone"),
    ],
)
def test_what_became_of_a_verdict(earlier: Verdict | None, later: Verdict | None, change: str | None) -> None:
    """Only from expected to unexpected is a regression; what was skipped had no verdict."""
    assert diff.classify(earlier, later) == change


def test_differences_are_ordered(before: Results) -> None:
    """What regressed comes first, and what stayed the same is not listed."""
    earlier = judge(before, "pass", "fail", "pass", "fail")
    later = judge(before, "fail", "pass", "pass", "fail")

    found = diff.compare(earlier, later)
    assert [(each.change, each.id) for each in found] == [
        ("regressed", before.cases[0].id),
        ("fixed", before.cases[1].id),
    ]
    assert diff.exit_status(found) == 1


def test_a_run_against_itself_has_no_differences(before: Results) -> None:
    """Nothing changed, and the exit status says so."""
    assert diff.compare(before, before) == []
    assert diff.exit_status([]) == 0


def test_a_cell_that_does_not_start_regressed(before: Results) -> None:
    """When the cases are gone because the cell cannot be set up, that is a regression and not only a disappearance."""
    broken = replace(before, cells=tuple(replace(cell, verdict="setup-error") for cell in before.cells), cases=())

    found = diff.compare(before, broken)
    assert [(each.change, each.kind) for each in found[:1]] == [("regressed", "cell")]
    assert [each.change for each in found[1:]] == ["gone"] * 4
    assert diff.exit_status(found) == 1


@pytest.mark.parametrize("how", ["not there", "skipped"])
@pytest.mark.parametrize("verdict", ["pass", "fail", "known"])
def test_a_lost_cell_fails(before: Results, how: str, verdict: Verdict) -> None:
    """A cell that had a verdict, whichever, and has none now fails the comparison, unless that is accepted."""
    earlier = replace(before, cells=tuple(replace(cell, verdict=verdict) for cell in before.cells))
    skipped = tuple(replace(cell, verdict="skip") for cell in before.cells)
    later = replace(before, cells=skipped if how == "skipped" else (), cases=())

    found = diff.compare(earlier, later)
    assert diff.lost_cells(found) == [CELL]
    assert diff.exit_status(found) == 1
    assert diff.exit_status(found, allow_missing=True) == 0


def test_a_regression_fails_whatever_may_be_lost(before: Results) -> None:
    """Accepting that cells are lost accepts nothing else."""
    found = diff.compare(before, judge(before, "fail", "pass", "pass", "pass"))
    assert diff.exit_status(found, allow_missing=True) == 1


def test_cells_and_cases_that_are_new_or_skipped_are_not_lost(before: Results) -> None:
    """A cell that has no verdict in either run, or only in the later one, is not lost; nor is one that lost a case."""
    nothing = replace(before, cells=(), cases=())
    fewer = replace(before, cases=before.cases[1:])
    for earlier, later in ((nothing, before), (nothing, nothing), (before, fewer)):
        assert diff.exit_status(diff.compare(earlier, later)) == 0


def test_the_text_says_what_changed(before: Results) -> None:
    """The text has counts, and for each case its cell, its id and both verdicts."""
    later = judge(before, "fail", "pass", "pass", "pass")
    text = diff.format_differences(before, later, diff.compare(before, later))

    assert "regressed       1       1" in text
    assert f"  {CELL}  pass -> fail\n    contract     {before.cases[0].id}  pass -> fail\n" in text


def test_many_new_cases_are_counted(before: Results) -> None:
    """A cell that is new with all its cases takes two lines, not a line for each case."""
    wide = make_results(servers=("wizgy",), versions=("flask-3.1",), pythons=("3.13",), cases=100, faults=False)
    nothing = replace(wide, cells=(), cases=())

    text = diff.format_differences(nothing, wide, diff.compare(nothing, wide))
    assert "    100 cases\n" in text
    assert len(text.splitlines()) < 15


def test_the_command(tmp_path: Path, before: Results, capsys: pytest.CaptureFixture[str]) -> None:
    """`diff` prints the text, writes the page that compares, and fails when something regressed."""
    from argparse import Namespace

    later = judge(before, "fail", "pass", "pass", "pass")
    earlier_path, later_path = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_results(earlier_path, before)
    write_results(later_path, later)
    options = Namespace(before=earlier_path, after=later_path, html=tmp_path / "c.html", allow_missing=False)

    assert run_diff(options) == 1
    assert "regressed" in capsys.readouterr().out
    assert "<title>" in (tmp_path / "c.html").read_text()
    assert run_diff(Namespace(before=earlier_path, after=earlier_path, html=None, allow_missing=False)) == 0
    assert run_diff(Namespace(before=tmp_path / "absent", after=later_path, html=None, allow_missing=False)) == 2
    assert "absent: cannot be read" in capsys.readouterr().err


def test_the_command_with_a_lost_cell(tmp_path: Path, before: Results, capsys: pytest.CaptureFixture[str]) -> None:
    """`diff` says how many cells are lost, and what to do."""
    write_results(tmp_path / "a.jsonl", before)
    write_results(tmp_path / "b.jsonl", replace(before, cells=(), cases=()))
    words = ["diff", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]

    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("matrix: 1 of 1 cells have no verdict in ")
    assert "run them, or accept that with --allow-missing" in said
    assert main([*words, "--allow-missing"]) == 0
    assert not capsys.readouterr().err
