"""Clients that do not speak HTTP/1 are recognised by their first bytes; those that do are not taken for others."""

from __future__ import annotations

import pytest

from wizgy.http.strangers import explain_plaintext, explain_stranger, first_line


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x16", "TLS"),
        (b"\x16\x03\x03\x00\x01", "TLS"),
        (b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n\r\n", "PROXY"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "PROXY"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (b"\x00\x0a\x0a\x00\x0c\x00QUERY_STRING", "uwsgi"),  # a length of 0x0a0a, which looks like line ends
        (b"GET /index.html\r\n", "HTTP/0.9"),
        (b"HEAD /\n", "HTTP/0.9"),
        ("GET /é HTTP/1.1\r\n".encode(), "ASCII"),
        ("GET /é HTTP/1.1\r\n".encode("latin-1"), "ASCII"),
        (b"GET /a b c HTTP/1.1\r\n", "space"),
    ],
)
def test_strangers(data: bytes, word: str) -> None:
    """What the usual strangers begin with has their name in the explanation."""
    assert word in explain_stranger(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\x16\x05",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"nonsense\r\n",
    ],
)
def test_what_is_not_known_is_not_named(data: bytes) -> None:
    """Nothing is said of what may be anything, and nothing of a request line that is right (RFC 9112 section 3)."""
    assert explain_stranger(data) == ""


def test_plaintext_where_tls_is_expected() -> None:
    """On a port with TLS a PROXY preamble is told apart from a client that speaks plain HTTP."""
    assert "https://" in explain_plaintext(b"GET / HTTP/1.1\r\n")
    assert "--proxy-protocol" in explain_plaintext(b"PROXY TCP4 ")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", ""),
        (b"\r\nGET / HTTP/1.1\r\nA: b", "GET / HTTP/1.1"),
        (b"GET /\x1b[2J", "GET /"),
        (b"GET /\xc3\xa9\n", "GET /\xc3\xa9"),
        (b"a" * 200, "a" * 200),
        (b"a" * 9999, "a" * 200 + "..."),
    ],
)
def test_first_line(data: bytes, line: str) -> None:
    """A line for the log ends at the first control byte, and is not long."""
    assert first_line(data) == line
