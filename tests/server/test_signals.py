"""Signals and deaths: what stops the server, what replaces a worker, and that no request is lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    HELLO,
    TIMEOUT,
    Address,
    children,
    connect,
    get,
    is_alive,
    is_refused,
    probe,
    read_all,
    read_answer,
    request,
    start,
    wait_until,
)

IDLE_EXIT = 1.0
"""Seconds in which an idle server ends."""


def workers(server: ServerProcess, count: int, timeout: float = TIMEOUT) -> set[int]:
    """The workers that run, once there are `count` of them."""

    def find() -> set[int]:
        pids = {pid for pid in children(server.pid) if is_alive(pid)}
        return pids if len(pids) == count else set()

    return wait_until(find, f"{count} workers", timeout)


def send(sock: socket.socket, target: str) -> None:
    """Send a request, without reading its answer."""
    sock.sendall(request(target))


def busy(address: Address, target: str) -> socket.socket:
    """A connection with a request that runs."""
    sock = connect(address)
    send(sock, target)
    return sock


def wait_running(server: ServerProcess, count: int) -> None:
    """Wait until that many requests have been read by the server; tells it from what the trace shows."""
    wait_until(lambda: server.stdout.count("< GET /sleep") == count, f"{count} requests run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_ends_soon(number: signal.Signals) -> None:
    """TERM and INT end an idle server in less than a second with status 0; idle connections do not hold it."""
    with start() as server, connect(server.address) as idle, connect(server.address):
        idle.sendall(HELLO)
        read_answer(idle)
        began = time.monotonic()
        server.signal(number)
        assert server.wait() == 0
        assert time.monotonic() - began < IDLE_EXIT
        assert idle.recv(1) == b""
        assert is_refused(server.address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_request_is_finished(number: signal.Signals) -> None:
    """A request that runs when the server is told to stop is answered whole, with Connection: close."""
    with start("--trace") as server, busy(server.address, "/sleep/500") as sock:
        wait_running(server, 1)
        server.signal(number)
        response, content = read_answer(sock)
        assert (response.status, content) == (200, b"slept\n")
        assert response.getheader("Connection") == "close"
        assert sock.recv(1) == b""
        sock.close()
        assert server.wait() == 0


def test_request_on_its_way_is_answered() -> None:
    """A client that has connected before TERM, and whose request comes just after it, is answered."""
    with start() as server, connect(server.address) as new, connect(server.address) as used:
        used.sendall(HELLO)
        read_answer(used)
        server.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(server.address), "the signal is handled")
        for sock in new, used:
            sock.sendall(HELLO)
            response, content = read_answer(sock)
            assert content == b"hello\n"
            assert response.getheader("Connection") == "close"
            assert sock.recv(1) == b""
        new.close()
        used.close()
        assert server.wait() == 0


def test_promise_of_keep_alive_is_kept() -> None:
    """Where an answer that began before TERM says that the connection stays open, one more request is answered."""
    with start() as server, busy(server.address, "/halves/400") as sock:
        data = b""
        while b"first" not in data:
            data += sock.recv(4096)
        assert b"Connection: close" not in data
        server.signal(signal.SIGTERM)
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(4096)
        sock.sendall(HELLO)
        response, content = read_answer(sock)
        assert content == b"hello\n"
        assert response.getheader("Connection") == "close"
        sock.close()
        assert server.wait() == 0


def test_second_signal_ends_at_once() -> None:
    """A second TERM does not wait for what runs."""
    with start("--trace") as server, busy(server.address, "/sleep/20000") as sock:
        wait_running(server, 1)
        server.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(server.address), "the first signal is handled")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.wait()
        assert time.monotonic() - began < 2
        with suppress(ConnectionResetError):
            assert read_all(sock) == b""


def test_signal_at_the_very_end() -> None:
    """A signal that comes while the process ends does not change its exit status."""
    for _ in range(5):
        with start() as server:
            server.signal(signal.SIGINT)
            while server.returncode is None:
                server.signal(signal.SIGTERM)
                time.sleep(0.001)  # so that it gets on with ending
            assert server.returncode == 0


def test_graceful_timeout() -> None:
    """A request that does not end is cut when the graceful timeout has passed."""
    with start("--trace", "--graceful-timeout", "0.3") as server, busy(server.address, "/sleep/20000"):
        wait_running(server, 1)
        server.signal(signal.SIGTERM)
        server.wait(5)


def test_requests_in_the_backlog_are_answered() -> None:
    """TERM with 6 requests that run and 20 that wait in the kernel loses none (fault 5)."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--threads", "6", "--max-connections", "6", "--trace"))
        running = [stack.enter_context(busy(server.address, "/sleep/700")) for _ in range(6)]
        wait_running(server, 6)
        queued = [stack.enter_context(busy(server.address, "/hello")) for _ in range(20)]
        server.signal(signal.SIGTERM)
        for socks, expected in (running, b"slept\n"), (queued, b"hello\n"):
            for sock in socks:
                response, content = read_answer(sock)
                assert (response.status, content) == (200, expected)
                assert response.getheader("Connection") == "close"
                sock.close()
        assert server.wait() == 0


@pytest.mark.parametrize("count", [1, 2])
def test_killed_worker_is_replaced(count: int) -> None:
    """A worker that is killed is replaced, and the service goes on (fault 7)."""
    with start("--workers", str(count)) as server:
        before = workers(server, count)
        victim = int(get(server.address, "/pid")[1])
        assert victim in before
        os.kill(victim, signal.SIGKILL)
        probe(server.address)
        after = workers(server, count)
        assert victim not in after
        assert len(after & before) == count - 1
        server.wait_stderr(f"Worker {victim} was killed by SIGKILL; another one takes its place")
        assert server.stop() == 0


