"""Results of a run of the matrix: JSON lines, one record a line, as `matrix/schemas/results.schema.json` has them.

A file opens with a `run` record, then has a `case` record for each test that ended and a `cell` record for each cell
that ended, in the order in which they ended, and closes with an `end` record. A cell with cases and no record of its
own, or a file with no `end`, was interrupted. Lines are only ever appended, each with one system call, so whatever
kills the writer leaves whole lines and at most one torn one at the end.

The schema and its page `docs/matrix-results.md` are written from the classes below: `python -m matrix.schema`.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import platform
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Literal, NoReturn, Protocol, TypeAlias, get_args

from matrix.records import RecordError, about, decode, encode

FORMAT = 1
"""Counts up whenever a reader of the old format could not read, or would misread, the new one."""

Verdict: TypeAlias = Literal["crash", "setup-error", "app-error", "fail", "timeout", "stale", "known", "pass", "skip"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""All verdicts, the worst first; that of a cell is the worst of its cases'."""

UNEXPECTED: frozenset[Verdict] = frozenset(VERDICTS[: VERDICTS.index("known")])
"""The verdicts that make a run fail."""

VERDICT_MEANINGS: dict[Verdict, str] = {
    "crash": "the server ended, or no longer answered, during the case",
    "setup-error": "what the cell needs could not be installed, built or started, or its tests did not end",
    "app-error": "the app fails its control, in process and with no server: nothing is said about the server",
    "fail": "the answer is none that the rule accepts",
    "timeout": "the case did not end within its time",
    "stale": "a known deviation did not happen: remove it from matrix.toml",
    "known": "a known deviation, listed in matrix.toml with its reason, happened as expected",
    "pass": "the answer is one that the rule accepts",
    "skip": "did not run; the explanation says why",
}

