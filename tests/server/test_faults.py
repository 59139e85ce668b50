"""Clients that are slow, many, rude or gone: the others are served, and memory, threads and descriptors are bounded."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    HELLO,
    PROBE,
    children,
    connect,
    get,
    probe,
    processor_seconds,
    read_all,
    read_answer,
    request,
    resident,
    start,
    wait_until,
)
from tests.server.faults.clients import established

MEBIBYTE = 1 << 20


def test_slow_requests_do_not_stop_others() -> None:
    """With 8 threads 7 requests that sleep leave one for others; a ninth waits for a thread and is served."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--trace"))
        sleeping = []
        for count in range(1, 8):
            sock = stack.enter_context(connect(server.address))
            sock.sendall(request("/sleep/2000"))
            sleeping.append(sock)
            wait_until(lambda count=count: server.stdout.count("< GET /sleep") == count, "it runs")  # type: ignore[misc]
        assert probe(server.address, 5) < PROBE
        last = stack.enter_context(connect(server.address))
        last.sendall(request("/sleep/1500"))
        ninth = stack.enter_context(connect(server.address))
        ninth.sendall(request("/hello"))
        for sock, content in [(ninth, b"hello\n"), (last, b"slept\n"), *((sock, b"slept\n") for sock in sleeping)]:
            assert read_answer(sock)[1] == content


def test_clients_that_do_not_read_hold_nothing() -> None:
    """64 clients that ask for 20 MB and read nothing hold no thread and little memory (fault 2)."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--workers", "2", "--threads", "4"))
        get(server.address, "/big/1000000")
        socks = []
        for _ in range(64):
            sock = stack.enter_context(connect(server.address, receive_buffer=4096))
            sock.sendall(request(f"/big/{20 * MEBIBYTE}"))
            socks.append(sock)
        assert probe(server.address, 20) < PROBE
        memory = sum(map(resident, children(server.pid)))
        assert memory < 2 * 30 * MEBIBYTE + 64 * MEBIBYTE, f"{memory / MEBIBYTE:.0f} MiB"
        # One of them reads after all, and gets all of it.
        response, content = read_answer(socks[0])
        assert (response.status, len(content)) == (200, 20 * MEBIBYTE)


@pytest.mark.parametrize("fields", [[f"Content-Length: {10 * MEBIBYTE}"], ["Transfer-Encoding: chunked"]])
def test_early_refusal_is_read_whole(fields: list[str]) -> None:
    """A client that still sends 10 MB reads the whole early 413, every time (fault 11; RFC 9112 section 9.6)."""
    with start("--max-body", "1000") as server:
        for _ in range(10):
            with connect(server.address) as sock:
                sock.sendall(request("/upload", *fields, method="POST"))
                block = b"10000\r\n" + b"a" * 65536 + b"\r\n"
                for _ in range(160):
                    sock.sendall(block)
                sock.shutdown(socket.SHUT_WR)
                answer = read_all(sock)
                assert answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
                assert b"\r\nConnection: close\r\n" in answer
                assert answer.endswith(b"\r\n\r\nThe content is larger than 1000 bytes (--max-body).\n")


def test_short_connections_leave_nothing() -> None:
    """Connections that are made and closed at a high rate cost no memory once they are closed (fault 22)."""
    with start() as server:
        [worker] = children(server.pid)
        get(server.address)
        before = resident(worker)
        asked = request("/hello", "Connection: close", f"X-Filler: {'a' * 1900}")
        for _ in range(3000):
            with connect(server.address) as sock:
                sock.sendall(asked)
                assert read_answer(sock)[1] == b"hello\n"
        assert resident(worker) - before < 8 * MEBIBYTE


def test_read_ahead_is_bounded() -> None:
    """While a request is answered, at most 64 KiB of later ones are taken from the system (RFC 9112 section 9.3.2)."""
    with start() as server, connect(server.address) as sock:
        [worker] = children(server.pid)
        sock.sendall(request("/hello"))
        assert read_answer(sock)[1] == b"hello\n"
        before = resident(worker, "VmHWM")
        sock.sendall(request("/sleep/1500"))
        sent, flood = 0, HELLO * 10_000
        sock.settimeout(0.5)
        with suppress(TimeoutError):  # nobody takes more
            while sent < 64 * MEBIBYTE:
                sent += sock.send(flood)
        assert MEBIBYTE < sent < 64 * MEBIBYTE
        assert resident(worker, "VmHWM") - before < MEBIBYTE


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """Have processes that are started meanwhile allowed few descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("limit", [50, 100])
def test_fewer_descriptors_than_clients(limit: int) -> None:
    """With too few descriptors the server waits quietly, and serves again when clients go (fault 9)."""
    with ExitStack() as stack:
        with few_descriptors(limit):
            server = stack.enter_context(start())
        (worker,) = children(server.pid)
        with ExitStack() as clients:
            for _ in range(2 * limit):
                clients.enter_context(connect(server.address))
            server.wait_stderr("New connections wait")
            began, used = time.monotonic(), processor_seconds(worker)
            wait_until(lambda: time.monotonic() - began > 0.5, "half a second passes")
            assert processor_seconds(worker) - used < 0.5
            assert server.stderr.count("New connections wait") == 1
        began = time.monotonic()
        assert get(server.address) == (200, b"hello\n")
        assert time.monotonic() - began < 1 + PROBE
        assert server.stop() == 0


