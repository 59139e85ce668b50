"""``python -m wizgy.healthcheck [URL]``: exits 0 when the URL answers with a 2xx or 3xx status, else 1.

It is for container images, which then need no curl. Without a URL it asks ``/readyz``, which ``wizgy --health``
answers, where ``WIZGY_BIND`` says that the server listens; else on the default port.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

DEFAULT_BIND: Final = "127.0.0.1:8888"
PATH: Final = "/readyz"
TIMEOUT: Final = 3.0
"""Seconds to wait for the answer."""
USAGE: Final = f"""\
usage: python -m wizgy.healthcheck [URL]

Exits 0 when URL answers with a 2xx or 3xx status, else 1. URL is http://..., https://... (certificates are not
verified: it asks its own machine) or unix:PATH. Default: {PATH}, which wizgy --health answers, at the first address
of WIZGY_BIND, else at {DEFAULT_BIND}."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket.

    Args:
        path: the socket's path.
    """

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def default_url(environment: Mapping[str, str] = os.environ) -> str:
    """Where a server in the same container listens.

    Args:
        environment: the environment variables, some of which may be settings of the server.
    """
    bind = environment.get("WIZGY_BIND", "").split(",")[0] or DEFAULT_BIND
    if bind.startswith(("unix:", "fd:")):
        return bind
    host, _, port = bind.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    scheme = "https" if environment.get("WIZGY_CERTFILE") else "http"
    return f"{scheme}://{host}:{port}{PATH}"


def check(url: str) -> str:
    """Ask `url` once.

    Args:
        url: an http or https URL, or ``unix:`` and the path of a socket, which is asked for ``/readyz``.

    Returns:
        What is wrong, or nothing.

    Source: RFC 9110 section 15
    """
    try:
        connection, target = _prepare(url)
    except ValueError as error:
        return f"{url!r} is not a URL that can be asked: {error}"
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer: {error}"
    finally:
        connection.close()
    return "" if 200 <= status < 400 else f"{url} answers {status}"


def _prepare(url: str) -> tuple[http.client.HTTPConnection, str]:
    """The connection to open, and what to ask for.

    Raises:
        ValueError: there is no such URL.
    """
    if url.startswith("fd:"):
        raise ValueError("nobody knows from here where that is; give the URL as an argument")
    if url.startswith("unix:"):
        return UnixConnection(url.removeprefix("unix:")), PATH
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not host or parts.scheme not in ("http", "https"):
        raise ValueError("expected http://HOST:PORT/PATH, https://HOST:PORT/PATH or unix:PATH")
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT), target
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context), target


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    wrong = check(arguments[0] if arguments else default_url())
    if wrong:
        print(f"wizgy.healthcheck: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
