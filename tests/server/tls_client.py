"""Certificates for the tests of TLS, and clients that speak it in any pieces."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.server.client import Address, connect


@dataclass(frozen=True)
class Authority:
    """An authority of its own, with a folder for what it signs.

    Args:
        folder: where the files go.
    """

    folder: Path
    ca: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """A new one; its certificate is in ``ca.pem``."""
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        return cls(folder, ca)

    @property
    def file(self) -> str:
        """The file with its certificate."""
        return str(self.folder / "ca.pem")

    def issue(self, name: str, *names: str, common_name: str | None = None) -> str:
        """Sign a certificate for some names; returns a file that holds it and its key."""
        path = self.folder / f"{name}.pem"
        certificate = self.ca.issue_cert(*(names or (name,)), common_name=common_name)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def client(self, certificate: str = "", **attributes: object) -> ssl.SSLContext:
        """What a client trusts that knows this authority, and the certificate that it has itself."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate:
            context.load_cert_chain(certificate)
        for name, value in attributes.items():
            setattr(context, name, value)
        return context


def secure(sock: socket.socket, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    """Speak TLS on a socket; an end of the stream without close_notify is an error."""
    return context.wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False)


def connect_secure(address: Address, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    """Connect to a server and shake hands."""
    sock = connect(address)
    try:
        return secure(sock, context, name)
    except BaseException:
        sock.close()
        raise


class Pieces:
    """A client whose ciphertext goes out in pieces of one's choice.

    Args:
        sock: a socket that blocks.
        context: what the client trusts.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def transmit(self, size: int = 0) -> None:
        """Send all ciphertext, `size` bytes at a time."""
        data = self.outgoing.read()
        for piece in pieces(data, size or len(data) or 1):
            self.sock.sendall(piece)

    def receive(self) -> bool:
        """Take what has come; False at the end of the stream."""
        data = self.sock.recv(65536)
        self.incoming.write(data)
        return bool(data)

    def shake_hands(self, size: int = 0) -> None:
        """Shake hands, with `size` bytes at a time."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.transmit(size)
                assert self.receive(), "the server has closed during the handshake"
            else:
                self.transmit(size)
                return

    def send(self, data: bytes, size: int = 0, record: int = 0) -> None:
        """Encrypt in records of `record` bytes, and send `size` bytes at a time."""
        for piece in pieces(data, record or len(data)):
            self.tls.write(piece)
        self.transmit(size)

    def read_all(self) -> bytes:
        """Read to close_notify.

        Raises:
            ssl.SSLEOFError: the stream ended without it.
        """
        data = b""
        while True:
            try:
                piece = self.tls.read(65536)
            except ssl.SSLWantReadError:
                if not self.receive():
                    self.incoming.write_eof()
                continue
            except ssl.SSLZeroReturnError:
                return data
            if not piece:
                return data
            data += piece

    def say_close_notify(self) -> None:
        """Say that no more comes, and go on reading."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.transmit()


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    """Cut data into pieces of `size` bytes."""
    return (data[start : start + size] for start in range(0, len(data), size))
