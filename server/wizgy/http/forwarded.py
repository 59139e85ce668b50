"""Where a request came from before it came here, as trusted proxies tell it: Forwarded and X-Forwarded-*.

Rules of this file:

- RFC 7239 section 8.1: what a peer says of others counts only where the peer is trusted.
- The way is walked back from the peer, hop by hop, while the hops are trusted. The first that is not is the client;
  what it says of those before it counts for nothing, and is left out of what is kept.
- RFC 7239 section 5.2: a client that is ``unknown`` or has an obfuscated identifier has no address.
- X-Forwarded-Proto, -Host, -Port and -Prefix do not tell which hop wrote them, so several values have to agree.
- Forwarded and X-Forwarded-* have to agree with each other, and what a trusted proxy wrote with the grammar: what
  can be read in two ways is refused, as one of the two is the client's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from wizgy.errors import BadRequest
from wizgy.http import grammar
from wizgy.http.request import FORWARDED_FIELDS, is_forwarded

FORWARDED, FOR, PROTO, HOST, PORT, PREFIX = FORWARDED_FIELDS

UNIX: Final = "unix"
"""Stands for the peers of a Unix socket where networks are listed."""
SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""What a proxy may say of the scheme, and what it means: some name a WebSocket's handshake so."""
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

MOST_HOPS: Final = 64
"""Trusted proxies that a request may have passed. More of them only a client makes up, to have them all looked at."""

_unescape = re.compile(rb"\\(.)")


class Node(NamedTuple):
    """One end of a hop (RFC 7239 section 6); both parts are empty for one that is not told.

    Args:
        address: an IPv4 or IPv6 address, as text.
        port: a port, as text, or nothing.
    """

    address: str
    port: str


NOBODY: Final = Node("", "")


class Hop(NamedTuple):
    """What one proxy says of the request that it received (RFC 7239 section 4).

    Args:
        client: who made it, or None where it does not say.
        scheme: ``http``, ``https`` or nothing.
        host: its Host, or nothing.
        text: all of it, as it came, without white space around it.
    """

    client: Node | None
    scheme: str
    host: str
    text: str


_NO_HOP: Final = Hop(None, "", "", "")


class Origin(NamedTuple):
    """A request as the first trusted proxy received it; what is not told is empty.

    Args:
        client: who made it, or None.
        scheme: ``http``, ``https`` or nothing.
        host: ``host[:port]`` or nothing.
        port: the port that it came to, or nothing.
        prefix: the path, percent-decoded, that a proxy took off its front.
        fields: the fields that tell so, by lower-case name, without what strangers wrote into them.
    """

    client: Node | None
    scheme: str
    host: str
    port: str
    prefix: str
    fields: dict[str, str]


class Trust:
    """Whom to believe.

    Args:
        networks: addresses, networks and `UNIX`, as `parse_network` takes them.
    """

    def __init__(self, networks: Collection[str]) -> None:
        self._unix = UNIX in networks
        self._networks = [parse_network(text) for text in networks if text != UNIX]
        self.includes: Callable[[str], bool] = lru_cache(1024)(self._includes)
        """Whether the peer of that address is trusted; the address of the peer of a Unix socket is empty."""

    def _includes(self, address: str) -> bool:
        if not address:
            return self._unix
        try:
            ip = plain_address(ip_address(address))
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read an address or a network in CIDR notation.

    Raises:
        ValueError: it is neither, or its host bits are set.

    Source: RFC 4632 section 3.1
    """
    return ip_network(text)


def plain_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address in an IPv6 address that only wraps one (RFC 4291 section 2.5.5.2), else the same."""
    return getattr(address, "ipv4_mapped", None) or address


