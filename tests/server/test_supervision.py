"""Where the life of a worker and that of the server cross: a first start that fails, a path that changes hands."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
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
    is_refused,
    read_answer,
    request,
    serving_workers,
    start,
    wait_until,
)
from wizgy.child import Child
from wizgy.generation import Generation
from wizgy.link import Order, make_link
from wizgy.sources import check_keywords
from wizgy.supervisor import QUICK_DEATH, TICK

GOOD = "from served import app\n"


def serve(folder: Path, *arguments: str, source: str) -> ServerProcess:
    """Start a server for `app` of a module with that source; it may not become ready."""
    (folder / "own.py").write_text(source, "utf-8")
    path = os.pathsep.join([str(ROOT / "server"), str(FOLDER)])
    return ServerProcess(
        ["--bind", "127.0.0.1:0", *arguments, "own:app"],
        directory=folder,
        environment={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )


# A path that changes hands


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_path_of_the_next_server_stays(tmp_path: Path, number: signal.Signals) -> None:
    """A server that still finishes does not remove the Unix socket that the next one has made at the same path."""
    path = str(tmp_path / "s.sock")
    with start("--bind", f"unix:{path}", "--trace") as old, connect(path) as sock:
        (worker,) = children(old.pid)
        sock.sendall(request("/sleep/2000"))
        old.wait_stdout("sleeps in")
        old.signal(number)
        wait_until(lambda: is_refused(path), "the old one listens no more")
        with start("--bind", f"unix:{path}") as new:
            assert read_answer(sock)[0].status == 200
            wait_until(lambda: not is_alive(worker), "the old worker ends")
            old.wait()
            assert get(path) == (200, b"hello\n")
            assert new.stop() == 0
    assert not os.path.exists(path)


def test_path_where_the_queue_is_full(tmp_path: Path) -> None:
    """A path on which a process listens that is too busy to accept is in use, and trying it does not wait."""
    path = str(tmp_path / "full.sock")
    settings = tmp_path / "wizgy.toml"
    settings.write_text('bind = ["127.0.0.1:0"]\n', "utf-8")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        for _ in range(2):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                break
        command = ["--config", str(settings), "--chdir", str(FOLDER), "served:app"]
        server = stack.enter_context(ServerProcess(command, directory=tmp_path))
        server.wait_ready()
        settings.write_text(f'bind = ["unix:{path}"]\n', "utf-8")
        server.signal(signal.SIGHUP)
        server.wait_stderr("The reload failed: Cannot listen on unix:.*Address already in use", 5)
        assert get(server.address) == (200, b"hello\n")


@pytest.mark.parametrize("host", ["a..b", "l" * 70])
def test_name_that_is_none(tmp_path: Path, host: str) -> None:
    """A host name with a slip, which cannot be encoded (RFC 5891), costs a failed start or reload and no more."""
    settings = tmp_path / "wizgy.toml"
    settings.write_text('bind = ["127.0.0.1:0"]\n', "utf-8")
    command = ["--config", str(settings), "--chdir", str(FOLDER), "served:app"]
    with ServerProcess(command, directory=tmp_path) as server:
        server.wait_ready()
        settings.write_text(f'bind = ["{host}:8000"]\n', "utf-8")
        server.signal(signal.SIGHUP)
        server.wait_stderr(f"The reload failed: Cannot listen on {host}:8000: that is no name of a host")
        assert get(server.address) == (200, b"hello\n")
    with ServerProcess(command, directory=tmp_path) as server:
        assert server.wait() == 4
        assert "Traceback" not in server.stderr


# The first start


def test_change_during_the_first_start(tmp_path: Path) -> None:
    """A change while the first worker loads is no failed start: the server goes on, and sees the next change."""
    slow = "import time; open('loading', 'w').close(); time.sleep(1)\n"
    with serve(tmp_path, "--reload", source=slow + GOOD) as server:
        wait_until((tmp_path / "loading").exists, "the application loads")
        (tmp_path / "own.py").write_text(f"{GOOD}# once\n", "utf-8")
        server.wait_ready()
        (before,) = serving_workers(server, 1)
        (tmp_path / "own.py").write_text(f"{GOOD}# twice\n\n", "utf-8")
        wait_until(lambda: not is_alive(before), "another worker")
        assert get(server.address) == (200, b"hello\n")
        assert server.stop() == 0


def test_change_during_a_first_start_that_will_not_stop(tmp_path: Path) -> None:
    """The same where the application ignores TERM while it loads: it is killed, and that is no failed start either."""
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('loading', 'w').close()\n"
    slow = f"import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n{GOOD}"
    with serve(tmp_path, "--reload", source=f"{deaf}time.sleep(1000)\n") as server:
        wait_until((tmp_path / "loading").exists, "the application loads")
        (before,) = children(server.pid)
        (tmp_path / "own.py").write_text(slow, "utf-8")
        wait_until(lambda: not is_alive(before), "it is killed")
        (tmp_path / "go").touch()
        server.wait_ready()
        assert get(server.address) == (200, b"hello\n")
        assert "first worker" not in server.stderr


def test_first_start_that_takes_too_long(tmp_path: Path) -> None:
    """When the first worker does not load in time the server ends with 3, whatever another one might have done."""
    source = f"import os, time\nif not os.path.exists('tried'):\n    open('tried', 'w'); time.sleep(1000)\n{GOOD}"
    with serve(tmp_path, "--workers", "2", "--load-timeout", "1", source=source) as server:
        assert server.wait() == 3
        assert "has not loaded the application in 1 s (--load-timeout)" in server.stderr
        assert "Serving" not in server.stderr


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL before it was ready"),
        ("os._exit(0)", "exited 0 before it was ready"),
        ("os._exit(2)", "exited 2 before it was ready"),
    ],
)
def test_first_worker_dies(tmp_path: Path, end: str, said: str) -> None:
    """The death of the first worker while it loads is told, and its status does not pass for one of wizgy's own."""
    with serve(tmp_path, source=f"import os\n{end}\n") as server:
        assert server.wait() == 1
        assert f"The first worker {said}." in server.stderr


