"""What waits to be sent on one connection: in memory, in a spool file, or in the application's own file.

What the client does not take at once is kept here, and the selector sends it on. Little of it is kept in memory; more
goes to temporary files; when there is too much of that too, the output is congested, and the application is not asked
for more until the client has taken some. For that its thread waits (`wait_for_client`), and another has its place.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import deque
from typing import Any, BinaryIO, Final, cast
from weakref import WeakSet

from wizgy import standard
from wizgy.primitives import RLock, monotonic, poll
from wizgy.transport import Transport, Turn
from wizgy.wsgi import Disconnected

MEMORY_LIMIT: Final = 256 * 1024
"""Bytes kept in memory for one connection before the rest goes to a file."""
SPOOL_LIMIT: Final = 256 * 1024 * 1024
"""Bytes kept in files for one connection before the application must pause."""
SPOOL_FILE: Final = 64 * 1024 * 1024
"""Bytes in one of these files. It is removed when all of it is sent, so a larger one would grow without end."""
TEMPORARY_RESERVE: Final = 64 * 1024 * 1024
"""Bytes of the file system that temporary files leave to the application, which has files there too, or a sixteenth of
it where that is less."""
TEMPORARY_STEP: Final = 1 << 20
"""Bytes that a process may write to temporary files before it looks again at how much room there is."""
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER without a wait: the close is a reset."""
ORDERLY_CLOSE: Final = struct.pack("ii", 0, 0)
"""SO_LINGER as it is by default: what waits in the kernel is sent, and then the end."""
NO_SENDFILE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What is said by a file system whose files the kernel can only read."""
HANG_UP: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
"""What says that the peer of a socket sends no more, or is gone."""
FILE_STEP: Final = 1 << 20
"""The most bytes to send before another connection has its turn: while a disk is slow, nobody can look at the clock."""


class FileSegment:
    """Part of an open file; the descriptor is its own.

    Args:
        descriptor: a descriptor to duplicate.
        offset: where the part begins, in bytes.
        count: how many bytes it has.
    """

    __slots__ = ("count", "descriptor", "offset")

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        self.descriptor = os.dup(descriptor)
        self.offset = offset
        self.count = count

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


class Spool(FileSegment):
    """A temporary file that grows at its end while it is sent from its beginning."""

    __slots__ = ()

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.fileno(), 0, 0)
        _spools.add(self)

    def close(self) -> None:
        """Close the descriptor."""
        _spools.discard(self)
        super().close()


_temporary_files: WeakSet[Any] = WeakSet()
_spools: set[Spool] = set()


def disown_temporary_files() -> None:
    """In a process just forked: close the temporary files, also those that another thread was still at."""
    for file in list(_temporary_files):
        file.raw.close()  # and not what is around it, which would write what it holds into the parent's file
    for spool in list(_spools):
        spool.close()


class Output:
    """Bytes on their way to one client, in order. Any thread may call any method.

    Args:
        sock: what to send on.

    Attributes:
        waiting: what is still to be sent; only the owner of the connection adds to it, so what it finds empty
            stays empty.
        broken: whether the client is gone. Nothing more is sent.
        sent: bytes sent since the connection began.
        wait_began: when something began to wait where nothing did before, in seconds of the monotonic clock.
        wait_base: what `sent` was then.
    """

    __slots__ = (
        "_busy",
        "_lock",
        "_memory",
        "_sock",
        "_spool",
        "_spool_end",
        "_spooled",
        "broken",
        "sent",
        "wait_base",
        "wait_began",
        "waiting",
    )

    def __init__(self, sock: Transport) -> None:
        self._sock = sock
        self._lock = RLock()
        # Whether this is being changed: a finalizer that calls `write()` may interrupt that in the same thread. What it
        # writes is put behind the rest.
        self._busy = False
        self.waiting: deque[memoryview | FileSegment] | None = None  # most connections never need one
        self._memory = 0  # bytes of the queue that are in memory
        self._spool: Spool | None = None  # the last segment, while it may still grow
        self._spool_end = 0
        self._spooled = 0  # bytes of the queue that are in spools
        self.broken = False
        self.sent = 0
        self.wait_began = 0.0
        self.wait_base = 0

    # Any thread may call it, at any time; an application finds it in its environ.
    def client_disconnected(self) -> bool:
        """Whether the client has gone: its connection has ended, or it has said that it sends no more.

        A client that closes its connection and one that only ends its side of it look the same until something is sent
        to it. Where another thread sends at this moment, the client counts as still there.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:  # the socket is closed by who has found the lock free, after `broken` is set
            return self.broken or has_hung_up(self._sock.fileno())
        finally:
            self._lock.release()

    def is_congested(self) -> bool:
        """Whether more waits than may be kept."""
        # In memory where there was no room in the file system.
        return self._spooled > SPOOL_LIMIT or self._memory > MEMORY_LIMIT

    def send(self, data: bytes) -> None:
        """Send `data`, or keep what the client does not take at once.

        Raises:
            Disconnected: the client is gone.
        """
        if self.waiting:
            with self._lock:
                self._flush()
                if self.waiting:
                    self._keep(memoryview(data))
                    return
        sent = self._send_now(data)
        if sent < len(data):
            with self._lock:
                self._keep(memoryview(data)[sent:])

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Send part of a regular file; the caller may close its descriptor after this.

        Raises:
            Disconnected: the client is gone.
        """
        with self._lock:
            self._refuse_broken()
            self._spool = None  # what comes later must stay behind this file
            self._append(FileSegment(descriptor, offset, count))
            self._flush()

    def flush(self) -> bool:
        """Send on what waits, as much as the client takes now.

        Returns:
            Whether the client might take more at once, but others should have their turn first.

        Raises:
            Disconnected: the client is gone.
        """
        with self._lock:
            return self._flush()

    def flush_if_free(self) -> bool | None:
        """Do the same for a thread that may not wait: who holds the lock may be writing to a disk that is slow.

        Returns:
            What `flush` does; None where the client was not offered anything.

        Raises:
            Disconnected: the client is gone.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._flush()
        finally:
            self._lock.release()

    def wait_for_client(self, seconds: float) -> None:
        """Wait until the client may take more, is gone, or the time is over."""
        poller = poll()
        poller.register(self._sock.fileno(), select.POLLOUT)
        poller.poll(seconds * 1000)

    def abort(self, last: bytes = b"") -> None:
        """Drop what waits and make both directions of the socket end.

        Args:
            last: what the client should get still, as far as it takes it at once.
        """
        self.broken = True
        try:
            if last:
                self._sock.send(last)
        except OSError:
            pass  # it reads nothing, or is gone
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    def reset(self) -> None:
        """Drop what waits, and make the client see at once that it is not whole, where an end would look like one.

        Another thread may be about to use the descriptor, so its number stays taken: by a socket that leads nowhere.
        """
        self.broken = True
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            with socket.socket(socket.AF_UNIX) as nobody:
                os.dup2(nobody.fileno(), self._sock.fileno(), inheritable=False)
        except OSError:
            pass  # the peer was faster, or no descriptor is left

    def close(self) -> None:
        """Drop what waits. Called once, before the socket is closed."""
        with self._lock:
            self.broken = True
            for item in self.waiting or ():
                if isinstance(item, FileSegment):
                    item.close()
            self.waiting = None
            self._spool = None

    def disown(self) -> None:
        """In a process just forked: close the application's files; who held the lock is not there."""
        self.broken = True
        for item in self.waiting or ():
            if isinstance(item, FileSegment) and not isinstance(item, Spool):
                item.close()
        self.waiting = None

    def _append(self, item: memoryview | FileSegment) -> None:
        if not self.waiting:
            self.wait_began, self.wait_base = monotonic(), self.sent
            self.waiting = deque()
        self.waiting.append(item)

    def _refuse_broken(self) -> None:
        if self.broken:
            raise Disconnected

    def _send_now(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise Disconnected
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.broken = True
            raise Disconnected from None
        self.sent += sent
        return sent

    def _keep(self, data: memoryview) -> None:
        if self._spool_end >= SPOOL_FILE:
            self._spool = None
        if self._spool is not None or self._memory + len(data) > MEMORY_LIMIT:
            if self._spool_data(data):
                return
        self._spool = None  # what comes later must stay behind this piece
        self._append(data)
        self._memory += len(data)

    def _spool_data(self, data: memoryview) -> bool:
        """Append to the spool file; False where the file system has no room."""
        if self._busy:
            return False
        self._busy = True
        segment, end = self._spool, self._spool_end
        try:
            if segment is None:
                segment, end = open_spool(), 0
            temporary_room.take(segment.descriptor, len(data))
            written = 0
            while written < len(data):
                written += os.pwrite(segment.descriptor, data[written:], end + written)
        except OSError:
            if segment is not None and segment is not self._spool:
                segment.close()
            return False  # memory takes it, and the application pauses
        finally:
            self._busy = False
        if segment is not self._spool:
            self._append(segment)
            self._spool = segment
        self._spool_end = end + len(data)
        self._spooled += len(data)
        segment.count += len(data)
        return True

    def _flush(self) -> bool:
        if self._busy:
            return False
        self._busy = True
        try:
            return self._send_waiting()
        finally:
            self._busy = False

    def _send_waiting(self) -> bool:
        budget = FILE_STEP
        turn = Turn()
        while waiting := self.waiting:
            if budget <= 0 or (budget < FILE_STEP and turn.is_over()):
                return True
            item = waiting[0]
            if isinstance(item, FileSegment):
                sent = self._send_segment(item, budget)
                if item.count == 0:
                    waiting.popleft()
            else:
                sent = self._send_now(item[:budget])
                self._memory -= sent
                if sent == len(item):
                    waiting.popleft()
                else:
                    waiting[0] = item[sent:]
            if sent == 0:
                return False  # the client takes no more now
            budget -= sent
        return False

    def _send_segment(self, segment: FileSegment, most: int) -> int:
        """Send up to `most` bytes of the file at the front of the queue, and close it after the last one."""
        self._refuse_broken()
        try:
            sent = self._send_file_now(segment, min(segment.count, most))
        except BlockingIOError:
            return 0
        except OSError:
            sent = 0
        if sent == 0:  # the client is gone, or the file became shorter than it was
            self.broken = True
            raise Disconnected
        segment.offset += sent
        segment.count -= sent
        self.sent += sent
        if isinstance(segment, Spool):
            self._spooled -= sent
        if segment.count == 0:
            segment.close()
            if segment is self._spool:
                self._spool = None
        return sent

    def _send_file_now(self, segment: FileSegment, count: int) -> int:
        try:
            return os.sendfile(self._sock.fileno(), segment.descriptor, segment.offset, count)
        except OSError as error:
            if error.errno not in NO_SENDFILE:
                raise
        data = os.pread(segment.descriptor, min(count, MEMORY_LIMIT), segment.offset)
        return self._sock.send(data) if data else 0


class TemporaryRoom:
    """What the temporary files of a process may take of their file system, so that it keeps some room for others."""

    def __init__(self) -> None:
        self._left = 0  # bytes that may be written before the next look; threads that race are off by a write

    def take(self, descriptor: int, count: int) -> None:
        """Ask for room before something is written.

        Args:
            descriptor: the file.
            count: bytes that are to be written.

        Raises:
            OSError: too little would be left.
        """
        self._left -= count
        if self._left >= 0:
            return
        status = os.fstatvfs(descriptor)
        reserve = min(TEMPORARY_RESERVE, status.f_blocks * status.f_frsize // 16)
        left = status.f_bavail * status.f_frsize - reserve - count
        self._left = min(left, TEMPORARY_STEP)
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


temporary_room: Final = TemporaryRoom()
"""That of this process."""


def has_hung_up(descriptor: int) -> bool:
    """Whether the peer of a socket has closed its side of the connection, or all of it."""
    poller = poll()
    poller.register(descriptor, HANG_UP)
    return bool(poller.poll(0))


def open_spool() -> Spool:
    """An empty spool.

    Raises:
        OSError: the file system has no room, or there is no temporary folder.
    """
    with open_temporary_file() as file:
        return Spool(file)


def open_temporary_file() -> BinaryIO:
    """An empty temporary file that has no name, so that it is gone with whoever holds it.

    Raises:
        OSError: there is no room or no temporary folder.
    """
    tempfile = standard.tempfile
    if tempfile.tempdir is None:
        tempfile.tempdir = _find_temporary_folder()
    file = cast(BinaryIO, tempfile.TemporaryFile())
    _temporary_files.add(file)
    return file


def _find_temporary_folder() -> str:
    """The first folder for temporary files that takes one.

    `tempfile.gettempdir` looks up `os.write`, which an application may have replaced.
    """
    reason: OSError = FileNotFoundError(errno.ENOENT, "there is no temporary folder")
    folders = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    for folder in filter(None, (*folders, "/tmp", "/var/tmp", "/usr/tmp", os.getcwd())):
        try:
            with standard.tempfile.TemporaryFile(buffering=0, dir=folder) as file:
                file.write(b"1")
        except OSError as error:  # noqa: PERF203 - the next may do
            reason = error
        else:
            return os.path.abspath(folder)
    raise reason
