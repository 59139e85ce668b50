"""One call of an application through a channel that only keeps what it gets (PEP 3333)."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import socket
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wizgy import wsgi
from wizgy.errors import ApplicationError
from wizgy.http.request import HeadReader, Limits, RequestHead
from wizgy.http.response import ServerFields
from wizgy.wsgi import Disconnected, FileWrapper, Response, build_environ, environ_of_fields, server_environ

Start = Callable[..., Callable[[bytes], None]]
App = Callable[[dict[str, Any], Start], Any]

DATE = b"Date: today\r\n"


class Channel:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reports: list[tuple[str, BaseException | None]] = []
        self.congested = self.closing = self.gone = False
        self.waited = 0
        self.unframed = False

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def send(self, data: bytes) -> bool:
        if self.gone:
            raise Disconnected
        self.pieces.append(data)
        return self.congested

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        self.pieces.append(b"[%d+%d]" % (offset, count) + os.pread(descriptor, count, offset))

    def report(self, text: str, error: BaseException | None) -> None:
        self.reports.append((text, error))

    def is_closing(self) -> bool:
        return self.closing

    def begin_unframed(self) -> None:
        assert not self.pieces
        self.unframed = True

    def wait_for_room(self) -> None:
        assert self.congested
        self.waited += 1
        self.congested = False


class Body:
    """An iterable that counts its close() calls."""

    def __init__(self, *pieces: Any, close_error: BaseException | None = None) -> None:
        self.pieces = pieces
        self.closed = 0
        self.given = 0
        self._close_error = close_error

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            self.given += 1
            yield piece

    def close(self) -> None:
        self.closed += 1
        if self._close_error is not None:
            raise self._close_error


class Call:
    """A response and all that it did."""

    def __init__(self, app: App, head: RequestHead, channel: Channel) -> None:
        self.channel = channel
        self.reports = channel.reports
        self.response = Response(head, {}, channel, ServerFields(DATE, b""))
        self.response.run(app)

    @property
    def head(self) -> bytes:
        return self.channel.data.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def content(self) -> bytes:
        return self.channel.data.partition(b"\r\n\r\n")[2]

    def is_failure(self) -> bool:
        """Whether it is a 500 with nothing of the application's in it."""
        return (
            self.response.code == 500
            and not self.response.keep_alive
            and not self.response.aborted
            and self.channel.data.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            and self.channel.data.endswith(b"\r\n\r\nInternal Server Error\n")
            and len(self.reports) == 1
        )


def head_of(method: str = "GET", version: str = "1.1", target: str = "/", *fields: str) -> RequestHead:
    """A request head."""
    lines = [f"{method} {target} HTTP/{version}", "Host: a", *fields, "", ""]
    head = HeadReader(Limits()).read(bytearray("\r\n".join(lines).encode("latin-1")))
    assert head is not None
    return head


def call(app: App, method: str = "GET", version: str = "1.1", channel: Channel | None = None) -> Call:
    """Call an application once."""
    return Call(app, head_of(method, version), channel or Channel())


def giving(content: Any, *fields: tuple[str, str], status: str = "200 OK") -> App:
    """An application that answers with some content."""

    def app(environ: dict[str, Any], start_response: Start) -> Any:
        start_response(status, list(fields))
        return content

    return app


@pytest.mark.parametrize("content", [[b"ab", b"", b"c"], (b"abc",), [b"abc"]])
def test_list_has_its_length(content: Any) -> None:
    """A list or tuple is sent at once, with its length (PEP 3333, "Handling the Content-Length Header")."""
    done = call(giving(content))
    assert b"\r\nContent-Length: 3\r\n" in done.head
    assert done.content == b"abc"
    assert len(done.channel.pieces) == 1
    assert done.response.keep_alive
    assert done.response.content_sent == 3


@pytest.mark.parametrize("content", [[], [b""], (), iter([]), iter([b"", b""])])
def test_empty_content(content: Any) -> None:
    """Content that is empty has the length 0."""
    done = call(giving(content))
    assert b"\r\nContent-Length: 0\r\n" in done.head
    assert done.content == b""
    assert done.response.keep_alive


