"""--health: /livez and /readyz, answered without the application; and `python -m wizgy.healthcheck`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    TIMEOUT,
    connect,
    get,
    is_refused,
    read_all,
    read_answer,
    request,
    start,
    wait_until,
)
from tests.server.tls_client import Authority


def test_off_by_default() -> None:
    """Without --health the paths are the application's."""
    with start() as server:
        assert get(server.address, "/livez") == (200, b"hello\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_answers_without_the_application(path: str) -> None:
    """GET and HEAD are 200 and not to be stored; other methods are 405 (RFC 9110 section 15.5.6)."""
    with start("--health", "--access-log", "-") as server, connect(server.address) as sock:
        for method in "GET", "HEAD", "POST":
            sock.sendall(request(path, method=method))
            response, content = read_answer(sock, method)
            assert response.status == (200 if method != "POST" else 405)
            assert content == {"GET": b"ok\n", "HEAD": b"", "POST": b"Only GET and HEAD.\n"}[method]
            assert response.getheader("Cache-Control") == "no-store"
            assert response.getheader("Allow") == ("GET, HEAD" if method == "POST" else None)
        sock.sendall(request("/hello"))
        assert read_answer(sock)[1] == b"hello\n"
        sock.sendall(request(path, "Content-Length: 3", method="POST") + b"abc")
        assert read_all(sock).startswith(b"HTTP/1.1 405 ")


def test_not_ready_while_it_waits_to_drain() -> None:
    """With --drain-delay a server that is told to stop is not ready, and still accepts and serves; then it drains."""
    delay = 1.0
    with start("--health", "--drain-delay", str(delay)) as server:
        assert get(server.address, "/readyz") == (200, b"ok\n")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        wait_until(lambda: get(server.address, "/readyz") == (503, b"stopping\n"), "it is not ready")
        assert get(server.address, "/livez") == (200, b"ok\n")
        with connect(server.address) as sock:
            sock.sendall(request("/hello"))
            response, content = read_answer(sock)
            assert (response.status, content, response.getheader("Connection")) == (200, b"hello\n", None)
        assert time.monotonic() - began < delay, "this machine is too slow for the test"
        assert server.wait() == 0
        assert time.monotonic() - began >= delay
        assert is_refused(server.address)


def test_not_ready_while_it_drains() -> None:
    """On a connection that is open still, a server that drains answers that it is not ready, but alive."""
    with start("--health") as server, connect(server.address) as ready, connect(server.address) as live:
        server.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(server.address), "the signal is handled")
        ready.sendall(request("/readyz"))
        live.sendall(request("/livez"))
        response, content = read_answer(ready)
        assert (response.status, content, response.getheader("Connection")) == (503, b"stopping\n", "close")
        assert read_answer(live)[0].status == 200


