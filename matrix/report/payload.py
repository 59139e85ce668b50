"""The results as the page of the report holds them: an index to filter by, and chunks of details that open on demand.

The index has the verdicts as one text for each cell, with one character for each case, so that ten thousand of them
take ten thousand bytes and no time to filter. All that is said about a single result is in chunks. A chunk holds some
cases, each with its results in every cell, because those are nearly the same text: so it compresses to a few percent.
Index and chunks are JSON, compressed with gzip and written in base64, which holds no character that means anything
to HTML.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from matrix.diff import CHANGE_MEANINGS
from matrix.records import encode
from matrix.results import UNEXPECTED, VERDICT_MEANINGS, VERDICTS, Case, Cell, Event, Exchange, Kind, Results, Verdict

CaseKey: TypeAlias = tuple[Kind, str]

ABSENT = "."
"""Stands for a case that has no verdict in a cell."""

CHUNK_BYTES = 200_000
"""About how many bytes of JSON one chunk has: a browser unpacks so much in a few milliseconds."""

DETAIL_BYTES = 8_000_000
"""How many bytes the details may take before those of passing results are left out, unless something else is said."""

SHORT_DATA = 600
"""How many bytes of one event of an expected result are kept; whoever needs more reproduces the case."""

DETAIL_KEYS = (
    "seconds",
    "expected",
    "got",
    "explanation",
    "log",
    "reproduce",
    "blame",
    "deviation",
    "exchange",
)
"""What a chunk says about one result; the index has the rest."""

LONG_TEXT = 4000
"""How many characters of an explanation or a log are kept, at its start and at its end together."""


@dataclass(frozen=True)
class Payload:
    """What the page embeds.

    Args:
        index: the index.
        chunks: the details.
        exchanges: whether the exchanges of all results are in; else only those of the results that stand out.
    """

    index: str
    chunks: tuple[str, ...]
    exchanges: bool

    @property
    def size(self) -> int:
        """How many bytes it takes in the page."""
        return len(self.index) + sum(map(len, self.chunks))


def make_payload(
    results: Results, *, baseline: Results | None, titles: Mapping[str, str], detail_bytes: int
) -> Payload:
    """Pack results for the page.

    Args:
        results: what the report is about.
        baseline: an earlier run to compare with.
        titles: how frameworks and servers are written, by the names that cells use.
        detail_bytes: when the details would take more bytes than this, those of passing results stay out.
    """
    by_case = _group_by_case(results.cases)
    cell_places = {cell: place for place, cell in enumerate(_cell_ids(results))}
    exchanges = True
    sizes, chunks = _pack_details(by_case, cell_places, exchanges=True)
    if sum(map(len, chunks)) > detail_bytes:
        exchanges = False
        sizes, chunks = _pack_details(by_case, cell_places, exchanges=False)
    chunk_of_case = [number for number, size in enumerate(sizes) for _ in range(size)]
    index = {
        "verdicts": [{"name": name, "meaning": VERDICT_MEANINGS[name], "bad": name in UNEXPECTED} for name in VERDICTS],
        "changes": [{"name": name, "meaning": meaning} for name, meaning in CHANGE_MEANINGS.items()],
        "titles": dict(titles),
        "runs": [encode(replace(run, cells=())) for run in results.runs],
        "end": encode(results.end) if results.end else None,
        "cells": _describe_cells(results, list(cell_places)),
        "cases": [
            _describe_case(key, cases, chunk)
            for (key, cases), chunk in zip(by_case.items(), chunk_of_case, strict=True)
        ],
        "results": verdict_texts(results, list(cell_places), list(by_case)),
        "exchanges": exchanges,
        "baseline": _describe_baseline(baseline) if baseline else None,
    }
    return Payload(_pack(_dump(index)), chunks, exchanges)


def count_verdicts(results: Results) -> dict[str, Counter[Verdict]]:
    """Return how often each verdict came, by cell; a cell that has no case counts its own verdict."""
    counts: dict[str, Counter[Verdict]] = {cell: Counter() for cell in _cell_ids(results)}
    for case in results.cases:
        counts[case.cell][case.verdict] += 1
    for cell in results.cells:
        if not counts[cell.cell]:
            counts[cell.cell][cell.verdict] += 1
    return counts


def verdict_texts(results: Results, cells: Sequence[str], cases: Sequence[CaseKey]) -> list[str]:
    """Return a text for each cell with the place of each case's verdict in `VERDICTS`."""
    places = {key: place for place, key in enumerate(cases)}
    rows = {cell: [ABSENT] * len(cases) for cell in cells}
    for case in results.cases:
        rows[case.cell][places[case.kind, case.id]] = str(VERDICTS.index(case.verdict))
    return ["".join(row) for row in rows.values()]


