"""As a service of systemd, which a socket of the test stands for: sockets that are open already, and notifications."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, TIMEOUT, get, is_refused, wait_until
from wizgy.systemd import SHORTEST_PAUSE, Notifier


class NotifySocket:
    """What receives notifications in systemd's place.

    Args:
        address: a path, or ``@`` and a name for an abstract one.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.environment = {"NOTIFY_SOCKET": address}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._sock.settimeout(TIMEOUT)

    def receive(self) -> dict[str, str]:
        """The next notification."""
        lines = self._sock.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        """Close it."""
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
def notify(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    """Both kinds of address."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@wizgy-test-{os.getpid()}"
    it = NotifySocket(address)
    yield it
    it.close()


def test_ready_reloading_stopping(notify: NotifySocket, tmp_path: Path) -> None:
    """Systemd is told when the server is ready, when a reload begins and ends, and when it stops."""
    source = tmp_path / "app.py"
    good = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
    source.write_text(good, "utf-8")
    with ServerProcess(
        ["--bind", "127.0.0.1:0", "app:app"], directory=tmp_path, environment=notify.environment
    ) as server:
        assert notify.receive()["READY"] == "1"
        for text, status in (good, "Serving."), ("nonsense", "The reload failed; what ran before keeps serving."):
            source.write_text(text, "utf-8")
            before = time.monotonic()
            server.signal(signal.SIGHUP)
            reloading = notify.receive()
            assert reloading["RELOADING"] == "1"
            assert before * 1e6 <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic() * 1e6
            assert notify.receive() == {"READY": "1", "STATUS": status}
        server.signal(signal.SIGTERM)
        assert notify.receive()["STOPPING"] == "1"
        assert server.wait() == 0


def test_watchdog(tmp_path: Path) -> None:
    """Where systemd watches, it hears twice in the time that it waits that the server is alive."""
    notify = NotifySocket(str(tmp_path / "notify"))
    environment = {**notify.environment, "WATCHDOG_USEC": "500000"}
    with serve(environment=environment):
        assert notify.receive()["READY"] == "1"
        began = time.monotonic()
        for _ in range(8):
            assert notify.receive() == {"WATCHDOG": "1"}
        assert time.monotonic() - began < 4
    notify.close()


@pytest.mark.parametrize("interval", ["", "0", "1", "-5", "x"])
def test_watchdog_that_cannot_be_pleased(interval: str) -> None:
    """An interval that is none, or shorter than can be kept, does not keep the supervisor busy."""
    assert Notifier({"WATCHDOG_USEC": interval}).alive_at - time.monotonic() > SHORTEST_PAUSE / 2


def test_nobody_listens_to_notifications() -> None:
    """A notification that cannot be delivered changes nothing."""
    with serve(environment={"NOTIFY_SOCKET": "/nowhere/notify"}) as server:
        assert get(server.address) == (200, b"hello\n")
        assert server.stop() == 0
        assert server.stderr.count("\n") == 1


def serve(*arguments: str, environment: dict[str, str]) -> ServerProcess:
    """Start a server and wait until it is ready."""
    server = ServerProcess(
        ["--chdir", str(FOLDER), "--bind", "127.0.0.1:0", *arguments, "served:app"], environment=environment
    )
    server.wait_ready()
    return server


# What systemd does for a socket unit: opens sockets, gives them the descriptors from 3 on, and says for whom.
ACTIVATE = """
import os, socket, sys
count = int(sys.argv[1])
socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
high = [os.dup2(sock.fileno(), 100 + number) for number, sock in enumerate(socks)]
for number, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + number)
    os.set_inheritable(3 + number, True)
os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=sys.argv[2] or str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "wizgy", *sys.argv[3:]])
"""


def activate(*arguments: str, count: int = 2, pid: str = "") -> ServerProcess:
    """Start a server that inherits sockets."""
    command = [sys.executable, "-c", ACTIVATE, str(count), pid]
    return ServerProcess(["--chdir", str(FOLDER), *arguments, "served:app"], command=command)


def test_sockets_of_systemd() -> None:
    """Sockets that systemd has opened are served in place of the default address."""
    with activate() as server:
        server.wait_ready(count=2)
        assert len(set(server.addresses)) == 2
        for address in server.addresses:
            assert address[1] != 8888
            assert get(address) == (200, b"hello\n")
        start = len(server.stderr)
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded", start=start)
        assert get(server.addresses[1]) == (200, b"hello\n")
        assert server.stop() == 0
        wait_until(lambda: is_refused(server.address), "nobody listens")


def test_sockets_for_another_process() -> None:
    """Sockets that are meant for another process are left alone."""
    with activate("--bind", "127.0.0.1:0", pid="1") as server:
        server.wait_ready()
        assert server.stderr.count("\n") == 1


def test_sockets_that_are_not_named() -> None:
    """With a --bind of one's own the sockets of systemd are served where it names them; else it is said."""
    with activate("--bind", "fd:4", "--bind", "127.0.0.1:0") as server:
        server.wait_stderr("systemd has opened fd:3, which no --bind names")
        server.wait_ready(count=2)
        assert "fd:4, which" not in server.stderr
