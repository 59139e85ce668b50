"""What is logged: one line a request, dates without a locale, and the wire dump."""

from __future__ import annotations

import email.utils
import json
import logging
import os
import re
import sys
import threading
from contextvars import Context
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.interruption import Interruption, moments_of
from wizgy import sink
from wizgy.errors import UsageError
from wizgy.http.request import HeadReader, Limits, RequestHead
from wizgy.log import (
    AccessLog,
    ErrorLog,
    ErrorStream,
    RequestIds,
    Trace,
    current_request_id,
    http_date,
    parse_request_id,
)
from wizgy.logline import Exchange
from wizgy.sink import flush_all


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written at once, as before an engine starts; one of another test may have."""
    monkeypatch.setattr(sink, "_threads_allowed", False)


@given(st.integers(0, 253402300799))
def test_http_date(now: int) -> None:
    """A date is an IMF-fixdate, as the standard library writes it (RFC 9110 section 5.6.7)."""
    assert http_date(now) == email.utils.formatdate(now, usegmt=True)


def test_access_log_file(tmp_path: Path) -> None:
    """Lines are appended; one that comes after the end of the log goes nowhere."""
    file = tmp_path / "log"
    file.write_text("before\n", "ascii")
    log = AccessLog(str(file), "combined")
    log.write(Exchange(("a", "1"), None, 200, 0, 0.0, 0.0))
    log.close()
    log.write(Exchange(("b", "1"), None, 200, 0, 0.0, 0.0))
    assert [line[:6] for line in file.read_text("ascii").splitlines()] == ["before", "a - - "]
    with pytest.raises(UsageError, match="cannot be opened"):
        AccessLog(str(tmp_path / "missing" / "log"), "combined")


def head_of(*lines: bytes) -> RequestHead:
    """A request head."""
    fields = b"".join(line + b"\r\n" for line in (b"Host: a", *lines))
    head = HeadReader(Limits()).read(bytearray(b"GET /a HTTP/1.1\r\n" + fields + b"\r\n"))
    assert head is not None
    return head


def error_log(level: str = "info", log_format: str = "text", *, embedded: bool = False) -> ErrorLog:
    """An error log that goes to what is standard error now."""
    log = ErrorLog()
    log.configure(level, log_format, embedded=embedded)
    return log


@pytest.fixture
def _no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that does not use `logging`."""
    monkeypatch.delitem(sys.modules, "logging")


class Kept(logging.Handler):
    """Keeps what a program's own handler would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.records.append(record)


def test_a_program_with_logging_has_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program that has set up `logging`, faults go to its logger `wizgy`."""
    kept = Kept()
    monkeypatch.setattr(logging.getLogger("wizgy"), "handlers", [kept])
    error = ValueError("x")
    error_log(embedded=True).report("It failed.", error, head=head_of(), request_id="id-1")
    [record] = kept.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "[id-1] GET /a: It failed.")
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_error_log_survives_handlers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A log handler of the program that raises does not fail a request, and what it was given is not lost."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError

    monkeypatch.setattr(logging.getLogger("wizgy"), "handlers", [Raises()])
    error_log(embedded=True).report("Something.", ValueError("x"))
    assert "Something. (ValueError, which cannot be printed)" in capsys.readouterr().err


def test_the_command_is_not_silenced(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A set-up of `logging` by the application, which disables other loggers, does not silence the command."""
    monkeypatch.setattr(logging.getLogger("wizgy"), "disabled", True)
    error_log().error("Heard %d times.", 1)
    assert capfd.readouterr().err.endswith("ERROR: Heard 1 times.\n")


@pytest.mark.usefixtures("_no_logging")
def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    """What is below the level is not said."""
    log = error_log("warning", embedded=True)
    for say in log.debug, log.info, log.warning, log.error:
        say("%s", say.__name__)
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == ["warning", "error"]


@pytest.mark.usefixtures("_no_logging")
def test_text_events(capsys: pytest.CaptureFixture[str]) -> None:
    """An event is a line with the id of its request, then its traceback; nothing in it moves a terminal's cursor."""
    try:
        raise ValueError("two\nlines \x1b[2J")
    except ValueError as error:
        error_log(embedded=True).report("It failed.", error, head=head_of(), request_id="id-1")
    first, second, *_, before, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d wizgy\[{os.getpid()}\] ERROR: \[id-1\] GET /a: It failed\.",
        first,
    )
    assert second == "Traceback (most recent call last):"
    assert (before, last) == ("ValueError: two", r"lines \x1b[2J")


@pytest.mark.usefixtures("_no_logging")
def test_json_events(capsys: pytest.CaptureFixture[str]) -> None:
    """With JSON an event is one object on one line: its traceback, its request, and the trace of that."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    log = error_log(log_format="json", embedded=True)
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        log.report("It failed.", error, head=head_of(b"traceparent: " + trace.encode()), request_id="id-1")
        log.exception("A fault of %s.", "ours")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["message"], first["request_id"]) == ("error", "It failed.", "id-1")
    assert (first["method"], first["target"], first["traceparent"]) == ("GET", "/a", trace)
    assert "two\nlines" in first["traceback"]
    assert (second["message"], second["traceback"]) == ("A fault of ours.", first["traceback"])
    assert first.keys() - second.keys() == {"method", "target", "request_id", "traceparent"}


@pytest.mark.usefixtures("_no_logging")
def test_an_exception_that_cannot_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception whose text raises is reported all the same."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise SystemExit

    error_log(embedded=True).report("It failed.", Unprintable())
    assert "It failed." in capsys.readouterr().err


class Waits:
    """A standard error that lets nothing through until it is told to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        """Take text, once the gate is open."""
        self.entered.set()
        assert self.gate.wait(10)
        self.writes.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


