"""The URLs of the routes that every compat app has."""

from __future__ import annotations

from django.urls import path

from djangoapp.compat import views

urlpatterns = [
    path("hello", views.HelloView.as_view(), name="hello"),
    path("echo", views.echo),
    path("environ", views.EnvironView.as_view()),
    path("upload", views.UploadView.as_view()),
    path("bytes/<int:length>", views.BytesView.as_view()),
    path("stream/<int:chunks>/<int:size>", views.StreamView.as_view()),
    path("drip/<int:count>/<int:milliseconds>", views.DripView.as_view()),
    path("file", views.FileView.as_view()),
    path("status/<int:code>", views.status),
    path("redirect", views.RedirectToHelloView.as_view()),
    path("cookies", views.CookiesView.as_view()),
    path("cookies/set/<str:name>/<str:value>", views.SetCookiesView.as_view()),
    path("session", views.SessionView.as_view()),
    path("form", views.MessageFormView.as_view(), name="form"),
    path("error", views.ErrorView.as_view()),
    path("error/stream", views.ErrorInStreamView.as_view()),
    path("slow/<int:milliseconds>", views.SlowView.as_view()),
    path("url", views.UrlView.as_view()),
    path("utf8/<str:text>", views.Utf8View.as_view()),
]
