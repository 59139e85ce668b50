"""The report of a run: a page in Markdown, plots, and the raw results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from benchmarks.reach import GOALS, WIZGY
from benchmarks.results import Results
from benchmarks.tables import columns

PAGE, RESULTS = "README.md", "results.json"

CLIENT_LIMIT = 0.9
"""The share of a processor above which it is the load that limits a figure."""

FIRST_LINES = 12

CAVEATS = """\
- Each round measures every server once under every workload, in an order that changes from round to round; a server
  is started anew for each measurement. A ratio is taken within a round, and what is shown is the median of the rounds
  and, in brackets, the quartiles.
- One process each, and {threads} threads where a server has threads: gunicorn's sync worker, bjoern and FastWSGI run
  the application on the thread that serves the sockets, and uvicorn has always ten threads. All other settings are
  the servers' own defaults, but for cheroot's backlog, which would be five connections.
- Server and load are pinned to one processor each and talk over the loopback. A network would hide most differences.
- The load is closed: a connection sends its next request when the answer to the last one is there. The percentiles of
  wrk have its correction for what it would have sent while it waited for a slow answer.
- Processor time is that of the whole process tree, with the kernel's work on its behalf. It varies far less than
  throughput when other programs run, so where both disagree believe the processor time.
- Peak memory counts pages that processes share once, and holds Python, the application and the server.
- uWSGI serves as many keep-alive connections as it has threads; the rest wait until one of these closes. So half of
  the 16 connections do all the work in its figures, and the others get no answer at all.
- The bare epoll loop parses nothing and runs no application: it is what a loop in Python can reach at most. The one
  with the app calls it with the same environ each time, and checks nothing of what it gets. nginx
  serves files and no application.
- All peers install and serve on CPython 3.10, 3.11, 3.12 and 3.13. bjoern (a C compiler, libev's headers) and FastWSGI
  (a C compiler) have no wheels; on 3.14 these two were not tried. One that cannot be installed is a row that says so.
- Every answer is checked: the status and the whole content before a measurement, the number of bytes and the absence
  of errors in it."""


def write_report(results: Results, folder: Path) -> Path:
    """Write page, plots and raw results to a folder; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / RESULTS)
    from benchmarks.plots import draw_all

    page = folder / PAGE
    page.write_text("\n".join(make_page(results, draw_all(results, folder))) + "\n", encoding="utf-8")
    return page


def make_page(results: Results, plots: Mapping[str, str]) -> Iterator[str]:
    """Give the lines of the page.

    Args:
        results: what was measured.
        plots: the files with plots, each with what it shows.
    """
    facts = results.facts
    yield "# Benchmarks"
    yield ""
    yield f"<!-- Made by `tox -e bench` on {facts['made']}; not by hand. -->"
    yield ""
    yield (
        f"wizgy beside its peers in one run of {facts['rounds']} rounds, {facts['seconds']:g} s for each measurement, "
        f"on {facts['machine']['processors']} processors ({facts['machine']['model']}), CPython {_python(results)}. "
        f"[How it was measured](#how-it-was-measured) says what these figures can tell and what not; the "
        f"[raw results]({RESULTS}) are there too."
    )
    yield ""
    for file, title in plots.items():
        yield f"![{title}]({file})"
        yield ""
    if WIZGY in facts["servers"]:
        yield from _reach(results)
    yield from _tables(results)
    yield from _method(results)


def _python(results: Results) -> str:
    return next((each["python"] for each in results.facts["servers"].values() if "python" in each), "?")


def _reach(results: Results) -> Iterator[str]:
    yield "## What was to be reached"
    yield ""
    yield "Set before the server was written, as what would make people choose it; the goals that were not reached"
    yield "stay, and [ARCHITECTURE](../../ARCHITECTURE.md#what-speed-was-not-reached-and-why) says why. The first word"
    yield "names a load of [the results](#results). A goal is for the ratio of requests a second; *by CPU* is that of"
    yield "processor time. In brackets stand the quartiles of the rounds."
    yield ""
    yield "| goal | measured | reached |"
    yield "|---|---|---|"
    for goal in GOALS:
        outcome = goal.judge(results)
        reached = {True: "yes", False: "**no**", None: ""}[outcome.met]
        yield f"| {goal.text} | {outcome.measured} | {reached} |"
    yield ""


def _tables(results: Results) -> Iterator[str]:
    yield "## Results"
    yield ""
    yield (
        f"`{results.reference} ÷ it` above 1 means that {results.reference} answers more requests; "
        f"`its CPU ÷ {results.reference}'s` above 1 that {results.reference} needs less processor time for one."
    )
    yield ""
    for workload in results.workloads:
        yield f"### {results.facts['workloads'][workload]['title']}"
        yield ""
        yield from _table(results, workload)
        yield ""


def _table(results: Results, workload: str) -> Iterator[str]:
    shown = columns(workload)
    yield "| server | " + " | ".join(column.heading(results) for column in shown) + " |"
    yield "|---|" + "---:|" * len(shown)
    for server in results.servers(workload):
        title = results.title(server)
        if server == results.reference:
            title = f"**{title}**"
        problem = results.problem(workload, server)
        cells = [_inline(problem)] if problem else [column.cell(results, workload, server) for column in shown]
        yield f"| {title} | " + " | ".join(cells + [""] * (len(shown) - len(cells))) + " |"


def _inline(problem: str) -> str:
    return "failed: " + problem.splitlines()[0].replace("|", "\\|").replace("<", "&lt;")


def _method(results: Results) -> Iterator[str]:
    facts = results.facts
    yield "## How it was measured"
    yield ""
    yield CAVEATS.format(threads=facts["threads"])
    yield from _noise(results)
    yield ""
    machine = facts["machine"]
    about = [machine["system"], machine["libc"], machine["wrk"], f"load average at the start {machine['load_average']}"]
    if facts["nice"]:
        about.append(f"priority (nice) of server and load {facts['nice']}")
    yield f"{', '.join(about)}."
    yield ""
    yield "| server | version | command |"
    yield "|---|---|---|"
    for server in facts["servers"].values():
        yield f"| {server['title']} | {server.get('version') or ''} | `{server['command']}` |"
    yield ""
    yield "`APP` is the application of the workload. The load:"
    yield ""
    yield "```text"
    yield from (f"{name:14} {each['command']}" for name, each in facts["workloads"].items())
    yield "```"
    yield from _failures(results)


def _noise(results: Results) -> Iterator[str]:
    """Say how quiet the machine was, and where the load was the limit."""
    if others := results.others_busy():
        yield (
            f"- While this was measured other programs (and the host of the machine) took {median(others):.2f} "
            f"processors in the median, {max(others):.2f} at most."
        )
    limited = [
        f"{results.title(server)} ({workload})"
        for workload in results.workloads
        for server in results.servers(workload)
        if (results.median(workload, server, lambda each: each.client_busy) or 0.0) > CLIENT_LIMIT
    ]
    if limited:
        yield f"- The load itself was the limit, so the server may be faster: {', '.join(limited)}."


def _failures(results: Results) -> Iterator[str]:
    """Give the whole of what went wrong."""
    failed = [
        (workload, server)
        for workload in results.workloads
        for server in results.servers(workload)
        if results.problem(workload, server)
    ]
    if not failed:
        return
    yield ""
    yield "## What failed"
    for workload, server in failed:
        yield ""
        yield f"{results.title(server)}, {results.facts['workloads'][workload]['title']}:"
        yield ""
        yield "```text"
        yield from results.problem(workload, server).splitlines()[:FIRST_LINES]
        yield "```"
