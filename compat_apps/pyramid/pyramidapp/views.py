"""The views of the routes that every compat app has."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPBadRequest, HTTPFound, HTTPNotFound
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.view import exception_view_config, view_config

ASSET = Path(__file__).resolve().parents[2] / "assets" / "mebibyte.bin"
PERIOD = bytes(range(251))
DEFAULT_PORTS = {"http": 80, "https": 443}
BINARY = "application/octet-stream"


def pattern(length: int, start: int = 0) -> bytes:
    """Bytes of the endless sequence in which byte i is ``i % 251``."""
    offset = start % len(PERIOD)
    periods = (offset + length) // len(PERIOD) + 1
    return (PERIOD * periods)[offset : offset + length]


@view_config(route_name="hello", methods=("GET",), renderer="string")
def hello(request: Request) -> str:
    return "Hello world from Pyramid!\n"


@view_config(route_name="echo", require_csrf=False, renderer="json")
def echo(request: Request) -> dict[str, Any]:
    # Before the body: WebOb sets the length of an empty one when it reads it.
    headers = {name.lower(): value for name, value in request.headers.items()}
    content_length = request.content_length
    # Reading the body keeps it: parsing the form first would consume it.
    body = request.body
    fields: dict[str, list[str]] = {}
    for name, value in request.POST.items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    return {
        "method": request.method,
        "path": request.path_info,
        "query": request.GET.dict_of_lists(),
        "headers": headers,
        "content_length": content_length,
        "body_length": len(body),
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "form": fields,
        "cookies": dict(request.cookies),
    }


@view_config(route_name="environ", methods=("GET",), renderer="json")
def environ(request: Request) -> dict[str, Any]:
    strings = {name: value for name, value in request.environ.items() if isinstance(value, str)}
    types = {name: type(value).__name__ for name, value in request.environ.items() if name not in strings}
    return {"strings": strings, "types": types}


@view_config(route_name="upload", methods=("POST",), require_csrf=False, renderer="json")
def upload(request: Request) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    for field, value in request.POST.items():
        if isinstance(value, str):
            continue
        content = value.file.read()
        files.append(
            {
                "field": field,
                "filename": value.filename,
                "content_type": value.type,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    return files


@view_config(route_name="bytes", methods=("GET",))
def some_bytes(request: Request) -> Response:
    return Response(pattern(int(request.matchdict["length"])), content_type=BINARY)


@view_config(route_name="stream", methods=("GET",))
def stream(request: Request) -> Response:
    chunks, size = int(request.matchdict["chunks"]), int(request.matchdict["size"])
    body = (pattern(size, start=chunk * size) for chunk in range(chunks))
    return Response(app_iter=body, content_type=BINARY)


@view_config(route_name="drip", methods=("GET",))
def drip(request: Request) -> Response:
    count = int(request.matchdict["count"])
    milliseconds = int(request.matchdict["milliseconds"])

    def events() -> Iterator[bytes]:
        for number in range(count):
            if number:
                time.sleep(milliseconds / 1000)
            yield b"data: %d\n\n" % number

    return Response(app_iter=events(), content_type="text/event-stream", cache_control="no-cache")


@view_config(route_name="file", methods=("GET",))
def file(request: Request) -> Response:
    return FileResponse(ASSET, request=request, content_type=BINARY)


@view_config(route_name="status", require_csrf=False)
def status(request: Request) -> Response:
    code = int(request.matchdict["code"])
    if not 100 <= code <= 599:
        raise HTTPNotFound
    if code < 200 or code in (204, 304):
        return Response(status=code)
    return Response(f"{code}\n", status=code, content_type="text/plain")


@view_config(route_name="redirect", methods=("GET",))
def redirect(request: Request) -> Response:
    return HTTPFound(request.route_path("hello"))


@view_config(route_name="cookies", methods=("GET",), renderer="json")
def cookies(request: Request) -> dict[str, str]:
    return dict(request.cookies)


@view_config(route_name="set_cookies", methods=("GET",), renderer="json")
def set_cookies(request: Request) -> dict[str, str]:
    name, value = request.matchdict["name"], request.matchdict["value"]
    made = {name: value, f"{name}-again": value}
    for cookie_name, cookie_value in made.items():
        request.response.set_cookie(cookie_name, cookie_value)
    return made


@view_config(route_name="session", methods=("GET",), renderer="json")
def count_in_session(request: Request) -> dict[str, int]:
    request.session["count"] = request.session.get("count", 0) + 1
    return {"count": request.session["count"]}


@view_config(route_name="form", methods=("GET", "POST"), renderer="templates/form.jinja2")
def form(request: Request) -> dict[str, str | None]:
    return {"posted": request.POST.get("text", "") if request.method == "POST" else None}


@view_config(route_name="error", methods=("GET",))
def error(request: Request) -> Response:
    raise RuntimeError("The application was asked to fail.")


@view_config(route_name="error_in_stream", methods=("GET",))
def error_in_stream(request: Request) -> Response:
    def body() -> Iterator[bytes]:
        yield b"first chunk\n"
        raise RuntimeError("The application was asked to fail after its first chunk.")

    return Response(app_iter=body(), content_type="text/plain")


@view_config(route_name="slow", methods=("GET",), renderer="string")
def slow(request: Request) -> str:
    time.sleep(int(request.matchdict["milliseconds"]) / 1000)
    return "slow\n"


@view_config(route_name="url", methods=("GET",), renderer="json")
def url(request: Request) -> dict[str, Any]:
    parts = urlsplit(request.url)
    return {
        "scheme": parts.scheme,
        "host": parts.hostname,
        "port": parts.port or DEFAULT_PORTS[parts.scheme],
        "script_name": request.script_name,
        "path_info": request.path_info,
        "remote_addr": request.remote_addr,
    }


@view_config(route_name="utf8", methods=("GET",), renderer="json")
def utf8(request: Request) -> dict[str, str]:
    return {"text": request.matchdict["text"]}


@exception_view_config(URLDecodeError)
def path_is_not_utf8(exception: URLDecodeError, request: Request) -> Response:
    return HTTPBadRequest("The path is not UTF-8.")
