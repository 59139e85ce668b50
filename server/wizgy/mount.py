"""An application that is served below a path: ``--url-prefix``.

Rules of this file:

- RFC 3875 section 4.1.13: SCRIPT_NAME and PATH_INFO together are the path, each percent-decoded once.
- RFC 3986 section 6.2.2: how a character of the prefix is percent-encoded makes no difference. But an encoded slash
  is no slash, so the path is compared segment by segment, as it came.
- What is not below the prefix is not found, and the application does not see it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from wizgy.wsgi import Application, Environ, StartResponse

NOT_FOUND: Final = b"Nothing is served at this path.\n"


def mount(application: Application, prefix: str) -> Application:
    """Serve an application below a path.

    Args:
        application: the WSGI application.
        prefix: the path, beginning with a slash and not ending with one; it may be percent-encoded.

    Returns:
        A WSGI application that moves the prefix from PATH_INFO to the end of SCRIPT_NAME, and answers other paths
        with 404.

    Source: PEP 3333, "environ Variables"
    """
    segments = decode(prefix)
    count = len(segments)
    script_name = "/".join(segments)

    def mounted(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = decode(raw_path(environ["REQUEST_URI"]))
        if path[:count] != segments:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [NOT_FOUND]
        environ["SCRIPT_NAME"] += script_name
        environ["PATH_INFO"] = "".join("/" + segment for segment in path[count:])
        return application(environ, start_response)

    return mounted


def decode(path: str) -> list[str]:
    """The segments of a path, each percent-decoded, one character a byte."""
    return [unquote_to_bytes(segment).decode("latin-1") for segment in path.split("/")]


def raw_path(target: str) -> str:
    """The path of a request-target in origin-form or absolute-form, as it came (RFC 9112 section 3.2)."""
    path = target.partition("?")[0]
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path
