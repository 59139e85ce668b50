"""Every route of every compat app under `wsgiref.validate`, with no server.

Where these fail the application is at fault: what the same app does behind a server says nothing.
"""

from __future__ import annotations

import hashlib
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import requests

from tests.control.client import Client, Response
from tests.harness.frameworks import ROOT, Framework

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# WebOb, below Pyramid, leaves its temporary files to the garbage collector.
pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file <_io\.(BufferedRandom|FileIO):ResourceWarning")

MEBIBYTE = 1024 * 1024
KNOWN_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
FORM_TYPE = "application/x-www-form-urlencoded"
GET_ROUTES = [
    "/hello",
    "/environ",
    "/bytes/300",
    "/stream/3/100",
    "/drip/2/0",
    "/file",
    "/cookies",
    "/cookies/set/flavour/ginger",
    "/session",
    "/form",
    "/slow/1",
    "/url",
    "/utf8/text",
]


def pattern(length: int) -> bytes:
    """The bytes that the apps serve: byte i is `i % 251`."""
    return bytes(i % 251 for i in range(length))


def sha256(content: bytes) -> str:
    """The digest that the apps report, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class HiddenInputs(HTMLParser):
    """Collects the hidden fields of a form, which hold the CSRF token."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "input" and attributes.get("type") == "hidden":
            self.fields[attributes["name"]] = attributes["value"]


def hidden_inputs(page: str) -> dict[str, str]:
    """Return the hidden fields of the form on a page."""
    parser = HiddenInputs()
    parser.feed(page)
    return parser.fields


def post_form(client: Client, path: str, fields: dict[str, str]) -> Response:
    """Post a form as a browser does."""
    body = urlencode(fields).encode()
    return client.post(path, headers={"Content-Type": FORM_TYPE}, body=body)


def test_packaged_file_holds_the_pattern() -> None:
    """The file that `/file` serves is 1 MiB long and its byte i is `i % 251`."""
    asset = ROOT / "compat_apps" / "assets" / "mebibyte.bin"

    assert asset.read_bytes() == pattern(MEBIBYTE)


def test_hello_greets(client: Client, framework: Framework) -> None:
    """`/hello` answers the greeting of the framework and a line feed, as plain text."""
    response = client.get("/hello")

    assert (response.status, response.text) == (200, f"{framework.greeting}\n")
    assert response.content_type == "text/plain"


@pytest.mark.parametrize("method", KNOWN_METHODS)
def test_echo_takes_any_method(client: Client, method: str) -> None:
    """`/echo` answers every method of RFC 9110 section 9 and RFC 5789."""
    response = client.request(method, "/echo")

    assert response.status == 200
    if method != "HEAD":
        assert response.json()["method"] == method


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
def test_echo_takes_an_unknown_method(client: Client) -> None:
    """`/echo` answers a method that nobody registered: RFC 9110 section 9.1 leaves it to the app."""
    assert client.request("BREW", "/echo").json()["method"] == "BREW"


def test_echo_without_body(client: Client) -> None:
    """`/echo` of a request with no body has no content length, and the digest of nothing."""
    answer = client.get("/echo").json()

    assert answer["content_length"] is None
    assert (answer["body_length"], answer["body_sha256"]) == (0, sha256(b""))
    assert (answer["path"], answer["query"]) == ("/echo", {})
    assert (answer["form"], answer["cookies"]) == ({}, {})


def test_echo_query(client: Client) -> None:
    """`/echo` decodes the query as UTF-8 and keeps every value of a name, empty ones too."""
    answer = client.get("/echo?a=1&b=caf%C3%A9+noir&a=2&empty=").json()

    assert answer["query"] == {"a": ["1", "2"], "b": ["café noir"], "empty": [""]}


def test_echo_headers(client: Client) -> None:
    """`/echo` names header fields in lower case, Content-Type and Content-Length among them."""
    headers = {"X-Custom-Field": "some value", "Content-Type": "text/plain"}
    answer = client.post("/echo", headers=headers, body=b"four").json()

    assert answer["headers"]["x-custom-field"] == "some value"
    assert answer["headers"]["content-type"] == "text/plain"
    assert answer["headers"]["content-length"] == "4"


