"""What an application forks or starts has nothing of the server: no socket, no signal handler, no voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import TIMEOUT, children, connect, get, is_alive, is_refused, read_all, request, wait_until

ENDS = """
import os, sys, threading

def note(name, text):
    with open(name + ".new", "w") as file:
        file.write(str(text))
    os.rename(name + ".new", name)

def fork(in_child):
    pid = os.fork()
    if pid == 0:
        in_child()
    else:
        note("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def fail():
    raise ValueError("in the child")

IN_CHILD = {
    "exit": lambda: sys.exit(3), "none": lambda: sys.exit(), "text": lambda: sys.exit("why it ends"),
    "large": lambda: sys.exit(259), "raise": fail, "return": lambda: None, "nested": lambda: fork(lambda: sys.exit(5)),
    "thread": lambda: threading.Thread(target=note, args=("joined", "yes")).start(),
    "print": lambda: print("said by the child"),
}

class Iterable:
    def __init__(self, in_child): self.in_child = in_child
    def __iter__(self): return iter([b"whole ", b"answer"])
    def close(self): fork(self.in_child)

def generate(in_child):
    yield b"whole "
    fork(in_child)
    yield b"answer"
    note("went-on-" + str(os.getpid()), "")

def app(environ, start_response):
    where, _, how = environ["PATH_INFO"][1:].partition("/")
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if not where:
        return [str(os.getpid()).encode()]
    in_child = IN_CHILD[how]
    if where == "generator":
        return generate(in_child)
    if where == "close":
        return Iterable(in_child)
    if where == "write":
        write(b"whole ")
        fork(in_child)
        write(b"answer")
        return []
    fork(in_child)
    return [b"whole ", b"answer"]
"""

EXIT_CODES = {
    "exit": 3,
    "none": 0,
    "text": 1,
    "large": 3,
    "raise": 1,
    "return": 0,
    "nested": 0,
    "thread": 0,
    "print": 0,
}


@contextmanager
def serving(folder: Path, source: str, *arguments: str) -> Iterator[ServerProcess]:
    """Serve an application that is written for a test."""
    (folder / "app.py").write_text(textwrap.dedent(source), "utf-8")
    with ServerProcess(["--bind", "127.0.0.1:0", *arguments, "app:app"], directory=folder) as server:
        server.wait_ready()
        yield server


def read(path: Path) -> str:
    """What a process of the application has noted, once it has."""
    return wait_until(lambda: path.read_text("utf-8") + " " if path.exists() else "", f"{path.name} is written")[:-1]


def ask(server: ServerProcess, target: str) -> bytes:
    """All that comes on one connection."""
    with connect(server.address) as sock:
        sock.sendall(request(target, "Connection: close"))
        return read_all(sock)


@pytest.mark.parametrize("where", ["view", "write", "generator", "close"])
@pytest.mark.parametrize("how", EXIT_CODES)
def test_child_ends_where_its_part_of_the_request_does(tmp_path: Path, where: str, how: str) -> None:
    """A child that is forked in a request ends with Python's exit code, and the answer comes once and whole."""
    with serving(tmp_path, ENDS) as server:
        worker = get(server.address, "/")[1]
        answer = ask(server, f"/{where}/{how}")
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.replace(b"\r\n", b"").count(b"whole ") == answer.count(b"answer") == 1
        assert int(read(tmp_path / "status")) == EXIT_CODES[how]
        assert {get(server.address, "/")[1] for _ in range(20)} == {worker}
        if how == "raise":
            server.wait_stderr("(?s)Traceback.*ValueError: in the child")
        if how == "text":
            server.wait_stderr("^why it ends$")
        if how == "thread":
            assert read(tmp_path / "joined") == "yes"
        if how == "print":
            server.wait_stdout("^said by the child$")
        assert len(list(tmp_path.glob("went-on-*"))) == (where == "generator")
        assert children(int(worker)) == set()
        assert server.stop() == 0
        assert is_refused(server.address)


def test_child_of_an_endless_response_ends(tmp_path: Path) -> None:
    """A child does not go on with an iterable for nobody: it ends at the next piece."""
    source = """
    import os, time
    def endless():
        os.fork()
        while True:
            yield b"tick"
            time.sleep(0.01)
    def app(environ, start_response):
        start_response("200 OK", [])
        return endless()
    """
    with serving(tmp_path, source) as server, connect(server.address) as sock:
        sock.sendall(request("/"))
        assert sock.recv(1) == b"H"
        (worker,) = children(server.pid)
        wait_until(lambda: not any(map(is_alive, children(worker))), "the child ends")
        sock.close()


REPORT = """
import json, multiprocessing, os, pty, signal, subprocess, sys, threading, time
import concurrent.futures

def report():
    with open("/proc/self/status") as file:
        caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))
    found = {"pid": os.getpid(), "caught": caught, "wakeup": signal.set_wakeup_fd(-1), "files": []}
    for name in os.listdir("/proc/self/fd"):
        try:
            found["files"].append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    with open("report.new", "w") as file:
        json.dump(found, file)
    os.rename("report.new", "report")

def report_and_stay():
    report()
    time.sleep(60)

def fork():
    if os.fork() == 0:
        report_and_stay()
        os._exit(0)

def fork_terminal():
    pid, descriptor = pty.fork()
    if pid == 0:
        report_and_stay()
        os._exit(0)

def fork_twice():
    if os.fork() == 0:
        fork()
        os.wait()

pool = None

def use_pool():
    global pool
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    pool.submit(report_and_stay)

def start(method):
    multiprocessing.get_context(method).Process(target=report_and_stay, daemon=True).start()

WAYS = {
    "fork": fork, "terminal": fork_terminal, "twice": fork_twice, "pool": use_pool,
    "multiprocessing-fork": lambda: start("fork"), "multiprocessing-spawn": lambda: start("spawn"),
    "multiprocessing-forkserver": lambda: start("forkserver"),
    "thread": lambda: threading.Thread(target=fork).start(),
    "program": lambda: subprocess.Popen([sys.executable, "-c", "import app; app.report_and_stay()"]),
    "preexec": lambda: subprocess.Popen(["sleep", "60"], preexec_fn=report),
}

if os.environ.get("AT_LOAD"):
    if os.fork() == 0:
        report()
        sys.exit(7)

def app(environ, start_response):
    path = environ["PATH_INFO"][1:]
    environ["wsgi.input"].read(1)
    if path in WAYS:
        WAYS[path]()
    start_response("200 OK", [])
    if path == "large":
        return [b"a" * (64 << 20)]
    return [str(os.getpid()).encode()]
"""

WAYS = [
    "fork",
    "terminal",
    "twice",
    "pool",
    "multiprocessing-fork",
    "multiprocessing-spawn",
    "multiprocessing-forkserver",
    "thread",
    "program",
    "preexec",
]
TAKEN = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU]
"""Signals that the server catches, but for SIGINT, for which Python itself has a handler."""


