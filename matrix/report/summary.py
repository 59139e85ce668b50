"""Results as Markdown, for the summary of a step in CI or a page: the grid, then what failed, each case once."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from matrix.report.behaviour import MARKS, behaviour_table
from matrix.report.page import describe_facts, headline
from matrix.report.payload import count_verdicts
from matrix.results import UNEXPECTED, VERDICTS, Case, Results, Verdict, worst

MAX_CASES = 50
"""How many failing cases are listed: CI systems cut long summaries, or refuse them."""

MAX_TEXT = 200
"""How many characters of an explanation are shown."""


def render_summary(results: Results, *, titles: Mapping[str, str] | None = None) -> str:
    """Return the results as Markdown.

    Args:
        results: what the summary is about.
        titles: how frameworks and servers are written, by the names that cells use.
    """
    counts = count_verdicts(results)
    lines = [f"## {headline(results)}", "", " · ".join(map(escape, describe_facts(results))), ""]
    lines += [*_grid(results, counts, titles or {}), "", _legend(counts), ""]
    lines += [*_cell_problems(results), *_failing_cases(results), *_behaviour(results, titles or {})]
    return "\n".join(lines).rstrip() + "\n"


def render_document(results: Results, *, title: str, titles: Mapping[str, str] | None = None) -> str:
    """Return the results as a page of documentation, which says what made it.

    Args:
        results: what the page is about.
        title: its first line.
        titles: how frameworks and servers are written, by the names that cells use.
    """
    lines = [
        f"# {escape(title)}",
        "",
        "<!-- Made by `python -m matrix report RESULTS --document FILE` from the results of a run; not by hand. -->",
        "",
        f"The run: {code(results.run.command)}. Each entry of the table is one cell: the version of",
        "Python and its verdict. What the marks mean, and how to see any cell again, is in [the matrix](matrix.md).",
        "",
        render_summary(results, titles=titles),
        *_known_cases(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _grid(results: Results, counts: Mapping[str, Counter[Verdict]], titles: Mapping[str, str]) -> Iterator[str]:
    """Yield a table with a row for each version and a column for each server, the worst first."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for cell in counts:
        server, version, _ = cell.split("/")
        by_place.setdefault((version, server), []).append(cell)

    def rank(cells: Iterable[str]) -> int:
        return -sum(counts[cell][verdict] for cell in cells for verdict in UNEXPECTED)

    for cells in by_place.values():
        cells.sort(key=lambda cell: [int(number) for number in re.findall(r"\d+", cell.rpartition("/")[2])])
    versions = list(dict.fromkeys(version for version, _ in by_place))
    servers = list(dict.fromkeys(server for _, server in by_place))
    versions.sort(key=lambda version: rank(cell for cell in counts if cell.split("/")[1] == version))
    servers.sort(key=lambda server: rank(cell for cell in counts if cell.split("/")[0] == server))
    yield "| | " + " | ".join(escape(titles.get(server, server)) for server in servers) + " |"
    yield "|---|" + "---|" * len(servers)
    for version in versions:
        framework, _, number = version.rpartition("-")
        tiles = [
            " ".join(_tile(cell, counts[cell]) for cell in by_place.get((version, server), [])) for server in servers
        ]
        yield f"| **{escape(titles.get(framework, framework))} {number}** | " + " | ".join(tiles) + " |"


def _tile(cell: str, counts: Counter[Verdict]) -> str:
    python = cell.rpartition("/py")[2]
    bad = sum(counts[verdict] for verdict in UNEXPECTED)
    mark = MARKS[worst(counts)] if counts else "▫️"
    return f"{escape(python)}&nbsp;{mark}{f'&nbsp;{bad:,}' if bad else ''}"


def _legend(counts: Mapping[str, Counter[Verdict]]) -> str:
    total = sum(counts.values(), Counter[Verdict]())
    return " · ".join(f"{MARKS[verdict]} {verdict} {total[verdict]:,}" for verdict in VERDICTS if total[verdict])


