"""wizgy against h11 and llhttp: the same requests, and every difference explained or a failure.

A request is composed of slots. Each slot has usual values, with which any request is valid, and odd ones: near
misses, and whatever parsers have disagreed about. `HYPOTHESIS_EXAMPLES=100000 pytest tests/unit/test_differential.py`
looks further, with other examples each time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import differences
from tests.unit.differences import DIFFERENCES, Difference, explain, find_differences, find_unexplained
from tests.unit.oracles import ORACLES, read_wizgy

EXAMPLES = os.environ.get("HYPOTHESIS_EXAMPLES")

bounded = settings(
    max_examples=int(EXAMPLES) if EXAMPLES else 700,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
)


class Slot(NamedTuple):
    """A place in a request: what usually stands there, and what is odd there."""

    usual: tuple[bytes, ...]
    odd: tuple[bytes, ...]


LINE_END = Slot(
    (b"\r\n",),
    (
        b"\n",
        b"\r",
        b"",
        b"\r\r\n",
        b"\r\n ",
        b"\r\n\t",
        b"\n\r\n",
        b"\x00\r\n",
        b" \r\n",
        b"xx",
        b"\r\r",
        b"\n\r",
    ),
)
SPACE = Slot((b" ",), (b"", b"  ", b"\t", b"\x0b", b"\r\n", b"\xa0"))
FIELDS = (
    b"", b" X-A: b\r\n", b"X-A : b\r\n", b"X-A\t: b\r\n", b"X A: b\r\n", b": b\r\n", b"X-A\r\n",
    b"X(A: b\r\n", b"X\x00: b\r\n", b"X\xe9: b\r\n", b"X-A: b\r\n c\r\n", b"X-A: b\r\n\tc\r\n",
    b"X-A: a\x00b\r\n", b"X-A: \x01\r\n", b"X-A: \x7f\r\n", b"X-A: a\rb\r\n", b"X-A: a\nb\r\n",
    b"X-A: \x0bb\x0c\r\n", b"X-A: b\x1f\r\n", b"X-A:: b\r\n", b"X_A: b\r\n", b"\xa0: b\r\n", b"Host: a\r\n",
    b"HOST: b\r\n", b"Content-Type: a\r\nContent-Type: b\r\n", b"Content-Type: a\r\n", b"\x00\r\n",
    b'"X": b\r\n', b"Content-Length: 12\r\n", b"Content-Length: 13\r\n", b"Content-Length: 0\r\n",
    b"content-length: 12, 12\r\n", b"X: b\r\n" * 110, b"Content-Length: +12\r\n", b"Content-Length: -12\r\n",
    b"Content-Length: 0x12\r\n", b"Content-Length: 12.0\r\n", b"Content-Length: 12_\r\n",
    b"Content-Length: 1_0\r\n", b"Content-Length:\r\n", b"Content-Length: \xb2\r\n",
    b"Content-Length: 12 3\r\n", b"Content-Length: 12;a\r\n", b"Content-Length: \x0b12\r\n",
    b"Content-Length: 12\xa0\r\n",
    b"Content-Length: 0000000000000000000\r\n", b"Content-Length: 99999999999999999999999999\r\n",
    b"Content-Length: 12,\r\n", b"Content-Length : 12\r\n", b"Content_Length: 3\r\n",
    b" Content-Length: 12\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, gzip\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding:\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: chunkedx\r\n",
    b"Transfer-Encoding: chunked;a=b\r\n", b"Transfer-Encoding: chunked,\r\n",
    b"Transfer-Encoding: ,chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n", b'Transfer-Encoding: "chunked"\r\n',
    b"Transfer-Encoding: chunked\xa0\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Transfer_Encoding: chunked\r\n", b"Transfer-Encoding: chunked\t\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n", b"Transfer-Encoding: chunked\r\n" * 2, b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: keep-alive, close\r\n", b"Connection: closed\r\n",
    b"Connection: x,Close\r\n", b"Connection: close;a\r\n", b"Connection: close a\r\n",
    b"Connection:\r\nConnection: close\r\n", b"Connection: close\xa0\r\n", b"Connection: ,close,\r\n",
    b"Connection: close\r\nConnection: keep-alive\r\n", b"Proxy-Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: a\r\n", b"Upgrade: a\r\n",
    b"Connection: upgrade, close\r\nUpgrade: a\r\n", b"Expect: 100-continue\r\n",
    b"Expect: 100-Continue\r\nExpect: 100-continue\r\n", b"Expect:\r\n", b"Expect: a\r\n",
    b"Expect: 100-continue, a\r\n", b"HTTP2-Settings: a\r\nConnection: HTTP2-Settings\r\n",
)  # fmt: skip

HEAD: dict[str, Slot] = {
    "lead": Slot((b"",), (b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\x00", b"\r\n ", b"\xef\xbb\xbf")),
    "method": Slot(
        (b"GET", b"POST", b"PUT", b"OPTIONS"),
        (b"HEAD", b"BREW", b"get", b"GE", b"G T", b"G(T", b"G@T", b"", b"CONNECT", b"PRI", b"SOURCE", b"\x80", b"\0"),
    ),
    "space before target": SPACE,
    "target": Slot(
        (b"/", b"/a/b?c=d&e", b"//a", b"/%2e%00", b"http://a.b:8/c", b"/http://a/"),
        (
            b"", b"a", b"?", b"*", b"/#a", b"/a b", b"/\xff", b"/\x7f", b"/[]{}|\\^`<>\"", b"http://",
            b"http://me@a/", b"https://a?b", b"HTTPS://a", b"ftp://a/", b"http://[::1]:1/", b"a:1",
            b"http://a b/", b"http:/a", b"http://a:/", b"http://:1/", b"http://a/\x80", b"/\t", b"/a\x00",
            b"%2f", b"http://a#b", b"http://a,b/", b"//",
        ),
    ),
    "space before version": SPACE,
    "version": Slot(
        (b"HTTP/1.1",),
        (
            b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.10",
            b"HTTP/11", b"HTTP/1.", b"", b"HTTP/1.1 a", b"HTTP/01.1", b"HTTP/1,1", b"HTTP/\xb2.1",
            b"HTTP/+1.1", b"HTTP /1.1", b"HTTP/12.1", b"ICE/1.0",
        ),
    ),
    "end of the request line": LINE_END,
    "name of Host": Slot((b"Host", b"host"), (b"Hos", b"Host ", b" Host", b"H\xf6st")),
    "colon": Slot((b": ", b":", b":\t"), (b" : ", b"", b" ", b";", b": \x0b", b":\xa0", b":\r\n ")),
    "host": Slot(
        (b"a", b"localhost:8888", b"[::1]:80", b"a.b-c"),
        (
            b"", b"a/b", b"a:b", b"a@b", b"a b", b"a,b", b"%41", b"%4", b"[", b"[]", b"[::1", b"::1",
            b"a:123456", b"a:", b":1", b"\xe9", b"a?b", b"a#b", b"a\\b", b"a\x00", b"[::1]a", b"[a]:1",
            b"a:\xb2", b"a\xa0", b"a:1:1", b"-", b"_",
        ),
    ),
    "end of Host": LINE_END,
    "fields": Slot((b"", b"X-A: b\r\n", b"x-a:\t\xa0b\x85 \r\nX-A:\r\n", b"Cookie: a=b\r\nCookie: c\r\n"), FIELDS),
    "framing": Slot((b"",), FIELDS),
    "fields after the framing": Slot((b"",), FIELDS),
}  # fmt: skip

REST = Slot((b"", b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"), (b"\r\n", b"\x00", b"0\r\n\r\n"))

FRAMES: dict[str, dict[str, Slot]] = {
    "no content": {"end of the head": LINE_END, "rest": REST},
    "Content-Length": {
        "framing": Slot((b"Content-Length: 12\r\n", b"content-length:012\r\n"), FIELDS),
        "end of the head": LINE_END,
        "content": Slot((b"hello, world", b"\r\n0\r\n\r\nGET /"), (b"", b"hello, worl", b"hello, worlds")),
        "rest": REST,
    },
    "chunked": {
        "framing": Slot((b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:chunked\r\n"), FIELDS),
        "end of the head": LINE_END,
        "chunk-size": Slot(
            (b"c", b"C", b"0c", b"000000000000000C"),
            (
                b"", b"0", b"b", b"d", b"12", b"-c", b"+c", b"0xc", b"c_", b"0_c", b" c", b"c ", b"c\t",
                b"g", b"\xb2", b"c.", b"c,", b"0000000000000000c", b"000000000000000000000c", b"f" * 8,
                b"f" * 16, b"f" * 17, b"f" * 21, b"\r\nc", b"c\x00", b"c\x0b",
            ),
        ),
        "chunk-ext": Slot(
            (b"", b";a", b";a=b", b';a="b\\"c"', b";a=b;c"),
            (
                b";", b"; a", b" ;a", b";a = b", b";a=", b";=b", b';a="', b";a b", b";\x00", b";a\n", b"a",
                b";;a", b';a="\xe9\t"', b";\xe9", b';a="\\', b";a\rb", b';a="b"c', b";a=b=c", b';a="\x01"',
                b";a(b", b" ", b";a ", b';a=""', b';a="\r\n"',
            ),
        ),
        "end of the chunk-size line": LINE_END,
        "content": Slot((b"hello, world", b"\r\n0\r\n\r\nGET /"), (b"", b"hello, worl", b"hello, worlds")),
        "end of the chunk": LINE_END,
        "last chunk": Slot(
            (b"0\r\n", b"000\r\n", b"0;a\r\n"),
            (b"0\n", b"", b"0 \r\n", b"-0\r\n", b"0", b"0\r", b"0;\r\n", b"\r\n", b"0x0\r\n")
        ),
        "trailers": Slot((b"", b"X-A: b\r\n"), FIELDS),
        "end of the trailers": LINE_END,
        "rest": REST,
    },
}  # fmt: skip


def compose(frame: str, filling: Mapping[str, bytes]) -> bytes:
    """Put a request together; a slot that is not filled has its first usual value."""
    slots = HEAD | FRAMES[frame]
    return b"".join(filling.get(name, slot.usual[0]) for name, slot in slots.items())


@st.composite
def requests(draw: st.DrawFn, odd: tuple[int, int]) -> bytes:
    """A request with usual values, and odd ones in so many slots, at least and at most."""
    frame = draw(st.sampled_from(sorted(FRAMES)))
    slots = HEAD | FRAMES[frame]
    names = draw(st.lists(st.sampled_from(sorted(slots)), unique=True, max_size=5))
    filling = {name: draw(st.sampled_from(slots[name].usual)) for name in names}
    for name in draw(st.lists(st.sampled_from(sorted(slots)), unique=True, min_size=odd[0], max_size=odd[1])):
        filling[name] = draw(st.sampled_from(slots[name].odd))
    return compose(frame, filling)


PIECE = st.sampled_from([b"", *(bytes([n]) for n in b'\r\n \t:;,="\\/#?*@0a\x00\x0b\x1f\x7f\x80\xa0')])
EDITS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), PIECE), min_size=1, max_size=3)


def edit(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Replace a few bytes at a few places."""
    for where, how_many, new in edits:
        point = where % (len(data) + 1)
        data = data[:point] + new + data[point + how_many :]
    return data


