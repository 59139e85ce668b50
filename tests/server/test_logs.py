"""The access log and the wire dump of a running server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.server.client import connect, get, read_all, read_answer, request, start, wait_until

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
