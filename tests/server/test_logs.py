"""The access log and the wire dump of a running server."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.frameworks import ROOT
from tests.server.client import (
    FOLDER,
    TIMEOUT,
    Address,
    children,
    connect,
    get,
    read_all,
    read_answer,
    request,
    start,
    wait_until,
)

COMBINED = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"(?P<request>[^"]*)" (?P<status>\d+) (?P<size>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)


def lines_of(file: Path, count: int) -> list[str]:
    """The lines of a log, once there are `count`."""

    def find() -> list[str]:
        text = file.read_text("ascii")
        return text.splitlines() if text.count("\n") >= count else []

    return wait_until(find, f"{count} lines in the access log")


def test_combined_log(tmp_path: Path) -> None:
    """One request is one line of the combined format, whatever the client puts into it (CVE-2020-7694)."""
    file = tmp_path / "access.log"
    with start("--access-log", str(file)) as server, connect(server.address) as sock:
        sock.sendall(request('/a"b\\c?d', 'Referer: x"y\\', "User-Agent: \x1b[31m".replace("\x1b", "\x9b")))
        assert read_answer(sock)[0].status == 200
        sock.sendall(request("/big/70000"))
        read_answer(sock)
        sock.sendall(b"nonsense\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
        lines = lines_of(file, 3)
    assert len(lines) == 3
    found = [COMBINED.fullmatch(line) for line in lines]
    first, second, third = found
    assert first is not None
    assert second is not None
    assert third is not None
    assert first["request"] == r"GET /a\x22b\x5cc?d HTTP/1.1"
    assert first["referer"] == r"x\x22y\x5c"
    assert first["agent"] == r"\x9b[31m"
    assert (second["status"], second["size"]) == ("200", "70000")
    assert (third["request"], third["status"]) == ("-", "400")


def test_json_log(tmp_path: Path) -> None:
    """Each line of the JSON format is an object."""
    file = tmp_path / "access.log"
    with start("--access-log", str(file), "--access-log-format", "json") as server:
        get(server.address, '/a"b')
        get(server.address, "/exit")
        first, second = map(json.loads, lines_of(file, 2))
    assert (first["method"], first["target"], first["status"]) == ("GET", '/a"b', 200)
    assert first["content_length"] == len(b"hello\n")
    assert 0 <= first["duration"] < 10
    assert second["status"] == 500


@pytest.mark.parametrize("pieces", [[b"GET /bad HTTP/1.1\r\n\r\n"], [b"GET /bad HTTP/1.1\r\n", b"\r\n"]])
def test_time_of_a_request_that_is_refused(pieces: list[bytes]) -> None:
    """The time for which a connection was idle is not that of the request that is refused after it."""
    arguments = ["--trace", "--access-log", "-", "--access-log-format", "%>s %D"]
    with start(*arguments) as server, connect(server.address) as sock:
        sock.sendall(request())
        assert read_answer(sock)[0].status == 200
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 1, "a second passes")
        for piece in pieces:
            sock.sendall(piece)
            server.wait_stdout("^< GET /bad ")
        assert read_answer(sock)[0].status == 400
        assert int(server.wait_stdout(r"^400 (\d+)$")[1]) < 500_000


def test_log_of_ones_own_format(tmp_path: Path) -> None:
    """A format of one's own has fields of request and answer, and says how long it took."""
    file = tmp_path / "access.log"
    line_format = '%h "%r" %>s %B %{ms}T %{content-type}o %{content-length}o "%{x-a}i" %P 100%%'
    with start("--access-log", str(file), "--access-log-format", line_format) as server:
        with connect(server.address) as sock:
            sock.sendall(request("/big/70000?x", 'X-A: a"b'))
            read_answer(sock)
        get(server.address, "/sleep/100")
        get(server.address, "/fail/it")
        lines = lines_of(file, 3)  # each is written after its answer, so another connection's may come first
        sized, slow, failed = (line for path in ("/big", "/sleep", "/fail") for line in lines if f"GET {path}" in line)
        [worker] = children(server.pid)
    assert sized.startswith('127.0.0.1 "GET /big/70000?x HTTP/1.1" 200 70000 ')
    assert sized.endswith(rf' text/plain 70000 "a\x22b" {worker} 100%')
    end = rf'"-" {worker} 100%'
    found = re.fullmatch(r'127\.0\.0\.1 "GET /sleep/100 HTTP/1\.1" 200 6 (\d+) text/plain - ' + end, slow)
    assert found is not None
    assert 100 <= int(found[1]) < 5000
    assert re.fullmatch(r'127\.0\.0\.1 "GET /fail/it HTTP/1\.1" 500 \d+ \d+ - - ' + end, failed)


TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(address: Address, target: str, *fields: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask once: the answer, and its content."""
    with connect(address) as sock:
        sock.sendall(request(target, "Connection: close", *fields))
        return read_answer(sock)


def test_request_ids(tmp_path: Path) -> None:
    """With --request-id one id is in environ, answer, access log, error log and what goes to wsgi.errors."""
    file = tmp_path / "access.log"
    with start("--request-id", "--access-log", str(file), "--access-log-format", "json") as server:
        answer, content = ask(server.address, "/environ", "X-Request-ID: from-a-stranger")
        told = answer.getheader("X-Request-ID")
        assert json.loads(content)["wizgy.request_id"] == told
        failed = ask(server.address, "/fail/it", f"traceparent: {TRACE_PARENT}")[0].getheader("X-Request-ID")
        printed = ask(server.address, "/print/3?it")[0].getheader("X-Request-ID")
        refused = ask(server.address, "/hello", "Transfer-Encoding: nonsense")[0].getheader("X-Request-ID")
        own = ask(server.address, "/id/my-own")[0]
        # Each is written after its answer, so another connection's may come first.
        lines = {line["target"]: line for line in map(json.loads, lines_of(file, 5))}
        server.wait_stderr(rf"^\[{printed}\] it line 0\nit line 1\nit line 2$")
        server.wait_stderr(rf"ERROR: \[{failed}\] GET /fail/it: The application failed\.\nTraceback")
    ids = [told, failed, printed, refused]
    assert None not in ids
    assert len(set(ids)) == 4
    targets = ("/environ", "/fail/it", "/print/3?it", "/hello")
    assert [lines[target]["request_id"] for target in targets] == ids
    assert [lines[target]["traceparent"] for target in targets] == [None, TRACE_PARENT, None, None]
    assert own.headers.get_all("X-Request-ID") == ["my-own"]


def test_request_id_of_a_proxy() -> None:
    """X-Request-ID of a trusted proxy is the id, if it is one that may stand in a log."""
    with start("--request-id", "--trust-proxy", "127.0.0.1") as server:
        for field, is_taken in ("from-the-proxy", True), ("a b", False), ("x" * 129, False):
            answer, content = ask(server.address, "/environ", f"X-Request-ID: {field}")
            assert json.loads(content)["wizgy.request_id"] == answer.getheader("X-Request-ID")
            assert (answer.getheader("X-Request-ID") == field) is is_taken


def test_without_request_ids(tmp_path: Path) -> None:
    """Without --request-id client and application are told none, and the logs of one fault have the same one."""
    file = tmp_path / "access.log"
    arguments = ("--log-format", "json", "--access-log", str(file), "--access-log-format", "json")
    with start(*arguments) as server:
        answer, content = ask(server.address, "/environ")
        assert answer.getheader("X-Request-ID") is None
        assert "wizgy.request_id" not in json.loads(content)
        ask(server.address, "/fail/it", f"traceparent: {TRACE_PARENT}")
        ask(server.address, "/print/2?it")
        event = json.loads(server.wait_stderr(r"^\{.*failed it.*\}$")[0])
        text = json.loads(server.wait_stderr(r"^\{.*it line.*\}$")[0])
        lines = {line["target"]: line for line in map(json.loads, lines_of(file, 3))}
    assert (event["request_id"], event["traceparent"]) == (lines["/fail/it"]["request_id"], TRACE_PARENT)
    assert len({line["request_id"] for line in lines.values()}) == 3
    assert (text["message"], text["request_id"], text["logger"]) == ("it line 0\nit line 1", "", "wsgi.errors")


def test_log_on_standard_output() -> None:
    """`--access-log -` writes to standard output, and a failing application is one line too."""
    with start("--access-log", "-") as server:
        for target in "/hello", "/exit", "/hello":
            get(server.address, target)
        wait_until(lambda: server.stdout.count("\n") == 3, "three lines")
        # A line is written after its answer, so another connection's may come first.
        assert sorted(line.split('" ')[1][:3] for line in server.stdout.splitlines()) == ["200", "200", "500"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_as_many_lines_as_requests(tmp_path: Path, workers: str) -> None:
    """Every request is one line, none split, however many workers write to one file (fault 17)."""
    file = tmp_path / "access.log"
    with start("--access-log", str(file), "--workers", workers) as server:
        for _ in range(10):
            with connect(server.address) as sock:
                sock.sendall(request() * 20 + request("/hello", "Connection: close"))
                assert read_all(sock).count(b"hello\n") == 21
        lines = lines_of(file, 210)
    assert len(lines) == 210
    assert all(COMBINED.fullmatch(line) for line in lines)


def test_full_device_fails_no_request() -> None:
    """A log that cannot be written fails no request (fault 16)."""
    with start("--access-log", "/dev/full") as server:
        for _ in range(3):
            assert get(server.address) == (200, b"hello\n")


def test_trace() -> None:
    """`--trace` shows what came after `<` and what went after `>`, as `curl -v` does, controls escaped."""
    with start("--trace") as server, connect(server.address) as sock:
        sock.sendall(request("/hello", "X-A: \x9b1mred", "Connection: close"))
        read_all(sock)
        wait_until(lambda: "> hello\n" in server.stdout, "the trace")
        lines = server.stdout.splitlines()
    assert lines[:2] == ["< GET /hello HTTP/1.1", "< Host: localhost"]
    assert r"< X-A: \x9b1mred" in lines
    assert "> HTTP/1.1 200 OK" in lines
    assert all(line[:2] in ("< ", "> ") for line in lines)


@contextmanager
def logging_to(path: str, **streams: Any) -> Iterator[None]:
    """A server that has answered a request, with that access log and these arguments of `subprocess.Popen`."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = ("127.0.0.1", found.getsockname()[1])
    bind = f"{address[0]}:{address[1]}"
    command = [
        sys.executable,
        "-m",
        "wizgy",
        "--chdir",
        str(FOLDER),
        "--bind",
        bind,
        "--access-log",
        path,
        "served:app",
    ]
    process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "server")}, **streams)
    with process:
        try:
            wait_until(lambda: is_answered(address), "an answer")
            yield
        finally:
            process.terminate()
            assert process.wait(TIMEOUT) == 0


