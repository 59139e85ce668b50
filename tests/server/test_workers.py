"""What befalls a worker: it is stopped, hangs, leaks, crashes or never loads; and how many there are."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, children, connect, get, is_alive, request, serving_workers, start, wait_until
from tests.server.load import Load
from wizgy.cgroup import count_processors
from wizgy.supervisor import CAUGHT

NOTICED = 15.0
"""Seconds in which a worker that hangs is replaced."""


def source_path(folder: Path) -> dict[str, str]:
    """Variables with which an application in `folder` can import `served`."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(FOLDER), str(folder)])}


def test_stopped_worker_is_replaced() -> None:
    """A worker that a signal has stopped is replaced within 15 s; meanwhile no probe takes a second (fault 8)."""
    with start("--workers", "2") as server:
        before = serving_workers(server, 2)
        victim = min(before)
        os.kill(victim, signal.SIGSTOP)
        began = time.monotonic()
        while is_alive(victim):
            asked = time.monotonic()
            assert get(server.address) == (200, b"hello\n")
            assert time.monotonic() - asked < 1
            assert time.monotonic() - began < NOTICED
        assert victim not in serving_workers(server, 2)
        server.wait_stderr(f"Worker {victim} is stopped by a signal; it is killed, and another one takes its place")


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


def test_stacks_on_request() -> None:
    """USR2 shows what every thread of every worker does."""
    with start("--workers", "2", "--threads", "3") as server:
        serving_workers(server, 2)
        server.signal(signal.SIGUSR2)
        for worker in serving_workers(server, 2):
            server.wait_stderr(f"USR2: here is what the threads of worker {worker} do")
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