def test_most_connections() -> None:
    """More clients than --max-connections wait in the kernel until one goes."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--max-connections", "2"))
        first = stack.enter_context(connect(server.address))
        second = stack.enter_context(connect(server.address))
        for sock in first, second:
            sock.sendall(HELLO)
            read_answer(sock)
        third = stack.enter_context(connect(server.address))
        third.sendall(HELLO)
        server.wait_stderr("New connections wait: the limit of connections is reached")
        first.sendall(HELLO)
        assert read_answer(first)[1] == b"hello\n"
        third.setblocking(False)
        with pytest.raises(BlockingIOError):
            third.recv(1)
        third.settimeout(10)
        second.close()
        assert read_answer(third)[1] == b"hello\n"


@pytest.mark.parametrize("threads", ["1", "8"])
def test_exit_in_the_application(threads: str) -> None:
    """sys.exit() in the application is a 500 for that request, and every thread lives."""
    with start("--threads", threads) as server:
        (worker,) = children(server.pid)
        for _ in range(10):
            assert get(server.address, "/exit")[0] == 500
        assert get(server.address) == (200, b"hello\n")
        # Besides those that run the application: the main thread, the watcher, and one that polls meanwhile.
        wait_until(lambda: int(get(server.address, "/threads")[1]) == int(threads) + 3, "all threads live")
        assert children(server.pid) == {worker}


def used(folder: Path) -> int:
    """The bytes that are used on a file system."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.parametrize("size", [MEBIBYTE + 1, MEBIBYTE + 8000, 3 * MEBIBYTE])
def test_full_file_system_refuses_the_upload(small_folder: Path, size: int) -> None:
    """An upload that the file system has no room for is 507, alone, and its file is removed (fault 16)."""
    with start(environment={"TMPDIR": str(small_folder)}) as server:
        with connect(server.address) as sock:
            sock.sendall(request("/upload", f"Content-Length: {size}", method="POST"))
            with suppress(ConnectionError):
                sock.sendall(b"a" * size)
            response, _ = read_answer(sock)
            assert response.status == 507
            assert response.getheader("Connection") == "close"
        wait_until(lambda: used(small_folder) == 0, "the file is removed")
        with connect(server.address) as sock:
            sock.sendall(request("/upload", "Content-Length: 600000", method="POST") + b"a" * 600_000)
            assert read_answer(sock)[1] == b"600000\n"
        assert "Traceback" not in server.stderr


def test_uploads_leave_room_to_others(small_folder: Path) -> None:
    """Uploads leave some of the file system to the application; the one that goes too far is 507, alone (fault 16)."""
    with start(environment={"TMPDIR": str(small_folder)}) as server, ExitStack() as stack:
        begun = []
        for count in 1, 2:
            sock = stack.enter_context(connect(server.address))
            sock.sendall(request("/upload", "Content-Length: 300000", method="POST") + b"a" * 299_999)
            wait_until(lambda count=count: used(small_folder) > count * 280_000, "it is kept")  # type: ignore[misc]
            begun.append(sock)
        last = stack.enter_context(connect(server.address))
        last.sendall(request("/upload", "Content-Length: 430000", method="POST") + b"a" * 420_000)
        assert read_answer(last)[0].status == 507
        for sock in begun:
            sock.sendall(b"a")
            assert read_answer(sock)[1] == b"300000\n"
        wait_until(lambda: used(small_folder) == 0, "the files are removed")


def test_full_file_system_slows_the_answer(small_folder: Path) -> None:
    """An answer that there is no room to spool reaches a slow reader whole; the application pauses (fault 16)."""
    with start(environment={"TMPDIR": str(small_folder)}) as server, ExitStack() as stack:
        socks = []
        for _ in range(3):
            sock = stack.enter_context(connect(server.address, receive_buffer=4096))
            sock.sendall(request(f"/big/{20 * MEBIBYTE}"))
            socks.append(sock)
        assert probe(server.address, 5) < PROBE
        for sock in socks:
            assert len(read_answer(sock)[1]) == 20 * MEBIBYTE
        wait_until(lambda: used(small_folder) == 0, "the spools are removed")
        assert "Traceback" not in server.stderr