def test_generator_is_sent_in_chunks() -> None:
    """Each piece of an iterable leaves before the next is asked for (PEP 3333, "Buffering and Streaming")."""
    channel = Channel()
    seen: list[int] = []

    def pieces() -> Iterator[bytes]:
        for piece in b"one", b"", b"three":
            seen.append(len(channel.pieces))
            yield piece

    done = call(giving(pieces()), channel=channel)
    assert seen == [0, 1, 1]
    assert done.content == b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"
    assert done.response.keep_alive


def test_generator_in_http_1_0() -> None:
    """HTTP/1.0 has no chunks: the end of the connection is the end of the content (RFC 9112 section 6.3)."""
    done = call(giving(iter([b"one", b"two"])), version="1.0")
    assert done.content == b"onetwo"
    assert b"\r\nConnection: close\r\n" in done.head
    assert done.channel.unframed
    assert not done.response.keep_alive


def test_start_response_within_the_first_piece() -> None:
    """A generator may call start_response when it is first asked (PEP 3333, "The start_response() Callable")."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"x"

    assert call(app).response.code == 201


def test_write() -> None:
    """What write() gets comes before what the iterable gives (PEP 3333, "The write() Callable")."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"")
        write(b"one")
        return [b"two"]

    done = call(app)
    assert done.content == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def test_write_with_a_length() -> None:
    """write() and the iterable share one Content-Length."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "6")])(b"one")
        return iter([b"two"])

    assert call(app).content == b"onetwo"


def test_exc_info_before_the_head() -> None:
    """With exc_info a second start_response replaces a head that was not sent."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("X-First", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Service Unavailable", [], sys.exc_info())
        return [b"sorry"]

    done = call(app)
    assert done.response.code == 503
    assert b"X-First" not in done.head


