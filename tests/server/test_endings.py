"""A worker ends as a Python process does: threads joined, pools drained, exit handlers run, in the time there is."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import children, get, is_alive, is_refused, wait_until
from tests.server.test_forks import serving

WORK = """
import atexit, concurrent.futures, multiprocessing, os, threading, time

fork = multiprocessing.get_context("fork")
pools = []
release = threading.Event()

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

def work(seconds=0.5):
    time.sleep(seconds)
    note("worked")

atexit.register(note, "exit handler")

def submit(pool, seconds):
    pools.append(pool)
    for _ in range(2):
        pool.submit(work, seconds)

def app(environ, start_response):
    name, _, seconds = environ["PATH_INFO"][1:].partition("/")
    seconds = float(seconds or 0.5)
    if name == "thread":
        threading.Thread(target=work, args=(seconds,), name="export").start()
    elif name == "daemon":
        threading.Thread(target=work, args=(seconds,), daemon=True).start()
    elif name == "executor":
        submit(concurrent.futures.ThreadPoolExecutor(1), seconds)
    elif name == "processes":
        submit(concurrent.futures.ProcessPoolExecutor(1, mp_context=fork), seconds)
    elif name == "process":
        fork.Process(target=work, args=(seconds,), name="crunch").start()
    elif name == "helper":
        fork.Process(target=work, args=(60,), daemon=True).start()
    elif name == "handler":
        atexit.register(time.sleep, seconds)
    start_response("202 Accepted", [])
    return [str(os.getpid()).encode()]
"""

PIECES = {"thread": 1, "executor": 2, "processes": 2, "process": 1, "daemon": 0, "helper": 0}


def notes(folder: Path) -> list[str]:
    """What the application has noted, a line each."""
    path = folder / "notes"
    return path.read_text("utf-8").splitlines() if path.exists() else []


@pytest.mark.parametrize("how", ["TERM", "HUP", "max-requests"])
@pytest.mark.parametrize("name", PIECES)
def test_work_is_finished(tmp_path: Path, name: str, how: str) -> None:
    """What a view has given to a thread, pool or process is finished before exit handlers run, however it ends."""
    arguments = ["--max-requests", "1"] if how == "max-requests" else []
    with serving(tmp_path, WORK, *arguments) as server:
        worker = int(get(server.address, f"/{name}")[1])
        if how == "HUP":
            server.signal(signal.SIGHUP)
        if how == "TERM":
            server.signal(signal.SIGTERM)
        wait_until(lambda: not is_alive(worker), "the worker ends")
        expected = ["worked"] * PIECES[name] + ["exit handler"]
        # A process is joined by an exit handler, of multiprocessing, which was registered first.
        assert sorted(notes(tmp_path)) == sorted(expected)
        if name != "process":
            assert notes(tmp_path) == expected
        assert server.stop() == 0
        assert is_refused(server.address)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("thread/60", "thread export"),
        ("executor/60", r"thread ThreadPoolExecutor-0_0, 1 task waiting for a ThreadPoolExecutor"),
        ("processes/60", r"2 tasks of a ProcessPoolExecutor, process \d+ \(ForkProcess-1\)"),
        ("process/60", r"process \d+ \(crunch\)"),
        ("handler/60", r"exit handlers \(atexit\), which are here:"),
    ],
)
def test_what_is_cut_off_is_named(tmp_path: Path, name: str, said: str) -> None:
    """When the graceful timeout is over the log names what is cut off, and nothing of it is left behind."""
    with serving(tmp_path, WORK, "--graceful-timeout", "2") as server:
        worker = int(get(server.address, f"/{name}")[1])
        started = children(worker)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.wait_stderr(rf"INFO: Worker {worker} has answered its requests, and waits for .*{said}")
        server.wait_stderr(rf"The graceful timeout is over. Worker {worker} ends, which cuts off .*{said}")
        assert server.wait() == 0
        assert 2 <= time.monotonic() - began < 4.5
        wait_until(lambda: not any(map(is_alive, started)), "its processes end")
        assert is_refused(server.address)
        assert "was killed" not in server.stderr


def test_worker_with_nothing_left_says_nothing(tmp_path: Path) -> None:
    """A worker whose work is finished ends at once and in silence."""
    with serving(tmp_path, WORK) as server:
        get(server.address, "/thread/0.01")
        wait_until(lambda: notes(tmp_path) == ["worked"], "the thread ends")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 1
        assert server.stderr.count("\n") == 1


def test_application_that_does_not_load_leaves_nothing(tmp_path: Path) -> None:
    """A worker whose application fails to load does not wait for what it has started: one traceback, exit status 3."""
    source = """
    import multiprocessing, threading, time
    threading.Thread(target=time.sleep, args=(60,)).start()
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
    raise RuntimeError("no")
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(source), "utf-8")
    with ServerProcess(["--bind", "127.0.0.1:0", "app:app"], directory=tmp_path) as server:
        assert server.wait() == 3
        assert server.stderr.count("RuntimeError: no") == 1


PROGRAM = """
import atexit, logging, multiprocessing, os, tempfile, threading, time, weakref
import concurrent.futures
import wizgy

folder = tempfile.TemporaryDirectory()
program = os.getpid()

def note(text):
    with open("notes", "a") as file:
        file.write(("program" if os.getpid() == program else "worker") + " " + text + "\\n")

class Thing:
    pass

things = [Thing(), Thing()]
atexit.register(note, "before")
weakref.finalize(things[0], note, "finalizer before")
executor = concurrent.futures.ThreadPoolExecutor(1)
started = []

def load_in_worker():
    atexit.register(note, "after")
    weakref.finalize(things[1], note, "finalizer after")
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()

def app(environ, start_response):
    if not started:
        started.append(1)
        load_in_worker()
    start_response("200 OK", [])
    return [str(os.path.exists(folder.name)).encode()]

if __name__ == "__main__":
    executor.submit(time.sleep, 0).result()
    helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    helper.start()
    try:
        wizgy.serve(app, bind="127.0.0.1:0", max_requests=2)
    finally:
        note("helper lives" if helper.is_alive() else "helper is gone")
"""


