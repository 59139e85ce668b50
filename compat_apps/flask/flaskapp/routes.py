"""The routes that every compat app has, as one blueprint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Response,
    abort,
    jsonify,
    redirect,
    render_template,
    request,
    send_file,
    session,
    url_for,
)
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from werkzeug.routing import Rule

ASSET = Path(__file__).resolve().parents[2] / "assets" / "mebibyte.bin"
PERIOD = bytes(range(251))
DEFAULT_PORTS = {"http": 80, "https": 443}

blueprint = Blueprint("compat", __name__)


def route_any_method(state: BlueprintSetupState) -> None:
    """Add the routes that take any method at all: Flask's ``route`` always means a list of them."""
    for path, endpoint in {"/echo": "echo", "/status/<int:code>": "status"}.items():
        state.app.url_map.add(Rule(path, endpoint=f"{blueprint.name}.{endpoint}"))


blueprint.record(route_any_method)


def pattern(length: int, start: int = 0) -> bytes:
    """Bytes of the endless sequence in which byte i is ``i % 251``."""
    offset = start % len(PERIOD)
    periods = (offset + length) // len(PERIOD) + 1
    return (PERIOD * periods)[offset : offset + length]


@blueprint.get("/hello")
def hello() -> ResponseReturnValue:
    return Response("Hello world from Flask!\n", mimetype="text/plain")


@blueprint.endpoint("compat.echo")
def echo() -> ResponseReturnValue:
    # Keep the body: parsing the form would consume it.
    body = request.get_data(cache=True)
    return {
        "method": request.method,
        "path": request.path,
        "query": request.args.to_dict(flat=False),
        "headers": {name.lower(): value for name, value in request.headers},
        "content_length": request.content_length,
        "body_length": len(body),
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "form": request.form.to_dict(flat=False),
        "cookies": request.cookies.to_dict(),
    }


@blueprint.get("/environ")
def environ() -> ResponseReturnValue:
    strings = {name: value for name, value in request.environ.items() if isinstance(value, str)}
    types = {name: type(value).__name__ for name, value in request.environ.items() if name not in strings}
    return {"strings": strings, "types": types}


@blueprint.post("/upload")
def upload() -> ResponseReturnValue:
    files: list[dict[str, Any]] = []
    for field, file in request.files.items(multi=True):
        content = file.read()
        files.append(
            {
                "field": field,
                "filename": file.filename,
                "content_type": file.content_type,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    return jsonify(files)


@blueprint.get("/bytes/<int:length>")
def some_bytes(length: int) -> ResponseReturnValue:
    return Response(pattern(length), mimetype="application/octet-stream")


@blueprint.get("/stream/<int:chunks>/<int:size>")
def stream(chunks: int, size: int) -> ResponseReturnValue:
    body = (pattern(size, start=chunk * size) for chunk in range(chunks))
    return Response(body, mimetype="application/octet-stream")


@blueprint.get("/drip/<int:count>/<int:milliseconds>")
def drip(count: int, milliseconds: int) -> ResponseReturnValue:
    def events() -> Iterator[str]:
        for number in range(count):
            if number:
                time.sleep(milliseconds / 1000)
            yield f"data: {number}\n\n"

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


@blueprint.get("/file")
def file() -> ResponseReturnValue:
    return send_file(ASSET, mimetype="application/octet-stream")


@blueprint.endpoint("compat.status")
def status(code: int) -> ResponseReturnValue:
    if not 100 <= code <= 599:
        abort(404)
    if code < 200 or code in (204, 304):
        response = Response(status=code)
        del response.headers["Content-Type"]
        return response
    return Response(f"{code}\n", status=code, mimetype="text/plain")


@blueprint.get("/redirect")
def redirect_to_hello() -> ResponseReturnValue:
    return redirect(url_for(".hello"))


@blueprint.get("/cookies")
def cookies() -> ResponseReturnValue:
    return request.cookies.to_dict()


@blueprint.get("/cookies/set/<name>/<value>")
def set_cookies(name: str, value: str) -> ResponseReturnValue:
    made = {name: value, f"{name}-again": value}
    response = jsonify(made)
    for cookie_name, cookie_value in made.items():
        response.set_cookie(cookie_name, cookie_value)
    return response


@blueprint.get("/session")
def count_in_session() -> ResponseReturnValue:
    session["count"] = session.get("count", 0) + 1
    return {"count": session["count"]}


@blueprint.route("/form", methods=["GET", "POST"])
def form() -> ResponseReturnValue:
    posted = request.form.get("text", "") if request.method == "POST" else None
    return render_template("form.html", posted=posted)


@blueprint.get("/error")
def error() -> ResponseReturnValue:
    raise RuntimeError("The application was asked to fail.")


@blueprint.get("/error/stream")
def error_in_stream() -> ResponseReturnValue:
    def body() -> Iterator[str]:
        yield "first chunk\n"
        raise RuntimeError("The application was asked to fail after its first chunk.")

    return Response(body(), mimetype="text/plain")


@blueprint.get("/slow/<int:milliseconds>")
def slow(milliseconds: int) -> ResponseReturnValue:
    time.sleep(milliseconds / 1000)
    return Response("slow\n", mimetype="text/plain")


@blueprint.get("/url")
def url() -> ResponseReturnValue:
    parts = urlsplit(request.url)
    return {
        "scheme": parts.scheme,
        "host": parts.hostname,
        "port": parts.port or DEFAULT_PORTS[parts.scheme],
        "script_name": request.root_path,
        "path_info": request.path,
        "remote_addr": request.remote_addr,
    }


@blueprint.get("/utf8/<text>")
def utf8(text: str) -> ResponseReturnValue:
    return {"text": text}
