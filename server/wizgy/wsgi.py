"""PEP 3333: from a request to the application and from what it returns to a response.

Rules of this file, each with its section of PEP 3333:

- "environ Variables": `environ` is a dict of native strings; what a client may forge never collides with what
  the server sets, so field names with ``_`` and the field Proxy are left out.
- "The start_response() Callable": nothing is sent before the first content that is not empty; all of the head
  is checked when it is given; a second call needs `exc_info`.
- "Handling the Content-Length Header": never more than Content-Length, and a connection that got less closes.
- "Specification Details": `close()` of the iterable is called exactly once, whatever happens.
- No exception of an application, SystemExit and KeyboardInterrupt included, ends the thread that called it.

Nothing here knows sockets: bytes go to a `Channel`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, Final, Protocol, TextIO

from wizgy import standard
from wizgy.errors import ApplicationError
from wizgy.http import response as http
from wizgy.http.request import FieldSection, RequestHead, RequestLine, is_forwarded

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
StartResponse = Callable[..., Callable[[bytes], None]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

FILE_BLOCK: Final = 65536
_PASSED_ON: Final = ("close", "seek", "tell", "seekable")
"""What a `FileWrapper` has of its file."""
_BUFFERED: Final = (io.BufferedReader, io.BufferedRandom)
_PIECES: Final = (bytes, bytearray, memoryview, str)
"""What an application returns that has forgotten the list."""
_LARGE: Final = 65536
"""Bytes of content from which on it is sent by itself: putting it behind its head would copy it."""
_LARGEST_MEMO: Final = 1024
_LONGEST_NAME: Final = 64
"""How many field names are remembered, and how long they may be: clients choose them."""
# By name, as each is asked for in every response.
_LENGTH: Final = http.Framing.LENGTH
_CHUNKED: Final = http.Framing.CHUNKED
_NONE: Final = http.Framing.NONE


class Disconnected(Exception):
    """The client is gone: what is sent now reaches nobody. Ends an application's iteration, quietly."""


