"""The routes that every compat app has, the probes of PEP 3333, and what applications do in the wild."""

from __future__ import annotations

import hashlib
import html
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from wsgiref.util import FileWrapper, request_uri

from wsgiapp import requests, responses, sessions
from wsgiapp.behaviour import BEHAVIOURS
from wsgiapp.misbehaviour import PROBES
from wsgiapp.routing import Router

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ASSET = Path(__file__).resolve().parents[2] / "assets" / "mebibyte.bin"
PERIOD = bytes(range(251))
DEFAULT_PORTS = {"http": 80, "https": 443}
FORM_PAGE = """\
<!doctype html>
<title>A form, from a simple WSGI application</title>
<form method="post">
  <label>Text <input name="text"></label>
  <button>Send</button>
</form>
"""

router = Router()


def pattern(length: int, start: int = 0) -> bytes:
    """Bytes of the endless sequence in which byte i is ``i % 251``."""
    offset = start % len(PERIOD)
    periods = (offset + length) // len(PERIOD) + 1
    return (PERIOD * periods)[offset : offset + length]


@router.route("/hello", "GET")
def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return responses.text(start_response, "Hello world from a simple WSGI application!\n")


@router.route("/echo")
def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = requests.read_body(environ)
    return responses.json(
        start_response,
        {
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "query": requests.query(environ),
            "headers": requests.headers(environ),
            "content_length": requests.content_length(environ),
            "body_length": len(body),
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "form": requests.form(environ, body),
            "cookies": requests.cookies(environ),
        },
    )


@router.route("/environ", "GET")
def show_environ(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    strings = {name: value for name, value in environ.items() if isinstance(value, str)}
    types = {name: type(environ[name]).__name__ for name in environ.keys() - strings.keys()}
    return responses.json(start_response, {"strings": strings, "types": types})


@router.route("/upload", "POST")
def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = requests.read_body(environ)
    files = [
        {
            "field": part.field,
            "filename": part.filename,
            "content_type": part.content_type,
            "size": len(part.content),
            "sha256": hashlib.sha256(part.content).hexdigest(),
        }
        for part in requests.multipart(environ, body)
        if part.filename is not None
    ]
    return responses.json(start_response, files)


@router.route("/bytes/<int>", "GET")
def some_bytes(environ: WSGIEnvironment, start_response: StartResponse, length: int) -> Iterable[bytes]:
    return responses.respond(start_response, pattern(length), "application/octet-stream")


@router.route("/stream/<int>/<int>", "GET")
def stream(environ: WSGIEnvironment, start_response: StartResponse, chunks: int, size: int) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (pattern(size, start=chunk * size) for chunk in range(chunks))


@router.route("/drip/<int>/<int>", "GET")
def drip(environ: WSGIEnvironment, start_response: StartResponse, count: int, milliseconds: int) -> Iterable[bytes]:
    def events() -> Iterator[bytes]:
        for number in range(count):
            if number:
                time.sleep(milliseconds / 1000)
            yield b"data: %d\n\n" % number

    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
    return events()


@router.route("/file", "GET")
def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    file_wrapper = environ.get("wsgi.file_wrapper", FileWrapper)
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(ASSET.stat().st_size)),
        ],
    )
    wrapped: Iterable[bytes] = file_wrapper(ASSET.open("rb"))
    return wrapped


@router.route("/status/<int>")
def status(environ: WSGIEnvironment, start_response: StartResponse, code: int) -> Iterable[bytes]:
    if not 100 <= code <= 599:
        return responses.text(start_response, "Not a status code.\n", status=404)
    if code < 200 or code in (204, 304):
        return responses.empty(start_response, code)
    return responses.text(start_response, f"{code}\n", status=code)


@router.route("/redirect", "GET")
def redirect(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    location = environ.get("SCRIPT_NAME", "") + "/hello"
    return responses.text(start_response, "", status=302, headers=[("Location", location)])


@router.route("/cookies", "GET")
def cookies(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return responses.json(start_response, requests.cookies(environ))


@router.route("/cookies/set/<str>/<str>", "GET")
def set_cookies(environ: WSGIEnvironment, start_response: StartResponse, name: str, value: str) -> Iterable[bytes]:
    made = {name: value, f"{name}-again": value}
    fields = [responses.set_cookie(name, value) for name, value in made.items()]
    return responses.json(start_response, made, headers=fields)


@router.route("/session", "GET")
def session(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    count = sessions.load(requests.cookies(environ).get("session", "")) + 1
    field = responses.set_cookie("session", sessions.dump(count), http_only=True)
    return responses.json(start_response, {"count": count}, headers=[field])


@router.route("/form", "GET", "POST")
def form(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] != "POST":
        return responses.html(start_response, FORM_PAGE)
    fields = requests.form(environ, requests.read_body(environ))
    posted = html.escape(fields.get("text", [""])[0])
    return responses.html(start_response, f"{FORM_PAGE}<output>{posted}</output>\n")


@router.route("/error", "GET")
def error(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("The application was asked to fail.")


@router.route("/error/stream", "GET")
def error_in_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    yield b"first chunk\n"
    raise RuntimeError("The application was asked to fail after its first chunk.")


@router.route("/slow/<int>", "GET")
def slow(environ: WSGIEnvironment, start_response: StartResponse, milliseconds: int) -> Iterable[bytes]:
    time.sleep(milliseconds / 1000)
    return responses.text(start_response, "slow\n")


@router.route("/url", "GET")
def url(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    parts = urlsplit(request_uri(environ))
    return responses.json(
        start_response,
        {
            "scheme": parts.scheme,
            "host": parts.hostname,
            "port": parts.port or DEFAULT_PORTS[parts.scheme],
            "script_name": environ.get("SCRIPT_NAME", ""),
            "path_info": environ["PATH_INFO"],
            "remote_addr": environ.get("REMOTE_ADDR"),
        },
    )


@router.route("/utf8/<str>", "GET")
def utf8(environ: WSGIEnvironment, start_response: StartResponse, text: str) -> Iterable[bytes]:
    return responses.json(start_response, {"text": text})


@router.route("/probe/<str><rest>")
def probe(environ: WSGIEnvironment, start_response: StartResponse, name: str, rest: str) -> Iterable[bytes]:
    application = PROBES.get(name)
    if application is None:
        return responses.text(start_response, "No such probe.\n", status=404)
    # Mount it the way PEP 3333 means SCRIPT_NAME: the path so far moves there from PATH_INFO. Not
    # with `shift_path_info`, which drops the empty and "." segments that the probes want to see.
    mounted = f"/probe/{name}"
    environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + mounted
    environ["PATH_INFO"] = environ["PATH_INFO"][len(mounted) :]
    return application(environ, start_response)


@router.route("/behaviour/<str>")
def application_behaviour(environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    application = BEHAVIOURS.get(name)
    if application is None:
        return responses.text(start_response, "No such behaviour.\n", status=404)
    return application(environ, start_response)
