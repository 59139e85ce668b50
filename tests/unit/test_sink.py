"""Sinks: what is written arrives whole and in order, and nobody waits for a reader, a disk or a lock."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from tests.unit.interruption import Interruption, moments_of
from wizgy import sink
from wizgy.primitives import Thread
from wizgy.sink import PIPE_BUF, FileTarget, Sink, StandardTarget, flush_all, reopen_all

LONG = 10.0
"""Seconds in which anything at all must have happened."""


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written at once, as before an engine starts; one of another test may have."""
    monkeypatch.setattr(sink, "_threads_allowed", False)


@pytest.fixture
def notices() -> list[str]:
    """What was told of trouble."""
    return []


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads write, as in a worker."""
    monkeypatch.setattr(sink, "_threads_allowed", True)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the end to read, and the end to write."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)
    os.close(reader)


def fill(writer: int) -> int:
    """Fill a pipe; returns how many bytes that took."""
    os.set_blocking(writer, False)
    count = 0
    try:
        while True:
            count += os.write(writer, b"x" * PIPE_BUF)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return count


def read_exactly(reader: int, count: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < count:
        piece = os.read(reader, count - len(data))
        assert piece
        data += piece
    return data


class Target:
    """A target that does as it is told.

    Attributes:
        written: what it has taken.
        fails: raised by the next writes, until it is None.
        most: bytes that it takes at a time.
    """

    most_at_once = 1 << 20

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.fails: Exception | None = None
        self.most = 1 << 20
        self.reopened = 0
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()

    def write(self, data: bytes) -> int:
        assert self.gate.wait(LONG)
        if self.fails is not None:
            raise self.fails
        self.written.append(data[: self.most])
        return len(self.written[-1])

    def is_ready(self, seconds: float) -> bool:
        return True

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("threaded", [False, True])
def test_lines_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, threaded: bool) -> None:
    """Lines go behind what is in the file, in order; one that comes after the end goes nowhere."""
    monkeypatch.setattr(sink, "_threads_allowed", threaded)
    file = tmp_path / "log"
    file.write_text("before\n", "ascii")
    it = Sink("It", FileTarget(str(file)), pytest.fail)
    for number in range(1000):
        it.write(f"{number} \xe9\n")
    it.close()
    it.write("after\n")
    assert file.read_text("utf-8").splitlines() == ["before", *(f"{number} \xe9" for number in range(1000))]


@pytest.mark.usefixtures("threads")
def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    """Lines of many threads are all there, none split."""
    file = tmp_path / "log"
    it = Sink("It", FileTarget(str(file)), pytest.fail)

    def write(name: str) -> None:
        for number in range(500):
            it.write(f"{name} {number}\n")

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(LONG)
    it.close()
    lines = file.read_text("ascii").splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(500))
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name} {number}" for number in range(500)]


def test_without_threads_nobody_waits(pipe: tuple[int, int], notices: list[str]) -> None:
    """In the supervisor a pipe that nobody reads takes no time; what waits is written with a later line."""
    reader, writer = pipe
    full = fill(writer)
    it = Sink("It", StandardTarget(writer), notices.append)
    began = monotonic()
    it.write("one\n")
    it.write("two\n")
    assert not it.flush(0.05)
    assert monotonic() - began < LONG / 2
    read_exactly(reader, full)
    it.write("three\n")
    assert os.read(reader, 100) == b"one\ntwo\nthree\n"
    assert it.flush(0)
    assert notices == []
    it.close()


def test_without_threads_a_full_pipe_never_holds(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may fill the pipe after it was ready: the write itself does not wait either."""
    reader, writer = pipe
    it = Sink("It", StandardTarget(writer), lambda notice: None)
    it.write("one\n")
    assert os.read(reader, 100) == b"one\n"
    fill(writer)
    monkeypatch.setattr(sink, "is_writable", lambda descriptor, seconds: not seconds)  # as it was a moment ago
    it.write("two\n")  # would hold this test for ever
    assert os.get_blocking(writer), "others share this descriptor, so it stays as it was"
    it.close(0)


