"""Where the lines of logs go: a file, or standard output or error. Writing a line never waits and never fails.

Rules of this file:

- Once `start_writers` was called, lines are queued, and each sink has a thread that writes them out. A thread that
  waits for a pipe that nobody reads, or for a disk that hangs, is nobody else's.
- Before that, and in the supervisor, which has no threads, a line is written at once if that needs no waiting, and else
  with a later one.
- To a file many lines are one write; to a pipe, terminal or socket at most `PIPE_BUF` bytes, unless one line is longer.
  So the lines of several processes do not mix (POSIX, "write").
- What cannot be written is kept up to a bound. What is lost beyond it is counted, and told once a minute.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable, Iterable
from os import open as open_descriptor
from os import write
from typing import Final, Protocol, TextIO

from wizgy.locks import Wakeup, release
from wizgy.primitives import Lock, RLock, Thread, monotonic, poll

MOST_KEPT: Final = 4 << 20
"""Characters that wait for a sink at most."""
PAUSE: Final = 0.05
"""Seconds between two writes of a thread. Each costs the others a change of threads, so many lines share one."""
IDLE: Final = 2.0
"""Seconds without a line after which the thread ends."""
RETRY_AFTER: Final = 1.0
"""Seconds after which a write that failed is tried again."""
NOTICE_INTERVAL: Final = 60.0
"""Seconds between two notices of the same trouble."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds for which the end of a server waits for one of its logs."""
LARGEST_WRITE: Final = 1 << 20
PIPE_BUF: Final = getattr(select, "PIPE_BUF", 512)

Arrange = Callable[[list[str]], Iterable[str]]


class Target(Protocol):
    """What bytes are written to.

    Attributes:
        most_at_once: bytes of one write, so that it is not mixed with those of other processes.
    """

    most_at_once: int

    def write(self, data: bytes) -> int:
        """Write some of the bytes; returns how many."""

    def is_ready(self, seconds: float) -> bool:
        """Wait until a write of `most_at_once` bytes need not wait, for so many seconds at most."""

    def reopen(self) -> None:
        """Go on with the file that has the name now."""

    def close(self) -> None:
        """Close what was opened for it."""


