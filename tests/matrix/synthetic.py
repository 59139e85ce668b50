"""Results of a run that never was, of realistic shape: real cases, real bytes, invented answers.

`python -m tests.matrix.synthetic FILE [--results N]` writes them to a file, to try the report with.
"""

from __future__ import annotations

import argparse
import ast
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random

from matrix.results import (
    FORMAT,
    Blame,
    Case,
    Cell,
    Deviation,
    End,
    Event,
    Exchange,
    Host,
    Kind,
    Level,
    Provenance,
    Record,
    Results,
    ResultsWriter,
    Run,
    Tool,
    Verdict,
    exit_status,
    make_exchange,
    worst,
)
from tests.conformance.cases import Pause, SendBytes, load_cases
from tests.conformance.matching import describe_outcome
from tests.conformance.runner import Event as WireEvent

CONTRACT = Path(__file__).resolve().parents[1] / "contract"

SERVERS = ("wizgy", "gunicorn-sync", "gunicorn-gthread", "waitress", "cheroot", "wsgiref")
VERSIONS = ("wsgi-1.0.1", "flask-3.1", "flask-3.0", "django-5.2", "django-4.2", "pyramid-2.1", "pyramid-1.10")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

FAILING_PERCENT = {"gunicorn-sync": 2, "gunicorn-gthread": 2, "waitress": 9, "cheroot": 17, "wsgiref": 31}
"""Of every hundred cases, how many a server fails; those that are not named fail none."""

SPLIT = ":split"


@dataclass(frozen=True)
class Script:
    """What is the same of a case in every cell."""

    kind: Kind
    id: str
    rule: str
    level: Level | None
    section: str | None
    source: str | None
    expected: tuple[str, ...]
    sent: tuple[bytes | float, ...]


def load_scripts() -> list[Script]:
    """Return the contract's tests and the conformance cases, each whole and split, in a fixed order."""
    return [*_contract_scripts(), *_conformance_scripts()]


