"""``python -m wizgy.healthcheck [URL]``: exits 0 when the URL answers with a 2xx or 3xx status, else 1.

It is for container images, which then need no curl.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final
from urllib.parse import urlsplit

DEFAULT_URL: Final = "http://127.0.0.1:8888/"
TIMEOUT: Final = 3.0
"""Seconds to wait for the answer."""
USAGE: Final = f"usage: python -m wizgy.healthcheck [URL]   (default: {DEFAULT_URL})"


def check(url: str) -> str:
    """Ask `url` once.

    Args:
        url: an http URL.

    Returns:
        What is wrong, or nothing.

    Source: RFC 9110 section 15
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        return f"{url!r} is not a URL: {error}"
    if not host or parts.scheme != "http":
        return f"{url!r} is not an http URL"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer: {error}"
    finally:
        connection.close()
    return "" if 200 <= status < 400 else f"{url} answers {status}"


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    wrong = check(arguments[0] if arguments else DEFAULT_URL)
    if wrong:
        print(f"wizgy.healthcheck: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
