"""What wizgy says: the error log, the access log and the wire dump, and what applications write to ``wsgi.errors``.

Rules of this file:

- One request is one line of the access log; one fault is one event of the error log, with its traceback. Each is one
  write, so those of several threads and processes do not mix.
- What a client may choose cannot end a line or move a terminal's cursor.
- A log that cannot be written neither fails nor delays a request (`wizgy.sink`).
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final, TextIO

from wizgy import standard
from wizgy.config import LOG_LEVELS, Config, find_descriptor
from wizgy.errors import UsageError
from wizgy.http.request import RequestHead
from wizgy.locks import Counter
from wizgy.logline import (
    MONTHS,
    Clock,
    Exchange,
    find_format,
    make_iso_time,
    parse_trace_parent,
    takes_answer,
    takes_id,
)
from wizgy.primitives import clock, get_ident
from wizgy.sink import FileTarget, Sink, StandardTarget, StreamTarget

DAYS: Final = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
OUTPUT: Final = 1
ERROR: Final = 2
GATHER: Final = 0.005
"""Seconds that the writer of the error log waits for more: for the rest of a traceback that comes in pieces."""
LONGEST_PART: Final = 8192
"""Characters without a line feed that are kept for the rest of the line."""

current_request_id: ContextVar[str] = ContextVar("wizgy.request_id", default="")
"""The id of the request that the application works on, where requests have ids."""

_request_id = re.compile(r"[\w.~+/=@:-]{1,128}", re.ASCII)
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_control_in_text = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_iso_time = Clock(make_iso_time)


class RequestIds:
    """Makes an id for each request of this process: random for the process, and a count."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = Counter()

    def make(self) -> str:
        """An id that no other request has, in any process."""
        return f"{self._prefix}-{self._count.next():x}"


def parse_request_id(value: str | None) -> str:
    """The id that a trusted proxy gave a request, or nothing where it is none that could stand in a log."""
    return value if value is not None and _request_id.fullmatch(value) else ""


class Piece(str):
    """Text that an application wrote to ``wsgi.errors``.

    Attributes:
        origin: the thread, its record, and the request: pieces of the same origin belong together.
    """

    origin: tuple[int, int, str] = (0, 0, "")


