"""The command line: `python -m benchmarks`, the same as `tox -e bench --`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import instructions
from benchmarks.accounting import choose_processors, read_siblings
from benchmarks.instructions import COUNTED, FIGURES, GATE, PAGE, CountError, Figures
from benchmarks.load import find_wrk
from benchmarks.measure import Settings
from benchmarks.report import RESULTS, write_report
from benchmarks.results import Journal, Measurement, Results
from benchmarks.run import Plan, carry_out, describe
from benchmarks.servers import BARE_APP, REFERENCE, Contender, UsageError, names, parse_contender
from benchmarks.terminal import show
from benchmarks.workloads import WORKLOADS, Workload
from matrix.manifest import ROOT, load_matrix

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

PUBLISHED = ROOT / "docs" / "benchmarks"
SCRATCH = ROOT / "build" / "benchmarks"

WIDTH = 120

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

EXAMPLES = """\
A server is one of `list`; wizgy can also be taken from a commit or a folder (wizgy@HEAD~3, wizgy@/path/to/server), and
any server can have options of its own ("wizgy --threads 1").

examples:
  python -m benchmarks --quick
  python -m benchmarks --workload hello --server wizgy --server granian
  python -m benchmarks compare --workload hello --server wizgy --server wizgy@HEAD --rounds 7
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in ("run", "compare", "report", "list", "instructions", "-h", "--help"):
        words = ["run", *words]
    parsed = _parser().parse_args(words)
    console = Console(stderr=True)
    try:
        status: int = parsed.carry_out(parsed, console)
        return status
    except UsageError as error:
        console.print(f"benchmarks: {error}", markup=False)
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure wizgy and its peers in one run, in turns, on the same work.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure and write a report (what is meant with no COMMAND)")
    _add_choices(run, rounds=5)
    run.add_argument("--quick", action="store_true", help="one round of half a second each: does it work?")
    run.add_argument("--resume", action="store_true", help="go on with the run that was stopped last")
    run.add_argument("--output", type=Path, metavar="DIR", help="default: docs/benchmarks for a whole run, else build/")
    run.set_defaults(carry_out=_run)
    compare = commands.add_parser("compare", help="measure a few, print a table, write nothing that is kept")
    _add_choices(compare, rounds=7)
    compare.set_defaults(carry_out=_compare)
    report = commands.add_parser("report", help="write page and plots again from results.json, or from a run's journal")
    report.add_argument("results", type=Path, nargs="?", default=PUBLISHED / RESULTS, help="default: %(default)s")
    report.add_argument("--output", type=Path, metavar="DIR", help="default: where the results are")
    report.set_defaults(carry_out=_report)
    counting = commands.add_parser("instructions", help="count the instructions of a request, which no noise disturbs")
    add = counting.add_argument
    add("--workload", action="append", metavar="NAME", help=f"of {', '.join(COUNTED)}; several with commas; repeatable")
    add("--server", action="append", metavar="SERVER", help="a server to count; repeatable; default: wizgy alone")
    add("--python", default=VERSION, metavar="X.Y", help="the Python of the servers (default: %(default)s)")
    add("--check", action="store_true", help=f"fail where {', '.join(GATE)} cost more than the committed figures allow")
    add("--write", action="store_true", help="count every workload and server, and write the figures and their page")
    counting.set_defaults(carry_out=_count)
    listing = commands.add_parser("list", help="say what workloads and servers there are")
    listing.set_defaults(carry_out=_list)
    return parser


def _add_choices(parser: argparse.ArgumentParser, rounds: int) -> None:
    add = parser.add_argument
    add("--workload", action="append", metavar="NAME", help="a workload, or several with commas; repeatable")
    add("--server", action="append", metavar="SERVER", help="a server to measure; repeatable; the first is compared to")
    add("--rounds", type=int, default=rounds, metavar="N", help="rounds (default: %(default)s)")
    add("--seconds", type=float, default=1.0, metavar="S", help="seconds of each measurement (default: %(default)s)")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    add("--nice", type=int, default=0, metavar="N", help="priority of server and load (default: %(default)s)")
    add("--python", default=version, metavar="X.Y", help="the Python of the servers (default: %(default)s)")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    path = SCRATCH / "run.jsonl"
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.5
    earlier = _recall(path, arguments) if arguments.resume else None
    status, journal = _measure(arguments, console, path, earlier)
    if status == OK:
        facts = journal.facts
        whole = {*WORKLOADS} == {*facts["workloads"]} and {*names(load_matrix())} == {*facts["servers"]}
        folder = arguments.output or (PUBLISHED if whole and facts["rounds"] > 1 else SCRATCH / "report")
        console.print(f"written: {write_report(journal, folder)}", highlight=False)
    return status


def _recall(path: Path, arguments: argparse.Namespace) -> Journal:
    """Read a run that was stopped, and go on with what it was asked for, whatever is asked now.

    Raises:
        UsageError: there is none.
    """
    try:
        journal = Journal.read(path)
        facts = journal.facts
        arguments.workload, arguments.server = list(facts["workloads"]), list(facts["servers"])
        arguments.rounds, arguments.seconds = facts["rounds"], facts["seconds"]
        arguments.python, arguments.nice = facts["python"], facts["nice"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"there is no run to go on with: {error}") from error
    return journal


def _compare(arguments: argparse.Namespace, console: Console) -> int:
    return _measure(arguments, console, SCRATCH / "compare.jsonl")[0]


def _report(arguments: argparse.Namespace, console: Console) -> int:
    path: Path = arguments.results
    try:
        results = Journal.read(path) if path.suffix == ".jsonl" else Results.read(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"there are no results: {error}") from error
    console.print(f"written: {write_report(results, arguments.output or path.parent)}", highlight=False)
    return OK