def is_answered(address: Address) -> bool:
    """Whether a request is answered."""
    try:
        return get(address, "/logged")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_that_is_a_socket(path: str) -> None:
    """A path that stands for a descriptor is written by it: a socket cannot be opened once more."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(TIMEOUT)
        with logging_to(path, stdout=there):
            assert b'"GET /logged HTTP/1.1" 200' in here.recv(65536)


def test_link_to_standard_error(tmp_path: Path) -> None:
    """A link to /dev/stderr, as images have it for their logs, is standard error."""
    link = tmp_path / "access.log"
    link.symlink_to("/dev/stderr")
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(TIMEOUT)
        said = b""
        with logging_to(str(link), stderr=there):
            while b'"GET /logged HTTP/1.1" 200' not in said:
                said += here.recv(65536)
        assert b"wizgy: Serving HTTP on" in said


def test_inherited_descriptor(tmp_path: Path) -> None:
    """A descriptor that the server was started with may be its access log, also a file, which is not begun anew."""
    file = tmp_path / "log"
    with file.open("wb", buffering=0) as opened:
        opened.write(b"before\n")
        number = opened.fileno()
        with logging_to(f"/dev/fd/{number}", pass_fds=[number], stderr=subprocess.DEVNULL):
            lines = lines_of(file, 2)
    assert lines[0] == "before"
    assert '"GET /logged HTTP/1.1" 200' in lines[1]


def test_descriptor_that_cannot_be_written(tmp_path: Path) -> None:
    """A descriptor that is not open, or not for writing, is wrong usage."""
    file = tmp_path / "log"
    file.write_bytes(b"")
    command = [sys.executable, "-m", "wizgy", "served:app", "--access-log"]
    with file.open("rb") as opened:
        number = opened.fileno()
        for path, expected in (
            (f"/dev/fd/{number}", f"expected a descriptor that is open for writing, and {number} is not"),
            ("/proc/self/fd/99", "expected a descriptor that is open, and 99 is not"),
        ):
            environment = {"PYTHONPATH": str(ROOT / "server")}
            ended = subprocess.run([*command, path], env=environment, pass_fds=[number], capture_output=True, text=True)
            assert ended.returncode == 2
            assert expected in ended.stderr


def test_named_pipe_that_nothing_reads(tmp_path: Path) -> None:
    """A named pipe that nothing reads keeps the server from nothing; a reader that comes gets the lines."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with start("--access-log", str(fifo)) as server:
        assert get(server.address, "/before")[0] == 200
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert get(server.address, "/after")[0] == 200
            server.signal(signal.SIGUSR1)
            said = bytearray()

            def read_on() -> bool:
                try:
                    said.extend(os.read(reader, 65536))
                except BlockingIOError:
                    pass
                return said.count(b"\n") == 2

            wait_until(read_on, "both lines")
            assert b"/before" in said
            assert server.stop() == 0
        finally:
            os.close(reader)
