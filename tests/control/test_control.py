"""Every route of the chosen app, called in process under `wsgiref.validate`."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from tests.harness.frameworks import Framework

Call = Callable[..., "Answer"]

GET_ROUTES = [
    ("/hello", 200),
    ("/echo?a=1&a=2", 200),
    ("/environ", 200),
    ("/bytes/1000", 200),
    ("/stream/3/10", 200),
    ("/drip/2/1", 200),
    ("/file", 200),
    ("/status/418", 418),
    ("/status/204", 204),
    ("/redirect", 302),
    ("/cookies/set/colour/green", 200),
    ("/cookies", 200),
    ("/session", 200),
    ("/form", 200),
    ("/slow/1", 200),
    ("/url", 200),
    ("/utf8/gr%C3%BC%C3%9Fe", 200),
    ("/no-such-route", 404),
]


class Answer(NamedTuple):
    """What the app answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Input(io.BytesIO):
    """An input that may be read to its end, as wizgy's may: `wsgiref.validate` wants a size, apps give none."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read what is left, or `size` bytes."""
        return super().read(size)


def read_without_size(validated: Any) -> Any:
    """Let the app read with no size below the validator, whose rule on that PEP 3333 does not have.

    The validator's own InputWrapper asserts that `read` gets exactly one argument; PEP 3333 ("Input and Error
    Streams") makes the size optional, and frameworks use that.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        wrapped = environ["wsgi.input"]
        environ["wsgi.input"] = wrapped.input
        return validated(environ, start_response)

    return application


@pytest.fixture(scope="module")
def call(framework: Framework, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Call the app under the validator, which asserts on what breaks PEP 3333."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_DATABASE", str(tmp_path_factory.mktemp("control") / "db.sqlite3"))
        patch.syspath_prepend(str(framework.directory))
        module, _, attribute = framework.application.partition(":")
        application = validator(read_without_size(getattr(importlib.import_module(module), attribute)))

        def call_application(method: str, target: str, body: bytes = b"", **extra: str) -> Answer:
            path, _, query = target.partition("?")
            environ: dict[str, Any] = {
                "REQUEST_METHOD": method,
                "SCRIPT_NAME": "",
                "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
                "QUERY_STRING": query,
                "CONTENT_LENGTH": str(len(body)),
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "127.0.0.1",
                "wsgi.input": Input(body),
                **extra,
            }
            setup_testing_defaults(environ)
            environ["wsgi.errors"] = sys.stderr
            given: list[Any] = []

            def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                given[:] = [status, headers]
                return lambda data: None

            iterable = application(environ, start_response)
            try:
                content = b"".join(iterable)
            finally:
                iterable.close()  # type: ignore[attr-defined]
            return Answer(int(given[0][:3]), given[1], content)

        yield call_application


@pytest.mark.parametrize(("target", "status"), GET_ROUTES)
def test_get(call: Call, target: str, status: int) -> None:
    """Every route answers GET as it should, and breaks no rule of PEP 3333 that the validator knows."""
    assert call("GET", target).status == status


@pytest.mark.parametrize("target", ["/hello", "/bytes/1000", "/file"])
def test_head(call: Call, target: str) -> None:
    """HEAD has the status and the length of GET; leaving out the content may be left to the server (PEP 3333)."""
    get, head = call("GET", target), call("HEAD", target)

    assert head.status == get.status
    assert dict(head.headers).get("Content-Length") == dict(get.headers).get("Content-Length")


def test_greeting(call: Call, framework: Framework) -> None:
    """The greeting is the one that matrix.toml names."""
    assert call("GET", "/hello").body == f"{framework.greeting}\n".encode()


def test_echo(call: Call) -> None:
    """Content reaches the app whole (PEP 3333, "Input and Error Streams")."""
    answer = call("POST", "/echo", b"a=1&b=2", CONTENT_TYPE="application/x-www-form-urlencoded")

    echoed = json.loads(answer.body)
    assert (echoed["method"], echoed["body_length"]) == ("POST", 7)
    assert echoed["form"] == {"a": ["1"], "b": ["2"]}


def test_upload(call: Call) -> None:
    """A multipart form's files are listed."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
    )
    answer = call("POST", "/upload", body, CONTENT_TYPE="multipart/form-data; boundary=b")

    assert [(file["field"], file["filename"], file["size"]) for file in json.loads(answer.body)] == [("f", "x.txt", 5)]


def test_file(call: Call) -> None:
    """The packaged file is 1 MiB, and byte i is i % 251."""
    body = call("GET", "/file").body

    assert len(body) == 1 << 20
    assert body[:502] == bytes(range(251)) * 2


def test_error_while_streaming(call: Call) -> None:
    """The app raises after its first chunk, and the exception reaches the server."""
    with pytest.raises(Exception, match=r".") as caught:
        call("GET", "/error/stream")
    assert not isinstance(caught.value, AssertionError)
