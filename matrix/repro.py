"""Reproduce: one cell made again exactly, one case played, what went over the wire, and a way in.

`--bundle` packs all of that into a file for an issue: what a maintainer needs, with no access to this machine.
"""

from __future__ import annotations

import difflib
import shlex
import subprocess
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from matrix import results
from matrix.cells import Cell
from matrix.environments import SetupError, framework_lock, server_lock
from matrix.manifest import ROOT, Matrix
from matrix.progress import describe_verdict
from matrix.results import (
    FORMAT,
    Case,
    End,
    Event,
    Kind,
    Record,
    Run,
    Tool,
    Verdict,
    exit_status,
    format_record,
    format_time,
    this_host,
)
from matrix.runner import CellRunner
from matrix.stop import Stop
from matrix.suite import CaseName, Selection, Suite, SuiteEnd
from matrix.transports import Started, Transport, again_command, tree_version
from matrix.trees import tree_commit, tree_is_modified

LOG_BYTES = 256 * 1024
"""How much of the server's log a bundle holds, from its end."""

MAX_SHOWN = 20


class UnknownCase(Exception):
    """No case of the cell has the id that was asked for; the message names those like it."""


@dataclass(frozen=True)
class Order:
    """What is to be reproduced.

    Args:
        cell: which cell.
        case: which case; None: the whole cell.
        keep: whether the server stays.
        shell: whether to open a shell where the server is.
        bundle: the file to pack everything into.
        kinds: which tests, of a whole cell; None: those of its server.
    """

    cell: Cell
    case: CaseName | None = None
    keep: bool = False
    shell: bool = False
    bundle: Path | None = None
    kinds: tuple[Kind, ...] | None = None


def find_case(suite: Suite, cell: Cell, text: str, again: str = "") -> CaseName:
    """Return the case with an id.

    Args:
        suite: the tests.
        cell: whose case.
        text: the id.
        again: the command that runs the cell again.

    Raises:
        UnknownCase: the cell has none with that id.
    """
    kind: Kind = "conformance" if "::" not in text else "control" if text.startswith("test_control") else "contract"
    names = suite.names(cell, kind)
    if text in names:
        return kind, text
    like = difflib.get_close_matches(text, names, 5, 0.5) or [name for name in names if text in name][:5]
    hint = (
        f"; there are: {', '.join(like)}"
        if like
        else f"; {again or f'python -m matrix repro {cell.id}'} --list names all"
    )
    raise UnknownCase(f"{cell.id} has no case {text!r}{hint}")


def list_cases(suite: Suite, cell: Cell, kinds: Iterable[Kind]) -> Iterator[str]:
    """Name every case that a cell has."""
    for kind in kinds:
        yield from suite.names(cell, kind)


def reproduce(matrix: Matrix, transport: Transport, suite: Suite, order: Order) -> int:
    """Make the cell, play the case, and say what came of it; return the exit status.

    Raises:
        SetupError, StartError: the cell could not be made.
        NotHere: it cannot run on this machine.
    """
    cell = order.cell
    print(f"making {cell.id} ({transport.text})", flush=True)
    transport.refuse(cell)
    if order.case and order.case[0] == "control":
        return _reproduce_control(transport, suite, order)
    began = datetime.now(timezone.utc)
    with transport.start(cell) as started:
        print(f"serving on {started.url}\n", flush=True)
        cases, end = _play(matrix, transport, suite, order, started)
        record = _record(transport, suite, order, started, cases, end, began)
        _show(cases, whole=order.case is None)
        if record.explanation:
            print(record.explanation)
        if order.bundle:
            _bundle(matrix, order.bundle, record, cases, _read_log(started))
            print(f"packed: {order.bundle}")
        if order.shell:
            print(f"a shell where the server is; it serves on {started.url}; leave with exit", flush=True)
            subprocess.run(started.entry, cwd=started.directory, check=False)
        if order.keep:
            print(f"it goes on serving on {started.url}")
            print(f"  get in: {shlex.join(started.entry)}")
            print(f"  end it: {started.leave}")
    for warning in started.warnings:
        print(f"warning: {warning}")
    return exit_status([record.verdict, *(case.verdict for case in cases)])


