"""Content decoders: the same content however the bytes are cut, and bounds on all that is not content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.errors import BadRequest, ContentTooLarge, HeaderFieldsTooLarge, RequestError
from wizgy.http.body import (
    LONGEST_CHUNK_LINE,
    ChunkedDecoder,
    Decoder,
    FixedLengthDecoder,
    decoder_for,
)
from wizgy.http.request import HeadReader, Limits, RequestHead

SMALL = Limits(request_line=64, header_bytes=4096, header_count=5, body=1000)

Result = tuple[bytes, bool, bytes] | type[RequestError]
"""Content, whether it is whole, and what is left after it; or the refusal."""


def decode(decoder: Decoder, pieces: list[bytes]) -> Result:
    """Give a decoder bytes in pieces."""
    buffer, content = bytearray(), b""
    for piece in pieces:
        buffer += piece
        if decoder.finished:
            continue
        try:
            content += decoder.read(buffer)
        except RequestError as error:
            return type(error)
    return content, decoder.finished, bytes(buffer)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """Cut bytes at points."""
    edges = [0, *sorted(points), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


GOOD = {
    "empty": (b"0\r\n\r\n", b""),
    "one": (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    "line-ends-inside": (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    "hexadecimal": (b"A\r\n0123456789\r\n0b\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a"),
    "zeros": (b"0000000000000001\r\na\r\n0000\r\n\r\n", b"a"),
    "extensions": (b'1;a;b=c; d = "e\\"f;"\r\na\r\n0;z\r\n\r\n', b"a"),
    "trailers": (b"1\r\na\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n", b"a"),
}

BAD: dict[str, tuple[bytes, type[RequestError]]] = {
    "signed": (b"+1\r\na\r\n0\r\n\r\n", BadRequest),
    "prefixed": (b"0x1\r\na\r\n0\r\n\r\n", BadRequest),
    "underscore": (b"1_0\r\n", BadRequest),
    "space-first": (b" 1\r\na\r\n", BadRequest),
    "space-last": (b"1 \r\na\r\n", BadRequest),
    "empty-size": (b"\r\n\r\n", BadRequest),
    "17-digits": (b"00000000000000001\r\na\r\n", BadRequest),
    "negative": (b"-1\r\n", BadRequest),
    "bare-lf-after-size": (b"1\na\r\n0\r\n\r\n", BadRequest),
    "bare-cr-after-size": (b"1\ra\r\n0\r\n\r\n", BadRequest),
    "no-crlf-after-data": (b"1\r\nab0\r\n\r\n", BadRequest),
    "lf-after-data": (b"1\r\na\n0\r\n\r\n", BadRequest),
    "other-two-bytes-after-data": (b"1\r\naXX0\r\n\r\n", BadRequest),
    "bare-lf-in-extension": (b"1;a\nb\r\na\r\n", BadRequest),
    "quoted-line-end": (b'1;a="\r\n"\r\na\r\n', BadRequest),
    "bad-extension": (b"1;=a\r\na\r\n", BadRequest),
    "folded-trailer": (b"0\r\nA: b\r\n c\r\n\r\n", BadRequest),
    "trailer-without-colon": (b"0\r\nGET / HTTP/1.1\r\n\r\n", BadRequest),
    "bare-lf-in-trailer": (b"0\r\nA: b\nC: d\r\n\r\n", BadRequest),
    "nul-in-trailer": (b"0\r\nA: \0\r\n\r\n", BadRequest),
    "too-much": (b"3E9\r\n", ContentTooLarge),
    "too-much-in-all": (b"3E8\r\n" + b"a" * 1000 + b"\r\n1\r\n", ContentTooLarge),
    "astronomic": (b"FFFFFFFFFFFFFFFF\r\n", ContentTooLarge),
    "many-trailers": (b"0\r\n" + b"A: b\r\n" * 6 + b"\r\n", HeaderFieldsTooLarge),
    "large-trailers": (b"0\r\n" + (b"A: " + b"b" * 1500 + b"\r\n") * 3 + b"\r\n", HeaderFieldsTooLarge),
    "long-chunk-line": (b"1;a=" + b"b" * LONGEST_CHUNK_LINE + b"\r\na\r\n", HeaderFieldsTooLarge),
    "endless-chunk-line": (b"1;" + b"b" * LONGEST_CHUNK_LINE, HeaderFieldsTooLarge),
    "extensions-in-all": ((b"1;" + b"e" * 1000 + b"\r\na\r\n") * 5, HeaderFieldsTooLarge),
}


@pytest.mark.parametrize("name", GOOD)
def test_chunks_at_every_cut(name: str) -> None:
    """Chunks decode to the same content wherever they are cut, and leave what follows (RFC 9112 section 7.1)."""
    data, content = GOOD[name]
    data += b"GET /"
    expected = (content, True, b"GET /")
    for point in range(len(data)):
        assert decode(ChunkedDecoder(SMALL), cut(data, [point])) == expected, point
    assert decode(ChunkedDecoder(SMALL), [data[i : i + 1] for i in range(len(data))]) == expected


@pytest.mark.parametrize("name", GOOD)
def test_cut_short_is_not_finished(name: str) -> None:
    """Chunks without their last CRLF are not a whole content (RFC 9112 section 8)."""
    data, _ = GOOD[name]
    for end in range(len(data)):
        result = decode(ChunkedDecoder(SMALL), [data[:end]])
        assert isinstance(result, tuple)
        assert not result[1], end


@pytest.mark.parametrize("name", BAD)
def test_bad_chunks_at_every_cut(name: str) -> None:
    """Malformed or excessive chunks are refused the same wherever they are cut (RFC 9112 section 7.1)."""
    data, error = BAD[name]
    assert decode(ChunkedDecoder(SMALL), [data]) is error
    assert decode(ChunkedDecoder(SMALL), [data[i : i + 1] for i in range(len(data))]) is error
    for point in range(min(len(data), 200)):
        assert decode(ChunkedDecoder(SMALL), cut(data, [point])) is error, point


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=10))
def test_chunks_round_trip(pieces: list[bytes], points: list[int]) -> None:
    """Whatever is sent in chunks comes out whole, at any cuts."""
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\nrest"
    assert decode(ChunkedDecoder(SMALL), cut(data, points)) == (b"".join(pieces), True, b"rest")


FRAGMENTS = st.sampled_from(
    [b"0", b"1", b"a", b"\r\n", b"\r", b"\n", b";a=b", b'"', b" ", b"1\r\na\r\n", b"0\r\n", b"A: b\r\n", b"\0"]
)


@given(st.lists(FRAGMENTS, max_size=14).map(b"".join), st.lists(st.integers(0, 60), max_size=8))
def test_any_bytes_at_any_cuts(data: bytes, points: list[int]) -> None:
    """Whatever comes, the decoder's answer does not depend on how it was cut."""
    pieces = decode(ChunkedDecoder(SMALL), cut(data, points))
    assert pieces == decode(ChunkedDecoder(SMALL), [data])


