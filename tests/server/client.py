"""What the server tests do to a server, and how they wait: for the thing itself, with a deadline."""

from __future__ import annotations

import http.client
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.harness.process import ServerProcess

FOLDER = Path(__file__).resolve().parent

TIMEOUT = 10.0
"""Seconds until anything at all must have happened."""

PROBE = 5.0
"""Seconds in which a probe must be answered: the clients that it shares the server with stall for much longer."""

HELLO = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"

Address = tuple[str, int] | str
_Found = TypeVar("_Found")


def wait_until(find: Callable[[], _Found], what: str, timeout: float = TIMEOUT) -> _Found:
    """Ask until there is something, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := find()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)
    return found


def start(*arguments: str, app: str = "served:app", environment: dict[str, str] | None = None) -> ServerProcess:
    """Start a server for `served.app` on a free port and wait until it is ready."""
    process = ServerProcess(["--chdir", str(FOLDER), "--bind", "127.0.0.1:0", *arguments, app], environment=environment)
    try:
        process.wait_ready()
    except BaseException:
        process.kill()
        raise
    return process


def connect(address: Address, *, receive_buffer: int = 0) -> socket.socket:
    """Connect to a server, with a deadline for every later call."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if isinstance(address, tuple) and ":" in address[0]:
        family = socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def request(target: str = "/hello", *fields: str, method: str = "GET") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def read_all(sock: socket.socket) -> bytes:
    """Read to the end of the stream."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_answer(sock: socket.socket, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """Read one answer; nothing else may have come with it."""
    response = http.client.HTTPResponse(sock, method=method)
    with response:
        response.begin()
        return response, response.read()


def get(address: Address, target: str = "/hello") -> tuple[int, bytes]:
    """Ask once on a connection of its own: status and content."""
    with connect(address) as sock:
        sock.sendall(request(target, "Connection: close"))
        response, content = read_answer(sock)
        return response.status, content


def probe(address: Address, count: int = 10) -> float:
    """Ask for /hello again and again; returns the seconds that the slowest answer took."""
    slowest = 0.0
    for _ in range(count):
        began = time.monotonic()
        assert get(address) == (200, b"hello\n")
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def is_refused(address: Address) -> bool:
    """Whether nobody listens there."""
    try:
        connect(address).close()
    except OSError:
        return True
    return False


def children(pid: int) -> set[int]:
    """The processes that a process has started and not reaped."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return {int(word) for word in text.split()}


def serving_workers(server: ServerProcess, count: int, timeout: float = TIMEOUT) -> set[int]:
    """The workers that serve, once there are `count` of them: those that have threads."""

    def find() -> set[int]:
        pids = {pid for pid in children(server.pid) if is_alive(pid) and len(os.listdir(f"/proc/{pid}/task")) > 2}
        return pids if len(pids) == count else set()

    return wait_until(find, f"{count} workers that serve", timeout)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def resident(pid: int, line: str = "VmRSS") -> int:
    """The memory of a process, in bytes; with `VmHWM` the most that it ever had."""
    found = re.search(rf"^{line}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def peers(server: ServerProcess, sock: socket.socket) -> list[str]:
    """The established connections of the server to a client's socket, from the kernel's table."""
    local, remote = f":{server.address[1]:04X}", f":{sock.getsockname()[1]:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return [row[3] for row in rows if row[1].endswith(local) and row[2].endswith(remote) and row[3] == "01"]


def pass_time(seconds: float) -> None:
    """Let the server's deadlines pass."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, "time passes")
