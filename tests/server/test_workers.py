"""What befalls a worker: it is stopped, hangs, leaks, crashes or never loads; and how many there are."""

from __future__ import annotations

import http.client
import os
import re
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import (
    FOLDER,
    children,
    connect,
    get,
    is_alive,
    read_all,
    read_answer,
    request,
    serving_workers,
    start,
    wait_until,
)
from tests.server.load import Load
from wizgy.cgroup import count_processors
from wizgy.supervisor import CAUGHT

NOTICED = 15.0
"""Seconds in which a worker that hangs is replaced."""


def source_path(folder: Path) -> dict[str, str]:
    """Variables with which an application in `folder` can import `served`."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(FOLDER), str(folder)])}


def test_worker_that_holds_the_interpreter_is_replaced(tmp_path: Path) -> None:
    """A worker in which no thread can run is replaced within 15 s, and it is said where it was (fault 15)."""
    # A pattern that backtracks for ever holds the lock of the interpreter all the time.
    (tmp_path / "holding.py").write_text(
        "import re\nfrom served import app as served\n\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/hold':\n"
        "        re.match('(a+)+$', 'a' * 100 + 'b')\n"
        "    return served(environ, start_response)\n",
        "utf-8",
    )
    with start("--workers", "2", app="holding:app", environment=source_path(tmp_path)) as server:
        before = serving_workers(server, 2)
        with connect(server.address) as sock:
            sock.sendall(request("/hold"))
            began = time.monotonic()
            (victim,) = wait_until(lambda: before - children(server.pid), "a worker is replaced", NOTICED)
            assert time.monotonic() - began < NOTICED
            assert sock.recv(1) == b""
        assert get(server.address) == (200, b"hello\n")
        server.wait_stderr(f"Worker {victim} has given no sign of life for 10 s")
        server.wait_stderr(r'holding\.py", line 6 in app')


def test_request_that_does_not_end() -> None:
    """A thread that loops for ever costs its client a 504; others are served; its worker is replaced (fault 15)."""
    with start("--workers", "2", "--threads", "2", "--request-timeout", "1", "--access-log", "-") as server:
        before = serving_workers(server, 2)
        with connect(server.address) as sock, Load(server.address, pause=0.01) as load:
            sock.sendall(request("/loop"))
            victim = int(server.wait_stdout(r"loops in (\d+)")[1])
            response, content = read_answer(sock)
            assert (response.status, content) == (504, b"The application did not answer in time (--request-timeout).\n")
            assert response.getheader("Connection") == "close"
            assert sock.recv(1) == b""
            wait_until(lambda: victim not in children(server.pid), "the worker is replaced")
        assert load.failures == []
        assert (before - {victim}) < serving_workers(server, 2)
        took = "GET /loop: The application took more than 1 s (--request-timeout)"
        said = f"{took}; the request was answered with 504. It is here:"
        assert server.stderr.count(said) == 1
        server.wait_stderr(re.escape(said) + r'\n  File ".*served\.py", line \d+, in app\n')
        server.wait_stderr(f"Worker {victim} has a request that does not end; another one takes its place.")
        assert server.stdout.count('"GET /loop HTTP/1.1" 504 0 ') == 1


def test_answer_that_does_not_end() -> None:
    """Where the answer has begun when the time is over, the client sees that it is not whole (RFC 9112 section 8)."""
    with start("--request-timeout", "1", "--access-log", "-") as server, connect(server.address) as sock:
        sock.sendall(request("/halves/100000"))
        with pytest.raises(http.client.IncompleteRead):
            read_answer(sock)
        server.wait_stderr(
            r"GET /halves/100000: The application took more than 1 s \(--request-timeout\); the request was cut"
        )
        server.wait_stdout(r'"GET /halves/100000 HTTP/1\.1" 200 ')


def test_answer_without_a_length_that_does_not_end() -> None:
    """Where the end of the connection would be that of the answer, it is cut by a reset (RFC 9112 section 8)."""
    with start("--request-timeout", "1") as server, connect(server.address) as sock:
        sock.sendall(b"GET /halves/100000 HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            read_all(sock)


def test_answer_at_the_last_moment() -> None:
    """Requests that end as their time does are answered or given up, and cost the server no thread."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--threads", "32", "--request-timeout", "0.2", "--health"))
        socks = [stack.enter_context(connect(server.address)) for _ in range(32)]
        cut = 0
        for round_ in range(8):
            for number, sock in enumerate(socks):
                sock.sendall(request(f"/sleep/{185 + (number + round_) % 32}", "Connection: keep-alive"))
            for number, sock in enumerate(socks):
                try:
                    response, _ = read_answer(sock)
                    assert response.status in (200, 504)
                    closed = response.getheader("Connection") == "close"
                except http.client.RemoteDisconnected:
                    closed = True
                    cut += 1
                if closed:
                    socks[number] = stack.enter_context(connect(server.address))
        for _ in range(64):
            assert get(server.address) == (200, b"hello\n")
        assert "a fault in wizgy" not in server.stderr.lower()
        # One that was just beginning to answer is cut, as nobody can know how far it has come; the log says so.
        wait_until(lambda: server.stderr.count("the request was cut") >= cut, "the log tells of each")


