"""The WSGI application of the project, with its database ready to use."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djangoapp.settings")

application = get_wsgi_application()

# Importing models takes the settings and the registry of apps that the line above made.
from djangoapp.database import prepare_database  # noqa: E402

prepare_database()
