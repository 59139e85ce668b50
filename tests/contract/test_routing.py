"""Routes, methods and status codes: the right view answers, and its status and fields arrive."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
import requests

from tests.contract.helpers import HiddenInputs
from tests.harness.target import Target, read_to_end

GET_ROUTES = [
    "/hello",
    "/environ",
    "/bytes/0",
    "/bytes/1000",
    "/stream/3/10",
    "/drip/2/10",
    "/file",
    "/status/200",
    "/status/404",
    "/redirect",
    "/cookies/set/flavour/plain",
    "/cookies",
    "/session",
    "/form",
    "/error",
    "/slow/10",
    "/url",
    "/utf8/text",
    "/no-such-route",
]

PER_MESSAGE_FIELDS = {"date", "set-cookie", "transfer-encoding", "connection", "keep-alive"}
"""Fields in which the answers to two requests for one resource may differ."""


def test_hello(target: Target) -> None:
    """A GET request is answered by the framework's own greeting, as plain text."""
    response = target.get("/hello")

    assert response.status_code == 200
    assert response.text == f"{target.framework.greeting}\n"
    assert response.headers["Content-Type"].startswith("text/plain")
    assert int(response.headers["Content-Length"]) == len(response.content)


def test_unknown_path(target: Target) -> None:
    """A path that no view has is answered with 404 (RFC 9110 section 15.5.5)."""
    assert target.get("/no-such-route").status_code == 404


def test_method_not_allowed(target: Target) -> None:
    """A method that the view does not take gets 405 and Allow (RFC 9110 section 15.5.6)."""
    with target.session() as session:
        # Django looks for its CSRF token before it looks at the method.
        token = HiddenInputs(session.get("/form").text).values
        response = session.post("/hello", data=token)

    assert response.status_code == 405
    assert "GET" in _list(response.headers["Allow"])


def test_options(target: Target) -> None:
    """OPTIONS reaches the app, which names its methods in Allow (RFC 9110 section 9.3.7)."""
    response = target.request("OPTIONS", "/hello")

    assert response.status_code in (200, 204)
    assert {"GET", "HEAD", "OPTIONS"} <= _list(response.headers["Allow"])


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_has_the_fields_of_get(target: Target, path: str) -> None:
    """HEAD is answered with the status and fields that GET would have (RFC 9110 section 9.3.2)."""
    get, head = target.get(path), target.head(path)

    ignored = set(PER_MESSAGE_FIELDS)
    if path == "/environ":
        # Its body spells the request method out, so the lengths differ.
        ignored.add("content-length")
    assert head.status_code == get.status_code
    assert _fields(head, ignored) == _fields(get, ignored)
    assert set(head.cookies.keys()) == set(get.cookies.keys())


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_has_no_body(target: Target, path: str) -> None:
    """An answer to HEAD ends with its head (RFC 9112 section 6.3, item 1)."""
    assert _body_on_the_wire(target, "HEAD", path) == b""


@pytest.mark.parametrize("code", [200, 201, 202, 299, 301, 400, 401, 403, 404, 418, 429, 500, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_status_with_body(target: Target, method: str, code: int) -> None:
    """The app's status and body arrive as they are, whatever the code (RFC 9110 section 15)."""
    response = target.request(method, f"/status/{code}")

    assert response.status_code == code
    assert response.text == f"{code}\n"


@pytest.mark.parametrize("code", [204, 304])
def test_status_without_body(target: Target, code: int) -> None:
    """Answers with status 204 and 304 end with their head (RFC 9112 section 6.3, item 1)."""
    assert target.get(f"/status/{code}").status_code == code
    assert _body_on_the_wire(target, "GET", f"/status/{code}") == b""


def test_no_content_has_no_framing(target: Target) -> None:
    """A 204 answer has neither Content-Length nor Transfer-Encoding (RFC 9110 section 8.6)."""
    response = target.get("/status/204")

    assert "Content-Length" not in response.headers
    assert "Transfer-Encoding" not in response.headers


def test_redirect(target: Target) -> None:
    """A redirect reaches the client, with its Location (RFC 9110 section 10.2.2)."""
    response = target.get("/redirect")

    assert response.status_code == 302
    assert urljoin(f"{target.url}/redirect", response.headers["Location"]) == f"{target.url}/hello"


def test_redirect_can_be_followed(target: Target) -> None:
    """A client that follows the redirect gets the greeting (RFC 9110 section 15.4)."""
    response = target.get("/redirect", follow=True)

    assert [answer.status_code for answer in response.history] == [302]
    assert response.text == f"{target.framework.greeting}\n"


def _list(value: str) -> set[str]:
    return {element.strip() for element in value.split(",")}


def _fields(response: requests.Response, ignored: set[str]) -> dict[str, str]:
    fields = {name.lower(): value for name, value in response.headers.items()}
    return {name: value for name, value in fields.items() if name not in ignored}


def _body_on_the_wire(target: Target, method: str, path: str) -> bytes:
    """Return what follows the head: a client library would not look for it."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {target.authority}", "Connection: close", "", ""]
    with target.connect() as connection:
        connection.sendall("\r\n".join(lines).encode())
        head, end_of_head, body = read_to_end(connection).partition(b"\r\n\r\n")
    assert end_of_head, f"the head has no end: {head!r}"
    return body
