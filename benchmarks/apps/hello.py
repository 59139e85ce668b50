"""The smallest application that answers like a real one: no routing, so that the server is what is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CONTENT = b"Hello, world!\n"
FIELDS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(CONTENT)))]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Greet."""
    start_response("200 OK", FIELDS[:])  # a list of its own: PEP 3333 lets the server change it
    return [CONTENT]
