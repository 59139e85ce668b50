"""Probes: small WSGI applications, each of which exercises one sentence of PEP 3333 on the server that runs it.

The plain app mounts each at ``/probe/<name>``. A probe takes what it needs from the query string, whose
percent-encoded bytes are read as Latin-1, so that any status, field or body which a native string can carry can
be asked for. The docstring of a probe quotes or names the rule; what the server must then do is written in
``tests/conformance/cases``.

Many probes break the rules for applications on purpose: a server is judged by what it lets through.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import parse_qs, quote

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    ExceptionInformation = tuple[type[BaseException], BaseException, TracebackType]

PROBES: dict[str, WSGIApplication] = {}

PLAIN = [("Content-Type", "text/plain; charset=utf-8")]
REQUIRED_TEXT = ("REQUEST_METHOD", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL")
REQUIRED_WSGI = (
    "wsgi.version",
    "wsgi.url_scheme",
    "wsgi.input",
    "wsgi.errors",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.run_once",
)
CLOSE_DEADLINE = 4.0  # seconds; below the 5 s which the client of a case waits for an answer
POLL_INTERVAL = 0.01
STEP_TIME = 2.0  # more than a case waits for the first chunk, and bearable for a server of one thread
SETTLE_TIME = 0.05  # long enough for a second, wrong call of close() to be counted
FILE_CONTENT = b"0123456789" * 100


def probe(application: WSGIApplication) -> WSGIApplication:
    """Register an application as a probe under its own name."""
    PROBES[application.__name__] = application
    return application


def read_parameters(environ: WSGIEnvironment) -> dict[str, list[str]]:
    """Return the parameters of the query string, their percent-encoded bytes as Latin-1."""
    query = environ.get("QUERY_STRING", "")
    return parse_qs(query, keep_blank_values=True, encoding="latin-1")


def read_parameter(environ: WSGIEnvironment, name: str, default: str = "") -> str:
    """Return the first parameter of that name."""
    return read_parameters(environ).get(name, [default])[0]


def answer_text(start_response: StartResponse, text: str) -> list[bytes]:
    """Answer 200 with a text and its Content-Length."""
    body = text.encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def answer_json(start_response: StartResponse, document: dict[str, Any]) -> list[bytes]:
    """Answer 200 with a JSON object and its Content-Length."""
    body = json.dumps(document, default=repr).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]


def capture_exception(message: str) -> ExceptionInformation:
    """Return the ``sys.exc_info()`` of an exception made for it."""
    try:
        raise RuntimeError(message)
    except RuntimeError:
        return cast("ExceptionInformation", sys.exc_info())


# --- environ -----------------------------------------------------------------------------------------


@probe
def environ(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Show ``environ``: "must be a builtin Python dictionary (not a subclass [...])"."""
    shown = (str, bool, int, tuple)
    document = {
        "type": f"{type(environ).__module__}.{type(environ).__qualname__}",
        "types": {key: type(value).__name__ for key, value in environ.items()},
        "values": {key: value for key, value in environ.items() if isinstance(value, shown)},
    }
    return answer_json(start_response, document)