def find_origin(values: Mapping[str, str], names: Collection[str], trusts: Callable[[str], bool]) -> Origin:
    """Tell where a request of a trusted peer came from.

    Args:
        values: its fields by lower-case name.
        names: those of `FORWARDED_FIELDS` that the proxies are known to set; others of these count for nothing.
        trusts: tells whether an address is trusted.

    Raises:
        BadRequest: a field that a trusted proxy wrote is malformed, or two of them differ.

    Source: RFC 7239
    """
    told = {name: values[name] for name in FORWARDED_FIELDS if name in names and values.get(name)}
    hop = _NO_HOP
    client = None
    if FORWARDED in told:
        hop, told[FORWARDED] = _walk_forwarded(told[FORWARDED], trusts)
        client = hop.client
    if FOR in told:
        node, told[FOR] = _walk_for(told[FOR], trusts)
        client = _agree_on_client(hop.client, node)
    scheme = _agree(hop.scheme, parse_scheme(_only(told, PROTO)), "scheme")
    host = _agree(hop.host, parse_host(_only(told, HOST)), "host")
    port, prefix = parse_port(_only(told, PORT)), parse_prefix(_only(told, PREFIX))
    others = {name: value for name, value in values.items() if is_forwarded(name) and name not in FORWARDED_FIELDS}
    return Origin(client, scheme, host, port, prefix, {**others, **told})


def _walk_forwarded(value: str, trusts: Callable[[str], bool]) -> tuple[Hop, str]:
    """The hop that the client made, and the field without what was before it."""
    elements = split_elements(value)
    for number in _from_the_last(elements):
        hop = parse_element(elements[number])
        if number == 0 or hop.client is None or not hop.client.address or not trusts(hop.client.address):
            return hop, ", ".join(elements[number:])
    return _NO_HOP, value


def _walk_for(value: str, trusts: Callable[[str], bool]) -> tuple[Node | None, str]:
    """The client of X-Forwarded-For, and the field without what was before it."""
    members = [member for member in (part.strip(" \t") for part in value.split(",")) if member]
    for number in _from_the_last(members):
        node = parse_member(members[number])
        if number == 0 or not node.address or not trusts(node.address):
            return node, ", ".join(members[number:])
    return None, value


def _from_the_last(members: Sequence[str]) -> Iterator[int]:
    """The places of a list, backwards.

    Raises:
        BadRequest: nobody has stopped after `MOST_HOPS`.
    """
    for count, number in enumerate(range(len(members) - 1, -1, -1)):
        if count == MOST_HOPS:
            raise BadRequest(f"The request has passed more than {MOST_HOPS} trusted proxies.")
        yield number


def split_elements(value: str) -> list[str]:
    """Split Forwarded into what each proxy has added; the last comes last. Only quotes are looked at.

    Raises:
        BadRequest: a quoted string does not end.

    Source: RFC 7239 section 4, RFC 9110 section 5.6.1
    """
    data = value.encode("latin-1")
    if not grammar.forwarded.fullmatch(data):
        raise BadRequest("A quoted string in Forwarded does not end.")
    elements = grammar.forwarded_element.findall(data)
    return [element.strip(b" \t").decode("latin-1") for element in elements if element.strip(b" \t;")]


def parse_element(text: str) -> Hop:
    """Read an element of Forwarded.

    Raises:
        BadRequest: it does not follow the grammar.

    Source: RFC 7239 section 4
    """
    data = text.encode("latin-1")
    pairs: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        match = grammar.forwarded_pair.match(data, position)
        if match is None:
            raise BadRequest("Forwarded is not a list of 'name=value' pairs.")
        name, token, quoted, _ = match.groups()
        if name is not None:
            name = name.lower()
            if name in pairs:
                raise BadRequest("Forwarded has a parameter twice in one element.")
            pairs[name] = token if quoted is None else _unescape.sub(rb"\1", quoted[1:-1])
        position = match.end()

    def get(name: bytes) -> str:
        return pairs.get(name, b"").decode("latin-1")

    client = parse_node(get(b"for")) if b"for" in pairs else None
    return Hop(client, parse_scheme(get(b"proto")), parse_host(get(b"host")), text)


def parse_node(text: str) -> Node:
    """Read a node identifier.

    Raises:
        BadRequest: it is none.

    Source: RFC 7239 section 6
    """
    match = grammar.node.fullmatch(text.encode("latin-1"))
    if match is None:
        raise BadRequest("The client in Forwarded is neither an address, 'unknown', nor an obfuscated identifier.")
    version_4, version_6, port = match.groups(b"")
    if int(port or b"0") > 65535:
        raise BadRequest("The port of the client in Forwarded is above 65535.")
    if version_4:
        return Node(_parse_address(version_4, IPv4Address), port.decode("ascii"))
    return Node(_parse_address(version_6, IPv6Address), port.decode("ascii")) if version_6 else NOBODY


