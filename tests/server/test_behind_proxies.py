"""nginx and HAProxy in front, with the configuration that docs/behind-a-proxy.md prints."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    TIMEOUT,
    read_answer,
    request,
    wait_until,
)
from tests.server.programs import free_port, haproxy, nginx, printed
from tests.server.secured import pattern
from tests.server.tls_client import Authority, secure

CLIENT = "127.0.0.2"
"""The address that clients connect from; proxies and server have 127.0.0.1."""
SPOOFED = [
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 666",
    "X-Forwarded-Prefix: /evil",
    "Forwarded: for=6.6.6.6;host=evil.example;proto=https",
]


@dataclass(frozen=True)
class Front:
    """A proxy and the server behind it.

    Args:
        port: where the proxy accepts plain HTTP.
        secure_port: where it accepts TLS, or 0.
        server: the server.
        folder: where both keep their files.
    """

    port: int
    secure_port: int
    server: ServerProcess
    folder: Path


@contextmanager
def served(*arguments: str, bind: str = "127.0.0.1:0") -> Iterator[ServerProcess]:
    """A server for `secured.app`."""
    root = FOLDER.parents[1]
    with ServerProcess(["--chdir", str(root), "--bind", bind, *arguments, "tests.server.secured:app"]) as server:
        server.wait_stderr(r"Serving HTTPS? on .* \.\.\.$")
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs the certificates of these tests."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> str:
    """A certificate with its key, for this machine."""
    return authority.issue("localhost", "localhost", "127.0.0.1")


def client_socket(port: int) -> socket.socket:
    """Connect as a client to a proxy."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT, (CLIENT, 0))


def ask(port: int, target: str = "/environ", *fields: str) -> tuple[int, bytes]:
    """Ask once through a proxy: status and content."""
    with client_socket(port) as sock:
        sock.sendall(request(target, "Connection: close", *fields))
        response, content = read_answer(sock)
        return response.status, content


def environ_of(port: int, *fields: str, target: str = "/environ") -> dict[str, Any]:
    """What the application sees of a request through a proxy."""
    status, content = ask(port, target, *fields)
    assert status == 200, content
    environ = json.loads(content)
    assert isinstance(environ, dict)
    return environ


def secure_environ_of(port: int, authority: Authority, *fields: str) -> dict[str, Any]:
    """The same with TLS."""
    with secure(client_socket(port), authority.client()) as sock:
        sock.sendall(request("/environ", *fields))
        environ = json.loads(read_answer(sock)[1])
        assert isinstance(environ, dict)
        return environ


# nginx


def nginx_blocks(port: int, secure_port: int, server: str, certificate: str, **others: str) -> str:
    """What the guide prints for nginx, with addresses of one's own."""
    return printed(
        "nginx",
        {
            "listen 80;": f"listen 127.0.0.1:{port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{secure_port} ssl;",
            "127.0.0.1:8000": server,
            "/etc/ssl/server.pem": certificate,
            **others,
        },
    )


@contextmanager
def behind_nginx(
    folder: Path, certificate: str, *arguments: str, bind: str = "127.0.0.1:0", **others: str
) -> Iterator[Front]:
    """A server with nginx in front."""
    trusted = "unix" if bind.startswith("unix:") else "127.0.0.1"
    with served("--trust-proxy", trusted, *arguments, bind=bind) as server:
        upstream = bind if trusted == "unix" else "{}:{}".format(*server.address)
        port, secure_port = free_port(), free_port()
        blocks = nginx_blocks(port, secure_port, upstream, certificate, **others)
        with nginx(blocks, [port, secure_port], folder):
            yield Front(port, secure_port, server, folder)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, certificate: str) -> Iterator[Front]:
    """A server behind nginx as the guide has it."""
    with behind_nginx(tmp_path_factory.mktemp("nginx"), certificate) as front:
        yield front


