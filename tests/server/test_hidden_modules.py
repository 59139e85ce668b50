"""Where files of an application have the names of standard modules, the server still imports the standard ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.client import connect, get, read_answer, request, start, wait_until

NAMES = [
    "base64",
    "bisect",
    "calendar",
    "dataclasses",
    "difflib",
    "hashlib",
    "ipaddress",
    "json",
    "linecache",
    "queue",
    "random",
    "resource",
    "select",
    "shutil",
    "socket",
    "ssl",
    "string",
    "tempfile",
    "textwrap",
    "tokenize",
    "traceback",
    "types",
    "urllib",
]
APP = """
from random import OWN
def app(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("failed on purpose")
    import importlib
    name = environ["QUERY_STRING"]
    content = environ["wsgi.input"].read() or b"%d" % hasattr(importlib.import_module(name or "random"), "OWN")
    start_response("200 OK", [("Content-Length", str(len(content))), ("X-Client", environ["REMOTE_ADDR"])])
    return [content]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application and such files."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("OWN = True\n", "utf-8")
    (tmp_path / "served_here.py").write_text(APP, "utf-8")
    return tmp_path


def test_all_is_served(folder: Path) -> None:
    """Uploads in files, failing views, encoded paths, jitter, fields of a proxy and JSON logs work."""
    arguments = ["--trust-proxy", "127.0.0.1", "--max-requests", "1000", "--max-requests-jitter", "9"]
    arguments += ["--log-format", "json", "--access-log-format", "json", "--access-log", str(folder / "log")]
    with start("--chdir", str(folder), *arguments, app="served_here:app") as server:
        with connect(server.address) as sock:
            size = 3_000_000
            sock.sendall(
                request("/%41", "X-Forwarded-For: 192.0.2.1", f"Content-Length: {size}", method="POST") + b"x" * size
            )
            assert read_answer(sock)[1] == b"x" * size
        assert get(server.address, "/fail")[0] == 500
        server.wait_stderr('"traceback": "Traceback .*ValueError: failed on purpose')
        wait_until(lambda: "/fail" in (folder / "log").read_text(), "the access log is written")
        lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
        assert [(line["remote_addr"], line["status"]) for line in lines] == [("192.0.2.1", 200), ("127.0.0.1", 500)]
        assert "fault in wizgy" not in server.stderr


@pytest.mark.parametrize("name", ["random", "json", "tempfile", "traceback", "ipaddress", "ssl", "queue"])
def test_application_imports_its_own(folder: Path, name: str) -> None:
    """As in any Python program whose folder is first, the application gets its own module."""
    with start("--chdir", str(folder), app="served_here:app") as server:
        assert get(server.address, f"/?{name}") == (200, b"1")
