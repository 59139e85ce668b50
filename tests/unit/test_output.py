"""What waits for a client: in order, whole, in little memory, and gone when the client is."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from wizgy import output
from wizgy.output import FILE_STEP, MEMORY_LIMIT, TEMPORARY_STEP, Output, TemporaryRoom
from wizgy.transport import TURN
from wizgy.wsgi import Disconnected

Pair = tuple[Output, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """An output, and the client that it goes to."""
    ours, client = socket.socketpair()
    with ours, client:
        ours.setblocking(False)
        client.settimeout(5)
        out = Output(ours)
        yield out, client
        out.close()


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def drain(pair: Pair, count: int) -> bytes:
    """Read `count` bytes, flushing as the selector would."""
    out, client = pair
    data = bytearray()
    while len(data) < count:
        if out.waiting:
            out.flush()
        data += client.recv(1 << 20)
    return bytes(data)


def fill(pair: Pair) -> int:
    """Send until the client takes no more at once; returns how many bytes that was."""
    out, _ = pair
    sent = 0
    while not out.waiting:
        out.send(b"x" * 4096)
        sent += 4096
    return sent


def test_sent_at_once(pair: Pair) -> None:
    """What the client takes at once is not kept."""
    out, client = pair
    out.send(b"hello")
    assert not out.waiting
    assert client.recv(10) == b"hello"
    assert out.sent == 5


def test_memory_then_spool(pair: Pair) -> None:
    """Little is kept in memory; more goes to one file; all of it arrives in order, and the file is closed."""
    out, _ = pair
    before = open_descriptors()
    total = fill(pair)
    expected = b"x" * total
    block = bytes(range(256)) * 256
    for number in range(40):
        piece = b"%06d" % number + block
        out.send(piece)
        expected += piece
    assert open_descriptors() == before + 1
    assert out._memory <= MEMORY_LIMIT
    assert not out.is_congested()
    assert drain(pair, len(expected)) == expected
    assert not out.waiting
    assert out.sent == len(expected)
    assert open_descriptors() == before


def test_spool_is_used_again(pair: Pair) -> None:
    """What is sent while the spool empties comes after it, at any mix of sizes."""
    out, client = pair
    chance = random.Random(3)
    expected, received = bytearray(), bytearray()
    client.setblocking(False)
    for _ in range(400):
        piece = chance.randbytes(chance.choice([1, 100, 70_000, 300_000]))
        out.send(piece)
        expected += piece
        for _ in range(chance.randrange(3)):
            try:
                received += client.recv(chance.choice([1000, 200_000]))
            except BlockingIOError:
                pass
    client.settimeout(5)
    received += drain(pair, len(expected) - len(received))
    assert received == expected
    assert not out.waiting


def test_file_between_pieces(pair: Pair, tmp_path: Path) -> None:
    """A file is sent in its place between other content; the caller's descriptor may be closed before."""
    out, _ = pair
    file = tmp_path / "file"
    file.write_bytes(bytes(range(251)) * 1000)
    total = fill(pair)
    out.send(b"before")
    with file.open("rb") as opened:
        out.send_file(opened.fileno(), 251, 251 * 900)
    out.send(b"after")
    expected = b"x" * total + b"before" + bytes(range(251)) * 900 + b"after"
    assert drain(pair, len(expected)) == expected
    assert not out.waiting


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_that_the_kernel_can_only_read(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file of a file system without sendfile is read and sent, as much as the client takes."""

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", refuse)
    out, _ = pair
    file = tmp_path / "file"
    file.write_bytes(bytes(range(251)) * 5000)
    with file.open("rb") as opened:
        out.send_file(opened.fileno(), 3, 251 * 4000)
    expected = (bytes(range(251)) * 5000)[3 : 3 + 251 * 4000]
    assert drain(pair, len(expected)) == expected
    assert not out.waiting


def test_large_file_gives_others_their_turn(pair: Pair, tmp_path: Path) -> None:
    """A flush sends a bounded part of a file and says that there is more to do."""
    out, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(4 * FILE_STEP)
    with file.open("rb") as opened:
        out.send_file(opened.fileno(), 0, 4 * FILE_STEP)
    assert out.sent <= FILE_STEP
    assert len(drain(pair, 4 * FILE_STEP)) == 4 * FILE_STEP


def test_many_small_pieces_give_others_their_turn(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush is bounded however small the pieces are that wait, and says that there is more to do."""
    out, client = pair
    ticks = itertools.count()
    monkeypatch.setattr("wizgy.transport.monotonic", lambda: 1 + next(ticks) * TURN / 4)
    fill(pair)
    out._spool = None
    for _ in range(100):
        out._append(memoryview(b"x"))
        out._memory += 1
    flushes = 1
    while client.recv(1 << 20) and out.flush():
        flushes += 1
    while out.waiting:
        client.setblocking(False)
        try:
            client.recv(1 << 20)
        except BlockingIOError:
            pass
        flushes += out.flush()
    assert flushes > 100 // 6


def test_room_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much room there is, is asked once for many small writes, and again before too little is left."""
    asked = written = 0

    def status(descriptor: int) -> SimpleNamespace:
        nonlocal asked
        asked += 1
        return SimpleNamespace(f_frsize=1, f_blocks=16 * total, f_bavail=3 * total - written)

    total = 2 * TEMPORARY_STEP
    monkeypatch.setattr(os, "fstatvfs", status)
    room = TemporaryRoom()
    with pytest.raises(OSError, match="No space"):
        while True:
            room.take(0, 1000)
            written += 1000
    assert 2 * total - 1000 < written <= 2 * total
    assert asked < 10


def test_file_that_became_shorter(pair: Pair, tmp_path: Path) -> None:
    """A file that ends before it should ends the connection: the client must see that bytes are missing."""
    out, client = pair
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with file.open("rb") as opened, pytest.raises(Disconnected):
        out.send_file(opened.fileno(), 0, 10)
    assert out.broken
    assert client.recv(10) == b"abc"


def test_congested_spool(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """More in spools than there may be makes the output congested, until the client has taken as much."""
    monkeypatch.setattr(output, "SPOOL_LIMIT", 1 << 20)
    monkeypatch.setattr(output, "SPOOL_FILE", 1 << 18)
    out, client = pair
    before = open_descriptors()
    expected = b"x" * fill(pair)
    for number in range(1000):
        if out.is_congested():
            break
        expected += b"%06d" % number + b"y" * 65530
        out.send(expected[-65536:])
    assert MEMORY_LIMIT + (1 << 20) < len(expected) < 4 << 20
    assert open_descriptors() == before + 5
    received = bytearray()
    while out.is_congested():
        received += client.recv(65536)
        out.flush()
    assert out._spooled > (1 << 20) - (1 << 18)
    assert bytes(received) + drain(pair, len(expected) - len(received)) == expected
    assert open_descriptors() == before
    assert not out._spooled


def test_wait_for_client(pair: Pair) -> None:
    """The waiting ends when the client takes something, when it is gone, and when the time is over."""
    out, client = pair
    fill(pair)
    out.wait_for_client(0.01)
    assert out.flush() is False
    reader = threading.Timer(0.05, client.recv, [1 << 20])
    reader.start()
    out.wait_for_client(5)
    reader.join()
    sent = out.sent
    out.flush()
    assert out.sent > sent
    threading.Timer(0.05, out.abort).start()
    fill(pair)
    out.wait_for_client(5)
    assert out.broken


def test_no_room_to_spool(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room in the file system memory takes the piece, and the output is congested; nothing is lost."""

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    out, _ = pair
    before = open_descriptors()
    total = fill(pair)
    monkeypatch.setattr(os, "pwrite", full)
    out.send(b"y" * MEMORY_LIMIT)
    assert out.is_congested()
    assert open_descriptors() == before
    expected = b"x" * total + b"y" * MEMORY_LIMIT
    assert drain(pair, len(expected)) == expected
    assert not out.is_congested()


def test_room_runs_out_within_a_spool(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file system is full after part of a piece, the piece is kept whole and in order."""
    out, _ = pair
    expected = b"x" * fill(pair)
    out.send(b"1" * MEMORY_LIMIT)
    expected += b"1" * MEMORY_LIMIT
    real, calls = os.pwrite, 0

    def filling(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:1000], offset)

    monkeypatch.setattr(os, "pwrite", filling)
    out.send(b"2" * 5000)
    out.send(b"3" * 10)
    monkeypatch.setattr(os, "pwrite", real)
    out.send(b"4" * 10)
    expected += b"2" * 5000 + b"3" * 10 + b"4" * 10
    assert calls == 2
    assert drain(pair, len(expected)) == expected


def test_client_is_gone(pair: Pair) -> None:
    """When the client is gone the next sends say so, and close() frees what waited."""
    out, client = pair
    before = open_descriptors()
    fill(pair)
    out.send(b"x" * (4 * MEMORY_LIMIT))
    client.close()
    with pytest.raises(Disconnected):
        out.flush()
    assert out.broken
    with pytest.raises(Disconnected):
        out.send(b"more")
    out.close()
    assert not out.waiting
    assert open_descriptors() == before - 1


def test_abort(pair: Pair) -> None:
    """abort() ends the stream for both sides."""
    out, client = pair
    out.abort()
    with pytest.raises(Disconnected):
        out.send(b"x")
    assert client.recv(1) == b""
    out.abort()


def test_the_selector_does_not_wait_for_a_disk(pair: Pair) -> None:
    """While another thread keeps a piece, perhaps on a slow disk, the thread that polls goes on (fault 16)."""
    out, client = pair
    expected = fill(pair) + 5
    out.send(b"later")
    client.recv(1 << 20)
    before = out.sent
    with out._lock:
        polling = threading.Thread(target=out.flush_if_free)
        polling.start()
        polling.join(10)
        assert not polling.is_alive()
        assert out.sent == before
    out.flush_if_free()
    assert out.sent > before
    while out.waiting:
        client.recv(1 << 20)
        out.flush_if_free()
    assert out.sent == expected


def test_spools_do_not_fill_the_file_system(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application has files in the temporary folder too; a spool leaves it some of the room (fault 16)."""
    out, _ = pair
    blocks = 16 * 1024  # of 4 KiB: 64 MiB, of which a sixteenth is kept
    room = 32

    def status(descriptor: int) -> SimpleNamespace:
        free = blocks // 16 + room - out._spooled // 4096
        return SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bavail=free)

    monkeypatch.setattr(os, "fstatvfs", status)
    monkeypatch.setattr("wizgy.output.temporary_room", TemporaryRoom())
    fill(pair)
    while not out.is_congested():
        out.send(b"x" * 65_536)
    assert 0 < out._spooled <= room * 4096
    assert out._memory <= MEMORY_LIMIT + 2 * 65_536
