"""Addresses to listen on, as ``--bind`` takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

FORMS: Final = "HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N"
EVERY_IPV6: Final = "::"
GROUP_MODE: Final = 0o660
"""The permissions of a Unix socket that is given to a group, where none are said: else the group could not connect."""
LARGEST_PORT: Final = 65535

_port = re.compile(r"[0-9]{1,5}")
_mode = re.compile(r"0?[0-7]{3}")
_scheme = re.compile(r"(?P<scheme>[a-z]+)://(?P<rest>[^/]*)/*")


class TCPAddress(NamedTuple):
    """``HOST:PORT`` or ``[IPV6]:PORT``.

    Args:
        host: a name or an address, without brackets.
        port: the port; 0 for a free one.
    """

    host: str
    port: int


class UnixAddress(NamedTuple):
    """``unix:PATH``, ``unix:PATH?mode=660&group=NAME``.

    Args:
        path: where the socket is.
        mode: its permissions, or None for those that the umask leaves.
        group: the name or number of its group; empty for that of the process.
    """

    path: str
    mode: int | None
    group: str


class InheritedSocket(NamedTuple):
    """``fd:N``.

    Args:
        descriptor: the number of a listening socket that this process was started with.
    """

    descriptor: int


Address = TCPAddress | UnixAddress | InheritedSocket


def parse_address(text: str) -> Address:
    """Parse an address.

    Raises:
        ValueError: it is none; the text says what is expected.
    """
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _port.fullmatch(port) or int(port) > LARGEST_PORT:
        raise ValueError(_correct(text) or f"expected {FORMS}, with a port from 0 to {LARGEST_PORT}")
    if host == "fd":
        return InheritedSocket(int(port))
    if host.startswith("[") and host.endswith("]"):
        return TCPAddress(host[1:-1], int(port))
    if _scheme.match(text):
        raise ValueError(_correct(text))
    if ":" in host:
        raise ValueError("expected an IPv6 address in brackets, as in [::1]:8888")
    return TCPAddress("0.0.0.0" if host == "*" else host, int(port))


def _correct(text: str) -> str:
    """What is expected in place of a form that other programs take."""
    match = _scheme.fullmatch(text)
    if match is not None and match["scheme"] == "fd":
        return f"expected fd:{match['rest']}"
    if match is not None:
        place = match["rest"] if ":" in match["rest"] else f"{match['rest']}:8000"
        return f"expected HOST:PORT without {match['scheme']}://, as {place}"
    if text.startswith(("/", "./", "../")) or text.endswith(".sock"):
        return f"expected unix:PATH for a Unix socket, as unix:{text}"
    port = text.removeprefix(":")
    if _port.fullmatch(port):
        return f"expected HOST:PORT, as 127.0.0.1:{port}, or 0.0.0.0:{port} for all IPv4 addresses of this machine"
    return ""


def _parse_unix(text: str) -> UnixAddress:
    """Options stand after the last question mark; a path that has one ends with another, which has none after it."""
    path, mark, options = text.rpartition("?")
    if not mark:
        path, options = text, ""
    if not path:
        raise ValueError("expected a path after unix:")
    mode, group = None, ""
    for option in options.split("&") if options else ():
        name, _, value = option.partition("=")
        if name == "mode":
            if not _mode.fullmatch(value):
                raise ValueError("expected three octal digits for the mode, as mode=660")
            mode = int(value, 8)
        elif name == "group" and value:
            group = value
        else:
            raise ValueError(
                "expected mode=660 or group=NAME, with & between, after the last question mark; a path that has one "
                "ends with another"
            )
    return UnixAddress(path, GROUP_MODE if group and mode is None else mode, group)


def find_group(name: str) -> int:
    """The number of a group.

    Args:
        name: its name or number.

    Raises:
        ValueError: this machine has no group of that name.
    """
    if name.isascii() and name.isdigit():
        return int(name)
    import grp  # not at the top: few need it

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"expected a group of this machine; {name!r} is none") from None


def is_for_both_families(address: Address, others: Iterable[Address]) -> bool:
    """Whether a socket at ``[::]:PORT`` is for IPv4 too: no other address has its port for IPv4.

    Args:
        address: the address.
        others: all that are listened on, itself among them.
    """
    if not isinstance(address, TCPAddress) or address.host != EVERY_IPV6:
        return False
    return not any(
        isinstance(other, TCPAddress) and ":" not in other.host and other.port == address.port for other in others
    )
