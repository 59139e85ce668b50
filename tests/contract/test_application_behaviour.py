"""What an application may expect of the server that runs it: whatever works in plain Python works in a view.

The views are those of `compat_apps/wsgi/wsgiapp/behaviour`. A test that could harm or has to stop a server has one of
its own (`own`); the others ask the server under test (`target`). `docs/application-behaviour.md` is made from the
docstrings below and from the known deviations of `matrix.toml`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import socket
import struct
import termios
import time
import uuid
from typing import Any

import pytest

from tests.contract.helpers import MEBIBYTE, json_object, pattern
from tests.harness.own import End, OwnServer, OwnServers
from tests.harness.target import Target, read_response, read_to_end

pytestmark = pytest.mark.frameworks("wsgi")

FILE_SHA256 = hashlib.sha256(pattern(100_000)).hexdigest()
SIGNALS = {"SIGTERM": -15, "SIGINT": -2, "SIGHUP": -1, "SIGQUIT": -3, "SIGUSR1": -10}
SECONDS = 4.0
"""Seconds that an answer may take of a server that the test may have harmed."""

QUIET_SECONDS = 0.15
"""Seconds without a byte after which a server has sent all that there is room for."""

STREAM_BYTES = 256 * 64 * 1024


def ask(target: Target, name: str, **parameters: str) -> Any:
    """Return the JSON that a view of application behaviour answers with."""
    response = target.get(f"/behaviour/{name}", params=parameters, timeout=SECONDS)
    assert response.status_code == 200, response.text[:500]
    return response.json()


def exchange(target: Target, path: str) -> bytes:
    """Return all that comes on a connection that asks for one answer."""
    with target.connect(SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close\r\n\r\n".encode())
        return read_to_end(connection)


def wait_until_full(connection: socket.socket) -> None:
    """Wait until no more comes of an answer that is not read: then its server is behind."""
    received, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        [now] = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))
        if now != received:
            received, since = now, time.monotonic()
        time.sleep(0.01)


# Forks


@pytest.mark.parametrize(("end", "status"), [("return", 0), ("exit", 3), ("raise", 1)])
def test_forked_child_ends_with_its_view(own: OwnServer, end: str, status: int) -> None:
    """A process that a view forks ends when it leaves the view, and sends nothing."""
    received = exchange(own.target, f"/behaviour/forked?end={end}")

    assert received.count(b"HTTP/1.") == 1, received[:500]
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == status


def test_forked_child_ends_with_its_stream(own: OwnServer) -> None:
    """A process that is forked between two pieces of an answer sends none of the later ones."""
    body = own.target.get("/behaviour/forked_in_stream").text

    assert body == "before\n0\n"


def test_forks_leave_one_server(own: OwnServer) -> None:
    """After a view has forked, the same process answers every request."""
    before = ask(own.target, "process")
    own.target.get("/behaviour/forked", params={"end": "return"})

    assert {ask(own.target, "process") for _ in range(20)} == {before}


def test_forked_child_obeys_signals(own: OwnServer) -> None:
    """In a process that a view forks every signal has its default action."""
    assert ask(own.target, "fork_signalled", signals=",".join(SIGNALS)) == SIGNALS


def test_signals_of_a_child_leave_the_server(own: OwnServer) -> None:
    """A signal for a child of the application is no signal for the server."""
    before = ask(own.target, "process")
    ask(own.target, "fork_signalled", signals="SIGTERM,SIGHUP")

    assert ask(own.target, "process") == before


def test_exit_status_of_children(own: OwnServer) -> None:
    """The application gets the exit status of each child that it starts: the server takes none."""
    assert ask(own.target, "statuses") == {"fork": 7, "subprocess": 7, "asyncio": 7}


def test_program_inherits_nothing(own: OwnServer) -> None:
    """A program that the application starts inherits no descriptor of the server, blocked or ignored signal."""
    seen = ask(own.target, "program")

    assert seen == {"blocked": [], "ignored": [], "descriptors": []}


# Pools


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_terminated_process(own: OwnServer, method: str) -> None:
    """A process of `multiprocessing` ends when it is terminated."""
    for _ in range(3):
        assert ask(own.target, "terminated", method=method) == -15


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pool(own: OwnServer, method: str) -> None:
    """A pool of `multiprocessing` works in a view, and the server after it."""
    before = ask(own.target, "process")

    assert ask(own.target, "pool", method=method) == [0, 1, 4, 9, 16]
    assert ask(own.target, "process") == before


@pytest.mark.parametrize("method", ["", "fork", "spawn"], ids=["threads", "fork", "spawn"])
def test_executor(own: OwnServer, method: str) -> None:
    """An executor of `concurrent.futures` works in a view, with threads or processes."""
    assert ask(own.target, "executor", method=method) == [0, 1, 4, 9, 16]


def test_event_loop(target: Target) -> None:
    """A view can run an event loop of `asyncio`."""
    assert target.get("/behaviour/event_loop").text == "waited\n"


# Exit


@pytest.fixture(scope="module")
def end_with_work(own_servers: OwnServers) -> tuple[End, bytes]:
    """How a server ended at SIGTERM whose application had left work, and what came of a request that ran."""
    own = own_servers.get()
    assert own.target.get("/behaviour/left_work").text == "left\n"
    with own.target.connect() as connection:
        connection.sendall(f"GET /drip/5/100 HTTP/1.1\r\nHost: {own.target.authority}\r\n\r\n".encode())
        assert connection.recv(1)
        end = own.stop()
        try:
            received = read_to_end(connection)
        except OSError:
            received = b""
    own_servers.release()
    return end, received


def test_running_request_is_answered_at_exit(end_with_work: tuple[End, bytes]) -> None:
    """A request that runs when the server is told to end is answered whole."""
    assert b"data: 4" in end_with_work[1]


def test_threads_are_joined_at_exit(end_with_work: tuple[End, bytes]) -> None:
    """A thread that is no daemon runs to its end before the process exits."""
    assert "behaviour: the thread has ended" in end_with_work[0].log


def test_executors_are_drained_at_exit(end_with_work: tuple[End, bytes]) -> None:
    """Tasks that were submitted to an executor are done before the process exits."""
    assert "behaviour: task 1 has ended" in end_with_work[0].log
    assert "behaviour: task 2 has ended" in end_with_work[0].log


def test_exit_functions_run(end_with_work: tuple[End, bytes]) -> None:
    """What is registered with `atexit` runs once at the exit, after threads have ended."""
    log = end_with_work[0].log

    assert log.count("behaviour: the exit function has run") == 1
    assert log.rindex("behaviour: the exit function") > max(log.find("thread has ended"), log.find("task 2 has ended"))


@pytest.mark.parametrize("kind", ["executor", "pool", "process"])
def test_pools_end_with_the_server(own: OwnServer, kind: str) -> None:
    """Pools and daemonic processes of the application end with the server, which ends in time."""
    assert own.target.get("/behaviour/left_processes", params={"kind": kind}).text == "left\n"

    end = own.stop()
    assert end.status is not None, f"it did not end at SIGTERM:\n{end.log[-2000:]}"
    assert own.left_over() == []


def test_forked_child_holds_no_port(own: OwnServer) -> None:
    """A process that an application forked and that outlives the server does not keep its port."""
    child = ask(own.target, "left_fork")

    own.stop()
    assert child in own.left_over(), "the child has ended, so it shows nothing"
    assert own.port_is_free()


# Files


@pytest.mark.parametrize(
    "kind",
    ["disk", "offset", "pipe", "fifo", "socket", "zip", "gzip", "memory", "spooled", "read-only"],
)
def test_file_wrapper(target: Target, kind: str) -> None:
    """`wsgi.file_wrapper` sends whatever has `read`, from where it stands (PEP 3333, File Handling)."""
    body = target.get("/behaviour/wrapped_file", params={"kind": kind}).content

    assert (len(body), hashlib.sha256(body).hexdigest()) == (100_000, FILE_SHA256)


@pytest.mark.parametrize(("kind", "text"), [("proc", "Name:"), ("sys", "65536")], ids=["proc", "sys"])
def test_file_without_a_true_size(target: Target, kind: str, text: str) -> None:
    """`wsgi.file_wrapper` sends files of which the system tells no true size."""
    assert text in target.get("/behaviour/wrapped_file", params={"kind": kind}, timeout=SECONDS / 2).text


def test_file_wrapper_moves(target: Target) -> None:
    """A wrapped file has `seek`, `tell` and `seekable`, so that a range need not read all before it."""
    assert target.get("/behaviour/wrapper_moved").content == pattern(100_000)[-1000:]


# Threads and contexts


@pytest.mark.parametrize("kind", ["local", "lock", "sqlite3", "contextvars"])
@pytest.mark.parametrize("room", ["", "no-room"], ids=["room", "no-room"])
def test_response_stays_in_its_thread(own: OwnServer, kind: str, room: str) -> None:
    """A view, its iterable and `close()` run in one thread and context, also for a client that is slow."""
    own.harmed = True
    query = f"kind={kind}" + (f"&no-room={room}" if room else "")
    with own.target.connect(SECONDS) as connection:
        connection.sendall(
            f"GET /behaviour/bound_stream?{query} HTTP/1.1\r\nHost: {own.target.authority}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        wait_until_full(connection)
        _, body = read_response(connection)

    assert len(body) == STREAM_BYTES
    assert ask(own.target, "seen_after", key=kind) == {"threads": 1, "pieces": 256}
    own.harmed = False


def test_context_is_of_one_request(target: Target) -> None:
    """A context variable that one request sets is not seen by another one."""
    with target.session() as session:
        assert {session.get("/behaviour/context").text for _ in range(20)} == {"nothing"}


# What ends threads and processes


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_exit_in_a_view(own: OwnServer, kind: str) -> None:
    """`sys.exit` and its like end one request with 500, and neither thread nor process."""
    before = ask(own.target, "process")
    for _ in range(12):
        assert own.target.get("/behaviour/raised", params={"type": kind}, timeout=SECONDS / 2).status_code == 500
    assert ask(own.target, "process") == before


@pytest.mark.parametrize("depth", ["endless", "endless-in-c"])
def test_endless_recursion(own: OwnServer, depth: str) -> None:
    """A view that recurses without end is answered with 500, and the server lives on."""
    before = ask(own.target, "process")

    assert own.target.get("/behaviour/recursion", params={"depth": depth}).status_code == 500
    assert ask(own.target, "process") == before


def test_deep_recursion(target: Target) -> None:
    """A view has nearly all of the interpreter's recursion limit for itself."""
    assert ask(target, "recursion", depth="900") == 900


