"""Call a WSGI application in process, as PEP 3333 says a server has to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes
from wsgiref.headers import Headers
from wsgiref.util import setup_testing_defaults

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

NEXT_REQUEST = b"GET /not-part-of-the-body HTTP/1.1\r\n\r\n"
"""What follows the body in `wsgi.input`: an application must not read past CONTENT_LENGTH."""


@dataclass
class Response:
    """The head of an answer, and its body as the chunks that the iterable gave so far."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        """The body so far, as UTF-8."""
        return self.body.decode("utf-8")

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return (self.headers["Content-Type"] or "").partition(";")[0]

    def json(self) -> Any:
        """The body as JSON, which its Content-Type has to say."""
        assert self.content_type == "application/json"
        return json.loads(self.body)


class Client:
    """Requests to one application, with a cookie jar."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **options: Any) -> Response:
        """Send GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Response:
        """Send POST."""
        return self.request("POST", path, **options)

    def request(self, method: str, path: str, **options: Any) -> Response:
        """Send a request and read the whole answer; see `make_environ` for the options."""
        with self.stream(method, path, **options) as (response, chunks):
            response.chunks.extend(chunks)
        return response

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Send a request; the chunks of the answer are made as they are asked for."""
        environ = self.make_environ(method, path, **options)
        response = Response()

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None) -> Any:
            # The validator does not look: native strings hold bytes, as Latin-1.
            for text in (status, *(part for name_and_value in headers for part in name_and_value)):
                text.encode("latin-1")
            response.status = int(status[:3])
            response.headers = Headers(headers)
            return response.chunks.append

        iterable: Iterable[bytes] = self.application(environ, start_response)
        try:
            chunks = iter(iterable)
            # The application may wait with `start_response` until its first chunk is asked for.
            first = next(chunks, b"")
            self._keep_cookies(response)
            yield response, _chain(first, chunks)
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    def make_environ(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        environ: Mapping[str, Any] | None = None,
    ) -> WSGIEnvironment:
        """Make the `environ` of a request-target in origin-form, as bytes read as Latin-1."""
        path, _, query = path.partition("?")
        made: WSGIEnvironment = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "REMOTE_ADDR": "192.0.2.1",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.input": io.BytesIO(body + NEXT_REQUEST),
        }
        if body:
            made["CONTENT_LENGTH"] = str(len(body))
        if self.cookies:
            made["HTTP_COOKIE"] = "; ".join(f"{name}={v}" for name, v in self.cookies.items())
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            made[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        made.update(environ or {})
        setup_testing_defaults(made)
        return made

    def _keep_cookies(self, response: Response) -> None:
        for field_value in response.headers.get_all("Set-Cookie"):
            name, _, value = field_value.partition(";")[0].partition("=")
            self.cookies[name] = value


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