Kind: TypeAlias = Literal["control", "contract", "conformance"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Level: TypeAlias = Literal["MUST", "SHOULD", "security", "robustness"]
LEVELS: tuple[Level, ...] = get_args(Level)

Transport: TypeAlias = Literal["venv", "image", "url"]

EventKind: TypeAlias = Literal[
    "sent",
    "received",
    "end of stream",
    "reset by the server",
    "half-closed",
    "reset",
    "reconnected",
    "note",
]

BlamedOn: TypeAlias = Literal["this server only", "some servers", "every server", "app"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SETUP = 3

CELL = r"[^/\s]+/[^/\s]+-[^/\s-]+/py[^/\s]+"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
BYTES = "[\\u0000-\\u00ff]*"


class ResultsError(ValueError):
    """A file of results cannot be read; the message names the file, the line, and what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What ran the matrix."""

    name: str = about("its name", default="wizgy-matrix")
    version: str = about("its version")
    commit: str | None = about("the commit of its tree, in full", default=None)
    modified: bool = about("whether the tree had changes on top of that commit", default=False)


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine of a run."""

    system: str = about("the operating system, `Linux`")
    kernel: str = about("the release of its kernel")
    machine: str = about("the architecture, `x86_64`")
    cpus: int = about("the CPUs that the run could use", default=1, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The head of a file: which run this is, and what is needed to start it again."""

    format: int = about(f"the version of this schema: {FORMAT}", minimum=1)
    run: str = about("an id that no other run has", pattern=r"\S+")
    started: str = about("when it started, in UTC", pattern=TIME)
    tool: Tool = about("what ran the matrix")
    host: Host = about("where")
    seed: int = about("the seed of everything that was chosen by chance", default=0)
    command: str = about("the command line that starts it again, quoted for a shell")
    tier: str | None = about("the tier of matrix.toml that was run", default=None)
    cells: tuple[str, ...] = about(
        "the ids of the cells that were to run: one of them with no `cell` record was not reached",
        default=(),
        pattern=CELL,
    )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a cell was made of, so that it can be made again."""

    image: str | None = about("the name of the image, with the transport `image`", default=None)
    digest: str | None = about("the digest of that image", default=None, pattern=r"sha256:[0-9a-f]{64}")
    url: str | None = about("what was tested, with the transport `url`", default=None)
    packages: tuple[str, ...] = about("the distributions beside the server, as `name==version`", default=())
    interpreter: str | None = about("the version and build of Python, as `sys.version` has it", default=None)
    platform: str | None = about("the platform of that Python, `linux-x86_64`", default=None)
    server_version: str | None = about("the version of the server", default=None)
    server_commit: str | None = about("the commit of the server, when it is of this tree", default=None)
    server_command: str | None = about("how the server was started, quoted for a shell", default=None)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell that ended: a server, a version of a framework, and a Python."""

    cell: str = about("the id, `SERVER/FRAMEWORK-VERSION/pyPYTHON`", pattern=CELL)
    transport: Transport = about("how it was started: a local process, a container, or it ran already")
    provenance: Provenance = about("what it was made of")
    verdict: Verdict = about("the worst verdict of its cases, or why it has none")
    explanation: str = about("why it could not run or was skipped; the end of the log where that helps", default="")
    warnings: tuple[str, ...] = about("what went wrong beside its tests, as when its server was removed", default=())
    started: str = about("when it started, in UTC", pattern=TIME)
    seconds: float = about("how long it took, with setting it up", minimum=0)
    reproduce: str = about("the command that runs the cell again, quoted for a shell")
    fingerprint: str | None = about(
        "a hash of everything that the result depends on; as long as it stays, the result may be used again",
        default=None,
    )
    reused_from: str | None = about("the id of the run that made the result, when it was used again", default=None)

    @property
    def server(self) -> str:
        """The name of the server."""
        return self.cell.split("/")[0]

    @property
    def version(self) -> str:
        """The framework with its version, `flask-3.1`."""
        return self.cell.split("/")[1]

    @property
    def framework(self) -> str:
        """The name of the framework."""
        return self.version.rpartition("-")[0]

    @property
    def python(self) -> str:
        """The Python, `3.13`."""
        return self.cell.split("/")[2].removeprefix("py")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened on the connection.

    Bytes are written as text in which each character from U+0000 to U+00FF is one byte (ISO 8859-1), as in the cases.
    """

    at: float = about("seconds since the exchange began", minimum=0)
    kind: EventKind = about("what happened")
    data: str = about("the bytes, or the first of them, a character for each", default="", pattern=BYTES)
    omitted: int = about("how many bytes between `data` and `tail` are left out", default=0, minimum=0)
    tail: str = about("the last bytes, when some are left out", default="", pattern=BYTES)
    pieces: int = about("in how many pieces the bytes were sent or received", default=1, minimum=1)
    text: str = about("a remark", default="")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What went over the wire, in order."""

    events: tuple[Event, ...] = about("what happened, the earliest first")
    address: str | None = about("where the client connected to, `HOST:PORT`", default=None)


@dataclass(frozen=True, kw_only=True)
class Blame:
    """Whose fault an unexpected verdict seems to be: the same case was run on other servers."""

    on: BlamedOn = about(
        "`this server only`: the other servers pass it; `every server`: all fail it, so suspect the framework or the "
        "case; `app`: it fails in process, with no server"
    )
    failing: tuple[str, ...] = about("the servers that fail it", default=())
    passing: tuple[str, ...] = about("the servers that pass it", default=())


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A known deviation of matrix.toml."""

    reason: str = about("why it is accepted")
    link: str = about("where more is said")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test that ended in a cell."""

    cell: str = about("the id of the cell", pattern=CELL)
    id: str = about(
        "the id of a conformance case, with `:split` behind it when its bytes were sent one at a time; "
        "or `module.py::test[parameters]`",
        pattern=r"\S(?:.*\S)?",
    )
    kind: Kind = about("in process with no server, by requests of a client library, or by raw bytes")
    verdict: Verdict = about("what came of it")
    seconds: float = about("how long it took", minimum=0)
    rule: str = about("what has to hold, in one sentence", default="")
    level: Level | None = about("how binding the rule is, for a conformance case", default=None)
    section: str | None = about("the section that states the rule", default=None)
    source: str | None = about("why the case exists: an advisory, an issue or a URL", default=None)
    expected: tuple[str, ...] = about("each outcome that the rule accepts, in words", default=())
    got: str = about("what came instead, or which outcome came, in words", default="")
    explanation: str = about("why this is the verdict", default="")
    blame: Blame | None = about("whose fault it seems to be, when the verdict is unexpected", default=None)
    deviation: Deviation | None = about("the known deviation, with `known` and `stale`", default=None)
    exchange: Exchange | None = about("what went over the wire", default=None)
    log: str = about("what the server logged meanwhile, or the end of that", default="")
    reproduce: str = about("the command that runs this case alone again, quoted for a shell")

    @property
    def key(self) -> tuple[str, Kind, str]:
        """What identifies the case within a run, and from one run to another."""
        return self.cell, self.kind, self.id


@dataclass(frozen=True, kw_only=True)
class End:
    """The foot of a file: the run ended by itself or was stopped in an orderly way."""

    finished: str = about("when it ended, in UTC", pattern=TIME)
    seconds: float = about("how long it took", minimum=0)
    status: int = about("its exit status: 0 as expected, 1 failures or stale, 2 usage, 3 not set up", minimum=0)
    interrupted: bool = about("whether it was stopped before its last cell", default=False)


Record: TypeAlias = Run | Cell | Case | End
RECORDS: dict[str, type[Record]] = {"run": Run, "cell": Cell, "case": Case, "end": End}
NAMES: dict[type[Record], str] = {record_type: name for name, record_type in RECORDS.items()}


def format_time(moment: datetime) -> str:
    """Return a moment, which knows its time zone, as the records have it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def this_host() -> Host:
    """Return what the head of a run says about this machine."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Host(system=platform.system(), kernel=platform.release(), machine=platform.machine(), cpus=cpus)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of a cell with these verdicts; `skip` when there are none."""
    return min(verdicts, key=VERDICTS.index, default="skip")


def exit_status(verdicts: Iterable[Verdict]) -> int:
    """Return the exit status of a run with these verdicts: a failure weighs more than what could not be set up."""
    bad = UNEXPECTED.intersection(verdicts)
    if bad - {"setup-error"}:
        return EXIT_FAILED
    return EXIT_SETUP if bad else EXIT_OK


# Exchanges

EVENT_BYTES = 3584
"""How many bytes of one event are kept, most of them from its start."""

TAIL_BYTES = 512
"""How many of these are from its end, at most."""

EXCHANGE_BYTES = 16384
"""How many bytes of one exchange are kept; of the events beyond that, no more than `LEAST_BYTES` each."""

LEAST_BYTES = 64

MAX_EVENTS = 60
"""How many events of one exchange are kept; of more, the middle is left out."""


class WireEvent(Protocol):
    """An event as the runner of the conformance cases has it."""

    @property
    def seconds(self) -> float:
        """Seconds since the exchange began."""

    @property
    def kind(self) -> EventKind:
        """What happened."""

    @property
    def data(self) -> bytes:
        """The bytes that were sent or received."""

    @property
    def text(self) -> str:
        """A remark."""


def make_exchange(events: Iterable[WireEvent], address: str | None = None) -> Exchange:
    """Return an exchange of bounded size: pieces sent without a pause in between are joined, long ones cut.

    Args:
        events: what happened, the earliest first.
        address: where the client connected to.
    """
    joined = list(_join_pieces(events))
    left_out = len(joined) - MAX_EVENTS
    half = MAX_EVENTS // 2
    if left_out > 0:
        joined = joined[:half] + joined[-half:]
    sizes = [sum(map(len, pieces)) for _, pieces in joined]
    made = [_make_event(event, pieces, kept) for (event, pieces), kept in zip(joined, _share_bytes(sizes), strict=True)]
    if left_out > 0:
        made.insert(half, Event(at=made[half].at, kind="note", text=f"{left_out} events are left out here"))
    return Exchange(events=tuple(made), address=address)


def _share_bytes(sizes: Sequence[int]) -> list[int]:
    """Return how many bytes of each event are kept: the last one comes first, since it tells how the exchange ended."""
    kept = [0] * len(sizes)
    left = EXCHANGE_BYTES
    last = max((place for place, size in enumerate(sizes) if size), default=0)
    for place in sorted(range(len(sizes)), key=lambda place: place != last):
        kept[place] = min(sizes[place], max(min(left, EVENT_BYTES), LEAST_BYTES))
        left -= kept[place]
    return kept


def _join_pieces(events: Iterable[WireEvent]) -> Iterator[tuple[WireEvent, list[bytes]]]:
    first: WireEvent | None = None
    pieces: list[bytes] = []
    for event in events:
        if first and first.kind == event.kind == "sent":
            pieces.append(event.data)
            continue
        if first:
            yield first, pieces
        first, pieces = event, [event.data]
    if first:
        yield first, pieces


def _make_event(event: WireEvent, pieces: list[bytes], kept: int) -> Event:
    data = b"".join(pieces)
    omitted = len(data) - kept
    tail = min(TAIL_BYTES, kept // 4) if omitted else 0
    return Event(
        at=round(event.seconds, 4),
        kind=event.kind,
        data=data[: kept - tail].decode("latin-1"),
        omitted=omitted,
        tail=data[len(data) - tail :].decode("latin-1"),
        pieces=len(pieces),
        text=event.text,
    )


# Writing


def format_record(record: Record) -> str:
    """Return a record as one line of ASCII, with its line feed."""
    values = {"record": NAMES[type(record)], **encode(record)}
    return json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n"


class ResultsWriter:
    """Appends records to a file; a record has left this process when `write()` returns.

    Several threads and processes may append to the same file. A torn last line, left by a writer that was killed, is
    removed first.

    Args:
        path: the file; it is made when it is not there, with the folders that it lies in.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._mutex = threading.Lock()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with self._locked():
            self._remove_torn_line()

    def write(self, record: Record) -> None:
        """Append one record.

        Raises:
            OSError: it could not be written whole; the file is as it was before.
        """
        line = format_record(record).encode("ascii")
        with self._locked():
            written = os.write(self._descriptor, line)
            if written != len(line):
                self._remove_torn_line()
                raise OSError(f"{self.path}: only {written} of {len(line)} bytes were written; is the disk full?")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads, which share the descriptor and so its lock, and other processes out."""
        with self._mutex:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _remove_torn_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.ftruncate(self._descriptor, whole)


# Reading


@dataclass(frozen=True)
class Results:
    """What a file of results holds, or several files that were merged.

    Args:
        runs: the runs; more than one after `merge_results`.
        cells: the cells that ended.
        cases: the tests that ended.
        end: the foot of the file; None when the run was killed, or still goes on.
        torn: whether the last line was torn.
    """

    runs: tuple[Run, ...]
    cells: tuple[Cell, ...] = ()
    cases: tuple[Case, ...] = ()
    end: End | None = None
    torn: bool = False

    @property
    def run(self) -> Run:
        """The run, or the latest of them."""
        return self.runs[-1]

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The ids of the cells that were to run, or began to, and have no record."""
        ended = {cell.cell for cell in self.cells}
        begun = [case.cell for case in self.cases]
        planned = [cell for run in self.runs for cell in run.cells]
        return tuple(dict.fromkeys(cell for cell in [*planned, *begun] if cell not in ended))

    def exit_status(self) -> int:
        """Return the exit status that the run has by its verdicts."""
        return exit_status([*(cell.verdict for cell in self.cells), *(case.verdict for case in self.cases)])


def read_results(path: Path) -> Results:
    """Read a file of results, `.jsonl` or `.jsonl.gz`.

    Raises:
        ResultsError: it cannot be opened, or is not what the schema says; a torn last line alone is no error.
    """
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).split(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResultsError(f"{path}: cannot be read: {reason}") from error
    rest = lines.pop()
    records = [_read_line(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]
    return _gather(records, path, torn=bool(rest))


def merge_results(results: Sequence[Results]) -> Results:
    """Return several results as one, as the shards of a run make them; of a cell that is there twice, the later counts.

    Args:
        results: at least one, the earliest first.
    """
    place = {cell.cell: number for number, each in enumerate(results) for cell in each.cells}
    cases: dict[object, Case] = {}
    for number, each in enumerate(results):
        cases.update((case.key, case) for case in each.cases if place.get(case.cell, number) == number)
    ends = [each.end for each in results]
    return Results(
        runs=tuple(run for each in results for run in each.runs),
        cells=tuple(cell for number, each in enumerate(results) for cell in each.cells if place[cell.cell] == number),
        cases=tuple(cases.values()),
        end=ends[-1] if all(ends) else None,
        torn=any(each.torn for each in results),
    )


def resume_results(path: Path) -> Results:
    """Take out of a file what belongs to cells that did not end, and its foot, so that a run can go on in it.

    Nothing may write to the file meanwhile. The file is replaced as a whole, so that a kill leaves the old or the
    new one.

    Returns: what the file holds now.

    Raises:
        ResultsError: it is not a file of results.
    """
    found = read_results(path)
    ended = {cell.cell for cell in found.cells}
    kept = Results(runs=found.runs, cells=found.cells, cases=tuple(c for c in found.cases if c.cell in ended))
    replacement = path.with_name(path.name + ".new")
    with replacement.open("w", encoding="ascii") as file:
        for records in (kept.runs, kept.cases, kept.cells):
            file.writelines(format_record(record) for record in records)
    replacement.replace(path)
    return kept


def _read_line(line: bytes, where: str) -> Record:
    try:
        values = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ResultsError(f"{where}: not JSON: {error}") from error
    name = values.pop("record", None) if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in RECORDS:
        raise ResultsError(f'{where}: expected an object with "record": one of {", ".join(RECORDS)}')
    if name == "run" and values.get("format", FORMAT) != FORMAT:
        raise ResultsError(f"{where}: has the format {values['format']}, and this version reads format {FORMAT}")
    try:
        return decode(RECORDS[name], values, name)
    except RecordError as error:
        raise ResultsError(f"{where}: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _gather(records: list[Record], path: Path, *, torn: bool) -> Results:
    """Put records together and check what no single line shows."""
    if not records or not isinstance(records[0], Run):
        raise ResultsError(f'{path}: expected a "run" record in line 1; a file of results starts with one')
    seen: dict[object, int] = {}
    for number, record in enumerate(records, 1):
        key = record.cell if isinstance(record, Cell) else record.key if isinstance(record, Case) else type(record)
        if (first := seen.setdefault(key, number)) != number:
            what = " ".join(key) if isinstance(key, tuple) else key if isinstance(key, str) else NAMES[type(record)]
            raise ResultsError(f"{path} line {number}: {what} is there already, in line {first}")
    ends = [record for record in records if isinstance(record, End)]
    return Results(
        runs=(records[0],),
        cells=tuple(record for record in records if isinstance(record, Cell)),
        cases=tuple(record for record in records if isinstance(record, Case)),
        end=ends[0] if ends else None,
        torn=torn,
    )