class Channel(Protocol):
    """Where a response goes. Every method may raise `Disconnected`."""

    def send(self, data: bytes) -> bool:
        """Send bytes, or keep them until the client takes them. Never waits.

        Returns:
            Whether more is kept than should be: the application is asked for no more until it is less.
        """

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Send `count` bytes of a regular file from `offset`. The descriptor may be closed after the call."""

    def is_closing(self) -> bool:
        """Whether the connection will close after this response, whatever the client wishes."""

    def begin_unframed(self) -> None:
        """Prepare for a response whose end is that of the connection, before its head is sent."""

    def wait_for_room(self) -> None:
        """Wait until no more is kept than should be."""

    def report(self, text: str, error: BaseException | None) -> None:
        """Say that the application is at fault, in a sentence, with the exception if there is one."""


class FileWrapper:
    """``wsgi.file_wrapper``: an iterable over a file-like object, sent by the kernel where that can be done.

    It has the `close`, `seek`, `tell` and `seekable` of its file, where the file has them: what serves a part of the
    file need not read all that stands before it.

    Args:
        filelike: an object with ``read(size)``, and a ``close()`` if it wants to be closed.
        block_size: how many bytes to read at a time.

    Source: PEP 3333, "Optional Platform-Specific File Handling"
    """

    def __init__(self, filelike: BinaryIO, block_size: int = FILE_BLOCK) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __getattr__(self, name: str) -> Any:
        if name in _PASSED_ON:
            return getattr(self.filelike, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = _read(self.filelike, self.block_size)
        if not data:
            raise StopIteration
        return data


def _read(filelike: BinaryIO, size: int) -> bytes:
    """Read a block.

    Raises:
        ApplicationError: it is no bytestring. None is what a file gives that does not block and has nothing yet: the
            content would end too early.
    """
    data = filelike.read(size)
    if isinstance(data, bytes):
        return data
    raise ApplicationError(
        f"read() of {type(filelike).__name__} returned {type(data).__name__}; a file in wsgi.file_wrapper must return "
        "bytes, and wait until there are some."
    )


def _read_up_to(wrapper: FileWrapper, length: int) -> Iterator[bytes]:
    """The blocks of a file up to Content-Length: to ask for more might wait for what never comes.

    Source: PEP 3333, "Optional Platform-Specific File Handling"
    """
    while length > 0 and (data := _read(wrapper.filelike, min(wrapper.block_size, length))):
        length -= len(data)
        yield data


def _find_plain_file(filelike: Any) -> tuple[int, int, int] | None:
    """The descriptor, the offset and the size of a file whose content is what the kernel would send, else None.

    That has to be proved: a GzipFile has a descriptor too, of other bytes; a file of /proc holds more than its size
    says, one of /sys less, and a file that is open for writing cannot be read.
    """
    if type(filelike) not in _BUFFERED and type(filelike) is not io.FileIO:
        return None
    try:
        if type(getattr(filelike, "raw", filelike)) is not io.FileIO or "read" in vars(filelike):
            return None
        filelike.flush()  # what was written, and is still in its buffer
        descriptor, offset = filelike.fileno(), filelike.tell()
        status = os.fstat(descriptor)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode) or not 0 <= offset < size or len(os.pread(descriptor, 2, size - 1)) != 1:
            return None
    except Exception:  # noqa: BLE001 - whatever is wrong with it: reading it tells
        return None
    return descriptor, offset, size


def server_environ(
    *, name: str, port: str, scheme: str, errors: TextIO | io.TextIOBase, multithread: bool, multiprocess: bool
) -> Environ:
    """The part of `environ` that is the same for every request of a listener.

    Args:
        name: ``SERVER_NAME``; not empty.
        port: ``SERVER_PORT``; not empty.
        scheme: ``http`` or ``https``.
        errors: ``wsgi.errors``.
        multithread: whether two threads of this process may call the application at once.
        multiprocess: whether another process may call the application at the same time.

    Source: PEP 3333, "environ Variables"
    """
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": errors,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
    }


_names: dict[str, str | None] = {
    "content-type": "CONTENT_TYPE",
    "content-length": None,  # set from the content that came, where some was announced
    "transfer-encoding": None,  # undone here; an application that saw it would decode a second time
    "proxy": None,  # HTTP_PROXY is a setting of HTTP clients (httpoxy)
    "forwarded": None,  # and all X-Forwarded-*: only of a trusted proxy, see `wizgy.proxied`
}


def cgi_name(field_name: str) -> str:
    """The key of any field name but Content-Type and Content-Length (RFC 3875 section 4.1.18)."""
    return "HTTP_" + field_name.upper().replace("-", "_")


def variable_name(field_name: str) -> str | None:
    """The key of a lower-case field name in `environ`, or None where it stays out.

    Source: PEP 3333, "environ Variables"; RFC 3875 section 4.1.18
    """
    try:
        return _names[field_name]
    except KeyError:
        name = None if "_" in field_name or is_forwarded(field_name) else cgi_name(field_name)
        if len(_names) < _LARGEST_MEMO and len(field_name) <= _LONGEST_NAME:
            _names[field_name] = name
        return name


def environ_of_fields(server: Environ, fields: FieldSection, client: tuple[str, str]) -> Environ:
    """Make the part of `environ` that is the same for every request of a connection with the same header section.

    Args:
        server: the part that is the same for every request (`server_environ`).
        fields: the header section.
        client: the client's address and port; both empty for a Unix socket.

    Source: PEP 3333, "environ Variables"
    """
    environ = server.copy()
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client
    names = _names
    for name, value in fields.values.items():
        key = names[name] if name in names else variable_name(name)
        if key is not None:
            environ[key] = value
    if "content-length" in fields.values:
        environ["CONTENT_LENGTH"] = "0"  # what has some says so itself
    return environ


def _decode_path(path: str) -> str:
    return standard.urllib.parse.unquote_to_bytes(path).decode("latin-1")


def build_environ(base: Environ, line: RequestLine, content: BinaryIO, content_length: int | None) -> Environ:
    """Make the `environ` of a request.

    Args:
        base: what `environ_of_fields` gave for the request's header section; it stays as it is.
        line: the request line.
        content: the whole content, at its start.
        content_length: its length in bytes, or None where none was announced or it is known to be empty.

    Source: PEP 3333, "environ Variables"
    """
    environ = base.copy()
    method, target, path, query, authority, minor = line
    environ["REQUEST_METHOD"] = method
    environ["REQUEST_URI"] = target
    environ["PATH_INFO"] = _decode_path(path) if "%" in path else path
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if minor else "HTTP/1.0"
    environ["wsgi.input"] = content
    if authority:
        environ["HTTP_HOST"] = authority
    if content_length is not None:
        environ["CONTENT_LENGTH"] = str(content_length)
    return environ


class Response:
    """One call of the application, to the end of what it returned.

    Args:
        head: the request head.
        environ: the request's environ.
        channel: where the bytes go.
        own: the fields of the server.

    Attributes:
        code: the status code that was sent, or 0 while none was.
        content_sent: how many bytes of content were sent.
        keep_alive: whether the connection may be used again.
        aborted: whether the response was cut short, so that the client must notice.
    """

    __slots__ = (
        "_channel",
        "_checked",
        "_ended",
        "_environ",
        "_excess",
        "_framing",
        "_head",
        "_iterable",
        "_own",
        "_remaining",
        "aborted",
        "code",
        "content_sent",
        "keep_alive",
    )

    def __init__(self, head: RequestHead, environ: Environ, channel: Channel, own: http.ServerFields) -> None:
        self._head = head
        self._environ = environ
        self._channel = channel
        self._own = own
        self._checked: http.CheckedHead | None = None
        self._iterable: Iterable[bytes] | None = None
        self._framing = _NONE
        self._remaining = 0  # bytes of content that Content-Length still promises
        self._excess = False  # whether there was more than it promised
        self._ended = False  # whether nothing more is taken from the application
        self.code = 0
        self.content_sent = 0
        self.keep_alive = head.keep_alive
        self.aborted = False

    def run(self, application: Application) -> None:
        """Call the application and send what it returns.

        All of its code runs in here, and so in one thread: what it holds may belong to that, as locks, connections to
        SQLite and thread-local data do.
        """
        try:
            iterable = application(self._environ, self.start_response)
            kind = type(iterable)
            if kind is list or kind is tuple:
                self._send_sequence(iterable)  # type: ignore[arg-type]
                self._finish()
                return  # there is no close() to call
            self._iterable = iterable
            if kind is not FileWrapper:
                try:
                    iterator = iter(iterable)
                except TypeError:
                    _refuse_returned(iterable)
                    raise
                self._send_all(iterator)
            elif not self._send_file(iterable):  # type: ignore[arg-type]
                self._send_all(self._iterate_file(iterable))  # type: ignore[arg-type]
            self._finish()
        except BaseException as error:  # noqa: BLE001 - the thread outlives whatever the application does
            self._fail(error)
        else:
            self._close()

    def _send_all(self, iterator: Iterator[bytes]) -> None:
        """Send what the application gives, as long as the client can follow."""
        for data in iterator:
            if self._send(data):
                if self._is_over():
                    break
                self._channel.wait_for_room()

    def head_lines(self) -> bytes:
        """The status line and the field lines of the application, where they were sent."""
        checked = self._checked
        return checked.all_lines() if checked is not None and checked.code == self.code else b""

    def start_response(
        self, status: str, headers: http.Fields, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        """The callable that an application gets.

        Raises:
            ApplicationError: the head cannot be sent, it is the second call without `exc_info`, or the response
                has ended.

        Source: PEP 3333, "The start_response() Callable"
        """
        if self._ended:
            raise _late("start_response")
        if exc_info is not None:
            try:
                if self.code:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circular reference through the traceback
        elif self._checked is not None:
            raise ApplicationError("start_response was called a second time without exc_info.")
        self._checked = http.check_head(status, headers)
        return self.write

    def write(self, data: bytes, /) -> None:
        """The callable that `start_response` returns.

        Raises:
            ApplicationError: the response has ended, or `data` is no bytestring.
            Disconnected: the client is gone, or was behind for too long.

        Source: PEP 3333, "The write() Callable"
        """
        if self._ended:
            raise _late("write")
        if self._send(data) and not self._is_over():
            self._channel.wait_for_room()

    def _send_sequence(self, pieces: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a list or tuple at once: its length is known, and no code of the application runs between."""
        content = _bytes_only(pieces[0]) if len(pieces) == 1 else b"".join(map(_bytes_only, pieces))
        if self.code:  # after write(); what it sent decided the framing
            self._send(content)
        elif content:
            self._send_framed(self._begin(len(content)), content)

    def _send(self, data: bytes) -> bool:
        """Send one piece of content, with the head before the first that is not empty.

        Returns:
            Whether the application is asked for no more, for now or because the response is over.
        """
        if type(data) is not bytes:
            if isinstance(self._iterable, _PIECES):
                _refuse_returned(self._iterable)
            data = _bytes_only(data)
        if not data:
            return self._is_over()
        return self._send_framed(b"" if self.code else self._begin(None), data)

    def _send_framed(self, head: bytes, data: bytes) -> bool:
        """Send a piece of content that is not empty, with the head if it is the first; returns what `_send` does."""
        framing = self._framing
        length = len(data)
        if framing is _LENGTH:
            if length > self._remaining:
                self._send_cut(head, data)
                return True
            self._remaining -= length
        elif framing is _NONE:
            if head:
                self._channel.send(head)
            return True
        elif framing is _CHUNKED:
            data = http.build_chunk(data)
        self.content_sent += length
        if length < _LARGE:
            return self._channel.send(head + data)
        if head:
            self._channel.send(head)
        return self._channel.send(data)

    def _is_over(self) -> bool:
        """Whether nothing of what would follow is sent."""
        return self._excess or (self.code != 0 and self._framing is _NONE)

    def _begin(self, known_length: int | None) -> bytes:
        """Build the head; from here on there is no way back."""
        checked = self._checked
        if checked is None:
            raise ApplicationError("The application gave content before it called start_response.")
        if self.keep_alive and self._channel.is_closing():
            self.keep_alive = False
        self.code = checked.code
        if checked.usual and self._head.usual:
            length = known_length if checked.content_length is None else checked.content_length
            if length is not None:
                self._framing, self._remaining = _LENGTH, length
                ending = self._own.ending if self.keep_alive else self._own.last_ending
                return http.build_usual_head(checked, length, ending)
        return self._begin_unusual(checked, known_length)

    def _begin_unusual(self, checked: http.CheckedHead, known_length: int | None) -> bytes:
        head = http.build_head(
            checked,
            minor=self._head.line.minor,
            is_head=self._head.line.method == "HEAD",
            keep_alive=self.keep_alive,
            known_length=known_length,
            own=self._own,
        )
        self._framing = head.framing
        self._remaining = head.content_length
        if head.framing is http.Framing.CLOSE:
            self.keep_alive = False
            self._channel.begin_unframed()
        return head.data

    def _send_cut(self, head: bytes, data: bytes) -> None:
        """Send what does not go past Content-Length: the client would take the rest for the next response."""
        if not self._excess:
            self._excess = True
            self._channel.report("The application gave more content than its Content-Length; it was cut.", None)
        length, self._remaining = self._remaining, 0
        self.content_sent += length
        if head or length:
            self._channel.send(head + data[:length])

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send a plain file; False where the wrapper must be iterated instead."""
        found = None if self.code else _find_plain_file(wrapper.filelike)
        if found is None:
            return False
        descriptor, offset, size = found
        count = size - offset
        head = self._begin(count)
        if self._framing is _LENGTH:
            count = min(count, self._remaining)
            self._remaining -= count
        elif self._framing is not http.Framing.CLOSE:
            count = 0
        self.content_sent += count
        self._channel.send(head)
        if count:
            self._channel.send_file(descriptor, offset, count)
        return True

    def _iterate_file(self, wrapper: FileWrapper) -> Iterator[bytes]:
        """Iterate what the kernel cannot send, up to the Content-Length that was said or is still to come."""
        if self.code:
            length = self._remaining if self._framing is _LENGTH else None
        else:
            length = self._checked.content_length if self._checked is not None else None
        return iter(wrapper) if length is None else _read_up_to(wrapper, length)

    def _finish(self) -> None:
        """End a response whose application gave all that it had."""
        self._ended = True
        if not self.code:
            # The answer to HEAD may come without the content whose length it should tell.
            self._channel.send(self._begin(None if self._head.line.method == "HEAD" else 0))
        framing = self._framing
        if framing is _LENGTH:
            if self._remaining > 0:
                lacking = f"The application gave {self._remaining} bytes less than its Content-Length."
                self._channel.report(lacking, None)
                self._abort()
        elif framing is _CHUNKED:
            self._channel.send(http.LAST_CHUNK)

    def _fail(self, error: BaseException) -> None:
        """Answer 500 if nothing was sent, else make the client see that the response is not whole."""
        self._ended = True
        self._close()
        if isinstance(error, Disconnected):
            self._abort()
            return
        self._channel.report("The application failed.", error)
        if self.code:
            self._abort()
            return
        self.code = 500
        answer = http.build_error(
            500,
            "Internal Server Error",
            own=self._own,
            is_head=self._head.line.method == "HEAD",
        )
        self.keep_alive = False
        try:
            self._channel.send(answer)
        except Disconnected:
            self._abort()

    def _abort(self) -> None:
        self.aborted = True
        self.keep_alive = False

    def _close(self) -> None:
        """Call `close()` of the iterable, once."""
        iterable, self._iterable = self._iterable, None
        try:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # noqa: BLE001
            self._channel.report("close() of the application's iterable failed.", error)


def _refuse_returned(returned: object) -> None:
    """Say what is wrong with what an application returned, unless its own ``__iter__`` is.

    Raises:
        ApplicationError: it cannot be iterated, or is a piece of content where there should be an iterable of them.
    """
    kind = type(returned)
    if hasattr(kind, "__iter__") and not isinstance(returned, _PIECES):
        return
    hint = ""
    if returned is None:
        hint = " Is a return missing?"
    elif isinstance(returned, _PIECES):
        hint = " Put it into a list, text encoded: [content]."
    elif hasattr(kind, "__await__") or hasattr(kind, "__aiter__"):
        hint = " It is asynchronous, as in ASGI, and wizgy serves WSGI."
    elif callable(returned):
        hint = " It is callable: where it is the application, write module:function() for the function that makes it."
    raise ApplicationError(f"The application returned {kind.__name__}; it must return an iterable of bytes.{hint}")


def _late(name: str) -> ApplicationError:
    """What an application keeps and calls too late would come in the middle of another response."""
    return ApplicationError(f"{name}() was called after the response had ended.")


def _bytes_only(data: bytes) -> bytes:
    """A bytestring itself; of a subclass the bytes that are in it, whatever its methods say of them."""
    if type(data) is bytes:
        return data
    if isinstance(data, bytes):
        return bytes(memoryview(data))
    raise ApplicationError(f"The application gave {type(data).__name__}; content must be bytes.")
