"""The conformance runner itself: its response reader, its verdicts, its cases and its commands."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import document, requirements, run
from tests.conformance.cases import (
    Case,
    CaseError,
    ExpectedResponse,
    load_cases,
    load_file,
    select_cases,
)
from tests.conformance.matching import find_differences
from tests.conformance.reader import Response, ResponseReader
from tests.conformance.requirements import Requirement
from tests.conformance.runner import (
    Exchange,
    TargetError,
    divide,
    format_exchange,
    play,
    start_all,
)

GREETING = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello world\n"
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n"

Script = Callable[[socket.socket], None]


def read(data: bytes, *, end: str | None = None, heads: tuple[bool, ...] = ()) -> ResponseReader:
    """Read responses from bytes that come all at once."""
    reader = ResponseReader(heads)
    reader.feed(data)
    if end == "eof":
        reader.finish("eof")
    elif end == "reset":
        reader.finish("reset")
    return reader


def head(*lines: str) -> bytes:
    """Write lines and the empty line after them, each with its CRLF."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


OK = "HTTP/1.1 200 OK"
CHUNKED = head(OK, "Transfer-Encoding: chunked")


# The reader


def test_content_length() -> None:
    """Content-Length bytes are the body (RFC 9112 section 6.3)."""
    reader = read(head(OK, "Content-Length: 5") + b"hello")
    assert [(r.status, r.body, r.framing, r.complete) for r in reader.responses] == [
        (200, b"hello", "content-length", True)
    ]
    assert not reader.pending


def test_chunks_and_trailers() -> None:
    """Chunks are joined, extensions ignored, trailer fields kept apart (RFC 9112 section 7.1)."""
    reader = read(CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-A: 1\r\n\r\n")
    (response,) = reader.responses
    assert response.body == b"hello"
    assert response.framing == "chunked"
    assert response.trailers == (("x-a", b"1"),)
    assert response.get_field("X-A") is None


def test_one_byte_at_a_time() -> None:
    """Responses are read alike however their bytes arrive (RFC 9112 section 2.2)."""
    data = head("HTTP/1.1 100 Continue") + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + GREETING + CHUNKED
    whole = read(data)
    single = ResponseReader()
    for byte in data:
        single.feed(bytes([byte]))
    assert single.responses == whole.responses
    assert len(whole.responses) == 2
    assert single.pending
    assert whole.pending


def test_pipelined_answers() -> None:
    """Each of several answers ends where its framing says (RFC 9112 section 9.3.2)."""
    reader = read(head(OK, "Content-Length: 1") + b"a" + head("HTTP/1.1 204 No Content") + GREETING)
    assert [(r.status, r.body) for r in reader.responses] == [
        (200, b"a"),
        (204, b""),
        (200, b"Hello world\n"),
    ]


def test_interim_answers() -> None:
    """Interim answers belong to the final one that follows (RFC 9110 section 15.2)."""
    reader = read(head("HTTP/1.1 100 Continue") + head("HTTP/1.1 103 Early Hints") + GREETING * 2)
    assert [r.interim for r in reader.responses] == [(100, 103), ()]


def test_interim_answer_alone() -> None:
    """An interim answer with nothing after it is no answer (RFC 9110 section 15.2)."""
    reader = read(head("HTTP/1.1 100 Continue"))
    assert reader.pending
    reader.finish("eof")
    assert reader.error == "the stream ends after an interim response"


def test_head_answer_has_no_body() -> None:
    """The answer to HEAD has no body whatever its fields say (RFC 9112 section 6.3)."""
    reader = read(head(OK, "Content-Length: 5") + GREETING, heads=(True, False))
    assert [(r.framing, r.body) for r in reader.responses] == [
        ("none", b""),
        ("content-length", b"Hello world\n"),
    ]


def test_head_answer_with_a_body_is_malformed() -> None:
    """A body after the answer to HEAD is read as what it is: no status line."""
    reader = read(head(OK, "Content-Length: 5") + b"hello\r\n", heads=(True,))
    assert reader.error == "not a status line: b'hello'"


def test_body_until_the_end() -> None:
    """Without a length the body ends with the connection (RFC 9112 section 6.3)."""
    reader = read(head(OK) + b"hello")
    assert reader.pending
    reader.finish("eof")
    assert [(r.body, r.framing, r.complete) for r in reader.responses] == [(b"hello", "close", True)]


@pytest.mark.parametrize(
    ("data", "end", "body"),
    [
        (head(OK, "Content-Length: 5") + b"hel", "eof", b"hel"),
        (CHUNKED + b"5\r\nhel", "eof", b"hel"),
        (CHUNKED + b"5\r\nhello\r\n", "eof", b"hello"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "eof", b"hello"),
        (head(OK) + b"hel", "reset", b"hel"),
    ],
    ids=["content-length", "chunk", "no-last-chunk", "no-trailer-end", "reset"],
)
def test_truncated_body(data: bytes, end: str, body: bytes) -> None:
    """A body that ends early is an incomplete message, not an error (RFC 9112 section 8)."""
    reader = read(data, end=end)
    assert [(r.complete, r.body) for r in reader.responses] == [(False, body)]
    assert reader.error is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"<html></html>\r\n",
        b"HTTP/1.1 200 OK\nX: 1\r\n\r\n",
        head(OK, "X-A : 1"),
        head(OK, "X-A: 1", " folded"),
        head(OK, "X-A"),
        head(OK, ": 1"),
        head(OK, "X-A: a\x00b"),
        head(OK, "X-A: a\rb"),
        head(OK, "Content-Length: +5"),
        head(OK, "Content-Length: 5, 5"),
        head(OK, "Content-Length: 5", "Content-Length: 5"),
        head(OK, "Content-Length: 5", "Transfer-Encoding: chunked"),
        head(OK, "Transfer-Encoding: gzip, chunked"),
        head("HTTP/1.0 200 OK", "Transfer-Encoding: chunked"),
        CHUNKED + b"0x5\r\nhello\r\n",
        CHUNKED + b"5\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"0\r\nX-A : 1\r\n\r\n",
    ],
)
def test_malformed_answer(data: bytes) -> None:
    """What does not follow the grammar is an error, not a response (RFC 9112 sections 2 to 7)."""
    reader = read(data)
    assert reader.error
    assert not reader.responses