def test_exc_info_after_the_head() -> None:
    """With exc_info after the head was sent the exception is raised again, and the response is cut."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"part"
        try:
            raise ValueError("mine")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    done = call(app)
    assert done.response.aborted
    assert not done.channel.data.endswith(b"0\r\n\r\n")
    assert isinstance(done.reports[0][1], ValueError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        RecursionError(),
        MemoryError(),
        StopIteration(),
        BaseException(),
    ],
)
def test_any_exception_is_a_500(error: BaseException) -> None:
    """Whatever an application raises before its head is a 500 for that request only."""

    def raising(environ: dict[str, Any], start_response: Start) -> Any:
        raise error

    assert call(raising).is_failure()

    class Raising:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            raise error

    if not isinstance(error, StopIteration):
        assert call(giving(Raising())).is_failure()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(), GeneratorExit()])
def test_exception_after_the_head_aborts(error: BaseException) -> None:
    """An exception after the head cuts the response, without a last chunk, and closes the iterable once."""
    body = Body(b"part", error)
    done = call(giving(body))
    assert done.response.aborted
    assert done.content == b"4\r\npart\r\n"
    assert body.closed == 1


def no_start(environ: dict[str, Any], start_response: Start) -> Any:
    """Give content without start_response."""
    return [b"x"]


def no_start_generator(environ: dict[str, Any], start_response: Start) -> Any:
    """Give content from a generator without start_response."""
    yield b"x"


def twice(environ: dict[str, Any], start_response: Start) -> Any:
    """Call start_response twice."""
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


@pytest.mark.parametrize(
    "app",
    [
        no_start,
        no_start_generator,
        twice,
        giving(["text"]),
        giving("text"),
        giving(iter(["text"])),
        giving([bytearray(b"x")]),
        giving([b"x", "text"]),
        giving(None),
        giving([b"x"], ("X-A", "b\r\nSet-Cookie: c")),
        giving([b"x"], status="200 OK\r\nX: y"),
        giving([b"x"], ("Connection", "close")),
        lambda environ, start_response: None,
        None,
    ],
)
def test_broken_applications_are_a_500(app: Any) -> None:
    """An application that breaks PEP 3333 is a 500 with nothing of its answer on the wire."""
    done = call(app)
    assert done.is_failure()
    assert b"Set-Cookie" not in done.channel.data


def test_refused_start_response_raises_in_the_application() -> None:
    """start_response raises where it is called, so that the application may answer otherwise."""

    def app(environ: dict[str, Any], start_response: Start) -> Any:
        with pytest.raises(ApplicationError):
            start_response("nonsense", [])
        start_response("200 OK", [])
        return [b"fine"]

    assert call(app).content == b"fine"


def test_fewer_bytes_than_promised() -> None:
    """Content shorter than its Content-Length cuts the connection, which may not be used again."""
    done = call(giving([b"abc"], ("Content-Length", "5")))
    assert done.content == b"abc"
    assert done.response.aborted
    assert "2 bytes less" in done.reports[0][0]


@pytest.mark.parametrize("content", [[b"abcdefg"], [b"abc", b"defg"], iter([b"abc", b"def", b"g"])])
def test_more_bytes_than_promised(content: Any) -> None:
    """Content longer than its Content-Length is cut at it, said once, and the connection stays usable."""
    done = call(giving(content, ("Content-Length", "5")))
    assert done.content == b"abcde"
    assert done.response.keep_alive
    assert len(done.reports) == 1


@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "205 Reset Content"), ("GET", "304 Not Modified")],
)
@pytest.mark.parametrize("as_list", [True, False])
def test_no_content(method: str, status: str, as_list: bool) -> None:
    """Answers to HEAD, 204, 205 and 304 have no content, and no more than one piece is asked for."""
    body = Body(b"abc", b"def", b"ghi")
    done = call(giving([b"abc"] if as_list else body, status=status), method)
    assert done.content == b""
    assert done.response.content_sent == 0
    assert done.response.keep_alive
    assert not done.reports
    if not as_list:
        assert (body.given, body.closed) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        Body(b"a", b"b"),
        Body(),
        Body(ValueError()),
        Body(b"a", ValueError()),
        Body("text"),
        Body(b"a", close_error=ValueError()),
        Body(b"a", close_error=SystemExit()),
    ],
)
def test_close_is_called_once(body: Body) -> None:
    """close() is called exactly once, whatever happens (PEP 3333, "Specification Details")."""
    call(giving(body))
    assert body.closed == 1


def test_close_is_called_when_the_client_is_gone() -> None:
    """A client that goes ends the iteration, quietly; close() is still called."""
    channel = Channel()
    channel.gone = True
    body = Body(b"a", b"b")
    done = call(giving(body), channel=channel)
    assert done.response.aborted
    assert done.reports == []
    assert (body.given, body.closed) == (1, 1)


def test_failing_close_keeps_the_answer() -> None:
    """An exception of close() is reported, and the answer that was sent is whole."""
    done = call(giving(Body(b"a", close_error=ValueError())))
    assert done.content == b"1\r\na\r\n0\r\n\r\n"
    assert not done.response.aborted
    assert "close()" in done.reports[0][0]


def test_congestion_waits() -> None:
    """While the channel is congested the application is asked for nothing, and goes on in the same call."""
    channel = Channel()
    channel.congested = True
    body = Body(b"one", b"two")
    done = call(giving(body), channel=channel)
    assert channel.waited == 1
    assert done.content == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert body.closed == 1


def test_client_that_goes_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response whose client is gone is asked for no more, and closes its iterable."""

    def wait(channel: Channel) -> None:
        raise Disconnected

    monkeypatch.setattr(Channel, "wait_for_room", wait)
    channel = Channel()
    channel.congested = True
    body = Body(b"one", b"two")
    done = call(giving(body), channel=channel)
    assert (body.given, body.closed) == (1, 1)
    assert done.response.aborted
    assert done.reports == []


def test_closing_channel() -> None:
    """When the server is about to stop the answer says that the connection closes (RFC 9112 section 9.6)."""
    channel = Channel()
    channel.closing = True
    done = call(giving([b"x"]), channel=channel)
    assert b"\r\nConnection: close\r\n" in done.head
    assert not done.response.keep_alive


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of ten bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_file_is_sent_by_the_kernel(file: Path) -> None:
    """A regular file goes to the channel as a file, from where it stands, and is closed."""
    opened = file.open("rb")
    opened.read(2)
    done = call(giving(FileWrapper(opened)))
    assert b"\r\nContent-Length: 8\r\n" in done.head
    assert done.content == b"[2+8]23456789"
    assert opened.closed
    assert done.response.content_sent == 8


