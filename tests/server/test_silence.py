"""What an operator or a developer waits for is said: what a stop waits for, and what an application prints."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import pytest

import wizgy
from tests.server.client import children, connect, get, is_alive, read_all, request, start, wait_until
from tests.server.served import app

STOPPING = r"INFO: Stopping: waiting for (\d+) requests? until \d\d:\d\d:\d\d at most \(--graceful-timeout\)\."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_slow_stop_says_what_it_waits_for(number: signal.Signals) -> None:
    """A stop that takes more than a second says once how many requests it waits for, until when, and what ends it."""
    with start("--graceful-timeout", "20") as server:
        socks = [connect(server.address) for _ in range(3)]
        for sock in socks[:2]:
            sock.sendall(request("/sleep/60000"))
        for _ in range(2):
            server.wait_stdout("sleeps in")
        get(server.address)
        server.signal(number)
        assert server.wait_stderr(STOPPING + " A second Ctrl-C or TERM stops the server now")[1] == "2"
        server.signal(number)
        assert server.wait(timeout=5) == 0
        assert server.stderr.count("Stopping:") == 1
        for sock in socks:
            sock.close()


def test_quick_stop_and_reload_say_nothing() -> None:
    """A stop that waits for nothing is not explained, nor is an old worker that finishes beside its successor."""
    with start("--graceful-timeout", "20") as server, connect(server.address) as sock:
        [old] = children(server.pid)
        sock.sendall(request("/sleep/2500"))
        server.wait_stdout("sleeps in")
        server.signal(signal.SIGHUP)
        assert read_all(sock).endswith(b"slept\n")
        wait_until(lambda: not is_alive(old), "the old worker ends")
        assert server.stop() == 0
        assert "Stopping:" not in server.stderr


def test_drain_delay_is_said() -> None:
    """While --drain-delay keeps a server that was told to stop serving, the log says so."""
    with start("--drain-delay", "20") as server:
        server.signal(signal.SIGTERM)
        server.wait_stderr(r"Stopping: not ready, but serving for 20 s more \(--drain-delay\)\.")
        assert get(server.address)[0] == 200


def test_embedded_server_says_what_it_waits_for(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A server inside of a program says it as well; what a second signal does there is the program's business."""
    caplog.set_level("INFO", "wizgy")
    server = wizgy.make_server(("127.0.0.1", 0), app, graceful_timeout=20)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with connect(server.server_address) as sock:
        sock.sendall(request("/sleep/3000"))
        wait_until(lambda: "sleeps in" in capfd.readouterr().out, "the request is in the application")
        server.shutdown()
    [said] = [record.getMessage() for record in caplog.records if "Stopping" in record.getMessage()]
    assert re.fullmatch(STOPPING.removeprefix("INFO: "), said)


PRINTING = """
import io, os, sys
STREAM
def app(environ, start_response):
    if sys.stdout is not None:
        print("handled", environ["QUERY_STRING"], "ü")
    start_response("200 OK", [])
    return [b"ok"]
"""


@pytest.mark.parametrize(
    ("stream", "seen"),
    [
        ("", True),
        ("sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), 'wb'), encoding='utf-8')", True),
        ("sys.stdout = io.StringIO()", False),
        ("sys.stdout = None", False),
        ("sys.stdout.close()\nsys.stdout = open('/dev/null', 'w')", False),
    ],
    ids=["as it is", "wrapped", "in memory", "none", "closed"],
)
def test_what_is_printed_is_seen_at_once(tmp_path: Path, stream: str, seen: bool) -> None:
    """A line that an application prints is seen while its worker lives, also where it wraps standard output itself."""
    (tmp_path / "printing.py").write_text(PRINTING.replace("STREAM", stream), "utf-8")
    environment = {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": ""}
    with start("--chdir", str(tmp_path), app="printing:app", environment=environment) as server:
        assert get(server.address, "/?1") == (200, b"ok")
        if seen:
            server.wait_stdout("^handled 1 ü$")
            [worker] = children(server.pid)
            assert is_alive(worker)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_unbuffered_stays_unbuffered(tmp_path: Path, unbuffered: str) -> None:
    """Standard output that Python was told not to buffer at all stays so, and standard error is as Python made it."""
    code = "import sys\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
    code += "    return [f'{sys.stdout.write_through} {sys.stderr.line_buffering}'.encode()]\n"
    (tmp_path / "printing.py").write_text(code, "utf-8")
    environment = {"PYTHONUNBUFFERED": unbuffered}
    with start("--chdir", str(tmp_path), app="printing:app", environment=environment) as server:
        assert get(server.address)[1] == (b"True False" if unbuffered else b"False True")