def test_head_cut_short() -> None:
    """The end of the stream inside a head is an error (RFC 9112 section 8)."""
    assert read(b"HTTP/1.1 200 OK\r\nX", end="eof").error == "the stream ends inside a response head"


def test_nothing_received() -> None:
    """The end of the stream with nothing received is no error."""
    reader = read(b"", end="eof")
    assert not reader.error
    assert not reader.pending


# Matching


RESPONSE = Response(
    status=200,
    reason=b"OK",
    minor_version=1,
    fields=(("content-type", b"text/plain"), ("x-a", b"1"), ("x-a", b"2")),
    body=b'{"a": {"b": 1, "c": 2}, "d": [1]}',
    framing="content-length",
    complete=True,
    interim=(100,),
)


@pytest.mark.parametrize(
    "expected",
    [
        {"status": [201, "2xx"]},
        {"headers": {"Content-Type": "text/.*", "X-A": "1, 2"}},
        {"no_headers": ["X-B"]},
        {"body_matches": '"a"'},
        {"body_lacks": '"z"'},
        {"body_length": 33},
        {"json": {"a": {"b": 1}, "d": [1]}},
        {"framing": "content-length"},
        {"version": "1.1"},
        {"interim": [100]},
    ],
    ids=lambda expected: next(iter(expected)),
)
def test_expectation_met(expected: dict[str, Any], tmp_path: Path) -> None:
    """Each key of an expected response is met by a response that has it."""
    assert list(find_differences(make_expected(expected, tmp_path), RESPONSE)) == []


@pytest.mark.parametrize(
    "expected",
    [
        {"status": 201},
        {"status": "4xx"},
        {"headers": {"Content-Type": "text"}},
        {"headers": {"X-B": ".*"}},
        {"no_headers": ["x-A"]},
        {"body": "{}"},
        {"body_matches": '"z"'},
        {"body_lacks": '"a"'},
        {"body_length": 32},
        {"json": {"a": {"b": 2}}},
        {"json": {"a": {"b": True}}},
        {"json": {"a": {"z": 1}}},
        {"json": {"d": {"z": 1}}},
        {"framing": "chunked"},
        {"version": "1.0"},
        {"interim": []},
        {"complete": False},
    ],
    ids=lambda expected: next(iter(expected)),
)
def test_expectation_not_met(expected: dict[str, Any], tmp_path: Path) -> None:
    """Each key of an expected response that is not met is told in one sentence."""
    assert len(list(find_differences(make_expected(expected, tmp_path), RESPONSE))) == 1


