"""The commands `report` and `diff` of `python -m matrix`.

What makes the reports is imported when it is needed: the other commands then need no Jinja.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matrix import diff
from matrix.manifest import load_matrix
from matrix.report.payload import DETAIL_BYTES
from matrix.results import EXIT_OK, EXIT_SETUP, EXIT_USAGE, Results, ResultsError, merge_results, read_results

REPORT = """\
Make reports of a run from its results. With no option that names an output, the report is a page beside the first
file of results: results.jsonl becomes results.html. Several files are taken together, as the shards of one run are; of
a cell that is in two of them the one named later counts.
"""

DIFF = """\
Say what changed from one run to another: what regressed, was fixed, changed its verdict, is new, or is gone.
The exit status is 1 when something regressed, and when a cell of the earlier run is lost: it was not run in the later
one, was skipped, or the run was stopped before it.
"""


def add_report(commands: Any) -> None:
    """Add the command `report` to the subcommands of a parser."""
    parser = commands.add_parser("report", help="make reports of a run from its results", description=REPORT)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="results.jsonl, or .jsonl.gz")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the page; it needs no network and no other file")
    parser.add_argument("--compare", type=Path, metavar="RESULTS", help="an earlier run that the page compares with")
    parser.add_argument("--title", default="Compatibility matrix", help="the title of the page (default: %(default)s)")
    parser.add_argument(
        "--detail-bytes",
        type=int,
        default=DETAIL_BYTES,
        metavar="N",
        help="above so many bytes the page leaves the bytes of passing cases out (default: %(default)s)",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="Markdown, for the summary of a step in CI")
    parser.add_argument("--document", type=Path, metavar="FILE", help="Markdown, as a page of documentation")
    parser.add_argument("--badges", type=Path, metavar="DIRECTORY", help="SVG badges: matrix.svg, flask-3.1.svg, …")
    parser.set_defaults(run=run_report)


def add_diff(commands: Any) -> None:
    """Add the command `diff` to the subcommands of a parser."""
    parser = commands.add_parser("diff", help="what changed from one run to another", description=DIFF)
    parser.add_argument("before", type=Path, metavar="BEFORE", help="the results of the earlier run")
    parser.add_argument("after", type=Path, metavar="AFTER", help="the results of the later run")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the page of the later run, which compares them"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="cells may be lost: the later run was to have fewer of them"
    )
    parser.set_defaults(run=run_diff)


def run_report(options: argparse.Namespace) -> int:
    """Write the reports that were asked for; return the exit status."""
    return _complain(lambda: _report(options))


def run_diff(options: argparse.Namespace) -> int:
    """Print what changed; return the exit status."""
    return _complain(lambda: _diff(options))


def _complain(command: Callable[[], int]) -> int:
    try:
        return command()
    except (ResultsError, OSError) as error:
        print(f"matrix: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        print(f"matrix: {error}; `pip install -r requirements/matrix.txt` has it", file=sys.stderr)
        return EXIT_SETUP


def _report(options: argparse.Namespace) -> int:
    from matrix.report.badges import render_badges, write_badges
    from matrix.report.junit import render_junit
    from matrix.report.page import render_page
    from matrix.report.summary import render_document, render_summary

    files = [_read(path) for path in options.results]
    results = merge_results(files) if len(files) > 1 else files[0]
    baseline = _read(options.compare) if options.compare else None
    titles = load_titles()
    html = options.html
    others = options.junit or options.summary or options.document or options.badges
    if not (html or others) or (baseline and not html):
        first: Path = options.results[0]
        html = first.with_name(first.name.removesuffix(".gz").removesuffix(".jsonl") + ".html")
    if html:
        page = render_page(
            results, baseline=baseline, title=options.title, titles=titles, detail_bytes=options.detail_bytes
        )
        _write(html, page)
    if options.junit:
        _write(options.junit, render_junit(results))
    if options.summary:
        _write(options.summary, render_summary(results, titles=titles))
    if options.document:
        _write(options.document, render_document(results, title=options.title, titles=titles))
    if options.badges:
        badges = render_badges(results, titles=titles)
        write_badges(options.badges, badges)
        print(f"{options.badges}: {len(badges)} badges")
    return EXIT_OK


def _diff(options: argparse.Namespace) -> int:
    from matrix.report.page import render_page

    before, after = _read(options.before), _read(options.after)
    differences = diff.compare(before, after)
    print(diff.format_differences(before, after, differences), end="")
    if options.html:
        _write(options.html, render_page(after, baseline=before, titles=load_titles()))
    lost = diff.lost_cells(differences)
    if lost and not options.allow_missing:
        print(
            f"matrix: {len(lost)} of {len(before.cells)} cells have no verdict in {options.after}; run them, or accept "
            "that with --allow-missing",
            file=sys.stderr,
        )
    return diff.exit_status(differences, allow_missing=options.allow_missing)


def load_titles() -> dict[str, str]:
    """Return how `matrix.toml` writes servers and frameworks, by their names."""
    matrix = load_matrix()
    return {name: each.title for each_of in (matrix.servers, matrix.frameworks) for name, each in each_of.items()}


def _read(path: Path) -> Results:
    results = read_results(path)
    if results.torn:
        print(
            f"matrix: {path}: the last line is torn, and left out: the run was killed, or still goes on",
            file=sys.stderr,
        )
    return results


def _write(path: Path, text: str) -> None:
    """Write a report; `-` stands for standard output."""
    if str(path) == "-":
        sys.stdout.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    print(f"{path}: {path.stat().st_size:,} bytes")
