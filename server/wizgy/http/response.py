"""The response: head, framing and chunks as bytes. What is invalid cannot be written.

Rules of this file:

- RFC 9110 section 5.5: no CR, LF, NUL or other control byte leaves in a status, name or value; all of a head is
  checked before any of it is sent.
- RFC 9112 section 6.1: 1xx and 204 have neither Content-Length nor Transfer-Encoding; HTTP/1.0 gets no chunks.
- RFC 9112 section 6.3: answers to HEAD, 1xx, 204, 205 and 304 have no content.
- RFC 9112 section 9.6: an answer after which the connection closes says so.
- PEP 3333, "Other HTTP Features": hop-by-hop fields are the server's, so an application may not set them.
"""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus
from typing import Final, NamedTuple

from wizgy.errors import ApplicationError
from wizgy.http import grammar

Fields = list[tuple[str, str]]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
RENAMED: Final = {413: "Content Too Large", 414: "URI Too Long"}
"""Reason phrases of RFC 9110 section 15 that `http.HTTPStatus` has in older words before Python 3.13."""
WITHOUT_CONTENT: Final = frozenset({204, 205, 304})

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class Framing(Enum):
    """How the end of a response's content is told (RFC 9112 section 6.3)."""

    NONE = "no content"
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "end of the connection"


class ServerFields:
    """The fields that the server adds to every head, as lines with their CRLF.

    Args:
        date: the Date field.
        server: the Server field, or nothing.
        request_id: the X-Request-ID field, or nothing.

    Attributes:
        ending: all of them, and the empty line that ends the head.
        last_ending: the same for the last head of a connection: with ``Connection: close``.
    """

    __slots__ = ("date", "ending", "last_ending", "request_id", "server")

    def __init__(self, date: bytes, server: bytes, request_id: bytes = b"") -> None:
        self.date = date
        self.server = server
        self.request_id = request_id
        fields = date + server + request_id
        self.ending = fields + b"\r\n"
        self.last_ending = fields + b"Connection: close\r\n\r\n"

    def with_request_id(self, request_id: str) -> ServerFields:
        """These fields, and the id of the request, which must be a token or the like."""
        return ServerFields(self.date, self.server, f"X-Request-ID: {request_id}\r\n".encode("ascii"))


class CheckedHead:
    """Status line and fields of an application, checked. No tuple: in every response it is looked at in many places.

    Args:
        code: the status code.
        lines: the status line without its version, and the field lines, each with its CRLF.
        content_length: the value of the application's Content-Length in bytes, or None.
        has_date: whether the application set Date itself.
        has_server: whether the application set Server itself.
        has_request_id: whether the application set X-Request-ID itself.
        usual: the head up to the fields of the server, for an answer to HTTP/1.1 that has content; nothing where
            such an answer needs a closer look.
    """

    __slots__ = ("code", "content_length", "has_date", "has_request_id", "has_server", "lines", "usual")

    def __init__(
        self,
        code: int,
        lines: bytes,
        content_length: int | None,
        has_date: bool,
        has_server: bool,
        has_request_id: bool,
        usual: bytes,
    ) -> None:
        self.code = code
        self.lines = lines
        self.content_length = content_length
        self.has_date = has_date
        self.has_server = has_server
        self.has_request_id = has_request_id
        self.usual = usual

    def all_lines(self) -> bytes:
        """The lines, with the application's Content-Length."""
        if self.content_length is None:
            return self.lines
        return b"%bContent-Length: %d\r\n" % (self.lines, self.content_length)


class ResponseHead(NamedTuple):
    """A response head, ready to be sent.

    Args:
        data: its bytes.
        framing: how the end of the content is told.
        content_length: how many bytes of content follow, when `framing` is LENGTH.
    """

    data: bytes
    framing: Framing
    content_length: int


