"""Links that are lost: a client that vanishes without a FIN or a RST, over a real pair of network interfaces."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, HELLO, connect, get, read_answer, request, serving_workers, wait_until

CLIENT, SERVER = "198.18.70.1", "198.18.70.2"
"""Addresses that are for such tests (RFC 2544), and so nobody's."""
TIMEOUTS = ("--header-timeout", "1", "--body-timeout", "1", "--keepalive-timeout", "1", "--write-timeout", "1")


def ip(*words: str) -> None:
    """Set up interfaces, with iproute2.

    Raises:
        subprocess.CalledProcessError: it failed.
        FileNotFoundError: there is none.
    """
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Link:
    """A network namespace for a server, and a link to it.

    Raises:
        subprocess.CalledProcessError: this user may not make one.
    """

    def __init__(self) -> None:
        self.namespace = f"wizgy-{os.getpid()}"
        self.near, far = f"wz{os.getpid()}n", f"wz{os.getpid()}f"
        ip("netns", "add", self.namespace)
        try:
            ip("link", "add", self.near, "type", "veth", "peer", "name", far, "netns", self.namespace)
            ip("address", "add", f"{CLIENT}/30", "dev", self.near)
            ip("-n", self.namespace, "address", "add", f"{SERVER}/30", "dev", far)
            ip("-n", self.namespace, "link", "set", far, "up")
            self.restore()
        except BaseException:
            self.remove()
            raise

    def restore(self) -> None:
        """Have packets arrive."""
        ip("link", "set", self.near, "up")

    def lose(self) -> None:
        """Have no packet arrive any more, in either direction; neither end is told."""
        ip("link", "set", self.near, "down")

    def remove(self) -> None:
        """Remove the link and the namespace. The second alone would take the link with it, but some time later."""
        subprocess.run(["ip", "link", "delete", self.near], check=False, capture_output=True)
        ip("netns", "delete", self.namespace)


@pytest.fixture
def link() -> Iterator[Link]:
    """A link that can be lost."""
    try:
        made = Link()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {getattr(error, 'stderr', error)}")
    yield made
    made.remove()


def owned(pid: int) -> int:
    """How many connections the processes of a server's namespace hold, whatever TCP thinks of the other end."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(state != "0A" and inode != "0" for _, _, _, state, *_, inode in (row[:10] for row in fields))


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process stand for."""
    return sorted(os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())


def vanishing_clients(stack: ExitStack, address: tuple[str, int]) -> list[socket.socket]:
    """One client in each state in which the server waits for it."""
    idle, half, uploads, reads_nothing = (stack.enter_context(connect(address, receive_buffer=4096)) for _ in range(4))
    idle.sendall(HELLO)
    assert read_answer(idle)[0].status == 200
    half.sendall(HELLO[:20])
    uploads.sendall(request("/upload", "Content-Length: 1000", method="POST") + b"a")
    reads_nothing.sendall(request("/big/20000000"))
    assert reads_nothing.recv(1)
    return [idle, half, uploads, reads_nothing]


def test_clients_that_vanish_are_closed_at_their_deadlines(link: Link) -> None:
    """A client whose link is lost sends no FIN; the deadline of what it was doing closes its connection."""
    enter = ["ip", "netns", "exec", link.namespace]
    server = [sys.executable, "-m", "wizgy", "--chdir", str(FOLDER), "--bind", f"{SERVER}:0", *TIMEOUTS]
    with ServerProcess(["served:app"], command=[*enter, *server]) as process, ExitStack() as stack:
        address = process.wait_ready()
        (worker,) = serving_workers(process, 1)
        wait_until(lambda: owned(worker) == 0, "the connections that asked who serves are closed")
        before = open_files(worker)
        clients = vanishing_clients(stack, address)
        wait_until(lambda: owned(worker) == len(clients), "every client has its connection")
        link.lose()
        for client in clients:
            client.close()  # what this sends is lost
        wait_until(lambda: owned(worker) == 0, f"no connection is left:\n{process.stderr}")
        wait_until(lambda: open_files(worker) == before, f"no descriptor is left; before {before}")
        link.restore()
        assert get(address) == (200, b"hello\n")
        assert "Traceback" not in process.stderr
