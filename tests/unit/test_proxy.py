"""The PROXY protocol: what its preambles say, and that no other beginning is taken for one."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wizgy.proxy import (
    FIXED_PART,
    LONGEST_LINE,
    SIGNATURE,
    Endpoint,
    MalformedPreamble,
    Preamble,
    crc32c,
    parse_preamble,
)

IPV4 = ip_address("192.0.2.1").packed + ip_address("198.51.100.2").packed + struct.pack("!HH", 5000, 443)
IPV6 = ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed + struct.pack("!HH", 5000, 443)
CLIENT = Endpoint("192.0.2.1", "5000")
SERVER = Endpoint("198.51.100.2", "443")


def version_2(rest: bytes, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    """A preamble of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def entry(kind: int, value: bytes) -> bytes:
    """A type-length-value entry."""
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(rest: bytes, change: int = 0) -> bytes:
    """A preamble of version 2 whose checksum is right, or wrong by `change`."""
    preamble = version_2(rest + entry(0x03, bytes(4)))
    return preamble[:-4] + struct.pack("!I", crc32c(preamble) ^ change)


GOOD = {
    "v1-tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n", CLIENT, SERVER, False),
    "v1-tcp6": (
        b"PROXY TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:2 5000 443\r\n",
        Endpoint("2001:db8::1", "5000"),
        Endpoint("2001:db8::2", "443"),
        False,
    ),
    "v1-mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 5000 443\r\n",
        CLIENT,
        SERVER,
        False,
    ),
    "v1-ports": (
        b"PROXY TCP4 192.0.2.1 198.51.100.2 0 65535\r\n",
        Endpoint("192.0.2.1", "0"),
        Endpoint("198.51.100.2", "65535"),
        False,
    ),
    "v1-longest": (
        b"PROXY UNKNOWN " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n",
        None,
        None,
        False,
    ),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None, None, False),
    "v1-unknown-with-anything": (b"PROXY UNKNOWN 192.0.2.1 \xff\x00 x\r\n", None, None, False),
    "v2-tcp4": (version_2(IPV4), CLIENT, SERVER, False),
    "v2-udp4": (version_2(IPV4, family=0x12), CLIENT, SERVER, False),
    "v2-tcp6": (
        version_2(IPV6, family=0x21),
        Endpoint("2001:db8::1", "5000"),
        Endpoint("2001:db8::2", "443"),
        False,
    ),
    "v2-unix": (
        version_2(b"/run/client".ljust(108, b"\0") * 2, family=0x31),
        Endpoint("", ""),
        Endpoint("", ""),
        False,
    ),
    "v2-unspec": (version_2(b"", family=0x00), None, None, False),
    "v2-unspec-with-entry": (version_2(entry(0x04, b"padding"), family=0x00), None, None, False),
    "v2-local": (version_2(b"", command=0x20, family=0x00), None, None, False),
    "v2-local-with-anything": (version_2(b"anything", command=0x20), None, None, False),
    "v2-entries": (
        version_2(IPV4 + entry(0x02, b"example.org") + entry(0x04, b"") + entry(0xEA, b"\x01vpce")),
        CLIENT,
        SERVER,
        False,
    ),
    "v2-tls": (version_2(IPV4 + entry(0x20, b"\x01\0\0\0\0" + entry(0x21, b"TLSv1.3"))), CLIENT, SERVER, True),
    "v2-no-tls": (version_2(IPV4 + entry(0x20, b"\x00\0\0\0\0")), CLIENT, SERVER, False),
    "v2-checksum": (with_checksum(IPV4), CLIENT, SERVER, False),
    "v2-largest": (version_2(IPV4 + entry(0xE0, bytes(65535 - 12 - 3))), CLIENT, SERVER, False),
}

