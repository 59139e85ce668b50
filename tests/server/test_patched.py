"""Applications that replace threads, locks, sockets or the clock of their process are served all the same."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import children, connect, get, is_alive, read_all, read_answer, request, start, wait_until
from tests.server.tls_client import Authority, connect_secure

HOSTILE = """
import os, select, selectors, socket, _thread, threading, time

def refuse(*args, **kwargs):
    raise RuntimeError("replaced by the application")

class Refused:
    __init__ = refuse

FUNCTIONS = {
    _thread: ["start_new_thread", "start_joinable_thread"],  # an import needs the others
    threading: [
        "_start_new_thread", "_start_joinable_thread", "_allocate_lock", "Lock", "RLock", "get_ident",
        "current_thread",
    ],
    select: ["select", "poll", "epoll", "kqueue"],
    time: ["sleep", "monotonic"],
    os: ["read", "write", "fork", "waitpid"],
}
CLASSES = {
    threading: ["Thread", "Event", "Condition", "Semaphore", "local"],
    selectors: ["DefaultSelector", "EpollSelector", "KqueueSelector", "SelectSelector", "PollSelector"],
    socket: ["socket"],
}
for module, names in FUNCTIONS.items():
    for name in names:
        if hasattr(module, name):
            setattr(module, name, refuse)
for module, names in CLASSES.items():
    for name in names:
        setattr(module, name, Refused)