class FileTarget:
    """A file that is appended to.

    Args:
        path: its path.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._open()
        # It may be a named pipe, or a device.
        is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self.most_at_once = LARGEST_WRITE if is_file else PIPE_BUF

    def _open(self) -> int:
        """Open it without waiting; a named pipe that nothing reads yet has this end for a reader until then."""
        flags = os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        try:
            descriptor = open_descriptor(self._path, flags | os.O_WRONLY, 0o640)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(self._path).st_mode):
                raise
            descriptor = open_descriptor(self._path, flags | os.O_RDWR, 0o640)
        os.set_blocking(descriptor, True)  # an open file of its own: nobody else is concerned
        return descriptor

    def write(self, data: bytes) -> int:
        """Write some of the bytes; returns how many."""
        return write(self._descriptor, data)

    def is_ready(self, seconds: float) -> bool:
        """A file is always ready, what else may stand there is not."""
        return is_writable(self._descriptor, seconds)

    def reopen(self) -> None:
        """Go on with the file that has the name now.

        Raises:
            OSError: it cannot be opened; the old one stays.
        """
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class StandardTarget:
    """Standard output or error of this process, or another descriptor that it was started with and shares with others.

    Args:
        descriptor: its number.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own: socket.socket | int | None = None
        try:
            self._mode = os.fstat(descriptor).st_mode
        except OSError:
            self._mode = 0  # it is closed; each write will fail
        self.most_at_once = LARGEST_WRITE if stat.S_ISREG(self._mode) else PIPE_BUF

    def write(self, data: bytes) -> int:
        """Write some of the bytes; returns how many."""
        if _threads_allowed or stat.S_ISREG(self._mode):
            return write(self._descriptor, data)
        # Another process may fill it up between `is_ready` and this, so this must not wait either. Whether a write
        # waits is a matter of the open file, which others share; so it takes one of its own.
        if self._own is None:
            self._own = self._open_own()
        if isinstance(self._own, socket.socket):
            return self._own.send(data, socket.MSG_DONTWAIT)
        return write(self._own, data)

    def _open_own(self) -> socket.socket | int:
        if stat.S_ISSOCK(self._mode):
            return socket.socket(fileno=os.dup(self._descriptor))
        try:
            path = f"/proc/self/fd/{self._descriptor}"
            return open_descriptor(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return self._descriptor  # another system than Linux, or another user's pipe

    def is_ready(self, seconds: float) -> bool:
        """Wait until a write of `most_at_once` bytes need not wait, for so many seconds at most."""
        return is_writable(self._descriptor, seconds)

    def reopen(self) -> None:
        """It has no name to open again."""

    def close(self) -> None:
        """Close what was opened for it, and not what others have too."""
        if isinstance(self._own, socket.socket):
            self._own.close()
        elif self._own not in (None, self._descriptor):
            os.close(self._own)
        self._own = None


class StreamTarget:
    """What a program has put in the place of standard output or error, without a descriptor.

    Args:
        stream: a text stream.
    """

    most_at_once: int = LARGEST_WRITE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Write all of the bytes, as text."""
        self._stream.write(data.decode("utf-8", "backslashreplace"))
        self._stream.flush()
        return len(data)

    def is_ready(self, seconds: float) -> bool:
        """Nothing tells whether it is."""
        return True

    def reopen(self) -> None:
        """It has no name to open again."""

    def close(self) -> None:
        """It is not ours to close."""


def is_writable(descriptor: int, seconds: float) -> bool:
    """Wait until `PIPE_BUF` bytes can be written without waiting, for so many seconds at most."""
    poller = poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(seconds * 1000))


class Sink:
    """One place that lines go to, for all threads of a process.

    Args:
        name: what it is called in a notice.
        target: what is written to.
        notify: called with a notice, in any thread.
        shared: whether it is standard output or error, which outlives whoever writes there.
        tells_itself: whether `notify` writes to this very sink, so that it is of no use while that cannot be written.
        pause: seconds that the thread waits for more lines.
        arrange: makes lines of what was written; called by the one who writes out.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        notify: Callable[[str], None],
        *,
        shared: bool = False,
        tells_itself: bool = False,
        pause: float = PAUSE,
        arrange: Arrange = list,
    ) -> None:
        self._name = name
        self._target = target
        self._notify = notify
        self.shared = shared
        self._tells_itself = tells_itself
        self._pause = pause
        self._arrange = arrange
        self._closed = False
        self.begin_anew()
        _sinks.append(self)

    # Called when nobody else uses the sink: when it is made, and in a process just forked.
    def begin_anew(self) -> None:
        """Forget what waits, which is another process's to write, and the thread, which is not in this process."""
        # Held for a moment by a thread that adds or takes lines. A finalizer that logs may interrupt any of them in the
        # same thread, so it is re-entrant, and nothing is half changed where that can happen.
        self._lock = RLock()
        self._changed = Wakeup(self._lock)  # tells the thread
        self._claim = Lock()  # whoever has it writes out; it is never waited for
        self._thread: Thread | None = None  # has the claim, or looks for lines once more
        self._lines: list[str] = []  # what waits
        self._size = 0  # characters of it
        self._held = 0  # characters of what is being written out
        self._rest: deque[bytes] = deque()  # the same as bytes: the writer's own
        self._torn = False  # whether that begins in the middle of a line
        self._idle = False  # whether the thread waits for lines
        self._flushing: deque[Wakeup] = deque()  # threads that wait until all is written
        self._reopening = False
        self._failures = 0  # writes that failed
        self._trouble = ""  # why the last did, if it did
        self._lost = 0  # lines that nobody was told of yet
        self._noticed = -NOTICE_INTERVAL

    # Any thread may call it, also from a finalizer or a handler of a signal that interrupts this very method.
    def write(self, line: str) -> None:
        """Write a line, or several at once, each with its line feed. Waits for nobody, and raises nothing."""
        told, size = "", len(line)
        with self._lock:
            if self._closed:
                return
            if self._size + self._held > MOST_KEPT:
                self._lost += 1
                if not self._tells_itself:
                    told = self._take_notice()
            else:
                self._lines.append(line)
                self._size += size
                if self._idle:
                    self._changed.set()
        if told:
            self._notify(told)
        if self._thread is None:
            self._find_writer()

    def _find_writer(self) -> None:
        """Have what waits written out: by a thread, or here where there can be none."""
        if not _threads_allowed:
            self._write_now()
        elif self._claim.acquire(False):  # else whoever has it looks for lines once more
            self._thread = thread = Thread(self._run, "wizgy-log")
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # the system allows no more, or the interpreter ends
                self._thread = None
                release(self._claim)
                self._write_now()

    def _let_go(self) -> bool:
        """Give the claim back.

        Returns:
            Whether it was taken again. A thread that brought work just before that found it taken, and went.
        """
        release(self._claim)
        return self._has_work() and self._claim.acquire(False)

    def _has_work(self) -> bool:
        return bool(self._lines) or self._reopening or self._closed

    # Any thread may call it.
    def reopen(self) -> None:
        """Go on with the file that has the name now: it was renamed. Lines that wait go there."""
        self._reopening = True
        self._changed.set()
        if self._thread is None:
            self._write_now()

    # Any thread may call it.
    def flush(self, timeout: float = FLUSH_TIMEOUT) -> bool:
        """Wait until all is written, for so many seconds at most, or until that fails.

        Returns:
            Whether all is.
        """
        deadline, failures = monotonic() + timeout, self._failures
        if self._thread is None:
            self._write_now()
            while self._waits() and self._failures == failures and (left := deadline - monotonic()) > 0:
                if self._target.is_ready(left):
                    self._write_now()
            return not self._waits()
        written = Wakeup()
        self._flushing.append(written)
        self._changed.set()
        while self._waits() and self._failures == failures and (left := deadline - monotonic()) > 0:
            written.wait(left)
        self._flushing.remove(written)
        return not self._waits()

    def _waits(self) -> bool:
        return self._size > 0 or self._held > 0

    def _tell_flushing(self) -> None:
        for written in self._flushing.copy():
            written.set()

    # Any thread may call it.
    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Write what waits, for so many seconds at most, and close. What is written after this goes nowhere."""
        is_free = self.flush(timeout)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lost += sum(line.count("\n") for line in self._lines)
            self._lost += sum(data.count(b"\n") for data in self._rest.copy())
            self._noticed = -NOTICE_INTERVAL
            told = self._take_notice() if self._lost and not self._tells_itself else ""
        _sinks.remove(self)
        if told:
            self._notify(told)
        thread = self._thread
        self._changed.set()  # the thread closes the target, when it comes out of its last write
        self._write_now()  # which does it where there is none
        if is_free and thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        """What the thread does. It has the claim."""
        try:
            while self._write_lines():
                pass
        except BaseException:  # an error of wizgy itself: the next line has another thread
            self._thread = None
            release(self._claim)
            raise

    def _write_lines(self) -> bool:
        """Wait for lines and write them, as long as that takes; returns whether the thread goes on."""
        with self._lock:
            self._gather()
            lines = self._take_lines()
            told = self._take_notice()
        if told:
            self._notify(told)
        if self._closed:
            self._target.close()  # and the claim is kept, so that this happens once
            return False
        if not (lines or self._rest or self._reopening or self._lost):
            thread, self._thread = self._thread, None
            if not self._let_go():
                return False
            self._thread = thread
            return True
        self._reopen_if_asked()
        self._rest.extend(self._to_bytes(lines))
        self._write_out()
        self._held = 0
        self._tell_flushing()
        return True

    # Called with the lock held, once.
    def _gather(self) -> None:
        """Wait for work, and then a while for more lines. Where none comes for a while there is none after this."""
        self._idle = True  # before the look: who brings work after it sees this
        while not self._has_work():
            if not self._changed.wait(self._seconds_to_notice() if self._lost else IDLE):
                break  # work may have come since, so what there is decides, and not this
        self._idle = False
        if self._lines and not self._flushing and not self._closed:
            self._changed.wait(self._pause)

    # Called with the lock held.
    def _take_lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        size = sum(map(len, lines))
        self._held += size  # first: nobody who looks finds neither
        self._size -= size
        return lines

    def _write_out(self) -> None:
        """Write what was taken, as long as that takes."""
        while self._rest and not self._closed:
            if self._write_piece(RETRY_AFTER):
                continue
            with self._lock:
                told = self._take_notice()
            self._tell_flushing()  # they need not wait for it
            if told:
                self._notify(told)
            with self._lock:
                if not self._closed:
                    self._changed.wait(RETRY_AFTER)
            self._reopen_if_asked()

    def _write_now(self) -> None:
        """Without a thread: write what can be written without waiting, unless another thread does."""
        if not self._claim.acquire(False):
            return
        try:
            while self._write_some() and self._let_go():
                pass
        except BaseException:
            release(self._claim)
            raise

    def _write_some(self) -> bool:
        """Write what can be written without waiting; returns whether the claim is to be given back."""
        with self._lock:
            lines = self._take_lines()
        if self._closed:
            self._target.close()  # and the claim is kept, so that this happens once
            return False
        self._reopen_if_asked()
        self._rest.extend(self._to_bytes(lines))
        while self._rest and self._target.is_ready(0) and self._write_piece(0):
            pass
        with self._lock:
            self._held = sum(map(len, self._rest))
            told = self._take_notice()
        self._tell_flushing()
        if told:
            self._notify(told)
        return True

    def _write_piece(self, patience: float) -> bool:
        """Write the next piece, or a part of it.

        Args:
            patience: how many seconds to wait for a descriptor that others have made not to wait.

        Returns:
            Whether it is worth while to go on.
        """
        data = self._rest[0]
        try:
            count = self._target.write(data)
        except BlockingIOError:
            return patience > 0 and self._target.is_ready(patience)
        except Exception as error:  # noqa: BLE001 - a program's own stream may raise anything
            self._failures += 1
            self._trouble = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return False
        self._trouble = ""
        self._torn = count < len(data) and not data.endswith(b"\n", 0, count)
        if count < len(data):
            self._rest[0] = data[count:]
        else:
            self._rest.popleft()
        return True

    def _to_bytes(self, lines: list[str]) -> list[bytes]:
        """Make pieces that are one write each: as many lines as may be, or one."""
        pieces: list[bytes] = []
        piece: list[bytes] = []
        size = 0
        for line in self._arrange(lines):
            data = line.encode("utf-8", "backslashreplace")
            if size + len(data) > self._target.most_at_once and piece:
                pieces.append(b"".join(piece))
                piece, size = [], 0
            piece.append(data)
            size += len(data)
        if piece:
            pieces.append(b"".join(piece))
        return pieces

    def _reopen_if_asked(self) -> None:
        if not self._reopening:
            return
        self._reopening = False
        if self._torn:  # its beginning stays in the old file
            self._rest.popleft()
            self._torn = False
        try:
            self._target.reopen()
        except OSError as error:
            self._notify(f"{self._name} cannot be opened again: {error.strerror}. The old file stays in use.")

    # Called with the lock held.
    def _take_notice(self) -> str:
        """What is to be told of trouble, or nothing where there is none, or where it was told a moment ago."""
        if not self._lost and not self._trouble:
            return ""
        now = monotonic()
        if now - self._noticed < NOTICE_INTERVAL or (self._trouble and self._tells_itself):
            return ""
        self._noticed = now
        lost, self._lost = self._lost, 0
        lines = f"{lost} line{'s were' if lost != 1 else ' was'} lost" if lost else "its lines wait"
        if self._trouble:
            return f"{self._name} cannot be written ({self._trouble}); {lines}."
        return f"{self._name} does not take its lines in time; {lines}."

    def _seconds_to_notice(self) -> float:
        return max(self._noticed + NOTICE_INTERVAL - monotonic(), 0.0)


_sinks: list[Sink] = []
_threads_allowed = False


def start_writers() -> None:
    """From now on lines are written by threads: this process forks no workers."""
    global _threads_allowed
    _threads_allowed = True


def reopen_all() -> None:
    """Go on with the files that have the names now, in all logs of this process."""
    for sink in _sinks.copy():
        sink.reopen()


def flush_all(timeout: float = FLUSH_TIMEOUT) -> None:
    """Write what waits in all logs of this process, for so many seconds at most."""
    deadline = monotonic() + timeout
    for sink in _sinks.copy():
        sink.flush(max(deadline - monotonic(), 0.0))


def _begin_in_child() -> None:
    global _threads_allowed
    _threads_allowed = False
    for sink in _sinks:
        sink.begin_anew()


os.register_at_fork(after_in_child=_begin_in_child)
