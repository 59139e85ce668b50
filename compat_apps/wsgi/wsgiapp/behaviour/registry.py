"""What all views of application behaviour share: their names, and how they answer and log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wsgiapp.probes import PLAIN, answer_text, read_parameter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BEHAVIOURS: dict[str, WSGIApplication] = {}

__all__ = ["BEHAVIOURS", "PLAIN", "answer_json", "answer_text", "behaviour", "log_line", "read_parameter"]


def behaviour(application: WSGIApplication) -> WSGIApplication:
    """Register a view under its own name."""
    BEHAVIOURS[application.__name__] = application
    return application


def answer_json(start_response: StartResponse, value: object) -> Iterable[bytes]:
    """Answer with a JSON value."""
    body = json.dumps(value).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def log_line(text: str) -> None:
    """Write a line to standard error, past every buffer: at exit nothing else may be left to write it."""
    os.write(2, f"behaviour: {text}\n".encode())


@behaviour
def process(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say which process answers."""
    return answer_json(start_response, os.getpid())


@behaviour
def printed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Print a line to standard output, as people do who look for a fault."""
    print(f"printed {read_parameter(environ, 'text')}")
    return answer_text(start_response, "printed\n")


@behaviour
def refused(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Refuse an upload without reading it."""
    body = b"refused\n" * 1000
    start_response("403 Forbidden", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


@behaviour
def read_in_part(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the first ten bytes of an upload."""
    return answer_text(start_response, environ["wsgi.input"].read(10).decode("latin-1"))