def parse_member(text: str) -> Node:
    """Read a member of X-Forwarded-For, which has no standard: a node, or an IPv6 address without brackets.

    Raises:
        BadRequest: it is none.
    """
    data = text.encode("latin-1")
    if data.count(b":") > 1 and grammar.bare_ipv6.fullmatch(data):
        return Node(_parse_address(data, IPv6Address), "")
    return parse_node(text)


def _parse_address(data: bytes, kind: type[IPv4Address] | type[IPv6Address]) -> str:
    try:
        return str(plain_address(kind(data.decode("ascii"))))
    except ValueError:
        raise BadRequest("The address of the client in Forwarded or X-Forwarded-For is none.") from None


def parse_scheme(text: str) -> str:
    """Read ``proto`` or X-Forwarded-Proto.

    Raises:
        BadRequest: it is none that is served here.

    Source: RFC 7239 section 5.4
    """
    scheme = SCHEMES.get(text.lower(), "")
    if text and not scheme:
        raise BadRequest("The scheme in Forwarded or X-Forwarded-Proto is neither http nor https.")
    return scheme


def parse_host(text: str) -> str:
    """Read ``host`` or X-Forwarded-Host.

    Raises:
        BadRequest: it is not ``host[:port]``.

    Source: RFC 7239 section 5.3, RFC 9110 section 7.2
    """
    if text and not grammar.host.fullmatch(text.encode("latin-1")):
        raise BadRequest("The host in Forwarded or X-Forwarded-Host is not 'host' or 'host:port'.")
    return text


def parse_port(text: str) -> str:
    """Read X-Forwarded-Port.

    Raises:
        BadRequest: it is no port.
    """
    if text and not (grammar.port.fullmatch(text.encode("latin-1")) and 0 < int(text) < 65536):
        raise BadRequest("X-Forwarded-Port is not a number from 1 to 65535.")
    return text and str(int(text))


def parse_prefix(text: str) -> str:
    """Read X-Forwarded-Prefix: percent-decoded, one character a byte, with no slash at the end.

    Raises:
        BadRequest: it is no path, or a URL made from it could name another host.

    Source: RFC 3986 section 3.3
    """
    if text in ("", "/"):
        return ""
    if not grammar.path_prefix.fullmatch(text.encode("latin-1")):
        raise BadRequest("X-Forwarded-Prefix is not a path like '/app'.")
    prefix = unquote_to_bytes(text.rstrip("/")).decode("latin-1")
    if prefix.startswith(("//", "/\\")):
        raise BadRequest("X-Forwarded-Prefix begins with an encoded slash.")
    return prefix


def _only(told: Mapping[str, str], name: str) -> str:
    """The value of a field whose several values have to agree."""
    values = {part.strip(" \t") for part in told.get(name, "").split(",")} - {""}
    if len(values) > 1:
        raise BadRequest(f"The field {name} has several values that differ; trusted proxies have to set one.")
    return values.pop() if values else ""


def _agree(one: str, other: str, what: str) -> str:
    """What Forwarded and X-Forwarded-* both tell, if both do."""
    if one and other and one.lower() != other.lower():
        raise BadRequest(f"Forwarded and X-Forwarded-* tell of a different {what}; trusted proxies have to agree.")
    return one or other


def _agree_on_client(one: Node | None, other: Node | None) -> Node | None:
    if one is not None and other is not None:
        _agree(one.address, other.address, "client")
        return one if one.address else other
    return one or other


def split_host(text: str) -> tuple[str, str]:
    """Split ``host[:port]``, the IPv6 address in its brackets; the port may be empty.

    Source: RFC 9110 section 7.2
    """
    host, colon, port = text.rpartition(":")
    return (host, port) if colon and "]" not in port else (text, "")
