"""Probes that lie: values that are not what they say, and calls that come too late.

PEP 3333 has bytestrings, native strings, tuples and lists; a subclass of one is one, and its methods may answer
anything. A server is safe when it looks at the value and not at what the value says of itself, and when it takes
nothing more from an application once its answer has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

from wsgiapp.probes import (
    PLAIN,
    PROBES,
    CountedIterable,
    FileLike,
    answer_text,
    locate_counter,
    probe,
    raise_asked,
    read_count,
    read_parameter,
    wrap_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["PROBES"]  # those of this file among them

INJECTION = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Injected: marker-51f0\r\n\r\n"
"""What a client would take for an answer, if it came where one can begin."""

kept: dict[str, Any] = {}
"""``write`` and ``start_response`` of answers that have ended, by ``key``."""


class LyingBytes(bytes):
    """A bytestring whose methods deny that there is more than one byte in it."""

    def __len__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        return False

    def __bytes__(self) -> bytes:
        return b"lie"

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        return INJECTION

    def __radd__(self, other: bytes) -> bytes:
        return other + INJECTION


class LyingText(str):
    """A native string whose methods hide what is in it."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return what could be sent."""
        return b"200 OK" if self[:1].isdigit() else b"X-Clean"

    def lower(self) -> str:
        """Return another text."""
        return "x-clean"

    def strip(self, characters: str | None = None) -> str:
        """Return another text."""
        return "clean"

    def __contains__(self, other: object) -> bool:
        return False

    def __str__(self) -> str:
        return "clean"

    def __iter__(self) -> Iterator[str]:
        return iter("clean")


class Pair(NamedTuple):
    """A field as a named tuple, which is a tuple."""

    name: str
    value: str


class ChangingPair(tuple[str, str]):
    """A tuple whose items are clean the first time that it is unpacked, and then no more."""

    seen = False

    def __iter__(self) -> Iterator[str]:
        first, self.seen = not self.seen, True
        return iter(("X-Probe", "yes") if first else ("X-Probe", "yes\r\nX-Injected: marker-51f0"))


class FieldList(list[tuple[str, str]]):
    """A list of a class of its own."""


