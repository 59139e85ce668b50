"""An application that moves bytes and does nothing with them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PIECE = 65_536
LENGTH = 10_000_000
GIBIBYTE = 1 << 30


@cache
def content() -> bytes:
    """Make 10 MB when they are first asked for, so that they count for nobody who moves other bytes."""
    return bytes(range(250)) * (LENGTH // 250)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Take what is posted and say how many bytes came; else answer 10 MB, or 1 GiB in pieces."""
    if environ["REQUEST_METHOD"] == "POST":
        count = b"%d\n" % drain(environ)
        return answer(start_response, len(count), [count])
    if environ["PATH_INFO"] == "/gibibyte":
        return answer(start_response, GIBIBYTE, repeat(bytes(PIECE), GIBIBYTE // PIECE))
    return answer(start_response, LENGTH, [content()])


def answer(start_response: StartResponse, length: int, iterable: Iterable[bytes]) -> Iterable[bytes]:
    """Start a response of so many bytes."""
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))])
    return iterable


def drain(environ: WSGIEnvironment) -> int:
    """Read the content of a request to its end, and count it."""
    left = length = int(environ.get("CONTENT_LENGTH") or 0)
    while left:
        piece = environ["wsgi.input"].read(min(left, PIECE))
        if not piece:
            break
        left -= len(piece)
    return length - left