def make_expected(table: dict[str, Any], directory: Path) -> ExpectedResponse:
    """Load an expected response the way a file of cases has it."""
    outcome = {"responses": [{"status": 200, **table}], "then": "any"}
    return make_case(directory, ["x"], [outcome]).expect[0].responses[0]


# Cases


def make_case(directory: Path, send: list[Any], expect: list[Any], **keys: Any) -> Case:
    """Write a file with one case, and load it."""
    table = {
        "id": "test-case",
        "level": "MUST",
        "section": "RFC 9112 section 2",
        "source": "a test",
        "rule": "A rule of a test.",
        "send": send,
        "expect": expect,
        **keys,
    }
    lines = [f"{key} = {to_toml(value)}" for key, value in table.items()]
    path = directory / "case.toml"
    path.write_text("\n".join(["[[case]]", *lines]), encoding="utf-8")
    return load_file(path)[0]


def to_toml(value: Any) -> str:
    """Write a value as TOML, on one line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {to_toml(item)}" for key, item in value.items())
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


CLOSED = [{"responses": [{"status": 400}], "then": "closed"}]
OPEN = [{"responses": [{"status": 200}], "then": "open"}]
ANY = [{"responses": [{"status": 200}], "then": "any"}]


def test_strings_are_latin_1(tmp_path: Path) -> None:
    """A character of a case stands for the byte with its number."""
    case = make_case(tmp_path, ["\u00ff\u0000", {"repeat": "ab", "times": 2}], CLOSED)
    assert [getattr(step, "data", None) for step in case.send] == [b"\xff\x00", b"abab"]


@pytest.mark.parametrize(
    "keys",
    [
        {"level": "must"},
        {"id": "No Spaces"},
        {"section": "somewhere"},
        {"rule": "No full stop"},
        {"send": []},
        {"send": ["\u0100"]},
        {"send": [{"pause": 10}]},
        {"send": [{"repeat": "a"}]},
        {"expect": []},
        {"expect": [{"responses": [{"status": 200}]}]},
        {"expect": [{"responses": [{"status": "2x"}], "then": "any"}]},
        {"expect": [{"responses": [{"status": 200, "bodies": "x"}], "then": "any"}]},
        {"expect": [{"responses": [{"status": 200, "body_matches": "("}], "then": "any"}]},
        {"unknown": 1},
        {"send": [{"half_close": True}, "x"]},
        {"send": ["x", {"half_close": True}], "expect": OPEN},
    ],
)
def test_invalid_case(keys: dict[str, Any], tmp_path: Path) -> None:
    """A case that breaks the schema is refused with its file, its id and the place."""
    arguments: dict[str, Any] = {"send": ["x"], "expect": CLOSED, **keys}
    with pytest.raises(CaseError, match=r"^case\.toml: "):
        make_case(tmp_path, **arguments)


def test_ids_are_unique(tmp_path: Path) -> None:
    """Two files cannot have a case with the same id."""
    make_case(tmp_path, ["x"], CLOSED)
    (tmp_path / "other.toml").write_text((tmp_path / "case.toml").read_text())
    with pytest.raises(CaseError, match=r"the id test-case is taken by a case of case\.toml"):
        load_cases(tmp_path)


def test_all_cases_load() -> None:
    """Every case of the repository follows the schema, and there are enough of them."""
    cases = load_cases()
    assert len(cases) >= 500
    assert len(select_cases(cases, "wsgi")) >= len(select_cases(cases))


# The runner


@contextmanager
def serve(script: Script) -> Iterator[tuple[str, int]]:
    """Let the first connection meet a script, and greet every later one."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def work() -> None:
        with listener:
            first = True
            while True:
                connection, peer = listener.accept()
                with connection:
                    connection.settimeout(20)
                    if peer == stopper.getsockname():
                        return
                    (script if first else greet)(connection)
                first = False

    stopper = socket.socket()
    stopper.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        with stopper:
            stopper.connect(listener.getsockname())
            thread.join(20)
        assert not thread.is_alive()