def files_of(pid: int) -> set[str]:
    """What a process has open besides files with names."""
    links = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            if int(name) > 2:
                links.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return {link for link in links if not link.startswith("/") or "(deleted)" in link}


@pytest.mark.parametrize("way", WAYS)
def test_child_has_nothing_of_the_server(tmp_path: Path, way: str) -> None:
    """Whatever is forked or started has default signals and none of the worker's sockets, pipes, epolls and spools."""
    with serving(tmp_path, REPORT, "--graceful-timeout", "5") as server:
        worker = int(get(server.address, "/")[1])
        with connect(server.address) as slow, connect(server.address) as uploading:
            slow.sendall(request("/large"))  # what the client does not read is in a temporary file
            uploading.sendall(request("/", "Content-Length: 2000000", method="POST") + b"a" * 1_000_000)
            wait_until(lambda: sum("(deleted)" in link for link in files_of(worker)) >= 2, "both have files")
            of_the_server = files_of(worker) - {"anon_inode:[eventpoll]"}
            assert get(server.address, f"/{way}")[1] == str(worker).encode()
            found = json.loads(read(tmp_path / "report"))
            assert not of_the_server & set(found["files"])
            assert not [link for link in found["files"] if "eventpoll" in link]
            if way not in ("multiprocessing-spawn", "multiprocessing-forkserver"):
                assert not [link for link in found["files"] if link.startswith("socket:")]
            assert found["wakeup"] == -1
            if way == "preexec":
                return
            assert [number for number in TAKEN if found["caught"] & 1 << number - 1] == []
            os.kill(found["pid"], signal.SIGTERM)
            wait_until(lambda: not is_alive(found["pid"]), "the child ends at TERM")
            uploading.sendall(b"a" * 1_000_000)
            assert uploading.recv(12) == b"HTTP/1.1 200"
        assert get(server.address, "/")[1] == str(worker).encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_child_ends_at_each_signal(tmp_path: Path, number: signal.Signals) -> None:
    """Every signal that the server catches has its default action in a child, and never reaches the worker."""
    with serving(tmp_path, REPORT) as server:
        worker = get(server.address, "/")[1]
        get(server.address, "/fork")
        pid = json.loads(read(tmp_path / "report"))["pid"]
        os.kill(pid, number)
        wait_until(lambda: not is_alive(pid), "the child ends")
        assert get(server.address, "/")[1] == worker
        assert "told to stop" not in server.stderr