_LARGEST_MEMO: Final = 512
_LONGEST_HEAD: Final = 4096
"""How many checked heads are remembered, and how long they may be, in bytes."""
_checked: dict[tuple[str, tuple[tuple[str, str], ...]], CheckedHead] = {}


def check_head(status: str, fields: Fields) -> CheckedHead:
    """Check what an application gave to `start_response`.

    Applications repeat themselves, so the answers are remembered.

    Args:
        status: ``"200 OK"``: three digits, a space and a reason phrase.
        fields: a list of ``(name, value)`` tuples of native strings.

    Raises:
        ApplicationError: one of them cannot be sent.

    Source: PEP 3333, "The start_response() Callable"; RFC 9110 section 5
    """
    if type(fields) is not list:
        raise ApplicationError(f"The header fields must be a list, not {type(fields).__name__}.")
    try:
        key = (status, tuple(fields))
        found = _checked.get(key)
    except TypeError:  # a field is a list or another thing that has no hash
        raise ApplicationError("Each header field must be a (name, value) tuple of str.") from None
    if found is None:
        found = _check_head(status, fields)
        if len(found.lines) <= _LONGEST_HEAD:
            if len(_checked) >= _LARGEST_MEMO:
                _checked.clear()
            _checked[key] = found
    return found


def _check_head(status: str, fields: Fields) -> CheckedHead:
    status_line = _check_status(status)
    lines = [status_line]
    seen = set()
    content_length: int | None = None
    for field in fields:
        name, value, line = _check_field(field)
        if name == b"content-length":
            length = _check_content_length(value)
            if content_length not in (None, length):
                raise ApplicationError("Two header fields say different values of Content-Length.")
            content_length = length
            continue
        seen.add(name)
        lines.append(line)
    return _make_checked(int(status_line[:3]), b"".join(lines), content_length, seen)


def _make_checked(code: int, lines: bytes, content_length: int | None, names: set[bytes]) -> CheckedHead:
    has_date, has_server, has_request_id = (name in names for name in (b"date", b"server", b"x-request-id"))
    usual = b""
    if code not in WITHOUT_CONTENT and not has_date and not has_server and not has_request_id:
        usual = b"HTTP/1.1 " + lines
        if content_length is not None:
            usual += b"Content-Length: %d\r\n" % content_length
    return CheckedHead(code, lines, content_length, has_date, has_server, has_request_id, usual)


def _check_status(status: str) -> bytes:
    if not isinstance(status, str):
        raise ApplicationError(f"The status must be a str, not {type(status).__name__}.")
    try:
        line = str.encode(status, "latin-1")  # not a method of the application's own, here and below
    except UnicodeEncodeError:
        line = b""
    if not grammar.status.fullmatch(line):
        raise ApplicationError(f"The status must look like '200 OK', not {status!r}.")
    return line + b"\r\n"


def _check_field(field: object) -> tuple[bytes, bytes, bytes]:
    """Check one field: its lower-case name, its value, and its line."""
    if not isinstance(field, tuple) or tuple.__len__(field) != 2:
        raise ApplicationError(f"A header field must be a (name, value) tuple, not {field!r}.")
    name, value = tuple.__iter__(field)
    if not isinstance(name, str) or not isinstance(value, str):
        raise ApplicationError(f"The name and value of a header field must be str: {field!r}.")
    try:
        name_bytes = str.encode(name, "ascii")
        value_bytes = str.encode(value, "latin-1").strip(b" \t")
    except UnicodeEncodeError:
        raise ApplicationError(f"A header field holds characters that HTTP has not: {field!r}.") from None
    if not grammar.field_name.fullmatch(name_bytes):
        raise ApplicationError(f"The name of a header field is not a token: {field!r}.")
    if not grammar.field_value.fullmatch(value_bytes):
        raise ApplicationError(f"The value of a header field holds a control character: {field!r}.")
    lower = name_bytes.lower()
    if lower in HOP_BY_HOP:
        raise ApplicationError(f"{name} is a hop-by-hop field, which only the server may set.")
    return lower, value_bytes, name_bytes + b": " + value_bytes + b"\r\n"


