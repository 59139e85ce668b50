"""The Django compat app: a project with settings, a database, a model, sessions and the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.core.handlers.wsgi import WSGIHandler


def __getattr__(name: str) -> WSGIHandler:
    """Make ``djangoapp:app`` when a server asks for it, so that ``manage.py`` does not serve by importing."""
    if name == "app":
        from djangoapp.wsgi import application

        return application
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
