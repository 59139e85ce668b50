"""The URLs of the project: the compat routes, the admin, and the admin's static files."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("", include("djangoapp.compat.urls")),
    path("admin/", admin.site.urls),
    # Django keeps this view for DEBUG unless told otherwise: a public site serves static files with something quicker.
    path("static/<path:path>", serve, {"insecure": True}),
]
