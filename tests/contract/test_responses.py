"""Bodies of answers: of known length, streamed, dripped one event at a time, and from a file."""

from __future__ import annotations

import time

import pytest

from tests.contract.helpers import MEBIBYTE, pattern
from tests.harness.target import Target, read_to_end


@pytest.mark.parametrize("length", [0, 1, 65536, MEBIBYTE + 1])
def test_bytes(target: Target, length: int) -> None:
    """A body of known length arrives whole, with its Content-Length (RFC 9110 section 8.6)."""
    response = target.get(f"/bytes/{length}")

    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(length)
    assert "Transfer-Encoding" not in response.headers
    assert response.content == pattern(length)


@pytest.mark.parametrize(("chunk_count", "size"), [(0, 0), (1, 1), (3, 0), (5, 1000), (1000, 3), (20, 65536)])
def test_stream(target: Target, chunk_count: int, size: int) -> None:
    """A body of unknown length arrives whole; an empty item is no end (RFC 9112 section 7.1)."""
    response = target.get(f"/stream/{chunk_count}/{size}")

    assert response.status_code == 200
    assert response.content == pattern(chunk_count * size)


def test_stream_is_framed(target: Target) -> None:
    """A body of unknown length is chunked, so that its end can be told (RFC 9112 section 6.3)."""
    response = target.get("/stream/5/1000")

    assert response.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in response.headers


def test_stream_to_an_old_client(target: Target) -> None:
    """An HTTP/1.0 client gets no transfer coding (RFC 9112 section 6.1)."""
    with target.connect() as connection:
        connection.sendall(f"GET /stream/3/10 HTTP/1.0\r\nHost: {target.authority}\r\n\r\n".encode())
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")

    assert b"transfer-encoding" not in head.lower()
    assert body == pattern(30)


def test_drip(target: Target) -> None:
    """Each event reaches the client before the next is made (PEP 3333, Buffering and Streaming)."""
    count, pause = 3, 0.4
    with (
        target.session() as session,
        session.get(f"/drip/{count}/{int(pause * 1000)}", stream=True) as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.iter_lines(chunk_size=1)
        arrivals = [(line, time.monotonic()) for line in lines if line]

    assert [line for line, _ in arrivals] == [b"data: %d" % number for number in range(count)]
    # The server pauses before each event but the first. A server that holds events back until the
    # next one or the end delivers the last two together, however busy this machine is.
    (_, first), (_, last_but_one), (_, last) = arrivals[0], arrivals[-2], arrivals[-1]
    assert last - last_but_one > pause / 4
    assert last - first > pause * (count - 1) / 2


def test_file(target: Target) -> None:
    """A file of 1 MiB arrives whole through the framework's own means (PEP 3333, File Handling)."""
    response = target.get("/file")

    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(MEBIBYTE)
    assert response.content == pattern(MEBIBYTE)


def test_file_twice_on_one_connection(target: Target) -> None:
    """After a file the connection is good for the next answer (RFC 9112 section 9.3)."""
    with target.session() as session:
        for _ in range(3):
            assert session.get("/file").content == pattern(MEBIBYTE)
