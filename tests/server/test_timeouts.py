"""Deadlines: what is cut when a client is too slow, and how it is told."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import (
    HELLO,
    connect,
    is_alive,
    peers,
    probe,
    read_all,
    read_answer,
    request,
    serving_workers,
    start,
    wait_until,
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with short deadlines."""
    names = ["--header-timeout", "--body-timeout", "--keepalive-timeout", "--write-timeout"]
    arguments = [word for name in names for word in (name, "0.5")]
    with start("--trace", "--access-log", "/dev/null", *arguments) as process:
        yield process


def is_timeout(answer: bytes) -> bool:
    """Whether an answer is a 408 after which the connection closes."""
    return answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n") and b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("sent", [b"G", b"\r\n", b"GET / HTTP/1.1\r\nHost: loc", HELLO + b"GET /"])
def test_head_that_does_not_come(server: ServerProcess, sent: bytes) -> None:
    """A head that was begun and does not come in time is 408 (RFC 9110 section 15.5.9)."""
    with connect(server.address) as sock:
        sock.sendall(sent)
        if sent.startswith(HELLO):
            read_one(sock)
        assert is_timeout(read_all(sock))


def read_one(sock: socket.socket) -> None:
    """Read the answer to HELLO and no byte of what comes after it."""
    data = b""
    while not data.endswith(b"hello\n"):
        data += sock.recv(1)


@pytest.mark.parametrize("field", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_content_that_does_not_come(server: ServerProcess, field: str) -> None:
    """Content that does not come in time is 408 (RFC 9110 section 15.5.9)."""
    with connect(server.address) as sock:
        sock.sendall(request("/upload", field, method="POST") + b"2\r\nab")
        assert is_timeout(read_all(sock))


def test_content_that_drips(server: ServerProcess) -> None:
    """Content that comes a byte at a time, each in time, is cut by the rate that it must keep."""
    with connect(server.address) as sock:
        sock.sendall(request("/upload", "Content-Length: 100000", method="POST"))
        answer = b""
        sock.settimeout(0.1)

        def drip() -> bool:
            nonlocal answer
            try:
                sock.sendall(b"a")
                answer = sock.recv(4096)
            except TimeoutError:
                pass
            return bool(answer)

        wait_until(drip, "the upload is cut")
        assert is_timeout(answer)


@pytest.mark.parametrize("sent", [b"", HELLO], ids=["new", "used"])
def test_idle_connection_closes_silently(server: ServerProcess, sent: bytes) -> None:
    """A connection that no request comes on is closed with no answer (RFC 9112 section 9.5)."""
    with connect(server.address) as sock:
        sock.sendall(sent)
        if sent:
            read_answer(sock)
        assert read_all(sock) == b""


def test_client_that_takes_nothing_is_cut(server: ServerProcess) -> None:
    """An answer of which the client takes nothing is cut, and its descriptor freed."""
    with connect(server.address, receive_buffer=4096) as sock:
        size = 8 << 20
        sock.sendall(request(f"/big/{size}"))
        assert probe(server.address, 3) < 5
        wait_until(lambda: len(peers(server, sock)) == 0, "the server has dropped the connection")
        data = b""
        try:
            data = read_all(sock)
        except ConnectionResetError:
            pass
        assert len(data) < size


def test_slow_reader_that_keeps_on_is_served(server: ServerProcess) -> None:
    """A client that takes its answer slowly but all the time gets all of it."""
    with connect(server.address, receive_buffer=65536) as sock:
        size = 4 << 20
        sock.sendall(request(f"/big/{size}", "Connection: close"))
        received = 0
        while piece := sock.recv(16384):
            received += len(piece)
        assert received > size


def test_application_may_be_slow(server: ServerProcess) -> None:
    """None of the deadlines is the application's."""
    with connect(server.address) as sock:
        sock.sendall(request("/sleep/1200"))
        assert read_answer(sock)[1] == b"slept\n"
        sock.sendall(HELLO)
        assert read_answer(sock)[1] == b"hello\n"


@pytest.mark.parametrize("size", [20_000_000, 1_000_000_000])
def test_answer_without_a_length_that_is_not_taken(server: ServerProcess, size: int) -> None:
    """A client that takes too little of an answer that ends with its connection sees a reset (RFC 9112 section 8)."""
    with connect(server.address, receive_buffer=4096) as sock:
        sock.sendall(f"GET /stream/{size} HTTP/1.0\r\n\r\n".encode())
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 3, "it is cut")
        with pytest.raises(ConnectionResetError):
            read_all(sock)


def ends_with_a_reset(sock: socket.socket) -> bool:
    """Read to the end; whether it is a reset."""
    try:
        read_all(sock)
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("how", ["deadline", "stop", "kill"])
@pytest.mark.parametrize("size", [100, 16 << 20])
def test_response_without_a_length_that_is_cut(how: str, size: int) -> None:
    """Where the end of the connection would be the end of the content, any other end is a reset (RFC 9112 section 8).

    The application is in the middle of the response, so the thread that cuts it is not the one that sends it.
    """
    if how == "deadline" and size == 100:
        size = 4 << 20  # less than that waits for no client
    timeouts = ["--write-timeout", "0.5" if how == "deadline" else "60", "--graceful-timeout", "0.5"]
    with start(*timeouts) as server, connect(server.address, receive_buffer=4096) as sock:
        sock.sendall(f"GET /late/{size} HTTP/1.0\r\n\r\n".encode())
        assert sock.recv(1)
        if how == "deadline":
            wait_until(lambda: not peers(server, sock), "the server has dropped the connection")
        elif how == "stop":
            server.stop()
        else:
            (worker,) = serving_workers(server, 1)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: not is_alive(worker), "the worker is gone")
        assert ends_with_a_reset(sock)


def test_response_without_a_length_that_is_whole(server: ServerProcess) -> None:
    """A response that ends with its connection, and has come to its end, ends in order (RFC 9112 section 8)."""
    for fields in ("", "Connection: close\r\n"):
        with connect(server.address) as sock:
            sock.sendall(f"GET /stream/3000000 HTTP/1.0\r\n{fields}\r\n".encode())
            sock.shutdown(socket.SHUT_WR)  # the server closes at once, and does not wait for the client to do so
            assert len(read_all(sock)) > 3000000