def test_child_that_is_forked_at_load(tmp_path: Path) -> None:
    """A child that is forked while the application loads does not become a second worker; it has its own exit code."""
    (tmp_path / "app.py").write_text(REPORT, "utf-8")
    arguments = ["--bind", "127.0.0.1:0", "app:app"]
    with ServerProcess(arguments, directory=tmp_path, environment={"AT_LOAD": "1"}) as server:
        server.wait_ready()
        found = json.loads(read(tmp_path / "report"))
        assert not [link for link in found["files"] if link.startswith(("socket:", "anon_inode"))]
        (worker,) = children(server.pid)
        (child,) = children(worker)
        wait_until(lambda: not is_alive(child), "the child ends")
        exit_code = Path(f"/proc/{child}/stat").read_text("ascii").rpartition(")")[2].split()[-1]
        assert os.waitstatus_to_exitcode(int(exit_code)) == 7
        assert {get(server.address, "/")[1] for _ in range(10)} == {str(worker).encode()}


def test_signal_right_after_the_fork(tmp_path: Path) -> None:
    """A signal that comes before the child has given up the server's handlers ends the child and not the worker."""
    source = """
    import os, signal
    def app(environ, start_response):
        start_response("200 OK", [])
        statuses = []
        if environ["PATH_INFO"] == "/fork":
            for _ in range(50):
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                os.kill(pid, signal.SIGTERM)
                statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return [str(set(statuses)).encode()]
    """
    with serving(tmp_path, source) as server:
        for _ in range(4):
            assert get(server.address, "/fork") == (200, b"{-15}")
        assert "told to stop" not in server.stderr


def test_forks_under_load_lose_nothing(tmp_path: Path) -> None:
    """While requests fork, every other request is answered by the worker, and each connection ends with its answer."""
    with serving(tmp_path, ENDS, "--threads", "4") as server:
        worker = get(server.address, "/")[1]
        for _ in range(30):
            assert ask(server, "/view/return").count(b"HTTP/1.1") == 1
            assert get(server.address, "/")[1] == worker


