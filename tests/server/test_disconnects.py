"""An application can ask whether its client has gone, from any thread, for as long as it likes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.process import ServerProcess
from tests.server.client import connect, get, read_answer, request, wait_until
from tests.server.tls_client import Authority, connect_secure

APPLICATION = """
import threading, time

kept = {}
seen = []


def app(environ, start_response):
    gone = environ["wizgy.client_disconnected"]
    assert gone == environ["waitress.client_disconnected"]
    path = environ["PATH_INFO"]
    if path == "/watch":
        kept["gone"] = gone
        seen.append(gone())
        deadline = time.monotonic() + 10
        while not gone() and time.monotonic() < deadline:
            time.sleep(0.01)
        asked = []
        thread = threading.Thread(target=lambda: asked.append(gone()))
        thread.start()
        thread.join()
        seen.append(asked[0])
    content = repr(kept["gone"]() if path == "/later" else seen).encode()
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]
"""


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[ServerProcess]:
    """Serve the application."""
    (folder / "watching.py").write_text(APPLICATION, "utf-8")
    with ServerProcess(["--chdir", str(folder), "--bind", "127.0.0.1:0", *arguments, "watching:app"]) as server:
        server.wait_ready()
        yield server


def test_a_client_that_closes_has_gone(tmp_path: Path) -> None:
    """While its client waits a view is told so; once the client has closed it is told that, in any thread, for good."""
    with serving(tmp_path) as server:
        with connect(server.address) as sock:
            sock.sendall(request("/watch"))
            wait_until(lambda: get(server.address, "/")[1] == b"[False]", "the view runs")
        wait_until(lambda: get(server.address, "/")[1] == b"[False, True]", "the view has ended")
        assert get(server.address, "/later")[1] == b"True"


def test_a_client_that_ends_its_side_is_answered(tmp_path: Path) -> None:
    """A client that has ended its side counts as gone, and is answered all the same (RFC 9112 section 9.6)."""
    with serving(tmp_path) as server, connect(server.address) as sock:
        sock.sendall(request("/watch"))
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(sock)[1].endswith(b"True]")


def test_a_client_of_tls_that_closes_has_gone(tmp_path: Path) -> None:
    """Over TLS it is the same, also where the client does not say that it ends (RFC 8446 section 6.1)."""
    authority = Authority.make(tmp_path)
    context = authority.client()
    with serving(tmp_path, "--certfile", authority.issue("localhost")) as server:

        def ask() -> bytes:
            with connect_secure(server.address, context) as sock:
                sock.sendall(request("/"))
                return read_answer(sock)[1]

        sock = connect_secure(server.address, context)
        sock.sendall(request("/watch"))
        wait_until(lambda: ask() == b"[False]", "the view runs")
        sock.close()
        wait_until(lambda: ask() == b"[False, True]", "the view has ended")