# Patches


@pytest.mark.parametrize("kind", ["clock", "threads", "selectors"])
def test_patched_modules(own: OwnServer, kind: str) -> None:
    """Functions that the application replaces in modules of Python change nothing for the server."""
    own.harmed = True
    assert own.target.get("/behaviour/patched", params={"kind": kind}).text == "patched\n"

    for _ in range(12):
        assert own.target.get("/hello").status_code == 200
    echo = json_object(own.target.post("/echo", data=pattern(MEBIBYTE)))
    assert echo["body_length"] == MEBIBYTE
    assert own.stop().status is not None, "it did not end at SIGTERM"


# Uploads, output, clients


def test_upload_is_refused_unread(target: Target) -> None:
    """A client that sends all of a large upload gets the whole answer of a view that reads none of it."""
    body = pattern(3 * MEBIBYTE)
    with target.connect() as connection:
        head = f"POST /behaviour/refused HTTP/1.1\r\nHost: {target.authority}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert read_response(connection) == (403, b"refused\n" * 1000)


def test_upload_is_read_in_part(target: Target) -> None:
    """The rest of an upload that a view reads in part is not taken for the next request."""
    with target.session() as session:
        for _ in range(3):
            answer = session.post("/behaviour/read_in_part", data=b"0123456789" * 50_000)
            assert (answer.status_code, answer.text) == (200, "0123456789")
            assert session.get("/hello").status_code == 200


def test_printed_line_appears(own: OwnServer) -> None:
    """A line that a view prints is in the output of the server at once."""
    text = uuid.uuid4().hex
    own.target.get("/behaviour/printed", params={"text": text})

    own.wait_log(f"printed {text}")


def test_client_that_has_gone(own: OwnServer) -> None:
    """A view can ask whether its client has gone."""
    with own.target.connect() as connection:
        connection.sendall(f"GET /behaviour/client_watched HTTP/1.1\r\nHost: {own.target.authority}\r\n\r\n".encode())
        # Once this is answered, the view runs: they are asked one after the other, or side by side.
        assert own.target.get("/hello").status_code == 200

    assert ask(own.target, "seen_after", key="disconnected") == {"before": False, "after": True}