@probe
def iterable_subclass(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give bytestrings of a class whose methods lie, in a ``list``, a ``generator`` or to ``write``."""
    data = LyingBytes(b"lying bytes\n")
    length = read_parameter(environ, "length")
    write = start_response("200 OK", [*PLAIN, *([("Content-Length", length)] if length else [])])
    kind = read_parameter(environ, "kind")
    if kind == "write":
        write(data)
        return []
    return [data] if kind == "list" else (piece for piece in (data,))


@probe
def head_subclass(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give a head of subclasses: some only another class, some that hide a line break."""
    status, fields = "200 OK", FieldList(PLAIN)
    kind = read_parameter(environ, "kind")
    split = "\r\nX-Injected: marker-51f0"
    if kind == "named-tuple":
        fields.append(Pair("X-Probe", "yes"))
    elif kind == "changing-tuple":
        fields.append(ChangingPair(("X-Probe", "yes")))
    elif kind == "status":
        status = LyingText(f"200 OK{split}")
    elif kind == "name":
        fields.append((LyingText(f"X-Probe: yes{split}"), "yes"))
    elif kind == "value":
        fields.append(("X-Probe", LyingText(f"yes{split}")))
    elif kind == "content-length":
        fields.append(("Content-Length", LyingText("3")))
    start_response(status, fields if kind == "list" else [*fields])
    return [b"body"]


@probe
def fields_changed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Change the list of fields after the call, before the first chunk."""
    fields: list[Any] = [*PLAIN]
    start_response("200 OK", fields)
    if read_parameter(environ, "kind") == "ruined":
        fields[:] = [None, 7]
    else:
        fields.append(("X-Probe", "yes\r\nX-Injected: marker-51f0"))
        fields.append(("Content-Length", "2"))
    return [b"bo", b"dy"]


@probe
def keep_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Keep ``write`` and ``start_response`` beyond the end of the answer, under a ``key``."""
    length = read_parameter(environ, "length")
    write = start_response("200 OK", [*PLAIN, *([("Content-Length", length)] if length else [])])
    kept[read_parameter(environ, "key")] = write, start_response
    yield b"ke"
    yield b"pt\n"


@probe
def late_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write with what an earlier request kept, while this one is answered."""
    write, _ = kept.pop(read_parameter(environ, "key"), (None, None))
    call_ignoring_errors(write, INJECTION)
    start_response("200 OK", [*PLAIN])
    yield b"late "
    call_ignoring_errors(write, INJECTION)
    yield b"write\n"


@probe
def late_start(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call an earlier request's ``start_response``, with and without ``exc_info``, and write with what it returns."""
    _, start = kept.pop(read_parameter(environ, "key"), (None, None))
    start_response("200 OK", [*PLAIN])
    yield b"late "
    for exc_info in (None, (RuntimeError, RuntimeError("late"), None)):
        write = call_ignoring_errors(start, "200 OK", [("X-Injected", "marker-51f0")], exc_info)
        call_ignoring_errors(write, INJECTION)
    yield b"start\n"


def call_ignoring_errors(function: Any, *arguments: object) -> Any:
    """Call a function whatever it does; None where it is none or raises."""
    try:
        return function(*arguments) if function else None
    except Exception:  # noqa: BLE001 - a server may raise what it likes
        return None


@probe
def closing_writes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write from ``close()``, after the whole answer was given; after an error with ``raise``."""
    write = start_response("200 OK", [*PLAIN])

    class Writing(CountedIterable):
        """Writes when it is closed, and counts it."""

        def __next__(self) -> bytes:
            if read_parameter(environ, "raise"):
                raise_asked(environ)
            return super().__next__()

        def close(self) -> None:
            super().close()
            write(INJECTION)

    return Writing(environ, [b"wri", b"tten\n"])


class BadClose:
    """An iterable whose ``close`` cannot be called, or not even be looked up."""

    def __init__(self, environ: WSGIEnvironment, error: BaseException | None, value: object) -> None:
        self._chunks = iter([b"cl", b"ose\n"])
        self._environ = environ
        self._error = error
        self._value = value

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if read_parameter(self._environ, "raise"):
            raise_asked(self._environ)
        return next(self._chunks)

    @property
    def close(self) -> object:
        """What PEP 3333 takes for a method."""
        if self._error is not None:
            raise self._error
        return self._value


@probe
def close_unusable(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return an iterable whose ``close`` is no method, or raises when it is looked up."""
    start_response("200 OK", [*PLAIN])
    kinds: dict[str, tuple[BaseException | None, object]] = {
        "none": (None, None),
        "number": (None, 7),
        "needs-argument": (None, lambda argument: argument),
        "lookup-raises": (RuntimeError("close cannot be looked up"), None),
        "lookup-exits": (SystemExit(3), None),
    }
    return BadClose(environ, *kinds[read_parameter(environ, "kind")])


@probe
def environ_forged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Change what ``environ`` says of the request, as middleware does that overrides the method."""
    environ.update(
        REQUEST_METHOD=read_parameter(environ, "method", "HEAD"),
        SERVER_PROTOCOL=read_parameter(environ, "protocol", "HTTP/0.9"),
        CONTENT_LENGTH="1000",
        HTTP_CONNECTION="keep-alive",
        HTTP_TRANSFER_ENCODING="chunked",
    )
    start_response("200 OK", [*PLAIN])
    yield b"for"
    yield b"ged\n"


@probe
def environ_ruined(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Replace every value of ``environ`` by one of the wrong type."""
    for key in environ:
        environ[key] = None
    return answer_text(start_response, "ruined\n")


@probe
def input_closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Close ``wsgi.input``, which no application should, without reading it."""
    call_ignoring_errors(getattr(environ["wsgi.input"], "close", None))
    return answer_text(start_response, "closed\n")


@probe
def exc_info_nothing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give the ``sys.exc_info()`` of a moment without an exception."""
    start: Callable[..., object] = start_response
    start("503 Service Unavailable", [*PLAIN], (None, None, None))
    return [b"nothing\n"]


@probe
def start_bad_then_good(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give a head that cannot be sent, catch what that raises, and go on with a good one or with none."""
    call_ignoring_errors(start_response, "200 OK", [("X-Probe", "yes\r\nX-Injected: marker-51f0")])
    if not read_parameter(environ, "go-on"):
        start_response("200 OK", [*PLAIN])
    return [b"good\n"]


@probe
def file_of_text(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wrap an object whose ``read`` returns text."""

    class TextFile(FileLike):
        """Reads text."""

        def read(self, size: int = -1) -> Any:
            return super().read(size).decode("latin-1")

    start_response("200 OK", [*PLAIN])
    return wrap_file(environ, TextFile(environ))


@probe
def file_too_generous(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wrap an object whose ``read`` gives more than it was asked for, under a Content-Length."""

    class GenerousFile(FileLike):
        """Reads everything, however little was asked for."""

        def read(self, size: int = -1) -> bytes:
            return super().read()

    start_response("200 OK", [*PLAIN, ("Content-Length", "10")])
    return wrap_file(environ, GenerousFile(environ), 10)


@probe
def reentrant(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count the calls of ``close()`` before the end of the answer: there must be none."""
    start_response("200 OK", [*PLAIN])
    path = locate_counter(environ)

    def pieces() -> Iterator[bytes]:
        yield b"before "
        yield b"%d\n" % read_count(path)

    return CountedIterable(environ, pieces())
