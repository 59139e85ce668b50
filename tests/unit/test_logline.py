"""Lines of the access log: what is in them, and that a client cannot break them."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.http.request import HeadReader, Limits, RequestHead
from wizgy.logline import COMBINED, DIRECTIVES, Exchange, compile_format, escape, find_format, parse_trace_parent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def head_of(target: bytes = b"/", *lines: bytes) -> RequestHead:
    """A request head."""
    fields = b"".join(line + b"\r\n" for line in lines)
    head = HeadReader(Limits()).read(bytearray(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"))
    assert head is not None
    return head


@given(st.text(st.characters(max_codepoint=255)))
def test_escape(text: str) -> None:
    """Whatever a client sends stays one quoted string of one line, and no two texts look alike."""
    escaped = escape(text)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert '"' not in escaped
    assert re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), escaped) == text


def exchange(head: RequestHead | None = None, answer: bytes = b"") -> Exchange:
    """An exchange that took a little over a second, at the end of Nov 6, 1994, in the afternoon or so."""
    return Exchange(("1.2.3.4", "5"), head, 200, 7, 1.2345678, 784111777.5, "id-1", answer)


def test_combined_line() -> None:
    """The combined format is that of Apache httpd, with hostile bytes escaped (CVE-2020-7694)."""
    head = head_of(b'/a"\\?b', b'Referer: "\xe9', b"User-Agent: curl\\")
    line = find_format("combined")(exchange(head))
    stamp = r"\[0[5-7]/Nov/1994:\d\d:\d\d:37 [+-]\d{4}\]"
    rest = re.escape(r'"GET /a\x22\x5c?b HTTP/1.1" 200 7 "\x22\xe9" "curl\x5c"')
    assert re.fullmatch(rf"1\.2\.3\.4 - - {stamp} {rest}", line)
    assert find_format("common")(exchange(head)) == line.removesuffix(r' "\x22\xe9" "curl\x5c"')


def test_combined_line_of_no_head() -> None:
    """A request of which no head could be read, over a Unix socket, has its line too."""
    line = find_format("combined")(Exchange(("", ""), None, 400, 0, 0.0, 0.0))
    assert line.startswith("- - - [")
    assert line.endswith('] "-" 400 0 "-" "-"')


def test_json_line() -> None:
    """The JSON format is one object of one line, with the duration, the request's id and its trace."""
    head = head_of(b'/"', b"User-Agent: \xe9", b"Traceparent: " + TRACE.encode())
    line = find_format("json")(exchange(head))
    assert "\n" not in line
    record = json.loads(line)
    assert (record["target"], record["user_agent"], record["duration"]) == ('/"', "\xe9", 1.234568)
    assert (record["request_id"], record["traceparent"], record["remote_addr"]) == ("id-1", TRACE, "1.2.3.4")
    assert re.fullmatch(r"1994-11-0[5-7]T\d\d:\d\d:37[+-]\d\d:\d\d", record["time"])
    empty = json.loads(find_format("json")(Exchange(("", ""), None, 400, 0, 0.0, 0.0)))
    assert (empty["method"], empty["traceparent"], empty["status"]) == (None, None, 400)
    assert empty.keys() == record.keys()


TEXT = st.binary(max_size=30).map(lambda text: re.sub(rb"[\x00-\x20\x7f]", b"", text))


