"""TLS over a socket that takes little, or nothing: in process, where the kernel's buffers can be played."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.server.client import TIMEOUT
from tests.server.tls_client import Authority, Pieces
from wizgy.secure import SecureOutput
from wizgy.tls import TLSSocket
from wizgy.transport import TURN, receive


class Gate(socket.socket):
    """A socket whose kernel takes as much as it is told.

    Attributes:
        room: how many bytes it takes; None for as many as come.
    """

    room: int | None = None

    def send(self, data: bytes, /) -> int:  # type: ignore[override]
        """Take what there is room for."""
        if self.room is None:
            return super().send(data)
        if not self.room:
            raise BlockingIOError
        sent = super().send(data[: self.room])
        self.room -= sent
        return sent


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs the certificates of these tests."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    """The certificate of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("localhost"))
    return context


@pytest.fixture
def ends(authority: Authority, context: ssl.SSLContext) -> Iterator[tuple[Gate, TLSSocket, Pieces]]:
    """The kernel's side of a server's socket, the server with TLS on it, and its client; before the handshake."""
    near, far = socket.socketpair()
    gate = Gate(near.family, near.type, near.proto, near.detach())
    with gate, far:
        gate.setblocking(False)
        far.settimeout(TIMEOUT)
        yield gate, TLSSocket(gate, context), Pieces(far, authority.client())


def shake_hands(server: TLSSocket, client: Pieces) -> None:
    """Shake hands, one side after the other."""
    while not server.established:
        try:
            client.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        client.transmit()
        with pytest.raises(BlockingIOError):
            receive(server)
        if not server.established:
            client.receive()
    while True:
        try:
            client.tls.do_handshake()
        except ssl.SSLWantReadError:
            client.receive()
        else:
            return


def test_nothing_is_made_before_a_byte_has_come(ends: tuple[Gate, TLSSocket, Pieces]) -> None:
    """A connection on which nothing comes costs no TLS."""
    _, server, _ = ends
    with pytest.raises(BlockingIOError):
        receive(server)
    assert not server.begun
    with pytest.raises(AssertionError):
        server.session  # noqa: B018


def test_handshake_without_room(ends: tuple[Gate, TLSSocket, Pieces]) -> None:
    """A handshake whose answer the client does not take goes on when it does, a few bytes at a time."""
    gate, server, client = ends
    gate.room = 0
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.transmit()
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            receive(server)
    assert server.begun
    assert not server.established
    for _ in range(10_000):
        gate.room = 100
        with pytest.raises(BlockingIOError):
            receive(server)
        if gate.room:
            break
    gate.room = None
    shake_hands(server, client)


def test_send_without_room(ends: tuple[Gate, TLSSocket, Pieces]) -> None:
    """What the client does not take is not accepted, and is not encrypted a second time when it comes again."""
    gate, server, client = ends
    shake_hands(server, client)
    data = random.Random(1).randbytes(300_000)
    received = b""
    sent = 0
    randomness = random.Random(2)
    while sent < len(data):
        gate.room = randomness.choice([0, 1, 100, 20_000, 100_000])
        try:
            count = server.send(data[sent:])
            assert count > 0
            sent += count
        except BlockingIOError:
            assert gate.room == 0
        received += read_now(client)
    gate.room = None
    assert server.send(b"") == 0
    received += read_now(client)
    assert received == data


def read_now(client: Pieces) -> bytes:
    """What has come, decrypted."""
    client.sock.setblocking(False)
    data = b""
    try:
        while client.receive():
            pass
    except BlockingIOError:
        pass
    client.sock.settimeout(TIMEOUT)
    while True:
        try:
            data += client.tls.read(65536)
        except ssl.SSLWantReadError:
            return data


def test_close_notify_without_room(ends: tuple[Gate, TLSSocket, Pieces]) -> None:
    """close_notify that the client does not take waits behind what it has not taken, as an answer does."""
    gate, server, client = ends
    shake_hands(server, client)
    output = SecureOutput(server)
    output.send(b"the answer")
    gate.room = 0
    output.end()
    assert output.waiting
    output.flush()
    assert output.waiting
    for _ in range(1000):
        gate.room = 1
        output.flush()
        if not output.waiting:
            break
    assert not output.waiting
    output.end()
    assert not output.waiting
    gate.shutdown(socket.SHUT_WR)
    assert client.read_all() == b"the answer"


def test_nothing_is_read_while_tls_has_something_to_say(ends: tuple[Gate, TLSSocket, Pieces]) -> None:
    """While ciphertext waits for a client nothing more is read from it, so that nobody can pile up answers of TLS."""
    gate, server, client = ends
    shake_hands(server, client)
    gate.room = 0
    with pytest.raises(BlockingIOError):
        server.send(b"the answer")
    client.send(b"more")
    with pytest.raises(BlockingIOError):
        receive(server)
    gate.room = None
    assert receive(server) == b"more"
    assert server.send(b"the answer") == 10
    assert read_now(client) == b"the answer"


def test_what_came_before_a_broken_record_is_read(ends: tuple[Gate, TLSSocket, Pieces]) -> None:
    """A record that is none does not take with it what came whole before it (RFC 8446 section 6)."""
    _, server, client = ends
    shake_hands(server, client)
    client.tls.write(b"the request")
    client.sock.sendall(client.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
    assert receive(server) == b"the request"
    with pytest.raises(ssl.SSLError):
        receive(server)


@pytest.mark.parametrize("size", [100, 4096, 65536, 100_000])
def test_receive_takes_all(ends: tuple[Gate, TLSSocket, Pieces], size: int) -> None:
    """Less than was asked for means that no more is there, as with a socket: the selector will not tell again."""
    _, server, client = ends
    shake_hands(server, client)
    data = random.Random(3).randbytes(450_000)
    received, buffer = b"", memoryview(bytearray(size))
    for start in range(0, len(data), 150_000):
        client.send(data[start : start + 150_000], record=5000)
        piece = b"none yet"
        while piece:
            try:
                piece = bytes(buffer[: server.recv_into(buffer)])
            except BlockingIOError:
                piece = b""
            received += piece
            if 0 < len(piece) < size:
                with pytest.raises(BlockingIOError):
                    server.recv_into(buffer)
    assert received == data


def test_tiny_records_take_a_bounded_time(
    ends: tuple[Gate, TLSSocket, Pieces], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call leaves since others are due is told, and comes with the next calls, to the end of the data."""
    _, server, client = ends
    ticks = itertools.count()
    monkeypatch.setattr("wizgy.transport.monotonic", lambda: 1 + next(ticks) * TURN / 4)
    shake_hands(server, client)
    client.send(b"a" * 500, record=1)
    client.say_close_notify()
    data = receive(server)
    assert data
    while server.behind:
        data += (piece := receive(server))
        assert len(piece) < 10
    assert data == b"a" * 500
    assert receive(server) == b""
    assert server.ended
    assert not server.behind


def test_handshake_takes_a_bounded_time(ends: tuple[Gate, TLSSocket, Pieces], monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake goes on in the next call where others were due."""
    _, server, client = ends
    ticks = itertools.count()
    monkeypatch.setattr("wizgy.transport.monotonic", lambda: 1 + next(ticks) * TURN)
    cut = 0
    while not server.established:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.transmit()
        with pytest.raises(BlockingIOError):
            receive(server)
        cut += server.behind
        if not server.behind and not server.established:
            client.receive()
    assert cut
