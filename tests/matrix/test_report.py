"""The reports of a run: what is in them, how large they are, and that nothing of a server's answer is markup."""

from __future__ import annotations

import argparse
import base64
import gzip
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from matrix.report.badges import render_badges
from matrix.report.commands import add_report
from matrix.report.junit import render_junit
from matrix.report.page import render_page
from matrix.report.payload import ABSENT, LONG_TEXT, SHORT_DATA, make_payload, verdict_texts
from matrix.report.summary import MAX_CASES, render_document, render_summary
from matrix.results import VERDICTS, Deviation, Event, Exchange, Results
from tests.matrix.synthetic import HOSTILE, make_hostile, make_results, write_results

SERVERS = ("wizgy", "waitress", "wsgiref")


@pytest.fixture(scope="module")
def results() -> Results:
    """Return a small run with every kind of fault."""
    return make_results(servers=SERVERS, versions=("wsgi-1.0.1", "flask-3.1"), pythons=("3.12", "3.13"), cases=40)


def unpack(text: str) -> Any:
    """Undo what a payload does to its parts."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


# The payload


def test_the_index_has_every_verdict(results: Results) -> None:
    """Each cell has a character for each case, and those of absent cases differ from any verdict's."""
    index = unpack(make_payload(results, baseline=None, titles={}, detail_bytes=10**9).index)
    cells = [cell["cell"] for cell in index["cells"]]
    places = {(kind, id_): place for place, (kind, id_, *_) in enumerate(index["cases"])}

    found = {
        (cell, *key): VERDICTS[int(row[place])]
        for cell, row in zip(cells, index["results"], strict=True)
        for key, place in places.items()
        if row[place] != ABSENT
    }
    assert found == {case.key: case.verdict for case in results.cases}


def test_the_chunks_have_every_detail(results: Results) -> None:
    """What is said about a case in a cell is in the chunk that the index names, whole."""
    payload = make_payload(results, baseline=None, titles={}, detail_bytes=10**9)
    index = unpack(payload.index)
    details = {(entry["case"], entry["cell"]): entry for chunk in payload.chunks for entry in unpack(chunk)}
    case = next(case for case in results.cases if case.verdict == "fail" and case.exchange)
    place = next(place for place, fields in enumerate(index["cases"]) if fields[1] == case.id)
    cell = next(place for place, fields in enumerate(index["cells"]) if fields["cell"] == case.cell)

    assert len(details) == len(results.cases)
    detail = details[place, cell]
    assert detail["reproduce"] == case.reproduce
    assert case.exchange
    assert [event["data"] for event in detail["exchange"]["events"] if "data" in event] == [
        event.data for event in case.exchange.events if event.data
    ]
    assert detail in unpack(payload.chunks[index["cases"][place][-1]])


def test_the_same_results_make_the_same_page(results: Results) -> None:
    """A committed page changes only when its results do."""
    assert render_page(results) == render_page(results)


def test_bytes_of_passing_cases_give_way(results: Results) -> None:
    """Above the limit the passing cases lose their bytes, the failing ones keep them, and the index says so."""
    payload = make_payload(results, baseline=None, titles={}, detail_bytes=1)
    index = unpack(payload.index)
    details = [entry for chunk in payload.chunks for entry in unpack(chunk)]
    with_bytes = {index["results"][entry["cell"]][entry["case"]] for entry in details if "exchange" in entry}

    assert index["exchanges"] is False
    assert str(VERDICTS.index("pass")) not in with_bytes
    assert str(VERDICTS.index("fail")) in with_bytes
    assert all(entry["reproduce"] for entry in details)


def test_long_bytes_and_texts_are_bounded(results: Results) -> None:
    """No result, however much a server wrote, makes the page large; what is left out is counted."""
    event = Event(at=0, kind="received", data="x" * 3000, omitted=10, tail="y" * 100)
    case = replace(results.cases[0], verdict="pass", log="z" * 100_000, exchange=Exchange(events=(event,)))
    payload = make_payload(replace(results, cases=(case,)), baseline=None, titles={}, detail_bytes=10**9)
    (entry,) = unpack(payload.chunks[0])

    assert len(entry["log"]) < LONG_TEXT + 100
    (shown,) = entry["exchange"]["events"]
    assert len(shown["data"]) == SHORT_DATA
    assert shown["omitted"] == 10 + 3000 - SHORT_DATA
    assert shown["tail"] == "y" * 100


def test_ten_thousand_results_stay_small() -> None:
    """Ten thousand results with all their bytes make a page of less than a megabyte."""
    many = make_results(cases=60)

    assert len(many.cases) > 9500
    assert len(render_page(many)) < 1_000_000