@pytest.mark.parametrize(
    ("length", "content", "aborted"), [("4", b"[0+4]0123", False), ("12", b"[0+10]0123456789", True)]
)
def test_file_with_a_length(file: Path, length: str, content: bytes, aborted: bool) -> None:
    """A file is cut at Content-Length, and one that is shorter cuts the connection."""
    done = call(giving(FileWrapper(file.open("rb")), ("Content-Length", length)))
    assert done.content == content
    assert done.response.aborted is aborted


def test_file_for_head(file: Path) -> None:
    """The answer to HEAD tells the length of a file and sends none of it."""
    done = call(giving(FileWrapper(file.open("rb"))), "HEAD")
    assert b"\r\nContent-Length: 10\r\n" in done.head
    assert done.content == b""


def test_filelike_is_iterated() -> None:
    """A file-like object with no descriptor is read in blocks, and closed."""
    filelike = io.BytesIO(b"abcdefg")
    done = call(giving(FileWrapper(filelike, 3)))
    assert done.content == b"3\r\nabc\r\n3\r\ndef\r\n1\r\ng\r\n0\r\n\r\n"
    assert filelike.closed


def test_compressed_file_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """An object with the descriptor of other bytes than its own is iterated, not sent as that file."""
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"plain"))
    done = call(giving(FileWrapper(gzip.GzipFile(path))))  # type: ignore[arg-type]
    assert done.content == b"5\r\nplain\r\n0\r\n\r\n"


def test_wrapper_without_close() -> None:
    """A file-like object needs no close() (PEP 3333, "Optional Platform-Specific File Handling")."""

    class Once:
        def __init__(self) -> None:
            self.pieces = [b"abc", b""]

        def read(self, size: int) -> bytes:
            return self.pieces.pop(0)

    wrapper = FileWrapper(Once())  # type: ignore[arg-type]
    assert not hasattr(wrapper, "close")
    assert call(giving(wrapper)).content == b"3\r\nabc\r\n0\r\n\r\n"


async def make_nothing() -> None:
    """A coroutine function."""


async def make_pieces() -> Any:
    """An asynchronous generator."""
    yield b"x"