@pytest.mark.parametrize("fields", [[], SPOOFED], ids=["honest", "spoofed"])
def test_nginx_tells_of_the_client(front: Front, fields: list[str]) -> None:
    """The application sees the client of nginx, whatever the client says of itself (RFC 7239 section 8.1)."""
    environ = environ_of(front.port, *fields)
    expected = {
        "REMOTE_ADDR": CLIENT,
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "localhost",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SCRIPT_NAME": "",
        "HTTP_X_FORWARDED_FOR": CLIENT,
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert "HTTP_FORWARDED" not in environ


def test_nginx_tells_of_tls(front: Front, authority: Authority) -> None:
    """Where nginx has the TLS the scheme is https (PEP 3333, "environ Variables")."""
    environ = secure_environ_of(front.secure_port, authority)
    assert (environ["wsgi.url_scheme"], environ["HTTPS"], environ["SERVER_PORT"]) == ("https", "on", "443")
    assert environ["REMOTE_ADDR"] == CLIENT


def connections(port: int, states: tuple[str, ...]) -> int:
    """How many connections to a port are in some states, from the kernel's table."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] in states for row in rows)


def test_nginx_uses_connections_again(tmp_path: Path, certificate: str) -> None:
    """One connection from nginx serves many requests of many clients (RFC 9112 section 9.3)."""
    with behind_nginx(tmp_path, certificate) as front:
        for _ in range(50):
            assert ask(front.port, "/hello") == (200, b"hello\n")
        established, timed_wait = "01", "06"
        assert connections(front.server.address[1], (established, timed_wait)) <= 2


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_nginx_uploads_in_chunks(tmp_path: Path, certificate: str, buffering: str) -> None:
    """A chunked upload arrives whole, also where nginx hands it on as it comes (RFC 9112 section 7.1)."""
    others = {"proxy_http_version 1.1;": f"proxy_http_version 1.1; proxy_request_buffering {buffering};"}
    with behind_nginx(tmp_path, certificate, **others) as front:
        assert upload_in_chunks(front.port) == hashlib.sha256(pattern(2_000_000)).hexdigest()


def upload_in_chunks(port: int) -> str:
    """Send 2 MB in chunks of all sizes; returns the digest that the application has made."""
    content = pattern(2_000_000)
    sizes = random.Random(0)
    with client_socket(port) as sock:
        sock.sendall(request("/digest", "Transfer-Encoding: chunked", method="POST"))
        start = 0
        while start < len(content):
            piece = content[start : start + sizes.choice([1, 100, 5000, 70_000])]
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            start += len(piece)
        sock.sendall(b"0\r\n\r\n")
        response, digest = read_answer(sock, "POST")
        assert response.status == 200
        return digest.decode()


@pytest.mark.parametrize("kind", ["pattern", "file"])
def test_nginx_downloads(front: Front, kind: str) -> None:
    """8 MB leave whole."""
    status, content = ask(front.port, f"/{kind}/8000000")
    assert status == 200
    assert content == pattern(8_000_000)


def test_nginx_streams(tmp_path: Path, certificate: str) -> None:
    """With proxy_buffering off the first half of an answer arrives before the second is made."""
    others = {"proxy_http_version 1.1;": "proxy_http_version 1.1; proxy_buffering off;"}
    with behind_nginx(tmp_path, certificate, **others) as front, client_socket(front.port) as sock:
        sock.sendall(request("/halves/700", "Connection: close"))
        data = b""
        while b"first" not in data:
            data += sock.recv(4096)
        assert b"second" not in data
        while piece := sock.recv(4096):
            data += piece
        assert b"second" in data


def test_nginx_passes_on_an_early_refusal(tmp_path: Path, certificate: str) -> None:
    """A 413 that comes while nginx still sends the upload reaches the client, and is no 502 (fault 11)."""
    others = {"proxy_http_version 1.1;": "proxy_http_version 1.1; proxy_request_buffering off;"}
    with behind_nginx(tmp_path, certificate, "--max-body", "1000", **others) as front:
        for _ in range(10):
            with client_socket(front.port) as sock:
                sock.sendall(request("/digest", "Content-Length: 3000000", method="POST"))
                try:
                    sock.sendall(bytes(3_000_000))
                except OSError:
                    pass  # nginx has closed, after its answer
                assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_nginx_and_connections_that_end(tmp_path: Path, certificate: str) -> None:
    """When wizgy ends idle connections before nginx does, no request is lost (RFC 9112 section 9.5)."""
    others = {"keepalive_timeout 10s;": "keepalive_timeout 60s;"}
    with behind_nginx(tmp_path, certificate, "--keepalive-timeout", "0.1", **others) as front:
        pauses = random.Random(0)
        for _ in range(40):
            assert ask(front.port, "/hello") == (200, b"hello\n")
            time.sleep(pauses.uniform(0.08, 0.12))  # the race itself is what is tested


def test_nginx_and_reloads(tmp_path: Path, certificate: str) -> None:
    """Two reloads under load behind nginx lose no request (fault 6)."""
    with behind_nginx(tmp_path, certificate) as front, ExitStack() as stack:
        answers: list[tuple[int, bytes]] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                answers.append(ask(front.port, "/hello"))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            stack.callback(thread.join, TIMEOUT)
            thread.start()
        stack.callback(stop.set)
        for _ in range(2):
            before = len(answers)
            worker = ask(front.port, "/pid")
            front.server.signal(signal.SIGHUP)
            wait_until(lambda worker=worker: ask(front.port, "/pid") != worker, "another worker serves")  # type: ignore[misc]
            wait_until(lambda before=before: len(answers) > before + 50, "requests go on")  # type: ignore[misc]
        assert set(answers) == {(200, b"hello\n")}


def test_nginx_over_a_unix_socket(tmp_path: Path, certificate: str) -> None:
    """Over a Unix socket the client is told in the same way, to who trusts unix."""
    with behind_nginx(tmp_path, certificate, bind=f"unix:{tmp_path}/app.sock") as front:
        environ = environ_of(front.port, *SPOOFED)
        assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"]) == (CLIENT, "localhost")


@pytest.mark.parametrize("stripped", [False, True], ids=["as-it-is", "taken-off"])
def test_nginx_below_a_path(tmp_path: Path, certificate: str, stripped: bool) -> None:
    """Whoever takes off the prefix, SCRIPT_NAME and PATH_INFO are the same (RFC 3875 section 4.1.13)."""
    others = {"location / {": "location /shop/ {"}
    if stripped:
        others["proxy_pass http://app;"] = "proxy_pass http://app/;"
        others['X-Forwarded-Prefix ""'] = "X-Forwarded-Prefix /shop"
    arguments = [] if stripped else ["--url-prefix", "/shop"]
    with behind_nginx(tmp_path, certificate, *arguments, **others) as front:
        environ = environ_of(front.port, target="/shop/environ")
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/shop", "/environ")


# HAProxy


def haproxy_sections(port: int, secure_port: int, passing_port: int, server: str, certificate: str) -> str:
    """What the guide prints for HAProxy, with addresses of one's own."""
    return printed(
        "haproxy",
        {
            "bind :80\n": f"bind 127.0.0.1:{port}\n",
            "bind :443 ssl": f"bind 127.0.0.1:{secure_port} ssl",
            "bind :443\n": f"bind 127.0.0.1:{passing_port}\n",
            "127.0.0.1:8000": server,
            "127.0.0.1:8443": server,
            "/etc/ssl/server.pem": certificate,
        },
    )


@pytest.fixture(scope="module")
def haproxy_front(tmp_path_factory: pytest.TempPathFactory, certificate: str) -> Iterator[Front]:
    """HAProxy that reads HTTP, as the guide has it."""
    folder = tmp_path_factory.mktemp("haproxy")
    with served("--trust-proxy", "127.0.0.1") as server:
        port, secure_port = free_port(), free_port()
        sections = haproxy_sections(port, secure_port, free_port(), "{}:{}".format(*server.address), certificate)
        with haproxy(sections, [port, secure_port], folder):
            yield Front(port, secure_port, server, folder)


@pytest.mark.parametrize("fields", [[], SPOOFED], ids=["honest", "spoofed"])
def test_haproxy_tells_of_the_client(haproxy_front: Front, authority: Authority, fields: list[str]) -> None:
    """The application sees the client of HAProxy, and whether it has TLS (RFC 7239 section 8.1)."""
    plain = environ_of(haproxy_front.port, *fields)
    encrypted = secure_environ_of(haproxy_front.secure_port, authority, *fields)
    for environ, scheme in (plain, "http"), (encrypted, "https"):
        assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"]) == (CLIENT, "localhost")
        assert (environ["wsgi.url_scheme"], environ["SCRIPT_NAME"]) == (scheme, "")


def test_haproxy_uploads_in_chunks(haproxy_front: Front) -> None:
    """A chunked upload arrives whole (RFC 9112 section 7.1)."""
    assert upload_in_chunks(haproxy_front.port) == hashlib.sha256(pattern(2_000_000)).hexdigest()


def test_haproxy_uses_connections_again(haproxy_front: Front) -> None:
    """One connection from HAProxy serves many requests of one client (RFC 9112 section 9.3)."""
    with client_socket(haproxy_front.port) as sock:
        before = connections(haproxy_front.server.address[1], ("01", "06"))
        for _ in range(50):
            sock.sendall(request("/hello"))
            assert read_answer(sock)[1] == b"hello\n"
        assert connections(haproxy_front.server.address[1], ("01", "06")) <= before + 1


@pytest.mark.parametrize(
    "option",
    ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c", "send-proxy-v2-ssl-cn"],
)
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_haproxy_sends_the_proxy_protocol(tmp_path: Path, option: str, over: str) -> None:
    """Both versions, with options, tell the address and port of the client and of what it connected to (section 2)."""
    bind = f"unix:{tmp_path}/app.sock" if over == "unix" else "127.0.0.1:0"
    trusted = "unix" if over == "unix" else "127.0.0.1"
    with served("--trust-proxy", trusted, "--proxy-protocol", bind=bind) as server:
        upstream = f"unix@{tmp_path}/app.sock" if over == "unix" else "{}:{}".format(*server.address)
        port = free_port()
        section = f"listen web\n    mode tcp\n    bind 127.0.0.1:{port}\n    server wizgy {upstream} {option}\n"
        with haproxy(section, [port], tmp_path), client_socket(port) as sock:
            for _ in range(2):
                sock.sendall(request("/environ", "X-Forwarded-For: 6.6.6.6"))
                environ = json.loads(read_answer(sock)[1])
                assert (environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"])) == sock.getsockname()
                assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(port))


def test_haproxy_tells_of_tls_by_the_proxy_protocol(tmp_path: Path, authority: Authority, certificate: str) -> None:
    """Where HAProxy has the TLS and hands on bytes, version 2 tells that the scheme is https (section 2.2.5)."""
    with served("--trust-proxy", "127.0.0.1", "--proxy-protocol") as server:
        port = free_port()
        upstream = "{}:{}".format(*server.address)
        section = (
            f"listen web\n    mode tcp\n    bind 127.0.0.1:{port} ssl crt {certificate}\n"
            f"    server wizgy {upstream} send-proxy-v2-ssl\n"
        )
        with haproxy(section, [port], tmp_path):
            environ = secure_environ_of(port, authority)
            assert (environ["wsgi.url_scheme"], environ["HTTPS"], environ["REMOTE_ADDR"]) == ("https", "on", CLIENT)


def test_haproxy_passes_tls_on(tmp_path: Path, authority: Authority, certificate: str) -> None:
    """The PROXY protocol before TLS that ends in wizgy, and HAProxy's own checks, as the guide has them."""
    arguments = ["--certfile", certificate, "--trust-proxy", "127.0.0.1", "--proxy-protocol"]
    with served(*arguments) as server:
        port, passing_port = free_port(), free_port()
        sections = haproxy_sections(port, free_port(), passing_port, "{}:{}".format(*server.address), certificate)
        sections = sections.replace("check check-send-proxy", "check inter 100ms check-send-proxy")
        with haproxy(sections, [port, passing_port], tmp_path):
            for _ in range(3):
                environ = secure_environ_of(passing_port, authority)
                assert environ["REMOTE_ADDR"] == CLIENT
                assert environ["SSL_PROTOCOL"] == "TLSv1.3"
        assert "is DOWN" not in (tmp_path / "haproxy.out").read_text("utf-8")


def test_haproxy_checks_over_http(tmp_path: Path) -> None:
    """HAProxy's checks say LOCAL before their request; the server is found up, and down when it is (section 2.2)."""
    arguments = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--health", "--access-log", "-"]
    with served(*arguments) as server:
        port = free_port()
        upstream = "{}:{}".format(*server.address)
        section = (
            f"listen web\n    mode http\n    bind 127.0.0.1:{port}\n    option httpchk GET /readyz\n"
            f"    server wizgy {upstream} send-proxy-v2 check check-send-proxy inter 100ms fall 2 rise 1\n"
        )
        with haproxy(section, [port], tmp_path):
            log = tmp_path / "haproxy.out"
            wait_until(lambda: server.stdout.count('"GET /readyz') >= 5, "HAProxy has checked")
            assert "is DOWN" not in log.read_text("utf-8")
            assert environ_of(port)["REMOTE_ADDR"] == CLIENT
            server.stop()
            wait_until(lambda: "is DOWN" in log.read_text("utf-8"), "the check fails")


def test_ssl_of_the_client_is_not_that_of_the_proxy(tmp_path: Path, authority: Authority, certificate: str) -> None:
    """TLS between nginx and wizgy says nothing of the client: the scheme is what nginx tells."""
    others = {"proxy_pass http://app;": "proxy_pass https://app;"}
    with behind_nginx(tmp_path, certificate, "--certfile", certificate, **others) as front:
        assert environ_of(front.port)["wsgi.url_scheme"] == "http"
        assert secure_environ_of(front.secure_port, authority)["wsgi.url_scheme"] == "https"
