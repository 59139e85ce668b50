"""A router in one screen: from a path and a method to a view.

A *view* is called as ``view(environ, start_response, *arguments)``, where the arguments are the variable segments of
its path, and answers as a WSGI application does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from wsgiapp.responses import text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

View = Callable[..., Iterable[bytes]]
AnyView = TypeVar("AnyView", bound=View)

SEGMENTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "<int>": (r"([0-9]{1,18})", int),
    "<str>": (r"([^/]+)", str),
    "<rest>": (r"((?:/.*)?)", str),
}


class Route:
    """One path pattern, the methods it takes (none named: all) and its view."""

    def __init__(self, pattern: str, methods: tuple[str, ...], view: View) -> None:
        literals_and_segments = re.split(r"(<\w+>)", pattern)
        self.converters = [SEGMENTS[part][1] for part in literals_and_segments if part in SEGMENTS]
        self.regex = re.compile(
            "".join(SEGMENTS[part][0] if part in SEGMENTS else re.escape(part) for part in literals_and_segments),
            re.DOTALL,
        )
        self.methods = methods
        self.view = view

    def match(self, path: str) -> list[Any] | None:
        """The arguments for the view, or None where the path is not this route's."""
        found = self.regex.fullmatch(path)
        if found is None:
            return None
        return [convert(part) for convert, part in zip(self.converters, found.groups(), strict=True)]


class Router:
    """The WSGI application that hands each request to the first route with its path."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def route(self, pattern: str, *methods: str) -> Callable[[AnyView], AnyView]:
        """Decorate a view with its path; a view that takes GET takes HEAD too."""
        if "GET" in methods:
            methods = (*methods, "HEAD")

        def add(view: AnyView) -> AnyView:
            self.routes.append(Route(pattern, methods, view))
            return view

        return add

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # PEP 3333 hands over the bytes of the path as Latin-1; what they mean is UTF-8.
        raw_path: str = environ.get("PATH_INFO", "")
        try:
            path = raw_path.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            return text(start_response, "The path is not UTF-8.\n", status=400)

        for route in self.routes:
            arguments = route.match(path)
            if arguments is not None:
                return self.dispatch(route, environ, start_response, arguments)
        return text(start_response, "Not found.\n", status=404)

    def dispatch(
        self,
        route: Route,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        arguments: list[Any],
    ) -> Iterable[bytes]:
        """Call the view, or say which methods it takes."""
        method = environ["REQUEST_METHOD"]
        if not route.methods or method in route.methods:
            return route.view(environ, start_response, *arguments)
        allow = ("Allow", ", ".join((*route.methods, "OPTIONS")))
        if method == "OPTIONS":
            return text(start_response, "", headers=[allow])
        return text(start_response, "Method not allowed.\n", status=405, headers=[allow])
