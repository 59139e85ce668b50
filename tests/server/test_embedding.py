"""`wizgy.make_server` inside of another process: it serves, stops, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import wizgy
from tests.server.client import HELLO, TIMEOUT, connect, get, is_refused, read_all, read_answer, request, wait_until
from tests.server.served import app
from wizgy import connection
from wizgy.engine import Engine, EpollPoller
from wizgy.errors import BindError, UsageError
from wizgy.listeners import open_listeners
from wizgy.server import Server
from wizgy.sources import check_keywords


@contextmanager
def serving(application: Any = app, **settings: object) -> Iterator[tuple[str, int]]:
    """Serve in a thread; gives the address."""
    with wizgy.make_server(("127.0.0.1", 0), application, **settings) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert isinstance(server.server_address, tuple)
            yield server.server_address
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass  # the one that listed them
    return sorted(found)


def threads() -> set[threading.Thread]:
    """The threads of this process."""
    return set(threading.enumerate())


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Check that as many threads and descriptors are there afterwards as before."""
    wait_until(lambda: not any(thread.name.startswith("wizgy") for thread in threads()), "earlier servers end")
    descriptors_before, threads_before = len(descriptors()), threads()
    yield
    wait_until(lambda: threads() <= threads_before, "the threads end")
    wait_until(lambda: len(descriptors()) <= descriptors_before, "the descriptors are closed")


