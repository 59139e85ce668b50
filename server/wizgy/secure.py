"""A connection with TLS, which may come through a proxy too.

Rules of this file:

- A handshake holds no thread. The time for the first head begins with the connection, so it is the handshake's too.
- RFC 9112 section 9.8: the server says close_notify before it closes a connection in peace, and only then. An answer
  that is cut short ends without it.
- A client that does not speak TLS is told so, in plain text.
- The keys of `environ` are those of Apache httpd's mod_ssl.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

from wizgy.connection import Service, State
from wizgy.output import FileSegment, Output
from wizgy.proxied import Front, ProxiedConnection
from wizgy.tls import HandshakeFailed, NotTLS, TLSSocket
from wizgy.wsgi import Environ

FILE_SIZE: Final = 262144
"""Bytes of a file to read at a time: the kernel cannot send it by itself."""
CLOSE_NOTIFY: Final = memoryview(b"\0")
"""Stands for close_notify in the queue of what waits."""
DN_NAMES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "userId": "UID",
}
"""Short names of attributes in a distinguished name (RFC 4514 section 3); others keep their long ones."""

DistinguishedName = tuple[tuple[tuple[str, str], ...], ...]


class SecureOutput(Output):
    """Bytes on their way to one client, encrypted where they are sent.

    Args:
        sock: what to send on.
    """

    __slots__ = ("_ending", "_secure")

    def __init__(self, sock: TLSSocket) -> None:
        super().__init__(sock)
        self._secure = sock
        self._ending = False  # whether close_notify is all that waits

    def end(self) -> None:
        """Say that no more will be sent, after all that waits."""
        with self._lock:
            if not self.waiting and not self._secure.end():
                self._ending = True
                self._append(CLOSE_NOTIFY)
                self._memory += len(CLOSE_NOTIFY)

    def _send_now(self, data: bytes | memoryview) -> int:
        if self._ending:
            return len(data) if self._secure.end() else 0
        return super()._send_now(data)

    def _send_file_now(self, segment: FileSegment, count: int) -> int:
        data = os.pread(segment.descriptor, min(count, FILE_SIZE), segment.offset)
        return self._secure.send(data) if data else 0


class SecureConnection(ProxiedConnection):
    """One accepted socket, on which clients speak TLS.

    Args:
        front: what connections share that may come through a proxy.
        certificates: what to speak TLS with.
        service: what all connections share.
        sock: the socket, not blocking.
        client: the peer's address and port as text; both empty for a Unix socket.
        environ: the part of `environ` that is the same for every request of this listener.
    """

    __slots__ = ("_certificates", "_is_described", "_plain", "_secure")

    def __init__(
        self,
        front: Front,
        certificates: ssl.SSLContext,
        service: Service,
        sock: socket.socket,
        client: tuple[str, str],
        environ: Environ,
    ) -> None:
        super().__init__(front, service, sock, client, environ)
        self._certificates = certificates
        self._plain = sock
        self._is_described = False  # whether `_environ` has what TLS tells
        if not front.proxy_protocol:
            self._begin(b"")

    # Called by the owner.
    def close(self) -> None:
        """Close the socket and free what the connection held."""
        if self.state is State.HEAD and self._is_described:
            self._secure.end()
        super().close()

    # Any thread may call it.
    def is_idle(self) -> bool:
        """Whether no byte of a request, or of what goes before it, has come since the last answer."""
        return super().is_idle() and (self._sock is self._plain or not self._secure.begun or self._secure.established)

    def _begin(self, received: bytes) -> None:
        self._sock = self._secure = TLSSocket(self._plain, self._certificates, received)
        self.output: SecureOutput = SecureOutput(self._secure)
        self.readable = True

    def _receive(self) -> bytes:
        try:
            data = super()._receive()
        except NotTLS as error:
            self._buffer += error.received
            self._refuse(error)
            return b""
        except HandshakeFailed as error:
            self._service.refusals.note_handshake(self._client, str(error))
            self._begin_lingering()
            return b""
        if self._sock is not self._plain and self._secure.behind:
            self.readable = self.again = True  # the selector does not tell of what TLS has taken already
        if data and self._sock is not self._plain and self._secure.established:
            if not self._is_described:
                self._is_described = True
                self._environ = self._environ | environ_of_tls(self._secure.session)
            if self._secure.ended or self._secure.failed is not None:
                self.hung_up = True  # the selector sees no end where only TLS has ended
        return data

    def _end_connection(self) -> None:
        if self._unframed and self._cut:
            self.close()  # without close_notify, so that the answer does not look whole
        else:
            self._begin_lingering()

    def _begin_lingering(self) -> None:
        if self._sock is not self._plain and not self._cut:
            self.output.end()
            if self.output.waiting:
                self.state = State.ENDING  # until it has left
                self._await_client()
                return
        super()._begin_lingering()


def environ_of_tls(session: ssl.SSLObject) -> Environ:
    """What `environ` tells of a connection, with the keys of mod_ssl.

    Args:
        session: the connection, after its handshake.

    Source: https://httpd.apache.org/docs/2.4/mod/mod_ssl.html#envvars
    """
    cipher, certificate = session.cipher(), session.getpeercert()
    environ: Environ = {
        "HTTPS": "on",
        "SSL_PROTOCOL": session.version() or "",
        "SSL_CIPHER": cipher[0] if cipher else "",
        "SSL_CLIENT_VERIFY": "SUCCESS" if certificate else "NONE",
    }
    binary = session.getpeercert(binary_form=True)
    if certificate and binary:
        environ["SSL_CLIENT_CERT"] = ssl.DER_cert_to_PEM_cert(binary)
        environ.update(environ_of_certificate(certificate))
    return environ


def environ_of_certificate(certificate: Mapping[str, Any]) -> Environ:
    """What `environ` tells of the certificate of a client.

    Args:
        certificate: as `ssl.SSLObject.getpeercert` gives it.
    """
    subject: DistinguishedName = certificate.get("subject", ())
    environ: Environ = {
        "SSL_CLIENT_S_DN": format_name(subject),
        "SSL_CLIENT_I_DN": format_name(certificate.get("issuer", ())),
        "SSL_CLIENT_M_SERIAL": certificate.get("serialNumber", ""),
        "SSL_CLIENT_V_START": certificate.get("notBefore", ""),
        "SSL_CLIENT_V_END": certificate.get("notAfter", ""),
    }
    common_names = [value for attributes in subject for name, value in attributes if name == "commonName"]
    if common_names:
        environ["SSL_CLIENT_S_DN_CN"] = native(common_names[-1])
    for kind, key in ("DNS", "DNS"), ("email", "Email"):
        names = [value for its_kind, value in certificate.get("subjectAltName", ()) if its_kind == kind]
        environ.update({f"SSL_CLIENT_SAN_{key}_{number}": native(name) for number, name in enumerate(names)})
    return environ


def format_name(name: DistinguishedName) -> str:
    """Write a distinguished name as a line of text, the most special part first.

    Args:
        name: sets of attributes, each a type and a value, the most general first.

    Source: RFC 4514 section 2
    """
    parts = ["+".join(f"{DN_NAMES.get(kind, kind)}={escape(value)}" for kind, value in part) for part in reversed(name)]
    return native(",".join(parts))


def escape(value: str) -> str:
    """Escape what would end an attribute's value, or what is not seen (RFC 4514 section 2.4)."""
    escaped = "".join(
        f"\\{ord(character):02X}"
        if ord(character) < 0x20 or character == "\x7f"
        else f"\\{character}"
        if character in '\\,+"<>;'
        else character
        for character in value
    )
    if escaped[-1:] == " ":
        escaped = escaped[:-1] + "\\ "
    return "\\" + escaped if escaped[:1] in ("#", " ") else escaped


def native(text: str) -> str:
    """Text as a native string of WSGI: its UTF-8, one character a byte (PEP 3333, "Unicode Issues")."""
    return text.encode("utf-8", "backslashreplace").decode("latin-1")