def _cell_ids(results: Results) -> list[str]:
    """Return every cell that ended, began, or was to run."""
    return list(dict.fromkeys([*(cell.cell for cell in results.cells), *results.unfinished]))


def _group_by_case(cases: Iterable[Case]) -> dict[CaseKey, list[Case]]:
    groups: dict[CaseKey, list[Case]] = {}
    for case in cases:
        groups.setdefault((case.kind, case.id), []).append(case)
    return groups


def _describe_cells(results: Results, ids: Iterable[str]) -> list[dict[str, Any]]:
    cells = {cell.cell: cell for cell in results.cells}
    return [_describe_cell(cells[each]) if each in cells else {"cell": each} for each in ids]


def _describe_cell(cell: Cell) -> dict[str, Any]:
    return encode(replace(cell, explanation=_cut_text(cell.explanation)))


def _describe_case(key: CaseKey, cases: Sequence[Case], chunk: int) -> list[Any]:
    first = cases[0]
    return [*key, first.rule, first.level, first.section, first.source, chunk]


def _describe_baseline(baseline: Results) -> dict[str, Any]:
    cells = _cell_ids(baseline)
    cases = list(dict.fromkeys((case.kind, case.id) for case in baseline.cases))
    verdicts = {cell.cell: cell.verdict for cell in baseline.cells}
    return {
        "run": encode(replace(baseline.run, cells=())),
        "cells": [[cell, verdicts.get(cell)] for cell in cells],
        "cases": cases,
        "results": verdict_texts(baseline, cells, cases),
    }


# Details


def _pack_details(
    by_case: Mapping[CaseKey, Sequence[Case]], cell_places: Mapping[str, int], *, exchanges: bool
) -> tuple[list[int], tuple[str, ...]]:
    """Return how many cases each chunk has, and the chunks."""
    sizes, packed = [], []
    for chunk in _chunks(by_case, cell_places, exchanges=exchanges):
        sizes.append(len(chunk))
        packed.append(_pack(f"[{','.join(detail for details in chunk for detail in details)}]"))
    return sizes, tuple(packed)


def _chunks(
    by_case: Mapping[CaseKey, Sequence[Case]], cell_places: Mapping[str, int], *, exchanges: bool
) -> Iterator[list[list[str]]]:
    """Yield the chunks: lists of cases, each a list of its details as JSON."""
    chunk: list[list[str]] = []
    size = 0
    for place, cases in enumerate(by_case.values()):
        details = [_dump(_describe_result(case, place, cell_places[case.cell], exchanges)) for case in cases]
        if size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(details)
        size += sum(map(len, details))
    if chunk:
        yield chunk


def _describe_result(case: Case, case_place: int, cell_place: int, exchanges: bool) -> dict[str, Any]:
    bad = case.verdict in UNEXPECTED
    exchange = case.exchange if exchanges or bad or case.verdict == "known" else None
    bounded = replace(
        case,
        seconds=round(case.seconds, 3),
        got=_cut_text(case.got),
        explanation=_cut_text(case.explanation),
        log=_cut_text(case.log),
        exchange=_shorten(exchange) if exchange and not bad else exchange,
    )
    values = encode(bounded)
    return {"case": case_place, "cell": cell_place, **{key: values[key] for key in DETAIL_KEYS if key in values}}


def _shorten(exchange: Exchange) -> Exchange:
    return replace(exchange, events=tuple(_shorten_event(event) for event in exchange.events))


def _shorten_event(event: Event) -> Event:
    kept = event.data[:SHORT_DATA]
    if kept == event.data:
        return event
    return replace(event, data=kept, omitted=event.omitted + len(event.data) - len(kept))


def _cut_text(text: str) -> str:
    if len(text) <= LONG_TEXT:
        return text
    half = LONG_TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters are left out here …\n{text[-half:]}"


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("ascii"), 9, mtime=0)).decode("ascii")
