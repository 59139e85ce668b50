"""Where wizgy reads a request otherwise than h11 or llhttp, and why: a table of data.

Each `Difference` is a rule with its reason, a predicate that says of some bytes whether the rule bears on
them, and an example. The predicates look at the bytes through a `Sketch`, a forgiving reading of its own, and
never ask wizgy: a fault of wizgy must not explain itself. A difference that no entry explains is a finding;
an entry whose example shows no difference any more is stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from typing import Literal, NamedTuple

from tests.unit.oracles import LIMITS, ORACLES, Reading, read_wizgy

Kind = Literal["only wizgy refuses", "only wizgy accepts", "persistence", "message"]
"""What differs: the verdict, whether the connection is kept, or what the message says and where it ends."""


class Chunk(NamedTuple):
    """A chunk-size line, as a forgiving reader sees it; `rest` is all that follows the digits."""

    size: bytes
    rest: bytes


class Sketch:
    """A request taken apart without judging it: lines end in LF, and neither spaces nor cases matter.

    Attributes:
        lead: the line ends before the request line.
        head: the head, from the request line to the empty line; all that came, when there is none.
        request_line, method, target, version: the request line, and its words; empty where one is missing.
        fields: lower-case name and trimmed value of each field line, folded lines joined.
        body: what follows the head.
        chunks: the chunk-size lines of `body`, when there is a Transfer-Encoding, as far as they go.
        trailers: what follows the last chunk, up to the empty line.
    """

    def __init__(self, data: bytes) -> None:
        self.lead = data[: len(data) - len(data.lstrip(b"\r\n"))]
        rest = data[len(self.lead) :]
        end = re.search(rb"\n\r?\n", rest)
        self.head, self.body = (rest, b"") if end is None else (rest[: end.end()], rest[end.end() :])
        lines: list[bytes] = re.split(rb"\r?\n", self.head)
        self.request_line = lines.pop(0)
        words = [*self.request_line.split(), b"", b"", b""]
        self.method, self.target, self.version = words[:3]
        self.fields: list[tuple[bytes, bytes]] = []
        for line in lines:
            name, _, value = line.partition(b":")
            if line[:1] in (b" ", b"\t") and self.fields:
                name, value = self.fields.pop()
                value += b" " + line
            self.fields.append((name.strip().lower(), value.strip()))
        self.chunks: list[Chunk] = []
        self.trailers = b""
        if self.values(b"transfer-encoding"):
            self._walk_chunks()

    def _walk_chunks(self) -> None:
        position, line = 0, re.compile(rb"[ \t]*([0-9A-Fa-f]+)([^\n]*)\n")
        while match := line.match(self.body, position):
            self.chunks.append(Chunk(match[1], match[2].removesuffix(b"\r")))
            position = min(match.end() + int(match[1], 16), len(self.body))
            if int(match[1], 16) == 0:
                rest = b"\n" + self.body[position:]
                end = re.search(rb"\n\r?\n", rest)
                self.trailers = rest[1 : end.end() if end else None]
                return
            position += 2 if self.body[position : position + 1] == b"\r" else 1

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this name."""
        return [value for found, value in self.fields if found == name]

    def options(self, name: bytes) -> set[bytes]:
        """The lower-case members of a field that is a list."""
        return {part.strip().lower() for value in self.values(name) for part in value.split(b",")}

    @property
    def parts(self) -> Iterator[bytes]:
        """Every part that is not content: the head, the chunk-size lines, the trailer section."""
        yield self.head
        for chunk in self.chunks:
            yield chunk.size + chunk.rest
        yield self.trailers


class Difference(NamedTuple):
    """A way in which wizgy reads a request otherwise than an oracle, on purpose.

    Args:
        rule: what wizgy does, in a few words; unique for one oracle and kind.
        oracles: the names of the oracles that do otherwise.
        kind: what differs.
        reason: why wizgy does so, with the section of the standard.
        bears_on: whether the rule bears on a request.
        example: a request that shows the difference.
    """

    rule: str
    oracles: tuple[str, ...]
    kind: Kind
    reason: str
    bears_on: Callable[[Sketch], bool]
    example: bytes


