"""The content of a request: decoders that take bytes as they come and give content back.

Rules of this file:

- RFC 9112 section 6.2: exactly Content-Length bytes belong to the content; what follows is the next request.
- RFC 9112 section 7.1: chunk-size is 1 to 16 hexadecimal digits; CRLF stands exactly where the grammar has it,
  after the data too.
- RFC 9112 section 7.1.1 and 7.1.2: chunk extensions and trailer fields are checked, bounded and dropped.
- The end of input before the last CRLF is never a clean end: only `finished` is.
- Each byte is looked at a bounded number of times, however the bytes arrive.
"""

from __future__ import annotations

import sys
from typing import Final, Protocol

from wizgy.errors import BadRequest, ContentTooLarge, HeaderFieldsTooLarge
from wizgy.http import grammar
from wizgy.http.request import Limits, RequestHead, explain_field_lines

LONGEST_CHUNK_LINE: Final = 1024
"""The longest chunk-size line with its extensions, in bytes, line end included. No client in use sends any."""


class Decoder(Protocol):
    """Takes a request's content off a buffer.

    Attributes:
        finished: whether all of it has come.
        behind: whether the last `read` has stopped at its bound, so that there may be more to take.
    """

    finished: bool
    behind: bool

    def read(self, buffer: bytearray, most: int = sys.maxsize) -> bytes:
        """Take what belongs to the content off the front of `buffer` and return it decoded.

        Args:
            buffer: what has come.
            most: how many pieces to take, lines and data of chunks, however small they are.
        """


def decoder_for(head: RequestHead, limits: Limits) -> Decoder:
    """Choose the decoder that goes with a head's framing.

    Raises:
        ContentTooLarge: the head announces more content than `limits` allows.

    Source: RFC 9112 section 6.3
    """
    if head.content_length is None:
        return ChunkedDecoder(limits)
    if head.content_length > limits.body:
        raise ContentTooLarge(f"The content is larger than {limits.body} bytes (--max-body).")
    return FixedLengthDecoder(head.content_length)


class FixedLengthDecoder:
    """Content of a known length (RFC 9112 section 6.2).

    Args:
        content_length: how many bytes there are.
    """

    __slots__ = ("_remaining", "behind", "finished")

    def __init__(self, content_length: int) -> None:
        self.behind = False
        self._remaining = content_length
        self.finished = content_length == 0

    def read(self, buffer: bytearray, most: int = sys.maxsize) -> bytes:
        """Take what belongs to the content off the front of `buffer` and return it."""
        content = self.take(bytes(buffer[: self._remaining]))
        del buffer[: len(content)]
        return content

    def take(self, data: bytes) -> bytes:
        """Return the front of `data`, as far as it belongs to the content."""
        content = data if len(data) <= self._remaining else data[: self._remaining]
        self._remaining -= len(content)
        self.finished = self._remaining == 0
        return content