def test_loading_worker_goes_with_the_supervisor(tmp_path: Path) -> None:
    """A worker that still loads ends within two seconds of its supervisor, and leaves the port (fault 20)."""
    source = "import time; open('loading', 'w').close(); time.sleep(1000)\n"
    with serve(tmp_path, source=source) as server:
        wait_until((tmp_path / "loading").exists, "the application loads")
        (worker,) = children(server.pid)
        server.signal(signal.SIGUSR1)  # which is for those that serve
        server.signal(signal.SIGUSR2)
        server.wait_stderr(r'own\.py", line 1 in <module>')  # so it lives still
        assert is_alive(worker)
        server.signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(worker), "the worker has ended", 2)


def test_log_is_reopened_by_who_was_loading() -> None:
    """A worker hears that the logs were rotated once it serves: while it loads any message would end it."""
    ours, link = make_link()
    generation = Generation(check_keywords({}), [], None)
    child = Child(0, ours, generation)
    child.reopen()
    assert link.read() == b""
    child.ready()
    assert link.read() == bytes([Order.REOPEN])
    ours.close()
    link.close()


# One fewer, and one that was meant for the whole


def test_fewer_workers_are_as_ready() -> None:
    """With one worker fewer the server stays ready: nobody asks the one that goes, or is told that it goes."""
    with start("--workers", "3", "--health", "--drain-delay", "5") as server:
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded: ")  # so it knows that all three are ready
        wait_until(lambda: len(children(server.pid)) == 3, "the first three have ended", 20)
        server.signal(signal.SIGTTOU)
        while len(children(server.pid)) == 3:
            assert get(server.address, "/readyz") == (200, b"ok\n")
        assert get(server.address, "/readyz") == (200, b"ok\n")


