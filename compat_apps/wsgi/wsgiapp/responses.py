"""Making responses: each function starts the response and returns its iterable."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Headers = Iterable[tuple[str, str]]


def status_line(code: int) -> str:
    """The status as ``start_response`` takes it; a code with no registered phrase is "Unknown"."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} Unknown"


def respond(
    start_response: StartResponse,
    body: bytes,
    content_type: str,
    status: int = 200,
    headers: Headers = (),
) -> Iterable[bytes]:
    """A whole body, with its Content-Length."""
    start_response(
        status_line(status),
        [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers],
    )
    return [body]


def text(start_response: StartResponse, body: str, status: int = 200, headers: Headers = ()) -> Iterable[bytes]:
    """Plain text."""
    return respond(start_response, body.encode(), "text/plain; charset=utf-8", status, headers)


def html(start_response: StartResponse, body: str) -> Iterable[bytes]:
    """An HTML page."""
    return respond(start_response, body.encode(), "text/html; charset=utf-8")


def json(start_response: StartResponse, value: object, headers: Headers = ()) -> Iterable[bytes]:
    """A JSON value."""
    body = json_module.dumps(value, ensure_ascii=False).encode()
    return respond(start_response, body, "application/json", headers=headers)


def empty(start_response: StartResponse, status: int, headers: Headers = ()) -> Iterable[bytes]:
    """A response of a status that has no content: no Content-Type, no Content-Length."""
    start_response(status_line(status), list(headers))
    return []


def set_cookie(name: str, value: str, http_only: bool = False) -> tuple[str, str]:
    """A Set-Cookie field (RFC 6265) whose value is UTF-8, escaped where a header field could not hold it."""
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = value.encode().decode("latin-1")
    cookie[name]["path"] = "/"
    cookie[name]["samesite"] = "Lax"
    if http_only:
        cookie[name]["httponly"] = True
    return "Set-Cookie", cookie[name].OutputString()