def _play(
    matrix: Matrix, transport: Transport, suite: Suite, order: Order, started: Started
) -> tuple[list[Case], SuiteEnd]:
    cases: list[Case] = []
    stop = Stop()
    end = suite.run(
        order.cell,
        [order.case[0]]
        if order.case
        else CellRunner(matrix, transport, suite, stop, kinds=order.kinds).kinds_of(order.cell),
        cases.append,
        url=started.url,
        log=started.log,
        launch=started.launch,
        selection=Selection(frozenset([order.case])) if order.case else Selection(),
        options=["--record-passes"],
        again=again_command(order.cell, transport, suite),
        stop=stop,
    )
    return cases, end


def _record(
    transport: Transport,
    suite: Suite,
    order: Order,
    started: Started,
    cases: list[Case],
    end: SuiteEnd,
    began: datetime,
) -> results.Cell:
    died = started.dead()
    unfinished = "" if end.finished or end.cut else end.describe()
    verdict: Verdict = "crash" if died else "setup-error" if unfinished else results.worst(c.verdict for c in cases)
    return results.Cell(
        cell=order.cell.id,
        transport=transport.name,
        provenance=started.provenance,
        verdict=verdict,
        explanation="\n".join(filter(None, (died, unfinished))),
        started=format_time(began),
        seconds=round((datetime.now(timezone.utc) - began).total_seconds(), 2),
        reproduce=again_command(order.cell, transport, suite, order.kinds),
    )


def _reproduce_control(transport: Transport, suite: Suite, order: Order) -> int:
    cases: list[Case] = []
    end = transport.run_control(order.cell, suite, cases.append, Stop())
    chosen = [
        replace(case, verdict="app-error") if case.verdict == "fail" else case
        for case in cases
        if (case.kind, case.id) == order.case
    ]
    if not chosen:
        why = (
            end.describe()
            if end
            else f"what it needs is not on this machine: Python {order.cell.python}, and the locks"
        )
        raise SetupError(f"the control of {order.cell.id} could not be run: {why}")
    _show(chosen, whole=False)
    return exit_status(case.verdict for case in chosen)


# What a person sees


def _show(cases: list[Case], *, whole: bool) -> None:
    unexpected = [case for case in cases if case.verdict in results.UNEXPECTED]
    for case in unexpected[:MAX_SHOWN] if whole else cases:
        print("\n".join(describe_case(case)), end="\n\n")
    if whole:
        print(f"{len(cases)} cases, {len(unexpected)} of them not as expected")


def describe_case(case: Case) -> Iterator[str]:
    """Say all that is known of a case: its rule, the wire dump, what was expected and what came."""
    yield f"{case.id}: {describe_verdict(case.verdict)}"
    yield f"rule:     {case.rule}"
    if case.section:
        level = f" ({case.level})" if case.level else ""
        yield f"section:  {case.section}{level}"
    if case.source and case.source != case.section:
        yield f"source:   {case.source}"
    for place, expected in enumerate(case.expected):
        yield f"{'expected:' if place == 0 else '      or:'} {expected}"
    if case.got and case.expected:
        yield f"got:      {case.got}"
    if case.deviation:
        yield f"known:    {case.deviation.reason} ({case.deviation.link})"
    if case.exchange:
        yield "over the wire, > sent and < received:"
        for event in case.exchange.events:
            yield from describe_event(event)
    if case.verdict in results.UNEXPECTED and not case.expected:
        yield from (f"  {line}" for line in case.explanation.splitlines())
    if case.log:
        yield "logged meanwhile:"
        yield from (f"  {line}" for line in case.log.splitlines())
    yield f"again:    {case.reproduce}"