@pytest.mark.parametrize("frame", FRAMES)
def test_usual_values_read_the_same(frame: str) -> None:
    """A request with one unusual but valid value is accepted by all and means the same to all."""
    for name, slot in (HEAD | FRAMES[frame]).items():
        for value in slot.usual:
            data = compose(frame, {name: value})
            assert read_wizgy(data).verdict == "accepted", data
            assert list(find_differences(data)) == []


@pytest.mark.parametrize("frame", FRAMES)
def test_each_odd_value_differs_as_listed(frame: str) -> None:
    """Each near miss alone is read as the oracles read it, or the difference is listed with its reason."""
    oddities = [{name: value} for name, slot in (HEAD | FRAMES[frame]).items() for value in slot.odd]
    assert [finding for oddity in oddities for finding in find_unexplained(compose(frame, oddity))] == []


@bounded
@given(requests(odd=(0, 0)))
def test_valid_requests_read_the_same(data: bytes) -> None:
    """What is valid beyond doubt is accepted by all and means the same to all (RFC 9112 sections 2 to 9)."""
    assert read_wizgy(data).verdict == "accepted"
    assert list(find_differences(data)) == []


@bounded
@given(requests(odd=(1, 3)))
def test_odd_requests_differ_as_listed(data: bytes) -> None:
    """Several near misses at once are read as the oracles read them, or the difference is listed."""
    assert find_unexplained(data) == []


