"""TLS: handshakes, records in any pieces, both ends of a connection, certificates and their faults."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

import wizgy
from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    HELLO,
    PROBE,
    TIMEOUT,
    children,
    connect,
    is_alive,
    read_all,
    read_answer,
    request,
    resident,
    wait_until,
)
from tests.server.secured import pattern
from tests.server.served import app
from tests.server.tls_client import Authority, Pieces, connect_secure, secure
from tests.server.tls_client import pieces as cut

MEBIBYTE = 1 << 20
CLOSING = request("/hello", "Connection: close")
APP = "tests.server.secured:app"
ROOT = FOLDER.parents[1]


def serve(*arguments: str, app: str = APP) -> ServerProcess:
    """Start a server for `secured.app` on a free port and wait until it is ready."""
    process = ServerProcess(["--chdir", str(ROOT), "--bind", "127.0.0.1:0", *arguments, app])
    try:
        process.wait_ready()
    except BaseException:
        process.kill()
        raise
    return process


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs the certificates of these tests."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> str:
    """A certificate with its key, for this machine."""
    return authority.issue("localhost", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def server(certificate: str) -> Iterator[ServerProcess]:
    """A server that speaks TLS."""
    with serve("--certfile", certificate, "--access-log", "-") as process:
        yield process


@pytest.fixture(scope="module")
def client(authority: Authority) -> ssl.SSLContext:
    """A client that knows the authority."""
    return authority.client()


def ask(server: ServerProcess, client: ssl.SSLContext, target: str = "/hello", name: str = "localhost") -> bytes:
    """Ask once on a connection of its own, which has to end in peace; returns the content."""
    with connect_secure(server.address, client, name) as sock:
        sock.sendall(request(target, "Connection: close"))
        response, content = read_answer(sock)
        assert response.status == 200
        assert sock.recv(1) == b""  # close_notify, or this raises
        return content


def environ_of(server: ServerProcess, client: ssl.SSLContext) -> dict[str, Any]:
    """What the application sees of a request."""
    environ = json.loads(ask(server, client, "/environ"))
    assert isinstance(environ, dict)
    return environ


# What is served


def test_ready_line(server: ServerProcess) -> None:
    """The ready line says HTTPS."""
    host, port = server.address
    assert server.stderr.startswith(f"wizgy: Serving HTTPS on {host} port {port} ...\n")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_environ(server: ServerProcess, authority: Authority, version: ssl.TLSVersion) -> None:
    """The application learns that the scheme is https, and by what it is (PEP 3333, "environ Variables")."""
    client = authority.client(minimum_version=version, maximum_version=version)
    environ = environ_of(server, client)
    expected = {
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_PORT": str(server.address[1]),
        "SSL_PROTOCOL": version.name.replace("_", "."),
        "SSL_CLIENT_VERIFY": "NONE",
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["SSL_CIPHER"]


def test_old_versions_are_refused(server: ServerProcess, authority: Authority) -> None:
    """TLS 1.1 is not spoken (RFC 8996)."""
    client = authority.client()
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        connect_secure(server.address, client)


def test_alpn(server: ServerProcess, authority: Authority) -> None:
    """Of the protocols that a client offers, http/1.1 is chosen (RFC 7301 section 3.2)."""
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with connect_secure(server.address, client) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        sock.sendall(HELLO)
        assert read_answer(sock)[1] == b"hello\n"


def test_ssl_is_imported_only_for_tls() -> None:
    """A server without TLS does not load it."""
    with serve() as server, connect(server.address) as sock:
        sock.sendall(request("/modules"))
        assert read_answer(sock)[1] == b"no ssl"


def test_embedded(certificate: str, client: ssl.SSLContext) -> None:
    """`wizgy.make_server` speaks TLS too."""
    with wizgy.make_server(("127.0.0.1", 0), app, certfile=certificate) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert isinstance(server.server_address, tuple)
        with connect_secure(server.server_address, client) as sock:
            sock.sendall(HELLO)
            assert read_answer(sock)[1] == b"hello\n"
        server.shutdown()
        thread.join(TIMEOUT)


# Bytes in any pieces


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_ciphertext_in_pieces(server: ServerProcess, client: ssl.SSLContext, size: int) -> None:
    """How the ciphertext is cut makes no difference, to the handshake and to the request."""
    with connect(server.address) as sock:
        pieces = Pieces(sock, client)
        pieces.shake_hands(size)
        pieces.send(CLOSING, size)
        assert pieces.read_all().endswith(b"\r\n\r\nhello\n")


@pytest.mark.parametrize("record", [1, 10])
def test_request_over_many_records(server: ServerProcess, client: ssl.SSLContext, record: int) -> None:
    """A request may come in many records (RFC 8446 section 5.1)."""
    with connect(server.address) as sock:
        pieces = Pieces(sock, client)
        pieces.shake_hands()
        pieces.send(CLOSING, record=record)
        assert pieces.read_all().endswith(b"\r\n\r\nhello\n")


def test_tiny_records_leave_others_their_turn(server: ServerProcess, client: ssl.SSLContext) -> None:
    """A client whose content comes in records of one byte is one of many: others are answered meanwhile (fault 1)."""
    content = pattern(200_000)
    with connect(server.address) as sock, connect_secure(server.address, client) as other:
        upload = Pieces(sock, client)
        upload.shake_hands()
        upload.tls.write(request("/digest", f"Content-Length: {len(content)}", "Connection: close", method="POST"))
        for piece in cut(content, 1):
            upload.tls.write(piece)
        answers: list[bytes] = []

        def send() -> None:
            upload.transmit()
            answers.append(upload.read_all())

        sending = threading.Thread(target=send)
        sending.start()
        meanwhile = 0
        while not answers and sending.is_alive():
            other.sendall(HELLO)
            assert read_answer(other)[1] == b"hello\n"
            meanwhile += 1
        sending.join(TIMEOUT)
        assert answers[0].endswith(hashlib.sha256(content).hexdigest().encode())
        assert meanwhile > 20


def test_many_requests_in_one_record(server: ServerProcess, client: ssl.SSLContext) -> None:
    """Requests that come in one record are all answered, with no event after the first."""
    with connect_secure(server.address, client) as sock:
        sock.sendall(HELLO * 100 + CLOSING)
        assert read_all(sock).count(b"\r\n\r\nhello\n") == 101


@pytest.mark.parametrize("size", [65536 - 1, 65536, 65536 + 1, 300_000])
def test_content_around_the_size_of_buffers(server: ServerProcess, client: ssl.SSLContext, size: int) -> None:
    """Nothing that TLS has decrypted stays behind when no more comes on the socket."""
    content = pattern(size)
    head = request("/digest", f"Content-Length: {size}", method="POST")
    with connect_secure(server.address, client) as sock:
        for data in (head + content,), (head, content):
            for piece in data:
                sock.sendall(piece)
            assert read_answer(sock)[1] == hashlib.sha256(content).hexdigest().encode()


def test_large_upload(server: ServerProcess, client: ssl.SSLContext) -> None:
    """20 MB arrive whole."""
    content = pattern(20 * MEBIBYTE)
    with connect_secure(server.address, client) as sock:
        sock.sendall(request("/digest", f"Content-Length: {len(content)}", method="POST"))
        sock.sendall(content)
        assert read_answer(sock)[1] == hashlib.sha256(content).hexdigest().encode()


@pytest.mark.parametrize("kind", ["pattern", "file"])
@pytest.mark.parametrize("size", [1, 16384, 16385, 65537, 8 * MEBIBYTE])
def test_download(server: ServerProcess, client: ssl.SSLContext, kind: str, size: int) -> None:
    """Content and files of every size leave whole, though the kernel cannot send a file encrypted."""
    assert ask(server, client, f"/{kind}/{size}") == pattern(size)


@pytest.mark.parametrize("kind", ["pattern", "file"])
def test_slow_reader(server: ServerProcess, client: ssl.SSLContext, kind: str) -> None:
    """A client that takes its answer in small pieces with pauses gets all of it, and holds up nobody."""
    size = 4 * MEBIBYTE
    with secure(connect(server.address, receive_buffer=4096), client) as sock:
        sock.sendall(request(f"/{kind}/{size}", "Connection: close"))
        assert ask(server, client) == b"hello\n"
        data = b""
        while piece := sock.recv(4096):
            data += piece
        assert data.endswith(b"\r\n\r\n" + pattern(size))


def test_clients_that_do_not_read(certificate: str, client: ssl.SSLContext) -> None:
    """64 clients that ask for 20 MB and read nothing hold no thread and little memory (fault 2)."""
    with ExitStack() as stack:
        server = stack.enter_context(serve("--certfile", certificate, "--threads", "4"))
        ask(server, client)
        (worker,) = children(server.pid)
        before = resident(worker)
        socks = []
        for _ in range(64):
            sock = stack.enter_context(secure(connect(server.address, receive_buffer=4096), client))
            sock.sendall(request(f"/big/{20 * MEBIBYTE}"))
            socks.append(sock)
        assert ask(server, client) == b"hello\n"
        assert resident(worker) - before < 64 * MEBIBYTE
        response, content = read_answer(socks[0])
        assert (response.status, len(content)) == (200, 20 * MEBIBYTE)


# Handshakes


def test_stalled_handshakes(certificate: str, authority: Authority) -> None:
    """1000 handshakes that stall hold no thread, and end with the header timeout (fault 3)."""
    client = authority.client()
    begun = Pieces(socket.socket(), client)
    with pytest.raises(ssl.SSLWantReadError):
        begun.tls.do_handshake()
    hello = begun.outgoing.read()
    begun.sock.close()
    with ExitStack() as stack:
        server = stack.enter_context(serve("--certfile", certificate, "--threads", "2", "--header-timeout", "4"))
        (worker,) = children(server.pid)
        threads = len(os.listdir(f"/proc/{worker}/task"))
        stalled = [stack.enter_context(connect(server.address)) for _ in range(1000)]
        for number, sock in enumerate(stalled):
            sock.sendall(hello[: len(hello) * (number % 5) // 4])  # nothing, parts, and all of it
        for _ in range(5):
            assert ask(server, client) == b"hello\n"
        assert len(os.listdir(f"/proc/{worker}/task")) == threads
        for sock in stalled:
            while sock.recv(65536):
                pass
        assert ask(server, client) == b"hello\n"


def test_handshake_that_fails_is_told(server: ServerProcess) -> None:
    """A client that does not trust the certificate ends the handshake, and the server serves on."""
    with pytest.raises(ssl.SSLCertVerificationError):
        connect_secure(server.address, ssl.create_default_context())


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + bytes(70000), b"\x16", b"\x16\x03\x01\x00\x00" * 50],
)
def test_garbage_for_a_handshake(server: ServerProcess, client: ssl.SSLContext, sent: bytes) -> None:
    """What begins as TLS and is none is closed, and the server serves on."""
    with connect(server.address) as sock:
        try:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            assert b"HTTP" not in read_all(sock)
        except ConnectionResetError:
            pass
    assert ask(server, client) == b"hello\n"


def test_garbage_after_the_handshake(server: ServerProcess, client: ssl.SSLContext) -> None:
    """A record that cannot be decrypted ends the connection with an alert (RFC 8446 section 5.2)."""
    with connect(server.address) as sock:
        pieces = Pieces(sock, client)
        pieces.shake_hands()
        sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            pieces.read_all()


@pytest.mark.parametrize("sent", [HELLO, b"GET / HTTP/1.0\r\n\r\n", b"\r\n", b"x"])
def test_plain_http_on_a_port_with_tls(server: ServerProcess, sent: bytes) -> None:
    """Plain HTTP is answered with 400 in plain text that says what to do, and the connection closes."""
    with connect(server.address) as sock:
        sock.sendall(sent)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"https://" in answer
    assert answer.count(b"HTTP/1.1") == 1


# Ends


def test_client_ends_with_close_notify(server: ServerProcess, client: ssl.SSLContext) -> None:
    """A client that has said close_notify gets its answer, and then the same (RFC 8446 section 6.1)."""
    with connect(server.address) as sock:
        pieces = Pieces(sock, client)
        pieces.shake_hands()
        pieces.tls.write(HELLO)
        pieces.say_close_notify()
        assert pieces.read_all().endswith(b"\r\n\r\nhello\n")
        assert sock.recv(1) == b""


def test_request_that_close_notify_cuts_short(server: ServerProcess, client: ssl.SSLContext) -> None:
    """A request that ends before it is complete is 400 (RFC 9112 section 8)."""
    with connect(server.address) as sock:
        pieces = Pieces(sock, client)
        pieces.shake_hands()
        pieces.tls.write(request("/digest", "Content-Length: 10", method="POST") + b"five!")
        pieces.say_close_notify()
        assert pieces.read_all().startswith(b"HTTP/1.1 400 ")


def test_truncation_is_no_end(server: ServerProcess, client: ssl.SSLContext) -> None:
    """A stream that ends without close_notify is an error: what came is not answered (RFC 8446 section 6.1)."""
    with connect(server.address) as sock:
        pieces = Pieces(sock, client)
        pieces.shake_hands()
        pieces.send(request("/digest?cut", "Content-Length: 10", method="POST") + b"five!")
        sock.shutdown(socket.SHUT_WR)
        try:
            with pytest.raises(ssl.SSLEOFError):
                pieces.read_all()
        except ConnectionResetError:
            pass
    assert ask(server, client, "/hello?after") == b"hello\n"
    wait_until(lambda: "/hello?after" in server.stdout, "the line of the second request")
    assert "/digest?cut" not in server.stdout


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_answer_that_is_cut_short(server: ServerProcess, client: ssl.SSLContext, version: str) -> None:
    """An answer that the application did not finish does not end with close_notify (RFC 9112 section 9.8)."""
    with connect_secure(server.address, client) as sock:
        sock.sendall(f"GET /broken {version}\r\nHost: localhost\r\n\r\n".encode())
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            read_all(sock)


def test_idle_connection_ends_with_close_notify(certificate: str, client: ssl.SSLContext) -> None:
    """A connection that is closed since nothing comes on it is closed in peace (RFC 9112 section 9.8)."""
    with serve("--certfile", certificate, "--keepalive-timeout", "0.5") as server:
        with connect_secure(server.address, client) as sock:
            sock.sendall(HELLO)
            assert read_answer(sock)[1] == b"hello\n"
            assert sock.recv(1) == b""


@pytest.mark.parametrize("fields", [[f"Content-Length: {10 * MEBIBYTE}"], ["Transfer-Encoding: chunked"]])
def test_early_refusal_is_read_whole(certificate: str, client: ssl.SSLContext, fields: list[str]) -> None:
    """A client that still sends 10 MB reads the whole early 413, every time (fault 11; RFC 9112 section 9.6)."""
    with serve("--certfile", certificate, "--max-body", "1000") as server:
        block = b"10000\r\n" + bytes(65536) + b"\r\n"
        for _ in range(10):
            with connect_secure(server.address, client) as sock:
                sock.sendall(request("/digest", *fields, method="POST"))
                for _ in range(160):
                    sock.sendall(block)
                answer = read_all(sock)
                assert answer.startswith(b"HTTP/1.1 413 ")
                assert b"\r\nConnection: close\r\n" in answer


def test_stop(certificate: str, client: ssl.SSLContext) -> None:
    """TERM answers the request that runs, and ends idle connections and stalled handshakes in a moment (fault 5)."""
    with serve("--certfile", certificate) as server, ExitStack() as stack:
        idle = stack.enter_context(connect_secure(server.address, client))
        stack.enter_context(connect(server.address))
        busy = stack.enter_context(connect_secure(server.address, client))
        busy.sendall(request("/sleep/500"))
        idle.sendall(HELLO)
        assert read_answer(idle)[1] == b"hello\n"
        server.signal(signal.SIGTERM)
        response, content = read_answer(busy)
        assert (response.status, content, response.headers["Connection"]) == (200, b"slept\n", "close")
        assert idle.recv(1) == b""
        assert server.wait(5) == 0


# Certificates


def test_client_certificate(certificate: str, authority: Authority) -> None:
    """With --client-ca a client has to have a certificate, and the application learns whose (mod_ssl)."""
    known = authority.issue("ann", "ann@example.org", common_name='Änn, "the" Boss')
    with serve("--certfile", certificate, "--client-ca", authority.file) as server:
        environ = environ_of(server, authority.client(known))
        assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert environ["SSL_CLIENT_S_DN"].encode("latin-1").decode("utf-8").startswith('CN=Änn\\, \\"the\\" Boss,OU=')
        assert environ["SSL_CLIENT_S_DN_CN"].encode("latin-1").decode("utf-8") == 'Änn, "the" Boss'
        assert environ["SSL_CLIENT_SAN_Email_0"] == "ann@example.org"
        assert environ["SSL_CLIENT_I_DN"].startswith("OU=Testing CA")
        assert environ["SSL_CLIENT_CERT"] in Path(known).read_text("ascii")


@pytest.mark.parametrize("kind", ["none", "of-another"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_client_without_a_certificate(
    certificate: str, authority: Authority, tmp_path: Path, kind: str, version: ssl.TLSVersion
) -> None:
    """A client with no certificate, or one of another authority, is told by an alert and not served."""
    stranger = Authority.make(tmp_path).issue("eve") if kind == "of-another" else ""
    client = authority.client(stranger, minimum_version=version, maximum_version=version)
    with serve("--certfile", certificate, "--client-ca", authority.file, "--access-log", "-") as server:
        for _ in range(10):
            with connect(server.address) as sock:
                with pytest.raises(ssl.SSLError, match=r"(?i)alert"), secure(sock, client) as secured:
                    secured.sendall(HELLO)
                    secured.recv(65536)
        assert server.stdout == ""


def test_several_certificates(certificate: str, authority: Authority) -> None:
    """A client gets the certificate for the name that it asks for, else the first (RFC 6066 section 3)."""
    others = [authority.issue("shop.example", "shop.example", "*.shop.example"), authority.issue("mail.example")]
    with serve("--certfile", certificate, "--certfile", others[0], "--certfile", others[1]) as server:
        client = authority.client()
        for name in "localhost", "127.0.0.1", "shop.example", "www.shop.example", "mail.example", "MAIL.example":
            assert ask(server, client, name=name) == b"hello\n"  # the client verifies the name
        client.check_hostname = False
        for name in "a.b.shop.example", "other.example", "192.0.2.1":
            with connect_secure(server.address, client, name) as sock:
                shown = sock.getpeercert()
                assert shown is not None
                assert ("DNS", "localhost") in shown["subjectAltName"]


def test_name_that_is_not_ascii(certificate: str, authority: Authority, client: ssl.SSLContext) -> None:
    """A client that asks for a name that cannot be one is refused, and nothing is written past the log (RFC 6066)."""
    other, name = authority.issue("shop.example"), "abcdefgh.example"
    with serve("--certfile", certificate, "--certfile", other) as server:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname=name)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        with connect(server.address) as sock:
            sock.sendall(outgoing.read().replace(name.encode(), b"\xff" * len(name)))
            assert sock.recv(1) == b"\x15"  # an alert
        assert ask(server, client) == b"hello\n"
        assert server.stop() == 0
        assert "Exception" not in server.stderr


def split_pem(path: str, folder: Path) -> tuple[str, str]:
    """Put the certificates and the key of a file into two."""
    text = Path(path).read_text("ascii")
    start = text.index("-----BEGIN CERTIFICATE-----")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    key.write_text(text[:start], "ascii")
    certificate.write_text(text[start:], "ascii")
    return str(certificate), str(key)


def test_key_in_its_own_file(certificate: str, client: ssl.SSLContext, tmp_path: Path) -> None:
    """Certificate and key may be two files."""
    files = split_pem(certificate, tmp_path)
    with serve("--certfile", files[0], "--keyfile", files[1]) as server:
        assert ask(server, client) == b"hello\n"


def serial_number(server: ServerProcess, client: ssl.SSLContext) -> str:
    """The serial number of the certificate that the server shows."""
    with connect_secure(server.address, client) as sock:
        shown = sock.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def test_reload(authority: Authority, client: ssl.SSLContext, tmp_path: Path) -> None:
    """HUP reads certificates anew; when they will not do, those in force stay, and the log says why."""
    file = tmp_path / "server.pem"
    first, second = (authority.issue(name, "localhost") for name in ("first", "second"))
    file.write_bytes(Path(first).read_bytes())
    with serve("--certfile", str(file)) as server:
        before = serial_number(server, client)
        file.write_bytes(b"nothing")
        server.signal(signal.SIGHUP)
        server.wait_stderr(r"reload failed: .*server\.pem: it holds no certificate in PEM")
        assert serial_number(server, client) == before
        file.write_bytes(Path(second).read_bytes())
        (worker,) = children(server.pid)
        server.signal(signal.SIGHUP)
        wait_until(lambda: not is_alive(worker), "the old worker has gone")
        assert serial_number(server, client) != before


def encrypt_key(key: bytes) -> bytes:
    """The same private key, behind a password."""
    encryption = serialization.BestAvailableEncryption(b"secret")
    private = serialization.load_pem_private_key(key, None)
    return bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def test_bad_files(certificate: str, tmp_path: Path) -> None:
    """What is wrong with a file is said with its name and what to do, exit 2; --check finds it as well."""
    certificate_file, key_file = split_pem(certificate, tmp_path)
    other = Authority.make(tmp_path).issue("other")
    empty = tmp_path / "empty.pem"
    empty.write_text("", "ascii")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(encrypt_key(Path(key_file).read_bytes()))
    secret = f"{tmp_path}/none.pem"
    for arguments, message in [
        (["--certfile", secret], f"--certfile: {secret}: No such file or directory."),
        (["--certfile", str(tmp_path)], "Is a directory."),
        (["--certfile", str(empty)], "empty.pem: it holds no certificate in PEM"),
        (["--certfile", key_file], "key.pem: it holds no certificate in PEM"),
        (
            ["--certfile", certificate_file],
            "certificate.pem: it holds no private key; say where that is with --keyfile",
        ),
        (["--certfile", certificate_file, "--keyfile", secret], f"--keyfile: {secret}: No such file or directory."),
        (["--certfile", certificate_file, "--keyfile", str(empty)], "empty.pem: it holds no private key in PEM"),
        (["--certfile", certificate_file, "--keyfile", other], "other.pem: it is not the key of the certificate in"),
        (["--certfile", certificate_file, "--keyfile", str(encrypted)], "encrypted.pem: the key is encrypted; decrypt"),
        (["--certfile", certificate, "--certfile", other, "--keyfile", key_file], "1 keys for 2 certificates"),
        (["--certfile", certificate, "--client-ca", str(empty)], "--client-ca: "),
        (["--keyfile", key_file], "certfile"),
        (["--client-ca", certificate_file], "certfile"),
    ]:
        with ServerProcess(["--chdir", str(ROOT), "--check", *arguments, APP]) as server:
            assert server.wait() == 2, arguments
            assert message in server.stderr, arguments
            assert "Traceback" not in server.stderr
    with ServerProcess(["--chdir", str(ROOT), "--bind", "127.0.0.1:0", "--certfile", str(empty), APP]) as server:
        assert server.wait() == 2
        assert "it holds no certificate in PEM" in server.stderr


# Behind a proxy

LINE = b"PROXY TCP4 203.0.113.9 198.51.100.2 4711 443\r\n"


@pytest.mark.parametrize("size", [0, 1, 50])
def test_preamble_before_tls(certificate: str, client: ssl.SSLContext, size: int) -> None:
    """The PROXY protocol comes before the handshake, in any pieces, or together with it (section 2)."""
    with serve("--certfile", certificate, "--proxy-protocol", "--trust-proxy", "127.0.0.1") as server:
        with connect(server.address) as sock:
            pieces = Pieces(sock, client)
            with pytest.raises(ssl.SSLWantReadError):
                pieces.tls.do_handshake()
            data = LINE + pieces.outgoing.read()
            for start_of_piece in range(0, len(data), size or len(data)):
                sock.sendall(data[start_of_piece : start_of_piece + (size or len(data))])
            pieces.shake_hands()
            pieces.send(request("/environ", "Connection: close"))
            environ = json.loads(pieces.read_all().partition(b"\r\n\r\n")[2])
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("203.0.113.9", "https")
            assert environ["SSL_PROTOCOL"] == "TLSv1.3"


def test_fields_of_a_proxy_over_tls(certificate: str, client: ssl.SSLContext) -> None:
    """Proxies may speak TLS to the server, and tell of the client as without it."""
    with serve("--certfile", certificate, "--trust-proxy", "127.0.0.1") as server:
        with connect_secure(server.address, client) as sock:
            sock.sendall(request("/environ", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http"))
            environ = json.loads(read_answer(sock)[1])
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("203.0.113.9", "http")
            assert environ["HTTPS"] == "off"


def test_probes_while_others_shake_hands(server: ServerProcess, client: ssl.SSLContext) -> None:
    """A hundred handshakes one after the other are each done and answered within the time of a probe."""
    for _ in range(100):
        with connect_secure(server.address, client) as sock:
            sock.settimeout(PROBE)
            sock.sendall(HELLO)
            assert read_answer(sock)[1] == b"hello\n"