def test_application_that_fails_only_on_respawn(tmp_path: Path) -> None:
    """When the application no longer loads the server waits, a little longer each time, and recovers (fault 10)."""
    broken = tmp_path / "broken"
    source = f"""
        from pathlib import Path
        if Path({str(broken)!r}).exists():
            raise RuntimeError("no database")
        from served import app
    """
    (tmp_path / "fragile.py").write_text(textwrap.dedent(source), "utf-8")
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(FOLDER), str(tmp_path)])}
    with start(app="fragile:app", environment=environment) as server:
        (worker,) = workers(server, 1)
        broken.touch()
        os.kill(worker, signal.SIGKILL)
        server.wait_stderr("RuntimeError: no database")
        tried = r"exited 3 before it was ready; another one is tried in ([\d.]+) s"
        first, second = server.wait_stderr(f"(?s){tried}.*{tried}").groups()
        assert float(second) == 2 * float(first)
        assert server.stderr.count("Traceback") <= 3
        broken.unlink()
        wait_until(lambda: children(server.pid), "a worker that loads")
        assert get(server.address) == (200, b"hello\n")
        assert server.stop() == 0


def test_workers_go_with_the_supervisor() -> None:
    """When the supervisor is killed its workers end within two seconds (fault 20)."""
    with start("--workers", "2") as server:
        pids = workers(server, 2)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, pids)), "the workers end", 2 + IDLE_EXIT)
        assert is_refused(server.address)


def test_more_and_fewer_workers() -> None:
    """TTIN starts a worker, TTOU stops one, and the last one stays."""
    with start() as server:
        first = workers(server, 1)
        server.signal(signal.SIGTTIN)
        assert first < workers(server, 2)
        server.signal(signal.SIGTTIN)
        workers(server, 3)
        # Two at once must not both mean the same worker.
        os.kill(server.pid, signal.SIGTTOU)
        wait_until(lambda: len(children(server.pid)) < 3 or None, "one worker less")
        server.signal(signal.SIGTTOU)
        last = workers(server, 1)
        server.signal(signal.SIGTTOU)
        probe(server.address, 3)
        assert workers(server, 1) == last
        assert "takes its place" not in server.stderr
        assert server.stop() == 0


def test_fewer_workers_while_they_are_busy() -> None:
    """Two TTOU while requests run stop two workers, though none of them can end at once."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--workers", "3", "--threads", "1", "--trace"))
        workers(server, 3)
        socks = [stack.enter_context(busy(server.address, "/sleep/700")) for _ in range(3)]
        wait_running(server, 3)
        server.signal(signal.SIGTTOU)
        wait_until(lambda: is_handled(server, signal.SIGTTOU), "the first signal is handled")
        server.signal(signal.SIGTTOU)
        for sock in socks:
            assert read_answer(sock)[1] == b"slept\n"
            sock.close()
        assert len(workers(server, 1)) == 1
        assert server.stop() == 0


def is_handled(server: ServerProcess, number: signal.Signals) -> bool:
    """Whether a signal is no longer pending in the process, so that another of its kind is not merged with it."""
    with open(f"/proc/{server.pid}/status", encoding="ascii") as status:
        pending = [int(line.split()[1], 16) for line in status if line.startswith(("SigPnd", "ShdPnd"))]
    return not any(mask >> (number - 1) & 1 for mask in pending)


def test_fewer_workers_when_none_is_left() -> None:
    """TTOU while every worker is dead does not end the supervisor."""
    with start("--workers", "2") as server:
        for pid in workers(server, 2):
            os.kill(pid, signal.SIGKILL)
        server.signal(signal.SIGTTOU)
        workers(server, 1)
        assert get(server.address) == (200, b"hello\n")
        assert server.stop() == 0


def can_be_first() -> bool:
    """Whether this machine lets a process be number 1 of a namespace of its own."""
    return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1) here")
def test_first_process_reaps_orphans() -> None:
    """As process 1 the server handles TERM and reaps the orphans of the application, silently (fault 20)."""
    if not can_be_first():
        pytest.skip("this user may not make a process namespace; the tests of the images do the same")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "wizgy"]
    arguments = ["--chdir", str(FOLDER), "--bind", "127.0.0.1:0", "served:app"]
    with ServerProcess(arguments, command=command) as server:
        address = server.wait_ready()
        (first,) = children(server.pid)
        assert int(get(address, "/pid")[1]) < 10
        (worker,) = children(first)
        start = len(server.stderr)
        for _ in range(5):
            assert get(address, "/orphan")[0] == 200
        wait_until(lambda: len(children(first)) > 1, "the supervisor has adopted an orphan")
        wait_until(lambda: children(first) == {worker}, "the orphans are reaped")
        assert server.stderr[start:] == ""
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0


def test_supervisor_runs_no_threads() -> None:
    """The supervisor has one thread and none of the application (it forks)."""
    with start("--workers", "2") as server:
        workers(server, 2)
        assert os.listdir(f"/proc/{server.pid}/task") == [str(server.pid)]


def test_random_signals() -> None:
    """A hundred signals in a row leave the right number of workers, and TERM still exits 0 (fault 19)."""
    numbers = [signal.SIGTTIN, signal.SIGCHLD, signal.SIGTTOU, signal.SIGHUP, signal.SIGTTOU]
    with start("--workers", "2", "--log-level", "critical") as server:
        workers(server, 2)
        for number in numbers * 20:
            server.signal(number)
            wait_until(lambda number=number: is_handled(server, number), "the signal is handled")  # type: ignore[misc]
        # TTOU outnumbers TTIN, and at one it has no effect.
        workers(server, 1)
        assert get(server.address) == (200, b"hello\n")
        assert server.stop() == 0