def _check_content_length(value: bytes) -> int:
    if not grammar.content_length.fullmatch(value):
        raise ApplicationError(f"Content-Length must be a decimal number, not {value.decode('latin-1')!r}.")
    return int(value)


def build_head(
    checked: CheckedHead,
    *,
    minor: int,
    is_head: bool,
    keep_alive: bool,
    known_length: int | None,
    own: ServerFields,
) -> ResponseHead:
    """Make a response head and decide the framing of the content.

    Args:
        checked: the application's status and fields.
        minor: the request's minor version.
        is_head: whether the request's method is HEAD.
        keep_alive: whether the connection may be used again.
        known_length: the content's length in bytes where it is known although the application did not say.
        own: the fields of the server.

    Source: RFC 9112 section 6
    """
    framing, content_length = _choose_framing(checked, minor, is_head, known_length)
    parts = [b"HTTP/1.1 ", checked.lines]
    # What the content's length would be is told in the answers to HEAD and of 304 too.
    if checked.code != 204 and content_length is not None:
        parts.append(b"Content-Length: %d\r\n" % content_length)
    elif framing is Framing.CHUNKED or (framing is Framing.NONE and is_head and minor):
        if checked.code not in WITHOUT_CONTENT:
            parts.append(b"Transfer-Encoding: chunked\r\n")
    if not checked.has_date:
        parts.append(own.date)
    if not checked.has_server:
        parts.append(own.server)
    if not checked.has_request_id:
        parts.append(own.request_id)
    if not keep_alive or framing is Framing.CLOSE:
        parts.append(b"Connection: close\r\n\r\n")
    elif minor == 0:
        parts.append(b"Connection: keep-alive\r\n\r\n")
    else:
        parts.append(b"\r\n")
    return ResponseHead(b"".join(parts), framing, content_length or 0)


def build_usual_head(checked: CheckedHead, content_length: int, ending: bytes) -> bytes:
    """Make the head that most requests get, as `build_head` would, with less work.

    Args:
        checked: the application's status and fields; `usual` must not be empty.
        content_length: the content's length in bytes: the application's word if it gave one, else what is known.
        ending: the fields of the server and the end of the head (`ServerFields.ending` or `last_ending`).

    Source: RFC 9112 section 6
    """
    if checked.content_length is not None:
        return checked.usual + ending
    return b"%bContent-Length: %d\r\n%b" % (checked.usual, content_length, ending)


def _choose_framing(
    checked: CheckedHead, minor: int, is_head: bool, known_length: int | None
) -> tuple[Framing, int | None]:
    """The framing, and the value that Content-Length would have."""
    length = checked.content_length
    if checked.code == 205:
        return Framing.NONE, 0
    if checked.code in WITHOUT_CONTENT:
        return Framing.NONE, length
    if length is None:
        length = known_length
    if is_head:
        return Framing.NONE, length
    if length is not None:
        return Framing.LENGTH, length
    return (Framing.CHUNKED if minor else Framing.CLOSE), None


def build_chunk(data: bytes) -> bytes:
    """Frame a piece of content that is not empty as a chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def build_error(status: int, text: str, *, own: ServerFields, is_head: bool) -> bytes:
    """Make a whole answer for a request that is refused; the connection closes after it.

    Args:
        status: the status code.
        text: what was wrong, in one sentence that repeats nothing of the request.
        own: the fields of the server.
        is_head: whether the request's method is HEAD.

    Source: RFC 9112 section 9.6
    """
    phrase = RENAMED.get(status) or HTTPStatus(status).phrase
    checked = check_head(f"{status} {phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    content = f"{text}\n".encode()
    head = build_head(
        checked,
        minor=1,
        is_head=is_head,
        keep_alive=False,
        known_length=len(content),
        own=own,
    )
    return head.data if is_head else head.data + content
