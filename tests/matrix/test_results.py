"""The records of a run: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import gzip
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix import schema
from matrix.records import encode
from matrix.results import (
    EVENT_BYTES,
    EXCHANGE_BYTES,
    FORMAT,
    LEAST_BYTES,
    MAX_EVENTS,
    NAMES,
    RECORDS,
    TAIL_BYTES,
    VERDICTS,
    Blame,
    Case,
    Cell,
    Deviation,
    End,
    Event,
    EventKind,
    Exchange,
    Provenance,
    Record,
    ResultsError,
    ResultsWriter,
    Run,
    Tool,
    exit_status,
    format_record,
    make_exchange,
    merge_results,
    read_results,
    resume_results,
    this_host,
    worst,
)

CELL = "wizgy/flask-3.1/py3.13"
OTHER = "waitress/flask-3.1/py3.13"

RUN = Run(
    format=FORMAT,
    run="r1",
    started="2026-01-02T03:04:05Z",
    tool=Tool(version="0.1", commit="0" * 40),
    host=this_host(),
    seed=7,
    command="python -m matrix run",
    cells=(CELL, OTHER),
)
DONE = Cell(
    cell=CELL,
    transport="venv",
    provenance=Provenance(packages=("flask==3.1.0",), interpreter="3.13.0 (main)", server_version="0.1"),
    verdict="fail",
    started="2026-01-02T03:04:05Z",
    seconds=2.5,
    reproduce=f"python -m matrix run {CELL}",
)
CASE = Case(
    cell=CELL,
    id="9112-6.3-te-and-cl",
    kind="conformance",
    verdict="fail",
    seconds=0.25,
    rule="Transfer-Encoding together with Content-Length is refused.",
    level="security",
    section="RFC 9112 section 6.3",
    expected=("400; then closed",),
    got="200",
    blame=Blame(on="this server only", failing=("wizgy",), passing=("waitress",)),
    deviation=Deviation(reason="why", link="https://example.test/"),
    exchange=Exchange(events=(Event(at=0, kind="sent", data="GET / \x00\xff\r\n"),), address="127.0.0.1:1"),
    reproduce=f"python -m matrix repro {CELL} 9112-6.3-te-and-cl",
)
END = End(finished="2026-01-02T03:05:05Z", seconds=60, status=1)


def write(path: Path, *records: Record) -> Path:
    """Write records to a file."""
    with ResultsWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Each record comes back equal, and a whole file has an end and nothing torn."""
    results = read_results(write(tmp_path / "new" / "r.jsonl", RUN, CASE, DONE, END))

    assert (results.run, results.cells, results.cases, results.end) == (RUN, (DONE,), (CASE,), END)
    assert not results.torn
    assert results.unfinished == (OTHER,)
    assert results.exit_status() == 1


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    """A name that ends in .gz says that the lines are compressed."""
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(format_record(RUN).encode()))

    assert read_results(path).run == RUN


def test_lines_are_ascii_whatever_they_hold(tmp_path: Path) -> None:
    """Bytes, quotes, line feeds and surrogates stay inside their line and come back."""
    odd = dataclasses.replace(CASE, explanation='"\n\u2028\udc80</script>', log="\x00\r\n")
    path = write(tmp_path / "r.jsonl", RUN, odd)

    assert path.read_bytes().isascii()
    assert len(path.read_bytes().splitlines()) == 2
    assert read_results(path).cases == (odd,)


def test_a_cell_id_has_its_parts() -> None:
    """Server, framework, version and Python are read off the id."""
    assert (DONE.server, DONE.framework, DONE.version, DONE.python) == ("wizgy", "flask", "flask-3.1", "3.13")


# The schema


@cache
def validator() -> jsonschema.Draft202012Validator:
    """Return a validator for the published schema."""
    published = json.loads(schema.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    return jsonschema.Draft202012Validator(published)


def test_the_schema_and_its_page_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """The committed schema and page are those of matrix/results.py."""
    assert schema.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("record", [RUN, DONE, CASE, END], ids=["run", "cell", "case", "end"])
def test_the_schema_accepts_what_is_written(record: Record) -> None:
    """Every line that is written is valid under the published schema."""
    validator().validate(json.loads(format_record(record)))


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([*VERDICTS, "", CELL, "\u0100", "venv", "url"]),
    st.lists(st.sampled_from(["x", CELL, 1]), max_size=2),
    st.just({}),
    st.just({"at": 1}),
)


@settings(deadline=None)
@given(st.data())
def test_the_reader_refuses_what_the_schema_refuses(data: st.DataObject) -> None:
    """A record with any one key taken away, added or given another value is read just when the schema allows it."""
    records: list[Record] = [RUN, DONE, CASE, END]
    record = data.draw(st.sampled_from(records))
    values = {"record": NAMES[type(record)], **encode(record)}
    table = data.draw(st.sampled_from(list(_objects(values))))
    key = data.draw(st.sampled_from([*table, "another"]))
    if key in table and data.draw(st.booleans()):
        del table[key]
    else:
        table[key] = data.draw(JSON_VALUES)
    # A record of another format is refused for that alone, which the schema cannot say.
    expected = validator().is_valid(values) and values.get("format", FORMAT) == FORMAT
    lines = ("" if isinstance(record, Run) else format_record(RUN)) + json.dumps(values) + "\n"

    assert _is_read(lines) == expected


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within a value."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(each)