def describe_event(event: Event) -> Iterator[str]:
    """Return an event as lines of a wire dump, one for each line of the message, bytes that are no text escaped."""
    mark = {"sent": ">", "received": "<"}.get(event.kind)
    if mark is None:
        yield f"{event.at:8.3f} * {event.kind}{': ' + event.text if event.text else ''}"
        return
    pieces = f"   (in {event.pieces} pieces)" if event.pieces > 1 else ""
    lines = _wire_lines(event.data)
    for place, line in enumerate(lines):
        yield f"{f'{event.at:8.3f}' if place == 0 else ' ' * 8} {mark} {line}{pieces if place == 0 else ''}"
    if event.omitted:
        yield f"{' ' * 8} {mark} ... {event.omitted} bytes are left out ..."
        for line in _wire_lines(event.tail):
            yield f"{' ' * 8} {mark} {line}"


def _wire_lines(data: str) -> list[str]:
    """Return bytes as lines: each CRLF ends one and is not shown, as everybody has it; any other end is."""
    lines = data.split("\r\n")
    if lines[-1] == "":
        lines.pop()
    return ["".join(_shown(character) for character in line) for line in lines]


def _shown(character: str) -> str:
    plain = character.isascii() and character.isprintable()
    return character if plain else character.encode("unicode_escape").decode("ascii")


def _read_log(started: Started) -> str:
    if started.log is None or not started.log.exists():
        return ""
    return started.log.read_bytes()[-LOG_BYTES:].decode("utf-8", "backslashreplace")


# The bundle


def _bundle(matrix: Matrix, path: Path, record: results.Cell, cases: list[Case], log: str) -> None:
    """Pack what a maintainer needs into a zip file."""
    now = format_time(datetime.now(timezone.utc))
    head = Run(
        format=FORMAT,
        run=f"repro-{uuid.uuid4().hex[:8]}",
        started=record.started,
        tool=Tool(version=tree_version() or "0", commit=tree_commit(), modified=tree_is_modified()),
        host=this_host(),
        command=record.reproduce,
        cells=(record.cell,),
    )
    status = exit_status([record.verdict, *(case.verdict for case in cases)])
    foot = End(finished=now, seconds=record.seconds, status=status)
    records: list[Record] = [head, *cases, record, foot]
    lines = [format_record(each) for each in records]
    server, version, _ = record.cell.split("/")
    locks = [framework_lock(matrix.version(version))]
    if server in matrix.servers:
        locks.append(server_lock(matrix.server(server)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.md", "\n".join(_bundle_page(head, record, cases)) + "\n")
        archive.writestr("results.jsonl", "".join(lines))
        archive.writestr("server.log", log)
        archive.writestr("packages.txt", "".join(f"{package}\n" for package in record.provenance.packages))
        for case in cases if len(cases) == 1 else []:
            events = case.exchange.events if case.exchange else ()
            sent = "".join(event.data + event.tail for event in events if event.kind == "sent")
            archive.writestr("sent.bin", sent.encode("latin-1"))
        for lock in filter(Path.exists, locks):
            archive.write(lock, lock.relative_to(ROOT).as_posix())


def _bundle_page(run: Run, record: results.Cell, cases: list[Case]) -> Iterator[str]:
    made = record.provenance
    yield f"# {record.cell}: {record.verdict}"
    yield ""
    yield "Run it again, in a checkout of the tree that has this commit:"
    yield ""
    yield f"    {cases[0].reproduce if len(cases) == 1 else record.reproduce}"
    yield ""
    facts = {
        "commit of the tree": f"{run.tool.commit}{' with changes on top' if run.tool.modified else ''}",
        "server": f"{made.server_version}",
        "started as": made.server_command,
        "Python": made.interpreter,
        "image": made.digest,
        "host": f"{run.host.system} {run.host.kernel} {run.host.machine}",
        "when": record.started,
    }
    yield from (f"- {name}: `{value}`" for name, value in facts.items() if value)
    for case in [case for case in cases if case.verdict in results.UNEXPECTED or len(cases) == 1][:MAX_SHOWN]:
        yield ""
        yield "```text"
        yield from describe_case(case)
        yield "```"
    yield ""
    yield "`results.jsonl` has every case, `sent.bin` the bytes that were sent, `server.log` what the server said,"
    yield "`packages.txt` what was installed, and the locks are those that it was installed from."