def _contract_scripts() -> Iterator[Script]:
    for path in sorted(CONTRACT.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                rule = (ast.get_docstring(node) or "").partition("\n\n")[0]
                sent = (f"GET /{node.name[5:]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),)
                yield Script("contract", f"{path.name}::{node.name}", rule, None, None, None, (), sent)


def _conformance_scripts() -> Iterator[Script]:
    for case in load_cases():
        expected = tuple(describe_outcome(outcome) for outcome in case.expect)
        sent = tuple(
            step.data if isinstance(step, SendBytes) else step.seconds
            for step in case.send
            if isinstance(step, SendBytes | Pause)
        )
        script = Script("conformance", case.id, case.rule, case.level, case.section, case.source, expected, sent)
        yield script
        if case.split:
            yield replace(script, id=case.id + SPLIT)


def make_results(
    *,
    servers: Sequence[str] = SERVERS,
    versions: Sequence[str] = VERSIONS,
    pythons: Sequence[str] = PYTHONS,
    cases: int | None = None,
    faults: bool = True,
    run: str = "synthetic",
    started: str = "2026-01-02T03:04:05Z",
    seed: int = 1,
) -> Results:
    """Make the results of a run.

    Args:
        servers: the servers of its cells.
        versions: the versions of frameworks.
        pythons: the Pythons.
        cases: how many cases each cell has, spread over all there are; None: all.
        faults: whether some cells cannot be set up, some apps are broken, some cases crash their server, and so on.
        run: the id of the run.
        started: when it started.
        seed: what chance depends on; which cases a server fails does not depend on it.
    """
    scripts = load_scripts()
    if cases is not None:
        scripts = [scripts[place * len(scripts) // cases] for place in range(cases)]
    ids = [f"{server}/{version}/py{python}" for server, version, python in product(servers, versions, pythons)]
    chance = Random(seed)
    head = Run(
        format=FORMAT,
        run=run,
        started=started,
        tool=Tool(version="0.1.0", commit=f"{zlib.crc32(run.encode()):08x}" * 5),
        host=Host(system="Linux", kernel="6.12.9-amd64", machine="x86_64", cpus=2),
        seed=seed,
        command="python -m matrix run --tier full --transport venv",
        tier="full",
        cells=tuple(ids),
    )
    broken = _choose_broken(ids) if faults else {}
    made = [_make_cell(cell, broken.get(cell), scripts, servers, chance) for cell in ids]
    cells = tuple(cell for cell, _ in made)
    everything = tuple(case for _, of_cell in made for case in of_cell)
    status = exit_status(case.verdict for case in everything)
    end = End(finished="2026-01-02T03:24:45Z", seconds=1240.5, status=status)
    return Results(runs=(head,), cells=cells, cases=everything, end=end)


def iterate_records(results: Results) -> Iterator[Record]:
    """Yield the records of results in the order in which a run writes them."""
    yield from results.runs
    by_cell: dict[str, list[Case]] = {}
    for case in results.cases:
        by_cell.setdefault(case.cell, []).append(case)
    for cell in results.cells:
        yield from by_cell.pop(cell.cell, [])
        yield cell
    for begun in by_cell.values():
        yield from begun
    if results.end:
        yield results.end


def write_results(path: Path, results: Results) -> Path:
    """Write results to a file."""
    with ResultsWriter(path) as writer:
        for record in iterate_records(results):
            writer.write(record)
    return path


def _choose_broken(ids: Sequence[str]) -> dict[str, Verdict]:
    """Choose a few cells with a fault of their own."""
    faults: tuple[Verdict, ...] = ("setup-error", "app-error", "skip", "crash", "stale")
    step = max(1, len(ids) // len(faults))
    return dict(zip(ids[step // 2 :: step], faults, strict=False))


def _make_cell(
    cell: str, fault: Verdict | None, scripts: Iterable[Script], servers: Sequence[str], chance: Random
) -> tuple[Cell, list[Case]]:
    cases: list[Case] = []
    explanation = ""
    if fault == "setup-error":
        explanation = "uv pip install --require-hashes failed with status 1:\n  No solution found: <no wheel>"
    elif fault == "skip":
        explanation = f"no Python {cell.rpartition('/py')[2]} is on this machine: install it, or use --transport image"
    elif fault == "app-error":
        script = Script("control", "test_control.py::test_hello", "The app greets.", None, None, None, (), ())
        cases = [_make_case(cell, script, "app-error", servers, chance)]
    else:
        cases = [_make_case(cell, script, _judge(cell, script), servers, chance) for script in scripts]
        if fault and cases:
            cases[0] = replace(cases[0], verdict=fault, explanation=f"made up: {fault}")
    verdict = worst(case.verdict for case in cases) if cases else fault or "pass"
    return _describe_cell(cell, verdict, explanation, sum(case.seconds for case in cases)), cases


def _describe_cell(cell: str, verdict: Verdict, explanation: str, seconds: float) -> Cell:
    server, version, python = cell.split("/")
    framework, _, number = version.rpartition("-")
    provenance = Provenance(
        packages=(f"{framework}=={number}.2", "jinja2==3.1.6", "markupsafe==3.0.3", "werkzeug==3.1.4"),
        interpreter=f"{python[2:]}.1 (main, Jan  1 2026, 00:00:00) [GCC 14.2.0]",
        platform="linux-x86_64",
        server_version="27.0.0",
        server_commit="1231b49c0ffee" if server == "wizgy" else None,
        server_command=f"python -m {server} --bind 127.0.0.1:0 {framework}app:app",
    )
    return Cell(
        cell=cell,
        transport="venv",
        provenance=provenance,
        verdict=verdict,
        explanation=explanation,
        started="2026-01-02T03:04:06Z",
        seconds=round(seconds, 3),
        reproduce=f"python -m matrix run --cell {cell}",
        fingerprint=f"{zlib.crc32(cell.encode()):08x}",
    )


def _share(*words: str) -> int:
    """Return a number below 100 that depends on nothing but the words."""
    return zlib.crc32("\0".join(words).encode()) % 100


def _fails(server: str, script: Script) -> bool:
    name = server.partition("-")[0]
    return _share(name, script.id.removesuffix(SPLIT)) < FAILING_PERCENT.get(server, 0)


def _judge(cell: str, script: Script) -> Verdict:
    server, version, _ = cell.split("/")
    if _fails(server, script):
        return "timeout" if _share("timeout", server, script.id) < 6 else "fail"
    return "known" if _share("known", version.partition("-")[0], script.id) < 1 else "pass"


def _make_case(cell: str, script: Script, verdict: Verdict, servers: Sequence[str], chance: Random) -> Case:
    server = cell.partition("/")[0]
    good = verdict in ("pass", "known")
    exchange = _make_exchange(cell, script, good, chance) if script.sent else None
    return Case(
        cell=cell,
        id=script.id,
        kind=script.kind,
        verdict=verdict,
        seconds=round(chance.uniform(0.001, 0.3), 3) if verdict != "timeout" else 5.0,
        rule=script.rule,
        level=script.level,
        section=script.section,
        source=script.source,
        expected=script.expected,
        got=f"as accepted: {script.expected[0]}" if good and script.expected else "status 200 is not 400",
        explanation=""
        if good
        else f"not {script.expected[0] if script.expected else 'as agreed'}: status 200 is not 400",
        blame=None if good else _make_blame(verdict, server, script, servers),
        deviation=Deviation(reason="Its parser is lenient here by design.", link="https://example.test/issues/1")
        if verdict in ("known", "stale")
        else None,
        exchange=exchange,
        log="" if good else f"[INFO] 127.0.0.1 {script.id} 200\n",
        reproduce=f"python -m matrix repro {cell} '{script.id}'",
    )


def _make_blame(verdict: Verdict, server: str, script: Script, servers: Sequence[str]) -> Blame:
    if verdict == "app-error":
        return Blame(on="app")
    failing = tuple(each for each in servers if each == server or _fails(each, script))
    passing = tuple(each for each in servers if each not in failing)
    if len(failing) == 1:
        return Blame(on="this server only", failing=failing, passing=passing)
    return Blame(on="some servers" if passing else "every server", failing=failing, passing=passing)


def _make_exchange(cell: str, script: Script, good: bool, chance: Random) -> Exchange:
    at = 0.0
    events: list[WireEvent] = []
    for part in script.sent:
        if isinstance(part, float):
            at += part
            continue
        pieces = (
            [part[place : place + 1] for place in range(min(len(part), 1200))] if script.id.endswith(SPLIT) else [part]
        )
        events += [WireEvent(at + 0.001 * place, "sent", piece) for place, piece in enumerate(pieces)]
        at += 0.001 * len(pieces)
    at += chance.uniform(0.0005, 0.02)
    events.append(WireEvent(at, "received", _answer(cell, script, good)))
    events.append(WireEvent(at + 0.0004, "end of stream"))
    return make_exchange(events, "127.0.0.1:41234")


def _answer(cell: str, script: Script, good: bool) -> bytes:
    server, version, _ = cell.split("/")
    refused = good and script.level in ("security", "MUST")
    body = (
        b"Bad Request: the field Content-Length is not a number\n"
        if refused
        else f"Hello world from {version}!\n".encode()
    )
    head = (
        f"HTTP/1.1 {'400 Bad Request' if refused else '200 OK'}\r\nServer: {server}\r\n"
        f"Date: Fri, 02 Jan 2026 03:{_share(cell, script.id) % 60:02}:05 GMT\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x00\x1b[31m\xff"
)


def make_hostile(results: Results) -> Results:
    """Return results in which every text that comes from a server or an app attacks the page."""
    event = Event(at=0, kind="received", data=HOSTILE, tail=HOSTILE, omitted=3)
    attacks = tuple(
        replace(
            case,
            rule=HOSTILE,
            section=HOSTILE,
            source="javascript:document.title='owned'",
            expected=(HOSTILE,),
            got=HOSTILE,
            explanation=HOSTILE + "\udc80",
            log=HOSTILE,
            reproduce=HOSTILE,
            deviation=Deviation(reason=HOSTILE, link="javascript:document.title='owned'"),
            blame=Blame(on="some servers", failing=(HOSTILE,), passing=(HOSTILE,)),
            exchange=Exchange(events=(event, replace(event, kind="note", text=HOSTILE)), address=HOSTILE),
        )
        for case in results.cases
    )
    cells = tuple(
        replace(
            cell,
            explanation=HOSTILE,
            reproduce=HOSTILE,
            provenance=Provenance(packages=(HOSTILE,), interpreter=HOSTILE, server_command=HOSTILE, image=HOSTILE),
        )
        for cell in results.cells
    )
    runs = tuple(replace(run, command=HOSTILE) for run in results.runs)
    return replace(results, runs=runs, cells=cells, cases=attacks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write results to a file; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix.synthetic", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--results", type=int, metavar="N", help="about how many; default: all cases in every cell")
    options = parser.parse_args(arguments)
    cells = len(SERVERS) * len(VERSIONS) * len(PYTHONS)
    results = make_results(cases=max(1, options.results // cells) if options.results else None)
    options.file.unlink(missing_ok=True)
    write_results(options.file, results)
    print(f"{len(results.cases)} results of {len(results.cells)} cells in {options.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
