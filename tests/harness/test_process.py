"""A server process under the harness: readiness, signals, output and its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess, ServerProcessError

PYTHON = (sys.executable, "-c")

READY = "wizgy: Serving HTTP on 127.0.0.1 port 8888 ..."


def process(*lines: str) -> ServerProcess:
    """Start a process that runs lines of Python; `log` writes a line to standard error."""
    head = "import os, signal, sys, time; log = lambda text: print(text, file=sys.stderr)"
    return ServerProcess(["\n".join([head, *lines])], command=PYTHON)


def test_ready_line_has_the_address() -> None:
    """The address of a server is that of its first ready line; IPv6 hosts have brackets."""
    second = "wizgy: Serving HTTP on [::1] port 8889 ..."
    with process("log('starting')", f"log({READY!r})", f"log({second!r})", "time.sleep(60)") as it:
        assert it.wait_ready(count=2) == ("127.0.0.1", 8888)
        assert it.addresses[1] == ("[::1]", 8889)


def test_end_before_the_ready_line() -> None:
    """A server that ends before it is ready is an error that shows its status and log."""
    with (
        process("log('no such app')", "sys.exit(3)") as server,
        pytest.raises(ServerProcessError, match=r"(?s)exit status 3 .*no such app"),
    ):
        server.wait_ready()


def test_no_ready_line_in_time() -> None:
    """A server that is not ready in time is an error that shows its log."""
    with process("log('starting')", "time.sleep(60)") as server:
        server.wait_stderr("starting")
        with pytest.raises(ServerProcessError, match=r"(?s)within 0.1 s.*starting"):
            server.wait_ready(0.1)


def test_signal_and_new_output() -> None:
    """Output that a signal causes is told apart from what was there before."""
    handler = "signal.signal(signal.SIGHUP, lambda *_: log('hung up'))"
    with process(handler, f"log({READY!r})", "while True: time.sleep(60)") as server:
        server.wait_ready()
        for _ in range(2):
            start = len(server.stderr)
            server.signal(signal.SIGHUP)
            assert server.wait_stderr("^hung up$", start=start).start() >= start


def test_stop_returns_the_exit_status() -> None:
    """Stopping sends SIGTERM and returns the exit status and all output."""
    handler = "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(7)))"
    with process(handler, f"log({READY!r})", "time.sleep(60)") as server:
        server.wait_ready()
        assert server.stop() == 7
        assert server.stdout == "bye\n"


def test_stop_that_takes_too_long() -> None:
    """A server that ignores SIGTERM is an error, and is killed all the same."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    server = process(ignore, f"log({READY!r})", "time.sleep(60)")
    server.wait_ready()
    with pytest.raises(ServerProcessError, match=r"still running after 0\.1 s"):
        server.stop(0.1)

    assert server.returncode == -signal.SIGKILL


def test_leaving_kills_the_workers() -> None:
    """Nothing that a server started outlives it."""
    fork = "worker = os.fork() or time.sleep(60)"
    with process(fork, "log(f'worker {worker}')", f"log({READY!r})", "time.sleep(60)") as server:
        worker = int(server.wait_stderr(r"^worker (\d+)$")[1])
        server.wait_ready()

    deadline = time.monotonic() + 10
    while _runs(worker):
        assert time.monotonic() < deadline, "the worker still runs"
        time.sleep(0.01)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gets the variables of the test, and no settings from outside."""
    monkeypatch.setenv("WIZGY_THREADS", "1")
    code = "import os; print(os.environ.get('WIZGY_THREADS'), os.environ['WIZGY_WORKERS'])"
    with ServerProcess([code], command=PYTHON, environment={"WIZGY_WORKERS": "2"}) as server:
        assert server.wait() == 0
        assert server.stdout == "None 2\n"


def _runs(pid: int) -> bool:
    """Say whether a process runs; one that has ended may wait for its parent as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