def test_a_baseline_has_its_own_lists(results: Results) -> None:
    """The page gets the earlier run's verdicts by its own cells and cases, and aligns them itself."""
    earlier = make_results(servers=("wizgy", "cheroot"), versions=("wsgi-1.0.1",), pythons=("3.13",), cases=20)
    baseline = unpack(make_payload(results, baseline=earlier, titles={}, detail_bytes=10**9).index)["baseline"]

    assert [cell for cell, _ in baseline["cells"]] == [cell.cell for cell in earlier.cells]
    cases = [(kind, id_) for kind, id_ in baseline["cases"]]
    assert baseline["results"] == verdict_texts(earlier, [cell.cell for cell in earlier.cells], cases)


# The page


class Tags(html.parser.HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing(results: Results) -> None:
    """No element names anything outside the file, and the page forbids itself to load or run anything else."""
    tags = Tags(render_page(results)).tags
    sources = [value for _, attributes in tags for name in ("src", "href") if (value := attributes.get(name))]
    policy = next(str(attributes["content"]) for tag, attributes in tags if "http-equiv" in attributes)

    assert [source for source in sources if not source.startswith(("#", "data:"))] == []
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]


def test_nothing_of_a_server_is_markup(results: Results) -> None:
    """Markup in bytes, explanations and ids makes no element: the page has the same ones as without it."""
    hostile = make_hostile(results)

    page = render_page(hostile, title=HOSTILE, titles={"wizgy": HOSTILE})
    assert "owned" not in page.replace("document.title=&#39;owned&#39;", "")
    assert _elements(page) == _elements(render_page(results))


def _elements(page: str) -> list[str]:
    """Return the names of a page's elements; the chunks of data are as many as the data needs."""
    chunk = ("script", "application/octet-stream")
    return [tag for tag, attributes in Tags(page).tags if (tag, attributes.get("type")) != chunk]


def test_the_page_says_it_all_without_a_script(results: Results) -> None:
    """With no JavaScript there is still the table of cells and verdicts."""
    noscript = re.search(r"<noscript>(.*?)</noscript>", render_page(results), re.DOTALL)

    assert noscript
    for cell in results.cells:
        assert cell.cell in noscript[1]


def test_an_interrupted_run_says_so(results: Results) -> None:
    """Cells that did not end are on the page, and it does not claim that all is well."""
    wizgy = replace(
        results,
        cells=tuple(cell for cell in results.cells if cell.verdict in ("pass", "known")),
        cases=tuple(case for case in results.cases if case.verdict in ("pass", "known")),
        end=None,
    )
    page = render_page(wizgy)

    assert f"{len(wizgy.unfinished)} cells did not end" in page
    assert '<h1 class="bad">' in page


# JUnit


def test_junit_counts_and_places_everything(results: Results) -> None:
    """Each verdict is where CI systems look for it, and the totals are those of the parts."""
    root = ElementTree.fromstring(render_junit(results).encode())
    tests = root.findall("testsuite/testcase")
    verdicts = {case.key: case.verdict for case in results.cases}
    errors = {test.get("name") for test in tests if test.find("error") is not None}

    assert int(root.get("tests", "")) == len(tests)
    assert int(root.get("failures", "")) == sum(v in ("fail", "timeout", "stale") for v in verdicts.values())
    assert int(root.get("errors", "")) == len([t for t in tests if t.find("error") is not None])
    assert {"cell", "test_control.py::test_hello"} <= errors
    assert [test.get("name") for test in tests if test.find("skipped") is not None] == ["cell"]


def test_junit_says_what_is_known(results: Results) -> None:
    """A known deviation passes, with its reason: it is neither a failure nor a skip."""
    deviation = Deviation(reason="It is lenient.", link="https://example.test/")
    case = replace(results.cases[0], verdict="known", deviation=deviation)
    known = replace(results, cells=(), cases=(case,))
    root = ElementTree.fromstring(render_junit(known).encode())
    tests = [test for test in root.findall("testsuite/testcase") if test.get("name") != "cell"]

    assert [[child.tag for child in test] for test in tests] == [["system-out"]]
    assert tests[0].findtext("system-out") == "known deviation: It is lenient. (https://example.test/)"


def test_junit_is_xml_whatever_servers_send(results: Results) -> None:
    """Control bytes and surrogates, which XML cannot hold, are written out."""
    text = render_junit(make_hostile(results))
    problem = ElementTree.fromstring(text.encode()).find("testsuite/testcase/failure")

    assert problem is not None
    assert r"\x00\x1b[31m" in str(problem.get("message"))
    assert HOSTILE[:20] in str(problem.text)


def test_junit_has_the_cells_that_did_not_end(results: Results) -> None:
    """An interrupted cell is an error, not an absence."""
    root = ElementTree.fromstring(render_junit(replace(results, cells=results.cells[1:])).encode())
    suite = next(suite for suite in root if suite.get("name") == results.cells[0].cell)

    assert suite.get("errors") == "1"


# The summary and the badges


def test_the_summary_has_the_grid_and_what_failed(results: Results) -> None:
    """Each cell is in the grid, each failing case is listed once, and a command shows the first again."""
    summary = render_summary(results, titles={"flask": "Flask"})

    assert "| **Flask 3.1** |" in summary
    assert summary.count("3.13&nbsp;") == len([cell for cell in results.cells if cell.python == "3.13"])
    failing = [case for case in results.cases if case.verdict == "fail"]
    for case in failing[:3]:
        assert summary.count(f"`{case.id}`") == 1
    assert "```console\n$ python -m matrix repro " in summary


