"""What the access log says of one request: the combined format, JSON, or a format of one's own.

Rules of this file:

- One request is one line of ASCII, whatever the client put into it: control bytes, quotes and backslashes are
  escaped.
- A format that cannot be used is refused when the server starts.

Source: https://httpd.apache.org/docs/2.4/mod/mod_log_config.html for the directives.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from wizgy import standard
from wizgy.http.request import RequestHead
from wizgy.primitives import clock

COMMON: Final = '%h %l %u %t "%r" %>s %B'
COMBINED: Final = COMMON + ' "%{Referer}i" "%{User-Agent}i"'
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NOTHING: Final = "-"
"""What stands for a value that there is not."""


class Exchange(NamedTuple):
    """One request and its answer.

    Args:
        client: the client's address and port.
        head: the request head, or None where none could be read.
        status: the answer's status code, or 0 where the client was gone before there was one.
        content_sent: bytes of content that were sent.
        duration: seconds from the end of the request head to the end of the application's work.
        when: the end of it, in seconds since the epoch.
        request_id: the id of the request.
        answer: status line and field lines of the application's answer, or nothing.
    """

    client: tuple[str, str]
    head: RequestHead | None
    status: int
    content_sent: int
    duration: float
    when: float
    request_id: str = ""
    answer: bytes = b""


LineFormat = Callable[[Exchange], str]

_unsafe = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_trace_parent = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,128})?")
_directive = re.compile(r"%(?P<form>[<>]?)(?:\{(?P<argument>[^{}]*)\})?(?P<letter>[A-Za-z%])")
_gunicorn_directive = re.compile(r"%\(([^()]*)\)s")
_gunicorn_letters = {"M": "%{ms}T", "L": "%T", "p": "%P", "f": "%{Referer}i", "a": "%{User-Agent}i", "s": "%>s"}
"""Those that mean something else to gunicorn."""


def escape(text: str) -> str:
    """Escape all that could end a quoted string or a line."""
    return _unsafe.sub(_escape_match, text) if _unsafe.search(text) else text


def _escape_match(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def parse_trace_parent(value: str | None) -> str | None:
    """The value of a ``traceparent`` field, or None where there is none that is valid.

    Source: W3C Trace Context section 3.2
    """
    if value is None or _trace_parent.fullmatch(value) is None or (value.startswith("00") and len(value) != 55):
        return None
    return value


class Clock:
    """Times as text, made anew once a second.

    Args:
        make: text from a `time.struct_time`, and the offset from UTC as ``+0000``.
    """

    def __init__(self, make: Callable[[time.struct_time, str], str]) -> None:
        self._make = make
        self._last = (-1, "")  # one object, so that threads see both or neither

    def show(self, when: float) -> str:
        """The text of a time in seconds since the epoch, in the local zone."""
        second = int(when)
        last, text = self._last
        if last != second:
            local = clock.localtime(second)
            text = self._make(local, clock.strftime("%z", local))
            self._last = (second, text)
        return text


def _make_stamp(local: time.struct_time, zone: str) -> str:
    month = MONTHS[local.tm_mon - 1]  # not of the locale
    return f"[{local.tm_mday:02d}/{month}/{clock.strftime('%Y:%H:%M:%S', local)} {zone}]"


def make_iso_time(local: time.struct_time, zone: str) -> str:
    """A time as RFC 3339 has it."""
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', local)}{zone[:3]}:{zone[3:]}"


_stamp = Clock(_make_stamp)
_iso_time = Clock(make_iso_time)


def _request_line(exchange: Exchange) -> str:
    head = exchange.head
    if head is None:
        return NOTHING
    line = head.line
    return escape(f"{line.method} {line.target} HTTP/1.{line.minor}")


def _method(exchange: Exchange) -> str:
    return exchange.head.line.method if exchange.head else NOTHING


def _path(exchange: Exchange) -> str:
    return escape(exchange.head.line.path) if exchange.head else NOTHING


def _query(exchange: Exchange) -> str:
    return escape(f"?{exchange.head.line.query}") if exchange.head and exchange.head.line.query else ""


def _protocol(exchange: Exchange) -> str:
    return f"HTTP/1.{exchange.head.line.minor}" if exchange.head else NOTHING


DIRECTIVES: Final[dict[str, tuple[str, LineFormat]]] = {
    "%h": ("address of the client", lambda exchange: exchange.client[0] or NOTHING),
    "%a": ("address of the client", lambda exchange: exchange.client[0] or NOTHING),
    "%l": ("always `-`", lambda exchange: NOTHING),
    "%u": ("always `-`: it is the application that knows its users", lambda exchange: NOTHING),
    "%t": (
        "time of the end of the request, as in `[10/Oct/2025:13:55:36 +0200]`",
        lambda exchange: _stamp.show(exchange.when),
    ),
    "%r": ("request line", _request_line),
    "%m": ("method", _method),
    "%U": ("path, as it came", _path),
    "%q": ("query with its `?`, or nothing", _query),
    "%H": ("protocol", _protocol),
    "%s": ("status of the answer; 0 where the client was gone before", lambda exchange: str(exchange.status)),
    "%>s": ("status of the answer; 0 where the client was gone before", lambda exchange: str(exchange.status)),
    "%B": ("bytes of content that were sent", lambda exchange: str(exchange.content_sent)),
    "%b": (
        "bytes of content that were sent, `-` for none",
        lambda exchange: str(exchange.content_sent or NOTHING),
    ),
    "%D": ("duration in microseconds", lambda exchange: str(int(exchange.duration * 1e6))),
    "%{us}T": ("duration in microseconds", lambda exchange: str(int(exchange.duration * 1e6))),
    "%{ms}T": ("duration in milliseconds", lambda exchange: str(int(exchange.duration * 1e3))),
    "%T": ("duration in seconds", lambda exchange: str(int(exchange.duration))),
    "%{s}T": ("duration in seconds", lambda exchange: str(int(exchange.duration))),
    "%L": ("id of the request", lambda exchange: exchange.request_id or NOTHING),
    "%P": ("id of the worker process", lambda exchange: str(os.getpid())),
    "%%": ("a percent sign", lambda exchange: "%"),
}
"""The directives that stand for one value each: what it is, and how it is found."""


def _request_field(name: str) -> LineFormat:
    key = name.lower()
    return lambda exchange: escape(exchange.head.fields.values.get(key) or NOTHING) if exchange.head else NOTHING


def _answer_field(name: str) -> LineFormat:
    # The first line is the status line; field lines are name, colon, space, value.
    line = re.compile(rb"\r\n" + re.escape(name.encode()) + rb": ([^\r]*)", re.IGNORECASE)

    def find(exchange: Exchange) -> str:
        match = line.search(exchange.answer)
        return escape(match[1].decode("latin-1") or NOTHING) if match else NOTHING

    return find


def compile_format(line_format: str) -> LineFormat:
    """Make a function that writes lines of a format.

    Args:
        line_format: text with directives.

    Raises:
        ValueError: a directive is unknown, or there is none, or the format is more than a line.
    """
    if not line_format.replace("\t", " ").isprintable():
        raise ValueError("expected a format of one line, with no control characters but tabs")
    if _gunicorn_directive.search(line_format):
        translated = _gunicorn_directive.sub(_translate_gunicorn, line_format)
        raise ValueError(f"directives are written as Apache httpd has them; expected {translated}")
    literals: list[str] = []
    values: list[LineFormat] = []
    end = 0
    for match in re.finditer("%", line_format):
        if match.start() < end:
            continue  # the second of %%
        found = _directive.match(line_format, match.start())
        values.append(_find_directive(line_format[match.start() :], found))
        literals.append(line_format[end : match.start()])
        assert found is not None
        end = found.end()
    if not values:
        raise ValueError("expected combined, common, json, or a format with directives, such as '%h \"%r\" %>s %B'")
    template = "%s".join(literal.replace("%", "%%") for literal in [*literals, line_format[end:]])
    return lambda exchange: template % tuple([value(exchange) for value in values])


def _translate_gunicorn(match: re.Match[str]) -> str:
    name = match[1]
    return _gunicorn_letters.get(name, f"%{name}")


def _find_directive(rest: str, match: re.Match[str] | None) -> LineFormat:
    if match is not None:
        if match[0] in DIRECTIVES:
            return DIRECTIVES[match[0]][1]
        if match["argument"] and not match["form"] and match["letter"] in ("i", "o"):
            return _request_field(match["argument"]) if match["letter"] == "i" else _answer_field(match["argument"])
    came = match[0] if match else rest[:5]
    raise ValueError(f"there is no directive {came}; expected {' '.join(DIRECTIVES)} %{{Field}}i %{{Field}}o")


def find_format(name: str) -> LineFormat:
    """The function that writes lines of a format.

    Args:
        name: ``combined``, ``common``, ``json``, or text with directives.

    Raises:
        ValueError: text with directives that cannot be used.
    """
    if name == "json":
        return make_json_format()
    return compile_format({"combined": COMBINED, "common": COMMON}.get(name, name))


def takes_id(name: str) -> bool:
    """Whether the id of the request is in a line of a format."""
    return name == "json" or any(match[0] == "%L" for match in _directive.finditer(name))


def takes_answer(name: str) -> bool:
    """Whether fields of the answer are in a line of a format."""
    return any(match["letter"] == "o" and match["argument"] for match in _directive.finditer(name))


def make_json_format() -> LineFormat:
    """Make a function that writes one JSON object a request."""
    quote = standard.json.encoder.encode_basestring_ascii

    def quote_or_null(value: str | None) -> str:
        return "null" if value is None else quote(value)

    # Put together by hand, which takes half the time of making a dict and encoding that.
    def write(exchange: Exchange) -> str:
        head = exchange.head
        fields: Mapping[str, str] = head.fields.values if head else {}
        find = fields.get
        if head is None:
            request = '"method": null, "target": null, "protocol": null'
        else:
            line = head.line
            request = (
                f'"method": {quote(line.method)}, "target": {quote(line.target)}, "protocol": "HTTP/1.{line.minor}"'
            )
        return (
            f'{{"time": "{_iso_time.show(exchange.when)}", "remote_addr": {quote(exchange.client[0])}, {request}, '
            f'"status": {exchange.status}, "content_length": {exchange.content_sent}, '
            f'"duration": {exchange.duration:.6f}, "referer": {quote_or_null(find("referer"))}, '
            f'"user_agent": {quote_or_null(find("user-agent"))}, "request_id": {quote(exchange.request_id)}, '
            f'"traceparent": {quote_or_null(parse_trace_parent(find("traceparent")))}}}'
        )

    return write
