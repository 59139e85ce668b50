"""A server that does not run for a while: what came in time meanwhile is served, whatever deadline has passed."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import (
    HELLO,
    connect,
    pass_time,
    read_all,
    read_answer,
    request,
    serving_workers,
    start,
    wait_until,
)
from tests.server.tls_client import Authority, secure

TIMEOUTS = [word for name in ("header", "body", "keepalive", "write") for word in (f"--{name}-timeout", "0.5")]
PREAMBLE = b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 443\r\n"
SIZE = 8 << 20

Pause = Callable[[ServerProcess, Callable[[], object], float], None]


def stop(server: ServerProcess, meanwhile: Callable[[], object], seconds: float) -> None:
    """Stop the worker as a debugger or a frozen container does."""
    (worker,) = serving_workers(server, 1)
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_until(lambda: Path(f"/proc/{worker}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "T", "T")
        meanwhile()
        pass_time(seconds)
    finally:
        os.kill(worker, signal.SIGCONT)


def hold(server: ServerProcess, meanwhile: Callable[[], object], seconds: float) -> None:
    """Have C code keep the interpreter's lock, as a catastrophic regular expression does."""
    with connect(server.address) as sock:
        sock.sendall(request(f"/hold/{int(seconds * 1000)}", "Connection: close"))
        server.wait_stdout("holds")
        meanwhile()
        assert read_all(sock).endswith(b"held\n")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificate of the server."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server with short deadlines."""
    with start(*TIMEOUTS) as process:
        yield process


# The shorter one is no more than a slow turn; a server that ran for so long in another place might do it.
@pytest.mark.parametrize(("pause", "seconds"), [(stop, 0.8), (stop, 2.0), (hold, 0.8), (hold, 2.0)])
def test_what_came_in_time_is_served(server: ServerProcess, pause: Pause, seconds: float) -> None:
    """An idle connection, a new one, half a head and half of a content: none is cut for the server's own pause."""
    head = request("/upload", "Content-Length: 5", method="POST")
    beginnings = {"kept": HELLO, "new": b"", "head": HELLO[:20], "content": head + b"he"}
    rests = {"kept": HELLO, "new": HELLO, "head": HELLO[20:], "content": b"llo"}
    socks = {name: connect(server.address) for name in beginnings}
    for name, data in beginnings.items():
        socks[name].sendall(data)
    read_answer(socks["kept"])

    def send_the_rest() -> None:
        for name, data in rests.items():
            socks[name].sendall(data)

    pause(server, send_the_rest, seconds)
    for name, sock in socks.items():
        response, content = read_answer(sock)
        assert (name, response.status, content) == (name, 200, b"5\n" if name == "content" else b"hello\n")
        sock.close()


@pytest.mark.parametrize("seconds", [0.8, 2.0])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_client_that_reads_in_the_pause(server: ServerProcess, seconds: float, version: str) -> None:
    """A client that took all that there was while the server could send no more is not one that takes nothing."""
    with connect(server.address, receive_buffer=65536) as sock:
        sock.sendall(f"GET /stream/{SIZE} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data = bytearray()

        def read_what_is_there() -> None:
            sock.settimeout(0.1)
            try:
                while True:
                    data.extend(sock.recv(65536))
            except TimeoutError:
                sock.settimeout(10)

        stop(server, read_what_is_there, seconds)
        assert len(data) < SIZE
        data += read_all(sock)
        assert len(data) > SIZE
        if version == "1.1":
            assert data.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("seconds", [0.8, 2.0])
def test_preamble_that_came_in_the_pause(seconds: float) -> None:
    """A connection behind a proxy that has said nothing yet is served like any other."""
    with start(*TIMEOUTS, "--proxy-protocol", "--trust-proxy", "127.0.0.1") as server:
        with connect(server.address) as sock:
            stop(server, lambda: sock.sendall(PREAMBLE + HELLO), seconds)
            assert read_answer(sock)[1] == b"hello\n"


def test_handshake_that_began_in_the_pause(authority: Authority) -> None:
    """A client whose TLS has to wait for the server's part of the handshake has time to go on with its own."""
    certificate = authority.issue("localhost")

    def ask(sock: socket.socket) -> bytes:
        with secure(sock, authority.client(minimum_version=ssl.TLSVersion.TLSv1_2)) as secured:
            secured.sendall(HELLO)
            return read_answer(secured)[1]

    with start(*TIMEOUTS, "--certfile", certificate) as server, ThreadPoolExecutor() as pool:
        with connect(server.address) as fresh, connect(server.address) as kept:
            secured = secure(kept, authority.client())
            secured.sendall(HELLO)
            read_answer(secured)
            asked = []

            def meanwhile() -> None:
                asked.append(pool.submit(ask, fresh))
                secured.sendall(HELLO)

            stop(server, meanwhile, 2.0)
            assert asked[0].result() == b"hello\n"
            assert read_answer(secured)[1] == b"hello\n"
            secured.close()


def test_deadlines_count_after_a_pause(server: ServerProcess) -> None:
    """What did not come while the server was away is cut a little later than usual, and as usual."""
    with connect(server.address) as idle, connect(server.address) as half:
        half.sendall(HELLO[:20])
        stop(server, lambda: None, 2.0)
        assert read_all(idle) == b""
        assert read_all(half).startswith(b"HTTP/1.1 408 ")


def test_silent_connection_behind_a_proxy_does_not_hold_a_stop() -> None:
    """A connection that still owes its preamble has the grace of an idle one when the server stops (fault 5)."""
    with start("--header-timeout", "60", "--proxy-protocol", "--trust-proxy", "127.0.0.1") as server:
        with connect(server.address) as silent, connect(server.address) as served:
            served.sendall(PREAMBLE + HELLO)
            read_answer(served)
            server.signal(signal.SIGTERM)
            assert server.wait(10) == 0
            assert read_all(silent) == read_all(served) == b""