BOTH = ("h11", "llhttp")

LLHTTP_METHODS = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE "
    b"NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SUBSCRIBE "
    b"TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)


def _has_bare_line_end(sketch: Sketch) -> bool:
    return any(re.search(rb"(?<!\r)\n|\r(?!\n)", part) for part in sketch.parts)


def _has_control(sketch: Sketch) -> bool:
    return any(re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", part) for part in sketch.parts)


def _is_folded(sketch: Sketch) -> bool:
    return any(re.search(rb"(?:\A|\n)[ \t]", section) for section in (sketch.head, sketch.trailers))


def _is_ipv6(value: bytes) -> bool:
    try:
        IPv6Address(value.decode("ascii"))
    except ValueError:
        return False
    return b"%" not in value  # a zone is for Python's own use


def _is_host(value: bytes) -> bool:
    name, colon, port = value.rpartition(b":")
    if not colon or value.endswith(b"]"):
        name, port = value, b""
    if port.translate(None, b"0123456789") or len(port) > 5:
        return False
    if name[:1] == b"[":
        return name[-1:] == b"]" and _is_ipv6(name[1:-1])
    plain = re.sub(rb"%[0-9A-Fa-f][0-9A-Fa-f]", b"a", name)
    return bool(plain) and plain.isascii() and not re.search(rb"[^0-9A-Za-z._~!$&'()*+,;=-]", plain)


def _is_request_target(sketch: Sketch) -> bool:
    target = sketch.target
    if target[:1] == b"/" or sketch.method == b"CONNECT":
        return True
    if target == b"*":
        return sketch.method == b"OPTIONS"
    scheme, separator, rest = target.partition(b"://")
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    return separator != b"" and scheme.lower() in (b"http", b"https") and _is_host(authority)


def _is_too_large(sketch: Sketch) -> bool:
    lengths = [int(v) for v in sketch.values(b"content-length") if v.isdigit()]
    return sum(lengths) > LIMITS.body or sum(int(chunk.size, 16) for chunk in sketch.chunks) > LIMITS.body


EXTENSION = re.compile(
    rb"""(?:[ \t]*;[ \t]*[\w!#$%&'*+.^`|~-]+(?:[ \t]*=[ \t]*(?:[\w!#$%&'*+.^`|~-]+|"(?:[^"\\]|\\.)*"))?)*""",
)


def _has_bad_extension(sketch: Sketch) -> bool:
    return any(not EXTENSION.fullmatch(chunk.rest) for chunk in sketch.chunks)


def _has_space_before_extension(sketch: Sketch) -> bool:
    return any(re.search(rb"[ \t]", chunk.rest) for chunk in sketch.chunks)


def _trailer_names(sketch: Sketch) -> set[bytes]:
    return {line.partition(b":")[0].strip().lower() for line in sketch.trailers.split(b"\n")}


FRAMING_NAMES = {b"content-length", b"transfer-encoding"}

HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "a bare LF or CR is refused",
        ("h11",),
        "only wizgy refuses",
        "RFC 9112 section 2.2 lets a recipient take a bare LF as a line end and does not ask for it; two readers "
        "that disagree about where a line ends are how requests are smuggled.",
        _has_bare_line_end,
        b"GET / HTTP/1.1\nHost: a\n\n",
    ),
    Difference(
        "a control byte in a field value is refused",
        ("h11",),
        "only wizgy refuses",
        "RFC 9110 section 5.5: CR, LF and NUL are invalid, and a field-value has no other control byte but HTAB.",
        _has_control,
        GET + b"X-A: \x01\r\n\r\n",
    ),
    Difference(
        "a folded field line is refused",
        ("h11",),
        "only wizgy refuses",
        "RFC 9112 section 5.2: a server must refuse obs-fold with 400 or replace it by spaces.",
        _is_folded,
        GET + b"X-A: b\r\n c\r\n\r\n",
    ),
    Difference(
        "more than one CRLF before the request line is refused",
        ("llhttp",),
        "only wizgy refuses",
        "RFC 9112 section 2.2: a server should ignore at least one CRLF; no client in use sends two.",
        lambda sketch: sketch.lead not in (b"", b"\r\n"),
        b"\r\n\r\n" + GET + b"\r\n",
    ),
    Difference(
        "a request line has single spaces",
        ("llhttp",),
        "only wizgy refuses",
        "RFC 9112 section 3: the words are separated by one SP; the lenient splitting is a MAY, with a warning.",
        lambda sketch: sketch.request_line.split(b" ") != sketch.request_line.split(),
        b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "another major version is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9110 section 15.6.6: 505 for a major version that a server does not support.",
        lambda sketch: not sketch.version.startswith(b"HTTP/1."),
        b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "a fragment in the request-target is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9112 section 3.2: no form of request-target has a fragment.",
        lambda sketch: b"#" in sketch.target,
        b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "a request-target of none of the forms is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9112 section 3.2: a path that starts with '/', an http URI with a host and no userinfo (RFC 9110 "
        "section 4.2.4), or '*' for OPTIONS.",
        lambda sketch: not _is_request_target(sketch),
        b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "CONNECT is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9110 section 9.3.6: CONNECT is for proxies, and an origin server answers 501 (section 9.1).",
        lambda sketch: sketch.method == b"CONNECT",
        b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "a request without Host is refused",
        ("llhttp",),
        "only wizgy refuses",
        "RFC 9112 section 3.2: a server must refuse an HTTP/1.1 request that lacks Host. llhttp leaves it to its user.",
        lambda sketch: sketch.version != b"HTTP/1.0" and not sketch.values(b"host"),
        b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n",
    ),
    Difference(
        "a request of a later minor version without Host is refused",
        ("h11",),
        "only wizgy refuses",
        "RFC 9110 section 6.2: HTTP/1.2 is processed as HTTP/1.1, which needs Host; h11 asks for it in 1.1 only.",
        lambda sketch: sketch.version not in (b"HTTP/1.0", b"HTTP/1.1") and not sketch.values(b"host"),
        b"GET / HTTP/1.2\r\nX-A: b\r\n\r\n",
    ),
    Difference(
        "two Hosts are refused",
        ("llhttp",),
        "only wizgy refuses",
        "RFC 9112 section 3.2: a server must refuse more than one Host. llhttp leaves it to its user.",
        lambda sketch: len(sketch.values(b"host")) > 1,
        GET + HOST + b"\r\n",
    ),
    Difference(
        "a malformed Host is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9112 section 3.2: a server must refuse an invalid Host. Both oracles leave it to their user.",
        lambda sketch: any(value and not _is_host(value) for value in sketch.values(b"host")),
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ),
    Difference(
        "two Content-Lengths are refused even when they agree",
        ("h11",),
        "only wizgy refuses",
        "RFC 9112 section 6.3: a list of equal values may be taken as one or refused; refusing is the safe one.",
        lambda sketch: len([v for x in sketch.values(b"content-length") for v in x.split(b",")]) > 1,
        GET + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    ),
    Difference(
        "a Content-Length of more than 18 digits is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9110 section 8.6: a recipient must anticipate long numerals; 18 digits fit in 64 bits everywhere.",
        lambda sketch: any(len(value) > 18 for value in sketch.values(b"content-length")),
        GET + b"Content-Length: 0000000000000000001\r\n\r\na",
    ),
    Difference(
        "more fields than the limit are refused",
        BOTH,
        "only wizgy refuses",
        "RFC 6585 section 5: 431. The oracles set no limit to the number of fields.",
        lambda sketch: max(sketch.head.count(b"\n") - 2, sketch.trailers.count(b"\n") - 1) > LIMITS.header_count,
        GET + b"X-A: b\r\n" * LIMITS.header_count + b"\r\n",
    ),
    Difference(
        "content larger than the limit is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9110 section 15.5.14: 413. The oracles set no limit.",
        _is_too_large,
        GET + b"Content-Length: 99999999999\r\n\r\n",
    ),
    Difference(
        "Transfer-Encoding with Content-Length is refused",
        ("h11",),
        "only wizgy refuses",
        "RFC 9112 section 6.3: a server may refuse both together, and should take it for an attack.",
        lambda sketch: bool(sketch.values(b"content-length") and sketch.values(b"transfer-encoding")),
        GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "Transfer-Encoding in HTTP/1.0 is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9112 section 6.1: a server must treat the framing of such a message as faulty.",
        lambda sketch: sketch.version == b"HTTP/1.0" and bool(sketch.values(b"transfer-encoding")),
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "a transfer coding besides chunked is refused",
        ("llhttp",),
        "only wizgy refuses",
        "RFC 9112 section 6.1: 501 for a transfer coding that a server does not understand. llhttp decodes the "
        "chunks and leaves the rest to its user.",
        lambda sketch: [value.lower() for value in sketch.values(b"transfer-encoding")] not in ([], [b"chunked"]),
        GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "two Content-Types are refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9110 section 5.3: only list fields may come twice, and Content-Type is none; joined, it means "
        "something else to each reader. Both oracles leave it to their user.",
        lambda sketch: len(sketch.values(b"content-type")) > 1,
        GET + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    ),
    Difference(
        "an unknown expectation is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9110 section 10.1.1: 417 for any expectation but 100-continue. Both oracles leave it to their user.",
        lambda sketch: bool(sketch.options(b"expect") - {b"100-continue", b""}),
        GET + b"Expect: a\r\n\r\n",
    ),
    Difference(
        "a chunk-size of more than 16 digits is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9112 section 7.1: a recipient must anticipate large hexadecimal numerals; 16 digits are 64 bits.",
        lambda sketch: any(len(chunk.size) > 16 for chunk in sketch.chunks),
        CHUNKED + b"00000000000000001\r\na\r\n0\r\n\r\n",
    ),
    Difference(
        "a malformed chunk extension is refused",
        BOTH,
        "only wizgy refuses",
        "RFC 9112 section 7.1.1 has the grammar; h11 drops whatever follows a ';' and white space at the end, and "
        "llhttp lets a name or value be empty.",
        _has_bad_extension,
        CHUNKED + b"1;a=\r\na\r\n0\r\n\r\n",
    ),
    Difference(
        "one CRLF before the request line is ignored",
        ("h11",),
        "only wizgy accepts",
        "RFC 9112 section 2.2: a server should ignore at least one; old clients send it after a body.",
        lambda sketch: sketch.lead == b"\r\n",
        b"\r\n" + GET + b"\r\n",
    ),
    Difference(
        "any method that is a token is accepted",
        ("llhttp",),
        "only wizgy accepts",
        "RFC 9110 section 9.1: methods are a registry that grows, so an application decides. llhttp has a list.",
        lambda sketch: sketch.method not in LLHTTP_METHODS,
        b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "a later minor version is accepted",
        ("llhttp",),
        "only wizgy accepts",
        "RFC 9110 section 6.2: a message of a higher minor version is processed as of the highest known one.",
        lambda sketch: re.fullmatch(rb"HTTP/1\.[2-9]", sketch.version) is not None,
        b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    ),
    Difference(
        "white space around the ';' and '=' of a chunk extension is accepted",
        BOTH,
        "only wizgy accepts",
        "RFC 9112 section 7.1.1: chunk-ext has BWS there, which a recipient must parse for (RFC 9110 section 5.6.3).",
        _has_space_before_extension,
        CHUNKED + b"1 ;a\r\na\r\n0\r\n\r\n",
    ),
    Difference(
        "a framing field in the trailer section is dropped",
        BOTH,
        "only wizgy accepts",
        "RFC 9110 section 6.5.1: such fields must not be sent and are to be ignored; wizgy drops all trailers.",
        lambda sketch: bool(_trailer_names(sketch) & FRAMING_NAMES),
        CHUNKED + b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
    ),
    Difference(
        "a tab after the transfer coding is trimmed",
        ("llhttp",),
        "only wizgy accepts",
        "RFC 9112 section 5.1: optional white space around a field value is no part of it.",
        lambda sketch: re.search(rb"(?i)\ntransfer-encoding:[^\n]*\t *\r\n", sketch.head) is not None,
        GET + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "HTTP/1.0 with keep-alive is kept open",
        ("h11",),
        "persistence",
        "RFC 9112 section 9.3: a server may keep it open when asked to; h11 never does.",
        lambda sketch: sketch.version == b"HTTP/1.0" and b"keep-alive" in sketch.options(b"connection"),
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ),
    Difference(
        "close wins over keep-alive in HTTP/1.0",
        ("llhttp",),
        "persistence",
        "RFC 9112 section 9.3: the close option, if present, comes before every other rule.",
        lambda sketch: sketch.version == b"HTTP/1.0" and {b"keep-alive", b"close"} <= sketch.options(b"connection"),
        b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    ),
    Difference(
        "Connection in the trailer section is dropped",
        ("llhttp",),
        "persistence",
        "RFC 9110 section 6.5.1: a trailer section has no field that is needed to handle the connection.",
        lambda sketch: b"connection" in _trailer_names(sketch),
        CHUNKED + b"0\r\nConnection: close\r\n\r\n",
    ),
    Difference(
        "Proxy-Connection has no meaning",
        ("llhttp",),
        "persistence",
        "RFC 9112 appendix C.2.2: it never had one in a standard; llhttp takes it for Connection.",
        lambda sketch: bool(sketch.values(b"proxy-connection")) or b"proxy-connection" in _trailer_names(sketch),
        GET + b"Proxy-Connection: close\r\n\r\n",
    ),
    Difference(
        "the value of Transfer-Encoding stays as it came",
        ("h11",),
        "message",
        "RFC 9112 section 7: the names of codings have no case, so 'Chunked' is understood; h11 rewrites it.",
        lambda sketch: any(value != value.lower() for value in sketch.values(b"transfer-encoding")),
        GET + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "an offer to upgrade changes nothing",
        ("llhttp",),
        "message",
        "RFC 9110 section 7.8: a server may ignore Upgrade; llhttp hands the connection on and reads no content.",
        lambda sketch: b"upgrade" in sketch.options(b"connection"),
        GET + b"Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n\r\na",
    ),
)