class ErrorLog:
    """Tells operators what went wrong, on standard error.

    In a program that runs wizgy in a thread and has set up `logging`, it goes to the logger ``wizgy`` instead. The
    command does not use `logging`: a set-up of the application would silence it, as ``disable_existing_loggers`` does.
    """

    def __init__(self) -> None:
        self._is_command = False
        self._level = LOG_LEVELS.index("info")
        self._as_json = False
        self._sink: Sink | None = None

    def configure(self, level: str, log_format: str, *, embedded: bool = False) -> None:
        """Choose what is said, and how.

        Args:
            level: the least of `LOG_LEVELS` that is.
            log_format: ``text`` or ``json``.
            embedded: whether this is the process of a program that does other things too.
        """
        self._is_command = not embedded
        self._level = LOG_LEVELS.index(level)
        self._as_json = log_format == "json"
        if self._sink is not None:
            end(self._sink)
        self._sink = None

    @property
    def sink(self) -> Sink:
        """Where the log goes."""
        sink = self._sink
        if sink is None:
            sink = self._sink = standard_sink(ERROR, self)
        return sink

    @property
    def is_command(self) -> bool:
        """Whether this process is one of the command's, whatever the application has put in place of its streams."""
        return self._is_command

    def debug(self, text: str, *values: object) -> None:
        """Say what only somebody wants to know who looks for a fault."""
        self._say("debug", text, values)

    def info(self, text: str, *values: object) -> None:
        """Say what happens."""
        self._say("info", text, values)

    def warning(self, text: str, *values: object) -> None:
        """Say what may become a fault."""
        self._say("warning", text, values)

    def error(self, text: str, *values: object) -> None:
        """Say what is at fault."""
        self._say("error", text, values)

    def exception(self, text: str, *values: object) -> None:
        """Say what is at fault, with the traceback of the exception that is being handled."""
        self._say("error", text, values, sys.exc_info()[1])

    def report(
        self,
        text: str,
        error: BaseException | None = None,
        *,
        head: RequestHead | None = None,
        request_id: str = "",
        level: str = "error",
    ) -> None:
        """Log a fault in the answer to a request.

        Args:
            text: a sentence.
            error: whose traceback is logged too.
            head: the head of the request.
            request_id: its id.
            level: one of `LOG_LEVELS`.
        """
        self._say(level, text, (), error, head, request_id)

    def say(self, text: str) -> None:
        """Write a line as it is, for the one who has started the command."""
        self.sink.write(f"{text}\n")

    def _say(
        self,
        level: str,
        text: str,
        values: tuple[object, ...],
        error: BaseException | None = None,
        head: RequestHead | None = None,
        request_id: str = "",
    ) -> None:
        try:
            host = self._find_host_logger()
            if host is not None:
                request = f"{_describe(head, request_id)}: " if head else ""
                host.log(getattr(sys.modules["logging"], level.upper()), f"{request}{text}", *values, exc_info=error)
            elif LOG_LEVELS.index(level) >= self._level:
                self.sink.write(self._format(level, text % values if values else text, error, head, request_id))
        except BaseException:  # noqa: BLE001 - a program's own handler may raise, an exception when it is printed
            self.sink.write(f"wizgy: {text} ({type(error).__name__}, which cannot be printed)\n")

    def _find_host_logger(self) -> Any:
        """The logger of a program that has set up `logging`, or None."""
        logging = None if self._is_command else sys.modules.get("logging")  # importing it takes a while
        if logging is None:
            return None
        host = logging.getLogger("wizgy")
        return host if host.hasHandlers() else None

    def _format(
        self, level: str, message: str, error: BaseException | None, head: RequestHead | None, request_id: str
    ) -> str:
        now, trace = _iso_time.show(clock.time()), _format_traceback(error)
        if not self._as_json:
            request = f"{_describe(head, request_id)}: " if head else ""
            line = f"{now} wizgy[{os.getpid()}] {level.upper()}: {request}{message}"
            return _control_in_text.sub(_escape_match, f"{line}\n{trace}" if trace else line) + "\n"
        event: dict[str, object] = {"time": now, "level": level, "pid": os.getpid(), "message": message}
        if head is not None:
            event.update(method=head.line.method, target=head.line.target)
            event.update(request_id=request_id, traceparent=parse_trace_parent(head.fields.values.get("traceparent")))
        if trace:
            event["traceback"] = trace
        return _to_json(event)

    def arrange(self, lines: list[str]) -> Iterable[str]:
        """Put the pieces of an application together that belong together, and make events of them."""
        arranged: list[list[str]] = []
        found: dict[tuple[int, int, str], list[str]] = {}
        for line in lines:
            origin = line.origin if isinstance(line, Piece) else None
            if origin is None:
                arranged.append([line])
            elif origin in found:
                found[origin].append(line)
            else:
                found[origin] = [line]
                arranged.append(found[origin])
        return [self._join(pieces) for pieces in arranged]

    def _join(self, pieces: list[str]) -> str:
        text, first = "".join(pieces), pieces[0]
        if not isinstance(first, Piece):
            return text
        request_id = first.origin[2]
        if not self._as_json:
            return f"[{request_id}] {text}" if request_id else text
        event: dict[str, object] = {"time": _iso_time.show(clock.time()), "logger": "wsgi.errors", "pid": os.getpid()}
        return _to_json({**event, "request_id": request_id, "message": text.rstrip("\n")})


def _describe(head: RequestHead, request_id: str) -> str:
    request = f"{head.line.method} {head.line.target}"
    return f"[{request_id}] {request}" if request_id else request


