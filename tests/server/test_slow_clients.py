"""Clients that are behind where neither memory nor disk has room: who waits for them, in which thread, and how many."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.harness.process import ServerProcess
from tests.server.bound import PIECE
from tests.server.client import FOLDER, connect, get, pass_time, peers, read_all, serving_workers, wait_until
from wizgy.engine import WAITS_PER_THREAD

LARGE = 200  # pieces, which is more than a socket takes
WITHOUT_ROOM = ("sh", "-c", 'ulimit -f 100 && exec "$0" -m wizgy "$@"', sys.executable)
"""A server that may write no large file, as with a read-only root and no temporary folder."""


def start_without_room(*arguments: str) -> ServerProcess:
    """Start a server that can keep nothing on a disk."""
    process = ServerProcess(
        ["--chdir", str(FOLDER), "--bind", "127.0.0.1:0", *arguments, "bound:app"], command=WITHOUT_ROOM
    )
    process.wait_ready()
    return process


def ask(server: ServerProcess, target: str) -> socket.socket:
    """Ask for something and read none of it."""
    sock = connect(server.address, receive_buffer=65536)
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return sock


def processor_is_idle(server: ServerProcess) -> Callable[[], bool]:
    """Whether no response goes on, so that all wait for their clients."""
    sent: list[int] = []

    def look() -> bool:
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        local = f":{server.address[1]:04X}"
        sent.append(sum(int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(local)))
        return len(sent) > 20 and len(set(sent[-20:])) == 1

    return look


@pytest.mark.parametrize("threads", ["1", "4"])
def test_one_thread_per_response(threads: str) -> None:
    """From the call of the application to close() all code of a response runs in one thread, and in one context."""
    with start_without_room("--threads", threads) as server, ExitStack() as stack:
        socks = [stack.enter_context(ask(server, f"/iterable/{LARGE}")) for _ in range(3)]
        wait_until(processor_is_idle(server), "all wait")
        assert probe_hello(server)
        for sock in socks:
            assert read_all(sock).endswith(b"\r\n0\r\n\r\n")
        wait_until(lambda: server.stdout.count("closed by") == len(socks), "all are closed")
        assert "another" not in server.stdout
        assert "Traceback" not in server.stderr


def probe_hello(server: ServerProcess) -> bool:
    """Ask a few times for something small."""
    return all(get(server.address) == (200, b"hello\n") for _ in range(5))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", ["iterable", "write"])
def test_slow_clients_take_no_thread_from_others(threads: int, way: str) -> None:
    """However many clients do not read, others are served at once; those that are too many are cut (fault 2)."""
    most = WAITS_PER_THREAD * threads
    with start_without_room("--threads", str(threads)) as server, ExitStack() as stack:
        socks = [stack.enter_context(ask(server, f"/{way}/{LARGE}")) for _ in range(most + 3)]
        wait_until(lambda: server.stderr.count("as many others wait for theirs as may") == 3, "three are cut")
        assert probe_hello(server)
        whole = 0
        for sock in socks:
            try:
                whole += read_all(sock).endswith(b"\r\n0\r\n\r\n")
            except ConnectionResetError:
                pass
        assert whole == most
        # The places are there again, and so are the waits.
        assert probe_hello(server)
        with ask(server, f"/{way}/{LARGE}") as sock:
            wait_until(processor_is_idle(server), "it waits")
            assert read_all(sock).endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("way", ["iterable", "write"])
def test_client_that_takes_nothing_is_cut_while_it_is_waited_for(way: str) -> None:
    """A thread waits for its client no longer than the write timeout, and the response is closed."""
    with start_without_room("--write-timeout", "0.5") as server, ask(server, f"/{way}/{LARGE}") as sock:
        wait_until(lambda: not peers(server, sock), "it is cut")
        if way == "iterable":
            server.wait_stdout("closed by the same thread")
        assert not read_all(sock).endswith(b"\r\n0\r\n\r\n")
        assert probe_hello(server)


@pytest.mark.parametrize("way", ["iterable", "write"])
def test_time_spent_waiting_is_not_the_applications(way: str) -> None:
    """A slow client cannot have a request given up and its worker replaced (--request-timeout)."""
    with start_without_room("--request-timeout", "1", "--write-timeout", "1") as server:
        (worker,) = serving_workers(server, 1)
        received = 0
        with ask(server, f"/{way}/100") as sock:
            while piece := sock.recv(262_144, socket.MSG_WAITALL):
                received += len(piece)
                pass_time(0.1)
        assert received > 100 * PIECE
        assert serving_workers(server, 1) == {worker}
        assert "--request-timeout" not in server.stderr


def test_time_of_a_generator_is_the_applications() -> None:
    """A response that goes on and on is given up, where its client is not what it waits for (--request-timeout)."""
    with start_without_room("--request-timeout", "1") as server, ask(server, "/slowly/1000") as sock:
        assert not read_all(sock).endswith(b"\r\n0\r\n\r\n")
        server.wait_stderr("--request-timeout")


def test_a_stop_ends_the_waiting() -> None:
    """A thread that waits for a client does not hold up a stop beyond the graceful timeout."""
    with start_without_room("--graceful-timeout", "0.5") as server, ask(server, f"/iterable/{LARGE}") as sock:
        wait_until(processor_is_idle(server), "it waits")
        assert server.stop() == 0
        assert not sock.recv(1 << 24).endswith(b"\r\n0\r\n\r\n")
