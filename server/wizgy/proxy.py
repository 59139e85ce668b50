r"""The PROXY protocol, versions 1 and 2: who is behind a proxy that hands on bytes without reading them.

Rules of this file:

- A preamble is taken whole, whatever pieces it comes in, and is never longer than its version allows.
- Version 1 is one line of ASCII in exactly its grammar; version 2 is bytes whose lengths add up exactly. What is
  neither is an error, and the connection is of no more use.
- LOCAL, UNKNOWN and UNSPEC tell nothing of a client; addresses that stand beside them are ignored.
- Nothing here decides who may send a preamble.

Source: "The PROXY protocol", https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

from wizgy.http.forwarded import plain_address

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""What a preamble of version 2 begins with. No HTTP request and no TLS record does."""
LONGEST_LINE: Final = 107
"""Bytes of the longest line of version 1, with its CRLF."""
FIXED_PART: Final = 16
"""Bytes of version 2 before the addresses: signature, version and command, family, length."""

# The ABNF of version 1, with one space between the parts:
#   "PROXY" SP ( "TCP4" / "TCP6" ) SP address SP address SP port SP port CRLF
#   "PROXY" SP "UNKNOWN" *( any byte but CR and LF ) CRLF
# A port has no leading zero. What an address is, `ipaddress` says.
_PORT: Final = rb"(0|[1-9][0-9]{0,4})"
_line = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) " + _PORT + rb" " + _PORT)
_unknown_line = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")

_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = 0, 1, 2, 3
_ADDRESSES: Final = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}
"""Bytes of the addresses of each family."""
_TRANSPORTS: Final = (0, 1, 2)  # UNSPEC, STREAM, DGRAM

_TLV_CRC32C: Final = 0x03
_TLV_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01
"""The bit of the SSL entry that says that the client has TLS to the proxy."""


class MalformedPreamble(Exception):
    """What the connection began with is no preamble of the PROXY protocol."""


class Endpoint(NamedTuple):
    """One end of the client's connection to the proxy; both parts are empty for a Unix socket.

    Args:
        address: the IPv4 or IPv6 address, as text.
        port: the port, as text.
    """

    address: str
    port: str


class Preamble(NamedTuple):
    """A preamble, read.

    Args:
        size: how many bytes it took.
        source: the client, or None where the preamble tells of none.
        destination: what the client connected to, or None.
        secure: whether the client has TLS to the proxy.
    """

    size: int
    source: Endpoint | None = None
    destination: Endpoint | None = None
    secure: bool = False


def parse_preamble(data: bytes | bytearray) -> Preamble | None:
    """Read the preamble at the start of `data`, or None where more bytes are needed.

    Raises:
        MalformedPreamble: `data` begins otherwise.

    Source: "The PROXY protocol", section 2
    """
    if data[:1] == b"P":
        return _parse_line(data)
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise MalformedPreamble("It begins with no preamble of the PROXY protocol.")
    if len(data) < FIXED_PART:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command >> 4 != 2 or command & 0x0F not in (_LOCAL, _PROXY):
        raise MalformedPreamble("The version and command are neither LOCAL nor PROXY of version 2.")
    if family >> 4 not in _ADDRESSES or family & 0x0F not in _TRANSPORTS:
        raise MalformedPreamble("The family and transport are none of version 2.")
    size = FIXED_PART + length
    if len(data) < size:
        return None
    preamble = bytes(data[:size])
    return Preamble(size) if command & 0x0F == _LOCAL else _parse_binary(preamble, family >> 4)


def _parse_line(data: bytes | bytearray) -> Preamble | None:
    """Read version 1 (section 2.1)."""
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE or not _could_become_line(bytes(data)):
            raise MalformedPreamble("It begins with no line of the PROXY protocol.")
        return None
    line = bytes(data[:end])
    if _unknown_line.fullmatch(line):
        return Preamble(end + 2)
    match = _line.fullmatch(line)
    if match is None:
        raise MalformedPreamble("The line is not 'PROXY TCP4|TCP6 address address port port'.")
    version, source, destination, source_port, destination_port = (part.decode("ascii") for part in match.groups())
    return Preamble(
        end + 2,
        _endpoint(version, source, source_port),
        _endpoint(version, destination, destination_port),
    )


def _could_become_line(data: bytes) -> bool:
    """Whether bytes with no line end in them may be the start of a line: none waits for the rest of another."""
    return data[:6] == b"PROXY "[: len(data)] and b"\n" not in data


def _endpoint(version: str, address: str, port: str) -> Endpoint:
    kind = IPv4Address if version == "4" else IPv6Address
    try:
        ip = plain_address(kind(address))
    except AddressValueError:
        raise MalformedPreamble(f"An address is not one of IPv{version}.") from None
    if int(port) > 65535:
        raise MalformedPreamble("A port is above 65535.")
    return Endpoint(str(ip), port)


def _parse_binary(preamble: bytes, family: int) -> Preamble:
    """Read the PROXY command of version 2 (section 2.2)."""
    length = _ADDRESSES[family]
    if len(preamble) < FIXED_PART + length:
        raise MalformedPreamble("The preamble is shorter than the addresses of its family.")
    secure = False
    for kind, start, end in _entries(preamble, FIXED_PART + length):
        if kind == _TLV_CRC32C:
            _check_sum(preamble, start, end)
        elif kind == _TLV_SSL:
            if end - start < 5:  # one byte of bits, four of the result of the verification
                raise MalformedPreamble("The entry about TLS is too short.")
            secure = bool(preamble[start] & _CLIENT_SSL)
    source, destination = _addresses(preamble, family)
    return Preamble(len(preamble), source, destination, secure)


def _addresses(preamble: bytes, family: int) -> tuple[Endpoint | None, Endpoint | None]:
    if family == _UNSPEC:
        return None, None
    if family == _UNIX:
        return Endpoint("", ""), Endpoint("", "")
    layout, kind = ("!4s4sHH", IPv4Address) if family == _INET else ("!16s16sHH", IPv6Address)
    source, destination, source_port, destination_port = struct.unpack_from(layout, preamble, FIXED_PART)
    return (
        Endpoint(str(plain_address(kind(source))), str(source_port)),
        Endpoint(str(plain_address(kind(destination))), str(destination_port)),
    )


def _entries(preamble: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each type-length-value entry (section 2.2.2); they must fill the preamble."""
    while start < len(preamble):
        if start + 3 > len(preamble):
            raise MalformedPreamble("An entry is cut short.")
        kind, length = struct.unpack_from("!BH", preamble, start)
        start, end = start + 3, start + 3 + length
        if end > len(preamble):
            raise MalformedPreamble("An entry is longer than the preamble.")
        yield kind, start, end
        start = end


def _check_sum(preamble: bytes, start: int, end: int) -> None:
    """Compare the checksum with that of the preamble in which it is zero (section 2.2.3)."""
    if end - start != 4:
        raise MalformedPreamble("The checksum does not have four bytes.")
    if crc32c(preamble[:start] + bytes(4) + preamble[end:]) != int.from_bytes(preamble[start:end], "big"):
        raise MalformedPreamble("The checksum is not that of the preamble.")


def _crc32c_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C: Final = tuple(map(_crc32c_of_byte, range(256)))


def crc32c(data: bytes) -> int:
    """The checksum of some bytes.

    Source: RFC 3720 appendix B.4
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC32C[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