def test_echo_cookies(client: Client) -> None:
    """`/echo` reads the Cookie field (RFC 6265 section 4.2)."""
    answer = client.get("/echo", headers={"Cookie": "flavour=ginger; size=12"}).json()

    assert answer["cookies"] == {"flavour": "ginger", "size": "12"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("length", [1, 251, 100_000, 3 * MEBIBYTE])
def test_echo_body(client: Client, method: str, length: int) -> None:
    """`/echo` reads the whole body, and no byte past CONTENT_LENGTH (PEP 3333, "Input")."""
    body = pattern(length)
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.request(method, "/echo", headers=headers, body=body).json()

    assert answer["content_length"] == answer["body_length"] == length
    assert answer["body_sha256"] == sha256(body)
    assert answer["form"] == {}


def test_echo_urlencoded_form(client: Client) -> None:
    """`/echo` of a URL-encoded form shows its fields, and the body as it came."""
    body = urlencode([("a", "1"), ("text", "Zoë & co"), ("a", "2")]).encode()
    answer = client.post("/echo", headers={"Content-Type": FORM_TYPE}, body=body).json()

    assert answer["form"] == {"a": ["1", "2"], "text": ["Zoë & co"]}
    assert (answer["body_length"], answer["body_sha256"]) == (len(body), sha256(body))


def test_echo_large_urlencoded_body(client: Client) -> None:
    """`/echo` takes a form of 3 MiB: limits of the body are the server's, not the app's."""
    body = b"text=" + b"x" * (3 * MEBIBYTE)
    answer = client.post("/echo", headers={"Content-Type": FORM_TYPE}, body=body).json()

    assert (answer["body_length"], answer["body_sha256"]) == (len(body), sha256(body))


def multipart(parts: list[tuple[str, Any]]) -> tuple[str, bytes]:
    """Encode a multipart form (RFC 7578): its Content-Type and its body."""
    prepared = requests.Request("POST", "http://localhost/", files=parts).prepare()
    assert isinstance(prepared.body, bytes)
    return str(prepared.headers["Content-Type"]), prepared.body


def test_echo_multipart_form(client: Client) -> None:
    """`/echo` of a multipart form (RFC 7578) shows its fields, and the body as it came."""
    content_type, body = multipart([("text", (None, "Zoë")), ("text", (None, "two")), ("file", ("a.bin", b"\x00\x01"))])
    answer = client.post("/echo", headers={"Content-Type": content_type}, body=body).json()

    assert answer["form"] == {"text": ["Zoë", "two"]}
    assert (answer["body_length"], answer["body_sha256"]) == (len(body), sha256(body))


def test_environ(client: Client) -> None:
    """`/environ` shows the variables that PEP 3333 requires: strings whole, the rest by type."""
    answer = client.get("/environ?a=b").json()

    assert answer["strings"]["REQUEST_METHOD"] == "GET"
    assert answer["strings"]["PATH_INFO"] == "/environ"
    assert answer["strings"]["QUERY_STRING"] == "a=b"
    assert answer["strings"]["wsgi.url_scheme"] == "http"
    assert answer["types"]["wsgi.version"] == "tuple"
    assert {"wsgi.input", "wsgi.errors"} <= answer["types"].keys()


def test_upload(client: Client) -> None:
    """`/upload` reports each file of a multipart form (RFC 7578), whatever bytes are in it."""
    files = [
        ("first", "café.bin", "application/octet-stream", pattern(100_000)),
        ("first", "lines.txt", "text/plain", b"\r\n--\r\n\n\r\x00\xff\r\n"),
        ("second", "empty", "image/png", b""),
    ]
    content_type, body = multipart(
        [
            ("note", (None, "not a file")),
            *((field, (name, content, kind)) for field, name, kind, content in files),
        ]
    )

    answer = client.post("/upload", headers={"Content-Type": content_type}, body=body).json()

    assert answer == [
        {
            "field": field,
            "filename": name,
            "content_type": kind,
            "size": len(content),
            "sha256": sha256(content),
        }
        for field, name, kind, content in files
    ]


@pytest.mark.parametrize("length", [0, 1, 251, 252, 100_000])
def test_bytes(client: Client, length: int) -> None:
    """`/bytes/<n>` answers n bytes of the pattern, and says so in Content-Length."""
    response = client.get(f"/bytes/{length}")

    assert (response.status, response.body) == (200, pattern(length))
    assert response.headers["Content-Length"] == str(length)


@pytest.mark.parametrize(("chunks", "size"), [(0, 10), (1, 0), (1, 1), (3, 100), (7, 10_000)])
def test_stream(client: Client, chunks: int, size: int) -> None:
    """`/stream/<chunks>/<size>` gives the pattern in chunks, with no Content-Length."""
    response = client.get(f"/stream/{chunks}/{size}")

    assert (response.status, response.body) == (200, pattern(chunks * size))
    assert [len(chunk) for chunk in response.chunks if chunk] == [size] * (chunks if size else 0)
    assert response.headers["Content-Length"] is None


def test_drip(client: Client) -> None:
    """`/drip/<count>/<milliseconds>` gives one server-sent event per chunk."""
    response = client.get("/drip/3/1")

    assert response.content_type == "text/event-stream"
    assert response.chunks == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


def test_drip_gives_each_event_before_it_makes_the_next(client: Client) -> None:
    """`/drip` pauses between events, never before the first: no middleware collects them."""
    start = time.monotonic()
    with client.stream("GET", "/drip/2/20000") as (response, chunks):
        assert next(chunks) == b"data: 0\n\n"
    assert response.status == 200
    assert time.monotonic() - start < 10


class FileWrapper:
    """A `wsgi.file_wrapper` that notes what it wrapped."""

    wrapped = 0

    def __init__(self, file: Any, block_size: int = 8192) -> None:
        FileWrapper.wrapped += 1
        self.file = file
        self.block_size = block_size

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.file.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        self.file.close()


def test_file(client: Client) -> None:
    """`/file` answers the packaged file where the server has no `wsgi.file_wrapper`."""
    response = client.get("/file")

    assert (response.status, response.body) == (200, pattern(MEBIBYTE))
    assert response.headers["Content-Length"] == str(MEBIBYTE)


def test_file_through_file_wrapper(client: Client) -> None:
    """`/file` uses the server's `wsgi.file_wrapper` (PEP 3333, "Optional … File Handling")."""
    before = FileWrapper.wrapped
    response = client.get("/file", environ={"wsgi.file_wrapper": FileWrapper})

    assert (response.status, response.body) == (200, pattern(MEBIBYTE))
    assert FileWrapper.wrapped == before + 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("code", [200, 201, 299, 301, 404, 418, 500, 599])
def test_status(client: Client, method: str, code: int) -> None:
    """`/status/<code>` answers that status to any method, registered (RFC 9110 section 15) or not."""
    response = client.request(method, f"/status/{code}")

    assert response.status == code
    if method != "HEAD":
        assert response.text == f"{code}\n"


@pytest.mark.parametrize("code", [204, 304])
def test_status_without_content(client: Client, code: int) -> None:
    """`/status/<code>` has no body and no Content-Type where RFC 9110 section 6.4.1 has no content."""
    response = client.get(f"/status/{code}")

    assert (response.status, response.body) == (code, b"")
    assert response.headers["Content-Type"] is None


def test_status_that_no_app_should_send(unchecked_application: WSGIApplication) -> None:
    """`/status/101` has no content; the validator knows of 204 and 304 only, and wants a type."""
    response = Client(unchecked_application).get("/status/101")

    assert (response.status, response.body) == (101, b"")
    assert response.headers["Content-Type"] is None


@pytest.mark.parametrize("code", ["99", "600", "1000", "abc"])
def test_status_that_is_none(client: Client, code: str) -> None:
    """`/status/<code>` is 404 for what is not a status code (RFC 9110 section 15)."""
    assert client.get(f"/status/{code}").status == 404


@pytest.mark.parametrize("script_name", ["", "/mounted"])
def test_redirect(client: Client, script_name: str) -> None:
    """`/redirect` leads to `/hello` of the same app, wherever it is mounted (SCRIPT_NAME)."""
    response = client.get("/redirect", environ={"SCRIPT_NAME": script_name})

    assert response.status == 302
    assert urlsplit(response.headers["Location"] or "").path == f"{script_name}/hello"


def test_cookies(client: Client) -> None:
    """`/cookies/set/<name>/<value>` sends two Set-Cookie fields, which `/cookies` shows back."""
    response = client.get("/cookies/set/flavour/ginger")

    assert response.json() == {"flavour": "ginger", "flavour-again": "ginger"}
    assert len(response.headers.get_all("Set-Cookie")) == 2
    assert client.get("/cookies").json() == {"flavour": "ginger", "flavour-again": "ginger"}


# WebOb, below Pyramid, writes what it is given and warns; the others escape it.
@pytest.mark.frameworks("wsgi", "flask", "django")
@pytest.mark.parametrize("value", ["two words", 'a "quoted"; one', "café"])
def test_cookies_that_need_escaping(client: Client, value: str) -> None:
    """What RFC 6265 section 4.1.1 does not allow in a cookie is escaped, and comes back the same."""
    client.get(f"/cookies/set/flavour/{quote(value)}")

    assert client.get("/cookies").json()["flavour"] == value


def test_session_counts(client: Client) -> None:
    """`/session` counts the visits of one client, from 1."""
    assert [client.get("/session").json()["count"] for _ in range(3)] == [1, 2, 3]


def test_session_is_one_clients_own(client: Client) -> None:
    """`/session` starts at 1 for each client, whoever came before."""
    client.get("/session")

    assert Client(client.application).get("/session").json() == {"count": 1}


def test_session_ignores_what_the_app_did_not_write(client: Client) -> None:
    """`/session` starts at 1 where the client forged or broke its cookie."""
    client.get("/session")
    client.cookies = dict.fromkeys(client.cookies, "41.forged")

    assert client.get("/session").json() == {"count": 1}


def test_form_shows_what_was_posted(client: Client) -> None:
    """`/form` gives a form, and its page shows the posted text, escaped as HTML."""
    page = client.get("/form")
    assert (page.status, page.content_type) == (200, "text/html")
    assert 'name="text"' in page.text
    assert "<output>" not in page.text

    posted = post_form(client, "/form", {**hidden_inputs(page.text), "text": "Zoë <b>"})

    assert posted.status == 200
    assert "<output>Zoë &lt;b&gt;</output>" in posted.text


@pytest.mark.frameworks("django", "pyramid")
@pytest.mark.parametrize("forged", [{}, {"csrf_token": "x", "csrfmiddlewaretoken": "x"}])
def test_form_refuses_what_another_site_posted(client: Client, forged: dict[str, str]) -> None:
    """`/form` refuses a post without its CSRF token, or with another, where the framework has one."""
    assert hidden_inputs(client.get("/form").text)

    assert post_form(client, "/form", {**forged, "text": "forged"}).status in (400, 403)


def test_error(client: Client) -> None:
    """`/error` fails: with the framework's own page of status 500, or by raising to the server."""
    try:
        status = client.get("/error").status
    except RuntimeError as error:
        assert "asked to fail" in str(error)
    else:
        assert status == 500


def test_error_in_stream(client: Client) -> None:
    """`/error/stream` raises to the server once its first chunk is out: no page can hide that."""
    with client.stream("GET", "/error/stream") as (response, chunks):
        assert response.status == 200
        assert next(chunks) == b"first chunk\n"
        with pytest.raises(RuntimeError, match="asked to fail"):
            next(chunks)


def test_slow(client: Client) -> None:
    """`/slow/<milliseconds>` answers after that time."""
    start = time.monotonic()
    response = client.get("/slow/50")

    assert time.monotonic() - start >= 0.05
    assert (response.status, response.text) == (200, "slow\n")


@pytest.mark.parametrize(
    ("scheme", "host", "name", "port"),
    [
        ("http", "example.org:8080", "example.org", 8080),
        ("http", "example.org", "example.org", 80),
        ("https", "example.org", "example.org", 443),
        ("http", "[::1]:8888", "::1", 8888),
    ],
)
def test_url(client: Client, scheme: str, host: str, name: str, port: int) -> None:
    """`/url` shows the URL that the framework rebuilds (PEP 3333, "URL Reconstruction")."""
    environ = {"wsgi.url_scheme": scheme, "SCRIPT_NAME": "/mounted"}
    answer = client.get("/url", headers={"Host": host}, environ=environ).json()

    assert answer == {
        "scheme": scheme,
        "host": name,
        "port": port,
        "script_name": "/mounted",
        "path_info": "/url",
        "remote_addr": "192.0.2.1",
    }


@pytest.mark.parametrize("text", ["plain", "café", "日本語", "🙂", "a b+c%"])
def test_utf8(client: Client, text: str) -> None:
    """`/utf8/<text>` decodes the bytes of its path segment as UTF-8."""
    assert client.get(f"/utf8/{quote(text)}").json() == {"text": text}


def test_path_that_is_not_utf8(client: Client) -> None:
    """A path of bytes that are not UTF-8 is the client's error or is repaired, never a failure."""
    assert client.get("/utf8/%FF").status in (200, 400)


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_answers_as_get(client: Client, path: str) -> None:
    """HEAD has the status and the Content-Type of GET (RFC 9110 section 9.3.2)."""
    get, head = client.get(path), client.request("HEAD", path)

    assert head.status == get.status
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", [*GET_ROUTES, "/redirect", "/error", "/error/stream"])
def test_options_lists_the_methods(client: Client, path: str) -> None:
    """OPTIONS names GET and HEAD in Allow (RFC 9110 section 9.3.7)."""
    response = client.request("OPTIONS", path)
    allow = (response.headers["Allow"] or "").replace(" ", "").split(",")

    assert response.status in (200, 204)
    assert {"GET", "HEAD", "OPTIONS"} <= set(allow)


@pytest.mark.parametrize("path", [*GET_ROUTES, "/redirect", "/error", "/error/stream", "/upload"])
def test_other_methods_are_refused(client: Client, path: str) -> None:
    """A method that the route does not take is 405, with Allow (RFC 9110 section 15.5.6)."""
    # Django asks for its CSRF token first.
    token = next(iter(hidden_inputs(client.get("/form").text).values()), "")
    response = client.request("DELETE", path, headers={"X-CSRFToken": token})

    assert response.status == 405
    assert response.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/nowhere", "/hello/more", "/bytes/-1", "/bytes/x", "/utf8/"])
def test_unknown_paths(client: Client, path: str) -> None:
    """A path that is no route is 404 (RFC 9110 section 15.5.5)."""
    assert client.get(path).status == 404


@pytest.mark.frameworks("wsgi")
def test_probe_is_mounted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/probe/<name>` calls that probe with its mount point moved to SCRIPT_NAME (PEP 3333)."""
    from wsgiapp.probes import PROBES

    def mounted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]

    monkeypatch.setitem(PROBES, "mounted", mounted)

    assert client.get("/probe/mounted").text == "/probe/mounted "
    assert client.get("/probe/mounted/a/b").text == "/probe/mounted /a/b"


@pytest.mark.frameworks("wsgi")
@pytest.mark.parametrize("path", ["/probe/nothing-of-that-name", "/probe/", "/probe"])
def test_unknown_probe(client: Client, path: str) -> None:
    """A probe that does not exist is 404 (RFC 9110 section 15.5.5)."""
    assert client.get(path).status == 404


@pytest.mark.frameworks("django")
def test_admin_login(client: Client) -> None:
    """The demonstration user logs in to Django's admin with a session and a CSRF token."""
    assert client.get("/admin/").status == 302
    page = client.get("/admin/login/")
    fields = {**hidden_inputs(page.text), "username": "admin", "password": "admin"}

    assert post_form(client, "/admin/login/?next=/admin/", fields).status == 302
    index = client.get("/admin/")
    assert index.status == 200
    assert "/admin/compat/message/" in index.text


@pytest.mark.frameworks("django")
def test_admin_static_files(client: Client) -> None:
    """The style sheet of Django's admin is served by the app itself."""
    response = client.get("/static/admin/css/base.css")

    assert (response.status, response.content_type) == (200, "text/css")
    assert len(response.body) == int(response.headers["Content-Length"] or 0) > 1000
