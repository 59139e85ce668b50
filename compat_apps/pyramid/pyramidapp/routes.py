"""The paths of the routes that every compat app has."""

from __future__ import annotations

from pyramid.config import Configurator

ROUTES = {
    "hello": "/hello",
    "echo": "/echo",
    "environ": "/environ",
    "upload": "/upload",
    "bytes": r"/bytes/{length:\d+}",
    "stream": r"/stream/{chunks:\d+}/{size:\d+}",
    "drip": r"/drip/{count:\d+}/{milliseconds:\d+}",
    "file": "/file",
    "status": r"/status/{code:\d+}",
    "redirect": "/redirect",
    "cookies": "/cookies",
    "set_cookies": "/cookies/set/{name}/{value}",
    "session": "/session",
    "form": "/form",
    "error": "/error",
    "error_in_stream": "/error/stream",
    "slow": r"/slow/{milliseconds:\d+}",
    "url": "/url",
    "utf8": "/utf8/{text}",
}


def includeme(config: Configurator) -> None:
    for name, pattern in ROUTES.items():
        config.add_route(name, pattern)