@pytest.mark.parametrize(
    ("make", "kind", "hint"),
    [
        (lambda: None, "NoneType", "Is a return missing?"),
        (lambda: 7, "int", ""),
        (lambda: "text", "str", "[content]"),
        (lambda: b"bytes", "bytes", "[content]"),
        (lambda: bytearray(b"bytes"), "bytearray", "[content]"),
        (make_nothing, "coroutine", "asynchronous"),
        (make_pieces, "async_generator", "asynchronous"),
        (lambda: make_nothing, "function", "module:function()"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_iterated_is_named(make: Callable[[], Any], kind: str, hint: str) -> None:
    """What an application returns that is no iterable of bytes is named, with what was expected (PEP 3333)."""
    done = call(giving(make()))
    assert done.is_failure()
    assert f"returned {kind}; it must return an iterable of bytes." in str(done.reports[0][1])
    assert hint in str(done.reports[0][1])


def test_fault_of_an_iterable_is_its_own() -> None:
    """A TypeError of the application's own `__iter__` stays what it is."""

    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            raise TypeError("of its own")

    assert str(call(giving(Broken())).reports[0][1]) == "of its own"


class Raw(io.RawIOBase):
    """A stream with no descriptor."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


class UpperFile(io.FileIO):
    """A file that gives other bytes than the kernel has."""

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1, /) -> Any:
        return super().read(size).upper()


def make_fifo(path: Path) -> Any:
    """The reading end of a named pipe."""
    os.mkfifo(path)
    threading.Thread(target=lambda: path.write_bytes(b"content")).start()
    return path.open("rb")


def make_pipe() -> Any:
    """The reading end of a pipe, with content."""
    reading, writing = os.pipe()
    os.write(writing, b"content")
    os.close(writing)
    return os.fdopen(reading, "rb")


def make_socket() -> Any:
    """The stream of a connected socket, with content."""
    here, there = socket.socketpair()
    there.sendall(b"content")
    there.close()
    with here:
        return here.makefile("rb")


def make_member(path: Path, *, buffered: bool) -> Any:
    """A member of an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("member", b"content")
    member = zipfile.ZipFile(path).open("member")  # noqa: SIM115 - the wrapper closes it
    return io.BufferedReader(member) if buffered else member


def make_compressed(path: Path, module: Any) -> Any:
    """A file that is unpacked while it is read."""
    path.write_bytes(module.compress(b"content"))
    return module.open(path)


def make_spooled(size: int) -> Any:
    """A temporary file, which is in memory up to some size."""
    file = tempfile.SpooledTemporaryFile(size)  # noqa: SIM115 - the wrapper closes it
    file.write(b"content")
    file.seek(0)
    return file


def make_named() -> Any:
    """A temporary file with a name."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    file.write(b"content")
    file.seek(0)
    return file


def make_instrumented(path: Path) -> Any:
    """A plain file, whose `read` somebody has replaced."""
    path.write_bytes(b"CONTENT")
    file: Any = path.open("rb")
    read = file.read
    file.read = lambda size: read(size).lower()
    return file


def make_broken(path: Path, name: str) -> Any:
    """A plain file, one of whose methods fails."""
    path.write_bytes(b"content")

    def fail() -> int:
        raise RuntimeError(name)

    file: Any = path.open("rb")
    setattr(file, name, fail)
    return file


def make_upper(path: Path, *, buffered: bool) -> Any:
    """A file of a class of one's own."""
    path.write_bytes(b"content")
    file = UpperFile(path)
    return io.BufferedReader(file) if buffered else file


ITERATED: dict[str, Callable[[Path], Any]] = {
    "a pipe": lambda path: make_pipe(),
    "a FIFO": make_fifo,
    "a socket": lambda path: make_socket(),
    "a stream with no descriptor": lambda path: io.BufferedReader(Raw(b"content")),
    "memory": lambda path: io.BytesIO(b"content"),
    "a member of an archive": lambda path: make_member(path, buffered=False),
    "a buffered member of an archive": lambda path: make_member(path, buffered=True),
    "gzip": lambda path: make_compressed(path, gzip),
    "lzma": lambda path: make_compressed(path, lzma),
    "a spooled file in memory": lambda path: make_spooled(100),
    "a spooled file on disk": lambda path: make_spooled(1),
    "a named temporary file": lambda path: make_named(),
    "read() replaced": make_instrumented,
    "fileno() that fails": lambda path: make_broken(path, "fileno"),
    "tell() that fails": lambda path: make_broken(path, "tell"),
    "a subclass": lambda path: make_upper(path, buffered=True),
    "a raw subclass": lambda path: make_upper(path, buffered=False),
}


@pytest.mark.parametrize("make", ITERATED.values(), ids=ITERATED)
@pytest.mark.parametrize("length", [None, "7"])
def test_what_is_no_plain_file_is_iterated(tmp_path: Path, make: Callable[[Path], Any], length: str | None) -> None:
    """What the kernel might send otherwise than `read` gives it is read, in blocks, and closed (PEP 3333)."""
    opened = make(tmp_path / "file")
    expected = b"CONTENT" if isinstance(getattr(opened, "raw", opened), UpperFile) else b"content"
    done = call(giving(FileWrapper(opened, 4), *([("Content-Length", length)] if length else [])))
    blocks = (expected[:4], expected[4:])
    assert done.content == (
        expected if length else b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"
    )
    assert done.reports == []
    assert opened.closed


@pytest.mark.parametrize("name", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/status"])
def test_size_that_does_not_hold(name: str) -> None:
    """A file that holds more or less than its size says is read: the size is no Content-Length."""
    if not os.path.exists(name):
        pytest.skip(f"this system has no {name}")
    done = call(giving(FileWrapper(open(name, "rb"))))  # noqa: SIM115
    assert b"Content-Length" not in done.head
    assert len(done.content) > len(b"0\r\n\r\n")
    assert b"+" not in done.content[:3]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda file: file.write(b"0123456789"), b""),
        (lambda file: (file.write(b"0123456789"), file.seek(3)), b"[3+7]3456789"),
        (lambda file: (file.write(b"0123456789"), file.flush(), file.seek(0), file.write(b"ab")), b"[2+8]23456789"),
        (lambda file: file.seek(100), b""),
        (lambda file: None, b""),
    ],
)
def test_file_that_was_written(tmp_path: Path, write: Callable[[Any], Any], expected: bytes) -> None:
    """What an application has written counts, also where it was still in a buffer; it is sent from where it stands."""
    file = (tmp_path / "file").open("w+b")
    write(file)
    done = call(giving(FileWrapper(file)))
    assert b"\r\nContent-Length: %d\r\n" % len(expected.partition(b"]")[2]) in done.head
    assert done.content == expected


def test_no_more_is_read_than_content_length() -> None:
    """A stream that goes on, such as a connection that is kept alive, is read to Content-Length (PEP 3333)."""
    asked = []

    class Endless:
        def read(self, size: int) -> bytes:
            asked.append(size)
            return b"x" * min(size, 3)

    done = call(giving(FileWrapper(Endless(), 4), ("Content-Length", "8")))  # type: ignore[arg-type]
    assert done.content == b"xxxxxxxx"
    assert asked == [4, 4, 2]
    assert done.reports == []


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda size: None, "returned NoneType"),
        (lambda size: "text", "returned str"),
        (lambda size: bytearray(b"x"), "returned bytearray"),
        (lambda size: 7, "returned int"),
    ],
)
@pytest.mark.parametrize("fields", [[], [("Content-Length", "4")]])
def test_file_that_gives_no_bytes(read: Callable[[int], Any], expected: str, fields: list[tuple[str, str]]) -> None:
    """A file whose `read` gives no bytestring is an error that says so, not the end of the content."""

    class Odd:
        pass

    odd: Any = Odd()
    odd.read = read
    done = call(giving(FileWrapper(odd), *fields))
    assert done.is_failure()
    assert f"read() of Odd {expected}; a file in wsgi.file_wrapper must return bytes" in str(done.reports[0][1])


