"""Reading a request out of ``environ``: URL, header fields, cookies, body, forms and uploaded files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

READ_SIZE = 65536


@dataclass
class Part:
    """One part of a multipart form: a file where it has a filename, else a field."""

    field: str
    filename: str | None
    content_type: str
    content: bytes


def headers(environ: WSGIEnvironment) -> dict[str, str]:
    """The header fields, by lower-case name."""
    fields = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            fields[name.replace("_", "-").lower()] = environ[name]
    return fields


def cookies(environ: WSGIEnvironment) -> dict[str, str]:
    """The cookies that the client sent."""
    return {
        name: morsel.value.encode("latin-1").decode("utf-8", "replace")
        for name, morsel in SimpleCookie(environ.get("HTTP_COOKIE", "")).items()
    }


def query(environ: WSGIEnvironment) -> dict[str, list[str]]:
    """The fields of the query string, each with all its values."""
    # The query string comes as Latin-1 for the same reason as the path.
    query_string = environ.get("QUERY_STRING", "").encode("latin-1").decode("utf-8", "replace")
    return parse_qs(query_string, keep_blank_values=True)


def content_length(environ: WSGIEnvironment) -> int | None:
    """The value of Content-Length, or None where the request has none."""
    value = environ.get("CONTENT_LENGTH")
    return int(value) if value else None


def read_body(environ: WSGIEnvironment) -> bytes:
    """The whole body.

    PEP 3333 forbids reading past Content-Length, which a chunked body does not have. A server that marks the end of
    the input itself says so with ``wsgi.input_terminated``; one that only shows the Transfer-Encoding has to.
    """
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ:
        return b"".join(iter(lambda: stream.read(READ_SIZE), b""))
    body: bytes = stream.read(content_length(environ) or 0)
    return body


def form(environ: WSGIEnvironment, body: bytes) -> dict[str, list[str]]:
    """The fields of an HTML form, URL-encoded or multipart, each with all its values."""
    content_type = header_field("Content-Type", environ.get("CONTENT_TYPE", ""))
    if content_type.get_content_type() == "application/x-www-form-urlencoded":
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    fields: dict[str, list[str]] = {}
    for part in multipart(environ, body):
        if part.filename is None:
            fields.setdefault(part.field, []).append(part.content.decode("utf-8", "replace"))
    return fields


def multipart(environ: WSGIEnvironment, body: bytes) -> Iterator[Part]:
    """The parts of a multipart form (RFC 7578), in the order they were sent."""
    content_type = header_field("Content-Type", environ.get("CONTENT_TYPE", ""))
    boundary = content_type.get_boundary()
    if content_type.get_content_type() != "multipart/form-data" or not boundary:
        return
    # Every delimiter follows a line break but the first, which may open the body (RFC 2046 section 5.1.1).
    delimiter = b"\r\n--" + boundary.encode("latin-1")
    for part in (b"\r\n" + body).split(delimiter)[1:]:
        if part.startswith(b"--"):
            return
        head, _, content = part.partition(b"\r\n\r\n")
        # The first line is what is left of the delimiter's own.
        fields = HeaderParser().parsestr(head.decode("utf-8", "replace").partition("\r\n")[2])
        field = fields.get_param("name", header="Content-Disposition")
        if isinstance(field, str):
            yield Part(field, fields.get_filename(), fields.get_content_type(), content)


def header_field(name: str, value: str) -> Message:
    """A message with one field, for the standard library's reading of its parameters."""
    message = Message()
    message[name] = value
    return message
