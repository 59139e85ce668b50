"""Settings of a demonstration: it starts with no configuration, under any host name, on a read-only disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import django

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "not a secret: set DJANGO_SECRET_KEY")
DEBUG = False

# Whatever name the container, the compose network or the test gives it; Django still refuses what is not a host name.
ALLOWED_HOSTS = ["*"]

# The server limits request bodies; `/echo` has to see each one that it lets through.
DATA_UPLOAD_MAX_MEMORY_SIZE = None

INSTALLED_APPS = [
    "djangoapp.compat",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "djangoapp.urls"
WSGI_APPLICATION = "djangoapp.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# One file per user and Django version: two versions under test must not share a schema.
DEFAULT_DATABASE = (
    Path(tempfile.gettempdir()) / f"djangoapp-{os.getuid()}" / "django-{}.{}.sqlite3".format(*django.VERSION[:2])
)

# Threads and worker processes write at the same time: wait for the lock instead of failing at once.
SQLITE_OPTIONS: dict[str, object] = {"timeout": 20}
if django.VERSION >= (5, 1):
    # Taken before the first read, so that two who read and then write do not stand in each other's way.
    SQLITE_OPTIONS["transaction_mode"] = "IMMEDIATE"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DJANGO_DATABASE", str(DEFAULT_DATABASE)),
        "OPTIONS": SQLITE_OPTIONS,
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
USE_TZ = True

# Without DEBUG, Django would mail errors to nobody; a server's operator wants them on standard error.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"django": {"handlers": [], "propagate": True}},
}