def test_wrapper_has_what_its_file_has(file: Path) -> None:
    """Who serves a part of a file can seek in the wrapper, which is sent from there."""
    wrapper = FileWrapper(file.open("rb"))
    assert wrapper.seekable()
    wrapper.seek(7)
    assert wrapper.tell() == 7
    assert call(giving(wrapper)).content == b"[7+3]789"
    assert not any(hasattr(FileWrapper(object()), name) for name in ("seek", "tell", "seekable", "close", "read"))  # type: ignore[arg-type]


def test_subclass_of_the_wrapper_is_iterated(file: Path) -> None:
    """A wrapper of one's own decides itself what it gives."""

    class Upper(FileWrapper):
        def __next__(self) -> bytes:
            return super().__next__().replace(b"0", b"o")

    assert call(giving(Upper(file.open("rb")), ("Content-Length", "10"))).content == b"o123456789"


def test_file_after_write(file: Path) -> None:
    """After write() a file follows what was pushed."""

    def app(environ: dict[str, Any], start_response: Start) -> FileWrapper:
        start_response("200 OK", [("Content-Length", "6")])(b"ab")
        return FileWrapper(file.open("rb"), 3)

    assert call(app).content == b"ab0123"


def environ_of(head: RequestHead, content_length: int | None = None) -> dict[str, Any]:
    """The environ of a request."""
    server = server_environ(name="n", port="80", scheme="http", errors=sys.stderr, multithread=True, multiprocess=False)
    base = environ_of_fields(server, head.fields, ("1.2.3.4", "5"))
    return build_environ(base, head.line, io.BytesIO(), content_length)


