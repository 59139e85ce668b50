"""The server under test, as its clients see it: a URL, and two ways to talk to it."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.harness.frameworks import Framework
from tests.harness.process import ServerProcess

TIMEOUT = 10.0
"""Seconds that one socket operation may take: far more than any healthy answer needs."""


class TargetError(Exception):
    """The target cannot be used; the message says why and what was expected."""


@dataclass(frozen=True)
class Target:
    """Something that serves a framework's app over HTTP.

    `process` is the server when this run started it, None when it was already running (`--url`).
    """

    url: str
    framework: Framework
    process: ServerProcess | None = None
    host: str = field(init=False)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        host, port = split_url(self.url)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "port", port)

    @property
    def authority(self) -> str:
        """The value of the Host field for this target, `host:port`."""
        return urlsplit(self.url).netloc

    def session(self) -> TargetSession:
        """Return a client with its own connections and cookies; use it as a context manager."""
        return TargetSession(self.url)

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send one request on a connection of its own; options are those of requests.request."""
        with self.session() as session:
            return session.request(method, path, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET request on a connection of its own."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> requests.Response:
        """Send a HEAD request on a connection of its own."""
        return self.request("HEAD", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """Send a POST request on a connection of its own."""
        return self.request("POST", path, **options)

    @contextmanager
    def connect(self, timeout: float = TIMEOUT) -> Iterator[socket.socket]:
        """Open a plain TCP connection, for what a client library cannot say."""
        with socket.create_connection((self.host, self.port), timeout) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection


class TargetSession(requests.Session):
    """A requests session whose paths are relative to the target, with a timeout on every call.

    Redirects are followed only with `follow=True`, and proxies of the environment are not used: a
    test wants the target's own answer.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.trust_env = False
        self.url = url

    def request(  # type: ignore[override]
        self, method: str, path: str, **options: Any
    ) -> requests.Response:
        """Send a request for a path of the target."""
        options.setdefault("timeout", TIMEOUT)
        options["allow_redirects"] = options.pop("follow", False)
        return super().request(method, self.url + path, **options)


def read_to_end(connection: socket.socket) -> bytes:
    """Return all bytes until the peer closes; each wait is bounded by the socket's timeout."""
    received = bytearray()
    while data := connection.recv(65536):
        received += data
    return bytes(received)


def read_response(connection: socket.socket, method: str = "GET") -> tuple[int, bytes]:
    """Read one framed answer from a raw connection and return its status and body.

    `method` is that of the request: it decides whether a body follows. Send the next request only
    after the call, as bytes read ahead are dropped.
    """
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return response.status, response.read()
    finally:
        response.close()


def split_url(url: str) -> tuple[str, int]:
    """Return the host and port of a target's URL.

    Raises:
        TargetError: it is not `http://HOST[:PORT]` with no path.
    """
    expected = f"expected http://HOST:PORT, got {url!r}"
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise TargetError(f"{expected} ({error})") from error
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise TargetError(expected)
    return parts.hostname, port


def wait_accepting(url: str, timeout: float = 30) -> None:
    """Wait until something accepts connections at a URL.

    Raises:
        TargetError: nothing did within `timeout` seconds, or the URL is not one of a target.
    """
    address = split_url(url)
    deadline = time.monotonic() + timeout
    while problem := _connection_problem(address, max(deadline - time.monotonic(), 0.1)):
        if time.monotonic() >= deadline:
            raise TargetError(
                f"nothing accepted a connection at {url} within {timeout:g} s ({problem}); "
                "start the server first, or leave --url out"
            )
        # Nothing tells when a stranger's socket begins to listen: ask again soon.
        time.sleep(0.1)


def _connection_problem(address: tuple[str, int], timeout: float) -> OSError | None:
    try:
        socket.create_connection(address, timeout).close()
    except OSError as error:
        return error
    return None


def server_name(url: str) -> str:
    """Return the Server field of the target's answer to /hello, or that it has none."""
    with TargetSession(url) as session:
        try:
            return session.get("/hello").headers.get("Server", "no Server field")
        except requests.RequestException as error:
            raise TargetError(f"{url} accepts connections but did not answer: {error}") from error