@pytest.fixture(params=["epoll", "portable"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of polling."""
    if request.param == "portable":
        monkeypatch.delattr(select, "epoll")
    return str(request.param)


def test_logs_in_a_thread(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """shutdown() has written every line, and leaves no thread or descriptor of a log behind (faults 16, 18)."""
    log = tmp_path / "access.log"
    with nothing_left_behind():
        with serving(access_log=log.as_posix(), trace=True, request_id=True) as address:
            for _ in range(3):
                assert get(address)[0] == 200
            get(address, "/print/2?it")
        assert len(log.read_text("ascii").splitlines()) == 4
        assert capfd.readouterr().out.count("< GET /") == 4


def test_full_log_in_a_thread() -> None:
    """A log on a full device fails no request here either, and shutdown() does not wait for it (fault 16)."""
    with serving(access_log="/dev/full") as address:
        for _ in range(3):
            assert get(address) == (200, b"hello\n")
        began = time.monotonic()
    assert time.monotonic() - began < TIMEOUT


def test_serves_in_a_thread_and_leaves_nothing(poller: str) -> None:
    """shutdown() returns when all is answered, and leaves no thread and no descriptor behind (fault 18)."""
    with nothing_left_behind():
        with serving() as address:
            with connect(address) as sock:
                for _ in range(3):
                    sock.sendall(HELLO)
                    assert read_answer(sock)[1] == b"hello\n"
            assert get(address, "/exit")[0] == 500
        assert is_refused(address)


def test_leaves_nothing_when_it_never_served() -> None:
    """A server that is made and shut down without serving leaves nothing behind, and can be shut down twice."""
    with nothing_left_behind():
        server = wizgy.make_server(("127.0.0.1", 0), app)
        server.shutdown()
        server.shutdown()
        server.serve_forever()
        with wizgy.make_server(("127.0.0.1", 0), app):
            pass


def test_aborts_leave_nothing(poller: str) -> None:
    """Clients that go at random points leave no descriptor and no thread behind (fault 18)."""
    chance = random.Random(7)
    post = request("/upload", "Content-Length: 300000", method="POST") + b"a" * 300_000
    wholes = [HELLO, HELLO * 3, post, request("/big/1000000"), request("/sleep/5")]
    with nothing_left_behind(), serving() as address:
        for _ in range(300):
            sock = connect(address)
            data = chance.choice(wholes)
            sock.sendall(data[: chance.randrange(len(data) + 1)])
            if chance.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert get(address) == (200, b"hello\n")


def test_shutdown_finishes_what_runs() -> None:
    """shutdown() waits for the request that runs; its answer says that the connection closes."""
    entered, leave = threading.Event(), threading.Event()

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        entered.set()
        assert leave.wait(TIMEOUT)
        start_response("200 OK", [])
        return [b"slow\n"]

    with wizgy.make_server(("127.0.0.1", 0), slow) as server:
        assert isinstance(server.server_address, tuple)
        serving_thread = threading.Thread(target=server.serve_forever)
        serving_thread.start()
        with connect(server.server_address) as sock:
            sock.sendall(HELLO)
            assert entered.wait(TIMEOUT)
            stopping = threading.Thread(target=server.shutdown)
            stopping.start()
            wait_until(lambda: is_refused(server.server_address), "new connections are refused")
            assert stopping.is_alive()
            leave.set()
            response, content = read_answer(sock)
            assert content == b"slow\n"
            assert response.getheader("Connection") == "close"
        stopping.join(TIMEOUT)
        serving_thread.join(TIMEOUT)
        assert not stopping.is_alive()
        assert not serving_thread.is_alive()


def test_client_that_never_closes_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps its side open after Connection: close is awaited for a while, then gone (fault 12)."""
    monkeypatch.setattr(connection, "LINGER_IDLE", 0.3)
    with serving(threads=1) as address:
        before = len(descriptors())
        with connect(address) as first, connect(address) as second:
            for sock in first, second:
                sock.sendall(request("/hello", "Connection: close"))
                assert read_all(sock).endswith(b"hello\n")
            # Two clients and two sockets of the server; those of the clients stay.
            wait_until(lambda: len(descriptors()) <= before + 2, "the server has closed")


def test_client_that_never_stops_sending_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that goes on sending after its last answer is cut when the whole time for it is over."""
    monkeypatch.setattr(connection, "LINGER_IDLE", 0.3)
    monkeypatch.setattr(connection, "LINGER_TOTAL", 0.6)
    with serving(threads=1) as address, connect(address) as sock:
        sock.sendall(request("/hello", "Connection: close"))
        assert read_all(sock).endswith(b"hello\n")

        def is_cut() -> bool:
            try:
                sock.sendall(b"a")
            except OSError:
                return True
            return False

        wait_until(is_cut, "the server has closed")


def test_paused_application_goes_on(monkeypatch: pytest.MonkeyPatch, poller: str) -> None:
    """When even the spool is full the application pauses, with no thread held, and goes on when the client reads."""
    monkeypatch.setattr("wizgy.output.SPOOL_LIMIT", 1 << 20)
    given = 0
    closed = threading.Event()

    class Blocks:
        def __iter__(self) -> Iterator[bytes]:
            nonlocal given
            for _ in range(400):
                given += 65536
                yield b"a" * 65536

        def close(self) -> None:
            closed.set()

    def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Blocks() if environ["PATH_INFO"] == "/large" else [b"hello\n"]

    with serving(large, threads=1) as address, connect(address, receive_buffer=4096) as sock:
        sock.sendall(request("/large"))
        wait_until(lambda: given > 1 << 20, "the application has begun")
        for _ in range(10):
            assert get(address) == (200, b"hello\n")
        assert given < 400 * 65536
        assert not closed.is_set()
        assert len(read_answer(sock)[1]) == 400 * 65536
        assert closed.wait(TIMEOUT)


def test_paused_application_is_closed_when_its_client_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """close() of an iterable is called also when its client goes while it pauses (PEP 3333)."""
    monkeypatch.setattr("wizgy.output.SPOOL_LIMIT", 1 << 20)
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"a" * 65536

        def close(self) -> None:
            closed.set()

    def endless(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Endless()

    with nothing_left_behind(), serving(endless, threads=1) as address:
        with connect(address, receive_buffer=4096) as sock:
            sock.sendall(HELLO)
            assert sock.recv(1) == b"H"
            assert not closed.is_set()
        assert closed.wait(TIMEOUT)


def test_thread_that_comes_back_late(poller: str) -> None:
    """A thread that comes out of the application after its request was given up ends; another has its place."""
    leave = threading.Event()
    names: list[str] = []

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        names.append(threading.current_thread().name)
        if environ["PATH_INFO"] == "/slow":
            assert leave.wait(TIMEOUT)
        start_response("200 OK", [])
        return [b"hello\n"]

    with nothing_left_behind():
        with serving(slow, threads=1, request_timeout=0.3) as address:
            with connect(address) as sock:
                sock.sendall(request("/slow"))
                assert read_answer(sock)[0].status == 504
                assert get(address) == (200, b"hello\n")
                stuck = next(thread for thread in threads() if thread.name == names[0])
                leave.set()
                stuck.join(TIMEOUT)
                assert not stuck.is_alive()
                assert sock.recv(1) == b""
            assert get(address) == (200, b"hello\n")


def test_context_of_a_request() -> None:
    """Each request has a context of its own, and environ says whether threads are used (PEP 3333)."""
    seen: list[dict[str, Any]] = []

    def keep(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return [b"hello\n"]

    for count in 1, 8:
        with serving(keep, threads=count) as address:
            get(address)
    assert [environ["wsgi.multithread"] for environ in seen] == [False, True]
    assert [environ["wsgi.multiprocess"] for environ in seen] == [False, False]
    assert seen[0]["REMOTE_ADDR"] == "127.0.0.1"


def test_unix_address(tmp_path: Path) -> None:
    """A path is the address of a Unix socket, which is removed in the end."""
    path = tmp_path / "wizgy.sock"
    with wizgy.make_server(str(path), app) as server:
        assert server.server_address == str(path)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert get(str(path)) == (200, b"hello\n")
        server.shutdown()
        thread.join(TIMEOUT)
    assert not path.exists()


def test_wrong_arguments() -> None:
    """A setting that does not exist, or an address that is taken, is an exception with what to do."""
    with pytest.raises(UsageError, match="Did you mean threads"):
        wizgy.make_server(("127.0.0.1", 0), app, thread=3)
    with pytest.raises(UsageError, match="will not do"):
        wizgy.make_server(("127.0.0.1", 0), app, threads="many")
    with pytest.raises(UsageError, match="The application is of type NoneType, not a WSGI callable"):
        wizgy.make_server(("127.0.0.1", 0), None)  # type: ignore[arg-type]
    with (
        nothing_left_behind(),
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BindError, match="Address already in use"),
    ):
        wizgy.make_server(taken.getsockname(), app)


class InsistentPoller(EpollPoller):
    """Tells of every connection each time, as where a client goes on sending."""

    def __init__(self) -> None:
        super().__init__()
        self._descriptors: set[int] = set()
        self.count = 0
        self.poll = self._poll

    def _poll(self, timeout: float) -> list[tuple[int, int]]:
        self.count += 1
        events = dict(self._epoll.poll(timeout))
        return list((dict.fromkeys(self._descriptors, select.EPOLLIN) | events).items())

    def add_connection(self, descriptor: int) -> None:
        super().add_connection(descriptor)
        self._descriptors.add(descriptor)

    def forget(self, descriptor: int) -> None:
        super().forget(descriptor)
        self._descriptors.discard(descriptor)


def test_client_that_pipelines_has_its_turn_and_no_more() -> None:
    """A client that sends without pause is served a request or two before the server looks at others."""
    polls: list[int] = []
    insistent, requests = InsistentPoller(), 500

    def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        polls.append(insistent.count)
        return app(environ, start_response)

    (listener,) = listeners = open_listeners("127.0.0.1:0", 16)
    engine = Engine(counted, check_keywords({"threads": 1}, embedded=True), listeners, poller=insistent)
    with Server(listeners, engine, TIMEOUT) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with connect((listener.host, listener.port)) as sock:
            sock.sendall(HELLO * requests)
            received = b""
            while received.count(b"hello\n") < requests:
                received += sock.recv(65536)
        server.shutdown()
        thread.join(TIMEOUT)
    assert max(Counter(polls).values()) <= 2


def test_engine_that_takes_turns_does_not_hang() -> None:
    """An engine that has not polled for long, but serves, is told from one that does neither (fault 15)."""
    engine = Engine(app, check_keywords({}, embedded=True), [])
    engine._service.now -= 100
    assert not engine.is_polling()
    engine._turns += 1
    assert engine.is_polling()
    assert not engine.is_polling()
    engine.close()


def test_idle_server_uses_no_processor_time(poller: str) -> None:
    """A server with idle keep-alive connections does not spin."""
    with serving() as address, connect(address) as sock:
        sock.sendall(HELLO)
        read_answer(sock)
        began, used = time.monotonic(), time.process_time()
        wait_until(lambda: time.monotonic() - began > 0.5, "half a second passes")
        assert time.process_time() - used < 0.5


def test_serve_is_for_the_main_thread() -> None:
    """`wizgy.serve` in another thread says so, and names what is for threads, before it listens anywhere."""
    said: list[UsageError] = []

    def call() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError) as caught:
            wizgy.serve(app, bind=f"127.0.0.1:{taken.getsockname()[1]}")
        said.append(caught.value)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(TIMEOUT)
    assert "wizgy.make_server(" in str(said[0])
