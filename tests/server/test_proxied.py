"""What a server believes of proxies: Forwarded, X-Forwarded-*, the PROXY protocol, a path prefix."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    HELLO,
    Address,
    connect,
    read_all,
    read_answer,
    request,
    start,
    wait_until,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LINE = b"PROXY TCP4 203.0.113.9 198.51.100.2 4711 443\r\n"


def binary(rest: bytes = b"", *, command: int = 0x21, family: int = 0x11) -> bytes:
    """A preamble of version 2, of the same client as `LINE` and with `rest` behind the addresses."""
    addresses = b""
    if command == 0x21 and family == 0x11:
        ends = socket.inet_aton("203.0.113.9"), socket.inet_aton("198.51.100.2")
        addresses = b"".join(ends) + struct.pack("!HH", 4711, 443)
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses + rest)) + addresses + rest


def ask(address: Address, *fields: str, target: str = "/environ", preamble: bytes = b"") -> dict[str, Any]:
    """Ask once; returns environ as the application sees it."""
    with connect(address) as sock:
        sock.sendall(preamble + request(target, "Connection: close", *fields))
        response, content = read_answer(sock)
        assert response.status == 200, content
        environ = json.loads(content)
        assert isinstance(environ, dict)
        return environ


def refusal(address: Address, *fields: str) -> bytes:
    """Ask once; returns the whole answer, after which the connection is closed."""
    with connect(address) as sock:
        sock.sendall(request("/environ", *fields) + HELLO)
        return read_all(sock)


@pytest.fixture(scope="module")
def trusting() -> Iterator[ServerProcess]:
    """A server that trusts this machine and a network."""
    with start("--trust-proxy", "127.0.0.1,10.0.0.0/8") as server:
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[ServerProcess]:
    """A server that trusts nobody."""
    with start() as server:
        yield server


def test_nobody_is_trusted_by_default(plain: ServerProcess) -> None:
    """Without --trust-proxy what proxies tell changes nothing and stays out of environ (RFC 7239 section 8.1)."""
    fields = [
        "Forwarded: for=203.0.113.9;proto=https;host=evil.example",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-User: root",
        "X-Real-IP: 203.0.113.10",
    ]
    environ = ask(plain.address, *fields)
    without = ask(plain.address)
    assert environ.pop("HTTP_X_REAL_IP") == "203.0.113.10"
    for one in environ, without:
        del one["REMOTE_PORT"]
    assert environ == without


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Ssl", "Forwarded"]
)
def test_field_that_is_left_out_is_named_once(name: str) -> None:
    """Whichever field of a proxy is left out, the log names it, the peer and the flag, once."""
    with start() as server:
        for _ in range(3):
            ask(server.address, f"{name}: for=203.0.113.9")
        ask(server.address, f"{name}: for=203.0.113.9", "X-Forwarded-Server: a")
        server.wait_stderr(rf": {name} of 127\.0\.0\.1\. .* --trust-proxy 127\.0\.0\.1$")
        server.wait_stderr(": X-Forwarded-Server of ")
        assert server.stderr.count(f": {name} of") == 1


def test_strangers_name_few_fields() -> None:
    """The fields that the log names are bounded, however many names a client makes up."""
    with start() as server:
        for number in range(200):
            ask(server.address, f"X-Forwarded-{number}: 1")
        ask(server.address, f"X-Forwarded-{'a' * 1000}: 1")
        server.wait_stderr("X-Forwarded-0")
        assert server.stop() == 0
        assert server.stderr.count("X-Forwarded-") <= 20


def test_field_that_forwarded_fields_leaves_out_is_named() -> None:
    """A field of a trusted proxy that --forwarded-fields does not name is reported once, with that flag."""
    with start("--trust-proxy", "127.0.0.1", "--forwarded-fields", "x-forwarded-for") as server:
        for _ in range(2):
            ask(server.address, "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
        server.wait_stderr(r": X-Forwarded-Proto of 127\.0\.0\.1\. .* --forwarded-fields$")
        assert server.stderr.count("X-Forwarded-") == 1


def test_keep_forwarded() -> None:
    """With --keep-forwarded the fields of everybody are in environ, and change nothing else."""
    with start("--keep-forwarded") as server:
        environ = ask(server.address, "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "Forwarded: for=_a")
        assert environ["HTTP_X_FORWARDED_FOR"] == "203.0.113.9"
        assert environ["HTTP_FORWARDED"] == "for=_a"
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")


def test_x_forwarded(trusting: ServerProcess) -> None:
    """The application sees what the client sees: its address, scheme, host, port and path."""
    environ = ask(
        trusting.address,
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Port: 8443",
        "X-Forwarded-Prefix: /outer/",
    )
    expected = {
        "REMOTE_ADDR": "203.0.113.9",
        "REMOTE_PORT": "",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "HTTP_HOST": "shop.example:8443",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "8443",
        "SCRIPT_NAME": "/outer",
        "PATH_INFO": "/environ",
        "HTTP_X_FORWARDED_FOR": "203.0.113.9, 10.1.2.3",
    }
    assert {key: environ.get(key) for key in expected} == expected


def test_forwarded(trusting: ServerProcess) -> None:
    """The same from Forwarded, with quoted strings and an IPv6 address (RFC 7239 section 4)."""
    value = 'for=6.6.6.6;host=evil, For="[2001:db8::9]:4711";Proto=https;host="shop.example:8443", for=10.1.2.3'
    environ = ask(trusting.address, f"Forwarded: {value}")
    expected = {
        "REMOTE_ADDR": "2001:db8::9",
        "REMOTE_PORT": "4711",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "shop.example:8443",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "8443",
        "HTTP_FORWARDED": value.partition(", ")[2],
    }
    assert {key: environ.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}),
        (["X-Forwarded-For: unknown"], {"REMOTE_ADDR": "", "REMOTE_PORT": ""}),
        (["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 10.0.0.1"], {"REMOTE_ADDR": "203.0.113.9"}),
        (
            ["X-Forwarded-Proto: https"],
            {"HTTP_HOST": "localhost", "SERVER_NAME": "localhost", "SERVER_PORT": "443", "REMOTE_ADDR": "127.0.0.1"},
        ),
        (["X-Forwarded-Proto: http", "X-Forwarded-Port: 80"], {"HTTP_HOST": "localhost", "SERVER_PORT": "80"}),
        (["X-Forwarded-Port: 8080"], {"HTTP_HOST": "localhost:8080", "SERVER_PORT": "8080"}),
        (["X-Forwarded-Host: [2001:db8::1]:81"], {"SERVER_NAME": "[2001:db8::1]", "SERVER_PORT": "81"}),
        (["X-Forwarded-Host: a:81", "X-Forwarded-Port: 82"], {"HTTP_HOST": "a:81", "SERVER_PORT": "82"}),
        (["X-Forwarded-User: ann"], {"HTTP_X_FORWARDED_USER": "ann"}),
    ],
)
def test_parts(trusting: ServerProcess, fields: list[str], expected: dict[str, str]) -> None:
    """What proxies do not tell stays as it is, and what they tell fits together (PEP 3333, "URL Reconstruction")."""
    environ = ask(trusting.address, *fields)
    assert {key: environ.get(key) for key in expected} == expected


@pytest.mark.parametrize("with_host", [True, False])
def test_absolute_form(trusting: ServerProcess, with_host: bool) -> None:
    """The host that proxies tell goes before that of an absolute-form target, and the target's before Host."""
    fields = ["X-Forwarded-Proto: https", *(["X-Forwarded-Host: shop.example"] if with_host else [])]
    environ = ask(trusting.address, *fields, target="http://other.example/environ")
    host = "shop.example" if with_host else "other.example"
    assert (environ["HTTP_HOST"], environ["SERVER_NAME"], environ["PATH_INFO"]) == (host, host, "/environ")


