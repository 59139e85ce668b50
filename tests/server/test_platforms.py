"""Behind the load balancers of platforms: the command that `docs/applications.md` has for each, against what it sends.

The fields are those that the platforms document; the addresses are examples. Each request also has what a client can
make up and the platform hands on.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from matrix.processes import free_port
from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, connect, read_answer

PAGE = ROOT / "docs" / "applications.md"
CLIENT = "203.0.113.9"
MADE_UP = ("X-Forwarded-Host: evil.example", "X-Forwarded-Prefix: /evil", "Via: 1.0 evil")


@dataclass(frozen=True)
class Platform:
    """What a platform does: seconds that it keeps an idle connection, and the fields that it sends.

    Args:
        title: the heading on the page.
        idle: None where the platform does not say.
        fields: of a request over TLS of `CLIENT`.
        port: SERVER_PORT that the application has to see.
        source: where the platform says so.
    """

    title: str
    idle: int | None
    fields: tuple[str, ...]
    source: str
    port: str = "443"


PLATFORMS = (
    Platform(
        "AWS Application Load Balancer",
        60,
        (
            f"X-Forwarded-For: 198.51.100.66, {CLIENT}",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Port: 443",
            "X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678",
            "Forwarded: for=198.51.100.66;proto=http;host=evil.example",
        ),
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html",
    ),
    Platform(
        "Heroku",
        90,
        (
            f"X-Forwarded-For: 198.51.100.66, {CLIENT}",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Port: 443",
            "X-Request-Id: 8f0d9a26-6fb2-4b2c-b1b2-3f2d1a0b9c8d",
            "X-Request-Start: 1764218400000",
            "Via: 1.1 heroku-router",
        ),
        "https://devcenter.heroku.com/articles/http-routing#heroku-headers",
    ),
    Platform(
        "Google Cloud Run",
        600,
        (
            f"X-Forwarded-For: 198.51.100.66,{CLIENT}",
            "X-Forwarded-Proto: https",
            f'Forwarded: for="198.51.100.66",for="{CLIENT}";proto=https',
            "X-Cloud-Trace-Context: 65011637f09e0a5179677a7429456db7/1027871334010811884;o=1",
        ),
        "https://cloud.google.com/functions/docs/reference/headers",
    ),
    Platform(
        "Fly",
        None,
        (
            f"X-Forwarded-For: 198.51.100.66, {CLIENT}, 66.241.124.10",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Port: 8443",  # the client's own, as the platform says
            "X-Forwarded-SSL: on",
            f"Fly-Client-IP: {CLIENT}",
            "Fly-Forwarded-Port: 443",
            "Fly-Region: ams",
            "Via: 2 fly.io",
        ),
        "https://fly.io/docs/networking/request-headers/",
    ),
    Platform(
        "Render",
        None,
        (
            f"X-Forwarded-For: 198.51.100.66, {CLIENT}, 172.68.10.20, 10.214.1.2",
            "X-Forwarded-Proto: https",
            f"CF-Connecting-IP: {CLIENT}",
            f"True-Client-IP: {CLIENT}",
        ),
        "https://render.com/docs/web-services",
    ),
)


def documented_command(title: str) -> list[str]:
    """Return the words of the command that the page has below a heading, with its shell variables."""
    section = PAGE.read_text(encoding="utf-8").partition(f"### {title}\n")[2].partition("\n### ")[0]
    [command] = re.findall(r"^(?:\$ |web: )(wizgy .+)$", section, re.MULTILINE)
    return shlex.split(command)


def expand(words: list[str], port: int) -> list[str]:
    """Fill in the port and the application of these tests; let this machine stand for the platform's proxies."""
    expanded = [word.replace("$PORT", str(port)) for word in words[1:]]
    expanded = [re.sub(r"^(0\.0\.0\.0):\d+$", rf"\1:{port}", word) for word in expanded]
    networks = expanded.index("--trust-proxy") + 1
    expanded[networks] = f"127.0.0.1,{expanded[networks]}"
    assert expanded.pop() == "module:app"
    return ["--chdir", str(FOLDER), *expanded, "served:app"]


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.title)
def test_platform(platform: Platform) -> None:
    """The documented command gives the application the client, scheme and host that the platform tells."""
    with ServerProcess(expand(documented_command(platform.title), port := free_port())) as server:
        server.wait_ready()
        with connect(("127.0.0.1", port)) as sock:
            sock.sendall(ask(*platform.fields, *MADE_UP))
            environ = read_environ(sock)
            assert environ["REMOTE_ADDR"] == CLIENT
            assert environ["wsgi.url_scheme"] == "https"
            assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == ("shop.example", platform.port)
            assert environ["SCRIPT_NAME"] == ""
            assert not {"HTTP_FORWARDED", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PREFIX"} & environ.keys()

            # The connection is the platform's to keep: its next request may be another client's.
            sock.sendall(ask(f"X-Forwarded-For: {CLIENT[:-1]}7"))
            assert read_environ(sock)["REMOTE_ADDR"] == f"{CLIENT[:-1]}7"


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.title)
def test_keepalive_outlasts_the_platform(platform: Platform) -> None:
    """With the documented command an idle connection is ended by the platform, not by the server."""
    words = expand(documented_command(platform.title), 8000)
    command = [sys.executable, "-m", "wizgy", "--print-config", *words]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    found = re.search(r"^keepalive.timeout\s*=\s*(\d+)", printed, re.MULTILINE)

    assert found, printed
    assert int(found[1]) > (platform.idle or 600)


def ask(*fields: str) -> bytes:
    """Return a request for environ, as a platform sends it on."""
    lines = ["GET /environ HTTP/1.1", "Host: shop.example", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def read_environ(sock: Any) -> dict[str, str]:
    """Read an answer of `/environ`, after which the connection goes on."""
    response, content = read_answer(sock)
    assert response.status == 200, content
    assert response.getheader("Connection") != "close"
    environ: dict[str, str] = json.loads(content)
    return environ


def environment() -> dict[str, str]:
    """Return variables with which wizgy of this tree can be run."""
    return {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT / "server")}