def test_worker_that_somebody_stops() -> None:
    """TERM to a worker alone: it finishes what it has begun, and another one serves meanwhile."""
    with start() as server, connect(server.address) as sock:
        (worker,) = children(server.pid)
        sock.sendall(request("/sleep/3000"))
        server.wait_stdout("sleeps in")
        os.kill(worker, signal.SIGTERM)
        server.wait_stderr(f"Worker {worker} was told to stop, not by wizgy; another one takes its place.")
        assert int(get(server.address, "/pid")[1]) != worker
        assert is_alive(worker)
        assert read_answer(sock)[0].status == 200
        wait_until(lambda: not is_alive(worker), "it has ended")
        assert server.stop() == 0


def test_workers_that_stop_themselves(tmp_path: Path) -> None:
    """Workers that never last, as something sends TERM to each, are replaced ever more slowly."""
    end = "import os, signal, threading\nthreading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()\n"
    with serve(tmp_path, source=GOOD + end) as server:
        server.wait_ready()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 3, "some of them have come and gone")
        assert 2 <= server.stderr.count("was told to stop") <= 6


def test_loading_worker_that_will_not_stop(tmp_path: Path) -> None:
    """A worker on trial whose application ignores TERM does not hold up the next reload."""
    with serve(tmp_path, "--graceful-timeout", "30", source=GOOD) as server:
        server.wait_ready()
        deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('loading', 'w').close()\n"
        (tmp_path / "own.py").write_text(f"{deaf}time.sleep(1000)\n", "utf-8")
        server.signal(signal.SIGHUP)
        wait_until((tmp_path / "loading").exists, "it loads")
        (tmp_path / "own.py").write_text(f"{GOOD}# mended\n", "utf-8")
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded: ", 5)
        wait_until(lambda: len(children(server.pid)) == 1, "the others have gone")
        assert "graceful timeout" not in server.stderr


def test_death_of_who_was_to_finish() -> None:
    """A worker that dies while it finishes what it has begun does not do so silently."""
    with start("--workers", "2") as server, connect(server.address) as sock:
        serving_workers(server, 2)
        sock.sendall(request("/sleep/20000"))
        worker = int(server.wait_stdout(r"sleeps in (\d+)")[1])
        server.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(server.address), "nobody listens")
        os.kill(worker, signal.SIGKILL)
        assert server.wait() == 0
        assert f"Worker {worker}, which was to finish what it had begun, was killed by SIGKILL." in server.stderr


def test_worker_that_has_ended_is_not_signalled(tmp_path: Path) -> None:
    """What a worker has said before it died is no reason to send it a signal: its id may be another's."""
    source = "import os, time; open('loading', 'w').close()\n"
    source += "while not os.path.exists('end'):\n    time.sleep(0.01)\nos._exit(7)\n"
    with serve(tmp_path, "--reload", source=source) as server:
        wait_until((tmp_path / "loading").exists, "the application loads")
        (worker,) = children(server.pid)
        server.signal(signal.SIGSTOP)
        (tmp_path / "own.py").write_text(GOOD, "utf-8")
        server.wait_stderr("Changed: own.py")
        (tmp_path / "end").touch()
        wait_until(lambda: not is_alive(worker), "it has ended")
        server.signal(signal.SIGCONT)
        server.wait_ready()
        assert get(server.address) == (200, b"hello\n")


def is_to_be_reaped(pid: int) -> bool:
    """Whether a process has ended with all its threads, and its parent has not asked for it yet."""
    return not is_alive(pid) and len(os.listdir(f"/proc/{pid}/task")) == 1


def test_workers_that_fail_together_are_one_attempt(tmp_path: Path) -> None:
    """When four workers cannot load, that is one failed attempt and not four; after it one of them tries (fault 10)."""
    broken = tmp_path / "broken"
    source = f"import os\nassert not os.path.exists({str(broken)!r}), 'no database'\n{GOOD}"
    with serve(tmp_path, "--workers", "4", source=source) as server:
        server.wait_ready()
        workers = serving_workers(server, 4)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > QUICK_DEATH, "they have lived long enough")
        broken.touch()
        server.signal(signal.SIGSTOP)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: all(map(is_to_be_reaped, workers)), "all four are dead")
        server.signal(signal.SIGCONT)
        failed = r"before it was ready; another one (?:takes its place|is tried in ([\d.]+) s)"
        wait_until(lambda: len(re.findall(failed, server.stderr)) >= 6, "six failures", 20)
        first, *others, fifth, sixth = (float(wait or 0) for wait in re.findall(failed, server.stderr)[:6])
        assert max(others) <= first
        assert [fifth, sixth] == [2 * first, 4 * first]
        assert len(children(server.pid)) <= 1
        broken.unlink()
        serving_workers(server, 4, 20)


