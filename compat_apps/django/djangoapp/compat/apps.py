"""The Django app's entry in the registry."""

from __future__ import annotations

from django.apps import AppConfig


class CompatConfig(AppConfig):
    name = "djangoapp.compat"
    verbose_name = "Compatibility routes"