def _format_traceback(error: BaseException | None) -> str:
    if error is None:
        return ""
    try:
        lines = standard.traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:  # noqa: BLE001 - what it imports late may be hidden by the application's; without source lines
        frames = standard.traceback.walk_tb(error.__traceback__)
        lines = [
            f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n' for frame, line in frames
        ]
        lines = ["Traceback (most recent call last):\n", *lines, f"{type(error).__name__}: {error}"]
    return "".join(lines).rstrip("\n")


def _to_json(event: dict[str, object]) -> str:
    return standard.json.dumps(event) + "\n"


def standard_sink(descriptor: int, log: ErrorLog) -> Sink:
    """Where standard output or error goes; the same for all that write there.

    Args:
        descriptor: `OUTPUT` or `ERROR`.
        log: the error log, which is told of trouble.
    """
    stream = sys.stdout if descriptor == OUTPUT else sys.stderr
    if not log.is_command and not _is_at(stream, descriptor):
        # The program has put something else there.
        return _make_standard_sink(descriptor, log, stream)
    if descriptor not in _standard:
        _standard[descriptor] = _make_standard_sink(descriptor, log, None)
    return _standard[descriptor]


_standard: dict[int, Sink] = {}


def _make_standard_sink(descriptor: int, log: ErrorLog, stream: TextIO | None) -> Sink:
    target = StandardTarget(descriptor) if stream is None else StreamTarget(stream)
    if descriptor == OUTPUT:
        return Sink("Standard output", target, log.warning, shared=stream is None)
    return Sink(
        "Standard error",
        target,
        log.warning,
        shared=stream is None,
        tells_itself=True,
        pause=GATHER,
        arrange=log.arrange,
    )


def end(sink: Sink) -> None:
    """Write what waits, for a moment at most, and close what is not standard output or error itself."""
    if sink.shared:
        sink.flush()
    else:
        sink.close()


def _is_at(stream: TextIO | None, descriptor: int) -> bool:
    if stream is None:
        return True
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, ValueError):
        return False


def open_standard_files() -> None:
    """Have something at descriptors 0 to 2, where who starts the process has closed one; else a socket would get it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(OUTPUT, "w", closefd=False)  # noqa: SIM115 - it is for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(ERROR, "w", closefd=False)  # noqa: SIM115


logger: Final = ErrorLog()
"""The error log of this process."""


def configure(level: str, log_format: str, *, embedded: bool = False) -> None:
    """Choose what the error log of this process says, and how; see `ErrorLog.configure`."""
    logger.configure(level, log_format, embedded=embedded)


class ErrorStream(io.TextIOBase):
    """``wsgi.errors``: lines go to the error log whole, with the id of the request where there is one.

    Args:
        log: the error log.

    Source: PEP 3333, "Input and Error Streams"
    """

    encoding: str = "utf-8"

    def __init__(self, log: ErrorLog) -> None:
        self._log = log
        self._thread = _OfThread()
        self.begun: set[int] = set()
        """The threads that may have begun a line and not ended it."""

    def write(self, text: str, /) -> int:
        """Write text. Waits for nobody."""
        text, own = _text_only(text), self._thread
        if own.busy:  # a finalizer or the handler of a signal interrupts this very method
            self._pass_on(text if text.endswith("\n") else f"{text}\n", current_request_id.get())
            return len(text)
        own.busy = True
        try:
            self._take(own, text)
        finally:
            own.busy = False
        return len(text)

    def flush(self) -> None:
        """End a record, and its line if that has no end."""
        self.end_line()
        self._thread.record += 1

    def end_line(self) -> None:
        """End the line that this thread has begun, if it has; what comes later may be another request's."""
        own = self._thread
        if not own.busy:
            part, own.part = own.part, ""
            self.begun.discard(get_ident())
            if part:
                self._pass_on(f"{part}\n", own.request_id)

    def close(self) -> None:
        """It is everybody's, so nobody may close it."""

    def writable(self) -> bool:
        """It is to be written to."""
        return True

    def _take(self, own: _OfThread, text: str) -> None:
        request_id = current_request_id.get()
        if own.part and own.request_id != request_id:
            self._pass_on(f"{own.part}\n", own.request_id)
            own.part = ""
        whole, end, own.part = f"{own.part}{text}".rpartition("\n")
        if end:
            self._pass_on(f"{whole}\n", request_id)
        if len(own.part) > LONGEST_PART:
            self._pass_on(f"{own.part}\n", request_id)
            own.part = ""
            own.record += 1
        if own.part:
            own.request_id = request_id
            self.begun.add(get_ident())

    def _pass_on(self, text: str, request_id: str) -> None:
        piece = Piece(text)
        piece.origin = (get_ident(), self._thread.record, request_id)
        self._log.sink.write(piece)