# Descriptors


# What gives a server a socket as descriptor 5.
INHERIT = """
import os, socket, sys
sock = socket.create_server(("127.0.0.1", 0))
os.dup2(sock.fileno(), 5)
sock.close()
os.set_inheritable(5, True)
os.execv(sys.executable, [sys.executable, "-m", "wizgy", *sys.argv[1:]])
"""


def test_inherited_socket_outlives_a_failed_reload(tmp_path: Path) -> None:
    """A reload that fails does not close a socket that the server was started with: the next one finds it."""
    settings = tmp_path / "wizgy.toml"
    settings.write_text('bind = ["127.0.0.1:0"]\n', "utf-8")
    module = tmp_path / "own.py"
    module.write_text(GOOD, "utf-8")
    with ServerProcess(
        ["--config", str(settings), "own:app"],
        command=[sys.executable, "-c", INHERIT],
        directory=tmp_path,
        environment={"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(FOLDER)])},
    ) as server:
        server.wait_ready()
        settings.write_text('bind = ["127.0.0.1:0", "fd:5"]\n', "utf-8")
        module.write_text("nonsense\n", "utf-8")
        server.signal(signal.SIGHUP)
        server.wait_stderr("The reload failed: ")
        module.write_text(f"{GOOD}#\n", "utf-8")
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded: ")
        server.wait_ready(count=2)
        assert get(server.addresses[1]) == (200, b"hello\n")
        assert server.stop() == 0


def test_programs_do_not_inherit_sockets(tmp_path: Path) -> None:
    """A program that the application starts has no socket of the server's, nor one that the server was started with."""
    (tmp_path / "own.py").write_text(f"import os\nos.system('ls -l /proc/self/fd > descriptors')\n{GOOD}", "utf-8")
    with ServerProcess(
        ["--bind", "fd:5", "own:app"],
        command=[sys.executable, "-c", INHERIT],
        directory=tmp_path,
        environment={"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(FOLDER)])},
    ) as server:
        server.wait_ready()
        assert "socket:" not in (tmp_path / "descriptors").read_text("ascii")


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_closed_standard_files(closed: str) -> None:
    """A server that is started with standard files closed serves: no socket takes their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    command = [sys.executable, "-m", "wizgy", "--bind", f"127.0.0.1:{address[1]}", "--access-log", "-", "served:app"]
    shell = " ".join(f"{number}>&-" for number in closed)
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {shell}', "sh", *command],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": str(ROOT / "server")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: process.poll() is not None or not is_refused(address), "it serves")
        assert get(address) == (200, b"hello\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_stacks_where_nobody_reads_them(tmp_path: Path) -> None:
    """USR2 while standard error is full shows nothing, and costs no request: no thread waits for it."""
    reader, writer = os.pipe()
    path = str(tmp_path / "s.sock")
    process = subprocess.Popen(
        [sys.executable, "-m", "wizgy", "--bind", f"unix:{path}", "served:app"],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": str(ROOT / "server")},
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.set_blocking(writer, False)
    try:
        wait_until(lambda: not is_refused(path), "it serves")
        (worker,) = wait_until(lambda: children(process.pid), "a worker")
        try:
            while True:
                os.write(writer, b"." * 65536)
        except BlockingIOError:
            pass
        process.send_signal(signal.SIGUSR2)
        began = time.monotonic()
        while time.monotonic() - began < 2 * TICK:  # within that it would have begun
            arguments = Path(f"/proc/{worker}/syscall").read_text("ascii").split()[1:2]
            assert arguments != ["0x2"], "its main thread waits for standard error"
        assert get(path) == (200, b"hello\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)