@probe
def environ_required(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """List which variables that ``environ`` "is required to contain" are missing or empty."""
    missing = [key for key in REQUIRED_TEXT if not environ.get(key)]
    missing += [key for key in REQUIRED_WSGI if key not in environ]
    return answer_json(start_response, {"missing": missing})


@probe
def environ_strings(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """List CGI variables which are no native strings or hold code points above U+00FF ("Unicode Issues")."""
    variables = {k: v for k, v in environ.items() if k.isupper() and "." not in k}
    wrong_type = [k for k, v in variables.items() if type(v) is not str]
    wide = [k for k, v in variables.items() if isinstance(v, str) and not fits_latin1(v)]
    return answer_json(start_response, {"not_str": wrong_type, "not_latin1": wide})


def fits_latin1(text: str) -> bool:
    """Tell whether each code point of a text is at most U+00FF."""
    return all(ord(character) <= 0xFF for character in text)


@probe
def environ_streams(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """List the methods which PEP 3333 demands of ``wsgi.input`` and ``wsgi.errors`` and which are missing."""
    required = {
        "wsgi.input": ("read", "readline", "readlines", "__iter__"),
        "wsgi.errors": ("flush", "write", "writelines"),
    }
    missing = [
        f"{key}.{method}"
        for key, methods in required.items()
        for method in methods
        if not callable(getattr(environ[key], method, None))
    ]
    return answer_json(start_response, {"missing": missing})


@probe
def environ_cleared(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Empty ``environ``: "the application is allowed to modify the dictionary in any way it desires"."""
    environ.clear()
    return answer_text(start_response, "cleared\n")


@probe
def file_wrapper_type(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say what ``wsgi.file_wrapper`` is: "a callable that accepts one required [...] parameter"."""
    wrapper = environ.get("wsgi.file_wrapper")
    kind = "absent" if wrapper is None else "callable" if callable(wrapper) else "no callable"
    return answer_text(start_response, kind)


# --- wsgi.input and wsgi.errors ----------------------------------------------------------------------


@probe
def input_calls(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call ``wsgi.input`` as the query says (``?calls=read:5,readline``) and show each result."""
    calls = read_parameter(environ, "calls").split(",")
    results = [describe_input(call_input(environ["wsgi.input"], call)) for call in calls]
    return answer_json(start_response, {"results": results})


def call_input(stream: Any, call: str) -> object:
    """Make one call such as ``read``, ``read:5``, ``readlines:1``, ``iterate`` or ``next``."""
    method, _, argument = call.partition(":")
    if method == "iterate":
        return list(stream)
    if method == "next":
        return next(iter(stream), b"")
    arguments = [int(argument)] if argument else []
    return getattr(stream, method)(*arguments)


def describe_input(result: object) -> object:
    """Show bytes as text, and anything which is not bytes as its type."""
    if isinstance(result, list):
        return [describe_input(item) for item in result]
    return result.decode("latin-1") if isinstance(result, bytes) else f"<{type(result).__name__}>"


@probe
def input_unread(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer without reading the request body, which no application has to read."""
    return answer_text(start_response, "unread\n")


@probe
def input_unread_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer in two chunks without a Content-Length and without reading the request body."""
    start_response("200 OK", [*PLAIN])
    yield b"un"
    yield b"read\n"


@probe
def input_part(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read only the first ``size`` bytes of the request body."""
    size = int(read_parameter(environ, "size", "1"))
    return answer_text(start_response, environ["wsgi.input"].read(size).decode("latin-1"))


@probe
def errors_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write text to ``wsgi.errors``: it "should be a 'text mode' stream"."""
    errors = environ["wsgi.errors"]
    errors.write("probe errors_stream: one line\n")
    errors.writelines(["probe errors_stream: two ", "strings\n"])
    errors.flush()
    return answer_text(start_response, "written\n")


# --- start_response and write ------------------------------------------------------------------------


@probe
def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a list: the ``status``, the fields (``name``, ``value``) and each ``chunk`` of the query."""
    start_response(*read_head(environ))
    return read_chunks(environ)


@probe
def answer_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """As ``answer``, from a generator, so that ``start_response`` is called by its first iteration."""
    start_response(*read_head(environ))
    yield from read_chunks(environ)


@probe
def answer_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """As ``answer``, with the callable ``write(body_data)`` and an empty iterable."""
    write = start_response(*read_head(environ))
    for chunk in read_chunks(environ):
        write(chunk)
    return []


def read_head(environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]]]:
    """Return the status and the fields which the query asks for; a Content-Type only if it has one."""
    parameters = read_parameters(environ)
    names, values = parameters.get("name", []), parameters.get("value", [])
    return parameters.get("status", ["200 OK"])[0], list(zip(names, values, strict=True))


def read_chunks(environ: WSGIEnvironment) -> list[bytes]:
    """Return the chunks which the query asks for, ``body`` when it names none."""
    return [chunk.encode("latin-1") for chunk in read_parameters(environ).get("chunk", ["body"])]


@probe
def start_arguments(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Pass three positional arguments, the third ``None``, as "exc_info" is by default."""
    body = b"three\n"
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))], None)
    return [body]


@probe
def start_returns_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say whether ``start_response`` returns "a write(body_data) callable"."""
    body = b"%s\n" % (b"no" if not callable(start_response("200 OK", [*PLAIN])) else b"callable")
    return [body]


@probe
def start_never(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Yield a body without calling ``start_response``, which must be called before the first chunk."""
    return [b"body without a head"]


@probe
def start_never_empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return an empty iterable without calling ``start_response``."""
    return []


@probe
def start_after_chunk(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call ``start_response`` only after a non-empty chunk."""
    yield b"body before the head"
    start_response("200 OK", [*PLAIN])


@probe
def start_after_empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Yield an empty bytestring, call ``start_response``, then yield the body."""
    yield b""
    start_response("200 OK", [*PLAIN])
    yield b"late\n"


@probe
def start_twice(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call ``start_response`` twice without ``exc_info``: "a fatal error"."""
    start_response("200 OK", [*PLAIN])
    start_response("200 OK", [*PLAIN])
    return [b"started twice"]


@probe
def start_twice_caught(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call ``start_response`` twice and say whether the second call raised."""
    start_response("200 OK", [*PLAIN])
    try:
        start_response("201 Created", [*PLAIN])
    except Exception:  # noqa: BLE001 - a server may raise what it likes
        return [b"raised\n"]
    return [b"not raised\n"]


@probe
def exc_info_first(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give ``exc_info`` in the first call, as an error handler does."""
    start_response("503 Service Unavailable", [*PLAIN], capture_exception("probe"))
    return [b"handled\n"]


@probe
def exc_info_replaces(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Replace status and fields while none have been sent: an application may "change its mind"."""
    length = read_parameter(environ, "length")
    fields = [("Content-Length", length)] if length else []
    start_response("200 OK", [*PLAIN, ("X-Before", "yes"), *fields])
    start_response("503 Replaced", [*PLAIN, ("X-After", "yes")], capture_exception("probe"))
    return [b"replaced\n"]


@probe
def exc_info_after_empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Replace the head after empty bytestrings, which must not have made the server send it."""
    start_response("200 OK", [*PLAIN, ("X-Before", "yes")])
    yield b""
    yield b""
    start_response("503 Replaced", [*PLAIN, ("X-After", "yes")], capture_exception("probe"))
    yield b"replaced\n"


@probe
def exc_info_after_body(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give ``exc_info`` after the head was sent: ``start_response`` "must raise" that exception."""
    start_response("200 OK", [*PLAIN])
    yield b"first\n" * 1000
    start_response("503 Too Late", [*PLAIN], capture_exception("probe"))
    yield b"not raised\n"


@probe
def exc_info_raises_same(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Catch what ``start_response`` raises after the head was sent and say whether it is ``exc_info``."""
    write = start_response("200 OK", [*PLAIN])
    write(b"first\n")
    exc_info = capture_exception("probe")
    try:
        start_response("503 Too Late", [*PLAIN], exc_info)
    except BaseException as error:  # noqa: BLE001 - the wrong ones are looked for as well
        return [b"same\n" if error is exc_info[1] else b"different\n"]
    return [b"not raised\n"]


@probe
def write_and_iterable(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Mix both ways: what was written goes out before what the iterable yields."""
    write = start_response("200 OK", [*PLAIN])
    write(b"one ")
    write(b"two ")
    return [b"three ", b"four\n"]


@probe
def write_with_length(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Mix both ways under a Content-Length which covers both."""
    write = start_response("200 OK", [*PLAIN, ("Content-Length", "8")])
    write(b"one ")
    return [b"two\n"]


@probe
def write_in_iteration(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write between chunks, which PEP 3333 forbids applications to do: the order must hold or fail."""
    write = start_response("200 OK", [*PLAIN])
    yield b"one "
    write(b"two ")
    yield b"three\n"


@probe
def write_text(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write a ``str``: "body_data [...] a bytestring"."""
    write: Any = start_response("200 OK", [*PLAIN])
    write("text")
    return []


# --- what is wrong with a head -----------------------------------------------------------------------


@probe
def status_type(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give a status which is no native string."""
    statuses: dict[str, Any] = {"int": 200, "bytes": b"200 OK", "none": None, "wide": "200 \u20ac"}
    start_response(statuses[read_parameter(environ, "kind")], [*PLAIN])
    return [b"body"]


@probe
def fields_type(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give fields which are no list of ``(name, value)`` tuples of native strings."""
    fields: dict[str, Any] = {
        "none": None,
        "dict": {"X-Probe": "yes"},
        "tuple": (("X-Probe", "yes"),),
        "generator": (pair for pair in [("X-Probe", "yes")]),
        "text": ["X-Probe: yes"],
        "single": [("X-Probe",)],
        "triple": [("X-Probe", "yes", "no")],
        "list-pair": [["X-Probe", "yes"]],
        "bytes-name": [(b"X-Probe", "yes")],
        "bytes-value": [("X-Probe", b"yes")],
        "int-value": [("X-Probe", 7)],
        "none-value": [("X-Probe", None)],
        "wide-name": [("X-Prob\u20ac", "yes")],
        "wide-value": [("X-Probe", "\u20ac")],
    }
    start_response("200 OK", fields[read_parameter(environ, "kind")])
    return [b"body"]


@probe
def fields_large(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a field value of ``size`` bytes."""
    size = int(read_parameter(environ, "size"))
    start_response("200 OK", [*PLAIN, ("X-Large", "v" * size), ("Content-Length", "5")])
    return [b"large"]


@probe
def fields_many(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with ``count`` fields."""
    count = int(read_parameter(environ, "count"))
    fields = [(f"X-Field-{number}", str(number)) for number in range(count)]
    start_response("200 OK", [*PLAIN, *fields, ("Content-Length", "4")])
    return [b"many"]


# --- iterables ---------------------------------------------------------------------------------------


class Sequence:
    """An iterable only through the old sequence protocol."""

    def __getitem__(self, index: int) -> bytes:
        """Return one of three chunks."""
        return [b"one ", b"two ", b"three\n"][index]


class Chunks:
    """An iterator which is neither a list nor a generator, and has no length."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    def __iter__(self) -> Chunks:
        """Return itself, as iterators do."""
        return self

    def __next__(self) -> bytes:
        """Return the next chunk."""
        if not self._chunks:
            raise StopIteration
        return self._chunks.pop(0)


@probe
def iterable(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return "an iterable yielding zero or more bytestrings", of the ``kind`` that the query names."""
    chunks = [b"one ", b"two ", b"three\n"]
    kinds: dict[str, Callable[[], Any]] = {
        "list": lambda: chunks,
        "tuple": lambda: tuple(chunks),
        "generator": lambda: (chunk for chunk in chunks),
        "iterator": lambda: Chunks(*chunks),
        "getitem": Sequence,
        "dict": lambda: dict.fromkeys(chunks),
        "map": lambda: map(bytes, chunks),
        "file": lambda: io.BytesIO(b"".join(chunks)),
        "empty-list": list,
        "empty-generator": lambda: iter(()),
        "empty-strings": lambda: [b"", b"", b""],
        "one": lambda: [b"".join(chunks)],
        "one-empty": lambda: [b""],
        "text": lambda: ["text"],
        "text-generator": lambda: (text for text in ["text"]),
        "integers": lambda: [1, 2],
        "none-chunk": lambda: [None],
        "none": lambda: None,
        "number": lambda: 7,
        "bytes": lambda: b"bytes",
        "bytearray": lambda: [bytearray(b"bytes")],
        "memoryview": lambda: [memoryview(b"bytes")],
    }
    start_response("200 OK", [*PLAIN])
    returned: Iterable[bytes] = kinds[read_parameter(environ, "kind")]()
    return returned


@probe
def iterable_text_later(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Yield a good chunk and then a ``str``: the head is out, so only an abort can tell the client."""
    start_response("200 OK", [*PLAIN])
    text: Any = "text"
    return Chunks(b"first\n" * 1000, text)


@probe
def iterable_length_lies(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Claim a ``len()`` of 1 and yield two chunks: "the server must be able to rely on the result"."""

    class OneOfTwo(list[bytes]):
        """A list whose length is wrong."""

        def __len__(self) -> int:
            return 1

    start_response("200 OK", [*PLAIN])
    return OneOfTwo([b"one ", b"two\n"])


@probe
def iterable_steps(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Take long to make the second chunk: servers "must not delay the transmission of any block"."""
    start_response("200 OK", [*PLAIN])
    yield b"first\n"
    time.sleep(STEP_TIME)
    yield b"second\n"


# --- errors of the application -----------------------------------------------------------------------


class ProbeError(BaseException):
    """An exception which ``except Exception`` does not catch."""


class UnprintableError(Exception):
    """An exception that cannot be logged without another one."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def __notes__(self) -> list[str]:
        raise SystemExit(3)


def recurse(depth: int) -> int:
    """Recurse until the interpreter refuses."""
    return recurse(depth + 1) + 1


def raise_named(name: str, message: str) -> NoReturn:
    """Raise the exception of that name, with a message which no answer may show."""
    if name == "RecursionError":
        recurse(0)
    kinds: dict[str, type[BaseException]] = {
        "Exception": Exception,
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "GeneratorExit": GeneratorExit,
        "MemoryError": MemoryError,
        "StopIteration": StopIteration,
        "BrokenPipeError": BrokenPipeError,
        "ConnectionResetError": ConnectionResetError,
        "TimeoutError": TimeoutError,
        "BlockingIOError": BlockingIOError,
        "UnicodeDecodeError": UnicodeError,
        "ProbeError": ProbeError,
        "UnprintableError": UnprintableError,
    }
    raise kinds[name](message)


def raise_asked(environ: WSGIEnvironment) -> NoReturn:
    """Raise what ``type`` names, with ``marker`` as message."""
    raise_named(read_parameter(environ, "type", "Exception"), read_parameter(environ, "marker"))


@probe
def raise_before(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise before ``start_response`` is called."""
    raise_asked(environ)


@probe
def raise_started(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise after ``start_response``, while nothing has been sent."""
    start_response("200 OK", [*PLAIN, ("X-Before", "yes")])
    raise_asked(environ)


class RaisingIterable:
    """Yields chunks, then raises; not a generator, which would change some exceptions."""

    def __init__(self, environ: WSGIEnvironment, *chunks: bytes) -> None:
        self._environ = environ
        self._chunks = list(chunks)

    def __iter__(self) -> Iterator[bytes]:
        """Return itself, as iterators do."""
        return self

    def __next__(self) -> bytes:
        """Return the next chunk, or raise what the query asks for."""
        if not self._chunks:
            raise_asked(self._environ)
        return self._chunks.pop(0)


@probe
def raise_first(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise when the first chunk is asked for, while nothing has been sent."""
    start_response("200 OK", [*PLAIN, ("X-Before", "yes")])
    return RaisingIterable(environ)


@probe
def raise_later(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise when the second chunk is asked for, after the head and the first were sent."""
    start_response("200 OK", [*PLAIN])
    return RaisingIterable(environ, b"first\n" * 1000)


@probe
def raise_later_length(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """As ``raise_later``, under a Content-Length that will not be reached."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "12000")])
    return RaisingIterable(environ, b"first\n" * 1000)


@probe
def raise_after_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise after ``write`` has made the server send the head."""
    write = start_response("200 OK", [*PLAIN])
    write(b"first\n" * 1000)
    raise_asked(environ)


@probe
def raise_in_iter(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return an iterable whose ``__iter__`` raises."""

    class Broken:
        """Cannot be iterated over."""

        def __iter__(self) -> Iterator[bytes]:
            raise_asked(environ)

    start_response("200 OK", [*PLAIN])
    return Broken()


# --- close() -----------------------------------------------------------------------------------------
#
# "If the iterable returned by the application has a close() method, the server or gateway must call that
# method upon completion of the current request, whether the request was completed normally, or terminated
# early due to an application error during iteration or an early disconnect of the browser."
#
# Calls are counted in a file for each ``key`` and port, not in memory: the request which asks for the count
# may be served by another process. Each probe starts its count anew.


def locate_counter(environ: WSGIEnvironment) -> Path:
    """Return the file in which calls are counted for the ``key`` of the query and the server's port."""
    folder = Path(tempfile.gettempdir(), f"wsgi-probes-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    key = quote(read_parameter(environ, "key", "none"), safe="")
    return folder / f"{environ['SERVER_PORT']}-{key}"


def count_up(path: Path) -> None:
    """Count one more; a single appended byte is never lost to another process."""
    with path.open("ab", buffering=0) as file:
        file.write(b".")


def read_count(path: Path) -> int:
    """Return how often ``count_up`` was called."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_for_count(path: Path, wanted: int) -> int:
    """Wait until the count is as wanted or the deadline has passed, and return it."""
    deadline = time.monotonic() + CLOSE_DEADLINE
    while read_count(path) < wanted and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    return read_count(path)


class CountedIterable:
    """Passes on an iterable and counts how often ``close()`` is called."""

    def __init__(self, environ: WSGIEnvironment, chunks: Iterable[Any]) -> None:
        self._path = locate_counter(environ)
        self._path.unlink(missing_ok=True)
        self._chunks = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        """Return itself, as iterators do."""
        return self

    def __next__(self) -> bytes:
        """Return the next chunk."""
        chunk: bytes = next(self._chunks)
        return chunk

    def close(self) -> None:
        """Count the call."""
        count_up(self._path)


@probe
def closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say how often ``close()`` was called under a ``key``, once it was called as often as wanted."""
    path = locate_counter(environ)
    wait_for_count(path, int(read_parameter(environ, "wanted", "1")))
    time.sleep(SETTLE_TIME)
    count = read_count(path)
    path.unlink(missing_ok=True)
    return answer_text(start_response, f"{count}\n")


@probe
def closing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer as ``answer`` does, with an iterable that counts ``close()``."""
    start_response(*read_head(environ))
    return CountedIterable(environ, read_chunks(environ))


@probe
def closing_raise_first(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise when the first chunk is asked for; ``close()`` is still called."""
    start_response("200 OK", [*PLAIN])
    return CountedIterable(environ, RaisingIterable(environ))


@probe
def closing_raise_later(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise when the second chunk is asked for; ``close()`` is still called."""
    start_response("200 OK", [*PLAIN])
    return CountedIterable(environ, RaisingIterable(environ, b"first\n" * 1000))


@probe
def closing_never_started(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Never call ``start_response``; ``close()`` is still called."""
    return CountedIterable(environ, [b"body without a head"])


@probe
def closing_text(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Yield a ``str``; ``close()`` is still called."""
    start_response("200 OK", [*PLAIN])
    return CountedIterable(environ, ["text"])


@probe
def closing_endless(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 256 MiB, which a client that goes away will not read; ``close()`` is still called."""
    start_response("200 OK", [*PLAIN])
    return CountedIterable(environ, (b"endless\n" * 8192 for _ in range(4096)))


@probe
def closing_raises(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raise from ``close()`` itself, after the whole answer was sent."""

    class Raising(CountedIterable):
        """Raises when it is closed, after counting."""

        def close(self) -> None:
            super().close()
            raise_asked(environ)

    start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
    return Raising(environ, [b"body"])


# --- wsgi.file_wrapper -------------------------------------------------------------------------------


def open_file(content: bytes = FILE_CONTENT) -> IO[bytes]:
    """Return an open file with a descriptor, at its start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    file.write(content)
    file.seek(0)
    return file


def wrap_file(environ: WSGIEnvironment, file: Any, block_size: int = 8192) -> Iterable[bytes]:
    """Wrap a file as PEP 3333 shows: with ``wsgi.file_wrapper``, or by hand where there is none."""
    if "wsgi.file_wrapper" in environ:
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, block_size)
        return wrapped
    return iter(lambda: file.read(block_size), b"")


class FileLike:
    """A "file-like object" with only the methods which ``wsgi.file_wrapper`` may count on."""

    def __init__(self, environ: WSGIEnvironment, content: bytes = FILE_CONTENT) -> None:
        self._file = io.BytesIO(content)
        self._path = locate_counter(environ)
        self._path.unlink(missing_ok=True)

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes."""
        return self._file.read(size)

    def close(self) -> None:
        """Count the call."""
        count_up(self._path)


@probe
def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a wrapped file with a descriptor; its fields are those of the query."""
    start_response(*read_head(environ))
    return wrap_file(environ, open_file())


@probe
def file_without_descriptor(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a wrapped object without ``fileno``: one "must have a read() method", no more."""
    start_response(*read_head(environ))
    return wrap_file(environ, FileLike(environ))


@probe
def file_offset(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a wrapped file at an offset: "transmission should begin at the current position"."""
    opened = open_file()
    opened.seek(int(read_parameter(environ, "offset", "990")))
    start_response(*read_head(environ))
    return wrap_file(environ, opened)


@probe
def file_buffered_offset(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read from a buffered file first, so that its position and the descriptor's differ."""
    opened = open_file()
    opened.read(990)
    start_response(*read_head(environ))
    return wrap_file(environ, opened)


@probe
def file_empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a wrapped file with nothing in it."""
    start_response(*read_head(environ))
    return wrap_file(environ, open_file(b""))


@probe
def file_large(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a wrapped file of 4 MiB, more than fits into the buffers of a socket."""
    start_response(*read_head(environ))
    return wrap_file(environ, open_file(bytes(4 * 1024 * 1024)))


@probe
def file_iterated(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Iterate over the wrapper as middleware does: a wrapper "must return an iterable object"."""
    start_response(*read_head(environ))
    yield from wrap_file(environ, open_file(), 100)


@probe
def file_after_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write before returning a wrapped file: what was written goes out first."""
    write = start_response("200 OK", [*PLAIN])
    write(b"before ")
    return wrap_file(environ, open_file(b"file\n"))
