"""Where a server listens: TCP, IPv6, Unix sockets, inherited sockets, and several of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess, ServerProcessError
from tests.server.client import (
    FOLDER,
    HELLO,
    connect,
    get,
    is_alive,
    is_refused,
    read_answer,
    start,
    wait_until,
)


def serve(*arguments: str) -> ServerProcess:
    """Start a server with addresses of one's own."""
    return ServerProcess(["--chdir", str(FOLDER), *arguments, "served:app"])


def test_port_zero_is_chosen_and_told() -> None:
    """Port 0 picks a free port, and the ready line names it."""
    with start() as server:
        host, port = server.address
        assert port > 0
        assert server.stderr == f"wizgy: Serving HTTP on {host} port {port} ...\n"
        assert get(server.address) == (200, b"hello\n")


def test_several_addresses() -> None:
    """Each bind has its ready line, and all are served."""
    with start("--bind", "127.0.0.1:0", "--bind", "localhost:0") as server:
        server.wait_ready(count=3)
        assert len(set(server.addresses)) == 3
        for address in server.addresses:
            assert get(address) == (200, b"hello\n")


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_ipv6() -> None:
    """An IPv6 address is written in brackets and served."""
    with serve("--bind", "[::1]:0") as server:
        _, port = server.wait_ready()
        assert get(("::1", port)) == (200, b"hello\n")
        assert is_refused(("127.0.0.1", port))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_both_families() -> None:
    """`[::]:PORT` is for IPv6 and IPv4, says so, and gives the application the client's IPv4 address as such."""
    with serve("--bind", "[::]:0") as server:
        _, port = server.wait_ready()
        server.wait_stderr(rf"^wizgy: Serving HTTP on :: port {port} \.\.\. \(IPv6 and IPv4\)$")
        for host in "127.0.0.1", "::1":
            assert json.loads(get((host, port), "/environ")[1])["REMOTE_ADDR"] == host


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_families_side_by_side() -> None:
    """Where another address has the port for IPv4, `[::]:PORT` leaves IPv4 to it."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with serve("--bind", f"[::]:{port}", "--bind", f"127.0.0.1:{port}") as server:
        server.wait_ready(count=2)
        assert "(IPv6 and IPv4)" not in server.stderr
        for host in "127.0.0.1", "::1":
            assert get((host, port)) == (200, b"hello\n")


def test_unix_socket_with_permissions(tmp_path: Path) -> None:
    """The mode and group of a Unix socket are those of its address, and a reload changes them on the same socket."""
    path, file = tmp_path / "a?b.sock", tmp_path / "wizgy.toml"

    def said(mode: str) -> None:
        file.write_text(f'bind = "unix:{path}?mode={mode}&group={os.getgid()}"', "utf-8")

    said("600")
    with serve("--config", str(file)) as server:
        server.wait_stderr("Serving HTTP on unix:")
        before = path.stat()
        assert (stat.S_IMODE(before.st_mode), before.st_gid) == (0o600, os.getgid())
        said("660")
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded: ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_ino == before.st_ino
        assert get(str(path)) == (200, b"hello\n")
        assert server.stop() == 0
    assert not path.exists()


def test_unix_socket(tmp_path: Path) -> None:
    """A Unix socket is served, and its path is gone when the server is."""
    path = tmp_path / "wizgy.sock"
    with serve("--bind", f"unix:{path}") as server:
        server.wait_stderr(rf"^wizgy: Serving HTTP on unix:{path} \.\.\.$")
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert get(str(path)) == (200, b"hello\n")
        assert server.stop() == 0
    assert not path.exists()


def test_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """A path that a dead server left behind is used again; one that is served, or no socket, is exit 4."""
    path = tmp_path / "wizgy.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))
    with serve("--bind", f"unix:{path}") as server:
        server.wait_stderr("Serving HTTP on unix:")
        with serve("--bind", f"unix:{path}") as second:
            assert second.wait() == 4
        assert get(str(path)) == (200, b"hello\n")
    path.write_text("a file", "utf-8")
    with serve("--bind", f"unix:{path}") as third:
        assert third.wait() == 4
    assert path.read_text("utf-8") == "a file"


def test_one_worker_fewer_keeps_the_unix_socket(tmp_path: Path) -> None:
    """The path of a Unix socket stays while any worker serves it, whichever of them ends."""
    path = tmp_path / "wizgy.sock"
    with serve("--workers", "2", "--bind", f"unix:{path}") as server:
        server.wait_stderr("Serving HTTP on unix:")
        pids = wait_until(lambda: served_by(str(path), 2), "both workers answer")
        server.signal(signal.SIGTTOU)
        wait_until(lambda: len([pid for pid in pids if is_alive(pid)]) == 1, "one worker ends")
        assert get(str(path)) == (200, b"hello\n")
    assert not path.exists()


def served_by(address: str, count: int) -> set[int]:
    """The workers that answer, once there are `count` of them."""
    pids = {int(get(address, "/pid")[1]) for _ in range(20)}
    return pids if len(pids) == count else set()


def test_inherited_socket() -> None:
    """A listening socket that the server was started with is served (as systemd hands them on)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        number = listener.fileno()
        popen = subprocess.Popen(
            [sys.executable, "-m", "wizgy", "--chdir", str(FOLDER), "--bind", f"fd:{number}", "served:app"],
            env={"PYTHONPATH": str(FOLDER.parent.parent / "server")},
            pass_fds=[number],
            stderr=subprocess.PIPE,
            text=True,
        )
        with popen:
            try:
                assert popen.stderr is not None
                assert popen.stderr.readline() == f"wizgy: Serving HTTP on 127.0.0.1 port {port} ...\n"
                assert get(("127.0.0.1", port)) == (200, b"hello\n")
            finally:
                popen.terminate()
                assert popen.wait(10) == 0


def test_descriptor_that_is_no_socket() -> None:
    """A descriptor that is not open, or no socket, is exit 4."""
    with serve("--bind", "fd:99") as server:
        assert server.wait() == 4
        assert "Cannot listen on fd:99" in server.stderr
    with serve("--bind", "fd:0") as server:
        assert server.wait() == 4


def test_addresses_before_a_bad_one_are_given_back() -> None:
    """When one of several addresses cannot be had, none is kept."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerProcessError, match="exit status 4"):
            start("--bind", f"127.0.0.1:{port}")


def test_client_address_in_both_families(tmp_path: Path) -> None:
    """A keep-alive connection is served on a Unix socket as on TCP."""
    path = tmp_path / "wizgy.sock"
    with serve("--bind", "127.0.0.1:0", "--bind", f"unix:{path}") as server:
        for address in server.wait_ready(), str(path):
            with connect(address) as sock:
                for _ in range(3):
                    sock.sendall(HELLO)
                    response, content = read_answer(sock)
                    assert (response.status, content) == (200, b"hello\n")
