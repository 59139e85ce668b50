"""The routes that every compat app has.

Most are class-based views, which answer HEAD, OPTIONS and 405 from the methods that they define. The two routes that
take any method at all are functions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import FormView

from djangoapp.compat.forms import MessageForm

ASSET = Path(__file__).resolve().parents[3] / "assets" / "mebibyte.bin"
PERIOD = bytes(range(251))
DEFAULT_PORTS = {"http": 80, "https": 443}
PLAIN_TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"


def pattern(length: int, start: int = 0) -> bytes:
    """Bytes of the endless sequence in which byte i is ``i % 251``."""
    offset = start % len(PERIOD)
    periods = (offset + length) // len(PERIOD) + 1
    return (PERIOD * periods)[offset : offset + length]


class HelloView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("Hello world from Django!\n", content_type=PLAIN_TEXT)


@csrf_exempt
def echo(request: HttpRequest) -> HttpResponse:
    # Reading the body keeps it: parsing the form first would consume it.
    body = request.body
    content_length = request.headers.get("Content-Length")
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path_info,
            "query": dict(request.GET.lists()),
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "content_length": int(content_length) if content_length else None,
            "body_length": len(body),
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "form": dict(request.POST.lists()),
            "cookies": request.COOKIES,
        }
    )


class EnvironView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        environ = request.META
        strings = {name: value for name, value in environ.items() if isinstance(value, str)}
        types = {name: type(environ[name]).__name__ for name in environ.keys() - strings.keys()}
        return JsonResponse({"strings": strings, "types": types})


@method_decorator(csrf_exempt, name="dispatch")
class UploadView(View):
    def post(self, request: HttpRequest) -> HttpResponse:
        files = []
        for field, uploads in request.FILES.lists():
            for upload in uploads:
                content = upload.read()
                files.append(
                    {
                        "field": field,
                        "filename": upload.name,
                        "content_type": upload.content_type,
                        "size": upload.size,
                        "sha256": hashlib.sha256(content).hexdigest(),
                    }
                )
        return JsonResponse(files, safe=False)


class BytesView(View):
    def get(self, request: HttpRequest, length: int) -> HttpResponse:
        return HttpResponse(pattern(length), content_type=BINARY)


class StreamView(View):
    def get(self, request: HttpRequest, chunks: int, size: int) -> HttpResponseBase:
        body = (pattern(size, start=chunk * size) for chunk in range(chunks))
        return StreamingHttpResponse(body, content_type=BINARY)


class DripView(View):
    def get(self, request: HttpRequest, count: int, milliseconds: int) -> HttpResponseBase:
        def events() -> Iterator[str]:
            for number in range(count):
                if number:
                    time.sleep(milliseconds / 1000)
                yield f"data: {number}\n\n"

        return StreamingHttpResponse(events(), content_type="text/event-stream", headers={"Cache-Control": "no-cache"})


class FileView(View):
    def get(self, request: HttpRequest) -> HttpResponseBase:
        return FileResponse(ASSET.open("rb"), content_type=BINARY)


@csrf_exempt
def status(request: HttpRequest, code: int) -> HttpResponse:
    if not 100 <= code <= 599:
        raise Http404
    if code < 200 or code in (204, 304):
        response = HttpResponse(status=code)
        del response.headers["Content-Type"]
        return response
    return HttpResponse(f"{code}\n", status=code, content_type=PLAIN_TEXT)


class RedirectToHelloView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return redirect("hello")


class CookiesView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(request.COOKIES)


class SetCookiesView(View):
    def get(self, request: HttpRequest, name: str, value: str) -> HttpResponse:
        cookies = {name: value, f"{name}-again": value}
        response = JsonResponse(cookies)
        for cookie_name, cookie_value in cookies.items():
            response.set_cookie(cookie_name, cookie_value)
        return response


class SessionView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        request.session["count"] = request.session.get("count", 0) + 1
        return JsonResponse({"count": request.session["count"]})


class MessageFormView(FormView):
    """Keep what was posted in the database, and show it."""

    form_class = MessageForm
    template_name = "compat/form.html"
    http_method_names = ["get", "head", "post", "options"]

    def form_valid(self, form: MessageForm) -> HttpResponse:
        message = form.save()
        context = self.get_context_data(form=MessageForm(), message=message)
        return render(self.request, self.template_name, context)


class ErrorView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        raise RuntimeError("The application was asked to fail.")


class ErrorInStreamView(View):
    def get(self, request: HttpRequest) -> HttpResponseBase:
        def body() -> Iterator[str]:
            yield "first chunk\n"
            raise RuntimeError("The application was asked to fail after its first chunk.")

        return StreamingHttpResponse(body(), content_type=PLAIN_TEXT)


class SlowView(View):
    def get(self, request: HttpRequest, milliseconds: int) -> HttpResponse:
        time.sleep(milliseconds / 1000)
        return HttpResponse("slow\n", content_type=PLAIN_TEXT)


class UrlView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        parts = urlsplit(request.build_absolute_uri())
        return JsonResponse(
            {
                "scheme": parts.scheme,
                "host": parts.hostname,
                "port": parts.port or DEFAULT_PORTS[parts.scheme],
                "script_name": request.META["SCRIPT_NAME"],
                "path_info": request.path_info,
                "remote_addr": request.META["REMOTE_ADDR"],
            }
        )


class Utf8View(View):
    def get(self, request: HttpRequest, text: str) -> HttpResponse:
        return JsonResponse({"text": text})
