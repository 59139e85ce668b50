"""The paths of the routes that every compat app has."""

from __future__ import annotations

from pyramid.config import Configurator

ROUTES = {
    "hello": "/hello",
    "echo": "/echo",
    "environ": "/environ",
    "upload": "/upload",
    "bytes": "/bytes/{length:[0-9]+}",
    "stream": "/stream/{chunks:[0-9]+}/{size:[0-9]+}",
    "drip": "/drip/{count:[0-9]+}/{milliseconds:[0-9]+}",
    "file": "/file",
    "status": "/status/{code:[0-9]+}",
    "redirect": "/redirect",
    "cookies": "/cookies",
    "set_cookies": "/cookies/set/{name}/{value}",
    "session": "/session",
    "form": "/form",
    "error": "/error",
    "error_in_stream": "/error/stream",
    "slow": "/slow/{milliseconds:[0-9]+}",
    "url": "/url",
    "utf8": "/utf8/{text}",
}


def includeme(config: Configurator) -> None:
    for name, pattern in ROUTES.items():
        config.add_route(name, pattern)