def healthcheck(*arguments: str, bind: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command, for a server that listens at `bind` and has these settings."""
    variables = {f"WIZGY_{name.upper()}": value for name, value in {"bind": bind, **settings}.items() if value}
    return subprocess.run(
        [sys.executable, "-m", "wizgy.healthcheck", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "server"), **variables},
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
    )


def test_ready_while_workers_change() -> None:
    """A worker that finishes because its successor serves answers that the server is ready: a reload is no outage."""
    with start("--health") as server, connect(server.address) as used:
        used.sendall(request("/readyz"))
        assert read_answer(used)[1] == b"ok\n"
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded: ")
        used.sendall(request("/readyz"))
        response, content = read_answer(used)
        assert (response.status, content, response.getheader("Connection")) == (200, b"ok\n", "close")


def test_healthcheck_asks_for_readiness(tmp_path: Path) -> None:
    """Without a URL the command asks the server that WIZGY_BIND names: by TCP, or by its Unix socket."""
    path = tmp_path / "wizgy.sock"
    with start("--health", "--bind", f"unix:{path}", "--drain-delay", "5") as server:
        binds = [f"0.0.0.0:{server.address[1]}", f"unix:{path}"]
        for bind in binds:
            assert healthcheck(bind=bind).returncode == 0
        assert "'fd:3' is not a URL that can be asked: " in healthcheck(bind="fd:3").stderr
        server.signal(signal.SIGTERM)
        wait_until(lambda: get(server.address, "/readyz")[0] == 503, "it is not ready")
        for bind in binds:
            result = healthcheck(bind=bind)
            assert result.returncode == 1
            assert result.stderr.endswith(" answers 503\n")
        assert healthcheck(f"http://127.0.0.1:{server.address[1]}/livez", bind="").returncode == 0
        server.signal(signal.SIGTERM)
        server.wait()


@contextmanager
def serving(folder: Path, unix: bool, **settings: str) -> Iterator[dict[str, str]]:
    """A server with these settings, at a port or a Unix socket; what a health check has to know of it."""
    path = folder / "wizgy.sock"
    environment = {f"WIZGY_{name.upper()}": value for name, value in settings.items()}
    bind = f"unix:{path}?mode=600" if unix else "127.0.0.1:0"
    arguments = ["--chdir", str(FOLDER), "--bind", bind, "--health", "served:app"]
    with ServerProcess(arguments, environment=environment) as server:
        if unix:
            server.wait_stderr(r"Serving HTTPS? on unix:")
        else:
            bind = "127.0.0.1:{1}".format(*server.wait_ready())
        yield {"bind": bind, **settings}
        assert server.stop() == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs the certificates of these tests."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("proxy", [False, True])
def test_healthcheck_speaks_as_the_server_does(
    tmp_path: Path, authority: Authority, unix: bool, tls: bool, proxy: bool
) -> None:
    """The command begins with a PROXY preamble, and speaks TLS with a certificate, where the settings say so."""
    settings: dict[str, str] = {}
    if tls:
        settings |= {"certfile": authority.issue("localhost"), "client_ca": authority.file}
    if proxy:
        settings |= {"proxy_protocol": "true", "trust_proxy": "unix" if unix else "127.0.0.1"}
    with serving(tmp_path, unix, **settings) as known:
        result = healthcheck(**known)
        assert (result.returncode, result.stderr) == (0, "")
        if unix:
            assert healthcheck(f"unix:{tmp_path}/wizgy.sock", **known).returncode == 0
            assert healthcheck(known["bind"], **known).returncode == 0


def test_healthcheck_reads_the_file_of_settings(tmp_path: Path) -> None:
    """The command reads the file that the server reads."""
    with start("--health") as server:
        file = tmp_path / "wizgy.toml"
        file.write_text(f'bind = "127.0.0.1:{server.address[1]}"', "utf-8")
        assert healthcheck(config=str(file)).returncode == 0
        file.write_text("bnd = 1", "utf-8")
        assert "there is no such setting" in healthcheck(config=str(file)).stderr


def test_healthcheck_says_what_it_cannot_do(tmp_path: Path, authority: Authority) -> None:
    """Where a server takes no connection of the command, it says which setting is at fault."""
    with serving(tmp_path, False, proxy_protocol="true", trust_proxy="10.0.0.0/8") as known:
        result = healthcheck(**known)
        assert result.returncode == 1
        assert "WIZGY_TRUST_PROXY has to name 127.0.0.1 as well" in result.stderr
        assert "set WIZGY_PROXY_PROTOCOL" in healthcheck(bind=known["bind"]).stderr
    (tmp_path / "other").mkdir()
    other = Authority.make(tmp_path / "other")
    known_certificate = authority.issue("localhost")
    with serving(tmp_path, False, certfile=other.issue("localhost"), client_ca=authority.file) as known:
        result = healthcheck(**known)
        assert result.returncode == 1
        assert "give another with --certfile" in result.stderr
        assert healthcheck("--certfile", known_certificate, **known).returncode == 0
        assert "cannot be read" in healthcheck("--certfile", "/nowhere", **known).stderr