def test_environ() -> None:
    """Every variable that PEP 3333 demands is there, and strings are native strings of one byte a character."""
    environ = environ_of(head_of("PUT", "1.1", "/%C3%A9%2Fa;b?c=%20", "X-A: \xe9", "Content-Type: a/b"))
    assert type(environ) is dict
    assert environ["REQUEST_METHOD"] == "PUT"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/\xc3\xa9/a;b"
    assert environ["QUERY_STRING"] == "c=%20"
    assert environ["CONTENT_TYPE"] == "a/b"
    assert environ["HTTP_X_A"] == "\xe9"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["wsgi.version"] == (1, 0)
    assert "CONTENT_LENGTH" not in environ
    assert "HTTP_CONTENT_TYPE" not in environ


def test_environ_of_chunked_content() -> None:
    """Content that came in chunks has a length, and nothing that would make an application decode it again."""
    environ = environ_of(head_of("PUT", "1.1", "/", "Transfer-Encoding: chunked"), 7)
    assert environ["CONTENT_LENGTH"] == "7"
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert environ["wsgi.input_terminated"] is True


def test_environ_of_empty_content() -> None:
    """CONTENT_LENGTH is there when content was announced, even an empty one (RFC 3875 section 4.1.2)."""
    assert environ_of(head_of("PUT", "1.1", "/", "Content-Length: 00"))["CONTENT_LENGTH"] == "0"
    assert environ_of(head_of("PUT", "1.1", "/", "Transfer-Encoding: chunked"), 0)["CONTENT_LENGTH"] == "0"
    assert "CONTENT_LENGTH" not in environ_of(head_of("PUT"))


def test_environ_leaves_out_what_collides() -> None:
    """Names with `_` and Proxy stay out of environ (CVE-2015-0219, httpoxy)."""
    fields = ["X_Request_Id: evil", "X-Request-Id: good", "Proxy: evil", "Content_Length: 5", "_: x"]
    environ = environ_of(head_of("GET", "1.1", "/", *fields))
    assert environ["HTTP_X_REQUEST_ID"] == "good"
    assert "HTTP_PROXY" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert "evil" not in environ.values()


def test_environ_leaves_out_what_proxies_tell() -> None:
    """Forwarded and X-Forwarded-* stay out of environ unless their peer is trusted (RFC 7239 section 8.1)."""
    fields = ["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-User: ann", "X-Forwarded: yes"]
    environ = environ_of(head_of("GET", "1.1", "/", *fields))
    assert [key for key in environ if "FORWARDED" in key] == ["HTTP_X_FORWARDED"]


def test_environ_of_absolute_form() -> None:
    """The authority of an absolute-form target replaces Host (RFC 9112 section 3.2.2)."""
    assert environ_of(head_of("GET", "1.1", "http://b:81/c"))["HTTP_HOST"] == "b:81"


def test_environs_are_apart() -> None:
    """What one request puts into its environ is not in the next one's."""
    server = server_environ(name="n", port="80", scheme="http", errors=sys.stderr, multithread=True, multiprocess=False)
    base = environ_of_fields(server, head_of().fields, ("", ""))
    first = build_environ(base, head_of().line, io.BytesIO(), None)
    first["mine"] = 1
    assert "mine" not in build_environ(base, head_of().line, io.BytesIO(), None)


def test_write_waits_for_room() -> None:
    """An application that pushes into a congested channel is held in write(), which PEP 3333 lets block."""

    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        write = start_response("200 OK", [])
        for _ in range(3):
            channel.congested = True
            write(b"ab")
        return []

    channel = Channel()
    call(app, channel=channel)
    assert channel.waited == 3


def test_memory_of_field_names_is_bounded() -> None:
    """Clients choose field names, so few are remembered and no long ones."""
    before = len(wsgi._names)
    assert wsgi.variable_name("x-" + "a" * 60_000) == "HTTP_X_" + "A" * 60_000
    assert len(wsgi._names) == before
    for number in range(2000):
        assert wsgi.variable_name(f"x-{number}") == f"HTTP_X_{number}"
    assert len(wsgi._names) <= wsgi._LARGEST_MEMO