@pytest.mark.parametrize(
    "fields",
    [
        ["X-Forwarded-For: localhost"],
        ["X-Forwarded-For: 203.0.113.300"],
        ["X-Forwarded-Proto: https, http"],
        ["X-Forwarded-Proto: ftp"],
        ["X-Forwarded-Host: a.example, b.example"],
        ["X-Forwarded-Host: a/b"],
        ["X-Forwarded-Port: 0"],
        ["X-Forwarded-Prefix: //evil.example"],
        ["Forwarded: for=2001:db8::1"],
        ["Forwarded: for=203.0.113.9;for=203.0.113.10"],
        ["Forwarded: for=203.0.113.9", "X-Forwarded-For: 203.0.113.10"],
        ["Forwarded: proto=https", "X-Forwarded-Proto: http"],
        ["Forwarded: host=a", "X-Forwarded-Host: b"],
    ],
    ids=" + ".join,
)
def test_malformed_or_differing(trusting: ServerProcess, fields: list[str]) -> None:
    """What a trusted proxy tells in no grammar, or in two ways, is 400, and nothing later is read (RFC 7239)."""
    answer = refusal(trusting.address, *fields)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"203.0.113" not in answer


def test_connection_of_a_proxy_is_used_again(trusting: ServerProcess) -> None:
    """Each request on a connection has its own client, also where only that differs."""
    with connect(trusting.address) as sock:
        for client in "203.0.113.1", "203.0.113.2", "203.0.113.2", None, "203.0.113.1":
            sock.sendall(request("/environ", *([f"X-Forwarded-For: {client}"] if client else [])))
            environ = json.loads(read_answer(sock)[1])
            assert environ["REMOTE_ADDR"] == (client or "127.0.0.1")