def test_full_file_system_holds_write(small_folder: Path) -> None:
    """What write() is given reaches a slow reader whole; it waits for room, in little memory (PEP 3333)."""
    with start("--threads", "2", environment={"TMPDIR": str(small_folder)}) as server:
        with connect(server.address, receive_buffer=4096) as sock:
            sock.sendall(request(f"/push/{60 * MEBIBYTE}"))
            wait_until(lambda: used(small_folder) > 0, "something is spooled")
            assert probe(server.address, 5) < PROBE
            assert len(read_answer(sock)[1]) == 60 * MEBIBYTE
        [worker] = children(server.pid)
        assert resident(worker, "VmHWM") < 40 * MEBIBYTE
        wait_until(lambda: used(small_folder) == 0, "the spool is removed")
        assert "Traceback" not in server.stderr


def test_write_is_not_held_for_ever(small_folder: Path) -> None:
    """A client that makes no room in the write timeout is cut, and its threads are free again (PEP 3333)."""
    arguments = ("--threads", "2", "--write-timeout", "1")
    with start(*arguments, environment={"TMPDIR": str(small_folder)}) as server, ExitStack() as stack:
        socks = [stack.enter_context(connect(server.address, receive_buffer=4096)) for _ in range(2)]
        for sock in socks:
            sock.sendall(request(f"/push/{60 * MEBIBYTE}"))
        wait_until(lambda: used(small_folder) > 0, "something is spooled")
        # Both threads wait for their clients, and leave their places to others meanwhile.
        assert get(server.address, "/hello")[1] == b"hello\n"
        wait_until(lambda: established(server.address[1], socks) == 0, "they are cut")
        for sock in socks:
            with suppress(ConnectionError):
                assert len(read_all(sock)) < 60 * MEBIBYTE


# Another poller than epoll, chosen where there is none: the same work.
WITHOUT_EPOLL = [
    sys.executable,
    "-c",
    (
        "import selectors, wizgy.primitives as primitives; primitives.epoll = None; "
        "primitives.Selector = selectors.PollSelector; from wizgy.cli import main; main()"
    ),
]


@pytest.fixture
def portable() -> Iterator[ServerProcess]:
    """A server that runs without epoll."""
    with ServerProcess(["--bind", "127.0.0.1:0", "served:app"], command=WITHOUT_EPOLL, directory=FOLDER) as server:
        server.wait_ready()
        yield server
        assert server.stop() == 0
        assert server.stderr.count("\n") == 1


def test_portable_keep_alive_and_pipelining(portable: ServerProcess) -> None:
    """Without epoll a connection is used again, and pipelined requests are answered in order."""
    with connect(portable.address) as sock:
        for _ in range(5):
            sock.sendall(HELLO)
            assert read_answer(sock)[1] == b"hello\n"
        sock.sendall(HELLO * 50 + request("/big/5", "Connection: close"))
        answers = read_all(sock)
        assert answers.count(b"hello\n") == 50
        assert answers.endswith(b"\r\n\r\n01234")


def test_portable_large_bodies(portable: ServerProcess) -> None:
    """Without epoll large content comes and goes, in pieces and to slow readers, while others are served."""
    with connect(portable.address) as sock, connect(portable.address, receive_buffer=4096) as slow:
        slow.sendall(request(f"/big/{5 * MEBIBYTE}"))
        sock.sendall(request("/upload", f"Content-Length: {3 * MEBIBYTE}", method="POST"))
        for _ in range(3):
            sock.sendall(b"a" * MEBIBYTE)
            probe(portable.address, 2)
        assert read_answer(sock)[1] == b"%d\n" % (3 * MEBIBYTE)
        assert len(read_answer(slow)[1]) == 5 * MEBIBYTE
        assert probe(portable.address, 5) < PROBE


def test_portable_slow_requests(portable: ServerProcess) -> None:
    """Without epoll a slow request does not stop others, and an idle server does not spin."""
    with connect(portable.address) as sock:
        sock.sendall(request("/sleep/500"))
        assert probe(portable.address, 5) < PROBE
        assert read_answer(sock)[1] == b"slept\n"
    (worker,) = children(portable.pid)
    began, before = time.monotonic(), processor_seconds(worker)
    wait_until(lambda: time.monotonic() - began > 0.5, "half a second passes")
    assert processor_seconds(worker) - before < 0.5
