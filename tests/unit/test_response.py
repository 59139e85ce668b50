"""Response heads: what an application gives is checked, and the framing follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.errors import ApplicationError
from wizgy.http import response
from wizgy.http.response import (
    HOP_BY_HOP,
    Framing,
    ResponseHead,
    ServerFields,
    build_chunk,
    build_error,
    build_head,
    build_usual_head,
    check_head,
)

DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
SERVER = b"Server: wizgy\r\n"


def build(status: str = "200 OK", fields: list[tuple[str, str]] | None = None, **changes: Any) -> ResponseHead:
    """Build a head as for an ordinary request, with changes."""
    usual: dict[str, Any] = {"minor": 1, "is_head": False, "keep_alive": True, "known_length": None}
    return build_head(check_head(status, fields or []), own=ServerFields(DATE, SERVER), **{**usual, **changes})


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("200", []),
        ("200OK", []),
        ("20 OK", []),
        ("2000 OK", []),
        ("100 Continue", []),
        ("600 OK", []),
        ("999 OK", []),
        (" 200 OK", []),
        ("+20 OK", []),
        ("200 OK\r\nX: y", []),
        ("200 \0", []),
        ("200 \u20ac", []),
        ("\u0662\u0660\u0660 OK", []),
        (200, []),
        (b"200 OK", []),
        ("200 OK", ()),
        ("200 OK", {"X-A": "b"}),
        ("200 OK", None),
        ("200 OK", [["X-A", "b"]]),
        ("200 OK", [("X-A",)]),
        ("200 OK", [("X-A", "b", "c")]),
        ("200 OK", ["X-A: b"]),
        ("200 OK", [("X-A", b"b")]),
        ("200 OK", [(b"X-A", "b")]),
        ("200 OK", [("X-A", 1)]),
        ("200 OK", [("X A", "b")]),
        ("200 OK", [("X-A:", "b")]),
        ("200 OK", [("", "b")]),
        ("200 OK", [("X-\xe9", "b")]),
        ("200 OK", [("X-A\r\nX-B", "b")]),
        ("200 OK", [("X-A", "b\r\nX-B: c")]),
        ("200 OK", [("X-A", "b\nc")]),
        ("200 OK", [("X-A", "b\rc")]),
        ("200 OK", [("X-A", "b\0c")]),
        ("200 OK", [("X-A", "b\x7fc")]),
        ("200 OK", [("X-A", "b\n")]),
        ("200 OK", [("X-A", "\u20ac")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1_0")]),
        ("200 OK", [("Content-Length", "\xb2")]),
        ("200 OK", [("Content-Length", "")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "2")]),
        *[("200 OK", [(name.title(), "x")]) for name in sorted(HOP_BY_HOP)],
    ],
)
def test_invalid_heads_are_refused(status: Any, fields: Any) -> None:
    """A status, name or value that HTTP has not is refused, and again the second time (RFC 9110 section 5.5)."""
    for _ in range(2):
        with pytest.raises(ApplicationError):
            check_head(status, fields)


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_nothing_invalid_can_be_written(reason: str, name: str, value: str) -> None:
    """Whatever an application gives is refused or becomes exactly one status line and one field line."""
    try:
        checked = check_head(f"200 {reason}", [(name, value)])
    except ApplicationError:
        return
    lines = checked.lines.split(b"\r\n")
    assert len(lines) == (2 if name.lower() == "content-length" else 3)
    assert lines[-1] == b""
    assert not any(byte in b"\0\r\n\x0b\x0c\x7f" for line in lines for byte in line)


def test_head_is_written_as_given() -> None:
    """Names keep their case and order, values their Latin-1 bytes; white space around a value is dropped."""
    head = build("200 D\xe9j\xe0", [("X-B", " \xe9\t"), ("X-A", ""), ("X-B", "2")], known_length=3)
    assert head.data == (
        b"HTTP/1.1 200 D\xe9j\xe0\r\nX-B: \xe9\r\nX-A: \r\nX-B: 2\r\nContent-Length: 3\r\n" + DATE + SERVER + b"\r\n"
    )


def test_own_date_and_server_win() -> None:
    """Date and Server of the application are not doubled (RFC 9110 section 6.6.1)."""
    data = build(fields=[("DATE", "today"), ("server", "mine")], known_length=0).data
    assert data.lower().count(b"date:") == data.lower().count(b"server:") == 1


@pytest.mark.parametrize(
    ("status", "fields", "changes", "framing", "length", "chunked"),
    [
        ("200 OK", [], {"known_length": 5}, Framing.LENGTH, b"5", False),
        ("200 OK", [("Content-Length", "7")], {"known_length": 5}, Framing.LENGTH, b"7", False),
        ("200 OK", [], {}, Framing.CHUNKED, None, True),
        ("200 OK", [], {"minor": 0}, Framing.CLOSE, None, False),
        ("200 OK", [], {"is_head": True}, Framing.NONE, None, True),
        ("200 OK", [], {"is_head": True, "minor": 0}, Framing.NONE, None, False),
        ("200 OK", [("Content-Length", "7")], {"is_head": True}, Framing.NONE, b"7", False),
        ("204 No Content", [("Content-Length", "7")], {}, Framing.NONE, None, False),
        ("204 No Content", [], {"known_length": 0}, Framing.NONE, None, False),
        ("204 No Content", [], {"is_head": True}, Framing.NONE, None, False),
        ("205 Reset Content", [("Content-Length", "7")], {}, Framing.NONE, b"0", False),
        ("304 Not Modified", [("Content-Length", "7")], {}, Framing.NONE, b"7", False),
        ("304 Not Modified", [], {"known_length": 0}, Framing.NONE, None, False),
    ],
)
def test_framing(
    status: str,
    fields: list[tuple[str, str]],
    changes: dict[str, Any],
    framing: Framing,
    length: bytes | None,
    chunked: bool,
) -> None:
    """The framing follows from status, method, version and length (RFC 9112 sections 6.1 to 6.3)."""
    head = build(status, fields, **changes)
    assert head.framing is framing
    assert (b"\r\nTransfer-Encoding: chunked\r\n" in head.data) is chunked
    found = [line for line in head.data.split(b"\r\n") if line.startswith(b"Content-Length")]
    assert found == ([] if length is None else [b"Content-Length: " + length])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"known_length": 1}, None),
        ({"known_length": 1, "keep_alive": False}, b"close"),
        ({"known_length": 1, "minor": 0}, b"keep-alive"),
        ({"known_length": 1, "minor": 0, "keep_alive": False}, b"close"),
        ({"minor": 0}, b"close"),
    ],
)
def test_connection_field(changes: dict[str, Any], expected: bytes | None) -> None:
    """An answer after which the connection closes says so (RFC 9112 section 9.6)."""
    found = [line for line in build(**changes).data.split(b"\r\n") if line.startswith(b"Connection")]
    assert found == ([] if expected is None else [b"Connection: " + expected])


def test_chunk() -> None:
    """A chunk has its size in hexadecimal (RFC 9112 section 7.1)."""
    assert build_chunk(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"


@pytest.mark.parametrize(
    ("status", "phrase"), [(413, b"Content Too Large"), (414, b"URI Too Long"), (400, b"Bad Request")]
)
def test_error_answer(status: int, phrase: bytes) -> None:
    """A refusal is one whole answer that closes the connection, in the words of RFC 9110 section 15."""
    whole = build_error(status, "Why.", own=ServerFields(DATE, b""), is_head=False)
    assert whole.startswith(b"HTTP/1.1 %d %b\r\n" % (status, phrase))
    assert b"\r\nConnection: close\r\n" in whole
    assert b"\r\nContent-Length: 5\r\n" in whole
    assert whole.endswith(b"\r\n\r\nWhy.\n")
    head = build_error(status, "Why.", own=ServerFields(DATE, b""), is_head=True)
    assert whole == head + b"Why.\n"


def test_memory_of_heads_is_bounded() -> None:
    """Heads that never come again do not pile up, and large ones are not kept at all."""
    for number in range(2000):
        check_head("200 OK", [("X-A", str(number))])
    assert len(response._checked) <= response._LARGEST_MEMO
    before = len(response._checked)
    check_head("200 OK", [("X-A", "a" * response._LONGEST_HEAD)])
    assert len(response._checked) == before


@pytest.mark.parametrize("fields", [[], [("Content-Type", "text/plain")], [("Content-Length", "7"), ("X-A", "b")]])
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 No"])
@pytest.mark.parametrize("keep_alive", [True, False])
def test_usual_head_is_the_same(status: str, fields: list[tuple[str, str]], keep_alive: bool) -> None:
    """The short way to a usual head gives the bytes of the long way (RFC 9112 section 6.3)."""
    checked = check_head(status, fields)
    own = ServerFields(DATE, SERVER)
    whole = build(status, fields, known_length=7, keep_alive=keep_alive)
    usual = build_usual_head(checked, 7, own.ending if keep_alive else own.last_ending)
    assert sorted(usual.split(b"\r\n")) == sorted(whole.data.split(b"\r\n"))
    assert usual.startswith(b"HTTP/1.1 " + status.encode() + b"\r\n")
    assert usual.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified"])
def test_no_usual_head_without_content(status: str) -> None:
    """An answer that has no content never takes the short way (RFC 9110 section 15)."""
    assert check_head(status, []).usual == b""


@pytest.mark.parametrize("name", ["Date", "date", "Server"])
def test_no_usual_head_with_fields_of_the_server(name: str) -> None:
    """An application's own Date or Server never takes the short way, which would add a second one."""
    assert check_head("200 OK", [(name, "x")]).usual == b""