def test_host_of_a_target_is_for_its_request_only(trusting: ServerProcess) -> None:
    """The host in an absolute-form target is not that of the next request (RFC 9112 section 3.2.2)."""
    fields = ["X-Forwarded-Proto: https"]
    with connect(trusting.address) as sock:
        for target, host in [
            ("/environ", "localhost"),
            ("http://other.example/environ", "other.example"),
            ("/environ", "localhost"),
            ("http://third.example/environ", "third.example"),
            ("/environ", "localhost"),
        ]:
            sock.sendall(request(target, *fields))
            environ = json.loads(read_answer(sock)[1])
            assert (environ["HTTP_HOST"], environ["SERVER_NAME"]) == (host, host)


@pytest.mark.parametrize(
    "fields",
    [
        ["X-Forwarded-For: 203.0.113.2", "Host: b"],
        ["X-Forwarded-For: 203.0.113.2", "X-Forwarded-Port: 99999"],
        ["X-Forwarded-For: 203.0.113.2", "Transfer-Encoding: gzip"],
    ],
)
def test_refused_request_is_not_laid_to_another(fields: list[str]) -> None:
    """A request that is refused has no client yet, so the log names the proxy, and not the client before it."""
    with start("--trust-proxy", "127.0.0.1", "--access-log", "-") as server, connect(server.address) as sock:
        sock.sendall(request("/hello", "X-Forwarded-For: 203.0.113.1"))
        assert read_answer(sock)[0].status == 200
        sock.sendall(request("/hello", *fields))
        assert read_answer(sock)[0].status in (400, 501)
        server.wait_stdout(r"^203\.0\.113\.1 .* 200 ")
        server.wait_stdout(r"^127\.0\.0\.1 .* (400|501) ")


def test_fields_that_proxies_do_not_set() -> None:
    """With --forwarded-fields a field that the proxies do not set counts for nothing and is left out."""
    with start("--trust-proxy", "127.0.0.1", "--forwarded-fields", "x-forwarded-for,x-forwarded-proto") as server:
        environ = ask(
            server.address, "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: evil", "Forwarded: for=6.6.6.6"
        )
        assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"]) == ("203.0.113.9", "localhost")
        assert not {"HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED"} & environ.keys()


def test_peers_of_a_unix_socket(tmp_path: Path) -> None:
    """Peers of a Unix socket are trusted by the word unix, and by no network."""
    path = str(tmp_path / "wizgy.sock")
    for trusted, address in ("unix", "203.0.113.9"), ("0.0.0.0/0,::/0", ""):
        with ServerProcess(
            ["--chdir", str(FOLDER), "--bind", f"unix:{path}", "--trust-proxy", trusted, "served:app"]
        ) as server:
            server.wait_stderr("Serving HTTP on unix:")
            assert ask(path, "X-Forwarded-For: 203.0.113.9")["REMOTE_ADDR"] == address


