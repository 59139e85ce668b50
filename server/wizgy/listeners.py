"""Listening sockets: TCP, IPv6, Unix and inherited ones."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

from wizgy.errors import BindError

WILDCARDS: Final = ("", "0.0.0.0", "::")


class Listener:
    """One listening socket, not blocking.

    Args:
        sock: the socket, bound and listening.
        path: the path of a Unix socket that this process made, else empty.
        inherited: the descriptor that this process was started with, of which `sock` is a copy; else None. So a
            reload that fails closes no more than the copy, and the next one finds what it needs.
    """

    def __init__(self, sock: socket.socket, path: str = "", inherited: int | None = None) -> None:
        self.sock = sock
        self._path = path
        self._file = os.stat(path) if path else None
        # As long as this is open no other file gets the same inode; listening sockets close long before a server ends.
        self._held = os.open(path, os.O_PATH) if path and hasattr(os, "O_PATH") else None
        self._inherited = inherited
        self.is_unix = sock.family == socket.AF_UNIX
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
        return f"wizgy: Serving {protocol} on {self.host} port {self.port} ..."

    def accept(self) -> tuple[socket.socket, tuple[str, str]]:
        """Accept a connection: its socket, not blocking, and the client's address and port.

        Raises:
            OSError: none waits, or none can be accepted now.
        """
        sock, address = self.sock.accept()
        sock.setblocking(False)
        return sock, ("", "") if self.is_unix else (address[0], str(address[1]))

    def close(self) -> None:
        """Stop listening in this process; what it has inherited it keeps."""
        self.sock.close()

    def close_inherited(self) -> None:
        """Close for good what this process was started with."""
        if self._inherited is not None:
            os.close(self._inherited)
            self._inherited = None

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


def open_listener(address: str, backlog: int) -> Listener:
    """Listen on ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` or ``fd:N``.

    Args:
        address: where to listen, as `wizgy.config.bind_address` accepts it.
        backlog: how many connections the kernel queues.

    Raises:
        BindError: the address is taken, not this machine's, or not permitted.
    """
    try:
        if address.startswith("unix:"):
            return _open_unix(address.removeprefix("unix:"), backlog)
        if address.startswith("fd:"):
            return _open_inherited(int(address.removeprefix("fd:")), backlog)
        host, _, port = address.rpartition(":")
        return _open_tcp(host.strip("[]"), int(port), backlog)
    except OSError as error:
        raise BindError(f"Cannot listen on {address}: {error.strerror or error}. {_advise(address, error)}") from None
    except UnicodeError:
        raise BindError(f"Cannot listen on {address}: that is no name of a host. Look for a slip in it.") from None


def _advise(address: str, error: OSError) -> str:
    """What to do where an address cannot be listened on."""
    if address.startswith("fd:"):
        return "It has to be the number of a listening socket that wizgy inherits from the program that starts it."
    if error.errno == errno.EADDRINUSE:
        return "Choose another --bind, or stop what uses it."
    if address.startswith("unix:"):
        return "The path has to be in a folder that exists and in which this user may write."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 are often for root alone: choose one above, or let systemd or a proxy open it."
    return "It has to be an address of this machine; 0.0.0.0 and [::] stand for all of them."


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


def _open_tcp(host: str, port: int, backlog: int) -> Listener:
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = info[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that 0.0.0.0 and [::] can be bound side by side, the same on every system.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return Listener(sock)


def _open_unix(path: str, backlog: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return Listener(sock, os.path.abspath(path))


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
