"""Listening sockets: TCP, IPv6, Unix and inherited ones."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any, Final

from wizgy.addresses import (
    EVERY_IPV6,
    Address,
    InheritedSocket,
    TCPAddress,
    UnixAddress,
    find_group,
    is_for_both_families,
    parse_address,
)
from wizgy.errors import BindError
from wizgy.primitives import Socket

WILDCARDS: Final = ("", "0.0.0.0", EVERY_IPV6)
MAPPED: Final = "::ffff:"
"""What an IPv4 address begins with on a socket that is for both families (RFC 4291 section 2.5.5.2)."""
NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What is wrong with an address of a name that is another machine's, or of a family that this one does not have."""
ATTEMPTS: Final = 10
"""How often a port is chosen that has to be free at several addresses."""


class Listener:
    """One listening socket, not blocking.

    Args:
        sock: the socket, bound and listening.
        path: the path of a Unix socket that this process made, else empty.
        inherited: the descriptor that this process was started with, of which `sock` is a copy; else None. So a
            reload that fails closes no more than the copy, and the next one finds what it needs.

    Attributes:
        purpose: what it was opened for; a reload keeps it for the same.
        siblings: all that were opened with it for one ``--bind``, itself among them.
    """

    def __init__(self, sock: socket.socket, path: str = "", inherited: int | None = None) -> None:
        self.sock = sock
        self.purpose: object = None
        self.siblings = [self]
        self._path = path
        self._file = os.stat(path) if path else None
        # As long as this is open no other file gets the same inode; listening sockets close long before a server ends.
        self._held = os.open(path, os.O_PATH) if path and hasattr(os, "O_PATH") else None
        self._inherited = inherited
        self.is_unix = sock.family == socket.AF_UNIX
        self._may_be_mapped = sock.family == socket.AF_INET6 and not sock.getsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
        )
        self._kind = sock.family, sock.type, sock.proto
        sock.setblocking(False)
        if not self.is_unix:
            # Accepted sockets inherit it. Answers leave in whole writes, so there is nothing to gather.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def host(self) -> str:
        """The address it is bound to; for a Unix socket ``unix:PATH``."""
        return f"unix:{self.sock.getsockname()}" if self.is_unix else str(self.sock.getsockname()[0])

    @property
    def port(self) -> int:
        """The port it is bound to; 0 for a Unix socket."""
        return 0 if self.is_unix else int(self.sock.getsockname()[1])

    @property
    def server_name(self) -> str:
        """A value for ``SERVER_NAME``, which may not be empty (PEP 3333)."""
        if self.is_unix:
            return "localhost"
        if self.host in WILDCARDS:
            return socket.gethostname()
        return f"[{self.host}]" if ":" in self.host else self.host

    def ready_line(self, *, secure: bool) -> str:
        """What tells a person or a test that requests are accepted here, with TLS or without."""
        protocol = "HTTPS" if secure else "HTTP"
        if self.is_unix:
            return f"wizgy: Serving {protocol} on {self.host} ..."
        families = " (IPv6 and IPv4)" if self._may_be_mapped and self.host == EVERY_IPV6 else ""
        return f"wizgy: Serving {protocol} on {self.host} port {self.port} ...{families}"

    def accept(self) -> tuple[socket.socket, tuple[str, str]]:
        """Accept a connection: its socket, not blocking, and the client's address and port.

        Raises:
            OSError: none waits, or none can be accepted now.
        """
        descriptor, address = self.sock._accept()  # type: ignore[attr-defined]
        sock = Socket(*self._kind, fileno=descriptor)  # and not of a class that the application has put in its place
        sock.setblocking(False)
        if self.is_unix:
            return sock, ("", "")
        host: str = address[0]
        return sock, (host.removeprefix(MAPPED) if self._may_be_mapped else host, str(address[1]))

    def permit(self, address: Address) -> None:
        """Give a Unix socket the permissions that its address says.

        Raises:
            OSError: this user may not.
            ValueError: there is no such group.
        """
        if isinstance(address, UnixAddress):
            _permit(self._path, address)

    def close(self) -> None:
        """Stop listening in this process; what it has inherited it keeps."""
        self.sock.close()

    def close_inherited(self) -> None:
        """Close for good what this process was started with."""
        if self._inherited is not None:
            os.close(self._inherited)
            self._inherited = None

    def disown(self) -> None:
        """In a process just forked: close all of it, and leave the path to the parent."""
        self._file = None
        self.sock.close()
        self.close_inherited()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def remove(self) -> None:
        """Remove the path of a Unix socket that this process made, where it is still that socket's."""
        if self._file is None:
            return
        try:
            if os.path.samestat(os.stat(self._path), self._file):
                os.unlink(self._path)
        except OSError:
            pass  # somebody else did
        self._file = None
        if self._held is not None:
            os.close(self._held)
            self._held = None


