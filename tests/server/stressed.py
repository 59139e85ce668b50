"""The application of the stress test: every answer tells the id of its request, and the collector never rests."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

gc.set_threshold(30)  # so that finalizers run in the middle of anything

LINE = 64
"""Bytes of one line of a long answer."""


class Cycle:
    """What only the cyclic collector can free, and what logs when it does."""

    def __init__(self, errors: Any) -> None:
        self.itself = self
        self.errors = errors

    def __del__(self) -> None:
        self.errors.write("a cycle was collected\n")


def line_of(identity: str) -> bytes:
    """The line that a long answer consists of."""
    return identity.encode().ljust(LINE - 1, b".") + b"\n"


def lines(identity: str, count: int) -> Iterator[bytes]:
    """Yield so many lines, in pieces of a few hundred."""
    while count > 0:
        yield line_of(identity) * min(count, 512)
        count -= 512


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the id of the query: alone, with the digest of the content, or as many times as the path says."""
    Cycle(environ["wsgi.errors"])
    identity = parse_qs(environ["QUERY_STRING"]).get("id", [""])[0]
    what, _, count = environ["PATH_INFO"].lstrip("/").partition("/")
    fields = [("Content-Type", "text/plain"), ("X-Id", identity)]
    if what == "lines":
        start_response("200 OK", fields)
        return lines(identity, int(count))
    content = identity.encode() + b"\n"
    if what == "digest":
        content += hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode() + b"\n"
    start_response("200 OK", [*fields, ("Content-Length", str(len(content)))])
    return [content]
