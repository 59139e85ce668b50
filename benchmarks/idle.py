"""Ten thousand idle keep-alive connections: what they cost, and whether the server still answers beside load."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.accounting import processor_seconds, read_memory
from benchmarks.apps.hello import CONTENT
from benchmarks.figures import percentile
from benchmarks.load import LoadError
from matrix.processes import Running

CONNECTIONS = 10_000
SPARE_DESCRIPTORS = 500

OPEN_SECONDS = 20.0
"""Seconds to open all of them in."""

ANSWER_SECONDS = 2.0
"""Seconds for the one request on each; a server that has no room for another connection never answers."""

QUIET_SECONDS = 1.0
"""Seconds over which the processor time of doing nothing is measured."""

PROBE_EVERY = 0.01

FAILED_SECONDS = 10.0
"""What a probe that was not answered counts as; it is also how long one waits."""

REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def allow_descriptors() -> None:
    """Raise the limit of descriptors of this process and of what it starts.

    Raises:
        LoadError: the system does not allow as many as the connections need.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadError(f"the hard limit of descriptors is {hard:,}; {CONNECTIONS:,} connections need {wanted:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def beside(running: Running) -> Iterator[dict[str, float]]:
    """Hold idle connections to a server while the body runs, and probe it.

    Gives a dictionary; when the body is done it has `opened` and `kept` (connections), `bytes_each`,
    `quiet_busy` (the share of a processor that idling took) and `probe_p50`, `probe_p99` (seconds).
    """
    before = read_memory(running.pid).now
    sockets = open_idle(running.host, running.port)
    found: dict[str, float] = {"opened": len(sockets)}
    try:
        if not sockets:
            raise LoadError("it keeps no connection open")
        found["bytes_each"] = (read_memory(running.pid).now - before) / len(sockets)
        found["quiet_busy"] = measure_quiet(running.pid)
        try:
            with probing(running.host, running.port) as seconds:
                yield found
        except LoadError as error:
            raise LoadError(f"with {len(sockets):,} idle connections: {error}") from error
        if seconds:
            found["probe_p50"], found["probe_p99"] = percentile(seconds, 50), percentile(seconds, 99)
        found["kept"] = sum(map(is_open, sockets))
    finally:
        for each in sockets:
            each.close()


def open_idle(host: str, port: int) -> list[socket.socket]:
    """Open connections, each with one request answered, as many as the server takes in time."""
    found: list[socket.socket] = []
    until = time.monotonic() + OPEN_SECONDS
    while len(found) < CONNECTIONS and time.monotonic() < until:
        client = socket.socket()
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect((host, port))
            answer = ask(client)
        except OSError:
            client.close()
            break
        if not answer or b"\r\nconnection: close" in answer.lower():
            client.close()
            break
        client.setblocking(False)
        found.append(client)
    return found


def ask(client: socket.socket) -> bytes:
    """Send a request and return the whole answer; what there is of it when the server closes the connection.

    Raises:
        OSError: the connection broke, or the answer took too long.
    """
    client.sendall(REQUEST)
    answer = b""
    while not answer.rstrip(b"\r\n0").endswith(CONTENT.rstrip()):
        data = client.recv(4096)
        if not data:
            break
        answer += data
    return answer


def is_open(client: socket.socket) -> bool:
    """Say whether the server has closed a connection; what it sent before is taken."""
    try:
        while client.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def measure_quiet(pid: int) -> float:
    """Return the share of a processor that a server uses when nobody asks for anything."""
    spent, clock = processor_seconds(pid), time.perf_counter()
    time.sleep(QUIET_SECONDS)
    return (processor_seconds(pid) - spent) / (time.perf_counter() - clock)


@contextmanager
def probing(host: str, port: int) -> Iterator[list[float]]:
    """Ask a server again and again while the body runs; give the seconds that each answer took."""
    seconds: list[float] = []
    done = threading.Event()

    def probe() -> None:
        client: socket.socket | None = None
        while not done.wait(PROBE_EVERY):
            begin = time.perf_counter()
            try:
                client = client or socket.create_connection((host, port), timeout=FAILED_SECONDS)
                answer = ask(client)
            except OSError:
                answer = b""
            seconds.append(time.perf_counter() - begin if answer else FAILED_SECONDS)
            if client and (not answer or b"\r\nconnection: close" in answer.lower()):
                client.close()
                client = None
        if client:
            with suppress(OSError):
                client.close()

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join(FAILED_SECONDS + 1)