def test_the_summary_is_bounded() -> None:
    """A run in which hundreds of cases fail still has a summary that CI systems accept."""
    summary = render_summary(
        make_results(servers=("wsgiref",), versions=("wsgi-1.0.1",), pythons=("3.13",), faults=False)
    )

    assert len(re.findall(r"^\| ❌", summary, re.MULTILINE)) <= MAX_CASES
    assert "more cases" in summary
    assert len(summary) < 60_000


def test_the_headline_counts_what_ran() -> None:
    """A cell that could not run is not said to be as expected."""
    results = make_results(servers=("wizgy",), versions=("flask-3.1",), pythons=("3.12", "3.13"), faults=False)
    first, second = (replace(cell, verdict="pass") for cell in results.cells)
    cases = tuple(replace(case, verdict="pass") for case in results.cases if case.cell == first.cell)
    skipped = replace(results, cells=(first, replace(second, verdict="skip")), cases=cases)

    assert render_summary(skipped).startswith("## Everything as expected in 1 cell; 1 did not run\n")


def test_the_document_says_what_made_it(results: Results) -> None:
    """A page of a run has its title, the command of the run, the summary, and each known deviation once."""
    first = replace(results.cases[0], verdict="known")
    results = replace(results, cases=(first, *results.cases[1:]))
    page = render_document(results, title="A *run*")

    assert page.startswith("# A &#42;run&#42;\n\n<!-- Made by ")
    assert f"`{results.run.command}`" in page
    assert render_summary(results).splitlines()[0] in page
    assert page.partition("## Known deviations")[2].count(f"| `{first.id}` |") == 1


def test_the_summary_escapes(results: Results) -> None:
    """Nothing that a server sent is HTML or breaks the table."""
    summary = render_summary(make_hostile(results), titles={"wizgy": HOSTILE})
    fenced = re.sub(r"```.*?```", "", summary, flags=re.DOTALL)

    assert "<script>" not in fenced
    assert "<img" not in fenced
    rows = [line for line in fenced.splitlines() if line.startswith(("| 💥", "| ❌"))]
    assert rows
    assert {row.count("|") for row in rows} == {5}


def test_badges_are_svg_that_counts_cells(results: Results) -> None:
    """There is one for all, one for each server and one for each version; skipped cells do not count."""
    badges = render_badges(results, titles={"flask": "Flask <3>"})

    assert {"matrix.svg", "server-wizgy.svg", "flask-3.1.svg"} <= set(badges)
    for svg in badges.values():
        ElementTree.fromstring(svg)
    assert "Flask &lt;3&gt; 3.1" in badges["flask-3.1.svg"]
    ran = sum(cell.verdict != "skip" for cell in results.cells)
    assert f"of {ran} cells" in badges["matrix.svg"]


# The command


def report(*arguments: str | Path) -> int:
    """Run the command `report`."""
    parser = argparse.ArgumentParser()
    add_report(parser.add_subparsers())
    options = parser.parse_args(["report", *map(str, arguments)])
    status: int = options.run(options)
    return status


def test_the_page_lies_beside_the_results(tmp_path: Path, results: Results) -> None:
    """With no option the page gets the name of the results."""
    path = write_results(tmp_path / "r.jsonl", results)

    assert report(path) == 0
    assert "<!doctype html>" in (tmp_path / "r.html").read_text()


def test_every_output_at_once(tmp_path: Path, results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    """Outputs may be combined; `-` is standard output; several files are taken together."""
    half = len(results.cells) // 2
    names = {cell.cell for cell in results.cells[:half]}
    run = replace(results.run, cells=())
    first = replace(
        results,
        runs=(run,),
        cells=results.cells[:half],
        cases=tuple(case for case in results.cases if case.cell in names),
    )
    second = replace(
        results,
        runs=(replace(run, run="other"),),
        cells=results.cells[half:],
        cases=tuple(case for case in results.cases if case.cell not in names),
    )
    shards = [write_results(tmp_path / "1.jsonl", first), write_results(tmp_path / "2.jsonl", second)]

    outputs: list[str | Path] = ["--junit", tmp_path / "j" / "r.xml", "--badges", tmp_path / "b", "--summary", "-"]
    assert report(*shards, *outputs) == 0
    assert int(ElementTree.parse(tmp_path / "j" / "r.xml").getroot().get("tests", "")) >= len(results.cases)
    assert (tmp_path / "b" / "matrix.svg").exists()
    assert f"of {len(results.cells)} cells" in capsys.readouterr().out
    assert not (tmp_path / "1.html").exists()


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that holds no results is a wrong use of the command."""
    (tmp_path / "r.jsonl").write_text("{}\n")

    assert report(tmp_path / "r.jsonl") == 2
    assert "r.jsonl line 1: expected an object" in capsys.readouterr().err
