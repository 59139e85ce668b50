"""What wizgy says: the error log, the access log and the wire dump.

Rules of this file:

- One request is one line, in one write, whatever the client put into it: control bytes, quotes and backslashes
  are escaped.
- A log that cannot be written never fails a request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from wizgy.errors import UsageError
from wizgy.logline import MONTHS, Exchange, find_format

DAYS: Final = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

logger = logging.getLogger("wizgy")


class ErrorLog:
    """Tells operators what went wrong, through the logger ``wizgy`` of `logging`."""

    def report(self, text: str, error: BaseException | None = None) -> None:
        """Log a fault, with the traceback of `error`."""
        try:
            logger.error(text, exc_info=error)
        except BaseException:  # noqa: BLE001 - an application's own handler may raise, its exception when it is printed
            with suppress(BaseException):
                logger.error("%s (%s, which cannot be printed)", text, type(error).__name__)


class LineFormatter(logging.Formatter):
    """One event a line, or as a JSON object; tracebacks follow as text, or inside of the object.

    Args:
        as_json: whether to write JSON.
    """

    def __init__(self, as_json: bool) -> None:
        super().__init__("%(asctime)s wizgy[%(process)d] %(levelname)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        if not self._as_json:
            return super().format(record)
        event: dict[str, Any] = {
            "time": self.formatTime(record, self.datefmt),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


def configure(level: str, log_format: str) -> None:
    """Send the logger ``wizgy`` to standard error.

    Args:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        log_format: ``text`` or ``json``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(log_format == "json"))
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


class AccessLog:
    """One line for each request.

    Args:
        path: a file to append to, or ``-`` for standard output.
        line_format: ``combined``, ``common``, ``json``, or text with directives.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: str, line_format: str) -> None:
        self._format = find_format(line_format)
        if path == "-":
            self._descriptor = sys.stdout.fileno()
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(Path(path), flags, 0o640)
        except OSError as error:
            raise UsageError(f"--access-log {path} cannot be opened: {error.strerror}.") from None

    def close(self) -> None:
        """Close the file; standard output stays open."""
        # A thread that is late writes to nowhere, and not to another file that has the descriptor by then.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor > 2:
            os.close(descriptor)

    def write(self, exchange: Exchange) -> None:
        """Write the line of one request."""
        line = self._format(exchange) + "\n"
        try:
            os.write(self._descriptor, line.encode("ascii"))
        except OSError:
            pass  # the device is full or gone; the request is not to blame


class Trace:
    """The wire dump of ``--trace``: what came after ``<``, what went after ``>``, as ``curl -v`` has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

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
        shown = "".join(f"{sign} {_printable(line)}\n" for line in lines)
        with self._lock:
            try:
                sys.stdout.write(shown)
                sys.stdout.flush()
            except (OSError, ValueError):
                pass  # nobody reads it any more, as in `wizgy --trace app:app | head`; requests go on


_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def _printable(line: bytes) -> str:
    text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    return _control.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def http_date(now: float) -> str:
    """A time as IMF-fixdate, without the locale of `time.strftime`.

    Args:
        now: seconds since the epoch.

    Source: RFC 9110 section 5.6.7
    """
    when = time.gmtime(now)
    return (
        f"{DAYS[when.tm_wday]}, {when.tm_mday:02d} {MONTHS[when.tm_mon - 1]} {when.tm_year:04d} "
        f"{when.tm_hour:02d}:{when.tm_min:02d}:{when.tm_sec:02d} GMT"
    )