def test_every_thread_is_stuck() -> None:
    """When every thread is stuck, requests that wait for one are served by those that take their places."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--threads", "2", "--request-timeout", "1", "--health"))
        stuck = [stack.enter_context(connect(server.address)) for _ in range(2)]
        for sock in stuck:
            sock.sendall(request("/sleep/100000"))
        waiting = [stack.enter_context(connect(server.address)) for _ in range(5)]
        for sock in waiting:
            sock.sendall(request("/hello"))
        began = time.monotonic()
        assert get(server.address, "/livez") == (200, b"ok\n")
        assert time.monotonic() - began < 0.9
        for sock in stuck:
            assert read_answer(sock)[0].status == 504
        for sock in waiting:
            assert read_answer(sock)[1] == b"hello\n"


def test_stacks_on_request() -> None:
    """USR2 shows what every thread of every worker does."""
    with start("--workers", "2", "--threads", "3") as server:
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded: ")  # so both are known to be ready
        server.signal(signal.SIGUSR2)
        for worker in serving_workers(server, 2):
            server.wait_stderr(f"Here is what the threads of worker {worker} do:\n")
        wait_until(lambda: server.stderr.count("in _serve") >= 6, "the stacks of all threads")
        assert get(server.address) == (200, b"hello\n")
        assert server.stop() == 0


def test_crash_shows_where(tmp_path: Path) -> None:
    """A worker that crashes in C code says where, and is replaced."""
    (tmp_path / "crashing.py").write_text(
        "import ctypes\nfrom served import app as served\n\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/crash':\n"
        "        ctypes.string_at(0)\n"
        "    return served(environ, start_response)\n",
        "utf-8",
    )
    with start(app="crashing:app", environment=source_path(tmp_path)) as server:
        (worker,) = children(server.pid)
        with pytest.raises(OSError):
            get(server.address, "/crash")
        server.wait_stderr(r'crashing\.py", line 6 in app')
        server.wait_stderr(f"Worker {worker} was killed by SIGSEGV; another one takes its place")
        assert get(server.address) == (200, b"hello\n")


def test_enough_requests() -> None:
    """With --max-requests workers are replaced as they go, and no request is lost."""
    with start("--workers", "2", "--max-requests", "50", "--max-requests-jitter", "20") as server:
        before = serving_workers(server, 2)
        with Load(server.address, pause=0.001) as load:
            wait_until(lambda: load.asked > 1000, "a thousand requests", 30)
        assert load.failures == []
        wait_until(lambda: len(children(server.pid)) == 2, "the old workers are gone", 20)
        assert not children(server.pid) & before
        assert "takes its place" not in server.stderr
        assert server.stop() == 0


def test_enough_requests_when_the_successor_fails(tmp_path: Path) -> None:
    """A worker that has answered enough serves on as long as no successor loads."""
    broken = tmp_path / "broken"
    (tmp_path / "fragile.py").write_text(
        f"import os\nassert not os.path.exists({str(broken)!r}), 'no database'\nfrom served import app\n",
        "utf-8",
    )
    with start("--max-requests", "5", app="fragile:app", environment=source_path(tmp_path)) as server:
        (worker,) = serving_workers(server, 1)
        broken.touch()
        for _ in range(5):
            get(server.address)
        server.wait_stderr("before it was ready; another one is tried")
        for _ in range(20):
            assert int(get(server.address, "/pid")[1]) == worker
        broken.unlink()
        wait_until(lambda: not is_alive(worker), "it is replaced", 20)
        assert get(server.address) == (200, b"hello\n")


def test_full_worker_leaves_connections_to_others() -> None:
    """While every thread of one worker is busy, new connections go to the other (fault 13)."""
    with ExitStack() as stack:
        server = stack.enter_context(start("--workers", "2", "--threads", "4", "--health"))
        serving_workers(server, 2)

        def busiest() -> int:
            sleeping = Counter(re.findall(r"^sleeps in (\d+)$", server.stdout, re.MULTILINE))
            return max(sleeping.values(), default=0)

        count = 0
        while busiest() < 4:
            sock = stack.enter_context(connect(server.address))
            sock.sendall(request("/sleep/20000"))
            count += 1
            wait_until(lambda count=count: server.stdout.count("sleeps in") == count, "it runs")  # type: ignore[misc]
        assert count < 8
        pids = serving_workers(server, 2)
        wait_until(lambda: sum(map(accepts, pids)) == 1, "one worker stands aside")
        for _ in range(100):
            began = time.monotonic()
            assert get(server.address) == (200, b"hello\n")
            assert time.monotonic() - began < 1
        # When both are full, health is still told, and a request is taken in for when there is a thread.
        while server.stdout.count("sleeps in") < 8:
            sock = stack.enter_context(connect(server.address))
            sock.sendall(request("/sleep/20000"))
            count += 1
            wait_until(lambda count=count: server.stdout.count("sleeps in") == count, "it runs")  # type: ignore[misc]
        began = time.monotonic()
        assert get(server.address, "/readyz") == (200, b"ok\n")
        assert time.monotonic() - began < 1
        server.kill()


def accepts(pid: int) -> bool:
    """Whether a worker waits for new connections: its epoll watches a socket that listens."""
    sockets = Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]
    listening = {f"socket:[{line.split()[9]}]" for line in sockets if line.split()[3] == "0A"}
    links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    epolls = [name for name, link in links.items() if link == "anon_inode:[eventpoll]"]
    return any(links.get(name) in listening for epoll in epolls for name in watched(pid, epoll))


def watched(pid: int, epoll: str) -> list[str]:
    """The descriptors that an epoll watches."""
    return re.findall(r"^tfd:\s+(\d+) ", Path(f"/proc/{pid}/fdinfo/{epoll}").read_text("ascii"), re.MULTILINE)


def test_idle_workers_sleep_on() -> None:
    """A new connection wakes one of the workers, not all of them."""
    with start("--workers", "8", "--threads", "1") as server:
        pids = serving_workers(server, 8)
        before = {pid: switches(pid) for pid in pids}
        for _ in range(200):
            assert get(server.address) == (200, b"hello\n")
        woken = sorted(switches(pid) - before[pid] for pid in pids)
        assert woken[0] < 150, woken


def switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        status = Path(f"/proc/{pid}/task/{task}/status").read_text("ascii")
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)
        assert found is not None
        total += int(found[1])
    return total


def test_stop_while_it_loads(tmp_path: Path) -> None:
    """TERM while the application loads ends the server at once with status 0."""
    (tmp_path / "slow.py").write_text("open('loading', 'w').close()\nimport time; time.sleep(1000)\n", "utf-8")
    with ServerProcess(["--bind", "127.0.0.1:0", "slow:app"], directory=tmp_path) as server:
        wait_until((tmp_path / "loading").exists, "the application loads")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 2


def test_programs_of_the_application_have_default_signals() -> None:
    """A program that the application starts does not inherit that signals are ignored or blocked."""
    with start() as server:
        status = get(server.address, "/signals")[1].decode()
    masks = {name: int(mask, 16) for name, mask in re.findall(r"(Sig\w+):\s+(\w+)\n", status)}
    assert masks["SigBlk"] == 0
    assert not any(masks["SigIgn"] >> (number - 1) & 1 for number in CAUGHT)


def test_as_many_workers_as_processors() -> None:
    """--workers auto starts a worker for each processor that the server may use."""
    first = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {first})
    try:
        with start("--workers", "auto") as server:
            assert len(serving_workers(server, 1)) == 1
    finally:
        os.sched_setaffinity(0, before)
    with start("--workers", "auto") as server:
        serving_workers(server, count_processors())