class Finding(NamedTuple):
    """A difference that was met: with which oracle, of which kind, and how both read the bytes."""

    oracle: str
    kind: Kind
    data: bytes
    ours: Reading
    theirs: Reading


def find_differences(data: bytes) -> Iterator[Finding]:
    """Read bytes with wizgy and every oracle, and yield what differs."""
    ours = read_wizgy(data)
    for oracle, read in ORACLES.items():
        theirs = read(data)
        if {ours.verdict, theirs.verdict} == {"incomplete", "refused"}:
            # A parser may await the end of a line or of a message before it judges it: give it one.
            for end in (b"\r\n\r\n", b"0\r\n\r\n"):
                yield from _compare(data + end, oracle, read_wizgy(data + end), read(data + end))
        else:
            yield from _compare(data, oracle, ours, theirs)


def _compare(data: bytes, oracle: str, ours: Reading, theirs: Reading) -> Iterator[Finding]:
    verdicts = (ours.verdict, theirs.verdict)
    kinds: list[Kind] = []
    if ours.verdict == "refused" and theirs.verdict != "refused":
        kinds.append("only wizgy refuses")
    elif theirs.verdict == "refused" and ours.verdict != "refused":
        kinds.append("only wizgy accepts")
    elif "accepted" in verdicts and ours.verdict != "refused":
        if ours.verdict == theirs.verdict and ours.keep_alive != theirs.keep_alive:
            kinds.append("persistence")
        if ours._replace(keep_alive=True) != theirs._replace(keep_alive=True):
            kinds.append("message")
    return (Finding(oracle, kind, data, ours, theirs) for kind in kinds)


def explain(finding: Finding) -> Difference | None:
    """The entry of the table that explains a finding, or None when it is news."""
    sketch = Sketch(finding.data)
    for difference in DIFFERENCES:
        if difference.kind == finding.kind and finding.oracle in difference.oracles and difference.bears_on(sketch):
            return difference
    return None


def find_unexplained(data: bytes) -> list[Finding]:
    """The differences that bytes bring out and that the table does not explain."""
    return [finding for finding in find_differences(data) if explain(finding) is None]
