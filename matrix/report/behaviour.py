"""What an application may expect of each server, as the results of a run tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matrix.behaviour import MODULE
from matrix.results import Case, Results, Verdict, worst

MARKS: dict[Verdict, str] = {
    "crash": "💥",
    "setup-error": "🚧",
    "app-error": "🧩",
    "fail": "❌",
    "timeout": "⏳",
    "stale": "♻️",
    "known": "🔷",
    "pass": "✅",
    "skip": "⬜",
}


@dataclass(frozen=True)
class BehaviourTable:
    """A row for each expectation: what it says, and for each of the servers a mark with how much of it was kept."""

    servers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def behaviour_table(results: Results, titles: Mapping[str, str] | None = None) -> BehaviourTable | None:
    """Return the table of a run, None where it ran none of those tests."""
    found: dict[str, dict[str, list[Case]]] = {}
    servers: dict[str, None] = {}
    for case in results.cases:
        module, _, test = case.id.partition("::")
        if module == MODULE:
            server = case.cell.partition("/")[0]
            servers[server] = None
            found.setdefault(test.partition("[")[0], {}).setdefault(server, []).append(case)
    if not found:
        return None
    rows = tuple(
        (next(iter(by_server.values()))[0].rule, tuple(_mark(by_server.get(server, [])) for server in servers))
        for by_server in found.values()
    )
    return BehaviourTable(tuple((titles or {}).get(server, server) for server in servers), rows)


def _mark(cases: list[Case]) -> str:
    """Return the worst verdict of some cases, and how many variants passed everywhere where not all did."""
    if not cases:
        return ""
    variants: dict[str, list[Verdict]] = {}
    for case in cases:
        variants.setdefault(case.id, []).append(case.verdict)
    verdicts = [worst(of_variant) for of_variant in variants.values()]
    passed = verdicts.count("pass")
    return MARKS[worst(verdicts)] + (f" {passed} of {len(verdicts)}" if 0 < passed < len(verdicts) else "")