class ChunkedDecoder:
    """Content in chunks (RFC 9112 section 7.1).

    Args:
        limits: what the content, its extensions and its trailer section may cost.
    """

    __slots__ = (
        "_extension_bytes",
        "_in_trailers",
        "_limits",
        "_remaining",
        "_scanned",
        "_size",
        "_trailer_bytes",
        "_trailer_count",
        "behind",
        "finished",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._remaining = 0  # of the chunk that is being read, with the CRLF after its data
        self._scanned = 0  # how far the front of the buffer was searched for a line end
        self._size = 0  # of the content so far, the chunk that is being read included
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self._trailer_count = 0
        self._in_trailers = False
        self.behind = False
        self.finished = False

    def read(self, buffer: bytearray, most: int = sys.maxsize) -> bytes:
        """Take chunks off the front of `buffer` and return their data.

        Args:
            buffer: what has come.
            most: how many lines and pieces of data to take.

        Raises:
            BadRequest: the chunks are malformed.
            ContentTooLarge: there is more content than the limits allow.
            HeaderFieldsTooLarge: there are more extensions or trailer fields than the limits allow.
        """
        pieces: list[bytes] = []
        position = count = 0
        self.behind = False
        while not self.finished:
            if count == most:
                self.behind = True
                break
            count += 1
            if self._remaining:
                taken = self._read_data(buffer, position, pieces)
            elif self._in_trailers:
                taken = self._read_trailer(buffer, position)
            else:
                taken = self._read_chunk_line(buffer, position)
            if taken == 0:
                break
            position += taken
        del buffer[:position]
        return b"".join(pieces)

    def _read_data(self, buffer: bytearray, position: int, pieces: list[bytes]) -> int:
        """Take chunk-data and the CRLF after it; `_remaining` counts both."""
        data_length = self._remaining - 2
        if data_length > 0:
            data = bytes(buffer[position : position + data_length])
            pieces.append(data)
            self._remaining -= len(data)
            return len(data)
        line_end = b"\r\n"[-self._remaining :]
        came = bytes(buffer[position : position + self._remaining])
        if came != line_end[: len(came)]:
            raise BadRequest("The data of a chunk is not followed by CRLF.")
        self._remaining -= len(came)
        return len(came)

    def _read_chunk_line(self, buffer: bytearray, position: int) -> int:
        """Take ``chunk-size [ chunk-ext ] CRLF``."""
        line = self._find_line(buffer, position, LONGEST_CHUNK_LINE)
        if line is None:
            return 0
        match = grammar.chunk_line.fullmatch(line)
        if match is None:
            raise BadRequest("A chunk-size line is not 'chunk-size [chunk-ext] CRLF'.")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > self._limits.header_bytes:
            raise HeaderFieldsTooLarge(
                f"The chunk extensions are larger than {self._limits.header_bytes} bytes (--max-header-bytes)."
            )
        size = int(match[1], 16)
        self._size += size
        if self._size > self._limits.body:
            raise ContentTooLarge(f"The content is larger than {self._limits.body} bytes (--max-body).")
        if size:
            self._remaining = size + 2
        else:
            self._in_trailers = True
        return len(line) + 2

    def _read_trailer(self, buffer: bytearray, position: int) -> int:
        """Take one line of the trailer section; the empty one is the end of the message."""
        line = self._find_line(buffer, position, self._limits.header_bytes)
        if line is None:
            return 0
        if not line:
            self.finished = True
            return 2
        self._trailer_bytes += len(line) + 2
        self._trailer_count += 1
        if self._trailer_bytes > self._limits.header_bytes:
            raise HeaderFieldsTooLarge(
                f"The trailer section is larger than {self._limits.header_bytes} bytes (--max-header-bytes)."
            )
        if self._trailer_count > self._limits.header_count:
            raise HeaderFieldsTooLarge(
                f"The trailer section has more than {self._limits.header_count} fields (--max-header-count)."
            )
        if not grammar.field_line.fullmatch(line):
            raise explain_field_lines(line + b"\r\n")
        return len(line) + 2

    def _find_line(self, buffer: bytearray, position: int, longest: int) -> bytes | None:
        """The line that begins at `position`, without its CRLF, or None when it is not whole."""
        end = buffer.find(b"\r\n", position + self._scanned, position + longest)
        if end < 0:
            rest = bytes(buffer[position + self._scanned : position + longest])
            if grammar.forbidden_in_head.search(rest):
                raise BadRequest("A control byte, a bare CR or a bare LF stands in a chunked message.")
            if len(buffer) - position >= longest:
                flag = " (--max-header-bytes)" if self._in_trailers else ""
                raise HeaderFieldsTooLarge(f"A line of a chunked message is longer than {longest} bytes{flag}.")
            # The last byte may be the CR of the line end.
            self._scanned = max(len(buffer) - position - 1, 0)
            return None
        self._scanned = 0
        return bytes(buffer[position:end])