def _is_read(lines: str) -> bool:
    from matrix import results

    try:
        results._gather([results._read_line(line.encode(), "") for line in lines.splitlines()], Path(), torn=False)
    except ResultsError:
        return False
    return True


# What goes wrong


def line(record: Record, /, **changes: Any) -> str:
    """Return a record as a line with some keys changed; None takes a key away."""
    values = json.loads(format_record(record)) | changes
    return json.dumps({key: value for key, value in values.items() if value is not None}) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r'r.jsonl: expected a "run" record in line 1'),
        (line(CASE), 'expected a "run" record in line 1'),
        (line(RUN) + "no json\n", "line 2: not JSON"),
        (line(RUN) + line(END, seconds=float("nan")), "line 2: not JSON: NaN"),
        (line(RUN) + "[]\n", 'line 2: expected an object with "record": one of run, cell, case, end'),
        (line(RUN) + line(CASE, record="cas"), 'line 2: expected an object with "record"'),
        (line(RUN, format=2), "line 1: has the format 2, and this version reads format 1"),
        (line(RUN) + line(CASE, id=None), "line 2: case: the key 'id' is missing"),
        (line(RUN) + line(CASE, verdit="pass"), "line 2: case: there is no key 'verdit'; there are: cell, id, kind"),
        (line(RUN) + line(CASE, verdict="ok"), "line 2: case.verdict: expected one of: crash, .*, got 'ok'"),
        (line(RUN) + line(CASE, seconds="1"), "line 2: case.seconds: expected a number, got '1'"),
        (line(RUN) + line(CASE, seconds=-1), "line 2: case.seconds: expected a number, at least 0, got -1"),
        (line(RUN) + line(CASE, cell="flask"), "line 2: case.cell: expected a text like .*, got 'flask'"),
        (
            line(RUN) + line(CASE, exchange={"events": [{"at": 0, "kind": "sent", "data": "\u0394"}]}),
            r"line 2: case.exchange.events\[0\].data: expected a text like .*, got 'Δ'",
        ),
        (line(RUN) + line(CASE) * 2, f"line 3: {CELL} conformance 9112-6.3-te-and-cl is there already, in line 2"),
        (line(RUN) + line(DONE) * 2, f"line 3: {CELL} is there already, in line 2"),
        (line(RUN) * 2, "line 2: run is there already, in line 1"),
    ],
)
def test_an_error_says_where_and_what(tmp_path: Path, content: str, message: str) -> None:
    """A file that is no file of results is refused with the line, what was expected and what came."""
    path = tmp_path / "r.jsonl"
    path.write_text(content)

    with pytest.raises(ResultsError, match=message):
        read_results(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ResultsError, match=r"absent.jsonl: cannot be read"):
        read_results(tmp_path / "absent.jsonl")


# Kills


@pytest.mark.parametrize("kept", range(1, len(format_record(DONE)), 37))
def test_a_torn_last_line_is_left_out(tmp_path: Path, kept: int) -> None:
    """Wherever a kill cuts the last line, the lines before it are read, and the next writer goes on after them."""
    path = tmp_path / "r.jsonl"
    path.write_text(format_record(RUN) + format_record(CASE) + format_record(DONE)[:kept])

    results = read_results(path)
    assert (results.torn, results.cases, results.cells) == (True, (CASE,), ())

    write(path, DONE, END)
    results = read_results(path)
    assert (results.torn, results.cells, results.end) == (False, (DONE,), END)


def _write_many(path: Path, writer: int, count: int) -> None:
    with ResultsWriter(path) as results:
        for number in range(count):
            results.write(dataclasses.replace(CASE, id=f"case-{writer}-{number}", log="x" * 5000))


