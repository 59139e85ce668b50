"""What several tests need: bodies to send and compare, and readers for JSON and HTML answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import requests

MEBIBYTE = 1024 * 1024

_PERIOD = bytes(range(251))


def pattern(length: int) -> bytes:
    """Return the bytes that `/bytes/<length>` answers with: byte i is `i % 251`."""
    return (_PERIOD * (length // len(_PERIOD) + 1))[:length]


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    """Give a body in pieces; requests sends an iterator with the chunked transfer coding."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def sha256(body: bytes) -> str:
    """Return the digest as `/echo` and `/upload` report it."""
    return hashlib.sha256(body).hexdigest()


def json_object(response: requests.Response) -> dict[str, Any]:
    """Return the JSON object of a successful answer."""
    assert response.status_code == 200, response.text[:500]
    value = response.json()
    assert isinstance(value, dict), value
    return value


class HiddenInputs(HTMLParser):
    """The names and values of the hidden inputs of an HTML page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a hidden input."""
        attributes = dict(attrs)
        if tag == "input" and attributes.get("type") == "hidden":
            self.values[attributes.get("name") or ""] = attributes.get("value") or ""