def test_access_log_names_the_client(tmp_path: Path) -> None:
    """The access log has the client's address, not the proxy's."""
    log = tmp_path / "access.log"
    with start("--trust-proxy", "127.0.0.1", "--access-log", str(log)) as server:
        ask(server.address, "X-Forwarded-For: 203.0.113.9")
        wait_until(lambda: log.read_text("utf-8").startswith("203.0.113.9 "), "the line is there")


# The PROXY protocol


@pytest.fixture(scope="module")
def behind() -> Iterator[ServerProcess]:
    """A server behind a proxy that sends the PROXY protocol."""
    with start("--trust-proxy", "127.0.0.1,10.0.0.0/8", "--proxy-protocol") as server:
        yield server


@pytest.mark.parametrize("preamble", [LINE, binary()], ids=["version-1", "version-2"])
def test_preamble(behind: ServerProcess, preamble: bytes) -> None:
    """The client of the preamble is the client of every request of the connection."""
    with connect(behind.address) as sock:
        sock.sendall(preamble + request("/environ") * 2)
        environs = read_environ(sock), read_environ(sock)
    for environ in environs:
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("203.0.113.9", "4711")
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("198.51.100.2", "443")
        assert environ["wsgi.url_scheme"] == "http"


def read_environ(sock: socket.socket) -> dict[str, Any]:
    """Read one of several answers that may have come together."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    length = int(data.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    content = b""
    while len(content) < length:
        content += sock.recv(length - len(content))
    environ = json.loads(content)
    assert isinstance(environ, dict)
    return environ


@pytest.mark.parametrize("preamble", [LINE, binary(b"\x04\x00\x04pad!")], ids=["version-1", "version-2"])
def test_preamble_in_pieces(behind: ServerProcess, preamble: bytes) -> None:
    """How the preamble is cut, and whether the request comes with it, makes no difference."""
    data = preamble + request("/environ", "Connection: close")
    for cut in [*range(1, len(preamble) + 2), len(data)]:
        with connect(behind.address) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(data[:cut])
            sock.sendall(data[cut:])
            assert json.loads(read_answer(sock)[1])["REMOTE_ADDR"] == "203.0.113.9"
    with connect(behind.address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(data)):
            sock.sendall(data[number : number + 1])
        assert json.loads(read_answer(sock)[1])["REMOTE_ADDR"] == "203.0.113.9"


def test_preamble_of_a_client_with_tls(behind: ServerProcess) -> None:
    """Where the proxy has the TLS, its preamble may say so: the scheme is https (section 2.2.5)."""
    environ = ask(behind.address, preamble=binary(b"\x20\x00\x05\x01\0\0\0\0"))
    assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")


@pytest.mark.parametrize(
    "preamble",
    [b"PROXY UNKNOWN\r\n", binary(command=0x20, family=0), binary(family=0), binary(bytes(216), family=0x31)],
    ids=["unknown", "local", "unspec", "unix"],
)
def test_preamble_without_a_client(behind: ServerProcess, preamble: bytes) -> None:
    """A preamble that tells of no client is accepted, and then nobody's X-Forwarded-* count (section 2.2)."""
    environ = ask(behind.address, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", preamble=preamble)
    assert environ["REMOTE_ADDR"] in ("127.0.0.1", "")
    assert environ["wsgi.url_scheme"] == "http"
    assert "HTTP_X_FORWARDED_FOR" not in environ


@pytest.mark.parametrize(("client", "address"), [("10.0.0.1", "203.0.113.10"), ("203.0.113.9", "203.0.113.9")])
def test_preamble_and_fields(behind: ServerProcess, client: str, address: str) -> None:
    """The client of the preamble is the peer that may be trusted: a proxy before the proxy, or a stranger."""
    preamble = f"PROXY TCP4 {client} 198.51.100.2 4711 443\r\n".encode()
    assert ask(behind.address, "X-Forwarded-For: 203.0.113.10", preamble=preamble)["REMOTE_ADDR"] == address


@pytest.mark.parametrize(
    "sent",
    [
        HELLO,
        b"PROXY TCP4 203.0.113.9 198.51.100.2 4711 70000\r\n" + HELLO,
        b"PROXY TCP5 203.0.113.9 198.51.100.2 4711 443\r\n" + HELLO,
        b"PROXY UNKNOWN" + b"x" * 200,
        SIGNATURE + b"\x31\x11\x00\x00" + HELLO,
        LINE + LINE + HELLO,
    ],
    ids=["none", "bad-port", "bad-family", "endless", "bad-version", "twice"],
)
def test_no_preamble(behind: ServerProcess, sent: bytes) -> None:
    """A connection that does not begin with one preamble is closed, and no request on it is served (section 2)."""
    with connect(behind.address) as sock:
        try:
            sock.sendall(sent)
            answer = read_all(sock)
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert ask(behind.address, preamble=LINE)["REMOTE_ADDR"] == "203.0.113.9"


def test_preamble_of_a_stranger() -> None:
    """Only trusted proxies may begin with a preamble; others are closed, and the log says why."""
    with start("--trust-proxy", "10.0.0.0/8", "--proxy-protocol") as server:
        for _ in range(3):
            with connect(server.address) as sock:
                try:
                    sock.sendall(LINE + HELLO)
                    assert read_all(sock) == b""
                except ConnectionError:
                    pass
        server.wait_stderr(r"A connection of 127\.0\.0\.1 was closed: --proxy-protocol is for proxies")
        assert server.stderr.count("was closed") == 1


def test_preambles_that_stall() -> None:
    """500 connections that stall inside of the preamble hold no thread, and are closed after the header timeout."""
    arguments = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--header-timeout", "1", "--bind", "127.0.0.1:0"]
    with ExitStack() as stack:
        server = stack.enter_context(start(*arguments))
        socks = [stack.enter_context(connect(server.address)) for _ in range(500)]
        for number, sock in enumerate(socks):
            sock.sendall((LINE if number % 2 else binary())[: number % 28])
        assert ask(server.address, preamble=LINE)["REMOTE_ADDR"] == "203.0.113.9"
        for sock in socks:
            assert read_all(sock) == b""


def test_proxy_protocol_needs_trust() -> None:
    """--proxy-protocol with nobody trusted would serve nobody, and is refused with the flag that is missing."""
    with ServerProcess(["--proxy-protocol", "--chdir", str(FOLDER), "served:app"]) as server:
        assert server.wait() == 2
        assert "--trust-proxy" in server.stderr


@pytest.mark.parametrize("value", ["localhost", "10.0.0.0/33", "10.0.0.1/8", "*", "127.0.0.1,"])
def test_bad_trust(value: str) -> None:
    """A network that is none is exit 2, with what is expected; an empty part of a list is no fault."""
    with ServerProcess(["--trust-proxy", value, "--chdir", str(FOLDER), "--check", "served:app"]) as server:
        if value.endswith(","):
            assert server.wait() == 0
        else:
            assert server.wait() == 2
            assert "expected an address, a network as 10.0.0.0/8, or unix" in server.stderr


# --url-prefix


@pytest.fixture(scope="module")
def mounted() -> Iterator[ServerProcess]:
    """A server whose application is below a path."""
    with start("--url-prefix", "/sh\xf6p/") as server:
        yield server


def test_prefix(mounted: ServerProcess) -> None:
    """Below the prefix the application is served, which is its SCRIPT_NAME (RFC 3875 section 4.1.13)."""
    environ = ask(mounted.address, target="/sh%c3%B6p/environ?x=y")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/sh\xc3\xb6p", "/environ")


def test_outside_of_the_prefix(mounted: ServerProcess) -> None:
    """What is outside of the prefix is 404, and the connection goes on."""
    with connect(mounted.address) as sock:
        for target in "/", "/shop/hello", "/sh%C3%B6p%2Fhello", "/sh%C3%B6ps/hello":
            sock.sendall(request(target))
            assert read_answer(sock)[0].status == 404
        sock.sendall(request("/sh%C3%B6p/hello"))
        assert read_answer(sock)[1] == b"hello\n"


@pytest.mark.parametrize("value", ["app", "//app", "/a//b", "/a?b"])
def test_bad_prefix(value: str) -> None:
    """A prefix that is no path is exit 2."""
    with ServerProcess(["--url-prefix", value, "--chdir", str(FOLDER), "--check", "served:app"]) as server:
        assert server.wait() == 2
        assert "expected a path that begins with a slash" in server.stderr
