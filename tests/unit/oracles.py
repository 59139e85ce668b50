"""One request as wizgy, h11 and llhttp read it: the same questions to each, so that the answers compare.

A reading ends with the first message: what follows is counted and not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import h11
import httptools

from wizgy.errors import RequestError
from wizgy.http.body import decoder_for
from wizgy.http.request import HeadReader, Limits

Verdict = Literal["accepted", "refused", "incomplete"]

LIMITS = Limits()
PLENTY = 1 << 20
"""More bytes than any input has: h11's own bound is not what is compared."""


class Reading(NamedTuple):
    """What a parser made of some bytes.

    Args:
        verdict: whether the first message was read whole, refused, or wants more bytes.
        status: the status code of a refusal, where the parser says one, else 0.
        method: the method.
        target: the request-target, as it came.
        fields: lower-case name to value; several of one name joined (RFC 9110 section 5.3).
        content: the decoded content, as far as it came.
        keep_alive: whether the connection may be used again.
        end: how many bytes belong to the message.
    """

    verdict: Verdict
    status: int = 0
    method: bytes = b""
    target: bytes = b""
    fields: dict[bytes, bytes] = {}  # noqa: RUF012  (nobody writes to it)
    content: bytes = b""
    keep_alive: bool = False
    end: int = 0


def join_fields(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Join fields of one name as RFC 9110 section 5.3 and RFC 6265 section 5.4 say."""
    joined: dict[bytes, bytes] = {}
    for raw_name, value in fields:
        name = raw_name.lower()
        before = joined[name] + (b"; " if name == b"cookie" else b", ") if name in joined else b""
        joined[name] = before + value
    return joined


def read_wizgy(data: bytes, pieces: Iterable[bytes] | None = None) -> Reading:
    """Read with wizgy, in pieces when there are any."""
    reader, buffer, content = HeadReader(LIMITS), bytearray(), bytearray()
    head = decoder = None
    try:
        for piece in [data] if pieces is None else pieces:
            buffer += piece
            if head is None:
                head = reader.read(buffer)
                if head is None:
                    continue
                decoder = decoder_for(head, LIMITS)
            assert decoder is not None
            if not decoder.finished:
                content += decoder.read(buffer)
    except RequestError as error:
        return Reading("refused", status=error.status)
    if head is None or decoder is None or not decoder.finished:
        return Reading("incomplete")
    return Reading(
        "accepted",
        0,
        head.line.method.encode("ascii"),
        head.line.target.encode("ascii"),
        {n.encode("latin-1"): v.encode("latin-1") for n, v in head.fields.values.items()},
        bytes(content),
        head.keep_alive,
        len(data) - len(buffer),
    )


def read_h11(data: bytes) -> Reading:
    """Read with h11 as a server does."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=PLENTY)
    connection.receive_data(data)
    request, content = None, bytearray()
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return Reading("incomplete")
    except h11.RemoteProtocolError as error:
        return Reading("refused", status=error.error_status_hint)
    assert request is not None
    trailing, _ = connection.trailing_data
    if connection.their_state not in (h11.DONE, h11.MUST_CLOSE):  # it might switch protocols
        connection.send(h11.Response(status_code=200, headers=[]))  # and does not
    return Reading(
        "accepted",
        0,
        bytes(request.method),
        bytes(request.target),
        join_fields((bytes(name), bytes(value)) for name, value in request.headers),
        bytes(content),
        connection.their_state is not h11.MUST_CLOSE,
        len(data) - len(trailing),
    )


class _Recorder:
    """Takes llhttp's callbacks and keeps those of the first message."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.fields: list[tuple[bytes, bytes]] = []
        self.target = self.content = self.method = b""
        self.in_head = True
        self.complete = self.keep_alive = False

    def on_url(self, url: bytes) -> None:
        if not self.complete and self.in_head:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.in_head:
            self.in_head = False
            self.method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.content += body

    def on_message_complete(self) -> None:
        if not self.complete:
            self.complete = True
            self.keep_alive = self.parser.should_keep_alive()

    def feed(self, data: bytes) -> bool:
        """Feed bytes; whether they were refused before the first message was complete."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.complete = True
        except httptools.HttpParserError:
            return not self.complete
        return False


def read_llhttp(data: bytes) -> Reading:
    """Read with llhttp through httptools."""
    recorder = _Recorder()
    refused = recorder.feed(data)
    if refused:
        return Reading("refused")
    if not recorder.complete:
        return Reading("incomplete")
    # httptools does not say where a message ends, but it says when: feed a second parser byte by byte.
    bytewise, end = _Recorder(), 0
    while not bytewise.complete and end < len(data):
        bytewise.feed(data[end : end + 1])
        end += 1
    return Reading(
        "accepted",
        0,
        recorder.method,
        recorder.target,
        join_fields((name, value.rstrip(b" \t")) for name, value in recorder.fields),
        recorder.content,
        recorder.keep_alive,
        end,
    )


ORACLES: dict[str, Callable[[bytes], Reading]] = {"h11": read_h11, "llhttp": read_llhttp}
