"""Connections and concurrency: reuse, closing, many clients at once, and slow views among them."""

from __future__ import annotations

import http.client
import json
import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from tests.contract.helpers import MEBIBYTE, chunks, json_object, pattern, sha256
from tests.harness.target import TIMEOUT, Target, read_response, read_to_end


@contextmanager
def one_connection(target: Target) -> Iterator[http.client.HTTPConnection]:
    """Open a connection that is never replaced: requests would reconnect without a word."""
    connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT)
    connection.connect()
    connection.auto_open = 0
    with closing(connection):
        yield connection


def request_bytes(target: Target, path: str, *fields: str) -> bytes:
    """Return an HTTP/1.1 GET request for the wire."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {target.authority}", *fields, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("path", ["/hello", "/stream/3/10", "/status/204", "/status/404", "/file"])
def test_connection_is_reused(target: Target, path: str) -> None:
    """A connection persists after an answer of any framing (RFC 9112 section 9.3)."""
    with one_connection(target) as connection:
        for _ in range(3):
            connection.request("GET", path)
            connection.getresponse().read()
        assert connection.sock is not None, "the server asked to close"


def test_connection_is_reused_after_bodies(target: Target) -> None:
    """A connection persists after request bodies of any framing (RFC 9112 section 9.3)."""
    body = pattern(100_000)
    with one_connection(target) as connection:
        for content in (body, b"", body):
            for sent in (content, chunks(content, 30_000)):
                connection.request("POST", "/echo", sent)
                echo = json.loads(connection.getresponse().read())
                assert echo["body_sha256"] == sha256(content)


def test_unread_body(target: Target) -> None:
    """A body that no view reads does not disturb the next request (RFC 9112 section 9.3)."""
    with target.session() as session:
        for data in (pattern(3 * MEBIBYTE), chunks(pattern(3 * MEBIBYTE), 65536)):
            # Django's CSRF protection refuses the method before its view does.
            assert session.post("/hello", data=data).status_code in (403, 405)
            assert session.get("/hello").text == f"{target.framework.greeting}\n"


def test_close_is_honoured(target: Target) -> None:
    """Asked to close, the server answers, says so and closes (RFC 9112 section 9.6)."""
    with target.connect() as connection:
        connection.sendall(request_bytes(target, "/hello", "Connection: close"))
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")

    assert body == f"{target.framework.greeting}\n".encode()
    assert b"\r\nconnection: close" in head.lower()


def test_old_client(target: Target) -> None:
    """An HTTP/1.0 client gets its answer, and then the end of the stream (RFC 9112 section 9.3)."""
    with target.connect() as connection:
        connection.sendall(f"GET /hello HTTP/1.0\r\nHost: {target.authority}\r\n\r\n".encode())
        _, _, body = read_to_end(connection).partition(b"\r\n\r\n")

    assert body == f"{target.framework.greeting}\n".encode()


def test_many_clients(target: Target) -> None:
    """Sixteen clients at once each get the answers to their own requests."""

    def client(number: int) -> list[str]:
        wrong = []
        with target.session() as session:
            for turn in range(20):
                text = f"client {number} turn {turn}"
                if turn % 2:
                    seen = json_object(session.get("/echo", params={"text": text}))["query"]
                else:
                    seen = json_object(session.post("/echo", data={"text": text}))["form"]
                if seen != {"text": [text]}:
                    wrong.append(f"{text} was answered with {seen}")
        return wrong

    with ThreadPoolExecutor(16) as clients:
        assert [wrong for answers in clients.map(client, range(16)) for wrong in answers] == []


def test_slow_request_blocks_no_other(target: Target) -> None:
    """While one view sleeps, other clients are answered."""
    longest, count = 0.0, 0
    with target.connect() as slow:
        slow.sendall(request_bytes(target, "/slow/1000"))
        while not select.select([slow], [], [], 0)[0]:
            started = time.monotonic()
            assert target.get("/hello").status_code == 200
            longest, count = max(longest, time.monotonic() - started), count + 1
        assert read_response(slow) == (200, b"slow\n")

    # A server that runs one view at a time lets at least one client wait for most of the second.
    assert longest < 0.7
    assert count > 1


def test_slow_requests_run_side_by_side(target: Target) -> None:
    """Four views that sleep do so at the same time."""
    started = time.monotonic()
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: target.get("/slow/800").text, range(4)))

    assert answers == ["slow\n"] * 4
    assert time.monotonic() - started < 1.5, "one after the other takes 3.2 s"


def test_slow_reader(target: Target) -> None:
    """A client that does not read its large answer holds up no other (RFC 9112 section 9.3)."""
    with target.connect() as reader:
        reader.sendall(request_bytes(target, "/bytes/20000000", "Connection: close"))
        for _ in range(5):
            assert target.get("/hello").status_code == 200
        _, _, body = read_to_end(reader).partition(b"\r\n\r\n")

    assert body == pattern(20_000_000)
