"""A strict reader of HTTP/1.1 responses, apart from the server so that they share no mistake.

Rules which it keeps (RFC 9112):

- lines end in CRLF, and nothing else in a head is a control byte but HTAB (sections 2.2 and 5);
- the status line has its second space even when the reason phrase is empty (section 4);
- no white space before the colon and no line folding (sections 5.1 and 5.2);
- no answer to HEAD, no 1xx, 204 or 304 has a body (section 6.3);
- one Content-Length of digits only, or one Transfer-Encoding which is ``chunked``, never both
  (section 6);
- chunk lines, the CRLF after the data, the last chunk and the trailer section are there
  (section 7.1);
- a body that ends early is told apart from one that is complete (section 8).

It reads top to bottom as if it blocked: each generator yields when it needs more bytes.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.conformance.cases import Framing

End: TypeAlias = Literal["eof", "reset"]
Fields: TypeAlias = tuple[tuple[str, bytes], ...]

STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9]{2}) ([\t \x21-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*"
    rb"((?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[\t ]*"
)
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[\t ]*;[\t \x21-\x7e\x80-\xff]*)?")
DIGITS = re.compile(rb"[0-9]{1,18}")
MAX_LINE = 1 << 20


class ReadError(ValueError):
    """The received bytes are not a valid sequence of HTTP/1.1 responses."""


class _TruncatedError(Exception):
    """The stream ended before what was asked of it."""


@dataclass(frozen=True)
class Response:
    """One final response and the statuses of the interim ones before it."""

    status: int
    reason: bytes
    minor_version: int
    fields: Fields
    body: bytes
    framing: Framing
    complete: bool
    interim: tuple[int, ...] = ()
    trailers: Fields = ()

    def get_field(self, name: str) -> str | None:
        """Return the value of a field (several joined with a comma and a space), or ``None``."""
        values = [value for field, value in self.fields if field == name.lower()]
        return b", ".join(values).decode("latin-1") if values else None

    @property
    def announces_end(self) -> bool:
        """Whether the connection ends after this response (RFC 9112 section 9.3)."""
        options = [option.strip() for option in (self.get_field("connection") or "").lower().split(",")]
        if self.minor_version == 0:
            return "keep-alive" not in options
        return "close" in options or self.framing == "close"


class ResponseReader:
    """Read the responses of one connection from what is fed to it.

    Args:
        heads: for each expected response, whether it answers HEAD (then it has no body).
    """

    def __init__(self, heads: Sequence[bool] = ()) -> None:
        self.responses: list[Response] = []
        self.error: str | None = None
        self._heads = tuple(heads)
        self._buffer = bytearray()
        self._end: End | None = None
        self._interim: list[int] = []
        self._at_start = True
        self._finished = False
        self._parser = self._read_all()
        next(self._parser)

    @property
    def pending(self) -> bool:
        """Whether a response has begun that is not yet complete."""
        return bool(self._buffer) or not self._at_start or bool(self._interim)

    def feed(self, data: bytes) -> None:
        """Take received bytes."""
        self._buffer += data
        self._advance()

    def finish(self, end: End) -> None:
        """Take the end of the stream."""
        self._end = end
        self._advance()

    def _advance(self) -> None:
        if self._finished:
            return
        try:
            next(self._parser)
        except StopIteration:
            self._finished = True
        except ReadError as error:
            self._finished = True
            self.error = str(error)

    def _read_all(self) -> Generator[None, None, None]:
        yield
        while True:
            self._at_start = True
            while not self._buffer:
                if self._end:
                    if self._interim:
                        raise ReadError("the stream ends after an interim response")
                    return
                yield
            self._at_start = False
            yield from self._read_response()

    def _read_response(self) -> Generator[None, None, None]:
        try:
            minor_version, status, reason = parse_status_line((yield from self._read_line()))
            fields = yield from self._read_fields()
        except _TruncatedError:
            raise ReadError("the stream ends inside a response head") from None
        if 100 <= status < 200 and status != 101:
            self._interim.append(status)
            return
        number = len(self.responses)
        is_head = number < len(self._heads) and self._heads[number]
        framing, length = choose_framing(minor_version, status, fields, is_head=is_head)
        body = bytearray()
        trailers: Fields = ()
        complete = True
        try:
            if framing == "content-length":
                yield from self._read_exactly(length, body)
            elif framing == "chunked":
                trailers = yield from self._read_chunked(body)
            elif framing == "close":
                complete = yield from self._read_until_end(body)
        except _TruncatedError:
            complete = False
        self.responses.append(
            Response(
                status=status,
                reason=reason,
                minor_version=minor_version,
                fields=fields,
                body=bytes(body),
                framing=framing,
                complete=complete,
                interim=tuple(self._interim),
                trailers=trailers,
            )
        )
        self._interim.clear()

    def _read_line(self) -> Generator[None, None, bytes]:
        searched = 0
        while (index := self._buffer.find(b"\r\n", searched)) < 0:
            if len(self._buffer) > MAX_LINE:
                raise ReadError("a line of more than 1 MiB")
            if self._end:
                raise _TruncatedError
            searched = max(0, len(self._buffer) - 1)
            yield
        line = bytes(self._buffer[:index])
        del self._buffer[: index + 2]
        return line

    def _read_fields(self) -> Generator[None, None, Fields]:
        fields: list[tuple[str, bytes]] = []
        while line := (yield from self._read_line()):
            fields.append(parse_field_line(line))
        return tuple(fields)

    def _read_exactly(self, length: int, into: bytearray) -> Generator[None, None, None]:
        while True:
            taken = self._buffer[:length]
            into += taken
            del self._buffer[: len(taken)]
            length -= len(taken)
            if not length:
                return
            if self._end:
                raise _TruncatedError
            yield

    def _read_until_end(self, into: bytearray) -> Generator[None, None, bool]:
        while not self._end:
            into += self._buffer
            self._buffer.clear()
            yield
        into += self._buffer
        self._buffer.clear()
        return self._end == "eof"

    def _read_chunked(self, into: bytearray) -> Generator[None, None, Fields]:
        while True:
            line = yield from self._read_line()
            match = CHUNK_LINE.fullmatch(line)
            if not match:
                raise ReadError(f"not a chunk-size line: {line[:80]!r}")
            size = int(match[1], 16)
            if not size:
                return (yield from self._read_fields())
            yield from self._read_exactly(size, into)
            after = bytearray()
            yield from self._read_exactly(2, after)
            if after != b"\r\n":
                raise ReadError(f"chunk data is followed by {bytes(after)!r}, not by CRLF")


def parse_status_line(line: bytes) -> tuple[int, int, bytes]:
    """Parse a status line into minor version, status and reason (RFC 9112 section 4)."""
    match = STATUS_LINE.fullmatch(line)
    if not match:
        raise ReadError(f"not a status line: {line[:80]!r}")
    return int(match[1]), int(match[2]), match[3]


def parse_field_line(line: bytes) -> tuple[str, bytes]:
    """Parse a field line into its name in lower case and its value (RFC 9112 section 5)."""
    match = FIELD_LINE.fullmatch(line)
    if not match:
        raise ReadError(f"not a field line: {line[:80]!r}")
    return match[1].decode("ascii").lower(), match[2]


def choose_framing(minor_version: int, status: int, fields: Fields, *, is_head: bool) -> tuple[Framing, int]:
    """Choose how a response's body ends, and its length if it is told (RFC 9112 section 6.3)."""
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value for name, value in fields if name == "transfer-encoding"]
    if lengths and codings:
        raise ReadError("a response with both Content-Length and Transfer-Encoding")
    if lengths and (len(lengths) > 1 or not DIGITS.fullmatch(lengths[0])):
        raise ReadError(f"not one valid Content-Length: {lengths!r}")
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or not minor_version):
        raise ReadError(f"not one valid Transfer-Encoding for HTTP/1.{minor_version}: {codings!r}")
    if is_head or status in (204, 304):
        return "none", 0
    if codings:
        return "chunked", 0
    if lengths:
        return "content-length", int(lengths[0])
    return "close", 0
