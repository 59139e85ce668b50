"""What the server answers by itself leaves its reason in the error log, and no client can fill that or break it."""

from __future__ import annotations

import json
import resource
import socket
import ssl
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import connect, get, read_all, request, start, wait_until
from tests.server.tls_client import Authority, connect_secure

TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(200)
PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)
UWSGI = b"\x00\x1a\x00\x00\x0c\x00QUERY_STRING\x00\x00"
FASTCGI = bytes.fromhex("0101000100080000") + bytes(8)
CHUNKED = request("/upload", "Transfer-Encoding: chunked", method="POST")

REFUSALS = {
    "TLS": (TLS_HELLO, 400, "speaks TLS"),
    "PROXY version 1": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request(), 400, "--proxy-protocol"),
    "PROXY version 2": (PROXY_V2 + request(), 400, "--proxy-protocol"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "HTTP/0.9"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2"),
    "uwsgi": (UWSGI, 400, "uwsgi_pass"),
    "FastCGI": (FASTCGI, 400, "fastcgi_pass"),
    "raw UTF-8": ("GET /café HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400, "ASCII"),
    "a space": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "space"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
    "a long line": (b"GET /" + b"a" * 900 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "--max-request-line"),
    "large fields": (request("/", f"A: {'a' * 5000}"), 431, "--max-header-bytes"),
    "many fields": (request("/", *(f"A{number}: 1" for number in range(30))), 431, "--max-header-count"),
    "many trailers": (CHUNKED + b"0\r\n" + b"A: 1\r\n" * 30 + b"\r\n", 431, "--max-header-count"),
    "large trailers": (CHUNKED + b"0\r\n" + b"A: " + b"1" * 900 + b"\r\n" * 2, 431, "--max-header-bytes"),
    "large content": (request("/upload", "Content-Length: 5000", method="POST"), 413, "--max-body"),
    "large chunks": (CHUNKED + b"fff\r\n", 413, "--max-body"),
    "expectation": (request("/", "Expect: wonders"), 417, "100-continue"),
    "https": (request("https://localhost/"), 421, "TLS"),
    "CONNECT": (request("localhost:80", method="CONNECT"), 501, "CONNECT"),
    "cut short": (request("/upload", "Content-Length: 9", method="POST"), 400, "complete"),
    "slow head": (b"GET / HTTP/1.1\r\nHo", 408, "--header-timeout"),
    "slow content": (request("/slow", "Content-Length: 8", method="POST"), 408, "--body-timeout"),
    "a method": (request("/livez", method="POST"), 405, "GET and HEAD"),
}
LIMITS = ["--max-request-line", "800", "--max-header-bytes", "800", "--max-header-count", "20", "--max-body", "1000"]
TIMEOUTS = ["--header-timeout", "1", "--body-timeout", "1"]


def send(server: ServerProcess, data: bytes, *, ends: bool = True) -> bytes:
    """Send bytes on a connection of their own; returns what is answered."""
    with connect(server.address) as sock:
        sock.sendall(data)
        if ends:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


@pytest.mark.parametrize("name", REFUSALS)
def test_reason_is_in_the_log(name: str) -> None:
    """Whatever the server refuses, client, status and reason are in the error log, the flag of a limit with them."""
    data, status, reason = REFUSALS[name]
    with start(*LIMITS, *TIMEOUTS, "--health") as server:
        answer = send(server, data, ends=not name.startswith("slow")).decode("latin-1")
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert reason in answer
        line = server.wait_stderr(rf"^.*127\.0\.0\.1:\d+ was answered with {status}: .*$")[0]
        assert " INFO: " in line
        assert reason in line


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"GET /a?b HTTP/1.1\r\n\r\n", '"GET /a?b HTTP/1.1" 400'),
        (b"\r\nGET /a HTTP/1.0\r\nB : c\r\n\r\n", '"GET /a HTTP/1.0" 400'),
        (request("/", f"A: {'a' * 5000}"), '"GET / HTTP/1.1" 431'),
        (request("localhost:80", method="CONNECT"), '"CONNECT localhost:80 HTTP/1.1" 501'),
        (b"GET /" + b"a" * 900 + b" HTTP/1.1\r\nHost: a\r\n\r\n", '"-" 414'),
        (b"GET / nonsense\r\n\r\n", '"-" 400'),
        (TLS_HELLO, '"-" 400'),
    ],
)
def test_access_log_has_the_request_line_that_was_read(data: bytes, shown: str) -> None:
    """A request that is refused after a valid request line has that line in the access log."""
    with start(*LIMITS, "--access-log", "-", "--access-log-format", '"%r" %>s') as server:
        send(server, data)
        wait_until(lambda: server.stdout, "a line of the access log")
        assert server.stdout == f"{shown}\n"


