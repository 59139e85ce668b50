"""The report as one HTML file that needs no network: the page is its templates, and the data is `payload`."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup

from matrix.report.behaviour import behaviour_table
from matrix.report.payload import DETAIL_BYTES, count_verdicts, make_payload
from matrix.results import UNEXPECTED, VERDICTS, Results, Verdict

HERE = Path(__file__).parent
STATIC = HERE / "static"

SCRIPTS = ("elements.js", "data.js", "state.js", "grid.js", "list.js", "case.js", "main.js")
"""The parts of the page's script, in the order in which they are read."""

FILTERS = (
    ("server", "Server"),
    ("framework", "Framework"),
    ("python", "Python"),
    ("section", "Section"),
    ("kind", "Kind"),
    ("level", "Level"),
)

KEYS = (
    (("/",), "search"),
    (("j", "k"), "next case, previous case; also the arrows in the list"),
    (("Enter",), "open the case"),
    (("c",), "copy the command that reproduces it"),
    (("Esc",), "close the case, then the cell"),
    (("?",), "these keys"),
)

environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=jinja2.select_autoescape(default=True, default_for_string=True),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def render_page(
    results: Results,
    *,
    baseline: Results | None = None,
    title: str = "Compatibility matrix",
    titles: Mapping[str, str] | None = None,
    detail_bytes: int = DETAIL_BYTES,
) -> str:
    """Return the report as HTML.

    Args:
        results: what the report is about.
        baseline: an earlier run to compare with.
        title: the title of the page.
        titles: how frameworks and servers are written, by the names that cells use.
        detail_bytes: when the details would take more bytes than this, those of passing results are left out.
    """
    counts = count_verdicts(results)
    style = (STATIC / "report.css").read_text(encoding="utf-8")
    script = _script()
    page = environment.get_template("page.html.j2").render(
        title=title,
        headline=headline(results),
        bad=bool(_count_bad(counts) or results.unfinished),
        facts=describe_facts(results),
        provenance=_provenance(results),
        filters=FILTERS,
        keys=KEYS,
        verdicts=VERDICTS,
        cells=list(counts.items()),
        behaviour=behaviour_table(results, titles),
        style=_mark_safe(style, "style"),
        style_hash=_content_hash(style),
        script=_mark_safe(script, "script"),
        script_hash=_content_hash(script),
        payload=make_payload(results, baseline=baseline, titles=titles or {}, detail_bytes=detail_bytes),
    )
    # A lone surrogate, from bytes that were no UTF-8, cannot be written to a file.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _script() -> str:
    parts = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _mark_safe(text: str, tag: str) -> Markup:
    """Let a text of this package stand in the page as it is."""
    if f"</{tag}" in text.lower():
        raise ValueError(f"the page's {tag} must not hold </{tag}, which would end it")
    # Only what lies in matrix/report/static comes here, nothing from results.
    return Markup(text)


def _content_hash(text: str) -> str:
    """Return what a Content-Security-Policy calls a text by, so that the browser runs no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def headline(results: Results) -> str:
    """Return in one sentence what came of a run."""
    counts = count_verdicts(results)
    if not (bad := _count_bad(counts)):
        skipped = sum(cell.verdict == "skip" for cell in results.cells)
        ran = len(counts) - len(results.unfinished) - skipped
        return f"Everything as expected in {_count(ran, 'cell')}" + (f"; {skipped:,} did not run" if skipped else "")
    cells = sum(bool(UNEXPECTED.intersection(of_cell)) for of_cell in counts.values())
    return f"{_count(bad, 'result')} not as expected, in {cells:,} of {_count(len(counts), 'cell')}"


def describe_facts(results: Results) -> list[str]:
    """Return when, where and how long a run was, and how much it did."""
    run = results.run
    facts = [_format_time(run.started), _count(len(results.cases), "result")]
    if results.end:
        facts.append(f"{results.end.seconds / 60:.1f} minutes")
    if results.unfinished:
        facts.append(f"{_count(len(results.unfinished), 'cell')} did not end")
    commit = f" at {run.tool.commit[:9]}" if run.tool.commit else ""
    facts.append(f"{run.tool.name} {run.tool.version}{commit}{' with changes' if run.tool.modified else ''}")
    return [*facts, f"{run.host.system} {run.host.kernel}, {run.host.machine}"]


def _count_bad(counts: Mapping[str, Counter[Verdict]]) -> int:
    return sum(of_cell[verdict] for of_cell in counts.values() for verdict in UNEXPECTED)


def _provenance(results: Results) -> list[tuple[str, str]]:
    rows = []
    for run in results.runs:
        rows += [
            ("run", run.run),
            ("started", _format_time(run.started)),
            ("again", run.command),
            ("tool", f"{run.tool.name} {run.tool.version} {run.tool.commit or ''}"),
            ("host", f"{run.host.system} {run.host.kernel} {run.host.machine}, {_count(run.host.cpus, 'CPU')}"),
            ("seed", str(run.seed)),
        ]
    return rows


def _format_time(time: str) -> str:
    return f"{time[:10]} {time[11:16]} UTC"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