def _count(arguments: argparse.Namespace, console: Console) -> int:
    instructions.need_callgrind()
    servers = arguments.server or [REFERENCE]
    workloads = instructions.choose(arguments.workload, GATE if arguments.check else COUNTED)
    if arguments.write:
        servers, workloads = list(instructions.SERVERS), instructions.choose(None, COUNTED)
    plan = [(workload, contender) for workload in workloads for contender in _contenders(servers)]
    if arguments.check:  # it tells how this build of Python compares with that of the committed figures
        plan.insert(0, (WORKLOADS["hello"], _contenders([BARE_APP])[0]))
    counts: dict[str, dict[str, int]] = {workload.name: {} for workload in workloads}
    status = OK
    for workload, contender in plan:
        if not instructions.serves(workload, contender):
            continue
        try:
            figure = instructions.count(workload, contender, arguments.python)
        except CountError as error:
            console.print(str(error), style="red", markup=False, highlight=False)
            status = FAILED
            continue
        print(f"{workload.name:10}{contender.name:24}{figure:10,} instructions", flush=True)
        counts.setdefault(workload.name, {})[contender.name] = figure
    figures = Figures(instructions.describe_python(), counts)
    if status == OK and arguments.write:
        figures.write()
        PAGE.write_text(instructions.make_page(figures), "utf-8")
        console.print(f"written: {FIGURES} and {PAGE.name}", highlight=False)
    if status == OK and arguments.check:
        excess = instructions.find_excess(figures, Figures.read())
        for told in excess:
            console.print(told, style="red", markup=False, highlight=False)
        status = FAILED if excess else OK
    return status


def _list(arguments: argparse.Namespace, console: Console) -> int:
    for workload in WORKLOADS.values():
        print(f"{workload.name:16}{workload.title}")
    print()
    matrix = load_matrix()
    for name in names(matrix):
        contender = parse_contender(name, matrix)
        print(f"{name:20}{contender.title}")
    return OK


def _measure(
    arguments: argparse.Namespace, console: Console, path: Path, earlier: Journal | None = None
) -> tuple[int, Journal]:
    need_tools()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        raise UsageError("--rounds and --seconds are numbers above 0")
    plan = Plan(_workloads(arguments.workload), _contenders(arguments.server), arguments.rounds)
    settings = _settings(arguments, console)
    if not earlier:
        console.print("Making the environments of the servers, where they are not there yet ...", style="dim")
    facts = describe(plan, settings)
    if earlier and earlier.facts["servers"] != facts["servers"]:
        raise UsageError("a server has another version or command than when the run began; begin anew")
    journal = earlier or Journal.begin(path, facts)
    try:
        _carry_out(plan, settings, journal, console)
    except KeyboardInterrupt:
        console.print(f"\nstopped; `--resume` goes on from here ({len(journal.measurements)} measurements are kept)")
        show(journal, report_console())
        return INTERRUPTED, journal
    show(journal, report_console())
    return OK, journal


def report_console() -> Console:
    """Return the console for tables; in a file or a pipe it is as wide as they are."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def need_tools() -> None:
    """Raise unless the tools that are no Python packages are there.

    Raises:
        UsageError: one is missing; the message says how to install it.
    """
    if find_wrk() is None:
        raise UsageError("wrk, which makes the load, is not installed: `apt-get install wrk` (Debian, Ubuntu)")
    if shutil.which("taskset") is None:
        raise UsageError("taskset, which pins processes, is not installed: `apt-get install util-linux`")


def _workloads(chosen: list[str] | None) -> tuple[Workload, ...]:
    wanted = [name for group in chosen or [] for name in group.split(",")] or list(WORKLOADS)
    for name in wanted:
        if name not in WORKLOADS:
            raise UsageError(f"no workload is called {name!r}; choose from: {', '.join(WORKLOADS)}")
    return tuple(WORKLOADS[name] for name in wanted)


def _contenders(chosen: list[str] | None) -> tuple[Contender, ...]:
    matrix = load_matrix()
    return tuple(parse_contender(text, matrix) for text in chosen or names(matrix))


def _settings(arguments: argparse.Namespace, console: Console) -> Settings:
    allowed = os.sched_getaffinity(0)
    server, load = choose_processors(allowed, read_siblings(allowed))
    if server == load:
        console.print("only one processor: server and load share it, and the figures say little", style="yellow")
    os.sched_setaffinity(0, {load})  # nor may this program be in the server's way
    if arguments.nice:
        try:
            os.nice(arguments.nice)  # inherited by all that it starts
        except PermissionError as error:
            raise UsageError(f"--nice {arguments.nice}: only root may raise a priority") from error
    return Settings(arguments.seconds, arguments.python, server, load)


def _carry_out(plan: Plan, settings: Settings, journal: Journal, console: Console) -> None:
    steps = list(plan.steps())
    done = journal.done()
    with Progress(
        TextColumn("{task.description:42}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=1,
        speed_estimate_period=300,
    ) as progress:
        kept = sum((turn, workload.name, each.name) in done for turn, workload, each in steps)
        task = progress.add_task("", total=len(steps), completed=kept)

        def before(turn: int, workload: Workload, contender: Contender) -> None:
            told = f"round {turn + 1}/{plan.rounds}  {workload.name}  {contender.name}"
            progress.update(task, description=told)

        def after(measurement: Measurement | None) -> None:
            progress.advance(task)
            if measurement and measurement.problem:
                first = textwrap.shorten(measurement.problem.splitlines()[0], WIDTH)
                told = f"{measurement.workload}: {measurement.server}: {first}"
                progress.console.print(told, style="yellow", markup=False, highlight=False)

        carry_out(plan, settings, journal, before=before, after=after)
