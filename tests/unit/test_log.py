"""What is logged: one line a request, dates without a locale, and the wire dump."""

from __future__ import annotations

import email.utils
import json
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.errors import UsageError
from wizgy.log import AccessLog, ErrorLog, LineFormatter, Trace, http_date
from wizgy.logline import Exchange


@given(st.integers(0, 253402300799))
def test_http_date(now: int) -> None:
    """A date is an IMF-fixdate, as the standard library writes it (RFC 9110 section 5.6.7)."""
    assert http_date(now) == email.utils.formatdate(now, usegmt=True)


def test_access_log_file(tmp_path: Path) -> None:
    """Lines are appended; one that comes after the end of the log goes nowhere."""
    file = tmp_path / "log"
    file.write_text("before\n", "ascii")
    log = AccessLog(str(file), "combined")
    log.write(Exchange(("a", "1"), None, 200, 0, 0.0, 0.0))
    log.close()
    log.write(Exchange(("b", "1"), None, 200, 0, 0.0, 0.0))
    assert [line[:6] for line in file.read_text("ascii").splitlines()] == ["before", "a - - "]
    with pytest.raises(UsageError, match="cannot be opened"):
        AccessLog(str(tmp_path / "missing" / "log"), "combined")


def test_error_log_survives_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log handler of the application that raises does not fail a request."""

    class Raises(logging.Handler):
        called = False

        def emit(self, record: logging.LogRecord) -> None:
            Raises.called = True
            raise OSError

    monkeypatch.setattr(logging.getLogger("wizgy"), "handlers", [Raises()])
    ErrorLog().report("Something.", ValueError("x"))
    assert Raises.called


def test_json_error_line() -> None:
    """A fault is one JSON object on one line, with its traceback inside."""
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("wizgy", logging.ERROR, "", 0, "It %s.", ("failed",), sys.exc_info())
    line = LineFormatter(as_json=True).format(record)
    assert "\n" not in line
    event = json.loads(line)
    assert (event["level"], event["message"]) == ("error", "It failed.")
    assert "two\nlines" in event["traceback"]
    assert "ERROR: It failed.\nTraceback" in LineFormatter(as_json=False).format(record)


def test_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """The dump has a sign before each line, and nothing in it can move a terminal's cursor."""
    trace = Trace()
    trace.received(b"GET / HTTP/1.1\r\n\r\n")
    trace.sent(b"a\x1b[2Jb\xff\xc2\x9b\nlast")
    trace.sent_file(3)
    assert capsys.readouterr().out.splitlines() == [
        "< GET / HTTP/1.1",
        "< ",
        r"> a\x1b[2Jb\xff\x9b",
        "> last",
        "> [3 bytes of a file]",
    ]