def test_log_shows_what_is_not_understood() -> None:
    """What there is of a request line is in the log, escaped and cut: it cannot end a line or hide a secret field."""
    with start() as server:
        send(server, b'GET "/\xc3\xa9\x1b[2J" HTTP/1.1\r\nAuthorization: secret\r\n\r\n')
        send(server, b"nonsense " + b"a" * 10_000 + b"\r\nCookie: secret\r\n\r\n")
        server.wait_stderr(r'began with "GET \\x22/\\xc3\\xa9"\.$')
        server.wait_stderr(r'began with "nonsense a{191}\.\.\."\.$')
        assert "secret" not in server.stderr
        assert "\x1b" not in server.stderr


def test_json_log() -> None:
    """In JSON a refusal is one event, with the request as far as it was read and the id that its client is told."""
    with start("--log-format", "json", "--request-id") as server:
        answer = send(server, request("/a?b", "Content-Length: x", method="PUT"))
        line = json.loads(server.wait_stderr(r"^.*was answered with 400.*$")[0])
    assert (line["level"], line["method"], line["target"]) == ("info", "PUT", "/a?b")
    assert f"X-Request-ID: {line['request_id']}\r\n".encode() in answer


def test_flood_of_refusals_is_counted() -> None:
    """A flood of refusals of one kind writes a few lines; the others are counted, and another kind is still told."""
    with start() as server:
        for _ in range(50):
            send(server, b"GET / HTTP/1.1\r\n\r\n")
        send(server, TLS_HELLO)
        server.wait_stderr("speaks TLS")
        assert server.stop() == 0
        assert server.stderr.count("was answered with 400: An HTTP/1.1 request needs a Host field.") == 5
        assert "INFO: 45 more within a minute: An HTTP/1.1 request needs a Host field." in server.stderr


def test_full_disk_is_a_warning() -> None:
    """What the server has no room for is its own fault: a warning, with the reason that the system gives."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, limits[1]))
    try:
        server = start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with server:
        answer = send(server, request("/upload", "Content-Length: 900000", method="POST") + bytes(900_000))
        assert answer.startswith(b"HTTP/1.1 507 ")
        assert b"too large" not in answer
        server.wait_stderr(r"WARNING: .*POST /upload: 127\.0\.0\.1:\d+ was answered with 507: .* room .*File too large")


def test_plain_text_on_a_port_with_tls(tmp_path: Path) -> None:
    """Plain HTTP and a PROXY preamble on a port that speaks TLS are told, and so is a handshake that fails."""
    authority = Authority.make(tmp_path)
    arguments = ["--certfile", authority.issue("server", "localhost"), "--access-log", "-"]
    with start(*arguments) as server:
        assert b"This port speaks TLS" in send(server, request("/a?b"))
        server.wait_stdout('"GET /a\\?b HTTP/1.1" 400')
        server.wait_stderr(r"INFO: .*GET /a\?b: 127\.0\.0\.1:\d+ was answered with 400: This port speaks TLS")
        assert b"--proxy-protocol" in send(server, PROXY_V2)
        server.wait_stderr("was answered with 400: .* PROXY .*--proxy-protocol")
        with pytest.raises(ssl.SSLError):
            connect_secure(server.address, ssl.create_default_context())
        server.wait_stderr(r"INFO: No TLS with 127\.0\.0\.1:\d+: the client does not know who issued")
        with connect(server.address) as sock:
            sock.sendall(TLS_HELLO[:7])
        server.wait_stderr(r"INFO: No TLS with 127\.0\.0\.1:\d+: the client closed the connection")


def test_probes_without_a_byte_are_not_logged() -> None:
    """A load balancer that connects and closes asks nothing, so nothing is said."""
    with start("--log-level", "debug") as server:
        for _ in range(3):
            connect(server.address).close()
        assert get(server.address)[0] == 200
        before = server.stderr.count("\n")
        assert server.stop() == 0
        assert "answered with" not in server.stderr
        assert before == 1  # the ready line