def test_tracebacks_in_pieces_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """What threads print to wsgi.errors piece by piece stays together: here two tracebacks, a line of each in turn."""
    monkeypatch.setattr(sink, "_threads_allowed", True)
    waits = Waits()
    monkeypatch.setattr("sys.stderr", waits)
    log = error_log(embedded=True)
    stream = ErrorStream(log)
    stream.write("first\n")  # which holds the writer, so that it takes all that follows at once
    assert waits.entered.wait(10)
    turns = [threading.Semaphore(1), threading.Semaphore(0)]

    def write(mine: int) -> None:
        for line in range(5):
            turns[mine].acquire()
            stream.write(f"thread {mine}")
            stream.write(f" line {line}\n")
            turns[1 - mine].release()

    threads = [threading.Thread(target=write, args=(mine,)) for mine in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    waits.gate.set()
    log.sink.close(10)
    lines = "".join(waits.writes).splitlines()
    assert lines == ["first", *(f"thread {mine} line {line}" for mine in (0, 1) for line in range(5))]


@pytest.mark.usefixtures("_no_logging")
def test_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """wsgi.errors has write, writelines and flush; nobody closes it (PEP 3333, "Input and Error Streams")."""
    stream = ErrorStream(error_log(embedded=True))
    assert stream.write("one ") == 4
    stream.writelines(["two\n", "three"])
    stream.flush()
    print("four", "five", file=stream)
    stream.close()
    stream.write("x" * 10_000)
    with pytest.raises(TypeError, match="takes str, not bytes"):
        stream.write(b"bytes")  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == ["one two", "three", "four five", "x" * 10_000]


@pytest.mark.usefixtures("_no_logging")
def test_error_stream_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With JSON what is written to wsgi.errors is an object, with the id of the request that wrote it."""
    stream = ErrorStream(error_log(log_format="json", embedded=True))

    def handle() -> None:
        current_request_id.set("id-1")
        stream.write("two\nlines\n")

    Context().run(handle)
    stream.write("of nobody\n")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["message"], first["request_id"], first["logger"]) == ("two\nlines", "id-1", "wsgi.errors")
    assert (second["message"], second["request_id"]) == ("of nobody", "")


def test_request_ids() -> None:
    """Ids differ from each other and from those of other processes, and may stand in a field and a log."""
    one, other = RequestIds(), RequestIds()
    ids = [one.make() for _ in range(1000)] + [other.make() for _ in range(1000)]
    assert len(set(ids)) == 2000
    assert all(parse_request_id(made) == made for made in ids)


@pytest.mark.parametrize(
    "value",
    ["a", "0af7651916cd43dd8448eb211c80319c", "f058ebd6-02f7-4d3f-942e-904344e8cde5", "Root=1-67891233-abc", "a" * 128],
)
def test_request_id_of_a_proxy(value: str) -> None:
    """The ids that proxies make are taken as they are."""
    assert parse_request_id(value) == value


@pytest.mark.parametrize("value", [None, "", "a" * 129, "a b", 'a"', "a\n", "a\x1b", "\xe9", "a, b", "a;b"])
def test_bad_request_id_of_a_proxy(value: str | None) -> None:
    """What could break a field or a log is as if there were none."""
    assert parse_request_id(value) == ""


def test_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """The dump has a sign before each line, and nothing in it can move a terminal's cursor."""
    trace = Trace()
    trace.received(b"GET / HTTP/1.1\r\n\r\n")
    trace.sent(b"a\x1b[2Jb\xff\xc2\x9b\nlast")
    trace.sent_file(3)
    assert capsys.readouterr().out.splitlines() == [
        "< GET / HTTP/1.1",
        "< ",
        r"> a\x1b[2Jb\xff\x9b",
        "> last",
        "> [3 bytes of a file]",
    ]


def test_unended_text_is_its_own_requests(capsys: pytest.CaptureFixture[str]) -> None:
    """Text without a line feed comes under the id that it was written under, and ends with the request."""
    stream = ErrorStream(error_log(embedded=True))
    contexts = [Context(), Context()]
    for number, context in enumerate(contexts):
        context.run(current_request_id.set, f"id-{number}")
    contexts[0].run(stream.write, "of the first")
    assert stream.begun
    contexts[1].run(stream.write, "of the second")
    stream.end_line()  # in no context: the request is over
    assert not stream.begun
    stream.end_line()
    flush_all()
    assert capsys.readouterr().err == "[id-0] of the first\n[id-1] of the second\n"


def test_text_that_interrupts_another(capsys: pytest.CaptureFixture[str]) -> None:
    """What a finalizer writes in the middle of a write stands by itself; nothing is lost or doubled."""
    code = ErrorStream._take.__code__
    for offset in moments_of(code):
        stream = ErrorStream(error_log(embedded=True))
        stream.write("begun ")
        with Interruption(code, offset, partial(stream.write, "inner")):
            stream.write("outer\n")
        flush_all()
        lines = sorted(capsys.readouterr().err.splitlines())
        assert lines in (["begun outer"], ["begun outer", "inner"])
