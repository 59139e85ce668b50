"""The figures of a run as tables on a terminal."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Spread, ratios, spread
from benchmarks.run import Journal, by_turn, problem_of

PROBLEM_WIDTH = 100
COLUMNS = ("p50 ms", "p99 ms", "MiB", "busy")


def show(journal: Journal, console: Console) -> None:
    """Print a table for each workload that has measurements."""
    for name, facts in journal.facts["workloads"].items():
        if any(each.workload == name for each in journal.measurements):
            console.print(make_table(journal, name, facts))


def make_table(journal: Journal, workload: str, facts: dict[str, object]) -> Table:
    """Return the table of one workload; the first server is what the others are compared to."""
    servers = list(journal.facts["servers"])
    reference = servers[0]
    table = Table(title=f"{facts['title']} ({workload})", title_justify="left", header_style="bold")
    table.add_column("server", overflow="fold")
    for title in ("requests/s", f"{reference} ÷ it", *("CPU µs", f"its CPU ÷ {reference}'s"), *COLUMNS):
        table.add_column(title, justify="right")
    found = journal.measurements
    rate = {name: by_turn(found, workload, name, lambda each: each.rate) for name in servers}
    cpu = {name: by_turn(found, workload, name, lambda each: each.processor * 1e6) for name in servers}
    for name in servers:
        if not any(each.workload == workload and each.server == name for each in found):
            continue
        if problem := problem_of(found, workload, name):
            table.add_row(name, textwrap.shorten(problem.splitlines()[0], PROBLEM_WIDTH))
            continue
        others = [
            by_turn(found, workload, name, what)
            for what in (
                lambda each: each.p50 * 1e3,
                lambda each: each.p99 * 1e3,
                lambda each: each.memory / 2**20,
                lambda each: each.server_busy * 100,
            )
        ]
        p50, p99, memory, busy = (spread(list(each.values())) for each in others)
        table.add_row(
            name,
            tell_median(spread(list(rate[name].values())), "{:,.0f}"),
            "" if name == reference else tell(spread(ratios(rate[reference], rate[name])), "{:.2f}"),
            tell_median(spread(list(cpu[name].values())), "{:,.1f}"),
            "" if name == reference else tell(spread(ratios(cpu[name], cpu[reference])), "{:.2f}"),
            tell_median(p50, "{:,.2f}"),
            tell_median(p99, "{:,.2f}"),
            tell_median(memory, "{:,.0f}"),
            tell_median(busy, "{:.0f} %"),
        )
    return table


def tell_median(found: Spread | None, form: str) -> str:
    """Return a median."""
    return form.format(found.median) if found else ""


def tell(found: Spread | None, form: str) -> str:
    """Return a median with its quartiles in brackets."""
    if found is None:
        return ""
    return f"{form.format(found.median)} ({form.format(found.low)}-{form.format(found.high)})"