def test_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Processes that append to one file at the same time leave whole lines only."""
    path = write(tmp_path / "r.jsonl", RUN)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, writer, 100)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert len(read_results(path).cases) == 300


def test_a_killed_writer_leaves_a_readable_file(tmp_path: Path) -> None:
    """After SIGKILL in the middle of writing, everything before the last line is there."""
    path = write(tmp_path / "r.jsonl", RUN)
    writer = multiprocessing.get_context("spawn").Process(target=_write_many, args=(path, 0, 1_000_000))
    writer.start()
    try:
        while path.stat().st_size < 1_000_000:
            assert writer.is_alive(), "the writer ended by itself"
    finally:
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()

    cases = read_results(path).cases
    assert [case.id for case in cases] == [f"case-0-{number}" for number in range(len(cases))]
    assert len(cases) > 100


def test_a_run_goes_on_in_its_file(tmp_path: Path) -> None:
    """Resuming keeps the cells that ended, and drops what began and did not end."""
    half = dataclasses.replace(CASE, cell=OTHER)
    path = write(tmp_path / "r.jsonl", RUN, CASE, half, DONE, END)

    assert resume_results(path).unfinished == (OTHER,)

    write(path, half, dataclasses.replace(DONE, cell=OTHER), END)
    results = read_results(path)
    assert set(results.cases) == {CASE, half}
    assert results.unfinished == ()


def test_shards_are_merged(tmp_path: Path) -> None:
    """Of a cell that two files have, the later one counts, with its cases and none of the earlier one's."""
    other_run = dataclasses.replace(RUN, run="r2")
    other_case = dataclasses.replace(CASE, id="another-case")
    good = dataclasses.replace(DONE, verdict="pass")
    first = read_results(write(tmp_path / "1.jsonl", RUN, CASE, DONE, END))
    second = read_results(write(tmp_path / "2.jsonl", other_run, other_case, good))

    merged = merge_results([first, second])
    assert (merged.cells, merged.cases, merged.end) == ((good,), (other_case,), None)
    assert merged.run.run == "r2"


# Verdicts and exchanges


def test_the_verdict_of_a_cell_is_the_worst() -> None:
    """One failure makes a cell fail; with no case at all nothing was shown."""
    assert worst(["pass", "fail", "known", "skip"]) == "fail"
    assert worst(["skip", "pass"]) == "pass"
    assert worst([]) == "skip"


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([], 0),
        (["pass", "known", "skip"], 0),
        (["pass", "fail"], 1),
        (["pass", "stale"], 1),
        (["app-error"], 1),
        (["setup-error", "pass"], 3),
        (["setup-error", "crash"], 1),
    ],
)
def test_exit_status(verdicts: Any, status: int) -> None:
    """0 as expected, 1 for what is not, 3 when nothing but setting up failed."""
    assert exit_status(verdicts) == status


@dataclass(frozen=True)
class Wire:
    """An event as the runner records it."""

    seconds: float
    kind: EventKind
    data: bytes = b""
    text: str = ""


def test_pieces_are_joined() -> None:
    """Bytes sent one at a time make one event, which says in how many pieces; received ones keep their times."""
    events = [Wire(0.1 * place, "sent", bytes([place])) for place in range(3)]
    events += [Wire(0.4, "received", b"a"), Wire(0.5, "received", b"b"), Wire(0.6, "end of stream")]

    made = make_exchange(events).events
    assert [(event.at, event.kind, event.data, event.pieces) for event in made] == [
        (0.0, "sent", "\x00\x01\x02", 3),
        (0.4, "received", "a", 1),
        (0.5, "received", "b", 1),
        (0.6, "end of stream", "", 1),
    ]


def test_long_bytes_are_cut_in_the_middle() -> None:
    """The start and the end of a long event are kept, with the count of what is between them."""
    (event,) = make_exchange([Wire(0, "received", b"a" * 10_000 + b"z" * TAIL_BYTES)]).events

    assert event.data == "a" * (EVENT_BYTES - TAIL_BYTES)
    assert event.tail == "z" * TAIL_BYTES
    assert event.omitted == 10_000 + TAIL_BYTES - EVENT_BYTES


@pytest.mark.parametrize(("size", "omitted"), [(0, 0), (1, 0), (EVENT_BYTES, 0), (EVENT_BYTES + 1, 1)])
def test_nothing_is_cut_without_need(size: int, omitted: int) -> None:
    """Bytes are left out from the first one that does not fit."""
    data = bytes(place % 251 for place in range(size))
    (event,) = make_exchange([Wire(0, "received", data)]).events

    assert event.omitted == omitted
    assert len(event.data) + event.omitted + len(event.tail) == size
    assert omitted or event.data.encode("latin-1") == data


def test_a_long_exchange_keeps_its_start_and_its_end() -> None:
    """Beyond what is kept of an exchange each event keeps a little, and the last one all that it may."""
    made = make_exchange([Wire(at, "received", b"x" * 10_000) for at in range(50)]).events

    assert [len(event.data + event.tail) for event in (made[0], made[20], made[-1])] == [
        EVENT_BYTES,
        LEAST_BYTES,
        EVENT_BYTES,
    ]
    assert {len(event.data) + event.omitted + len(event.tail) for event in made} == {10_000}
    assert sum(len(event.data + event.tail) for event in made) < EXCHANGE_BYTES + 50 * LEAST_BYTES


def test_many_events_are_cut_in_the_middle() -> None:
    """A long exchange keeps its start and its end, with a note of what is left out."""
    made = make_exchange([Wire(at, "received", b"x") for at in range(1000)]).events

    assert len(made) == MAX_EVENTS + 1
    assert made[MAX_EVENTS // 2].text == f"{1000 - MAX_EVENTS} events are left out here"
    assert made[-1].at == 999


def test_every_record_has_a_name() -> None:
    """The key `record` tells the records apart."""
    assert list(RECORDS) == ["run", "cell", "case", "end"]
