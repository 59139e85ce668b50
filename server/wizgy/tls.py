"""TLS over a socket that does not block, with as much of a socket's interface as a connection uses.

Ciphertext goes through two buffers in memory, so that what the kernel has, what TLS has and what the connection gets
can be told apart: the selector tells of a change once, and then everything has to be taken.

Rules of this file:

- RFC 8446 section 6.1: only close_notify ends the data of the client; an end of the stream without it is an error.
- Nothing is read while an answer of TLS itself waits for the client, so that nobody can pile those up.
- OpenSSL is called by one thread at a time: an application sends while the selector's thread flushes.
- Nothing is made for a client before its first byte has come.
- How much work a byte of plaintext makes is up to the client, so a call is bounded by time; `behind` tells of the rest.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, cast

from wizgy.errors import BadRequest
from wizgy.http.strangers import explain_plaintext
from wizgy.primitives import RLock
from wizgy.transport import Turn, receive

SEND_SIZE: Final = 65536
"""Bytes of plaintext to encrypt before the ciphertext is sent: four records."""
HANDSHAKE: Final = 0x16
"""The first byte of a client that speaks TLS (RFC 8446 section 5.1)."""
STEPS_OF_A_REQUEST: Final = 3
"""Steps that it takes to read what has come in one record: its ciphertext, its plaintext, and that no more is there."""


FAILURES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not one of --client-ca",
    "HTTPS_PROXY_REQUEST": "the client takes the server for a proxy",
    "NO_SHARED_CIPHER": "client and server have no cipher in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate, and --client-ca asks for one",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept the server's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "to the client the server's certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept the server's certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know who issued the server's certificate",
    "UNSUPPORTED_PROTOCOL": "the client's version of TLS is too old",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
}
"""What the usual failures of a handshake mean, by the name that OpenSSL has for them."""


class NotTLS(BadRequest):
    """The client does not speak TLS. From then on neither does the server.

    Args:
        received: what it has sent instead.
    """

    def __init__(self, received: bytes) -> None:
        super().__init__(explain_plaintext(received))
        self.received = received


class HandshakeFailed(Exception):
    """Client and server do not agree; the alert that says so has been sent."""


def describe_failure(error: ssl.SSLError) -> str:
    """Say why a handshake failed: what OpenSSL calls it, and what it means where that is known."""
    name = error.reason or str(error)
    return f"{FAILURES[name]} ({name})" if name in FAILURES else name


class TLSSocket:
    """A connected socket that speaks TLS, from the server's side.

    Args:
        sock: the socket, not blocking.
        context: the certificates.
        received: what has come on it already.

    Attributes:
        established: whether the handshake is done.
        begun: whether a byte has come.
        behind: whether the last call has stopped before all was read, since others are due.
        ended: whether the client has said that it sends no more.
        failed: what is wrong with what came after the last that was read, or None. The next call raises it.
    """

    __slots__ = (
        "_context",
        "_ending",
        "_incoming",
        "_lock",
        "_outgoing",
        "_passing",
        "_received",
        "_sock",
        "_tls",
        "_unreported",
        "_unsent",
        "begun",
        "behind",
        "ended",
        "established",
        "failed",
    )

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, received: bytes = b"") -> None:
        self._sock = sock
        self._context = context
        self._received = received
        self._lock = RLock()
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._tls: ssl.SSLObject | None = None
        self._unsent = b""  # ciphertext that the client has not taken
        self._unreported = 0  # bytes of plaintext that are in it, and that `send` has not said to be sent
        self._passing = False  # whether bytes pass as they are, since there is no TLS after all
        self._ending = False  # whether the server has said that it sends no more
        self.established = False
        self.begun = bool(received)
        self.behind = False
        self.ended = False
        self.failed: ssl.SSLError | None = None

    @property
    def session(self) -> ssl.SSLObject:
        """What OpenSSL knows of the connection; there is something once the handshake has begun."""
        assert self._tls is not None
        return self._tls

    def fileno(self) -> int:
        """The descriptor that the selector watches."""
        return self._sock.fileno()

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive as much as is there and goes into `buffer`; nothing means that the client sends no more.

        Raises:
            BlockingIOError: nothing is there now, or only what needs another call (`behind`).
            NotTLS: the client does not speak TLS.
            HandshakeFailed: client and server do not agree.
            OSError: the client is gone, or has sent what is no TLS.
        """
        self.behind = False
        if self._passing or self._ending:
            return self._sock.recv_into(buffer)
        if self.failed is not None:
            raise self.failed
        with self._lock:
            if not self.established and not self._shake_hands():
                raise BlockingIOError
            return self._read(buffer)

    def _shake_hands(self) -> bool:
        """Go on with the handshake; False where the client has to say more, or others are due."""
        turn = Turn()
        while not turn.is_over():
            if self._tls is not None:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    self._passing = True
                    self._push()  # the alert
                    raise HandshakeFailed(describe_failure(error)) from None
                else:
                    self.established = True
                    self._push()
                    return True
                if not self._push():
                    return False
            if not self._fill():
                return False
        self.behind = True
        return False

    def _fill(self) -> bool:
        """Take ciphertext from the socket; False where none is there.

        Raises:
            ConnectionResetError: the stream has ended, and TLS has not.
        """
        data, self._received = self._received, b""
        if not data:
            try:
                data = receive(self._sock)
            except BlockingIOError:
                return False
            if not data and self.begun and not self.established:
                self._passing = True
                raise HandshakeFailed("the client closed the connection within the handshake")
            if not data:
                raise ConnectionResetError("The stream has ended, and TLS has not.")
        self.begun = True
        if self._tls is None:
            if data[0] != HANDSHAKE:
                self._passing = True
                raise NotTLS(data)
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        assert self._incoming is not None
        self._incoming.write(data)
        return True

    def _read(self, buffer: memoryview) -> int:
        """Decrypt what is there, and take more until the socket is empty, the buffer is full or others are due."""
        done = steps = 0
        turn = Turn()
        while done < len(buffer) and not self.ended and not self.behind:
            count = self._decrypt(buffer[done:], done)
            if count is None:
                break
            done += count
            steps += 1
            self.behind = steps >= STEPS_OF_A_REQUEST and turn.is_over()
        if not done and not self.ended:
            raise BlockingIOError
        return done

    def _decrypt(self, room: memoryview, done: int) -> int | None:
        """Decrypt one record, or take ciphertext where none is left.

        Args:
            room: where the plaintext goes.
            done: how many bytes were decrypted before it in the same call.

        Returns:
            The bytes of plaintext; None where no more is there now.
        """
        assert self._tls is not None
        try:
            # With a buffer it returns a number, which its annotation does not know.
            count = cast(int, self._tls.read(len(room), cast(bytearray, room)))
        except ssl.SSLWantReadError:
            # TLS may have something to say by itself, to a client that changes its keys.
            return 0 if self._push() and self._fill_after(done) else None
        except ssl.SSLZeroReturnError:
            count = 0
        except ssl.SSLError as error:
            self._push()  # the alert
            if not done:
                raise
            self.failed = error
            return None
        if not count:
            self.ended = True
        return count

    def _fill_after(self, done: int) -> bool:
        """As `_fill`; where something was read already, an end that is an error can wait for the next call."""
        try:
            return self._fill()
        except OSError:
            if done:
                return False
            raise

    def send(self, data: bytes | memoryview, /) -> int:
        """Send as much of `data` as the client takes; after BlockingIOError the same bytes have to come again.

        Raises:
            BlockingIOError: the client takes nothing now.
            OSError: the client is gone.
        """
        if self._passing:
            return self._sock.send(data)
        with self._lock:
            if not self._push():
                raise BlockingIOError
            sent, self._unreported = self._unreported, 0  # of an earlier call with the same bytes
            view = memoryview(data)
            while sent < len(view):
                count = self._encrypt(view[sent : sent + SEND_SIZE])
                if not self._push():
                    self._unreported = count
                    break
                sent += count
            if not sent and view:
                raise BlockingIOError
            return sent

    def _encrypt(self, data: memoryview) -> int:
        assert self._tls is not None
        count = 0
        while count < len(data):
            count += self._tls.write(data[count:])
        return count

    def _push(self) -> bool:
        """Send ciphertext; False while some of it is left."""
        if self._outgoing is not None and self._outgoing.pending:
            self._unsent += self._outgoing.read()
        if self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        return not self._unsent

    def end(self) -> bool:
        """Say that no more will be sent; False while that has not left. What still comes is not decrypted.

        Source: RFC 8446 section 6.1
        """
        with self._lock:
            if self.established and not self._ending:
                self._ending = True
                assert self._tls is not None
                try:
                    self._tls.unwrap()
                except ssl.SSLError:
                    pass  # the client has not said the same yet, and need not
            try:
                return self._push()
            except OSError:
                return True  # the client is gone, so nothing is left to be sent

    def shutdown(self, how: int, /) -> None:
        """End one direction of the socket, or both."""
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """Set an option of the socket."""
        self._sock.setsockopt(level, option, value)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