def greet(connection: socket.socket) -> None:
    """Answer one request as the /hello route does."""
    read_head(connection)
    connection.sendall(GREETING)


def read_head(connection: socket.socket) -> bytes:
    """Read until the end of a head, or of the stream."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            break
        received += data
    return received


def answer(*answers: bytes) -> Script:
    """Make a script that answers each head with the next of these bytes, and closes."""

    def script(connection: socket.socket) -> None:
        for data in answers:
            read_head(connection)
            connection.sendall(data)

    return script


def play_against(script: Script, case: Case, **options: Any) -> Exchange:
    """Play a case against a scripted server."""
    with serve(script) as (host, port):
        return play(case, host, port, **{"deadline": 1.0, **options})


REQUEST = "GET /hello HTTP/1.1\r\n\r\n"


def test_closed_as_expected(tmp_path: Path) -> None:
    """An answer and the end of the stream are the outcome closed."""
    exchange = play_against(answer(REFUSAL), make_case(tmp_path, [REQUEST], CLOSED))
    assert exchange.passed
    assert exchange.statuses == (400,)
    assert exchange.ended == "eof"
    assert exchange.sent == REQUEST.encode()
    assert exchange.received == REFUSAL
    assert not exchange.probed


def test_not_closed(tmp_path: Path) -> None:
    """A connection that stays open is not the outcome closed."""

    def stay(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(REFUSAL)
        connection.recv(1)

    exchange = play_against(stay, make_case(tmp_path, [REQUEST], CLOSED), deadline=0.3)
    assert not exchange.passed
    assert "the connection was not closed in time" in exchange.explanation


def test_open_as_expected(tmp_path: Path) -> None:
    """An answer to a further request is the outcome open, and not one of the case's answers."""
    exchange = play_against(answer(GREETING, GREETING), make_case(tmp_path, [REQUEST], OPEN))
    assert exchange.passed
    assert exchange.reused
    assert exchange.statuses == (200,)


def test_not_open(tmp_path: Path) -> None:
    """The end of the stream is not the outcome open."""
    exchange = play_against(answer(GREETING), make_case(tmp_path, [REQUEST], OPEN))
    assert not exchange.passed
    assert "did not answer a further request" in exchange.explanation


@pytest.mark.parametrize("answers", [(GREETING,), (GREETING, GREETING)], ids=["closed", "open"])
def test_any(answers: tuple[bytes, ...], tmp_path: Path) -> None:
    """The outcome any is met by a connection that ends and by one that goes on."""
    assert play_against(answer(*answers), make_case(tmp_path, [REQUEST], ANY)).passed


@pytest.mark.parametrize(("then", "passed"), [("any", True), ("closed", False), ("open", False)])
def test_announced_end_that_does_not_come(then: str, passed: bool, tmp_path: Path) -> None:
    """A connection of which its last answer said that it ends is asked for nothing more, and any is fulfilled."""

    def linger(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(REFUSAL)
        while connection.recv(65536):
            pass

    case = make_case(tmp_path, [REQUEST], [{"responses": [{"status": 400}], "then": then}])
    exchange = play_against(linger, case, deadline=0.3)
    assert exchange.passed is passed
    assert not exchange.probed


def test_any_is_not_silence(tmp_path: Path) -> None:
    """A connection that neither ends nor answers is out of step: it is not the outcome any."""

    def swallow(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(GREETING)
        while connection.recv(65536):
            pass

    case = make_case(tmp_path, [REQUEST], ANY)
    assert not play_against(swallow, case, deadline=0.3).passed


def test_answer_too_many(tmp_path: Path) -> None:
    """An answer beyond the expected ones fails, even if it looks like that to the probe."""
    case = make_case(tmp_path, [REQUEST], ANY)
    exchange = play_against(answer(GREETING * 2, GREETING), case)
    assert not exchange.passed
    assert re.search("[23] complete answers .* came, not 1", exchange.explanation)


@pytest.mark.parametrize(
    ("last", "then", "passed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close\r\n\r\n", "any", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "closed", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "open", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "any", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", "any", False),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", "any", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "any", False),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "any", False),
    ],
)
def test_end_after_the_first_of_several_answers(last: bytes, then: str, passed: bool, tmp_path: Path) -> None:
    """A server may end any connection after an answer that says so (RFC 9112 section 9.3)."""
    case = make_case(tmp_path, [REQUEST * 2], [{"responses": [{"status": 200}, {"status": 200}], "then": then}])
    exchange = play_against(answer(last), case)
    assert exchange.passed is passed