@bounded
@given(requests(odd=(0, 1)), EDITS)
def test_edited_requests_differ_as_listed(data: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    """A request with bytes changed anywhere is read as the oracles read it, or the difference is listed."""
    assert find_unexplained(edit(data, edits)) == []


@pytest.mark.parametrize(
    ("oracle", "difference"),
    [(oracle, difference) for difference in DIFFERENCES for oracle in difference.oracles],
    ids=lambda value: value if isinstance(value, str) else value.rule.replace(" ", "-"),
)
def test_listed_differences_are_real(oracle: str, difference: Difference) -> None:
    """Each listed difference happens with each oracle that it names, and its own entry explains it."""
    assert oracle in ORACLES
    met = [finding for finding in find_differences(difference.example) if finding.oracle == oracle]
    assert {finding.kind for finding in met} == {difference.kind}, "stale: nothing differs, or something else does"
    assert explain(met[0]) is difference


def test_an_unlisted_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that is missing from the table is a finding: the table is what explains, and nothing else."""
    monkeypatch.setattr(differences, "DIFFERENCES", ())
    for difference in DIFFERENCES:
        found = {(finding.oracle, finding.kind) for finding in find_unexplained(difference.example)}
        assert found >= {(oracle, difference.kind) for oracle in difference.oracles}, difference.rule


@pytest.mark.parametrize(
    "fields",
    [
        b"Expect: 100-continue\r\nExpect: 100-Continue\r\n",
        b"Expect: 100-continue, 100-continue\r\n",
        b"Expect:\r\n",
    ],
    ids=["twice", "list", "empty"],
)
def test_expect_is_a_list(fields: bytes) -> None:
    """100-continue may be listed twice, and an empty list expects nothing (RFC 9110 section 10.1.1)."""
    data = b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"Content-Length: 1\r\n\r\na"
    assert read_wizgy(data).verdict == "accepted"
    assert list(find_differences(data)) == []
