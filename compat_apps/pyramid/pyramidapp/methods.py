"""A view option ``methods``, so that a view answers OPTIONS and 405.

Pyramid's own ``request_method`` chooses between views, and answers 404 where none is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPMethodNotAllowed
from pyramid.request import Request
from pyramid.response import Response
from pyramid.viewderivers import INGRESS

View = Callable[[Any, Request], Response]


def answer_methods(view: View, info: Any) -> View:
    """Derive a view that calls the given one for its methods only; a view that takes GET takes HEAD too."""
    methods: tuple[str, ...] = info.options.get("methods", ())
    if not methods:
        return view
    if "GET" in methods:
        methods = (*methods, "HEAD")
    allow = (*methods, "OPTIONS")

    def view_for_methods(context: Any, request: Request) -> Response:
        if request.method in methods:
            return view(context, request)
        if request.method == "OPTIONS":
            return Response(allow=allow, content_type="text/plain")
        raise HTTPMethodNotAllowed(headers=[("Allow", ", ".join(allow))])

    return view_for_methods


answer_methods.options = ("methods",)  # type: ignore[attr-defined]


def includeme(config: Configurator) -> None:
    # Before the CSRF check: a POST that no view takes is 405, with or without a token.
    config.add_view_deriver(answer_methods, under=INGRESS, over="csrf_view")
