"""What must hold for any bytes at all: the properties that the fuzz target checks.

An input is two bytes and a message. The first byte chooses what the message is for (`TARGETS`, in turn); the
second one chooses how it is cut, and for responses, to what request they answer. So a file of the corpus is
read by eye, and a mutation of its message leaves the rest as it was.

Nothing here needs atheris: the corpus is replayed by the unit tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import SupportsIndex

import h11

from tests.unit.differences import find_unexplained
from wizgy.errors import ApplicationError, RequestError
from wizgy.http.body import ChunkedDecoder, Decoder, decoder_for
from wizgy.http.request import HeadReader, Limits, RequestHead
from wizgy.http.response import LAST_CHUNK, Framing, ServerFields, build_chunk, build_head, check_head

LIMITS = Limits(request_line=200, header_bytes=600, header_count=12, body=5000)
"""Small, so that inputs reach them."""

WORK_PER_BYTE = 24
WORK_PER_CALL = 96
"""How many bytes may be searched or copied, for each byte of the input and for each time that a parser is asked."""

HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
"""Fields of the connection, which an application may not set (PEP 3333, RFC 9110 section 7.6.1)."""

MOST_MESSAGES = 8
"""How many messages of one connection are read."""


class CountingBuffer(bytearray):
    """A buffer that counts how many of its bytes are searched, copied or moved."""

    work = 0

    def find(
        self,
        sub: object,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
    ) -> int:
        """Search, and count as far as the search can go."""
        found = super().find(sub, start, end)  # type: ignore[arg-type]
        last = len(self) if end is None else min(int(end), len(self))
        self.work += max((last if found < 0 else found) - int(start or 0), 0)
        return found

    def __getitem__(self, key: SupportsIndex | slice) -> object:  # type: ignore[override]
        found = super().__getitem__(key)
        self.work += len(found) if isinstance(found, bytearray) else 1
        return found


def cut(data: bytes, how: int) -> Iterator[bytes]:
    """Cut a message into pieces of 1 to 16 bytes; 0 means one byte at a time, 255 not at all."""
    position, state = 0, how
    while position < len(data):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        step = 1 if how == 0 else len(data) if how == 255 else 1 + (state >> 16) % 16
        yield data[position : position + step]
        position += step


class Connection:
    """Reads messages one after the other, as a connection does.

    Args:
        first: the decoder to begin with, where the input is content and no head.
        remembers: whether one `HeadReader` reads every head.
        limits: what a message may cost.
    """

    def __init__(self, first: Decoder | None = None, *, remembers: bool, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.reader = HeadReader(limits)
        self.decoder = first
        self.remembers = remembers
        self.heads: list[RequestHead] = []
        self.content = [bytearray()]
        self.refusal: RequestError | None = None
        self.reader_is_inside = False
        self.finished = 0
        self.calls = 0

    def feed(self, buffer: bytearray) -> None:
        """Take what can be taken off the front of a buffer."""
        try:
            while self.refusal is None and self.finished < MOST_MESSAGES and self._step(buffer):
                pass
        except RequestError as error:
            self.refusal = error

    def _step(self, buffer: bytearray) -> bool:
        self.calls += 1
        if self.decoder is None:
            if not self.remembers and not self.reader_is_inside:
                self.reader = HeadReader(self.limits)
            head = self.reader.read(buffer)
            self.reader_is_inside = head is None
            if head is None:
                return False
            self.heads.append(head)
            self.decoder = decoder_for(head, self.limits)
        if not self.decoder.finished:
            self.content[-1] += self.decoder.read(buffer)
        if not self.decoder.finished:
            return False
        self.finished += 1
        self.content.append(bytearray())
        self.decoder = None
        return True

    def result(self, buffer: bytearray) -> object:
        """What must not depend on how the bytes were cut."""
        if self.refusal is not None:
            assert 400 <= self.refusal.status < 600
            assert self.refusal.must_close
            # Of the refused message itself only the refusal counts: which of two faults is named first may depend.
            return "refused", self.heads[: self.finished], self.content[: self.finished]
        return self.finished, self.heads, self.content, bytes(buffer)


def check_reading(data: bytes, how: int, make_decoder: Callable[[], Decoder | None]) -> None:
    """Read messages whole and in pieces: the same result, and work that is linear in the input."""
    whole, buffer = Connection(make_decoder(), remembers=False), bytearray(data)
    whole.feed(buffer)
    split, pieces = Connection(make_decoder(), remembers=True), CountingBuffer()
    for piece in cut(data, how):
        pieces += piece
        split.feed(pieces)
    assert split.result(pieces) == whole.result(buffer)
    assert pieces.work <= WORK_PER_BYTE * len(data) + WORK_PER_CALL * (split.calls + 1), pieces.work


def read_verdict(read: Callable[[], RequestHead | None]) -> RequestHead | type[RequestError] | None:
    """The head that is read, the kind of its refusal, or None when more is needed."""
    try:
        return read()
    except RequestError as error:
        return type(error)


def check_whole(data: bytes) -> None:
    """A head that comes at once, with nothing behind it, reads as it does from a buffer, and once more the same."""
    buffer, reader = bytearray(data), HeadReader(LIMITS)
    expected = read_verdict(lambda: reader.read(buffer))
    for _ in range(2):  # the second time it may be remembered
        verdict = read_verdict(lambda: reader.read_whole(data))
        assert verdict in (None, expected)
        assert not (isinstance(verdict, RequestHead) and buffer)


def check_messages(data: bytes, how: int) -> None:
    """Requests on one connection; the first one is read by the oracles as well."""
    check_whole(data)
    check_reading(data, how, lambda: None)
    unexplained = find_unexplained(data)
    assert not unexplained, unexplained


def check_chunks(data: bytes, how: int) -> None:
    """Content in chunks, and what follows it."""
    check_reading(data, how, lambda: ChunkedDecoder(LIMITS))


def check_trailers(data: bytes, how: int) -> None:
    """A trailer section, and what follows it."""
    check_reading(b"0\r\n" + data, how, lambda: ChunkedDecoder(LIMITS))


def check_response(data: bytes, how: int) -> None:
    """A status and fields of an application: refused, or written such that h11 reads back just what was given.

    The message is ``status *( RS name [ US value ] )``, with the control bytes RS and US as separators, so that CR
    and LF can stand anywhere.
    """
    status, *lines = data.decode("latin-1").split("\x1e")
    fields = [(name, value) for name, _, value in (line.partition("\x1f") for line in lines)]
    try:
        checked = check_head(status, fields)
    except ApplicationError:
        return
    minor, is_head, keep_alive = how & 1, bool(how & 2), bool(how & 4)
    head = build_head(
        checked,
        minor=minor,
        is_head=is_head,
        keep_alive=keep_alive,
        known_length=3 if how & 8 else None,
        own=ServerFields(b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n", b"Server: wizgy\r\n"),
    )
    assert head.data.count(b"\n") == head.data.count(b"\r") == head.data.count(b"\r\n")
    assert head.data.find(b"\r\n\r\n") == len(head.data) - 4
    content = b"abc" if head.framing is not Framing.LENGTH else b"a" * min(head.content_length, 100)
    wire = {
        Framing.NONE: b"",
        Framing.LENGTH: content,
        Framing.CHUNKED: build_chunk(content) + LAST_CHUNK,
        Framing.CLOSE: content,
    }[head.framing]
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if is_head else "GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head.data + wire)
    if head.framing is Framing.CLOSE:
        client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response), response
    assert response.status_code == checked.code
    assert bytes(response.reason) == status[4:].encode("latin-1")
    given = [
        (name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1"))
        for name, value in fields
        if name.lower() != "content-length"
    ]
    read_back = [(bytes(name), bytes(value)) for name, value in response.headers]
    own = {b"content-length", b"transfer-encoding", b"connection", b"date", b"server"}
    assert [f for f in read_back if f[0] not in own] == [f for f in given if f[0] not in own]
    assert all(f in read_back for f in given)
    assert not {name for name, _ in given} & HOP_BY_HOP
    names = {name for name, _ in read_back}
    assert checked.code not in (204, 205, 304) or b"transfer-encoding" not in names
    assert checked.code != 204 or b"content-length" not in names
    if head.framing is Framing.LENGTH and head.content_length > 100:
        return
    came = bytearray()
    while isinstance(event := client.next_event(), h11.Data):
        came += event.data
    assert isinstance(event, h11.EndOfMessage), event
    assert came == (b"" if head.framing is Framing.NONE else content)
    if not keep_alive or head.framing is Framing.CLOSE:
        assert client.their_state in (h11.MUST_CLOSE, h11.CLOSED)


TARGETS: tuple[Callable[[bytes, int], None], ...] = (
    check_messages,
    check_chunks,
    check_trailers,
    check_response,
)


def check(data: bytes) -> None:
    """Check one input."""
    if len(data) >= 2:
        TARGETS[data[0] % len(TARGETS)](data[2:], data[1])