"""
"""What gevent and eventlet replace, and more, with what cannot be used at all."""
PATCHES = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\n",
    "hostile": f"import time; wait = time.sleep\n{HOSTILE}time.sleep = wait\n",
}
PATCHERS = [name for name in PATCHES if name == "hostile" or importlib.util.find_spec(name) is not None]

FREEZER = """
import sys, time
REAL = {name: getattr(time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter")}
fakes = {id(function): (lambda now=function(): now) for function in REAL.values()}
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if id(value) in fakes and module is not sys.modules[__name__]:
            setattr(module, name, fakes[id(value)])
"""
"""What freezegun does: each function of the clock is replaced wherever a module has it."""
FREEZERS = {"by hand": FREEZER, "freezegun": "import freezegun\nfreezegun.freeze_time('2020-01-01').start()\n"}

APP = """
def app(environ, start_response):
    path, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    if path == "sleep":
        time.sleep(float(argument))
    if path == "fail":
        raise ValueError("failed on purpose")
    if path == "print":
        print("printed by the application", file=environ["wsgi.errors"])
    content = environ["wsgi.input"].read() or b"%.0f" % time.time()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
    return [content]
"""


def serve(folder: Path, before: str, *arguments: str) -> ServerProcess:
    """Serve the application, which does something before all else."""
    (folder / "patched.py").write_text(f"{before}\nimport time\n{APP}", "utf-8")
    return start("--chdir", str(folder), *arguments, app="patched:app")


@pytest.mark.parametrize("patcher", PATCHERS)
def test_patched_application_is_served(tmp_path: Path, patcher: str) -> None:
    """Requests that wait, several at once, uploads, log lines, USR2 and a reload work in a process that is patched."""
    with serve(tmp_path, PATCHES[patcher], "--access-log", str(tmp_path / "log")) as server:
        assert get(server.address)[0] == 200
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: get(server.address, "/sleep/1"), range(4)))
        assert [status for status, _ in answers] == [200] * 4
        assert time.monotonic() - began < 3.5  # one after the other takes four
        with connect(server.address) as sock:
            size = 3_000_000
            sock.sendall(request("/", f"Content-Length: {size}", method="POST") + b"x" * size)
            assert read_answer(sock)[1] == b"x" * size
        assert get(server.address, "/fail")[0] == 500
        server.wait_stderr("ValueError: failed on purpose")
        assert get(server.address, "/print")[0] == 200
        server.wait_stderr("^printed by the application$")
        server.signal(signal.SIGUSR2)
        server.wait_stderr("Here is what the threads of worker")
        before = children(server.pid)
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded")
        wait_until(lambda: not any(map(is_alive, before)), "the old worker ends")
        assert get(server.address)[0] == 200
        with connect(server.address) as sock:
            sock.sendall(request("/sleep/1"))
            wait_until(lambda: "/fail" in (tmp_path / "log").read_text(), "the access log is written")
            server.signal(signal.SIGTERM)
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        assert server.wait() == 0
        assert "fault in wizgy" not in server.stderr


@pytest.mark.parametrize("patcher", PATCHERS)
def test_deadlines_of_a_patched_process(tmp_path: Path, patcher: str) -> None:
    """In a process that is patched, deadlines end what takes too long."""
    arguments = ["--header-timeout", "1", "--keepalive-timeout", "1", "--request-timeout", "1"]
    with serve(tmp_path, PATCHES[patcher], *arguments) as server:
        with connect(server.address) as sock:
            sock.sendall(request())
            assert read_answer(sock)[0].status == 200
            assert read_all(sock) == b""
        with connect(server.address) as sock:
            sock.sendall(b"GET /")
            assert read_all(sock).startswith(b"HTTP/1.1 408 ")
        with connect(server.address) as sock:
            sock.sendall(request("/sleep/5"))
            assert read_answer(sock)[0].status == 504
        server.wait_stderr("GET /sleep/5: The application took more than 1 s")


@pytest.mark.parametrize("patcher", PATCHERS)
def test_tls_in_a_patched_process(tmp_path: Path, patcher: str) -> None:
    """TLS and what proxies tell are served in a process that is patched, though their modules come late."""
    authority = Authority.make(tmp_path)
    certificate = authority.issue("server", "localhost")
    with (
        serve(tmp_path, PATCHES[patcher], "--certfile", certificate, "--trust-proxy", "127.0.0.1") as server,
        connect_secure(server.address, authority.client()) as sock,
    ):
        for _ in range(2):
            sock.sendall(
                request("/sleep/0.1", "X-Forwarded-For: 192.0.2.1", "Content-Length: 2", method="POST") + b"ok"
            )
            assert read_answer(sock)[1] == b"ok"


@pytest.mark.parametrize("freezer", [name for name in FREEZERS if name == "by hand" or importlib.util.find_spec(name)])
def test_clock_that_stands_still(tmp_path: Path, freezer: str) -> None:
    """A clock that the application stops stands still for it alone: deadlines end connections, and stops end."""
    arguments = [
        "--header-timeout",
        "1",
        "--keepalive-timeout",
        "1",
        "--graceful-timeout",
        "1",
        "--request-timeout",
        "1",
    ]
    with serve(tmp_path, FREEZERS[freezer], *arguments) as server:
        first = get(server.address)
        with connect(server.address) as sock:
            sock.sendall(request())
            assert read_answer(sock)[0].status == 200
            assert read_all(sock) == b""
        assert get(server.address) == first  # for the application it is the same second
        with connect(server.address) as sock:
            sock.sendall(b"GET /")
            assert read_all(sock).startswith(b"HTTP/1.1 408 ")
        with connect(server.address) as sock:
            sock.sendall(request("/sleep/60"))
            assert read_answer(sock)[0].status == 504
        server.signal(signal.SIGTERM)
        server.wait(timeout=8)


SERVING = """
import sys
import wizgy
def app(environ, start_response):
    pass
try:
    CALL
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("call", ["wizgy.make_server(('127.0.0.1', 0), app)", "wizgy.serve(app)"])
@pytest.mark.parametrize("patcher", [name for name in PATCHERS if name != "hostile"])
def test_process_that_was_patched_before(tmp_path: Path, patcher: str, call: str) -> None:
    """A process that was patched before wizgy was imported is not served in: the error says by what, and what to do."""
    program = tmp_path / "program.py"
    program.write_text(PATCHES[patcher] + SERVING.replace("CALL", call), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server")}
    ended = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"replaced (by {patcher}) before wizgy was imported" in ended.stdout
    assert "import wizgy before you patch" in ended.stdout


@pytest.mark.skipif("gevent" not in PATCHERS, reason="gevent is not installed")
def test_command_that_was_patched_before(tmp_path: Path) -> None:
    """The command ends with 3 and one sentence where it was started by what patches its process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server")}
    command = [sys.executable, "-m", "gevent.monkey", "--module", "wizgy", "--bind", "127.0.0.1:0", "served:app"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 3
    assert "replaced (by gevent) before wizgy was imported" in ended.stderr
    assert "Traceback" not in ended.stderr