def _cell_problems(results: Results) -> Iterator[str]:
    with_cases = {case.cell for case in results.cases}
    problems: dict[tuple[Verdict, str], list[str]] = {}
    for cell in results.cells:
        if cell.cell not in with_cases and cell.verdict != "pass":
            problems.setdefault((cell.verdict, cell.explanation), []).append(cell.cell)
    for (verdict, why), cells in problems.items():
        which = code(cells[0]) + (f" and {len(cells) - 1:,} more cells" if len(cells) > 1 else "")
        yield f"- {MARKS[verdict]} {which} {verdict}: {escape(_shorten(why))}"
    for unfinished in results.unfinished:
        yield f"- {code(unfinished)} did not end"
    if problems or results.unfinished:
        yield ""


def _failing_cases(results: Results) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in results.cases:
        if case.verdict in UNEXPECTED:
            groups.setdefault((case.kind, case.id), []).append(case)
    if not groups:
        return
    ordered = sorted(groups.values(), key=lambda cases: (VERDICTS.index(worst(_verdicts(cases))), -len(cases)))
    yield "| case | cells | blame | why |"
    yield "|---|---|---|---|"
    for cases in ordered[:MAX_CASES]:
        yield _describe_group(cases)
    if len(ordered) > MAX_CASES:
        yield f"\nand {len(ordered) - MAX_CASES:,} more cases"
    yield f"\nTo see the first of them again:\n\n```console\n$ {_one_line(ordered[0][0].reproduce)}\n```"


def _behaviour(results: Results, titles: Mapping[str, str]) -> Iterator[str]:
    """Yield what an application may expect of each server, where the run asked."""
    table = behaviour_table(results, titles)
    if table is None:
        return
    yield "\n## What an application may expect\n"
    yield "| an application may expect | " + " | ".join(escape(server) for server in table.servers) + " |"
    yield "|---|" + "---|" * len(table.servers)
    for rule, marks in table.rows:
        yield f"| {escape(rule)} | {' | '.join(marks)} |"
    yield ""


def _known_cases(results: Results) -> Iterator[str]:
    """Yield what is known to differ and did, each case once for all servers that have it."""
    groups: dict[str, list[Case]] = {}
    for case in results.cases:
        if case.verdict == "known":
            groups.setdefault(case.id, []).append(case)
    if not groups:
        return
    yield "## Known deviations that happened\n"
    yield "| case | rule | servers that deviate |"
    yield "|---|---|---|"
    for name, cases in sorted(groups.items()):
        servers = ", ".join(sorted({case.cell.partition("/")[0] for case in cases}))
        yield f"| {code(name)} | {escape(_shorten(cases[0].rule))} | {escape(servers)} |"
    yield "\nWhy each is accepted:\n"
    reasons: dict[tuple[str, str], set[str]] = {}
    for case in results.cases:
        if case.verdict == "known" and case.deviation:
            why = (case.deviation.reason, case.deviation.link)
            reasons.setdefault(why, set()).add(case.cell.partition("/")[0])
    for (reason, link), names in sorted(reasons.items(), key=lambda item: (sorted(item[1]), item[0])):
        yield f"- {escape(', '.join(sorted(names)))}: {escape(reason)} (<{link}>)"


def _describe_group(cases: Sequence[Case]) -> str:
    first = cases[0]
    where = code(first.cell) + (f" and {len(cases) - 1:,} more" if len(cases) > 1 else "")
    blame = ", ".join(dict.fromkeys(case.blame.on for case in cases if case.blame))
    why = escape(_shorten(first.explanation or first.got))
    return f"| {MARKS[worst(_verdicts(cases))]} {code(first.id)} | {where} | {blame} | {why} |"


def _verdicts(cases: Iterable[Case]) -> list[Verdict]:
    return [case.verdict for case in cases]


def _shorten(text: str) -> str:
    first = text.strip().split("\n")[0]
    return first if len(first) <= MAX_TEXT else first[:MAX_TEXT] + "…"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff`]+", " ", text)


def escape(text: str) -> str:
    """Return a text for Markdown, in which nothing of it is markup, nor HTML, nor the end of a table's field."""
    shown = html.escape(re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]+", " ", text), quote=False)
    return re.sub(r"([\\`*_\[\]|#~!@])", lambda found: f"&#{ord(found[0])};", shown)


def code(text: str) -> str:
    """Return a text in the type of code."""
    return f"`{text}`" if re.fullmatch(r"[\x20-\x5f\x61-\x7b\x7d\x7e]+", text) else f"<code>{escape(text)}</code>"