class _OfThread(threading.local):
    part = ""  # of a line that has no end yet
    request_id = ""  # of the request that it belongs to
    record = 0  # how many came before
    busy = False  # whether this is being changed


def _text_only(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"wsgi.errors takes str, not {type(text).__name__}")
    return text


class AccessLog:
    """One line for each request.

    Args:
        path: a file to append to, one that stands for a descriptor, or ``-`` for standard output.
        line_format: ``combined``, ``common``, ``json``, or text with directives.
        source: where the path was set.

    Attributes:
        takes_id: whether the id of the request is in a line.
        takes_answer: whether fields of the answer are.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: str, line_format: str, source: str = "access_log") -> None:
        self._format = find_format(line_format)
        self.takes_id = takes_id(line_format)
        self.takes_answer = takes_answer(line_format)
        descriptor = OUTPUT if path == "-" else find_descriptor(path)
        if descriptor in (OUTPUT, ERROR):
            self._sink = standard_sink(descriptor, logger)
            return
        try:
            target = FileTarget(path) if descriptor is None else StandardTarget(descriptor)
            self._sink = Sink(f"The access log {path}", target, logger.warning)
        except OSError as error:
            raise UsageError(f"{source}: {path} cannot be opened: {error.strerror}.") from None

    def close(self) -> None:
        """Write what waits, for a moment at most, and close the file; standard output stays open."""
        end(self._sink)

    def write(self, exchange: Exchange) -> None:
        """Write the line of one request."""
        self._sink.write(self._format(exchange) + "\n")


def open_access_log(config: Config) -> AccessLog | None:
    """The access log of the settings, if there is one.

    Raises:
        UsageError: its file cannot be opened.
    """
    if not config.access_log:
        return None
    return AccessLog(config.access_log, config.access_log_format, config.source("access_log"))


class Trace:
    """The wire dump of ``--trace``: what came after ``<``, what went after ``>``, as ``curl -v`` has it."""

    def __init__(self) -> None:
        self._sink = standard_sink(OUTPUT, logger)

    def close(self) -> None:
        """Write what waits, for a moment at most."""
        end(self._sink)

    def received(self, data: bytes) -> None:
        """Show bytes of a request."""
        self._show("<", data)

    def sent(self, data: bytes) -> None:
        """Show bytes of an answer."""
        self._show(">", data)

    def sent_file(self, count: int) -> None:
        """Say that bytes of a file follow."""
        self._show(">", b"[%d bytes of a file]" % count)

    def _show(self, sign: str, data: bytes) -> None:
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        self._sink.write("".join(f"{sign} {_printable(line)}\n" for line in lines))


def _printable(line: bytes) -> str:
    return _control.sub(_escape_match, line.removesuffix(b"\r").decode("utf-8", "backslashreplace"))


def _escape_match(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def http_date(now: float) -> str:
    """A time as IMF-fixdate, without the locale of `time.strftime`.

    Args:
        now: seconds since the epoch.

    Source: RFC 9110 section 5.6.7
    """
    when = clock.gmtime(now)
    return (
        f"{DAYS[when.tm_wday]}, {when.tm_mday:02d} {MONTHS[when.tm_mon - 1]} {when.tm_year:04d} "
        f"{when.tm_hour:02d}:{when.tm_min:02d}:{when.tm_sec:02d} GMT"
    )
