"""The health check: one GET, and an exit status."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from wizgy import healthcheck


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path says."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a server that answers with the status in its path."""
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code"), [("200", 0), ("204", 0), ("302", 0), ("399", 0), ("400", 1), ("404", 1), ("500", 1)]
)
def test_status_decides(url: str, status: str, code: int) -> None:
    """2xx and 3xx are healthy (RFC 9110 section 15)."""
    assert healthcheck.main([url + status]) == code


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("https://localhost/", "is not an http URL"),
        ("localhost:80", "is not an http URL"),
        ("", "is not an http URL"),
        ("http://localhost:x/", "is not a URL"),
        ("http://127.0.0.1:1/", "does not answer"),
    ],
)
def test_what_is_wrong_is_said(wrong: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a URL or its server is said, with status 1 and no traceback."""
    assert healthcheck.main([wrong]) == 1
    assert expected in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Help is status 0, too many arguments are status 2."""
    assert healthcheck.main(["--help"]) == 0
    assert healthcheck.main(["a", "b"]) == 2
    assert capsys.readouterr().out.count(healthcheck.USAGE) == 2


def test_default(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the default URL is asked."""
    monkeypatch.setattr(healthcheck, "DEFAULT_URL", url + "200")
    assert healthcheck.main([]) == 0
