"""The Pyramid compat app: a Configurator, scanned views, renderers, signed-cookie sessions and CSRF protection."""

from __future__ import annotations

import os

from pyramid.config import Configurator
from pyramid.router import Router
from pyramid.session import JSONSerializer, SignedCookieSessionFactory


def main() -> Router:
    """Make the application."""
    secret = os.environ.get("PYRAMID_SECRET_KEY", "not a secret: set PYRAMID_SECRET_KEY")
    with Configurator() as config:
        config.set_session_factory(SignedCookieSessionFactory(secret, serializer=JSONSerializer()))
        config.set_default_csrf_options(require_csrf=True)
        config.include("pyramid_jinja2")
        config.include("pyramidapp.methods")
        config.include("pyramidapp.routes")
        config.scan("pyramidapp.views")
        app: Router = config.make_wsgi_app()
    return app


app = main()