@given(st.binary(max_size=100), st.integers(0, 100), st.lists(st.integers(0, 100), max_size=5))
def test_fixed_length(data: bytes, length: int, points: list[int]) -> None:
    """Exactly Content-Length bytes are the content; the rest is the next request (RFC 9112 section 6.2)."""
    result = decode(FixedLengthDecoder(length), cut(data, points))
    assert result == (data[:length], len(data) >= length, data[length:])


def head_with(field: bytes) -> RequestHead:
    """A request head with one field besides Host."""
    head = HeadReader(SMALL).read(bytearray(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"))
    assert head is not None
    return head


def test_decoder_of_a_head() -> None:
    """The framing chooses the decoder, and a length past the limit is 413 at once (RFC 9112 section 6.3)."""
    assert isinstance(decoder_for(head_with(b"Transfer-Encoding: chunked"), SMALL), ChunkedDecoder)
    assert isinstance(decoder_for(head_with(b"Content-Length: 1000"), SMALL), FixedLengthDecoder)
    with pytest.raises(ContentTooLarge):
        decoder_for(head_with(b"Content-Length: 1001"), SMALL)


def test_many_chunks_cost_linear_work() -> None:
    """100,000 chunks of one byte in one buffer are taken in one pass, not moved 100,000 times."""

    class CountingBuffer(bytearray):
        deletions = 0

        def __delitem__(self, key: object) -> None:
            CountingBuffer.deletions += 1
            super().__delitem__(key)  # type: ignore[arg-type]

    decoder = ChunkedDecoder(Limits())
    assert decoder.read(CountingBuffer(b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n")) == b"a" * 100_000
    assert decoder.finished
    assert CountingBuffer.deletions == 1
