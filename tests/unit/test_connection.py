"""A connection on a socket that is none: what it does in one turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import count as numbers
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from wizgy.config import Config
from wizgy.connection import CHUNKS_AT_ONCE, Connection, Service, State
from wizgy.log import ErrorLog
from wizgy.transport import RECEIVE_SIZE, TURN
from wizgy.wsgi import server_environ


class Socket:
    """Gives the pieces that it was made with, then more zeros whenever it is asked, or nothing."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self.pieces = list(pieces)
        self.endless = endless
        self.received = 0
        self.sent = b""

    def fileno(self) -> int:
        return 99

    def recv_into(self, buffer: memoryview, /) -> int:
        if not self.pieces and not self.endless:
            raise BlockingIOError
        data = self.pieces.pop(0) if self.pieces else bytes(len(buffer))
        buffer[: len(data)] = data
        self.received += len(data)
        return len(data)

    def send(self, data: bytes | memoryview, /) -> int:
        self.sent += data
        return len(data)

    def shutdown(self, how: int, /) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        pass

    def close(self) -> None:
        pass


class Deadlines:
    """Keeps deadlines and watches none."""

    def set(self, connection: Connection, deadline: float) -> None:
        assert deadline > monotonic()
        connection.deadline = deadline


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the content."""
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def wait_at_once(wait: Callable[[], None]) -> bool:
    """Wait for a client in the thread that has to, with no other for its place."""
    wait()
    return True


def connect(sock: Socket) -> Connection:
    """A connection on `sock` that has something to read."""
    environ = server_environ(
        name="n", port="80", scheme="http", errors=sys.stderr, multithread=True, multiprocess=False
    )
    service = Service(echo, Config(), ErrorLog(), None, None, Deadlines(), lambda connection: None, wait_at_once)
    return Connection(service, sock, ("192.0.2.1", "5"), environ)


def test_a_fast_upload_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends faster than it is read does not keep the thread that serves everybody (fault 1)."""
    ticks = numbers()
    monkeypatch.setattr("wizgy.transport.monotonic", lambda: 1 + next(ticks) * TURN / 4)
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n"
    sock = Socket(head.ljust(RECEIVE_SIZE, b"x"), endless=True)
    connection = connect(sock)
    connection.readable = True
    for _ in range(3):
        before = sock.received
        assert not connection.advance()
        assert connection.again
        assert connection.state is State.CONTENT
        assert RECEIVE_SIZE < sock.received - before <= 6 * RECEIVE_SIZE
    connection.close()


def test_a_turn_is_one_request_whoever_answers_it() -> None:
    """A client that pipelines what the server answers by itself has one answer a turn, like any other (fault 14)."""
    sock = Socket(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    connection = connect(sock)
    connection.readable = True
    for turn in range(50):
        assert not connection.advance()
        assert sock.sent.count(b"HTTP/1.1 200 ") == turn + 1
        assert connection.again == (turn < 49)
    connection.close()


def test_small_chunks_leave_others_their_turn() -> None:
    """What a turn may cost does not depend on how small the chunks of an upload are (fault 23)."""
    count = 50 * CHUNKS_AT_ONCE
    data = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * count + b"0\r\n\r\n"
    # Full pieces, the last of them but one ends within a chunk; it says nothing of whether more is there.
    sock = Socket(*(data[start : start + RECEIVE_SIZE] for start in range(0, len(data), RECEIVE_SIZE)))
    connection = connect(sock)
    connection.readable = True
    turns = 1
    while not connection.advance():
        turns += 1
        assert turns < 1000
        connection.readable = connection.readable or not connection.again  # the selector tells of what is left
    connection.respond()
    assert sock.sent.endswith(b"\r\n\r\n" + b"a" * count)
    assert turns > 2 * count / CHUNKS_AT_ONCE  # a chunk is its line, its data, and the line end after it
    connection.close()


def test_a_request_that_comes_at_once_looks_at_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a turn costs nothing where there is nothing to bound."""

    def fail() -> float:
        raise AssertionError

    monkeypatch.setattr("wizgy.transport.monotonic", fail)
    connection = connect(Socket(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert connection.advance()
    connection.close()


def test_what_is_dropped_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that goes on sending after the last answer does not keep the thread either (RFC 9112 section 9.6)."""
    ticks = numbers()
    monkeypatch.setattr("wizgy.transport.monotonic", lambda: 1 + next(ticks) * TURN / 4)
    sock = Socket(b"nonsense\r\n\r\n", endless=True)
    connection = connect(sock)
    connection.advance()
    for _ in range(3):
        before = sock.received
        connection.readable = True
        assert not connection.advance()
        assert connection.state is State.LINGERING
        assert connection.again
        assert sock.received - before <= 7 * RECEIVE_SIZE
    connection.close()


@pytest.mark.parametrize("end", [b"5", b"5\r", b"5\r\nhello", b"5\r\nhello\r", b"0\r\n", b"0\r\nA: b"])
def test_chunk_that_is_not_whole(end: bytes) -> None:
    """What has come of a chunk keeps nobody from receiving the rest, or the end (RFC 9112 section 7.1)."""
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    sock = Socket(head + end)
    connection = connect(sock)
    connection.readable = True
    assert not connection.advance()
    assert not connection.again
    sock.pieces.append(b"\r")
    connection.readable = True
    connection.advance()
    assert sock.pieces == []
    connection.close()


def answers(sock: Socket) -> bytes:
    """What a connection sends when everything of `sock` has been read."""
    connection = connect(sock)
    for _ in range(9):
        connection.readable = True
        if connection.advance():
            connection.respond()
    connection.close()
    return sock.sent


def test_content_that_is_there_is_not_asked_for() -> None:
    """A 100 would be of no use when some of the content came with the head (RFC 9110 section 10.1.1)."""
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    assert answers(Socket(head, b"abcd")).startswith(b"HTTP/1.1 100 ")
    for pieces in ((head + b"abcd",), (head + b"ab", b"cd"), (head[:9], head[9:] + b"a", b"bcd")):
        sent = answers(Socket(*pieces))
        assert sent.startswith(b"HTTP/1.1 200 ")
        assert sent.endswith(b"\r\n\r\nabcd")


def test_what_follows_content_is_the_next_request() -> None:
    """Exactly Content-Length bytes belong to a request, wherever the pieces end (RFC 9112 section 6.3)."""
    first = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd"
    both = first + first.replace(b"abcd", b"efgh")
    for cut in range(1, len(both)):
        sent = answers(Socket(both[:cut], both[cut:]))
        assert sent.count(b"HTTP/1.1 200 ") == 2
        assert sent.index(b"abcd") < sent.index(b"efgh")


def test_the_client_has_its_time_from_the_beginning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The thread that polls may look before the owner has set the deadline; no client is cut for that (fault 2)."""
    connection = connect(Socket())

    def sendfile(*arguments: int) -> int:
        connection.flush()
        raise BlockingIOError

    monkeypatch.setattr(os, "sendfile", sendfile)
    (tmp_path / "file").write_bytes(b"x" * 1000)
    with (tmp_path / "file").open("rb") as file:
        connection.send(b"head")
        connection.send_file(file.fileno(), 0, 1000)
        connection.flush()
    connection.close()
