"""The command line of the matrix, `python -m matrix COMMAND`.

Exit status: 0 everything as expected, 1 failures or stale deviations, 2 wrong usage, 3 something could not be set up.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from matrix import children, generate
from matrix.cells import Cell, Shard, choose_cells, find_cell, in_tier
from matrix.containers import Engine, remove_labelled
from matrix.environments import CACHE, SetupError
from matrix.fingerprints import affected_cells
from matrix.grid import describe_cells
from matrix.interpreters import InterpreterMissing, find_interpreter
from matrix.jury import Jury
from matrix.manifest import MATRIX_FILE, SUITES, Matrix, MatrixError, load_matrix, parse_matrix
from matrix.processes import StartError
from matrix.progress import Progress
from matrix.report import commands as reports
from matrix.repro import Order, UnknownCase, find_case, list_cases, reproduce
from matrix.results import EXIT_FAILED, EXIT_OK, EXIT_SETUP, EXIT_USAGE
from matrix.run import ManyCells, Plan, default_output
from matrix.runner import CellRunner
from matrix.stop import EXIT_INTERRUPTED, Stop, stopping
from matrix.suite import Suite
from matrix.transports import (
    GivenImageTransport,
    ImageTransport,
    NotHere,
    Transport,
    UrlTransport,
    VenvTransport,
    again_command,
)
from matrix.trees import changed_files, file_at
from requirements import lock

DEFAULT_TIER = "gate"

EXIT_PIPE = 128 + signal.SIGPIPE
"""The exit status when the reader of the output has gone, as shells have it."""

STATUSES = """\
exit status:
  0  everything came out as expected, known deviations among it
  1  something failed, crashed, timed out, or a known deviation is stale
  2  the command cannot be carried out as it was given
  3  something could not be set up, and nothing failed
  130  stopped by a signal; the same command goes on from there
