"""An application that moves bytes and does nothing with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LENGTH = 10_000_000
PIECE = 65_536
CONTENT = (bytes(range(256)) * (LENGTH // 256 + 1))[:LENGTH]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Take what is posted and say how many bytes came; else answer 10 MB."""
    content = b"%d\n" % drain(environ) if environ["REQUEST_METHOD"] == "POST" else CONTENT
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(content)))])
    return [content]


def drain(environ: WSGIEnvironment) -> int:
    """Read the content of a request to its end, and count it."""
    left = length = int(environ.get("CONTENT_LENGTH") or 0)
    while left:
        piece = environ["wsgi.input"].read(min(left, PIECE))
        if not piece:
            break
        left -= len(piece)
    return length - left