@pytest.mark.parametrize("inside", ["handler", "thread"])
def test_child_of_the_program_that_serves(tmp_path: Path, inside: str) -> None:
    """A thread or a signal handler of the program around `wizgy.serve` may fork: its child holds no port."""
    source = f"""
    import os, signal, sys, threading, time
    import wizgy

    def fork(*arguments):
        pid = os.fork()
        if pid == 0 and {inside!r} == "thread":
            with open("child", "w") as file:
                file.write(" ".join(os.readlink("/proc/self/fd/" + n) for n in ("3", "4", "5", "6", "7", "8", "9")
                                    if os.path.exists("/proc/self/fd/" + n)) + ".")
            time.sleep(60)
            os._exit(0)
        if pid:
            with open("status", "w") as file:
                file.write(str(pid) + " ")

    def app(environ, start_response):
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]

    if __name__ == "__main__":
        if {inside!r} == "handler":
            signal.signal(signal.SIGRTMIN + 2, fork)
        else:
            threading.Timer(1.5, fork).start()
        wizgy.serve(app, bind="127.0.0.1:0", graceful_timeout=2)
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(source), "utf-8")
    with ServerProcess(["app.py"], command=[sys.executable], directory=tmp_path) as server:
        server.wait_ready()
        worker = get(server.address, "/")[1]
        if inside == "handler":
            os.kill(server.pid, signal.SIGRTMIN + 2)
        child = int(wait_until(lambda: (tmp_path / "status").exists() and read(tmp_path / "status"), "it forks"))
        if inside == "handler":
            wait_until(lambda: not is_alive(child), "the child ends where the handler returns")
        else:
            wait_until(lambda: read(tmp_path / "child").endswith("."), "the child has looked")
            assert "socket:" not in read(tmp_path / "child")
            assert "eventpoll" not in read(tmp_path / "child")
        assert {get(server.address, "/")[1] for _ in range(10)} == {worker}
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert is_refused(server.address)


PROGRAM = """
import os, signal, socket, sys, threading, time
import wizgy

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

def ask(address):
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect(address)
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        data = b""
        while piece := sock.recv(4096):
            data += piece
        return data.rpartition(b"\\r\\n")[2]
"""


def run_program(folder: Path, source: str) -> Any:
    """Run a program to its end; returns what it has printed, as JSON."""
    (folder / "program.py").write_text(PROGRAM + textwrap.dedent(source), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server")}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("address", ["tcp", "unix"])
def test_fork_beside_a_server_in_a_thread(tmp_path: Path, address: str) -> None:
    """In a child of a program with `make_server` the server is shut down: no socket, and `shutdown` does nothing."""
    found = run_program(
        tmp_path,
        f"""
        import json
        with wizgy.make_server({"'wizgy.sock'" if address == "unix" else "('127.0.0.1', 0)"}, app) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            idle = socket.socket(socket.AF_UNIX if isinstance(server.server_address, str) else socket.AF_INET)
            idle.connect(server.server_address)
            before = ask(server.server_address)
            pid = os.fork()
            if pid == 0:
                idle.close()
                began = time.monotonic()
                server.shutdown()
                server.serve_forever()
                links = [os.readlink("/proc/self/fd/" + name) for name in ("3", "4", "5", "6", "7", "8", "9", "10")
                         if os.path.exists("/proc/self/fd/" + name)]
                bad = [link for link in links if link.startswith(("socket", "pipe", "anon_inode"))]
                os._exit(1 if bad else 2 if time.monotonic() - began > 1 else 0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            answers = {{before, *(ask(server.server_address) for _ in range(10))}}
            idle.close()
        print(json.dumps([code, [int(answer) - os.getpid() for answer in answers]]))
        """,
    )
    assert found == [0, [0]]


def test_server_that_is_made_before_the_program_forks(tmp_path: Path) -> None:
    """A server that does not run yet goes along: a program may bind, fork to become a daemon, and serve then."""
    found = run_program(
        tmp_path,
        """
        import json
        server = wizgy.make_server(("127.0.0.1", 0), app)
        pids = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                thread = threading.Thread(target=server.serve_forever)
                signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
                thread.start()
                thread.join()
                os._exit(0)
            pids.append(pid)
        answers = set()
        while len(answers) < 2:
            answers.add(int(ask(server.server_address)))
            if len(answers) == 1 and len(pids) == 2:
                os.kill(next(iter(answers)), signal.SIGTERM)
                os.waitpid(next(iter(answers)), 0)
                pids.remove(next(iter(answers)))
        server.shutdown()
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)
        print(json.dumps(len(answers)))
        """,
    )
    assert found == 2
