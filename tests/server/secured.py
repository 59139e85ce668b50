"""The application that the tests of TLS serve: what came, exactly, and answers of every kind."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.server import served


def pattern(size: int) -> bytes:
    """Bytes that are the same each time, and nowhere the same as their neighbours."""
    return random.Random(size).randbytes(size)


def broken() -> Iterator[bytes]:
    """An answer whose end nobody made."""
    yield b"the beginning"
    raise RuntimeError("the answer is cut short")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application."""
    path, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    if path == "digest":
        content = hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()
    elif path == "pattern":
        content = pattern(int(argument))
    elif path == "file":
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(pattern(int(argument)))
        file.seek(0)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](file)  # type: ignore[no-any-return]
    elif path == "broken":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return broken()
    elif path == "modules":
        content = b"ssl" if "ssl" in sys.modules else b"no ssl"
    else:
        return served.app(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
    return [content]
