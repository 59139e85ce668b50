"""Request heads: the same answer however the bytes are cut, and limits that count across reads."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from wizgy.http.request import LONGEST_REMEMBERED, HeadReader, Limits, RequestHead

Result = tuple[RequestHead, bytes] | tuple[type[RequestError], str] | None
"""A head and what is left after it, the refusal, or None when more is needed."""

SMALL = Limits(request_line=64, header_bytes=256, header_count=5, body=1000)

HOST = b"Host: localhost\r\n"

GOOD = {
    "plain": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "empty-line-first": b"\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http-1.0": b"GET /a?b=c HTTP/1.0\r\n\r\n",
    "http-1.9": b"GET / HTTP/1.9\r\nHost: localhost\r\n\r\n",
    "rest": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n",
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    "absolute": b"GET http://other:81?x=y HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "expect": b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
    "joined": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nCookie: a=1\r\nx-a:\t2 \r\nCookie: b=2\r\n\r\n",
    "latin-1": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \xe9\xff\r\n\r\n",
    "longest-line": b"GET /" + b"a" * (64 - 14) + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "largest-section": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * (256 - 22) + b"\r\n\r\n",
    "most-fields": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\nX-B: 1\r\nX-C: 1\r\nX-D: 1\r\n\r\n",
}

BAD: dict[str, tuple[bytes, type[RequestError]]] = {
    "two-empty-lines": (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "bare-lf": (b"GET / HTTP/1.1\nHost: a\n\n", BadRequest),
    "bare-lf-in-section": (b"GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", BadRequest),
    "bare-cr": (b"GET / HTTP/1.1\r\nHost: a\rX-A: b\r\n\r\n", BadRequest),
    "nul": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \x00\r\n\r\n", BadRequest),
    "control-in-line": (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "folded": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", BadRequest),
    "space-before-colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadRequest),
    "no-colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n", BadRequest),
    "no-name": (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", BadRequest),
    "http-0.9": (b"GET /\r\n\r\n", BadRequest),
    "http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionNotSupported),
    "lower-case-version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "two-spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", NotImplementedHere),
    "relative-target": (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "asterisk-for-get": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "userinfo": (b"GET http://me@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
    "no-host": (b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n", BadRequest),
    "no-fields": (b"GET / HTTP/1.1\r\n\r\n", BadRequest),
    "two-hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadRequest),
    "host-with-path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadRequest),
    "two-lengths": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", BadRequest),
    "signed-length": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", BadRequest),
    "other-digits": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\n", BadRequest),
    "long-length": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000001\r\n\r\n", BadRequest),
    "both-framings": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        BadRequest,
    ),
    "chunked-in-1.0": (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest),
    "gzip": (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", NotImplementedHere),
    "identity": (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", BadRequest),
    "expectation": (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", ExpectationFailed),
    "long-line": (b"GET /" + b"a" * (64 - 13) + b" HTTP/1.1\r\n" + HOST + b"\r\n", UriTooLong),
    "endless-line": (b"GET /" + b"a" * 500, UriTooLong),
    "large-section": (
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * (256 - 21) + b"\r\n\r\n",
        HeaderFieldsTooLarge,
    ),
    "endless-section": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 500, HeaderFieldsTooLarge),
    "many-fields": (
        b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\nX-B: 1\r\nX-C: 1\r\nX-D: 1\r\nX-E: 1\r\n\r\n",
        HeaderFieldsTooLarge,
    ),
}


def read_pieces(pieces: list[bytes], limits: Limits = SMALL) -> Result:
    """Give a reader bytes in pieces, asking after each, until it has an answer."""
    reader = HeadReader(limits)
    buffer = bytearray()
    head: RequestHead | None = None
    for piece in pieces:
        buffer += piece
        if head is not None:
            continue
        try:
            head = reader.read(buffer)
        except RequestError as error:
            return type(error), str(error)
    return None if head is None else (head, bytes(buffer))


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """Cut bytes at points."""
    edges = [0, *sorted(points), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def refusal(data: bytes) -> type[RequestError]:
    """What a reader raises for bytes that come at once."""
    result = read_pieces([data])
    assert result is not None
    assert isinstance(result[0], type)
    return result[0]


@pytest.mark.parametrize("name", GOOD)
def test_good_head_at_every_cut(name: str) -> None:
    """A head means the same wherever its bytes are cut, and what follows it stays (RFC 9112 section 2.2)."""
    data = GOOD[name]
    whole = read_pieces([data])
    assert whole is not None
    assert isinstance(whole[0], RequestHead)
    assert read_pieces([data[i : i + 1] for i in range(len(data))]) == whole
    for point in range(len(data)):
        assert read_pieces(cut(data, [point])) == whole, point


@pytest.mark.parametrize("name", BAD)
def test_bad_head_at_every_cut(name: str) -> None:
    """A head is refused with the same status wherever its bytes are cut (RFC 9112 section 2.2)."""
    data, error = BAD[name]
    assert refusal(data) is error
    bytewise = read_pieces([data[i : i + 1] for i in range(len(data))])
    assert bytewise is not None
    assert bytewise[0] is error
    for point in range(len(data)):
        result = read_pieces(cut(data, [point]))
        assert result is not None, point
        assert result[0] is error, point


FRAGMENTS = st.sampled_from(
    [
        b"GET ",
        b"/ HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"Host: a\r\n",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b" ",
        b"\t",
        b":",
        b"X-A: b\r\n",
        b"\x00",
        b"\xff",
        b"a" * 70,
    ]
)


def merge(result: Result) -> object:
    """What must not depend on the cuts; which of two faults is named first may."""
    if result is None or isinstance(result[0], RequestHead):
        return result
    return "refused"


@given(st.lists(FRAGMENTS, max_size=14).map(b"".join), st.lists(st.integers(0, 200), max_size=12))
def test_any_bytes_at_any_cuts(data: bytes, points: list[int]) -> None:
    """Whatever comes, the answer does not depend on how it was cut, and is never another exception."""
    data = b"GET / HTTP/1.1\r\n" + data if len(points) % 2 else data
    assert merge(read_pieces(cut(data, points))) == merge(read_pieces([data]))


@given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=6))
def test_noise_at_any_cuts(data: bytes, points: list[int]) -> None:
    """Noise is refused or awaits more, the same at any cuts."""
    assert merge(read_pieces(cut(data, points))) == merge(read_pieces([data]))


@given(st.integers(0, len(GOOD["rest"]) * 2))
def test_two_heads_after_each_other(point: int) -> None:
    """What a reader learnt from one head does not change the next (RFC 9112 section 9.3.2)."""
    one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    two = b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n"
    reader, buffer, heads = HeadReader(SMALL), bytearray(), []
    for piece in cut(one + one + two, [point]):
        buffer += piece
        while (head := reader.read(buffer)) is not None:
            heads.append((head.line.path, head.fields.values["host"]))
    assert heads == [("/1", "a"), ("/1", "a"), ("/2", "b")]
    assert not buffer


def test_limits_count_across_reads() -> None:
    """A request line that never ends is refused at its limit, not when memory is (RFC 9112 section 3)."""
    reader, buffer = HeadReader(SMALL), bytearray()
    given_bytes = 0
    with pytest.raises(UriTooLong):
        while given_bytes < 1000:
            buffer += b"a"
            given_bytes += 1
            assert reader.read(buffer) is None
    assert given_bytes <= SMALL.request_line + 2


def test_long_heads_cost_linear_work() -> None:
    """A head of 60,000 bytes that comes byte by byte is searched once, not again from its start."""

    class CountingBuffer(bytearray):
        searched = 0

        def find(self, sub: object, start: object = 0, end: object = None) -> int:
            assert isinstance(start, int)
            stop = end if isinstance(end, int) else len(self)
            CountingBuffer.searched += max(min(stop, len(self)) - start, 0)
            return super().find(sub, start, end)  # type: ignore[arg-type]

    reader, buffer = HeadReader(Limits()), CountingBuffer()
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 60_000 + b"\r\n\r\n"
    head = None
    for byte in data:
        buffer.append(byte)
        head = reader.read(buffer)
    assert head is not None
    assert CountingBuffer.searched < 40 * len(data)


@pytest.mark.parametrize(
    ("data", "path", "query", "authority"),
    [
        (b"GET /a?b?c", "/a", "b?c", ""),
        (b"GET //a", "//a", "", ""),
        (b"GET http://h", "/", "", "h"),
        (b"GET HTTPS://h:1/a?b", "/a", "b", "h:1"),
        (b"GET http://[::1]:8/", "/", "", "[::1]:8"),
        (b"OPTIONS *", "*", "", ""),
    ],
)
def test_target_forms(data: bytes, path: str, query: str, authority: str) -> None:
    """Origin-form, absolute-form and asterisk-form are taken apart (RFC 9112 section 3.2)."""
    result = read_pieces([data + b" HTTP/1.1\r\nHost: a\r\n\r\n"])
    assert result is not None
    head = result[0]
    assert isinstance(head, RequestHead)
    assert (head.line.path, head.line.query, head.line.authority) == (path, query, authority)


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"x, Close", False),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_persistence(version: bytes, connection: bytes | None, keep_alive: bool) -> None:
    """The version and the options of Connection decide the persistence (RFC 9112 section 9.3)."""
    field = b"" if connection is None else b"Connection: " + connection + b"\r\n"
    result = read_pieces([b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + field + b"\r\n"])
    assert result is not None
    assert isinstance(result[0], RequestHead)
    assert result[0].keep_alive is keep_alive


def test_refusals_do_not_echo() -> None:
    """The text of a refusal repeats nothing that the client sent, since it goes into an answer."""
    for name, (data, _) in BAD.items():
        result = read_pieces([data.replace(b"X-A", b"<script>").replace(b"/b", b"/<script>")])
        assert result is not None, name
        assert "script" not in str(result[1]), name


def is_ipv6(text: str) -> bool:
    """Whether the standard library takes a text for an IPv6 address."""
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


GROUPS = st.lists(st.sampled_from(["", "0", "1", "ffff", "aB9", "12345", "g"]), max_size=10).map(":".join)


@given(
    st.one_of(
        st.ip_addresses(v=6).map(str), GROUPS, st.tuples(GROUPS, st.ip_addresses(v=4)).map("{0[0]}:{0[1]}".format)
    )
)
def test_ipv6_hosts(text: str) -> None:
    """What stands in brackets in a Host is an IPv6 address (RFC 3986 section 3.2.2), as `ipaddress` knows them."""
    assert bool(grammar.host.fullmatch(f"[{text}]".encode())) is is_ipv6(text)


@pytest.mark.parametrize(("length", "remembered"), [(LONGEST_REMEMBERED, True), (LONGEST_REMEMBERED + 1, False)])
def test_idle_connections_keep_little(length: int, remembered: bool) -> None:
    """A connection that waits for its next request holds no large header section (fault 3)."""
    reader = HeadReader(Limits())
    section = b"Host: a\r\nX-A: " + b"b" * (length - 16) + b"\r\n"
    assert reader.read(bytearray(b"GET / HTTP/1.1\r\n" + section + b"\r\n"))
    assert (len(reader._block) == length) is remembered
    assert (reader._fields is not None) is remembered


def test_empty_line_after_a_head_in_two_pieces() -> None:
    """The first byte of one head alone does not change how an empty line before the next is read (section 2.2)."""
    reader, buffer = HeadReader(Limits()), bytearray(b"G")
    assert reader.read(buffer) is None
    buffer += b"ET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\n"
    first = reader.read(buffer)
    assert first is not None
    assert reader.read(buffer) is None
    buffer += b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    second = reader.read(buffer)
    assert second is not None
    assert (first.line.path, second.line.path) == ("/a", "/b")
