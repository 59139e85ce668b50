"""The health check: one GET, and an exit status."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from wizgy import healthcheck
from wizgy.sources import make_config


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
        ("ftp://localhost/", "expected http://"),
        ("localhost:80", "expected http://"),
        ("fd:3", "give the URL as an argument"),
        ("unix:/a?mode=1", "expected three octal digits"),
        ("http://localhost:x/", "is not a URL"),
        ("http://127.0.0.1:1/", "does not answer"),
        ("https://127.0.0.1:1/", "does not answer"),
        ("unix:/nowhere/socket", "does not answer"),
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
    assert healthcheck.main(["--keyfile", "a.pem"]) == 2
    assert healthcheck.main(["--certfile"]) == 2
    assert capsys.readouterr().out.count(healthcheck.USAGE) == 4


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "http://127.0.0.1:8888/readyz"),
        ({"WIZGY_BIND": "0.0.0.0:80"}, "http://127.0.0.1:80/readyz"),
        ({"WIZGY_BIND": "[::]:80,127.0.0.1:81"}, "http://[::1]:80/readyz"),
        ({"WIZGY_BIND": "localhost:80", "WIZGY_CERTFILE": "/certificate.pem"}, "https://localhost:80/readyz"),
        ({"WIZGY_BIND": "unix:/run/wizgy.sock"}, "unix:/run/wizgy.sock"),
        ({"WIZGY_BIND": "unix:/run/wizgy.sock?mode=660"}, "unix:/run/wizgy.sock"),
    ],
)
def test_default(environment: dict[str, str], expected: str) -> None:
    """Without an argument the server is asked for its readiness, where the environment says that it listens."""
    assert healthcheck.default_url(make_config({}, None, environment)) == expected
