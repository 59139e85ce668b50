"""The request head: bytes to a `RequestHead`, and the framing of the content that follows it.

Rules of this file:

- RFC 9112 section 2.2: lines end in CRLF only. One empty line before the request line is ignored.
- RFC 9112 section 3: a request line is exactly three parts with one space between them.
- RFC 9112 section 3.2: exactly one Host, and it is ``host[:port]``; the authority of an absolute-form target
  replaces it.
- RFC 9112 section 5: field names are tokens, no space stands before the colon, no line is folded.
- RFC 9112 section 6.3: one of Transfer-Encoding and Content-Length, once, and exactly in its grammar.
- Every limit counts from the first byte of the head, however the bytes arrive: one byte at a time gives the
  same answer as all at once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wizgy.errors import (
    BadRequest,
    ExpectationFailed,
    HeaderFieldsTooLarge,
    NotImplementedHere,
    RequestError,
    UriTooLong,
    VersionNotSupported,
)
from wizgy.http import grammar

LONGEST_REMEMBERED: Final = 2048
"""The longest head that is remembered until the next one comes, in bytes: it costs memory while a client is idle."""

FORWARDED_FIELDS: Final = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
)
"""The fields of a proxy that tell where a request came from, in lower case."""

SINGLETONS: Final = frozenset({"host", "content-length", "content-type", "transfer-encoding"})
"""Fields that may come once: two of one are two readings of the same message."""


def is_forwarded(name: str) -> bool:
    """Whether a field tells of what was before the peer: Forwarded, or anything that begins with X-Forwarded-.

    Args:
        name: the lower-case field name.

    Source: RFC 7239 section 8.1
    """
    return name.startswith("x-forwarded-") or name == "forwarded"


class Limits(NamedTuple):
    """What a request may cost, in bytes unless said otherwise.

    Args:
        request_line: the longest request line, without its CRLF. RFC 9112 section 3 asks for 8000 at least.
        header_bytes: the longest header section or trailer section, line ends included.
        header_count: the most fields in a header section or trailer section.
        body: the largest content.
    """

    request_line: int = 8190
    header_bytes: int = 65536
    header_count: int = 100
    body: int = 1 << 30


class RequestLine(NamedTuple):
    """A request line, read (RFC 9112 section 3).

    Args:
        method: the method, as it came.
        target: the request-target, as it came.
        path: the path with its percent-encoding, or ``*``.
        query: what follows the first ``?``.
        authority: ``host[:port]`` of an absolute-form target, else empty.
        minor: the minor version: 0 for HTTP/1.0, 1 for HTTP/1.1 and every later HTTP/1.
    """

    method: str
    target: str
    path: str
    query: str
    authority: str
    minor: int


class FieldSection(NamedTuple):
    """A header section, read (RFC 9112 section 5).

    Args:
        values: lower-case field name to value. Fields that came more than once are joined as RFC 9110
            section 5.3 says: with a comma, and Cookie with a semicolon (RFC 6265 section 5.4).
        connection: the lower-case options of Connection.
    """

    values: dict[str, str]
    connection: frozenset[str]


class RequestHead(NamedTuple):
    """A request head that may be served.

    Args:
        line: the request line.
        fields: the header section.
        content_length: the content's length in bytes, or None when it is chunked.
        chunked: whether the content comes in chunks (RFC 9112 section 7.1).
        keep_alive: whether the client would use the connection again (RFC 9112 section 9.3).
        expect_continue: whether the client waits for ``100 Continue`` (RFC 9110 section 10.1.1).
        usual: whether the answer can have the head that most have: to HTTP/1.1, and not to HEAD.
    """

    line: RequestLine
    fields: FieldSection
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    usual: bool


_usual_options: Final = {
    value: frozenset({value.lower()} - {""}) for value in ("", "keep-alive", "Keep-Alive", "close")
}


class HeadReader:
    """Reads request heads from the front of a buffer; keeps what it learnt between two reads.

    Args:
        limits: what a head may cost.
    """

    __slots__ = ("_block", "_data", "_fields", "_head", "_limits", "_line_end", "_scanned", "_start")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.forget()
        self._begin()

    def forget(self) -> None:
        """Free what was learnt from earlier heads; the next one is read from scratch."""
        # The head and the header section that came last, and what they say: clients repeat themselves.
        self._data = b""
        self._head: RequestHead | None = None
        self._block = b""
        self._fields: FieldSection | None = None

    def _begin(self) -> None:
        self._start = -1  # where the request line begins, once known
        self._line_end = -1  # where the CRLF of the request line stands, once known
        self._scanned = 0  # how far the buffer was searched

    def read_whole(self, data: bytes) -> RequestHead | None:
        """Read a head that came at once, with nothing before or behind it: the usual case.

        Returns:
            The head, or None where `data` is something else; then put it into a buffer and call `read`.

        Raises:
            RequestError: the head is refused.

        Source: RFC 9112 section 2.1
        """
        if data == self._data:
            return self._head
        line_end = data.find(b"\r\n")
        end = len(data) - 4
        if not 0 < line_end <= self._limits.request_line or data.find(b"\r\n\r\n", line_end) != end:
            return None
        if end - line_end > self._limits.header_bytes:
            return None
        head = self._parse(data[:line_end], data[line_end + 2 : end + 2])
        if len(data) <= LONGEST_REMEMBERED:
            self._data, self._head = data, head
        return head

    def read(self, buffer: bytearray) -> RequestHead | None:
        """Take one head off the front of `buffer`, or None when more bytes are needed.

        Raises:
            RequestError: the head is refused; the buffer is of no more use.

        Source: RFC 9112 section 2.2
        """
        # The usual case: the whole head is here. Whatever is not so goes the long way below, which says what is wrong
        # as soon as it can be seen.
        if self._start < 0:
            end = buffer.find(b"\r\n\r\n")
            if end > 0:
                head = self.read_whole(bytes(buffer[: end + 4]))
                if head is not None:
                    del buffer[: end + 4]
                    return head
        return self._read_slowly(buffer)

    def _read_slowly(self, buffer: bytearray) -> RequestHead | None:
        if self._start < 0 and not self._find_start(buffer):
            return None
        if self._line_end < 0 and not self._find_line_end(buffer):
            return None
        end = self._find_end(buffer)
        if end < 0:
            return None
        line = bytes(buffer[self._start : self._line_end])
        head = self._parse(line, bytes(buffer[self._line_end + 2 : end + 2]))
        del buffer[: end + 4]
        self._begin()
        return head

    def _find_start(self, buffer: bytearray) -> bool:
        """Skip one empty line before the request line (RFC 9112 section 2.2)."""
        if not buffer or buffer == b"\r":
            return False
        self._start = 2 if buffer.startswith(b"\r\n") else 0
        self._scanned = self._start
        return True

    def _find_line_end(self, buffer: bytearray) -> bool:
        """Find and check the request line as soon as it is whole."""
        limit = self._start + self._limits.request_line
        found = buffer.find(b"\r\n", max(self._scanned - 1, self._start), limit + 2)
        refuse_forbidden(buffer, self._scanned, found if found >= 0 else limit + 1)
        if found < 0:
            if len(buffer) >= limit + 2:
                raise UriTooLong(
                    f"The request line is longer than {self._limits.request_line} bytes (--max-request-line)."
                )
            self._scanned = max(len(buffer) - 1, self._start)
            return False
        parse_request_line(bytes(buffer[self._start : found]))
        self._line_end = self._scanned = found
        return True

    def _find_end(self, buffer: bytearray) -> int:
        """Where the CRLF of the last field line stands, or -1 when more bytes are needed."""
        limit = self._line_end + 2 + self._limits.header_bytes
        found = buffer.find(b"\r\n\r\n", max(self._scanned - 3, self._line_end), limit + 2)
        refuse_forbidden(buffer, self._scanned, found if found >= 0 else limit + 1)
        if found < 0:
            if len(buffer) >= limit + 2:
                raise HeaderFieldsTooLarge(
                    f"The header section is larger than {self._limits.header_bytes} bytes (--max-header-bytes)."
                )
            self._scanned = max(len(buffer) - 1, self._line_end)
        return found

    def _parse(self, line: bytes, block: bytes) -> RequestHead:
        request_line = parse_request_line(line)
        fields = self._fields
        if fields is None or block != self._block:
            fields = parse_field_section(block, self._limits)
            remembered = len(block) <= LONGEST_REMEMBERED
            self._block, self._fields = (block, fields) if remembered else (b"", None)
        return parse_semantics(request_line, fields)


def salvage_head(data: bytes | bytearray, limits: Limits) -> RequestHead | None:
    """What there is of a head that was refused: its request line, for the log. None where that was not read.

    Args:
        data: the head, from its first byte on.
        limits: those that it was read with.
    """
    start = 2 if data.startswith(b"\r\n") else 0
    end = data.find(b"\r\n", start, start + limits.request_line + 2)
    match = grammar.request_line.fullmatch(bytes(data[start:end])) if end >= 0 else None
    if match is None or match[3] != b"1":
        return None
    method, target, _, minor = match.groups()
    path, _, query = target.decode("ascii").partition("?")
    line = RequestLine(method.decode("ascii"), target.decode("ascii"), path, query, "", 0 if minor == b"0" else 1)
    return RequestHead(line, FieldSection({}, frozenset()), 0, False, False, False, False)


def refuse_forbidden(buffer: bytearray, start: int, end: int) -> None:
    """Refuse a control byte, bare CR or bare LF between `start` and `end`.

    Raises:
        BadRequest: there is one.

    Source: RFC 9112 section 2.2, RFC 9110 section 5.5
    """
    # A CR before the start is looked at as well: it makes an LF at the start a line end. An LF there is not, for
    # its own CR stands outside the window.
    first = start - 1 if start and buffer[start - 1] == 0x0D else start
    window = bytes(buffer[first : end + 1])
    if grammar.forbidden_in_head.search(window):
        raise BadRequest("A control byte, a bare CR or a bare LF stands in the head; lines end in CRLF.")


def parse_request_line(line: bytes) -> RequestLine:
    """Read a request line, without its CRLF.

    Raises:
        BadRequest: it is not ``method SP request-target SP HTTP-version``.
        NotImplementedHere: the method is CONNECT.
        VersionNotSupported: the major version is not 1.

    Source: RFC 9112 section 3
    """
    match = grammar.request_line.fullmatch(line)
    if match is None:
        raise BadRequest("The request line is not 'method SP request-target SP HTTP/1.x'.")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise VersionNotSupported("Only HTTP/1.0 and HTTP/1.1 are served here.")
    if method == b"CONNECT":
        raise NotImplementedHere("CONNECT is for proxies, and this is an origin server.")
    path, query, authority = parse_target(method, target)
    return RequestLine(
        method.decode("ascii"),
        target.decode("ascii"),
        path,
        query,
        authority,
        0 if minor == b"0" else 1,
    )


def parse_target(method: bytes, target: bytes) -> tuple[str, str, str]:
    """Split a request-target into path, query and authority.

    Raises:
        BadRequest: the target has none of the forms that go with the method.

    Source: RFC 9112 section 3.2
    """
    authority = b""
    if target[:1] != b"/":
        if target == b"*" and method == b"OPTIONS":
            return "*", "", ""
        match = grammar.absolute_form.fullmatch(target)
        if match is None or not grammar.host.fullmatch(match[1]):
            raise BadRequest("The request-target is neither a path that starts with '/' nor an http URI.")
        authority, target = match[1], match[2] or b"/"
        if target[:1] == b"?":
            target = b"/" + target
    path, _, query = target.decode("ascii").partition("?")
    return path, query, authority.decode("ascii")


def parse_field_section(block: bytes, limits: Limits) -> FieldSection:
    """Read field lines, each with its CRLF.

    Raises:
        BadRequest: a line is not ``field-name ":" OWS field-value OWS``, or a field came twice that may not.
        HeaderFieldsTooLarge: there are more than `limits` allows.

    Source: RFC 9112 section 5
    """
    if not grammar.field_lines.fullmatch(block):
        raise explain_field_lines(block)
    # Checked as bytes; from here on Latin-1 text, one character a byte, as PEP 3333 hands it on.
    lines = block.decode("latin-1").split("\r\n")
    lines.pop()
    if len(lines) > limits.header_count:
        raise HeaderFieldsTooLarge(
            f"The header section has more than {limits.header_count} fields (--max-header-count)."
        )
    values: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        value = value.strip(" \t")
        if name in values:
            if name in SINGLETONS:
                raise BadRequest(f"The field {name} came more than once.")
            value = values[name] + ("; " if name == "cookie" else ", ") + value
        values[name] = value
    connection = values.get("connection", "")
    options = _usual_options.get(connection)
    if options is None:
        options = frozenset([option.strip(" \t") for option in connection.lower().split(",")])
    return FieldSection(values, options)


def explain_field_lines(block: bytes) -> RequestError:
    """Say what is wrong with field lines that do not match the grammar."""
    for line in block.split(b"\r\n")[:-1]:
        if grammar.field_line.fullmatch(line):
            continue
        if line[:1] in (b" ", b"\t"):
            return BadRequest("A field line is folded or begins with white space.")
        if grammar.forbidden_in_head.search(line + b"\r\n"):
            return BadRequest("A control byte, a bare CR or a bare LF stands in the head; lines end in CRLF.")
        name, colon, _ = line.partition(b":")
        if not colon:
            return BadRequest("A field line has no colon.")
        if name.rstrip(b" \t") != name:
            return BadRequest("White space stands before the colon of a field line.")
        return BadRequest("A field name is not a token.")
    return BadRequest("A field line does not end in CRLF.")


def parse_semantics(line: RequestLine, fields: FieldSection) -> RequestHead:
    """Decide the host, the framing, the persistence and the expectation of a request.

    Raises:
        RequestError: one of them is missing, malformed, contradictory or not implemented.

    Source: RFC 9112 sections 3.2, 6.3 and 9.3; RFC 9110 section 10.1.1
    """
    values = fields.values
    refuse_bad_host(line, values.get("host"))
    content_length, chunked = parse_framing(line, values)
    expect_continue = False
    if "expect" in values and line.minor:
        # A list, so the one expectation may come twice; an empty list expects nothing.
        expectations = {e.strip(" \t") for e in values["expect"].lower().split(",")} - {""}
        if not expectations <= {"100-continue"}:
            raise ExpectationFailed("The only expectation that is met here is 100-continue.")
        expect_continue = bool(expectations) and (chunked or bool(content_length))
    if line.minor:
        keep_alive = "close" not in fields.connection
    else:
        keep_alive = "keep-alive" in fields.connection and "close" not in fields.connection
    usual = line.minor == 1 and line.method != "HEAD"
    return RequestHead(line, fields, content_length, chunked, keep_alive, expect_continue, usual)


def refuse_bad_host(line: RequestLine, host: str | None) -> None:
    """Refuse a missing or malformed Host.

    An empty value is what a client sends whose target has no authority; it is let pass.

    Raises:
        BadRequest: Host is missing from an HTTP/1.1 request, or is not ``host[:port]``.

    Source: RFC 9112 section 3.2
    """
    if host is None:
        if line.minor:
            raise BadRequest("An HTTP/1.1 request needs a Host field.")
    elif host and not grammar.host.fullmatch(host.encode("latin-1")):
        raise BadRequest("Host is not 'host' or 'host:port'.")


def parse_framing(line: RequestLine, values: dict[str, str]) -> tuple[int | None, bool]:
    """Decide how long the content is: ``(content_length, chunked)``, the first None when chunked.

    Raises:
        BadRequest: the framing is malformed, contradictory, or not of the request's version.
        NotImplementedHere: a transfer coding besides chunked.

    Source: RFC 9112 section 6.3
    """
    transfer_encoding = values.get("transfer-encoding")
    length = values.get("content-length")
    if transfer_encoding is None:
        if length is None:
            return 0, False
        if not grammar.content_length.fullmatch(length.encode("latin-1")):
            raise BadRequest("Content-Length is not a decimal number of at most 18 digits.")
        return int(length), False
    if line.minor == 0:
        raise BadRequest("HTTP/1.0 has no Transfer-Encoding.")
    if length is not None:
        raise BadRequest("Transfer-Encoding and Content-Length came together.")
    if transfer_encoding.lower() == "chunked":
        return None, True
    if transfer_encoding.lower().endswith(", chunked"):
        raise NotImplementedHere("The only transfer coding that is implemented here is chunked.")
    raise BadRequest("Transfer-Encoding is not exactly 'chunked'.")
