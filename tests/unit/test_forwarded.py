"""Forwarded and X-Forwarded-*: what trusted proxies tell, and that nobody else has a say."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.errors import BadRequest
from wizgy.http.forwarded import (
    MOST_HOPS,
    NOBODY,
    Hop,
    Node,
    Origin,
    Trust,
    find_origin,
    parse_element,
    split_elements,
    split_host,
)
from wizgy.http.request import FORWARDED_FIELDS, is_forwarded

TRUST = Trust(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.77"])


def origin(**fields: str) -> Origin:
    """What a trusted peer tells with some fields; the names have ``_`` for ``-``."""
    values = {name.replace("_", "-"): value for name, value in fields.items()}
    return find_origin(values, FORWARDED_FIELDS, TRUST.includes)


def read(value: str) -> list[Hop]:
    """All that Forwarded tells; the hop that came last is the last."""
    return [parse_element(element) for element in split_elements(value)]


def x_for(value: str) -> Node | None:
    """The client that X-Forwarded-For tells."""
    return origin(x_forwarded_for=value).client


def test_trust() -> None:
    """Peers are trusted by address and network; those of a Unix socket by name only."""
    assert TRUST.includes("10.1.2.3")
    assert TRUST.includes("::ffff:10.1.2.3")
    assert TRUST.includes("2001:db8:1::5")
    assert TRUST.includes("192.0.2.77")
    assert not any(map(TRUST.includes, ["192.0.2.78", "2001:db8:2::5", "", "unknown", "10.1.2", "10.1.2.3:80"]))
    assert Trust(["unix"]).includes("")
    assert not Trust(["unix"]).includes("127.0.0.1")
    assert not Trust([]).includes("127.0.0.1")


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", ("203.0.113.9", "")),
        ("1.1.1.1, 203.0.113.9", ("203.0.113.9", "")),
        ("1.1.1.1, 203.0.113.9, 10.0.0.1", ("203.0.113.9", "")),
        ("203.0.113.9,10.0.0.1 ,\t10.0.0.2", ("203.0.113.9", "")),
        ("10.0.0.9, 10.0.0.1", ("10.0.0.9", "")),
        ("203.0.113.9:4711", ("203.0.113.9", "4711")),
        ("2001:DB8::9", ("2001:db8::9", "")),
        ("[2001:db8::9]", ("2001:db8::9", "")),
        ("[2001:db8::9]:4711", ("2001:db8::9", "4711")),
        ("::ffff:203.0.113.9", ("203.0.113.9", "")),
        ("203.0.113.9, 2001:db8:1::7", ("203.0.113.9", "")),
        ("unknown", NOBODY),
        ("203.0.113.9, unknown, 10.0.0.1", NOBODY),
        ("203.0.113.9, _hidden", NOBODY),
        (", 203.0.113.9,, 10.0.0.1,", ("203.0.113.9", "")),
        ("garbage ;, 203.0.113.9", ("203.0.113.9", "")),
        ("", None),
        (", ,", None),
    ],
)
def test_way_back(value: str, client: tuple[str, str] | None) -> None:
    """The client is the first from the right that is not trusted; who stands before it has no say."""
    assert x_for(value) == client


@pytest.mark.parametrize(
    "value",
    [
        "localhost",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.09",
        "203.0.113.9/32",
        "203.0.113.9:",
        "203.0.113.9:65536",
        "203.0.113.9:http",
        "[203.0.113.9]",
        "[2001:db8::9",
        "2001:db8::9]",
        "2001:db8::9::1",
        "fe80::1%eth0",
        '"203.0.113.9"',
        "203.0.113.9 10.0.0.1",
        "garbage, 10.0.0.1",
        "_",
    ],
)
def test_malformed_for(value: str) -> None:
    """What a trusted proxy wrote is an address, unknown or obfuscated, or the request is refused."""
    with pytest.raises(BadRequest):
        x_for(value)


@pytest.mark.parametrize(
    ("value", "hops"),
    [
        ("for=192.0.2.43", [Hop(Node("192.0.2.43", ""), "", "", "for=192.0.2.43")]),
        ("For=192.0.2.43;PROTO=HTTPS", [Hop(Node("192.0.2.43", ""), "https", "", "For=192.0.2.43;PROTO=HTTPS")]),
        (
            'for="[2001:db8:cafe::17]:4711"',
            [Hop(Node("2001:db8:cafe::17", "4711"), "", "", 'for="[2001:db8:cafe::17]:4711"')],
        ),
        ('for="_gazonk"', [Hop(NOBODY, "", "", 'for="_gazonk"')]),
        ('for="unknown:_port"', [Hop(NOBODY, "", "", 'for="unknown:_port"')]),
        (
            'for=192.0.2.43, for="[2001:db8:cafe::17]"',
            [
                Hop(Node("192.0.2.43", ""), "", "", "for=192.0.2.43"),
                Hop(Node("2001:db8:cafe::17", ""), "", "", 'for="[2001:db8:cafe::17]"'),
            ],
        ),
        (
            'for=192.0.2.60; proto=http ;by=203.0.113.43;host="example.org:81"',
            [
                Hop(
                    Node("192.0.2.60", ""),
                    "http",
                    "example.org:81",
                    'for=192.0.2.60; proto=http ;by=203.0.113.43;host="example.org:81"',
                )
            ],
        ),
        ('for="192.0.2.\\43:80"', [Hop(Node("192.0.2.43", "80"), "", "", 'for="192.0.2.\\43:80"')]),
        (
            'secret="a,b;c\\"d", proto=http',
            [Hop(None, "", "", 'secret="a,b;c\\"d"'), Hop(None, "http", "", "proto=http")],
        ),
        (", ;for=192.0.2.43;,,", [Hop(Node("192.0.2.43", ""), "", "", ";for=192.0.2.43;")]),
        ("for=192.0.2.43;", [Hop(Node("192.0.2.43", ""), "", "", "for=192.0.2.43;")]),
        ("", []),
        (" , ", []),
    ],
)
def test_forwarded(value: str, hops: list[Hop]) -> None:
    """Forwarded is read as its grammar says: names in any case, quoted strings, several hops (RFC 7239 section 4)."""
    assert read(value) == hops


@pytest.mark.parametrize(
    "value",
    [
        "192.0.2.43",
        "for",
        "for=",
        "for =192.0.2.43",
        "for= 192.0.2.43",
        "for=192.0.2.43 proto=http",
        "for=192.0.2.43:80",
        "for=[2001:db8::1]",
        'for="2001:db8::1"',
        'for="[2001:db8::1"',
        'for="192.0.2.43',
        'for="192.0.2.43"x',
        'for="192.0.2.43\\"',
        "for=192.0.2.43;for=192.0.2.44",
        "for=192.0.2.43;FOR=192.0.2.43",
        "for=192.0.2.300",
        'for="192.0.2.43:70000"',
        'for="192.0.2.43:http"',
        "for=localhost",
        "proto=gopher",
        'proto=""x',
        "host=a/b",
        'host="a b"',
        "=x",
        "@=x",
        "for=192.0.2.43, @",
    ],
)
def test_malformed_forwarded(value: str) -> None:
    """What does not follow the grammar is refused (RFC 7239 section 4)."""
    with pytest.raises(BadRequest):
        read(value)


def test_forwarded_walks_back() -> None:
    """Scheme and host are those that the hop with the client tells, not those of a stranger or of a later hop."""
    found = origin(
        forwarded="for=6.6.6.6;proto=http;host=evil, for=203.0.113.9;proto=https;host=shop, for=10.0.0.1;proto=http"
    )
    assert found[:3] == (("203.0.113.9", ""), "https", "shop")
    assert found.fields == {"forwarded": "for=203.0.113.9;proto=https;host=shop, for=10.0.0.1;proto=http"}


def test_what_strangers_wrote_is_not_read() -> None:
    """What stands before the first hop that is not trusted counts for nothing, not even to refuse the request."""
    assert origin(forwarded="for=@;for=@, for=203.0.113.9, for=10.0.0.1").client == ("203.0.113.9", "")
    assert origin(x_forwarded_for="@, 203.0.113.9, 10.0.0.1").client == ("203.0.113.9", "")
    with pytest.raises(BadRequest, match="does not end"):
        origin(forwarded='for=", for=203.0.113.9')  # nobody can tell what stands before what


@pytest.mark.parametrize(("name", "member"), [("forwarded", "for=10.0.0.1"), ("x_forwarded_for", "10.0.0.1")])
def test_way_that_is_too_long(name: str, member: str) -> None:
    """Nobody can have thousands of made-up proxies looked at for one request."""
    client = member.replace("10.0.0.1", "203.0.113.9")
    assert origin(**{name: ", ".join([client, *[member] * (MOST_HOPS - 1)])}).client == ("203.0.113.9", "")
    with pytest.raises(BadRequest, match="more than 64"):
        origin(**{name: ", ".join([client, *[member] * MOST_HOPS])})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=6.6.6.6;host=evil, proto=https;host=shop", (None, "https", "shop")),
        ("for=6.6.6.6;host=evil, for=unknown;host=shop", (NOBODY, "", "shop")),
        ("for=10.0.0.9;host=shop, for=10.0.0.1", (("10.0.0.9", ""), "", "shop")),
    ],
)
def test_hop_that_does_not_tell(value: str, expected: tuple[object, ...]) -> None:
    """A hop whose client is not told, or hidden, ends the way back (RFC 7239 section 5.2)."""
    assert origin(forwarded=value)[:3] == expected


def test_all_fields() -> None:
    """X-Forwarded-* tells the scheme, host, port and prefix."""
    found = origin(
        x_forwarded_for="203.0.113.9",
        x_forwarded_proto="HTTPS",
        x_forwarded_host="shop.example:8443",
        x_forwarded_port="8443",
        x_forwarded_prefix="/caf%C3%A9/",
        x_forwarded_user="ann",
        user_agent="x",
    )
    assert found[:5] == (("203.0.113.9", ""), "https", "shop.example:8443", "8443", "/caf\xc3\xa9")
    assert found.fields["x-forwarded-user"] == "ann"
    assert "user-agent" not in found.fields


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("proto", "https, https", "https"),
        ("proto", "wss", "https"),
        ("proto", "ws", "http"),
        ("proto", "", ""),
        ("host", "[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("host", "a.example,a.example", "a.example"),
        ("port", "443", "443"),
        ("port", "00443", "443"),
        ("prefix", "/", ""),
        ("prefix", "/a/b", "/a/b"),
        ("prefix", "/a/", "/a"),
    ],
)
def test_value(name: str, value: str, expected: str) -> None:
    """One value, or several that are the same, count."""
    found = origin(**{f"x_forwarded_{name}": value})
    assert dict(zip(("proto", "host", "port", "prefix"), found[1:5], strict=True))[name] == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proto", "https, http"),
        ("proto", "ftp"),
        ("proto", "https://"),
        ("host", "a.example, b.example"),
        ("host", "a.example/x"),
        ("host", "user@a.example"),
        ("host", "a.example:port"),
        ("port", "0"),
        ("port", "65536"),
        ("port", "+443"),
        ("port", "\xb2"),
        ("port", "443, 80"),
        ("prefix", "a"),
        ("prefix", "//evil.example"),
        ("prefix", "/%2Fevil.example"),
        ("prefix", "/%5Cevil.example"),
        ("prefix", "/\\evil.example"),
        ("prefix", "/a//b"),
        ("prefix", "/a?b"),
        ("prefix", "/a#b"),
        ("prefix", "/a b"),
        ("prefix", "http://a.example/"),
    ],
)
def test_bad_value(name: str, value: str) -> None:
    """Values that are malformed or differ are refused: nothing tells which of them a stranger wrote."""
    with pytest.raises(BadRequest):
        origin(**{f"x_forwarded_{name}": value})


@pytest.mark.parametrize(
    ("forwarded", "field", "value", "agree"),
    [
        ("for=203.0.113.9", "for", "203.0.113.9", True),
        ('for="203.0.113.9:80"', "for", "203.0.113.9", True),
        ("for=_x", "for", "203.0.113.9", True),
        ("proto=https", "for", "203.0.113.9", True),
        ("for=203.0.113.9", "for", "203.0.113.10", False),
        ("proto=https", "proto", "https", True),
        ("proto=https", "proto", "http", False),
        ("for=203.0.113.9", "proto", "https", True),
        ("host=Shop.example", "host", "shop.example", True),
        ("host=shop.example", "host", "evil.example", False),
    ],
)
def test_both_families(forwarded: str, field: str, value: str, agree: bool) -> None:
    """Forwarded and X-Forwarded-* may complete each other, and may not differ."""
    fields = {"forwarded": forwarded, f"x_forwarded_{field}": value}
    if agree:
        assert origin(**fields)[:3] != (None, "", "")
    else:
        with pytest.raises(BadRequest):
            origin(**fields)


def test_what_is_kept() -> None:
    """What strangers wrote before the client is left out of the fields, and so is a field that proxies do not set."""
    values = {
        "forwarded": "for=6.6.6.6",
        "x-forwarded-for": "6.6.6.6, 203.0.113.9 ,10.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-user": "ann",
    }
    found = find_origin(values, ["x-forwarded-for"], TRUST.includes)
    assert found.fields == {"x-forwarded-for": "203.0.113.9, 10.0.0.1", "x-forwarded-user": "ann"}
    assert found.scheme == ""


def test_names() -> None:
    """The fields that tell of what was before the peer are known by name."""
    assert all(map(is_forwarded, [*FORWARDED_FIELDS, "x-forwarded-user", "x-forwarded-ssl"]))
    assert not any(map(is_forwarded, ["x-real-ip", "host", "via", "x-forwarded", "forwarded-for"]))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.example", ("a.example", "")),
        ("a.example:80", ("a.example", "80")),
        ("a.example:", ("a.example", "")),
        ("[::1]", ("[::1]", "")),
        ("[::1]:80", ("[::1]", "80")),
        ("", ("", "")),
    ],
)
def test_split_host(text: str, parts: tuple[str, str]) -> None:
    """A host and its port are told apart, with IPv6 addresses too (RFC 9110 section 7.2)."""
    assert split_host(text) == parts


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_text(text: str) -> None:
    """Any value is read or refused, and nothing else happens."""
    for name in FORWARDED_FIELDS:
        try:
            origin(**{name.replace("-", "_"): text})
        except BadRequest:
            pass


@given(st.text('for=;," \\\t_a1.', max_size=40))
def test_hops_are_kept_as_they_came(text: str) -> None:
    """The hops of a value that is read make the same hops again."""
    try:
        hops = read(text)
    except BadRequest:
        return
    again = read(", ".join(hop.text for hop in hops))
    assert again == hops


@pytest.mark.parametrize(
    "text", ["a=b;", "a=b,", ";", ",", " ", '"', 'for="\\a', "for=10.0.0.1,", "10.0.0.1, ", "a=" + "b" * 50]
)
def test_time_is_linear(text: str) -> None:
    """Eight times as much takes about eight times as long, and not sixty-four times."""

    def seconds(count: int) -> float:
        value = text * (count // len(text))
        best = 9.0
        for _ in range(3):
            began = time.perf_counter()
            for name in ("forwarded", "x_forwarded_for"):
                try:
                    origin(**{name: value})
                except BadRequest:
                    pass
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(64_000) < 30 * seconds(8_000) + 0.005
