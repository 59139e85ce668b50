"""The Flask compat app: an application factory, one blueprint and Jinja2 templates."""

from __future__ import annotations

from flask import Flask

from flaskapp.routes import blueprint


def create_app() -> Flask:
    """Make the application. ``FLASK_…`` environment variables override its settings, as Flask documents."""
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY="not a secret: set FLASK_SECRET_KEY",
        # The server limits request bodies; `/echo` has to see each one that it lets through.
        MAX_FORM_MEMORY_SIZE=None,
    )
    app.config.from_prefixed_env()
    app.register_blueprint(blueprint)
    return app


app = create_app()