@given(TEXT, TEXT, TEXT, st.sampled_from(["combined", "json", '%h "%r" %U%q %m "%{X}i" "%{X}o" %{Content-Type}o']))
def test_any_request_is_one_line(target: bytes, agent: bytes, x: bytes, line_format: str) -> None:
    """Whatever a client and an application put into their fields, a request is one line of printable ASCII."""
    head = HeadReader(Limits()).read(
        bytearray(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " + agent + b"\r\nX: " + x + b"\r\n\r\n")
    )
    assert head is not None
    text = target.decode("latin-1")
    head = head._replace(line=head.line._replace(target=text, path=text, query=text))
    line = find_format(line_format)(exchange(head, b"200 OK\r\nX: " + x + b"\r\n"))
    assert line.isascii()
    assert line.isprintable()
    if line_format == "json":
        assert json.loads(line)["user_agent"] == head.fields.values["user-agent"]
    else:
        assert line.count('"') == line_format.replace("combined", COMBINED).count('"')


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("%h", "1.2.3.4"),
        ("%a", "1.2.3.4"),
        ("%l", "-"),
        ("%u", "-"),
        ("%r", "POST /a%20b?c=%22 HTTP/1.0"),
        ("%m", "POST"),
        ("%U", "/a%20b"),
        ("%q", "?c=%22"),
        ("%H", "HTTP/1.0"),
        ("%s", "200"),
        ("%>s", "200"),
        ("%b", "7"),
        ("%B", "7"),
        ("%D", "1234567"),
        ("%T", "1"),
        ("%{s}T", "1"),
        ("%{ms}T", "1234"),
        ("%{us}T", "1234567"),
        ("%L", "id-1"),
        ("%P", str(os.getpid())),
        ("%%", "%"),
        ("%{X-Forwarded-For}i", r"a\xe9"),
        ("%{x-missing}i", "-"),
        ("%{content-type}o", "text/plain"),
        ("%{X-Missing}o", "-"),
        ("%{200 OK}o", "-"),
        ("a%%h b\t%s100%%", "a%h b\t200100%"),
        ("{}%h%s{0}", "{}1.2.3.4200{0}"),
    ],
)
def test_directives(directive: str, expected: str) -> None:
    """Each directive means what it means to Apache httpd."""
    head = HeadReader(Limits()).read(bytearray(b"POST /a%20b?c=%22 HTTP/1.0\r\nX-Forwarded-For: a\xe9\r\n\r\n"))
    answer = b"200 OK\r\nX-A: 1\r\nContent-Type: text/plain\r\n"
    assert compile_format(directive)(exchange(head, answer)) == expected


def test_every_directive_stands_without_a_head() -> None:
    """A request of which no head could be read has a value for every directive."""
    line = compile_format("|".join([*DIRECTIVES, "%{X}i", "%{X}o"]))(Exchange(("", ""), None, 400, 0, 0.0, 0.0))
    assert line.count("|") == len(DIRECTIVES) + 1
    assert compile_format("%b")(Exchange(("", ""), None, 400, 0, 0.0, 0.0)) == "-"


@pytest.mark.parametrize(
    ("line_format", "expected"),
    [
        ("combind", "expected combined, common, json, or a format with directives"),
        ("", "expected combined"),
        ("%Z", "there is no directive %Z; expected %h"),
        ("%h %", "there is no directive %;"),
        ("%{}i", "there is no directive %{}i"),
        ("%{x}Z", "there is no directive %{x}Z"),
        ("%>h", "there is no directive %>h"),
        ("%h\n", "control characters"),
        ("%h\x1b[2J", "control characters"),
        (
            '%(h)s %(l)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %({x-y}i)s %(M)s',
            'expected %h %l %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %{x-y}i %{ms}T',
        ),
    ],
)
def test_bad_formats(line_format: str, expected: str) -> None:
    """A format that cannot be used is refused with what is expected; gunicorn's is shown in Apache's terms."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        compile_format(line_format)


@pytest.mark.parametrize("value", [TRACE, "cc-" + TRACE[3:], "01-" + TRACE[3:] + "-more.of=it"])
def test_trace_parent(value: str) -> None:
    """A valid traceparent is taken as it is, one of a later version too (W3C Trace Context section 3.2)."""
    assert parse_trace_parent(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        TRACE + "-more",
        "ff-" + TRACE[3:],
        TRACE.upper(),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        TRACE + "\n",
        "01-" + TRACE[3:] + '-"\x1b',
        TRACE + ", " + TRACE,
    ],
)
def test_bad_trace_parent(value: str | None) -> None:
    """Anything else is as if there were none (W3C Trace Context section 3.2)."""
    assert parse_trace_parent(value) is None


def test_time_moves_on() -> None:
    """The time of a line is that of its own second, whatever the second of the line before was."""
    write = compile_format("%t")
    for when in 0, 59, 1, 86400 * 400:
        stamp = write(exchange()._replace(when=when)).strip("[]")
        assert time.mktime(time.strptime(stamp.split()[0], "%d/%b/%Y:%H:%M:%S")) == when