"""

CELLS = """\
A cell is a server, a version of a framework and a Python, written wizgy/flask-3.1/py3.13. In CELL, * stands for
anything: 'wizgy/flask-*/*'. With neither a CELL nor a condition, the cells are those of the tier gate.
"""


class UsageError(Exception):
    """The command cannot be carried out as it was given; the message says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    options = make_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except (UsageError, MatrixError) as error:
        print(f"matrix: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (SetupError, StartError, InterpreterMissing) as error:
        print(f"matrix: {error}", file=sys.stderr)
        return EXIT_SETUP
    except BrokenPipeError:
        # `| head` has what it wanted; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except KeyboardInterrupt:
        print("\nmatrix: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


@contextmanager
def leaving_nothing(stop: Stop, engine: Engine | None, *, keep: bool = False) -> Iterator[None]:
    """End all that was started on leaving, whatever happens: processes, containers of an engine, temporary folders.

    Args:
        stop: set when the command was told to stop. The first signal that comes while all is ended changes nothing.
        engine: whose containers; None where there are none.
        keep: whether the server stays when all went well.
    """
    kept = False
    try:
        yield
        kept = keep
    finally:
        if not kept:
            with stopping(stop):
                _end_everything(engine)


def _end_everything(engine: Engine | None) -> None:
    children.end_all()
    try:
        if engine:
            engine.clean_up()
    except SetupError as error:
        # What came of the cells is known, and stays the exit status.
        print(f"matrix: warning: not everything was removed; `python -m matrix clean` does: {error}", file=sys.stderr)
    finally:
        children.end_marked(children.this_run())
        children.remove_directories(children.this_run())


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m matrix",
        description="Which servers serve which frameworks, on which Pythons.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_run(commands)
    _add_repro(commands)
    reports.add_report(commands)
    reports.add_diff(commands)
    _add_generate(commands)
    _add_clean(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = ""
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose cells."""
    choice = parser.add_argument_group("which cells")
    choice.add_argument("patterns", nargs="*", metavar="CELL", help="the id of a cell, or a pattern of ids")
    choice.add_argument("--tier", metavar="NAME", help="a tier of matrix.toml: gate, full, end-of-life")
    choice.add_argument("--server", action="append", default=[], metavar="NAME", help="this server; may be given again")
    choice.add_argument(
        "--framework", action="append", default=[], metavar="NAME", help="this framework, or version: flask, flask-2.3"
    )
    choice.add_argument("--python", action="append", default=[], metavar="VERSION", help="this Python: 3.13")
    choice.add_argument("--shard", metavar="N/OF", help="one of so many equal parts, 1/4 to 4/4")
    choice.add_argument(
        "--affected-by", metavar="REVISION", help="only cells that the changes since this revision can affect"
    )


def chosen_cells(matrix: Matrix, options: argparse.Namespace, *, image: bool) -> list[Cell]:
    """Return the cells that the options choose; none when the changes affect none.

    Raises:
        MatrixError: a name is wrong, or nothing has all of what was asked for.
    """
    conditions = (options.patterns, options.server, options.framework, options.python)
    tier = options.tier if options.tier or any(conditions) or options.affected_by else DEFAULT_TIER
    cells = choose_cells(
        matrix,
        tier=tier,
        servers=options.server,
        frameworks=options.framework,
        pythons=options.python,
        patterns=options.patterns,
    )
    if options.affected_by:
        text = file_at(options.affected_by, MATRIX_FILE)
        before = _parse_or_none(text)
        cells = affected_cells(matrix, before, cells, changed_files(options.affected_by), image=image)
    return Shard.parse(options.shard).part_of(cells) if options.shard else cells


def _parse_or_none(text: str | None) -> Matrix | None:
    """Return what an older manifest said, None when today's reader cannot read it."""
    try:
        return parse_matrix(text) if text is not None else None
    except MatrixError:
        return None


# list


def _add_list(commands: Commands) -> None:
    parser = _add(commands, "list", run_list, "list cells, with what keeps them from running here", CELLS)
    _add_choice(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--grid", action="store_true", help="a count, a grid, and what there is not: so on a terminal")
    form.add_argument("--lines", action="store_true", help="a line for each cell: so in a pipe")
    form.add_argument("--json", action="store_true", help="as JSON: a matrix for CI, {include: [...]}")
    parser.add_argument("--transport", choices=["venv", "image"], default="venv", help="how they would be started")


def run_list(options: argparse.Namespace) -> int:
    """Print the cells that were chosen."""
    matrix = load_matrix()
    if not (options.tier or options.affected_by or options.shard):
        # Whoever asks what there is, wants to see all of it.
        options.patterns = options.patterns or ["*"]
    cells = chosen_cells(matrix, options, image=options.transport == "image")
    if options.json:
        print(json.dumps({"include": [generate.ci_job(matrix, cell) for cell in cells]}))
        return EXIT_OK
    if options.lines or not (options.grid or sys.stdout.isatty()):
        for cell in cells:
            print(f"{cell.id:<38} {', '.join(_tiers(matrix, cell)):<12} {_hindrance(cell, options.transport)}".rstrip())
        return EXIT_OK
    print("\n".join(describe_cells(matrix, cells, shutil.get_terminal_size().columns)))
    tiers = Counter(tier for cell in cells for tier in _tiers(matrix, cell))
    hindrances = Counter(hindrance for cell in cells if (hindrance := _hindrance(cell, options.transport)))
    print(f"\ntiers: {', '.join(f'{name} {count}' for name, count in tiers.items()) or 'none'}")
    for hindrance, count in hindrances.items():
        print(f"{count} of them cannot run: {hindrance.strip('()')}; as containers they can: --transport image")
    print("run them: python -m matrix run CELL; name them: python -m matrix list --lines, or --json for CI")
    return EXIT_OK


def _tiers(matrix: Matrix, cell: Cell) -> list[str]:
    return [name for name, tier in matrix.tiers.items() if in_tier(cell, tier)]


def _hindrance(cell: Cell, transport: str) -> str:
    try:
        if transport == "venv":
            find_interpreter(cell.python)
    except InterpreterMissing:
        return f"(no Python {cell.python} here)"
    return ""


# run


def _add_run(commands: Commands) -> None:
    parser = _add(commands, "run", run_run, "run cells: control, tests, blame", f"{CELLS}\n{STATUSES}")
    _add_choice(parser)
    _add_transport(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--jobs", type=_positive, default=min(os.cpu_count() or 1, 4), metavar="N", help="cells at once (%(default)s)"
    )
    how.add_argument("--suite", action="append", choices=SUITES, help="only these tests; default: those of the server")
    how.add_argument("--limit", type=float, default=180.0, metavar="SECONDS", help="for one case (%(default)g)")
    how.add_argument("--fresh", action="store_true", help="run again even what did not change")
    how.add_argument(
        "--bytes", action="store_true", help="keep what went over the wire in cases that pass as well, for the report"
    )
    how.add_argument("--no-blame", action="store_true", help="do not run what fails on the other servers")
    how.add_argument("--require-all", action="store_true", help="exit 3 when a cell cannot run on this machine")
    how.add_argument("--output", type=Path, metavar="FILE", help="the results, JSON lines (default: .matrix/runs/…)")


def _add_transport(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the server is started")
    group.add_argument(
        "--transport",
        default="venv",
        metavar="HOW",
        help="venv: a process of this machine (default); image: a container, built from this tree; "
        "url:http://HOST:PORT: it runs already; image:NAME: a container of an image of your own",
    )
    group.add_argument("--port", type=_positive, default=8888, help="where an image of your own serves (%(default)s)")
    group.add_argument(
        "--with",
        action="append",
        default=[],
        dest="extra",
        metavar="REQUIREMENT",
        help="with venv: install this on top of the locks: 'flask==3.1.0', 'flask @ git+https://…', a folder",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


def make_transport(matrix: Matrix, options: argparse.Namespace, engine: Engine) -> Transport:
    """Return the transport that the options name.

    Raises:
        UsageError: there is none of that name.
        SetupError: it needs a container engine, and none answers.
    """
    name, _, what = options.transport.partition(":")
    venv = VenvTransport(matrix, extra=options.extra)
    if options.extra and name != "venv":
        raise UsageError("--with goes with --transport venv only: an image is made of the locks alone")
    if name == "venv" and not what:
        return venv
    if name == "url" and what:
        return UrlTransport(matrix, what, venv)
    if name == "image":
        engine.refuse_missing()
        return GivenImageTransport(matrix, what, options.port, engine, venv) if what else ImageTransport(matrix, engine)
    raise UsageError(
        f"no transport is called {options.transport!r}; choose venv, image, url:http://HOST:PORT or image:NAME"
    )


def run_run(options: argparse.Namespace) -> int:
    """Run the cells that were chosen."""
    stop = Stop()
    with stopping(stop):
        return _run(options, stop)


def _run(options: argparse.Namespace, stop: Stop) -> int:
    matrix = load_matrix()
    engine = Engine(stop=stop)
    transport = make_transport(matrix, options, engine)
    foreign = isinstance(transport, (UrlTransport, GivenImageTransport))
    image = transport.name == "image"
    cells = [foreign_cell(matrix, foreign_id(options))] if foreign else chosen_cells(matrix, options, image=image)
    if not cells:
        print("matrix: the changes affect no cell")
        return EXIT_OK
    suite = Suite(limit=options.limit)
    peers = VenvTransport(matrix) if foreign else transport
    progress = Progress(len(cells), jobs=options.jobs)
    runner = CellRunner(
        matrix,
        transport,
        suite,
        stop,
        jury=None if options.no_blame else Jury(matrix, peers, suite, stop),
        kinds=tuple(options.suite) if options.suite else None,
        require_all=options.require_all,
        options=("--record-passes",) if options.bytes else (),
        on_case=progress.case_ended,
        on_phase=progress.phase_began,
    )
    output = options.output or default_output()
    command = shlex.join(["python", "-m", "matrix", *sys.argv[1:]])
    plan = Plan(cells, command, options.tier, output, options.jobs, options.fresh)
    with leaving_nothing(stop, engine if image else None):
        return ManyCells(plan, runner, progress).run()


# repro


def _add_repro(commands: Commands) -> None:
    what = "make one cell again, play one case, and show what went over the wire"
    parser = _add(commands, "repro", run_repro, what, STATUSES)
    parser.add_argument("cell", metavar="CELL", help="wizgy/flask-3.1/py3.13; without a Python, the newest")
    parser.add_argument("case", nargs="?", metavar="CASE", help="the id of a case, as results have it; default: all")
    parser.add_argument("--list", action="store_true", help="name the cases of the cell, and start nothing")
    parser.add_argument("--keep", action="store_true", help="leave the server running, and say how to get in")
    parser.add_argument(
        "--shell", action="store_true", help="open a shell where the server runs, when the case is done"
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only these tests of a whole cell")
    parser.add_argument("--bundle", type=Path, metavar="FILE.zip", help="pack everything for an issue")
    parser.add_argument("--limit", type=float, default=180.0, metavar="SECONDS", help="for one case (%(default)g)")
    _add_transport(parser)


def run_repro(options: argparse.Namespace) -> int:
    """Reproduce one cell, or one case of it."""
    stop = Stop()
    with stopping(stop, interrupt=True):
        return _reproduce(options, stop)


def _reproduce(options: argparse.Namespace, stop: Stop) -> int:
    matrix = load_matrix()
    engine = Engine(keep=options.keep, stop=stop)
    transport = make_transport(matrix, options, engine)
    if isinstance(transport, VenvTransport):
        transport.keep = options.keep
    foreign = isinstance(transport, (UrlTransport, GivenImageTransport))
    cell = foreign_cell(matrix, options.cell) if foreign else find_cell(matrix, options.cell)
    suite = Suite(limit=options.limit)
    if options.list:
        for case_id in list_cases(
            suite, cell, ("control", *CellRunner(matrix, transport, suite, Stop()).kinds_of(cell))
        ):
            print(case_id)
        return EXIT_OK
    try:
        again = again_command(cell, transport, suite)
        case = find_case(suite, cell, options.case, again) if options.case else None
        kinds = tuple(options.suite) if options.suite else None
        order = Order(cell, case, options.keep, options.shell, options.bundle, kinds)
        with leaving_nothing(stop, engine if transport.name == "image" else None, keep=options.keep):
            return reproduce(matrix, transport, suite, order)
    except UnknownCase as error:
        raise UsageError(str(error)) from error
    except NotHere as error:
        raise SetupError(str(error)) from error


# clean


def _add_clean(commands: Commands) -> None:
    parser = _add(
        commands, "clean", run_clean, "remove what killed runs have left: processes, containers, networks, folders"
    )
    parser.add_argument("--cache", action="store_true", help="and environments and results, which lie in .matrix")


def run_clean(options: argparse.Namespace) -> int:
    """Remove what runs have left that have ended; those that go on lose nothing."""
    runs = children.runs_that_ended()
    processes = sum(children.end_marked(run) for run in runs)
    folders = sum(children.remove_directories(run) for run in runs)
    print(f"removed: {processes} process(es), {folders} temporary folder(s)")
    try:
        Engine().refuse_missing()
    except SetupError as error:
        print(f"no containers: {error}")
    else:
        containers, networks = remove_labelled(lambda run: not children.still_runs(run))
        print(f"removed: {containers} container(s), {networks} network(s)")
    if options.cache:
        shutil.rmtree(CACHE, ignore_errors=True)
        print(f"removed {CACHE.name}")
    return EXIT_OK


# generate, check


def _add_generate(commands: Commands) -> None:
    parser = _add(commands, "generate", run_generate, "write the files that are made from matrix.toml, locks included")
    parser.add_argument(
        "--no-locks", action="store_true", help="leave the locks as they are: they need uv and an index"
    )
    _add(commands, "check", run_check, "fail when a file that is made from matrix.toml does not agree with it")


def run_generate(options: argparse.Namespace) -> int:
    """Write what is made from matrix.toml."""
    changed = generate.write(load_matrix())
    print("\n".join(changed) or "every file is as it should be")
    if options.no_locks or not lock.check(lock.all_locks()):
        return EXIT_OK
    return lock.main([])


def run_check(options: argparse.Namespace) -> int:
    """Say which files do not agree with matrix.toml."""
    problems = [f"{path}: not as matrix.toml has it" for path in generate.drift(load_matrix())]
    problems += lock.check(lock.all_locks())
    for problem in problems:
        print(f"{problem}; run `{generate.COMMAND}`", file=sys.stderr)
    return EXIT_FAILED if problems else EXIT_OK


def foreign_cell(matrix: Matrix, text: str) -> Cell:
    """Return the cell of a server that somebody else runs: it need not be one of matrix.toml.

    Raises:
        UsageError: the text does not say which app it serves.
    """
    server, version, python = (*text.split("/"), "", "")[:3]
    if not version:
        raise UsageError("say which app it serves: --framework flask, or a cell, SERVER/FRAMEWORK-VERSION/pyPYTHON")
    found = matrix.version(version)
    return Cell(server or "server", found, matrix.python(python) if python else found.pythons[-1])


def foreign_id(options: argparse.Namespace) -> str:
    """Return the id of the cell that options of `run` name, as far as they do."""
    if options.patterns:
        return str(options.patterns[0])
    return "/".join((given or [""])[-1] for given in (options.server, options.framework, options.python))