def test_second_outcome(tmp_path: Path) -> None:
    """One acceptable outcome is enough, whichever it is."""
    expect = [*OPEN, *CLOSED, {"responses": [], "then": "closed"}]
    case = make_case(tmp_path, [REQUEST], expect)
    assert play_against(answer(GREETING, GREETING), case).passed
    assert play_against(answer(REFUSAL), case).passed
    assert play_against(answer(b""), case).passed
    assert not play_against(answer(GREETING), case).passed


def test_truncated_answer(tmp_path: Path) -> None:
    """A case may ask for an answer that is cut short, and only then one may come."""
    cut = [{"responses": [{"status": 200, "complete": False}], "then": "closed"}]
    assert play_against(answer(GREETING[:-2]), make_case(tmp_path, [REQUEST], cut)).passed
    assert not play_against(answer(GREETING), make_case(tmp_path, [REQUEST], cut)).passed
    assert not play_against(answer(GREETING[:-2]), make_case(tmp_path, [REQUEST], ANY)).passed


def test_reset_by_the_server(tmp_path: Path) -> None:
    """A reset ends the stream like its end does, and the report tells them apart."""

    def reset(connection: socket.socket) -> None:
        read_head(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    closed = [{"responses": [], "then": "closed"}]
    exchange = play_against(reset, make_case(tmp_path, [REQUEST], closed))
    assert exchange.passed
    assert exchange.ended == "reset"


def test_answer_survives_a_failed_send(tmp_path: Path) -> None:
    """What the server said before it stopped reading is read although sending fails."""
    case = make_case(tmp_path, [REQUEST, {"repeat": "a", "times": 5_000_000}], CLOSED)

    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(REFUSAL)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    exchange = play_against(refuse, case)
    assert exchange.passed
    assert exchange.statuses == (400,)


def test_server_that_reads_nothing(tmp_path: Path) -> None:
    """A server that takes no more bytes does not hold the runner beyond the deadline."""
    case = make_case(tmp_path, [REQUEST, {"repeat": "a", "times": 10_000_000}], CLOSED)
    done = threading.Event()

    def ignore(connection: socket.socket) -> None:
        done.wait(20)

    with serve(ignore) as (host, port):
        started = time.monotonic()
        thread = threading.Timer(2.0, done.set)
        thread.start()
        exchange = play(case, host, port, deadline=0.3)
        thread.join()
    assert not exchange.passed
    assert any("takes no more" in event.text for event in exchange.events)
    assert time.monotonic() - started < 10


def test_await(tmp_path: Path) -> None:
    """What follows an await is sent once the awaited bytes have come."""
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        seen.append(connection.recv(65536))
        connection.sendall(GREETING)

    expect = [{"responses": [{"status": 200, "interim": [100]}], "then": "any"}]
    case = make_case(tmp_path, [REQUEST, {"await": "100 Continue"}, "hello"], expect)
    assert play_against(script, case).passed
    assert seen == [b"hello"]


def test_await_in_vain(tmp_path: Path) -> None:
    """A final answer instead of the awaited bytes ends the sending."""
    case = make_case(tmp_path, [REQUEST, {"await": "100 Continue"}, "hello"], CLOSED)
    exchange = play_against(answer(REFUSAL), case)
    assert exchange.passed
    assert exchange.sent == REQUEST.encode()


def test_half_close(tmp_path: Path) -> None:
    """After a half-close the server sees the end of the stream and can still answer."""
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            seen.append(data)
        connection.sendall(REFUSAL)

    case = make_case(tmp_path, ["GET /hel", {"half_close": True}], CLOSED)
    assert play_against(script, case).passed
    assert seen == [b"GET /hel"]


def test_reset_by_the_case(tmp_path: Path) -> None:
    """After a reset only the life of the server counts."""
    failures: list[OSError] = []

    def script(connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                pass
        except OSError as error:
            failures.append(error)

    expect = [{"responses": [], "then": "any"}]
    case = make_case(tmp_path, ["GET /hel", {"reset": True}], expect)
    exchange = play_against(script, case)
    assert exchange.passed
    assert [type(failure) for failure in failures] == [ConnectionResetError]


def test_dead_server(tmp_path: Path) -> None:
    """A server that does not answer on a fresh connection fails the case whatever it answered."""
    listener = socket.create_server(("127.0.0.1", 0))

    def die() -> None:
        connection, _ = listener.accept()
        # Gone before the answer: the check of its life cannot find it.
        listener.close()
        with connection:
            connection.settimeout(20)
            answer(REFUSAL)(connection)

    thread = threading.Thread(target=die)
    thread.start()
    host, port = listener.getsockname()
    exchange = play(make_case(tmp_path, [REQUEST], CLOSED), host, port, deadline=1.0)
    thread.join(20)
    assert not exchange.alive
    assert not exchange.passed
    assert exchange.explanation.startswith("no answer on a fresh connection")


def test_no_server(tmp_path: Path) -> None:
    """A target that cannot be reached is an error, not a failed case."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TargetError, match="no connection to "):
            play(make_case(tmp_path, [REQUEST], CLOSED), *unused.getsockname())


def test_split(tmp_path: Path) -> None:
    """A split case sends the same bytes in pieces of one byte."""
    case = make_case(tmp_path, [REQUEST], CLOSED)
    exchange = play_against(answer(REFUSAL), case, split=1)
    assert exchange.passed
    assert exchange.sent == REQUEST.encode()
    pieces = [event for event in exchange.events if event.kind == "sent"]
    assert [len(piece.data) for piece in pieces] == [1] * len(REQUEST)


@pytest.mark.parametrize("length", [0, 1, 1200, 1201, 5_000_000])
def test_divide(length: int) -> None:
    """However long a payload is, its pieces are all of it and a bounded number."""
    data = bytes(length % 251 for _ in range(length))
    pieces = list(divide(data, 1))
    assert b"".join(pieces) == data
    assert len(pieces) <= 1600
    assert all(len(piece) == 1 for piece in pieces[:600])


def test_report(tmp_path: Path) -> None:
    """The report of a failure has the rule, the bytes, what is acceptable and the command."""
    exchange = play_against(answer(GREETING), make_case(tmp_path, [REQUEST], CLOSED))
    report = format_exchange(exchange, "a command")
    for part in (
        "FAILED: test-case",
        "MUST, RFC 9112 section 2",
        "A rule of a test.",
        "reproduce: a command",
        repr(REQUEST.encode()),
        repr(GREETING),
        "400; then the connection is closed",
        "answer 1: status 200 is not 400",
    ):
        assert part in report


def test_start_all(tmp_path: Path) -> None:
    """Many cases are played at the same time, each with its own result."""
    case = make_case(tmp_path, [REQUEST], ANY)
    with serve(greet) as (host, port):
        executor, futures = start_all([case], host, port)
        with executor:
            assert futures[case.id].result(10).passed


# The commands


def write_case(directory: Path, monkeypatch: pytest.MonkeyPatch, expect: list[Any]) -> None:
    """Let the commands see one case only."""
    case = make_case(directory, [REQUEST], expect)
    monkeypatch.setattr(run, "load_cases", lambda: (case,))


@pytest.mark.parametrize(("expect", "status"), [(ANY, run.PASSED), (CLOSED, run.FAILED)])
def test_run(
    expect: list[Any],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command exits with 0 when all cases pass, with 1 when one fails, and writes both."""
    write_case(tmp_path, monkeypatch, expect)
    results = tmp_path / "results.json"
    with serve(greet) as (host, port):
        url = f"http://{host}:{port}"
        assert run.main(["--url", url, "--json", str(results), "test-case"]) == status
    output = capsys.readouterr().out
    assert ("reproduce: python -m tests.conformance.run" in output) == (status == run.FAILED)
    (record,) = json.loads(results.read_text())["results"]
    assert record["passed"] == (status == run.PASSED)
    assert record["sent"].startswith(REQUEST)  # a further request may have been sent before the end was seen
    assert record["statuses"] == [200]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "https://127.0.0.1:1"],
        ["--url", "127.0.0.1:1"],
        ["--url", "http://127.0.0.1:99999"],
        ["--url", "http://127.0.0.1:1", "no-such-case"],
        ["--url", "http://127.0.0.1:1", "--level", "SHOULD"],
    ],
)
def test_run_wrong_usage(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Arguments that cannot be used exit with 2 and say why."""
    write_case(tmp_path, monkeypatch, ANY)
    assert run.main(arguments) == run.WRONG_USAGE
    assert capsys.readouterr().err.startswith("tests.conformance.run: ")


def test_run_without_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target that does not answer as a compat app exits with 2."""
    write_case(tmp_path, monkeypatch, ANY)
    with serve(answer(REFUSAL)) as (host, port):
        options = run.parse_arguments(["--url", f"http://{host}:{port}"])
        with pytest.raises(TargetError, match="is not answered as a compat app answers it"):
            run.run(options, io.StringIO())


def test_page(tmp_path: Path) -> None:
    """The page has every case under its section, with an anchor, and sections in their order."""
    cases = (
        make_case(tmp_path, ["a\r\n\u0000", {"repeat": "b", "times": 2000}], CLOSED, id="b-1"),
        make_case(tmp_path, ["a"], ANY, id="b-2", section="RFC 9110 section 10.1.1"),
        make_case(tmp_path, ["a"], ANY, id="b-3", section="RFC 9110 section 9.3"),
    )
    page = document.make_page(cases)
    places = [
        page.index(part)
        for part in (
            "## RFC 9110 section 9.3\n",
            '<a id="b-3"></a>',
            "## RFC 9110 section 10.1.1\n",
            '<a id="b-2"></a>',
            "## RFC 9112 section 2\n",
            '<a id="b-1"></a>',
            "\na\\r\\n\n\\x00\n→ 2000 bytes: bbb",
        )
    ]
    assert places == sorted(places)


def test_page_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check fails on a page that is missing or changed, and passes on one just written."""
    case = make_case(tmp_path, ["a"], ANY)
    monkeypatch.setattr(document, "load_cases", lambda: (case,))
    monkeypatch.setattr(document, "PAGE", tmp_path / "docs" / "page.md")
    monkeypatch.setattr(requirements, "PAGE", tmp_path / "docs" / "requirements.md")
    demanded = Requirement("RFC 9112 section 2", "MUST", "Something.", ("test-*",))
    monkeypatch.setattr(requirements, "load_requirements", lambda: (demanded,))
    assert document.main(["--check"]) == 1
    for page in (document.PAGE, requirements.PAGE):
        assert document.main([]) == 0
        assert document.main(["--check"]) == 0
        page.write_text(page.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        assert document.main(["--check"]) == 1
    monkeypatch.setattr(requirements, "load_requirements", lambda: ())
    assert document.main([]) == 1


@pytest.mark.parametrize(
    ("requirement", "gap"),
    [
        (Requirement("RFC 9112 section 2", "MUST", "Something.", ("test-*",)), None),
        (Requirement("RFC 9112 section 2", "SHOULD", "Something.", ("test-case",)), "test-case is of level MUST"),
        (Requirement("RFC 9112 section 2", "MUST", "Something.", ("test-c", "other")), "no case is called test-c"),
    ],
)
def test_requirements_and_cases(requirement: Requirement, gap: str | None, tmp_path: Path) -> None:
    """A case demands no more than its level says, and a requirement names cases that exist."""
    gaps = list(requirements.find_gaps([requirement], [make_case(tmp_path, ["a"], ANY)]))
    assert bool(gaps) is (gap is not None)
    assert gap is None or gap in gaps[0]


@pytest.mark.parametrize(
    "table",
    [
        'level = "MUST"\ntext = "Something."\ncases = ["a"]',
        'section = "RFC 1"\nlevel = "MAY"\ntext = "Something."\ncases = ["a"]',
        'section = "RFC 1"\nlevel = "MUST"\ntext = "Something."',
        'section = "RFC 1"\nlevel = "MUST"\ntext = "Something."\ncases = ["a"]\noutside = "why"',
        'section = "RFC 1"\nlevel = "MUST"\ntext = "Something."\ncases = ["a"]\nmore = 1',
    ],
)
def test_invalid_requirement(table: str, tmp_path: Path) -> None:
    """A requirement with a key too many or too few is refused."""
    path = tmp_path / "requirements.toml"
    path.write_text(f"[[requirement]]\n{table}\n", encoding="utf-8")
    with pytest.raises(CaseError, match=r"requirements\.toml"):
        requirements.load_requirements(path)
