"""The WSGI application of the project, with its database ready to use."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from djangoapp.database import prepare_database

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djangoapp.settings")

application = get_wsgi_application()
prepare_database()
