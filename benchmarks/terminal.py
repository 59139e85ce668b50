"""The figures of a run as tables on a terminal."""

from __future__ import annotations

import textwrap
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.results import Results
from benchmarks.tables import columns

NOISY = 0.2
"""Processors that other programs may keep busy before a reader is warned."""

PROBLEM_WIDTH = 60


def show(results: Results, console: Console) -> None:
    """Print a table for each workload that has measurements."""
    for workload in results.workloads:
        console.print(make_table(results, workload))
    others = results.others_busy()
    if others and median(others) > NOISY:
        told = (
            f"Other programs took {median(others):.2f} processors meanwhile: believe the CPU columns before the rest."
        )
        console.print(told, style="yellow")


def make_table(results: Results, workload: str) -> Table:
    """Return the table of one workload."""
    title = results.facts["workloads"][workload]["title"]
    shown = columns(workload)
    table = Table(title=f"{title} ({workload})", title_justify="left", header_style="bold")
    table.add_column("server", overflow="fold")
    for column in shown:
        table.add_column(column.heading(results), justify="right")
    for server in results.servers(workload):
        problem = results.problem(workload, server)
        cells = (
            [escape(textwrap.shorten(problem.splitlines()[0], PROBLEM_WIDTH, placeholder=" ..."))]
            if problem
            else [column.cell(results, workload, server) for column in shown]
        )
        table.add_row(escape(server), *cells, style="bold" if server == results.reference else None)
    return table