def test_handlers_of_a_program_run_in_the_program(tmp_path: Path) -> None:
    """What a program registers before `wizgy.serve` runs once, in the program; what workers register runs in them."""
    (tmp_path / "app.py").write_text(PROGRAM, "utf-8")
    with ServerProcess(["app.py"], command=[sys.executable], directory=tmp_path) as server:
        server.wait_ready()
        for count in range(1, 4):
            assert get(server.address, "/") == (200, b"True")
            get(server.address, "/")
            wait_until(lambda count=count: notes(tmp_path).count("worker after") == count, "the worker ends")  # type: ignore[misc]
        assert server.stop() == 0
        assert "Traceback" not in server.stderr
        found = notes(tmp_path)
        assert found.count("worker finalizer after") == found.count("worker after") >= 3
        # The second finalizer is registered in a worker that the program does not know of.
        assert sorted(line for line in found if line.startswith("program")) == [
            "program before",
            "program finalizer before",
            "program helper lives",
        ]
        assert not [line for line in found if line.startswith("worker") and "before" in line]


def test_handlers_around_the_command_run_in_workers(tmp_path: Path) -> None:
    """An agent that wraps the command, as opentelemetry-instrument does, flushes in each worker."""
    (tmp_path / "app.py").write_text(WORK, "utf-8")
    agent = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: open('flushed', 'a').write(f'{os.getpid()}\\n'))\n"
        "from wizgy.cli import main\nmain()"
    )
    arguments = ["--bind", "127.0.0.1:0", "app:app"]
    with ServerProcess(arguments, command=[sys.executable, "-c", agent], directory=tmp_path) as server:
        server.wait_ready()
        worker = get(server.address, "/")[1].decode()
        assert server.stop() == 0
        assert (tmp_path / "flushed").read_text("ascii").split() == [worker, str(server.pid)]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_handler_that_is_replaced_is_told(tmp_path: Path, number: str) -> None:
    """A handler of the application for a signal that wizgy takes is named once, with atexit as the way."""
    source = f"""
    import signal
    signal.signal(signal.{number}, lambda *arguments: print("called", flush=True))
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]
    """
    with serving(tmp_path, source) as server:
        assert get(server.address, "/") == (200, b"ok")
        assert server.stop() == 0
        assert server.stderr.count(f"has a handler for {number}") == 1
        assert server.stderr.count("atexit") == 1
        assert "called" not in server.stdout


def test_handler_of_a_program_that_is_replaced_is_told(tmp_path: Path) -> None:
    """The same for the program around `wizgy.serve`, said by the supervisor and not again by each worker."""
    source = """
    import signal
    import wizgy
    signal.signal(signal.SIGTERM, lambda *arguments: None)
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]
    if __name__ == "__main__":
        wizgy.serve(app, bind="127.0.0.1:0", workers=2)
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(source), "utf-8")
    with ServerProcess(["app.py"], command=[sys.executable], directory=tmp_path) as server:
        server.wait_ready()
        assert server.stop() == 0
        assert server.stderr.count("has a handler for SIGTERM") == 1


@pytest.mark.parametrize("who", ["worker", "program"])
def test_signal_without_a_name(tmp_path: Path, who: str) -> None:
    """A signal that means nothing to wizgy is the application's alone, and ends neither worker nor supervisor."""
    source = """
    import os, signal
    import wizgy
    NUMBER = signal.SIGRTMIN + 3
    signal.signal(NUMBER, lambda *arguments: print("handled in", os.getpid(), flush=True))
    def app(environ, start_response):
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
    if __name__ == "__main__":
        wizgy.serve(app, bind="127.0.0.1:0")
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(source), "utf-8")
    with ServerProcess(["app.py"], command=[sys.executable], directory=tmp_path) as server:
        server.wait_ready()
        worker = int(get(server.address, "/")[1])
        target = worker if who == "worker" else server.pid
        for _ in range(3):
            os.kill(target, signal.SIGRTMIN + 3)
            server.wait_stdout(f"handled in {target}")
        assert int(get(server.address, "/")[1]) == worker
        assert server.stop() == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full"])
@pytest.mark.parametrize("before", ["", "print('unflushed')", "sys.stdout and sys.stdout.close()", "sys.stdout = None"])
def test_program_without_standard_streams(tmp_path: Path, closed: str, before: str) -> None:
    """`wizgy.serve` serves whether standard output and error are missing, closed or full, and whoever closed them."""
    source = f"""
    import sys
    import wizgy
    def app(environ, start_response):
        environ["wsgi.errors"].write("said by the view\\n")
        start_response("200 OK", [])
        return [b"ok"]
    if __name__ == "__main__":
        {before or "pass"}
        wizgy.serve(app, bind="unix:wizgy.sock", access_log="-", max_requests=2)
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(source), "utf-8")
    command = ["sh", "-c", f'exec {sys.executable} app.py 2>"$PWD/log" {closed}']
    with ServerProcess([], command=command, directory=tmp_path, environment={"PYTHONUNBUFFERED": ""}) as server:
        path = str(tmp_path / "wizgy.sock")
        wait_until(lambda: not is_refused(path), "it listens")
        for _ in range(5):
            assert get(path, "/") == (200, b"ok")
        assert server.returncode is None
        server.signal(signal.SIGTERM)
        assert server.wait() in (0, 120)  # 120: Python itself could not flush standard output at its end