def find_purpose(text: str, binds: Sequence[str]) -> object:
    """What a listener is for: two with the same purpose can take each other's place.

    Args:
        text: an address, as `wizgy.config.bind_address` accepts it.
        binds: all that are listened on.
    """
    address = parse_address(text)
    if isinstance(address, UnixAddress):
        return address.path
    return address, is_for_both_families(address, map(parse_address, binds))


def open_listeners(text: str, backlog: int, binds: Sequence[str] = ()) -> list[Listener]:
    """Listen on an address; of a name on all of its addresses.

    Args:
        text: where to listen, as `wizgy.config.bind_address` accepts it.
        backlog: how many connections the kernel queues.
        binds: all that are listened on: ``[::]:PORT`` leaves IPv4 to another of them.

    Raises:
        BindError: the address is taken, not this machine's, or not permitted.
    """
    address = parse_address(text)
    both = is_for_both_families(address, map(parse_address, binds))
    try:
        listeners = _open(address, backlog, both)
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeError):
            raise BindError(f"Cannot listen on {text}: that is no name of a host. Look for a slip in it.") from None
        why = getattr(error, "strerror", None) or error
        raise BindError(f"Cannot listen on {text}: {why}. {_advise(address, error)}") from None
    for listener in listeners:
        listener.purpose, listener.siblings = find_purpose(text, binds), listeners
    return listeners


def _open(address: Address, backlog: int, both: bool) -> list[Listener]:
    if isinstance(address, UnixAddress):
        return [_open_unix(address, backlog)]
    if isinstance(address, InheritedSocket):
        return [_open_inherited(address.descriptor, backlog)]
    return [Listener(sock) for sock in _open_tcp(address, backlog, both)]


def _advise(address: Address, error: Exception) -> str:
    """What to do where an address cannot be listened on."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(address, InheritedSocket):
        return "It has to be the number of a listening socket that wizgy inherits from the program that starts it."
    if number == errno.EADDRINUSE:
        both = isinstance(address, TCPAddress) and address.host == EVERY_IPV6
        ipv4 = " [::] is for IPv4 too, unless another --bind has its port for IPv4." if both else ""
        return f"Choose another --bind, or stop what uses it.{ipv4}"
    if isinstance(address, UnixAddress):
        if address.group and number == errno.EPERM:
            return "Only a member of the group, or root, may give the socket to it."
        return "The path has to be in a folder that exists and in which this user may write."
    if number in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 are often for root alone: choose one above, or let systemd or a proxy open it."
    return (
        "It has to be an address of this machine; [::] stands for all of them, IPv6 and IPv4, and 0.0.0.0 for those of "
        "IPv4."
    )


def _open_inherited(descriptor: int, backlog: int) -> Listener:
    os.set_inheritable(descriptor, False)  # a program that the application starts has no business with it
    copy = os.dup(descriptor)
    try:
        sock = socket.socket(fileno=copy)
        sock.listen(backlog)
    except OSError:
        os.close(copy)
        raise
    return Listener(sock, inherited=descriptor)


def _open_tcp(address: TCPAddress, backlog: int, both: bool, attempts: int = ATTEMPTS) -> list[socket.socket]:
    """Listen at all addresses of a host; port 0 is the same at all of them."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
    try:
        return _open_all(places, backlog, both)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or address.port or attempts == 1:
            raise
    return _open_tcp(address, backlog, both, attempts - 1)


def _open_all(places: Sequence[tuple[int, tuple[Any, ...]]], backlog: int, both: bool) -> list[socket.socket]:
    opened: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, place in places:
            port = opened[0].getsockname()[1] if opened else place[1]
            try:
                opened.append(_open_at(family, (place[0], port, *place[2:]), backlog, both))
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                missing = missing or error
        if missing is not None and not opened:
            raise missing
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open_at(family: int, place: tuple[Any, ...], backlog: int, both: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Said each time, as systems differ: 0.0.0.0 and [::] can be bound side by side, and [::] alone is for both.
            only = not both or not socket.has_dualstack_ipv6()
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
        sock.bind(place)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(address: UnixAddress, backlog: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    is_bound = False
    try:
        _remove_stale(address.path)
        sock.bind(address.path)
        is_bound = True
        _permit(address.path, address)  # before anybody can connect
        sock.listen(backlog)
    except (OSError, ValueError):
        sock.close()
        if is_bound:
            os.unlink(address.path)
        raise
    return Listener(sock, os.path.abspath(address.path))


def _permit(path: str, address: UnixAddress) -> None:
    if address.group:
        os.chown(path, -1, find_group(address.group))
    if address.mode is not None:
        os.chmod(path, address.mode)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; anything else that stands there stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # the queue of who listens there may be full
        try:
            probe.connect(path)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)