BAD = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-post": b"POST / HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "v1-bare-line-feed": b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\n",
    "v1-bare-line-feed-inside": b"PROXY TCP4 192.0.2.1\n198.51.100.2 5000 443\r\n",
    "v1-lower-case": b"proxy TCP4 192.0.2.1 198.51.100.2 5000 443\r\n",
    "v1-two-spaces": b"PROXY TCP4  192.0.2.1 198.51.100.2 5000 443\r\n",
    "v1-space-at-end": b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 \r\n",
    "v1-no-addresses": b"PROXY TCP4\r\n",
    "v1-other-family": b"PROXY TCP6 192.0.2.1 198.51.100.2 5000 443\r\n",
    "v1-other-protocol": b"PROXY UDP4 192.0.2.1 198.51.100.2 5000 443\r\n",
    "v1-unknownish": b"PROXY UNKNOWNS\r\n",
    "v1-address-too-large": b"PROXY TCP4 192.0.2.256 198.51.100.2 5000 443\r\n",
    "v1-leading-zero": b"PROXY TCP4 192.0.2.01 198.51.100.2 5000 443\r\n",
    "v1-name": b"PROXY TCP4 localhost 198.51.100.2 5000 443\r\n",
    "v1-zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 5000 443\r\n",
    "v1-port-too-large": b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
    "v1-port-with-zero": b"PROXY TCP4 192.0.2.1 198.51.100.2 05000 443\r\n",
    "v1-port-with-sign": b"PROXY TCP4 192.0.2.1 198.51.100.2 +5000 443\r\n",
    "v1-too-long": b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 15) + b"\r\n",
    "v1-endless": b"PROXY UNKNOWN " + b"x" * 200,
    "v2-bad-signature": b"\r\n\r\n\x00\r\nQUIT\r" + version_2(IPV4)[12:],
    "v2-version-1": version_2(IPV4, command=0x11),
    "v2-version-3": version_2(IPV4, command=0x31),
    "v2-bad-command": version_2(IPV4, command=0x22),
    "v2-bad-family": version_2(IPV4, family=0x41),
    "v2-bad-transport": version_2(IPV4, family=0x13),
    "v2-short": version_2(IPV4[:-1]),
    "v2-short-ipv6": version_2(IPV4, family=0x21),
    "v2-short-unix": version_2(bytes(215), family=0x31),
    "v2-cut-entry": version_2(IPV4 + b"\x04\x00"),
    "v2-long-entry": version_2(IPV4 + b"\x04\x00\x02x"),
    "v2-short-tls": version_2(IPV4 + entry(0x20, b"\x01\0\0\0")),
    "v2-short-checksum": version_2(IPV4 + entry(0x03, b"abc")),
    "v2-wrong-checksum": with_checksum(IPV4, 1),
}


def parse_in_pieces(data: bytes, cuts: list[int]) -> Preamble | None:
    """Read a preamble that comes in pieces, as a connection does: again from its start after each piece."""
    found = None
    for cut in [*sorted(cuts), len(data)]:
        found = parse_preamble(bytearray(data[:cut]))
        if found is not None:
            break
    return found


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    """Each form of a preamble says who the client is, and ends where it says (sections 2.1 and 2.2)."""
    data, source, destination, secure = GOOD[name]
    preamble = parse_preamble(data + b"GET / HTTP/1.1\r\n")
    assert preamble is not None
    assert preamble == (len(data), source, destination, secure)


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    """What follows no grammar of a preamble is refused (section 2)."""
    with pytest.raises(MalformedPreamble):
        parse_preamble(BAD[name])


@pytest.mark.parametrize("name", [name for name in GOOD if name != "v2-largest"])
def test_every_beginning_of_a_good_one(name: str) -> None:
    """A preamble that is not whole yet is neither taken nor refused, wherever it is cut."""
    data = GOOD[name][0]
    whole = parse_preamble(data)
    for cut in range(len(data)):
        assert parse_preamble(data[:cut]) is None
    assert parse_in_pieces(data, list(range(len(data)))) == whole


@pytest.mark.parametrize("name", BAD)
def test_every_cut_of_a_bad_one(name: str) -> None:
    """A malformed preamble is refused however it is cut."""
    data = BAD[name]
    with pytest.raises(MalformedPreamble):
        parse_in_pieces(data, list(range(len(data))))


def test_longest_line() -> None:
    """A line of version 1 has 107 bytes at most, and one that long is taken (section 2.1)."""
    line = b"PROXY UNKNOWN ".ljust(LONGEST_LINE - 2, b"x") + b"\r\n"
    assert parse_preamble(line) == Preamble(LONGEST_LINE)
    with pytest.raises(MalformedPreamble):
        parse_preamble(line[:-2] + b"xx")


def test_checksum_of_the_rfc() -> None:
    """The checksum is CRC32C; the values are those of RFC 3720 appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 240), max_size=4), st.sampled_from([b"", SIGNATURE, b"PROXY "]))
def test_any_bytes(data: bytes, cuts: list[int], start: bytes) -> None:
    """Any bytes are a preamble, the start of one or refused, the same however they are cut."""
    data = start + data

    def outcome(cuts: list[int]) -> Preamble | str | None:
        try:
            return parse_in_pieces(data, cuts)
        except MalformedPreamble:
            return "malformed"

    assert outcome(cuts) == outcome([])


@settings(deadline=None)
@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65535))
def test_both_versions_agree(source: object, destination: object, port: int) -> None:
    """Version 1 and version 2 tell the same."""
    if type(source) is not type(destination):
        destination = source
    number = 6 if isinstance(source, IPv6Address) else 4
    line = f"PROXY TCP{number} {source} {destination} {port} 443\r\n".encode()
    packed = source.packed + destination.packed + struct.pack("!HH", port, 443)  # type: ignore[attr-defined]
    binary = version_2(packed, family=0x21 if number == 6 else 0x11)
    one, two = parse_preamble(line), parse_preamble(binary)
    assert one is not None
    assert two is not None
    assert (one.source, one.destination) == (two.source, two.destination)
    assert len(binary) == FIXED_PART + len(packed)