@pytest.mark.usefixtures("threads")
def test_a_pipe_that_nobody_reads(pipe: tuple[int, int], notices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader leaves is kept up to a bound, then lost, with one notice; who comes late gets whole lines."""
    monkeypatch.setattr(sink, "MOST_KEPT", 100_000)
    reader, writer = pipe
    full = fill(writer)
    it = Sink("It", StandardTarget(writer), notices.append)
    for number in range(20_000):
        it.write(f"line {number:6}\n")
    [notice] = notices
    assert notice == "It does not take its lines in time; 1 line was lost."
    kept = 100_000 // 12 + 1
    read_exactly(reader, full)
    data = read_exactly(reader, kept * 12)
    assert data == b"".join(b"line %6d\n" % number for number in range(kept))
    assert it.flush(LONG)
    it.close()
    assert notices[1] == f"It does not take its lines in time; {20_000 - kept - 1} lines were lost."


@pytest.mark.usefixtures("threads")
def test_end_does_not_wait_for_ever(pipe: tuple[int, int], notices: list[str]) -> None:
    """The end of a sink waits for a moment only, and says how many lines were lost."""
    _, writer = pipe
    fill(writer)
    it = Sink("It", StandardTarget(writer), notices.append)
    for _ in range(5):
        it.write("line\n")
    began = monotonic()
    it.close(0.1)
    assert monotonic() - began < LONG / 2
    assert notices == ["It does not take its lines in time; 5 lines were lost."]


@pytest.mark.usefixtures("threads")
def test_pipes_get_whole_lines(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write to a pipe has whole lines in PIPE_BUF bytes, so that those of processes do not mix (POSIX, write)."""
    reader, writer = pipe
    writes: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if descriptor == writer:
            writes.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(sink, "write", write)
    it = Sink("It", StandardTarget(writer), pytest.fail)
    sizes = [100] * 100 + [PIPE_BUF] + [100] * 10 + [PIPE_BUF + 1] + [100]
    for size in sizes:
        it.write("x" * (size - 1) + "\n")
    assert len(read_exactly(reader, sum(sizes))) == sum(sizes)
    it.close()
    assert all(data.endswith(b"\n") for data in writes)
    assert [len(data) for data in writes if len(data) > PIPE_BUF] == [PIPE_BUF + 1]
    assert len(writes) < 20


@pytest.mark.usefixtures("threads")
def test_a_device_that_is_full(notices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is kept and tried again; there is one notice, with the reason (fault 16)."""
    monkeypatch.setattr(sink, "RETRY_AFTER", 0.01)
    target = Target()
    target.fails = OSError(28, "No space left on device")
    it = Sink("It", target, notices.append)
    for number in range(3):
        it.write(f"{number}\n")
    assert not it.flush(0.2)
    assert notices == ["It cannot be written (No space left on device); its lines wait."]
    target.fails = None
    it.write("3\n")
    assert it.flush(LONG)
    assert b"".join(target.written) == b"0\n1\n2\n3\n"
    it.close()
    assert target.closed


@pytest.mark.usefixtures("threads")
def test_notices_are_a_minute_apart(notices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as trouble lasts each minute has one notice, with what was lost since the last."""
    monkeypatch.setattr(sink, "RETRY_AFTER", 0.01)
    monkeypatch.setattr(sink, "MOST_KEPT", 10)
    now = [1000.0]
    monkeypatch.setattr(sink, "monotonic", lambda: now[0])
    target = Target()
    target.fails = OSError(28, "Full")
    it = Sink("It", target, notices.append)
    it.write("0123456789\n")
    wait_until(lambda: len(notices) == 1)
    for _ in range(7):
        it.write("lost\n")
    assert len(notices) == 1
    now[0] += sink.NOTICE_INTERVAL
    wait_until(lambda: len(notices) == 2)
    assert notices == [
        "It cannot be written (Full); its lines wait.",
        "It cannot be written (Full); 7 lines were lost.",
    ]
    it.write("lost\n")
    target.fails = None
    wait_until(lambda: b"".join(target.written) == b"0123456789\n")
    now[0] += sink.NOTICE_INTERVAL
    it.write("end\n")
    wait_until(lambda: len(notices) == 3)
    assert notices[2] == "It does not take its lines in time; 1 line was lost."
    it.close()


def wait_until(is_so: object) -> None:
    """Ask until it is so, with a deadline."""
    assert callable(is_so)
    deadline = monotonic() + LONG
    tick = threading.Event()
    while not is_so():
        assert monotonic() < deadline
        tick.wait(0.005)


@pytest.mark.parametrize("threaded", [False, True])
def test_partial_writes(monkeypatch: pytest.MonkeyPatch, *, threaded: bool) -> None:
    """What a write leaves over follows."""
    monkeypatch.setattr(sink, "_threads_allowed", threaded)
    target = Target()
    target.most = 3
    it = Sink("It", target, pytest.fail)
    for number in range(100):
        it.write(f"line {number}\n")
    it.close()
    assert b"".join(target.written) == b"".join(b"line %d\n" % number for number in range(100))


def test_a_line_that_was_begun_does_not_go_on_in_another_file(notices: list[str]) -> None:
    """After a partial write and a rotation the new file begins with a whole line (fault 17)."""
    target = Target()
    target.most = 3
    it = Sink("It", target, notices.append)
    real = target.write

    def write_once(data: bytes) -> int:
        count = real(data)
        target.fails = OSError(28, "Full")
        return count

    target.write = write_once  # type: ignore[method-assign]
    it.write("first\n")
    target.write, target.fails, target.most = real, None, 100  # type: ignore[method-assign]
    it.reopen()
    it.write("second\n")
    assert target.written == [b"fir", b"second\n"]
    it.close()


@pytest.mark.parametrize("threaded", [False, True])
def test_reopen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, threaded: bool) -> None:
    """After a rename what is written goes to a new file; nothing is lost (fault 17)."""
    monkeypatch.setattr(sink, "_threads_allowed", threaded)
    file, old = tmp_path / "log", tmp_path / "log.1"
    it = Sink("It", FileTarget(str(file)), pytest.fail)
    it.write("old\n")
    assert it.flush(LONG)
    file.rename(old)
    reopen_all()
    it.write("new\n")
    it.close()
    assert (old.read_text("ascii"), file.read_text("ascii")) == ("old\n", "new\n")


def test_reopen_that_fails(tmp_path: Path, notices: list[str]) -> None:
    """Where the file cannot be opened again the old one stays, and it is said."""
    folder = tmp_path / "folder"
    folder.mkdir()
    it = Sink("It", FileTarget(str(folder / "log")), notices.append)
    folder.rename(tmp_path / "moved")
    it.reopen()
    it.write("line\n")
    it.close()
    assert notices == ["It cannot be opened again: No such file or directory. The old file stays in use."]
    assert (tmp_path / "moved" / "log").read_text("ascii") == "line\n"


def test_a_sink_that_tells_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error log tells of its own trouble once it can be written, and not before."""
    monkeypatch.setattr(sink, "MOST_KEPT", 10)
    target = Target()
    target.fails = OSError(28, "Full")
    it: Sink = Sink("It", target, lambda text: it.write(f"{text}\n"), tells_itself=True)
    it.write("0123456789\n")
    it.write("lost\n")
    target.fails = None
    it.flush()
    assert b"".join(target.written) == b"0123456789\nIt does not take its lines in time; 1 line was lost.\n"
    it.close()


def test_a_descriptor_that_others_made_not_to_block(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output may be one on which writes do not wait: the thread waits for it all the same."""
    monkeypatch.setattr(sink, "_threads_allowed", True)
    reader, writer = pipe
    full = fill(writer)
    os.set_blocking(writer, False)
    it = Sink("It", StandardTarget(writer), pytest.fail)
    it.write("line\n")
    read_exactly(reader, full)
    assert read_exactly(reader, 5) == b"line\n"
    assert it.flush(LONG)
    it.close()


@pytest.mark.usefixtures("threads")
def test_fork(tmp_path: Path) -> None:
    """A process that an application forks does not write what waits in its parent, and can write."""
    target = Target()
    target.gate.clear()
    file = tmp_path / "log"
    held = Sink("Held", target, pytest.fail)
    held.write("the parent's\n")
    it = Sink("It", FileTarget(str(file)), pytest.fail)
    it.write("parent\n")
    pid = os.fork()
    if pid == 0:
        try:
            it.write("child\n")
            flush_all()
            os._exit(len(held._lines) + len(held._rest))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    target.gate.set()
    it.close()
    held.close()
    assert sorted(file.read_text("ascii").splitlines()) == ["child", "parent"]
    assert b"".join(target.written) == b"the parent's\n"


def test_no_thread_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no thread left, lines are written without one."""
    monkeypatch.setattr(sink, "_threads_allowed", True)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    file = tmp_path / "log"
    it = Sink("It", FileTarget(str(file)), pytest.fail)
    it.write("line\n")
    assert file.read_text("ascii") == "line\n"
    it.close()


def test_named_pipe(tmp_path: Path) -> None:
    """A log may be a named pipe: its writes are no larger than a pipe takes whole."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        target = FileTarget(str(path))
        assert target.most_at_once == PIPE_BUF
        it = Sink("It", target, pytest.fail)
        it.write("line\n")
        assert os.read(reader, 100) == b"line\n"
        it.close()
    finally:
        os.close(reader)


class Restless:
    """A target that is written to while something else happens: each write does one more thing first."""

    most_at_once = 1 << 20

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.first: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> int:
        self.first()
        self.written.append(data)
        return len(data)

    def is_ready(self, seconds: float) -> bool:
        return True

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("threaded", [False, True])
def test_finalizers_may_log_at_any_moment(monkeypatch: pytest.MonkeyPatch, *, threaded: bool) -> None:
    """A finalizer that logs while its own thread is anywhere in the sink neither locks it up nor loses a line."""
    monkeypatch.setattr(sink, "_threads_allowed", threaded)
    target = Restless()
    it = Sink("It", target, pytest.fail)
    count = itertools.count()

    class Lost:
        def __init__(self) -> None:
            self.me = self  # a cycle, so it is the collector that finds it

        def __del__(self) -> None:
            it.write(f"lost {next(count)}\n")

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(500):
            Lost()
            it.write(f"line {number}\n")
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert it.flush(LONG)
    it.close()
    lines = b"".join(target.written).decode("ascii").splitlines()
    assert [line for line in lines if line.startswith("line")] == [f"line {number}" for number in range(500)]
    assert sorted(line for line in lines if line.startswith("lost")) == sorted(f"lost {n}" for n in range(500))


STEPS = {
    False: ["write", "_find_writer", "_let_go", "_take_lines", "_write_now", "_write_some"],
    True: ["write", "_find_writer", "_gather", "_take_lines", "_write_lines"],
}
"""The methods that a line goes through, without a thread and with one."""


@pytest.mark.parametrize(
    ("threaded", "method"), [(key, method) for key, methods in STEPS.items() for method in methods]
)
def test_a_line_in_the_middle_of_any_step(monkeypatch: pytest.MonkeyPatch, method: str, *, threaded: bool) -> None:
    """Wherever in the sink a finalizer or a signal handler comes between, its line is written as well."""
    monkeypatch.setattr(sink, "_threads_allowed", threaded)
    monkeypatch.setattr(sink, "IDLE", 100 * LONG)  # only a wake-up ends the waiting
    happened = 0
    code = getattr(Sink, method).__code__
    for offset in moments_of(code):
        target = Restless()
        it = Sink("It", target, pytest.fail, pause=0.0)
        interruption = Interruption(code, offset, partial(it.write, "inner\n"))
        with interruption:
            it.write("outer\n")
            wait_until(lambda: b"outer\n" in b"".join(target.written))  # noqa: B023 - called within the loop
        happened += interruption.happened
        lines = ["inner", "outer"] if interruption.happened else ["outer"]
        wait_until(lambda: len(b"".join(target.written).split()) == len(lines))  # noqa: B023
        assert sorted(b"".join(target.written).decode("ascii").split()) == lines
        it.close()
    assert happened


@pytest.mark.parametrize("threaded", [False, True])
def test_a_handler_may_log_during_a_flush(monkeypatch: pytest.MonkeyPatch, *, threaded: bool) -> None:
    """A signal handler of the main thread logs while that waits for the log, or writes it."""
    monkeypatch.setattr(sink, "_threads_allowed", threaded)
    target = Restless()
    it = Sink("It", target, pytest.fail, pause=0.0)
    arrived = threading.Event()

    def handle(number: int, frame: object) -> None:
        it.write("handled\n")
        arrived.set()

    def send() -> None:
        target.first = lambda: None
        os.kill(os.getpid(), signal.SIGUSR1)
        if threaded:
            assert arrived.wait(LONG)  # while the main thread waits for this write

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        target.first = send
        it.write("line\n")
        assert it.flush(LONG)
        wait_until(arrived.is_set)
        assert it.flush(LONG)
    finally:
        signal.signal(signal.SIGUSR1, before)
    it.close()
    assert b"".join(target.written).split() == [b"line", b"handled"]


@pytest.mark.usefixtures("threads")
def test_a_line_that_comes_as_the_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line from a thread that still saw the sink's thread, which ends at that moment, is written at once."""
    monkeypatch.setattr(sink, "IDLE", 0.01)
    target = Restless()
    it = Sink("It", target, pytest.fail, pause=0.0)
    real = it._let_go
    late: list[int] = []

    def let_go() -> bool:
        if not late:
            thread = it._thread
            it._thread = Thread(pytest.fail, "late")  # as it was when the other thread looked
            it.write("late\n")
            it._thread = thread
            late.append(1)
        return real()

    monkeypatch.setattr(it, "_let_go", let_go)
    it.write("line\n")
    wait_until(lambda: b"".join(target.written) == b"line\nlate\n")
    it.close()
