r"""Clients that do not speak HTTP/1, or nearly so: known by the bytes that they begin with, to say so in plain words.

Nothing here decides whether a request is refused; it only explains why one was.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_LINE: Final = 200
"""Bytes of a request line to show; the rest of a longer one is cut."""

# The signatures of both versions                                "The PROXY protocol", sections 2.1 and 2.2
_PREAMBLE: Final = rb"PROXY |\r\n\r\n\x00\r\nQUIT\n"

_EXPLANATIONS: Final = {
    _PREAMBLE: "The connection begins with a PROXY preamble; --proxy-protocol and --trust-proxy have it read.",
    # ContentType handshake, ProtocolVersion 3.x                                   RFC 8446 section 5.1
    rb"\x16(?:\x03|\Z)": (
        "The client speaks TLS, and this port plain HTTP: ask for http://, or set --certfile and --keyfile."
    ),
    # The client connection preface                                                RFC 9113 section 3.4
    rb"PRI \* HTTP/2": "The client speaks HTTP/2, and this port HTTP/1.0 and HTTP/1.1: have the proxy use HTTP/1.1.",
    # modifier1, datasize, modifier2, and a variable of the request                the uwsgi protocol
    rb"\x00..\x00..(?:QUERY_STRING|REQUEST_METHOD|HTTP_)": (
        "The client speaks uwsgi, and this port HTTP: in nginx write proxy_pass, not uwsgi_pass."
    ),
    # version 1, FCGI_BEGIN_REQUEST, request id 1, 8 bytes                         FastCGI section 3.3
    rb"\x01\x01\x00\x01\x00\x08": (
        "The client speaks FastCGI, and this port HTTP: in nginx write proxy_pass, not fastcgi_pass."
    ),
    # Simple-Request = "GET" SP Request-URI CRLF                                   RFC 1945 section 4.1
    rb"[A-Z]+ [!-~]+\r?\n": (
        "The request line has no version: that is HTTP/0.9. A health check should send GET / HTTP/1.0."
    ),
    # request-target is ASCII                                                      RFC 9112 section 3.2
    rb"[!-~]+ [!-~]*[\x80-\xff]": (
        "The request-target has a byte that is not ASCII: the client must percent-encode it, as in %C3%A9."
    ),
    rb"[!-~]+ [!-~]+ [^\r\n]* HTTP/1\.[01]\r\n": (
        "The request-target has a space in it: the client must percent-encode it, as %20."
    ),
}
_strangers: Final = [(re.compile(begin, re.DOTALL), text) for begin, text in _EXPLANATIONS.items()]
_line = re.compile(rb"(?:\r\n)?([^\x00-\x1f\x7f]{0,%d})" % (LONGEST_LINE + 1))


def explain_plaintext(data: bytes) -> str:
    """Say what to do where a client does not speak TLS on a port that does.

    Args:
        data: its first bytes.
    """
    if re.match(_PREAMBLE, data):
        return _EXPLANATIONS[_PREAMBLE]
    return "This port speaks TLS: ask for https:// and not for http://."


def explain_stranger(data: bytes | bytearray) -> str:
    """Say what a client speaks, or nothing where that is not known.

    Args:
        data: the first bytes that were not understood.
    """
    for pattern, explanation in _strangers:
        if pattern.match(data):
            return explanation
    return ""


def first_line(data: bytes | bytearray) -> str:
    """What there is of a request line, up to the first control byte; one character a byte.

    Args:
        data: the first bytes that were not understood.
    """
    match = _line.match(data)
    assert match is not None  # it matches nothing as well
    text = match[1].decode("latin-1")
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."
